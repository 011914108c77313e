"""`lightning-icl weight-update` from the command line to the files, and the mistakes it finds before weights load."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from exactness import make_trainer, windows_of
from tiny_models import VARIANTS, tiny_model
from tiny_task import tiny_data
from torch.utils.flop_counter import FlopCounterMode

from lightning_icl.cli import main
from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import collate
from lightning_icl.metrics.closeness import Closeness
from lightning_icl.metrics.prediction import Rec2FTP
from lightning_icl.metrics.representation import update_similarity
from lightning_icl.models import onednn
from lightning_icl.models.architecture import attention_windows
from lightning_icl.models.capture import Capture
from lightning_icl.models.replacement import Updated
from lightning_icl.models.scope import Scope
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.weightupdate._probe import WeightUpdateProbe
from lightning_icl.weightupdate.fast_weights import FastWeights
from lightning_icl.weightupdate.ladder_observation import observe_condition
from lightning_icl.weightupdate.survey import Survey

SMALL = ["--task", "tiny-cb", "--shots", "4", "--limit", "6", "--held-out", "5"]
RUNGS = ["none", "linear-raw", "linear", "constant", "constant-mass", "affine", "quadratic"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ladder") / "out"
    options = ["--depth", "affine", "--scope", "alone", "--fast-weights", "affine", "--export"]
    main(["weight-update", *SMALL, *options, "--out", str(out)])
    return out / "tiny-cb"


def content(folder: Path) -> dict:
    return json.loads((folder / "weight_update.json").read_text())


def validated(model: torch.nn.Module, data: ICLDataModule, scope: Scope = "probe") -> WeightUpdateProbe:
    held_out = [collate(data.held_out(3, [data.demonstrations]))]
    probe = WeightUpdateProbe(model, data.demonstrations, held_out, 3, scope, "affine")
    make_trainer(KVFinetuning(0.05)).fit(probe, datamodule=data)
    make_trainer().validate(probe, datamodule=data, verbose=False)
    return probe


def test_every_figure_is_its_metric_over_looks_at_single_queries(tmp_path: Path) -> None:
    model, data = tiny_model("llama"), tiny_data(tmp_path)
    probe, chosen = validated(model, data), data.demonstrations
    closeness, recall, cosines = Closeness(3), Rec2FTP(), []
    with Capture(model) as capture:
        prefix, bos = capture.prefix(chosen.prefix_token_ids), capture.prefix(chosen.bos)
        survey = Survey(3, 1, "probe").of(capture, prefix, [collate(data.held_out(3, [chosen]))])
        updated = Updated(survey.rungs()["constant"], 1, "probe")
        for query in data.queries:
            batch = collate([query])
            zsl, icl = (observe_condition(capture, batch, before, name="") for before in (bos, prefix))
            rung = observe_condition(capture, batch, prefix, name="", replacement=updated)
            closeness.update(icl.answer_scores, rung.answer_scores, icl.logits, rung.logits)
            tuned = next(item for item in probe.predictions if item.index == query.index).scores["ft"]
            recall.update(zsl.answer_scores, rung.answer_scores, torch.tensor([tuned]), batch.gold)
            cosines.append(update_similarity(zsl.outputs, rung.outputs, icl.outputs))
    figures = probe.rungs["constant"].figures()
    for name, value in closeness.details()._asdict().items():
        assert figures[name] == pytest.approx(value, abs=1e-5), name
    assert figures["rec2ftp"] == pytest.approx(float(recall.details().value), nan_ok=True)
    curve = torch.tensor(probe.rungs["constant"].curves()["simaou_icl"])
    torch.testing.assert_close(curve.float(), torch.cat(cosines).nanmean(0), rtol=0, atol=1e-4)
    assert figures["simaou_icl"] == pytest.approx(float(curve.nanmean()))


def test_every_layer_replaced_is_the_rung_and_none_is_in_context_learning(tmp_path: Path) -> None:
    probe = validated(tiny_model("gpt2"), tiny_data(tmp_path, "choice"))
    assert {name for name in probe.rungs if " " in name} == {
        "affine 0", "affine 1", "affine 2", "affine 0-1", "affine 1-2",
    }  # fmt: skip
    assert probe.rungs["icl"].figures()["kl"] == 0
    assert all(len(query.scores["affine"]) == len(query.scores["icl"]) for query in probe.predictions)
    assert {len(query.scores["icl"]) for query in probe.predictions} == {2, 3, 4, 5}


def test_batches_do_not_matter(tmp_path: Path) -> None:
    one, many = (validated(tiny_model("qwen3"), tiny_data(tmp_path, batch_tokens=size), "query") for size in (16, 999))
    for name, metrics in one.rungs.items():
        assert metrics.figures() == pytest.approx(many.rungs[name].figures(), abs=1e-4, nan_ok=True), name
        for figure, bootstrapped in metrics.bootstrap().items():
            other = many.rungs[name].bootstrap()[figure].interval
            torch.testing.assert_close(bootstrapped.interval, other, rtol=0, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_costs_no_more_than_a_tenth_above_in_context_learning(
    rung: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in products of matrices; attention by fused kernels is not counted, on either side."""
    from lightning_icl import find_model, load_model

    # The counter does not know oneDNN's products.
    monkeypatch.setattr(onednn, "mkl_is_slow", lambda: False)
    model, data = load_model(find_model("builtin")), tiny_data(tmp_path)
    batch, ids = collate(data.queries), [3 + number % 90 for number in range(900)]
    with Capture(model) as capture:
        prefix = capture.prefix(ids)
        updates = Survey(len(prefix.keys), 1, "probe").of(capture, prefix, [batch]).rungs()[rung]
        costs = []
        for replacement in (None, Updated(updates, 1, "probe")):
            with FlopCounterMode(display=False) as counter:
                observe_condition(capture, batch, prefix, name=rung, replacement=replacement)
            costs.append(counter.get_total_flops())
    assert costs[1] <= 1.1 * costs[0]


