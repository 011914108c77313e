"""The documentation site is not built of what does not work."""

import subprocess
import sys
from pathlib import Path

import yaml
from documented import ROOT


def test_a_cell_that_fails_stops_the_build(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = tmp_path / "docs"
    (pages / "notebooks").mkdir(parents=True)
    (pages / "index.md").write_text("# Home\n", encoding="utf-8")
    (pages / "notebooks" / "fails.py").write_text('# %%\nraise ValueError("of this cell")\n', encoding="utf-8")
    nav = [{"Home": "index.md"}, {"Fails": "notebooks/fails.py"}]
    changed = {"docs_dir": "docs", "site_dir": "site", "nav": nav, "hooks": [], "extra_css": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config | changed), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert ": of this cell" in done.stderr + done.stdout
