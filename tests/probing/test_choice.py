"""Multiple choice, from rows to predictions, against plain transformers with one option of one query at a time."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from exactness import make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data, word_tokenizer

from lightning_icl.cli import main
from lightning_icl.data.queries import Query, budget_batches, collate
from lightning_icl.metrics import Rec2FTP
from lightning_icl.probing.findings import best_answer
from lightning_icl.probing.observation import answer_scores
from lightning_icl.probing.probe import ICLProbe


def rows(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def slow_score(model: torch.nn.Module, context: str, option: str) -> float:
    """Mean log-probability of an option's tokens after a text, from one full forward pass."""
    tokenizer = word_tokenizer()
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context, option))
    with torch.no_grad():
        logs = model(torch.tensor([[*before, *after]])).logits[0].double().log_softmax(-1)
    return sum(float(logs[len(before) + n - 1, token]) for n, token in enumerate(after)) / len(after)


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_every_option_of_every_row_scores_as_by_hand(variant: str, tmp_path: Path) -> None:
    model, data = tiny_model(variant), tiny_data(tmp_path, "choice")
    probe = ICLProbe(model, data.demonstrations)
    trainer: L.Trainer = make_trainer()
    trainer.validate(probe, datamodule=data, verbose=False)

    train, queries = rows(tmp_path, "train"), rows(tmp_path, "validation")
    shown = [train[index] for index in data.demonstrations.indices]
    before = " ".join(f"w3 {row['text']} w4 {row['options'][row['label']]} </s>" for row in shown)
    assert len({len(row["options"]) for row in queries}) > 2
    for prediction, row in zip(probe.predictions, queries, strict=True):
        assert prediction.gold == row["label"]
        for name, context in (("zsl", "<s>"), ("icl", f"<s> {before}")):
            expected = [slow_score(model, f"{context} w3 {row['text']} w4", option) for option in row["options"]]
            assert prediction.scores[name] == pytest.approx(expected, abs=1e-5)
            assert best_answer(prediction.scores[name]) == expected.index(max(expected))


def test_the_prompt_stands_once_before_all_its_options(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, "choice")
    for batch in budget_batches(data.queries, 10_000):
        made = collate(batch)
        for row, query in enumerate(batch):
            ends = sum(len(answer) - 1 for answer in query.answers)
            assert made.branches[row].eq(0).sum() == len(query.prompt_ids)
            assert made.branches[row].gt(0).sum() == ends


def test_an_absent_option_never_wins_however_unlikely_the_present_ones_are() -> None:
    two = Query(index=0, gold=1, prompt_ids=(10, 11), answers=((5,), (6,)))
    four = Query(index=1, gold=3, prompt_ids=(10, 12), answers=((5,), (6,), (7,), (8,)))
    batch = collate([two, four])
    logits = torch.zeros(2, 20)
    logits[:, 19] = 1e6  # all of the probability lies elsewhere
    logits[0, 6] = 5.0
    logits[1, 8] = 5.0
    scores = answer_scores(logits, batch)
    assert torch.isneginf(scores).tolist() == [[False, False, True, True], [False] * 4]
    assert scores.argmax(-1).tolist() == [1, 3]
    metric = Rec2FTP()
    wrong = scores.clone()
    wrong[0, 0] = 0.0
    metric.update(wrong, scores, scores, batch.gold)
    assert metric.details().right_table.flatten().nonzero().flatten().tolist() == [0b011, 0b111]


def test_how_rows_are_put_together_changes_no_number(tmp_path: Path) -> None:
    seen = []
    for budget in (1, 10_000):
        data = tiny_data(tmp_path, "choice", batch_tokens=budget)
        probe = ICLProbe(tiny_model("llama"), data.demonstrations)
        make_trainer().validate(probe, datamodule=data, verbose=False)
        seen.append([prediction.scores["icl"] for prediction in probe.predictions])
    for one, other in zip(*seen, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_real_tasks_from_the_command_line(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--task", "arc_easy,piqa", "--data", str(real_data), "--shots", "2", "--limit", "6"]
    main(["compare", *small, "--show-prompt"])
    shown = capsys.readouterr().out
    assert "Answer 'days.':" in shown
    assert "gold 'days.'" in shown
    main(["compare", *small, "--out", str(tmp_path / "out")])
    main(["report", str(tmp_path / "out")])
    assert "ICL accuracy" in capsys.readouterr().out
    for task in ("arc_easy", "piqa"):
        source = [json.loads(line) for line in (real_data / task / "validation.jsonl").read_text().splitlines()]
        lines = (tmp_path / "out" / task / "predictions.jsonl").read_text().splitlines()
        content = json.loads((tmp_path / "out" / task / "results.json").read_text())
        made = [json.loads(line) for line in lines]
        assert len(made) == 6
        for line in made:
            row = source[line["index"]]
            options = row["choices"]["text"] if task == "arc_easy" else [row["sol1"], row["sol2"]]
            gold = row["choices"]["label"].index(row["answerKey"]) if task == "arc_easy" else row["label"]
            assert line["gold"] == gold
            assert {len(scores) for scores in line["scores"].values()} == {len(options)}
        assert content["accuracy"]["icl"] == sum(line["icl"] == line["gold"] for line in made) / 6