def test_the_file_holds_every_condition_with_intervals(run: Path) -> None:
    found = content(run)
    parts = {name for names in (found["depth"][key] for key in ("up_to", "from", "alone")) for name in names}
    assert set(found["conditions"]) == {"zsl", "icl", "ft", "softmax", *RUNGS} | parts
    assert len(parts) == 9  # of four layers
    assert found["depth"]["up_to"][-1] == found["depth"]["from"][0] == "affine"
    assert found["held_out"]["count"] == 5
    assert found["queries"]["count"] == 6
    assert not set(found["held_out"]["indices"]) & set(found["demonstrations"]["indices"])
    assert [len(row) for row in found["linear_factor_per_head"]] == [6] * 4
    for name, figures in found["conditions"].items():
        for figure, value in figures.items():
            ends = found["intervals"][name][figure]
            assert value is None or ends is None or ends[0] - 1e-9 <= value <= ends[1] + 1e-9, (name, figure)
    assert all(len(row) == 6 for rows in found["matrices_per_head"].values() for row in rows)
    assert all(-1 <= value <= 1 for row in found["matrices_per_head"]["cosine"] for value in row)
    assert set(found["matrix_controls"]) == {"labels-flipped", "untrained"}
    assert found["matrix_controls"]["labels-flipped"].keys() - found["matrices_per_head"].keys() == {
        "cosine_with_icl", "cosine_with_ft",
    }  # fmt: skip
    for name in ("icl", "ft"):
        assert [sum(row) for row in found["shares_per_layer"][name]] == pytest.approx([1] * 4, abs=1e-5)
        assert {len(row) for row in found["shares_per_layer"][name]} == {4}
    assert found["conditions"]["icl"]["kl"] == 0
    assert found["conditions"]["icl"]["agreement"] == 1


def test_a_chosen_rate_gives_what_the_same_rate_gives_by_name(tmp_path: Path) -> None:
    small = ["weight-update", "--task", "tiny-cb", "--shots", "3", "--limit", "4", "--held-out", "3"]
    main([*small, "--lr", "auto", "--out", str(tmp_path / "auto")])
    chosen = content(tmp_path / "auto" / "tiny-cb")
    main([*small, "--lr", str(chosen["finetune"]["lr"]), "--out", str(tmp_path / "named")])
    named = content(tmp_path / "named" / "tiny-cb")
    for part in ("conditions", "matrices_per_head", "shares_per_layer"):
        assert chosen[part] == named[part]
    assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in chosen["shares_per_layer"]["ft"])


