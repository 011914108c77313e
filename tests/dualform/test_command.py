"""`lightning-icl dual-form` from the command line to the files, and the mistakes it finds before weights load."""

import json
from pathlib import Path

import pytest
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.cli import main
from lightning_icl.dualform._content import left_out
from lightning_icl.dualform._probe import DualProbe
from lightning_icl.dualform.settings import parse_layers
from lightning_icl.errors import UserError

SMALL = ["--task", "tiny-cb", "--shots", "4", "--limit", "6", "--layers", "1-2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dual") / "out"
    main(["dual-form", *SMALL, "--export", "--out", str(out)])
    return out


def content(folder: Path) -> dict:
    return json.loads((folder / "tiny-cb" / "dual_form.json").read_text())


def test_the_file_holds_the_layers_asked_for_head_by_head(run: Path) -> None:
    found = content(run)
    assert found["layers"] == [1, 2]
    assert found["queries"]["count"] == 6
    assert found["model"]["left_out"] == []
    for name, values in found["per_head"].items():
        assert [len(row) for row in values] == [6, 6], name
        for row, mean in zip(values, found["per_layer"][name], strict=True):
            assert mean == pytest.approx(sum(row) / len(row)), name
    assert max(found["per_layer"]["identity_error"]) < 1e-5
    assert sum(item["share"] for item in found["demonstrations"]) == pytest.approx(1.0)
    assert all("True, False, or Neither? Answer:" in item["text"] for item in found["demonstrations"])
    assert all(item["text"].endswith(item["label"]) for item in found["demonstrations"])


def test_pictures_are_drawn_in_both_formats(run: Path) -> None:
    for name in ("dual_heads", "dual_shares"):
        assert (run / "tiny-cb" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (run / "tiny-cb" / f"{name}.svg").read_text()
    assert not list((run / "tiny-cb").glob(".*"))


def test_the_saved_configuration_gives_the_same_figures(run: Path, tmp_path: Path) -> None:
    main(["dual-form", "--config", str(run / "tiny-cb" / "config.yaml"), "--out", str(tmp_path / "again")])
    assert content(tmp_path / "again") == content(run)


def test_another_range_of_layers_gives_the_same_layer(run: Path, tmp_path: Path) -> None:
    main(["dual-form", *SMALL[:-1], "2", "--out", str(tmp_path / "one")])
    one = content(tmp_path / "one")
    assert one["layers"] == [2]
    for name, values in one["per_head"].items():
        assert values[0] == content(run)["per_head"][name][1], name


def test_tables_show_the_layers_and_the_demonstrations(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_icl.dualform.tables import print_dual

    print_dual(content(run))
    printed = capsys.readouterr().out
    shown = f"{content(run)['per_layer']['update_cosine'][1]:.3f}"
    assert shown in printed
    first = max(content(run)["demonstrations"], key=lambda item: item["share"])
    assert first["text"][:40] in printed


def test_known_answers_need_no_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_icl.dualform.commands.make_plan", None)
    main(["dual-form", "--synthetic"])
    assert "gradient descent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "2-9"], "no layer 9. Its layers are 0 to 3"),
        (["--layers", "3-1"], "no range of layers"),
        (["--layers", "first"], "'first' is no layer"),
        (["--rank", "0"], "--rank 0"),
        (["--limit", "0"], "--limit 0"),
        (["--lr", "-1"], "learning rate must be a positive number"),
        (["--layer", "1"], "unknown flag --layer. Did you mean '--layers'"),
        (["--task", "tiny-mrr"], "Did you mean 'tiny-mr'"),
    ],
)
def test_mistakes_are_found_before_weights_load(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lightning_icl.models.subject.load_model", None)
    with pytest.raises(SystemExit) as stopped:
        main(["dual-form", *arguments, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_finished_run_is_not_replaced(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "tiny-cb" / "dual_form.json").read_bytes()
    with pytest.raises(SystemExit):
        main(["dual-form", *SMALL, "--out", str(run)])
    assert "--overwrite" in capsys.readouterr().err
    assert (run / "tiny-cb" / "dual_form.json").read_bytes() == before


def test_pictures_without_matplotlib_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        main(["dual-form", "--export"])
    assert "lightning-icl[plot]" in capsys.readouterr().err


@pytest.mark.parametrize(("variant", "part"), [("gemma2", "soft cap"), ("bloom", "ALiBi"), ("falcon-alibi", "ALiBi")])
def test_what_no_linear_form_holds_is_said(variant: str, part: str, tmp_path: Path) -> None:
    probe = DualProbe(tiny_model(variant), tiny_data(tmp_path).demonstrations, [0])
    (said,) = left_out(probe)
    assert part in said


def test_layers_are_read_as_numbers_and_ranges() -> None:
    assert parse_layers("all", 3) == (0, 1, 2)
    assert parse_layers("2, 0-1", 3) == (0, 1, 2)
    assert parse_layers("1,1-2", 3) == (1, 2)
    for wrong in ("", "1,", "-1", "1-", "1-2-3", "²"):
        with pytest.raises(UserError, match="--layers"):
            parse_layers(wrong, 9)
