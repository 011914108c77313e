"""What is measured on a trained model: perplexity by length and by position, and in-context accuracy."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch.nn.functional import cross_entropy

from experiments.momentum.settings import ExperimentSettings
from lightning_icl.data.module import ICLDataModule
from lightning_icl.models.architecture import context_length
from lightning_icl.models.finding import find_model
from lightning_icl.models.loading import load_model, load_tokenizer
from lightning_icl.models.momentum.settings import learnt_momentum
from lightning_icl.pretraining.packing import PackedText, encode_text, tokens_name
from lightning_icl.pretraining.text import find_text
from lightning_icl.probing.findings import accuracy, best_answer
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.tasks.catalogue import resolve_tasks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH_TOKENS = 8192


def measure(settings: ExperimentSettings, folder: Path, out: Path) -> dict[str, Any]:
    """Everything that the tables and curves need of one model.

    Args:
        settings: of the experiment.
        folder: the trained model.
        out: the experiment's folder, where the texts' tokens are kept.
    """
    source = find_model(str(folder))
    model, tokenizer = load_model(source), load_tokenizer(source)
    model.to(device(settings))  # type: ignore[arg-type]
    longest, tokens = max(settings.lengths), settings.perplexity_tokens
    train = packed(settings.text, "text", tokenizer, out, longest)
    held_out = packed(settings.validation_text, "validation_text", tokenizer, out, longest)
    losses = {length: token_losses(model, held_out, length, longest, tokens) for length in settings.lengths}
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_perplexity": math.exp(float(token_losses(model, train, longest, longest, tokens).mean())),
        "perplexity": {str(length): math.exp(float(loss.mean())) for length, loss in losses.items()},
        "position_loss": losses[longest].mean(0).tolist(),
        "block_loss": losses[longest].mean(1).tolist(),
        "accuracy": in_context_accuracy(settings, model, tokenizer),
        "further_accuracy": in_context_accuracy(replace(settings, tasks=settings.further_tasks), model, tokenizer)
        if settings.further_tasks
        else {},
        **learnt(model),
    }


def token_losses(model: "PreTrainedModel", text: PackedText, length: int, longest: int, tokens: int) -> torch.Tensor:
    """Loss of every token but the first of each input, in nats, (input, length − 1), float64.

    Args:
        model: in eval mode.
        text: what to read.
        length: tokens of an input.
        longest: all lengths read whole inputs of this length, cut, so that they read the same text.
        tokens: how much to read at most.
    """
    device, losses = next(model.parameters()).device, []
    read = max(1, min(len(text.tokens), tokens) // longest) * longest // length
    inputs = torch.from_numpy(text.tokens[: read * length].astype("int64")).view(read, length)
    with torch.inference_mode():
        for batch in inputs.split(max(1, _BATCH_TOKENS // length)):
            ids = batch.to(device)
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            losses.append(cross_entropy(logits.transpose(1, 2).float(), ids[:, 1:], reduction="none").double().cpu())
    return torch.cat(losses)


def in_context_accuracy(
    settings: ExperimentSettings, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, dict[str, Any]]:
    """By task, the share of right answers zero-shot and in context, and which queries context answers right."""
    found: dict[str, dict[str, Any]] = {}
    for name, task in resolve_tasks(settings.tasks).items():
        data = ICLDataModule(
            task,
            tokenizer,
            context_length=context_length(model.config),
            data=settings.rows_of(name),
            shots=settings.shots,
            limit=settings.limit,
        )
        probe = ICLProbe(model, data.demonstrations)
        trainer = L.Trainer(
            accelerator=settings.accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.validate(probe, datamodule=data, verbose=False)
        right = [best_answer(query.scores["icl"]) == query.gold for query in probe.predictions]
        found[name] = {view: accuracy(probe.predictions, view) for view in ("zsl", "icl")}
        found[name] |= {"icl_right": right, "demonstrations": len(data.demonstrations)}
    return found


def learnt(model: "PreTrainedModel") -> dict[str, list[list[float]] | None]:
    """η and gates of every layer and head where they are learnt, from the first layer on."""
    values = {name: [layer.tolist() for layer in layers] for name, layers in learnt_momentum(model).items()}
    return {name: values.get(name) for name in ("eta", "gate")}


def device(settings: ExperimentSettings) -> str:
    """Where perplexity is measured: on a GPU if there is one, unless another accelerator is asked for."""
    return "cuda" if settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"


def packed(wanted: str, name: str, tokenizer: "PreTrainedTokenizerBase", out: Path, longest: int) -> PackedText:
    """A text's tokens, made once for all models of a tokenizer."""
    text = find_text(wanted, name, split="train" if name == "text" else "validation")
    path = out / tokens_name(name, text, tokenizer)
    encode_text(text, tokenizer, path)
    return PackedText(path, int(tokenizer.eos_token_id), longest, name)
