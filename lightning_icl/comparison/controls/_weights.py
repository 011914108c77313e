"""Controls that change weights: other parameters trained, a random update of the same size, models never trained."""

import copy
import zlib
from collections.abc import Callable, Collection
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.comparison.controls._context import ControlContext
from lightning_icl.errors import NumericalError
from lightning_icl.models.kv import LaidOver, slices
from lightning_icl.probing.contrast import Contrast
from lightning_icl.records import KVOverlay


def ft_query(context: ControlContext) -> list[Contrast]:
    """Fine-tuning updates the query projections and nothing else."""
    return [context.with_finetuning("ft-query", context.fit(context.demonstrations, trained="query"))]


def ft_all(context: ControlContext) -> list[Contrast]:
    """Fine-tuning updates every parameter; where the rate diverges, at a tenth or a hundredth of it.

    Raises:
        NumericalError: that diverges too.
    """
    main_rate = context.learning_rate
    for rate in (main_rate, main_rate / 10):
        try:
            return [_ft_all(context, rate)]
        except NumericalError:
            # The last attempt stands outside the loop, so that its error reaches the caller.
            continue
    return [_ft_all(context, main_rate / 100)]


def _ft_all(context: ControlContext, rate: float) -> Contrast:
    contrast = context.with_finetuning("ft-all", context.fit(context.demonstrations, trained="all", rate=rate))
    main_rate = context.learning_rate
    return contrast if rate == main_rate else replace(contrast, note=f"at rate {rate:g}: rate {main_rate:g} diverges")


def layer_causal(context: ControlContext) -> list[Contrast]:
    """Every layer learns from the loss of the residual stream after its own attention (Deutch et al., as in the text).

    Raises:
        ModelError: not offered for the architecture.
    """
    return [context.with_finetuning("layer-causal", context.fit(context.demonstrations, layer_causal="attention"))]


def layer_causal_block(context: ControlContext) -> list[Contrast]:
    """Every layer learns from the loss of its own block's output (Deutch et al., as in their program).

    Raises:
        ModelError: not offered for the architecture.
    """
    return [context.with_finetuning("layer-causal-block", context.fit(context.demonstrations, layer_causal="block"))]


def ft_gaussian(context: ControlContext) -> list[Contrast]:
    """The update of every key/value parameter is replaced by a Gaussian one of the same norm, hence layer by layer too.

    Kendall ranks with the query vectors of the main fine-tuning.
    """
    overlay = gaussian_overlay(context.model, context.finetuned.overlay, context.seed)
    return [context.with_finetuning("ft-gaussian", replace(context.finetuned, overlay=overlay))]


def gaussian_overlay(model: PreTrainedModel, overlay: KVOverlay, seed: int) -> KVOverlay:
    """An overlay as far from the model's weights as a given one, parameter by parameter, in random directions.

    Args:
        model: with its own weights.
        overlay: of key/value parameters.
        seed: of the directions.
    """
    tensors = {}
    for part in slices(model):
        before = at_least_float32(part.read())
        # Seeded by name, so that a parameter's noise does not depend on how many precede it.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{part.name}/{seed}".encode()))
        noise = torch.randn(before.shape, generator=generator).to(before)
        norm = torch.linalg.vector_norm(overlay.tensors[part.name].to(before) - before)
        # Same distance per parameter: only the direction differs from what was learnt.
        tensors[part.name] = before + noise * (norm / torch.linalg.vector_norm(noise))
    return KVOverlay(tensors=tensors)


def untrained(context: ControlContext) -> list[Contrast]:
    """Fresh weights throughout."""
    return [_untrained(context, "untrained", set())]


def untrained_embeddings(context: ControlContext) -> list[Contrast]:
    """Fresh weights but for embeddings, unembedding and norms, which are the trained model's."""
    return [_untrained(context, "untrained-embeddings", embeddings(context.model) | norms(context.model))]


def untrained_norms(context: ControlContext) -> list[Contrast]:
    """Fresh weights but for norms, which are the trained model's."""
    return [_untrained(context, "untrained-norms", norms(context.model))]


def _untrained(context: ControlContext, name: str, kept: Collection[str]) -> Contrast:
    """All three conditions under other weights: fine-tuning starts from them too."""
    fresh = fresh_overlay(context.model, kept, context.seed)
    finetuned = context.fit(context.demonstrations, base=fresh)
    learnt = merged_overlay(context.model, fresh, finetuned.overlay)
    return Contrast(
        name=name,
        zsl=replace(context.zsl, name=f"zsl@{name}", overlay=fresh),
        icl=replace(context.icl, name=f"icl@{name}", overlay=fresh),
        ft=context.ft(name, learnt),
        demonstrations=context.demonstrations,
        training_queries=finetuned.training_queries,
        learning_rate=finetuned.learning_rate,
    )


def fresh_overlay(model: PreTrainedModel, kept: Collection[str], seed: int) -> KVOverlay:
    """All parameters as the model's class initialises them, but for some that stay the model's own.

    Args:
        model: gives class, configuration and what is kept. Tied parameters count once.
        kept: names of parameters.
        seed: of the fresh weights.
    """
    # The user's own random state stays as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Initialised by the model's class, as its authors trained it from.
        fresh = type(model)(copy.deepcopy(model.config))
    trained = dict(model.named_parameters())
    tensors = {
        name: (trained[name] if name in kept else parameter).detach().to(trained[name])
        for name, parameter in fresh.named_parameters()
    }
    return KVOverlay(tensors=tensors)


def merged_overlay(model: PreTrainedModel, under: KVOverlay, over: KVOverlay) -> KVOverlay:
    """All parameters of one overlay, with a key/value overlay laid over them; what it leaves alone is shared.

    Args:
        model: both belong to it.
        under: holds all parameters.
        over: holds key/value parameters.
    """
    # Read while the lower overlay is on, so that rows of a fused parameter that were not trained come from it.
    with LaidOver(model, under).active():
        changed: dict[str, Tensor] = {}
        for part in slices(model):
            changed[part.name.removesuffix("::kv")] = part.whole(over.tensors[part.name])
    return KVOverlay(tensors={**under.tensors, **changed})


def embeddings(model: PreTrainedModel) -> set[str]:
    """Names of the parameters of token and position embeddings and of the unembedding."""
    head = model.get_output_embeddings()
    return _parameters(model, lambda module: isinstance(module, nn.Embedding) or module is head)


def norms(model: PreTrainedModel) -> set[str]:
    """Names of the parameters of all normalisations."""
    # By class name: every family has a norm class of its own.
    return _parameters(model, lambda module: type(module).__name__.endswith("Norm"))


def _parameters(model: PreTrainedModel, chosen: Callable[[nn.Module], bool]) -> set[str]:
    # By identity: tied parameters stand in several modules under one name.
    identities = {id(parameter) for module in model.modules() if chosen(module) for parameter in module.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in identities}