def test_pictures_are_drawn_in_both_formats(run: Path) -> None:
    for name in ("rungs", "layers", "depth"):
        assert (run / f"weight_update_{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (run / f"weight_update_{name}.svg").read_text()


def test_the_saved_fast_weights_have_the_saved_accuracy(run: Path) -> None:
    from lightning_icl import find_model, load_model, load_tokenizer, resolve_tasks

    source = find_model("builtin")
    task = resolve_tasks("tiny-cb")["tiny-cb"]
    data = ICLDataModule(task, load_tokenizer(source), context_length=2048, shots=1, limit=6)
    weights, batch = FastWeights.load(run / "fast_weights.safetensors"), collate(data.queries)
    model = load_model(source)
    weights.check(model)
    with Capture(model) as capture:
        right = weights.observe(capture, batch).answer_scores.argmax(-1) == batch.gold
    assert float(right.double().mean()) == pytest.approx(content(run)["conditions"]["affine"]["accuracy"])


def test_the_saved_configuration_gives_the_same_figures(run: Path, tmp_path: Path) -> None:
    main(["weight-update", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "again")])
    assert content(tmp_path / "again" / "tiny-cb") == content(run)


def test_the_tables_show_the_rungs_in_every_format(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, page, folder = content(run), tmp_path / "page.html", tmp_path / "copy"
    shutil.copytree(run, folder)
    main(["report", str(folder), "--export", "--html", str(page)])
    printed, text = capsys.readouterr().out, page.read_text()
    for name in ("none", "affine", "softmax"):
        correlation = f"{found['conditions'][name]['margin_correlation']:.3f}".replace("-", "−")
        low = f"{found['intervals'][name]['margin_correlation'][0]:.3f}".replace("-", "−")
        assert correlation in printed
        assert f"{correlation}<small>{low}" in text
    assert "KL from in-context learning with affine in some of the layers" in printed
    assert f"{found['conditions']['affine 0-1']['kl']:.3g}" in text
    assert "Demonstrations as a weight update" in text
    ranks = found["matrices_per_head"]["ft_rank"][2]
    assert f"<td>{sum(ranks) / len(ranks):.1f}</td>" in text
    fresh = found["matrix_controls"]["untrained"]["cosine_with_ft"][1]
    assert f"<td>{sum(fresh) / len(fresh):.3f}</td>".replace("-", "−") in text
    second = [row[1] for row in found["shares_per_layer"]["ft"]]
    assert f"<td>{sum(second) / len(second):.3f}</td>".replace("-", "−") in text
    assert f"{sum(second) / len(second):.3f}".replace("-", "−") in printed
    with (folder / "ladder_tiny-cb_alone.csv").open() as file:
        rows = {row["condition"]: row for row in csv.DictReader(file)}
    assert float(rows["affine"]["kl"]) == found["conditions"]["affine"]["kl"]
    assert float(rows["affine"]["kl_high"]) == found["intervals"]["affine"]["kl"][1]
    assert rows["zsl"]["simaou_icl"] == ""


def test_a_page_of_a_comparison_has_the_ladder_as_a_section(run: Path, tmp_path: Path) -> None:
    plain, page = tmp_path / "run", tmp_path / "page.html"
    main(["validate", "--task", "tiny-cb", "--shots", "4", "--limit", "6", "--out", str(plain)])
    main(["report", str(plain), str(run), "--html", str(page)])
    text = page.read_text()
    assert text.index('href="#figures"') < text.index('href="#ladder"') < text.index('href="#tasks"')


def test_a_damaged_file_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = content(run)
    del found["conditions"]["affine"]["kl"]
    (tmp_path / "weight_update.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path)])
    assert "weight_update.json" in capsys.readouterr().err


@pytest.mark.parametrize("variant", VARIANTS)
def test_windows_are_known_from_the_configuration(variant: str) -> None:
    windows = attention_windows(tiny_model(variant).config)
    assert [window if window and window < 100 else None for window in windows] == windows_of(variant, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scope", "all"], "--scope"),
        (["--held-out", "0"], "--held-out 0"),
        (["--depth", "cubic"], "--depth"),
        (["--fast-weights", "affine"], "--fast-weights needs --scope query or --scope alone"),
        (["--fast-weights", "quadratic", "--scope", "query"], "--fast-weights"),
        (["--probe-token", "answer"], "Leave --probe-token out"),
        (["--limit", "0"], "--limit 0"),
        (["--rung", "affine"], "unknown flag --rung"),
        (["--task", "tiny-mrr"], "tiny-mr"),
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
        main(["weight-update", *arguments, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_whose_window_cuts_the_prompt_is_refused_before_its_weights_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_icl import find_model, load_tokenizer

    tokenizer = load_tokenizer(find_model("builtin"))
    tokenizer.save_pretrained(tmp_path / "model")
    config = tiny_model("mistral-window").config
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 2048
    config.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("lightning_icl.models.subject.load_model", None)
    with pytest.raises(SystemExit) as stopped:
        main(["weight-update", "--model", f"random:{tmp_path / 'model'}", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "see the last 20 tokens only" in capsys.readouterr().err
