"""Known answers: gradient descent in closed form against attention built by hand."""

import pytest
import torch

from lightning_icl.dualform._synthetic import Regression, known_answers, patched_layer, trained_layer


def test_every_known_answer_is_met_to_rounding() -> None:
    cases = known_answers()
    assert len(cases) == 5
    assert all(case.error < 1e-13 * max(1.0, case.size) for case in cases), cases


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_of_linear_attention_are_steps_of_gradient_descent(layers: int, seed: int) -> None:
    """Against the gradient written out: η / N Σ (W x − y) xᵀ."""
    task = Regression.random(examples=12, inputs=6, outputs=2, seed=seed)
    weight = task.guess
    for _ in range(layers):
        gradient = torch.zeros_like(weight)
        for x, y in zip(task.inputs, task.targets, strict=True):
            gradient += torch.outer(weight @ x - y, x) / len(task.inputs)
        weight = weight - task.rate * gradient
    wanted = weight @ task.query
    assert (task.guess @ task.query - wanted).abs().max() > 0.05  # the steps move the prediction
    torch.testing.assert_close(task.attend(layers), wanted, rtol=0, atol=1e-14)
    torch.testing.assert_close(task.descend(layers), wanted, rtol=0, atol=1e-14)


def test_without_a_layer_the_first_guess_predicts() -> None:
    task = Regression.random()
    torch.testing.assert_close(task.attend(0), task.guess @ task.query)


@pytest.mark.parametrize("seed", range(3))
def test_trained_and_patched_layers_equal_their_dual_forms(seed: int) -> None:
    for one, other in (trained_layer(seed=seed), patched_layer(seed=seed)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
