"""The layer-causal loss of fine-tuning (Deutch et al., arXiv 2311.07772, "causal GD"): each layer has its own.

Every layer's output goes through the final norm and the unembedding; the losses of all layers are summed, and no
gradient passes a layer's input, so that no layer is updated for what happens above it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.errors import ModelError
from lightning_icl.models.architecture import architecture_of, scales_logits
from lightning_icl.models.capture import Capture
from lightning_icl.probing._loss import TrainingLoss, next_token_loss

Reading = Literal["attention", "block"]
"""A layer's output: the residual stream after its attention (the paper's text), or after its block (its program)."""


@contextmanager
def layer_outputs(model: PreTrainedModel, reading: Reading) -> Iterator[list[Tensor]]:
    """Collect every layer's output (batch, token, width) in a forward pass, gradients stopped at block inputs.

    Args:
        model: the model; other hooks of it stay.
        reading: what a layer's output is.
    """
    architecture = architecture_of(model.config)
    outputs: list[Tensor] = []
    inputs: list[Tensor] = []

    def stop(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        # Families differ in how they hand the residual stream to a block: by position or by name.
        if arguments:
            arguments = (arguments[0].detach(), *arguments[1:])
            inputs.append(arguments[0])
        else:
            keywords = {**keywords, "hidden_states": keywords["hidden_states"].detach()}
            inputs.append(keywords["hidden_states"])
        return arguments, keywords

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        state = output[0] if isinstance(output, tuple) else output
        # Attention's output is what is added to the residual stream, so the stream after it needs the block's input.
        outputs.append(state if reading == "block" else inputs[-1] + state.reshape(inputs[-1].shape))

    with ExitStack() as stack:
        # Pre-hooks on every block cut the gradient between layers and remember the input for `keep`.
        for block in model.get_submodule(architecture.layers).children():
            stack.callback(block.register_forward_pre_hook(stop, with_kwargs=True).remove)
            watched = block if reading == "block" else block.get_submodule(architecture.attention)
            stack.callback(watched.register_forward_hook(keep).remove)
        yield outputs


def layer_causal(reading: Reading) -> TrainingLoss:
    """The sum over layers of the causal language-modelling loss of each, as a fine-tuning takes it.

    Args:
        reading: what a layer's output is.

    Raises:
        ModelError: when used, if the model's final norm cannot be told.
    """

    def loss(capture: Capture, token_ids: Tensor, spans: Sequence[slice]) -> tuple[Tensor, list[Tensor]]:
        norm, head = final_norm(capture.model), capture.model.get_output_embeddings()
        with layer_outputs(capture.model, reading) as outputs:
            # Each layer's own logits are wanted, and none of the model's.
            _, queries = capture.train_forward(token_ids, [slice(0, 0)] * len(spans))

        def of_row(row: int, span: slice) -> Tensor:
            predicting, following = slice(span.start, span.stop - 1), token_ids[row, span.start + 1 : span.stop]
            losses = [
                next_token_loss(head(norm(output[row : row + 1, predicting]))[0], following) for output in outputs
            ]
            # Layers of a spread model sit on several devices; the sum needs one.
            return torch.stack([loss.to(losses[0].device) for loss in losses]).sum()

        return torch.stack([of_row(row, span) for row, span in enumerate(spans)]), queries

    return loss


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The normalisation between the last block and the unembedding.

    Raises:
        ModelError: it cannot be told, or the logits are scaled or capped after the unembedding.
    """
    body, _, name = architecture_of(model.config).final_norm.rpartition(".")
    # OPT models without a final norm have None there, which `get_submodule` would refuse.
    norm = getattr(model.get_submodule(body), name)
    if norm is None or scales_logits(model.config):
        raise ModelError(f"The layer-causal loss is not offered for {model.config.model_type!r} models.")
    return norm
