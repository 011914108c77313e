"""`--lr auto`: the rate that the rule of the definitions picks, from figures that separate fine-tunings give."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from exactness import make_trainer
from outside_case import Case, check_case
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.cli import main
from lightning_icl.comparison.plan import PlannedTask, chooses_rate, learning_rate_for
from lightning_icl.comparison.rate import Trial, judged, with_chosen_rate
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.models.kv import LaidOver
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.tasks.catalogue import resolve_tasks


def test_accuracy_counts_first_then_loss_then_the_smaller_rate() -> None:
    def rate_of(*trials: tuple[float, float, float]) -> float:
        made = [Trial(rate=rate, accuracy=accuracy, loss=loss) for rate, accuracy, loss in trials]
        return judged(made, 16, 1.0).rate

    assert rate_of((0.1, 0.5, 1.0), (0.2, 0.6, 9.0), (0.4, 0.5, 1.0)) == 0.2
    assert rate_of((0.1, 0.6, 2.0), (0.2, 0.6, 1.0), (0.4, 0.5, 0.1)) == 0.2
    assert rate_of((0.1, 0.6, 1.0), (0.2, 0.6, 1.0), (0.4, 0.6, 1.0)) == 0.1


def test_the_edge_and_the_lack_of_any_sound_rate_are_said() -> None:
    sound = [Trial(rate=rate, accuracy=accuracy, loss=1.0) for rate, accuracy in ((0.1, 0.5), (0.2, 0.6), (0.4, 0.5))]
    assert judged(sound, 16, 1.0).note == ""
    assert "edge" in judged(sound[:2], 16, 1.0).note
    none = judged([Trial(rate=0.1, out="diverged"), Trial(rate=0.2, out="diverged")], 16, 1.0)
    assert none.rate == 0.1
    assert "smallest" in none.note


def test_trials_are_what_separate_fine_tunings_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracy, gold loss and demonstrations' loss of every rate against plain forward passes of the model."""
    data, model = tiny_data(tmp_path), tiny_model("llama")
    held_out = tuple(data.held_out(16, [data.demonstrations]))
    planned = PlannedTask(name="tiny", task=data.task, data=data, learning_rate=1.0, held_out=held_out)
    settings = CompareSettings(accelerator="cpu", lr="auto", batch_tokens=64)
    chosen = with_chosen_rate(settings, planned, model)
    rows = {line.split(": ")[2].split(", ")[0] for line in capsys.readouterr().err.splitlines() if ": rates: " in line}
    assert rows == {"demonstrations", "fine-tuning", "held-out rows"}
    bos, content = data.demonstrations.bos, chosen.choice
    assert content["held_out"] == len(held_out) == 7
    assert chosen.learning_rate == content["rate"]

    def loss(tokens: list[int]) -> float:
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([tokens]), labels=torch.tensor([tokens])).loss)

    examples = [[*bos, *example] for example in data.demonstrations.examples]
    assert content["before"] == pytest.approx(sum(map(loss, examples)) / len(examples), abs=1e-5)
    best = next(trial for trial in content["trials"] if trial["rate"] == content["rate"])
    for trial in content["trials"]:
        if trial["accuracy"] is None:
            continue
        probe = ICLProbe(model, data.demonstrations)
        make_trainer(KVFinetuning(trial["rate"])).fit(probe, datamodule=data)
        right, lost = 0, 0.0
        with LaidOver(model, probe.finetuned.overlay).active(), torch.no_grad():
            after = sum(map(loss, examples)) / len(examples)
            for query in held_out:
                logits = model(input_ids=torch.tensor([[*bos, *query.prompt_ids]])).logits[0, -1].log_softmax(-1)
                scores = [float(logits[answer[0]]) for answer in query.answers]
                right += max(range(len(scores)), key=scores.__getitem__) == query.gold
                lost -= scores[query.gold]
        assert trial["accuracy"] == pytest.approx(right / 7)
        assert trial["loss"] == pytest.approx(lost / 7, abs=1e-3)
        if trial["demonstrations"] is not None:
            assert trial["demonstrations"] == pytest.approx(after, abs=1e-3)
            assert (trial["out"] is None) == (after <= content["before"])
        # Nothing that learns the demonstrations is better on held-out rows than what was chosen.
        if after <= content["before"]:
            assert (-trial["accuracy"], trial["loss"]) >= (-best["accuracy"], best["loss"])
    assert best["demonstrations"] <= content["before"]
    # What the comparison takes from the choice is what it would learn alone.
    probe = ICLProbe(model, data.demonstrations)
    make_trainer(KVFinetuning(chosen.learning_rate)).fit(probe, datamodule=data)
    assert chosen.finetuned.losses == pytest.approx(probe.finetuned.losses, abs=1e-6)
    torch.testing.assert_close(chosen.finetuned.overlay.tensors, probe.finetuned.overlay.tensors, atol=1e-6, rtol=0)
    torch.testing.assert_close(chosen.finetuned.training_queries, probe.finetuned.training_queries, atol=1e-5, rtol=0)


