"""Each control against the slow computation, and where theory says what it must show."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import plain_passes
import pytest
import torch
from controlled import carry_out, deviations, lettered, ordered, slow
from exactness import RATE, make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data
from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.cli import main
from lightning_icl.comparison.controls import examples
from lightning_icl.comparison.controls._context import ControlContext, Unavailable
from lightning_icl.comparison.controls._figures import measured, sensitivity
from lightning_icl.comparison.controls._weights import gaussian_overlay
from lightning_icl.comparison.controls.catalogue import choose, own_rates
from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import budget_batches
from lightning_icl.errors import UserError
from lightning_icl.models.kv import slices
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.findings import Prediction
from lightning_icl.probing.probe import ICLProbe

VARIANTS = ["gpt2", "llama"]  # fused and tied; apart and grouped
NEAR = 1e-4


def assert_near(found: dict[str, float]) -> None:
    assert max(found.values()) < NEAR, found


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_examples_are_in_the_prompt_and_learnt_alike(variant: str, tmp_path: Path) -> None:
    probe, data, contrasts = carry_out(variant, "labels-random,labels-flipped,order", tmp_path)
    assert list(contrasts) == ["labels-random", "labels-flipped", "order-1", "order-2", "order-3"]
    for contrast in contrasts.values():
        assert_near(deviations(probe, contrast, slow(probe, contrast, ordered(data))))
    orders = [contrasts[f"order-{number}"] for number in (1, 2, 3)]
    assert_order_figures(measured("order", orders, probe)["order"], probe, data, orders)
    main_, flipped = data.demonstrations, contrasts["labels-flipped"].demonstrations
    assert flipped.labels == tuple((label + 1) % 3 for label in main_.labels)
    assert flipped.indices == main_.indices
    for example, label, own in zip(flipped.examples, flipped.labels, main_.examples, strict=True):
        assert example == (*own[:-1], *data.answers[label])
    for number in (1, 2, 3):
        other = contrasts[f"order-{number}"].demonstrations
        assert other.indices != main_.indices
        assert sorted(zip(other.examples, other.labels)) == sorted(zip(main_.examples, main_.labels))  # noqa: B905


def assert_order_figures(
    found: dict[str, Any], probe: ICLProbe, data: ICLDataModule, orders: Sequence[Contrast]
) -> None:
    """Spread and sensitivity over orders, from the slow computation's scores (order, query, view, answer)."""
    scores = np.array([slow(probe, contrast, ordered(data))["answer_scores"] for contrast in orders])
    right = scores.argmax(-1) == np.array([query.gold for query in ordered(data)])[:, None]
    chances = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    for place, view in enumerate(("zsl", "icl", "ft")):
        assert found["spread"][view] == pytest.approx(right[:, :, place].mean(1).std(), abs=1e-9)
        assert found["sensitivity"][view] == pytest.approx(chances[:, :, place].std(0).mean(), abs=NEAR)


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_tasks_update_is_held_against_the_main_prompt(variant: str, tmp_path: Path) -> None:
    probe, data, contrasts = carry_out(variant, "other-task", tmp_path)
    other = plain_passes.fine_tune(probe.model, tiny_data(tmp_path / "other", "multi", seed=5).demonstrations, RATE)
    tuned = plain_passes.fine_tune(probe.model, data.demonstrations, RATE)
    expected = slow(probe, contrasts["other-task"], ordered(data), tuned=replace(other, queries=tuned.queries))
    assert math.isnan(probe.comparisons["other-task"].kendall.value)
    assert_near(deviations(probe, contrasts["other-task"], expected, skip=("kendall",)))


def masks_of(model: PreTrainedModel, trained: str) -> dict[str, Tensor]:
    """Entries that learn, found without the package's table of layouts."""
    everything = {name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in model.named_parameters()}
    if trained == "all":
        return everything
    fused = {
        name: ~mask
        for name, mask in plain_passes.kv_masks(model).items()
        if "k_proj" not in name and "v_proj" not in name
    }
    return fused or {name: mask for name, mask in everything.items() if "q_proj" in name}


