"""Fine-tuning inside a training step: the steps that plain SGD takes, the gradient at the weights they lead to."""

import copy

import pytest
import torch
from tiny_models import tiny_model
from torch.nn.functional import cross_entropy

from lightning_icl.models.kv import slices
from lightning_icl.pretraining._adaptation import adaptation_loss, adapted_weights, take_apart

RATE, END = 0.05, 7


def block(seed: int, examples: int, length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """`BOS ex EOS ex EOS …` and weights of 8 for the last two tokens of each example."""
    generator = torch.Generator().manual_seed(seed)
    ids, weights = [torch.tensor([1])], [torch.ones(1)]
    for _ in range(examples):
        ids += [torch.randint(10, 60, (length,), generator=generator), torch.tensor([END])]
        weights += [torch.tensor([1.0] * (length - 2) + [8.0, 8.0, 1.0])]
    return torch.cat(ids), torch.cat(weights)


def test_a_block_is_taken_apart_into_whole_examples_behind_its_first_token() -> None:
    ids, weights = block(0, 3)
    examples = take_apart(ids[:-4], weights[:-4], END)  # the third is cut
    assert [example.tolist() for example, _ in examples] == [[1, *ids[1:10].tolist()], [1, *ids[11:20].tolist()]]
    assert all(answer.nonzero()[:, 0].tolist() == [8, 9] for _, answer in examples)
    assert take_apart(ids, torch.ones_like(weights), END) == []


@pytest.mark.parametrize("variant", ["llama", "gpt2", "gpt_neox"])
def test_steps_and_gradient_are_those_of_plain_sgd(variant: str) -> None:
    model = tiny_model(variant).double().eval()
    examples = take_apart(*block(1, 8), END)
    before = copy.deepcopy(model.state_dict())
    loss = adaptation_loss(model, examples, RATE, shots=4)
    assert loss is not None
    loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    slow = copy.deepcopy(model)
    slow.zero_grad()
    for ids, _ in examples[:4]:
        logits = slow(ids[None]).logits[0]
        cross_entropy(logits[:-1], ids[1:]).backward()
        with torch.no_grad():
            for part in slices(slow):
                part.parameter[part.place] -= RATE * part.parameter.grad[part.place]
        slow.zero_grad()
    names = {id(parameter): name for name, parameter in slow.named_parameters()}
    weights = adapted_weights(model, [ids for ids, _ in examples[:4]], RATE)
    for part in slices(slow):
        torch.testing.assert_close(weights[names[id(part.parameter)]], part.parameter, rtol=0, atol=1e-12)
    losses = [
        cross_entropy(slow(ids[None]).logits[0, :-1], ids[1:], reduction="none")[answer[1:]]
        for ids, answer in examples[4:]
    ]
    torch.cat(losses).mean().backward()
    torch.testing.assert_close(loss, torch.cat(losses).mean(), rtol=0, atol=1e-9)
    for (name, fast), (_, other) in zip(model.named_parameters(), slow.named_parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(fast.grad, other.grad, rtol=0, atol=1e-9, msg=name)


def test_a_document_too_short_to_learn_and_ask_is_left_out() -> None:
    assert adaptation_loss(tiny_model("llama"), take_apart(*block(2, 1), END), RATE, shots=4) is None