def figures(content: Any) -> list[float]:
    """Every number of a part of `results.json`, in order."""
    if isinstance(content, dict | list):
        parts = content.values() if isinstance(content, dict) else content
        return [number for part in parts for number in figures(part)]
    return [content] if isinstance(content, float) else []


def test_the_choice_stands_in_the_results_and_is_made_again_alike(tmp_path: Path) -> None:
    small = ["compare", "--task", "tiny-cb", "--shots", "4", "--limit", "9", "--lr", "auto"]

    def results(name: str, *rate: str) -> dict[str, Any]:
        main([*small, *rate, "--out", str(tmp_path / name)])
        return json.loads((tmp_path / name / "tiny-cb" / "results.json").read_text())

    one, two = results("one"), results("two")
    assert one["finetune"]["choice"] == two["finetune"]["choice"]
    assert one["finetune"]["lr"] == one["finetune"]["choice"]["rate"]
    # Chosen or given, a rate gives the same figures.
    given = results("given", "--lr", str(one["finetune"]["lr"]))
    assert given["finetune"]["loss"] == pytest.approx(one["finetune"]["loss"], abs=1e-6)
    assert given["accuracy"] == one["accuracy"]
    # What a comparison took is accounted for: a chosen rate's fine-tuning in the choice, a given one's for itself.
    assert one["timing"]["rate_s"] > 0 == one["timing"]["finetune_s"]
    assert "rate_s" not in given["timing"]
    assert given["timing"]["finetune_s"] > 0
    for measure in ("sim_aou", "sim_am", "kendall"):
        assert figures(given[measure]) == pytest.approx(figures(one[measure]), abs=1e-5)
    assert "lr: auto" in (tmp_path / "one" / "tiny-cb" / "config.yaml").read_text()


FEW = Case(
    situation="too few rows to choose a rate on",
    arguments="compare --task mine.yaml --shots 4 --lr auto --out out",
    files={
        "mine.yaml": "template: 'Text: {text} Label:'\nanswers: ['no', 'yes']\n"
        "rows: {train: t.jsonl, validation: v.jsonl}\n",
        "t.jsonl": "".join(json.dumps({"text": f"row {n}", "label": n % 2}) + "\n" for n in range(12)),
        "v.jsonl": "".join(json.dumps({"text": f"query {n}", "label": n % 2}) + "\n" for n in range(4)),
    },
    says=["--lr auto", "8 training rows", "16 are needed"],
)


def test_too_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(FEW, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("model", "task", "lr", "chooses", "rate"),
    [
        ("builtin", "tiny-sst2", None, False, 0.1),
        ("smollm2-135m", "tiny-sst2", None, True, 1e-3),
        ("smollm2-135m", "sst2", None, True, 0.0005),
        ("KoboldAI/fairseq-dense-2.7B", "agnews", None, False, 0.2),
        ("smollm2-135m", "sst2", 0.3, False, 0.3),
        ("builtin", "tiny-sst2", "auto", True, 0.1),
    ],
)
def test_a_rate_is_chosen_where_none_is_known_for_model_and_task(
    model: str, task: str, lr: float | Literal["auto"] | None, chooses: bool, rate: float
) -> None:
    settings = CompareSettings(model=model, task=task, lr=lr)
    (resolved,) = resolve_tasks(task).values()
    assert chooses_rate(settings, resolved) is chooses
    assert learning_rate_for(settings, resolved) == rate