@pytest.mark.parametrize("trained", ["query", "all"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_parameters_learn(variant: str, trained: str, tmp_path: Path) -> None:
    probe, data, contrasts = carry_out(variant, f"ft-{trained}", tmp_path)
    masks = masks_of(probe.model, trained)
    tuned = plain_passes.fine_tune(probe.model, data.demonstrations, RATE, masks)
    contrast = contrasts[f"ft-{trained}"]
    assert_near(deviations(probe, contrast, slow(probe, contrast, ordered(data), tuned=tuned)))


@pytest.mark.parametrize("reading", ["attention", "block"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_learns_from_its_own_loss_at_its_own_rate(variant: str, reading: str, tmp_path: Path) -> None:
    name, rate = "layer-causal" + ("" if reading == "attention" else "-block"), RATE / 4
    probe, data, contrasts = carry_out(variant, name, tmp_path, rates=f"{name}={rate}")
    gradients = partial(plain_passes.layer_causal_gradients, reading=reading)
    tuned = plain_passes.fine_tune(probe.model, data.demonstrations, rate, gradients=gradients)
    contrast = contrasts[name]
    assert_near(deviations(probe, contrast, slow(probe, contrast, ordered(data), tuned=tuned)))
    assert probe.finetuned.learning_rate == RATE
    entry = measured(name, [contrast], probe)[name]
    assert entry["lr"] == rate
    assert entry["note"] == f"at rate {rate:g}"


@pytest.mark.parametrize("name", ["untrained", "untrained-embeddings", "untrained-norms"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_three_conditions_see_the_fresh_weights(variant: str, name: str, tmp_path: Path) -> None:
    probe, data, contrasts = carry_out(variant, name, tmp_path)
    kept = {"untrained": (), "untrained-embeddings": ("wte", "wpe", "embed", "lm_head", "ln_", "norm")}
    words = kept.get(name, ("ln_", "norm"))
    torch.manual_seed(data.demonstrations.seed)
    fresh = type(probe.model)(copy.deepcopy(probe.model.config)).eval()
    with torch.no_grad():
        for own, parameter in zip(probe.model.named_parameters(), fresh.parameters(), strict=True):
            if any(word in own[0] for word in words):
                parameter.copy_(own[1])
    found = deviations(probe, contrasts[name], slow(probe, contrasts[name], ordered(data), model=fresh))
    assert found.pop("am_difference") < 1e-3  # fresh scores move by little more than rounding
    assert_near(found)


def test_letters_stand_in_for_answers_in_prompt_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "LETTERS", ("w40", "w41", "w42", "w43"))  # words of the tiny tokenizer
    probe, data, contrasts = carry_out("llama", "labels-abstract", tmp_path)
    contrast = contrasts["labels-abstract"]
    taught = [example[-1] for example in contrast.demonstrations.examples]
    assert taught == [40 + label for label in data.demonstrations.labels]
    assert_near(deviations(probe, contrast, slow(probe, contrast, lettered(ordered(data), (40, 41, 42)))))


@pytest.mark.parametrize("answers", ["single", "multi"])
def test_letters_are_refused_where_they_or_the_answers_are_not_one_token(answers: str, tmp_path: Path) -> None:
    data = tiny_data(tmp_path, answers)  # this tokenizer knows no letter
    with pytest.raises(Unavailable, match="one token"):
        examples.labels_abstract(ControlContext(model=None, data=data, finetuned=None, fit=None, learning_rate=RATE))


def test_every_comparison_can_read_calibrated_answers_without_the_control(tmp_path: Path) -> None:
    probe, data, _ = carry_out("llama", "calibration", tmp_path)
    alone = ICLProbe(probe.model, data.demonstrations, readings=examples.calibrated_readings(data))
    make_trainer().validate(alone, datamodule=data, verbose=False)
    for one, other in zip(alone.predictions, probe.predictions, strict=True):
        assert one.scores["icl_calibrated"] == pytest.approx(other.scores["icl@calibration"], abs=1e-6)
        assert one.scores["icl"] != one.scores["icl_calibrated"]
    assert examples.calibrated_readings(tiny_data(tmp_path, "choice")) == ()


@pytest.mark.parametrize("answers", ["single", "multi"])
def test_calibration_divides_by_the_probabilities_of_empty_inputs(
    answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ("w50", "", "w51 w52")
    monkeypatch.setattr(examples, "CONTENT_FREE", texts)
    probe, data, contrasts = carry_out("llama", "calibration", tmp_path, answers)
    tuned = plain_passes.fine_tune(probe.model, data.demonstrations, RATE).model
    bos, prefix = data.demonstrations.bos, data.demonstrations.prefix_token_ids
    plain, calibrated = probe.comparison, probe.comparisons["calibration"]
    assert torch.equal(calibrated.sim_aou.normalised.per_layer, plain.sim_aou.normalised.per_layer)
    assert calibrated.kendall.value == plain.kendall.value
    views = ((probe.model, bos, "zsl"), (probe.model, prefix, "icl"), (tuned, bos, "ft"))
    for (model, before, view), condition in zip(views, contrasts["calibration"].conditions, strict=True):
        free = []
        for text in texts:
            words = [3, *(int(word[1:]) for word in text.split()), 4]
            query = replace(data.queries[0], prompt_ids=tuple(words), answers=data.answers)
            scores = np.exp(plain_passes.answer_scores(model, before, query))
            free.append(scores / scores.sum())
        for prediction in probe.predictions:
            expected = np.log(np.exp(prediction.scores[view]) / np.mean(free, 0))
            assert np.allclose(prediction.scores[condition.name], expected, atol=NEAR)


def test_calibration_needs_no_pass_of_its_own_over_the_queries(tmp_path: Path) -> None:
    probe, data, _ = carry_out("llama", "calibration", tmp_path)
    passes = []
    handle = probe.model.register_forward_hook(lambda *_: passes.append(1))
    make_trainer().validate(probe, datamodule=data, verbose=False)
    handle.remove()
    batches = len(budget_batches(data.queries, data.batch_tokens))
    assert len(passes) == 3 * batches + 3  # three conditions, and the inputs without content under each


def test_a_shuffled_query_brings_the_update_of_a_neighbour_in_length(tmp_path: Path) -> None:
    probe, data, contrasts = carry_out("llama", "shuffled-query", tmp_path)
    queries = sorted(data.queries, key=lambda query: (-len(query), query.index))
    seen = []
    for query in queries:
        views = [
            plain_passes.look(probe.model, (*before, *query.prompt_ids))
            for before in (data.demonstrations.bos, data.demonstrations.prefix_token_ids)
        ]
        seen.append([np.array([layer[-1].double().numpy() for layer in view.outputs]) for view in views])
    raw, normalised = [], []
    for (zero, own), other in zip(seen, [seen[place] for place in (1, 2, 0, 4, 5, 6, 3)], strict=True):
        moved = other[1] - other[0]
        raw.append([oracle.cos(a, b) for a, b in zip(own - zero, moved, strict=True)])
        units = [[oracle.unit(layer) for layer in view] for view in (zero, own, zero + moved)]
        normalised.append([oracle.cos(i - z, f - z) for z, i, f in zip(*units, strict=True)])
    result = probe.comparisons["shuffled-query"]
    assert torch.allclose(result.sim_aou.raw.per_layer, torch.tensor(raw).double().mean(0), atol=NEAR)
    assert torch.allclose(result.sim_aou.normalised.per_layer, torch.tensor(normalised).double().mean(0), atol=NEAR)
    assert math.isnan(result.sim_am.value)
    assert contrasts["shuffled-query"].ft.name == "icl"
    for budget in (1, 10_000):
        data.batch_tokens = budget
        make_trainer().validate(probe, datamodule=data, verbose=False)
        other = probe.comparisons["shuffled-query"].sim_aou
        assert torch.allclose(other.raw.per_layer, result.sim_aou.raw.per_layer, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_matched_query_stands_where_it_stands_behind_the_demonstrations(variant: str, tmp_path: Path) -> None:
    probe, data, contrasts = carry_out(variant, "query-position", tmp_path)
    contrast = contrasts["query-position"]
    gap = len(data.demonstrations.prefix_token_ids) - len(data.demonstrations.bos)
    expected = slow(probe, contrast, ordered(data), gap=gap)
    expected["am_difference"][:, 0] = np.nan  # the same tokens at the same positions
    assert_near(deviations(probe, contrast, expected))
    assert contrast.icl.name == "icl"


@pytest.mark.parametrize("variant", VARIANTS)
def test_figures_of_a_gaussian_update_are_those_of_its_weights(variant: str, tmp_path: Path) -> None:
    probe, data, contrasts = carry_out(variant, "ft-gaussian", tmp_path)
    tuned = plain_passes.fine_tune(probe.model, data.demonstrations, RATE)
    drawn = copy.deepcopy(probe.model)
    for part in slices(drawn):
        part.parameter.data = part.whole(contrasts["ft-gaussian"].ft.overlay.tensors[part.name])
    expected = slow(probe, contrasts["ft-gaussian"], ordered(data), tuned=replace(tuned, model=drawn))
    assert_near(deviations(probe, contrasts["ft-gaussian"], expected))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gaussian_update_has_the_norms_of_the_learnt_one_and_no_likeness(variant: str, tmp_path: Path) -> None:
    probe, data, _ = carry_out(variant, "", tmp_path)
    tuned = probe.finetuned
    seeds = range(24)
    overlays = [gaussian_overlay(probe.model, tuned.overlay, seed) for seed in seeds]
    for part in slices(probe.model):
        learnt = (tuned.overlay.tensors[part.name] - part.read()).norm()
        drawn = (overlays[0].tensors[part.name] - part.read()).norm()
        assert torch.isclose(learnt, drawn, rtol=1e-4)
    assert gaussian_overlay(probe.model, tuned.overlay, 3).hash == overlays[3].hash != overlays[4].hash
    probe.also_compare(
        [
            Contrast.of(data.demonstrations, replace(tuned, overlay=overlay), name=f"g{seed}", ft=f"ft@g{seed}")
            for seed, overlay in zip(seeds, overlays, strict=True)
        ]
    )
    make_trainer().validate(probe, datamodule=data, verbose=False)
    for figure in ("normalised", "raw"):
        drawn = torch.tensor([getattr(probe.comparisons[f"g{seed}"].sim_aou, figure).value for seed in seeds])
        assert abs(drawn.mean()) < 3 * drawn.std() / math.sqrt(len(drawn)), figure


def test_the_model_is_left_as_it_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "LETTERS", ("w40", "w41", "w42", "w43"))
    probe, _, _ = carry_out("gpt2", "all", tmp_path)
    for (name, own), fresh in zip(probe.model.named_parameters(), tiny_model("gpt2").parameters(), strict=True):
        assert torch.equal(own, fresh), name


def test_sensitivity_by_hand() -> None:
    even, sure = [math.log(0.5)] * 2, [math.log(0.9), math.log(0.1)]
    same = Prediction(index=0, gold=0, scores={"a": sure, "b": sure})
    moved = Prediction(index=1, gold=0, scores={"a": even, "b": sure})
    assert sensitivity([same, moved], ["a", "b"]) == pytest.approx((0 + 0.2) / 2)


def test_a_permutation_moves_rows_labels_and_tokens_together(tmp_path: Path) -> None:
    own = tiny_data(tmp_path).demonstrations
    other = examples.permuted(own, [4, 3, 2, 1, 0])
    assert (other.indices, other.labels, other.examples) == (own.indices[::-1], own.labels[::-1], own.examples[::-1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("layer-causl=0.1", "Did you mean 'layer-causal'"),
        ("ft-all=0.1", "not among --controls"),
        ("order=0", "positive number, such as order=0.01"),
        ("order", "positive number"),
        ("calibration=0.1", "no fine-tuning of its own"),
    ],
)
def test_a_rate_that_no_control_can_use_is_refused(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        own_rates(given, choose("order,layer-causal,calibration"))


def test_an_unknown_control_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="Did you mean 'labels-random'"):
        choose("label-random")
    with pytest.raises(SystemExit):
        main(["compare", "--controls", "untraned", "--model", "random:builtin"])
    assert "Did you mean 'untrained'" in capsys.readouterr().err
