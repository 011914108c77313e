"""Learning to be fine-tuned: the restricted fine-tuning inside a training step, by first-order meta-learning.

A block of few-shot documents is taken apart. Its first examples are fine-tuned on as Dai et al. do (section 4.1): one
plain SGD step of the key and value projections for each. The loss of the other examples' answers, zero-shot under the
weights that this leads to, is what the model learns from; its gradient is taken at those weights and applied to those
before (first-order MAML, Finn et al. 2017, arXiv 1703.03400). B block, T tokens, N examples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.models.kv import slices

# At least a quarter of a block's examples are asked; all others, up to the number asked for, are learnt from.
_LEARNT_SHARE = 0.75

Example = tuple[Tensor, Tensor]
"""Token ids `BOS ex_i` and whether each is of the answer, (token,) each."""


def take_apart(ids: Tensor, weights: Tensor, end: int) -> list[Example]:
    """The whole examples of a block `BOS ex_1 EOS ex_2 EOS …`, each behind the block's first token.

    Args:
        ids: (B,) token ids.
        weights: (B,) loss weights; answers weigh more than 1. A block of text has none and yields no example.
        end: the EOS token.
    """
    # Weights tell documents from text, which has no examples to take apart.
    if not (weights > 1).any():
        return []
    ends = (ids == end).nonzero()[:, 0].tolist()
    starts = [1, *(place + 1 for place in ends)]
    return [
        (torch.cat([ids[:1], ids[start:stop]]), torch.cat([weights[:1] > 1, weights[start:stop] > 1]))
        # `ends` may be shorter: what stands behind the last EOS is an example cut off by the block's end.
        for start, stop in zip(starts, ends, strict=False)
        if stop > start
    ]


def adaptation_loss(model: PreTrainedModel, examples: Sequence[Example], rate: float, shots: int) -> Tensor | None:
    """Mean loss of the asked examples' answer tokens after fine-tuning on the first ones, in nats per token.

    Args:
        model: in training; its weights are left alone.
        examples: of one document.
        rate: learning rate of fine-tuning.
        shots: at most so many examples are fine-tuned on.

    Returns:
        A scalar whose gradient is the first-order one; None where there are too few examples to do both.
    """
    # Rounded down, so that at least one example is left to ask.
    learnt = min(shots, int(len(examples) * _LEARNT_SHARE))
    if not learnt:
        return None
    weights = adapted_weights(model, [ids for ids, _ in examples[:learnt]], rate)
    ids = pad_sequence([ids for ids, _ in examples[learnt:]], batch_first=True)
    answers = pad_sequence([answer for _, answer in examples[learnt:]], batch_first=True)[:, 1:]
    # A functional call: the model's own weights stay as they are, and gradients reach them through `weights`.
    logits = functional_call(model, weights, kwargs={"input_ids": ids, "use_cache": False}).logits
    # Only answers, as that is what fine-tuning is to improve; prompts have a loss of their own elsewhere.
    return cross_entropy(at_least_float32(logits[:, :-1][answers]), ids[:, 1:][answers])


def adapted_weights(model: PreTrainedModel, examples: Sequence[Tensor], rate: float) -> dict[str, Tensor]:
    """Key and value parameters after one SGD step for each example, by name.

    Args:
        model: whose weights are left alone.
        examples: token ids (T,) each, in order.
        rate: learning rate.

    Returns:
        Tensors that depend on the model's own parameters with slope 1, which makes gradients first-order.
    """
    # By identity: a fused parameter appears once, and only its key/value rows move.
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parts = {names[id(part.parameter)]: part for part in slices(model)}
    moved = {name: part.parameter.detach().clone().requires_grad_() for name, part in parts.items()}
    for ids in examples:
        logits = functional_call(model, moved, kwargs={"input_ids": ids[None], "use_cache": False}).logits
        loss = cross_entropy(at_least_float32(logits[0, :-1]), ids[1:])
        # A plain first-order gradient: no graph through the steps is kept, however many there are.
        gradients = torch.autograd.grad(loss, list(moved.values()))
        with torch.no_grad():
            for (name, part), gradient in zip(parts.items(), gradients, strict=True):
                moved[name][part.place] -= rate * gradient[part.place]
    # The value is the moved weight, the slope that of the parameter: the steps themselves are not differentiated.
    return {name: part.parameter + (moved[name] - part.parameter).detach() for name, part in parts.items()}
