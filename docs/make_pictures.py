"""Remake what the documents show of the built-in model; `make pictures` calls it with a Chromium.

From the exported run and page of `make report`, and an exported run of `dual-form`, come the pictures of `docs/` and
the table of controls in `reading-the-results.md`.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from lightning_icl.report.controls import controls_grid
from lightning_icl.results import read_run

DOCS = Path(__file__).resolve().parent
CONTROLS = {
    "this run": "**the run**",
    "shuffled-query": "update of another query's prompt",
    "labels-flipped": "labels flipped",
    "labels-random": "labels random",
    "other-task": "fine-tuned on another task",
    "ft-gaussian": "Gaussian update of FT's norm",
    "untrained": "untrained model",
}
COLUMNS = ("FT acc.", "ICL acc.", "Rec2FTP", "SimAOU", "raw", "SimAM", "Kendall")


def shrunk(picture: Path, to: Path, width: int = 1200) -> None:
    """Copy a picture, no wider than some pixels and with 256 colours."""
    with Image.open(picture) as image:
        image.thumbnail((width, width * 4))
        image.convert("RGB").quantize(256).save(to, optimize=True)


def photograph(page: Path, to: Path, chromium: str) -> None:
    """Save what a browser shows of a page's beginning."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        ]
        shot = Path(folder) / "shot.png"
        place = ["--window-size=1280,1520", f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run([chromium, *flags, *place], check=True, capture_output=True, timeout=120)
        shrunk(shot, to, width=1000)


def controls_table(run: Path) -> str:
    """Markdown: means over the tasks, of the run and of some of its controls."""
    grid = controls_grid(read_run(run))
    assert grid is not None
    places = [grid.header.index(name) for name in COLUMNS]
    rows = {row[0].split("\n")[0]: row for row in grid.rows}
    lines = ["", *COLUMNS], ["---", *["---:"] * len(COLUMNS)]
    body = [[title, *(rows[name][place].split("\n")[0] for place in places)] for name, title in CONTROLS.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [*lines, *body])


def main(run: Path, dual: Path, chromium: str) -> None:
    """Write the pictures and the table."""
    for name in ("sim_aou", "sim_am", "kendall"):
        shrunk(run / f"{name}.png", DOCS / "pictures" / f"{name}.png")
    for name in ("heads", "shares"):
        shrunk(dual / "tiny-sst2" / f"dual_{name}.png", DOCS / f"dual-form-{name}.png", width=1425)
    photograph(run / "report.html", DOCS / "pictures" / "report.png", chromium)
    page = DOCS / "reading-the-results.md"
    text = page.read_text(encoding="utf-8")
    table = re.compile(r"^\|[^\n]*FT acc\.[^\n]*\n(?:\|[^\n]*\n)+", flags=re.MULTILINE)
    page.write_text(table.sub(lambda _: controls_table(run), text), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
