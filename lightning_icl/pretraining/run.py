"""One pre-training run: tokenizer, model, `Trainer.fit`, and the finished folder."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_icl.errors import OutputError
from lightning_icl.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


def pretrain(settings: PretrainSettings) -> Path:
    """Train a model and put it into `settings.out`; an interrupted run goes on from its last checkpoint.

    Raises:
        OutputError: the folder already holds a model and `overwrite` is off.
    """
    out = Path(settings.out)
    if (out / "model.safetensors").exists() and not settings.overwrite:
        raise OutputError(f"{str(out)!r} already holds a model. Give another --out, or pass --overwrite.")
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader

    from lightning_icl.pretraining.module import CausalPretraining, Documents
    from lightning_icl.pretraining.tokenizer import train_tokenizer

    work = out.parent / f"{out.name}.training"
    L.seed_everything(settings.seed)
    tokenizer = train_tokenizer(settings.vocabulary, settings.seed)
    model = new_model(settings, tokenizer)
    checkpoints = ModelCheckpoint(dirpath=work, every_n_train_steps=settings.checkpoint_every, save_last=True)
    trainer = L.Trainer(
        max_steps=settings.steps,
        gradient_clip_val=settings.clip,
        precision=settings.precision,  # type: ignore[arg-type]
        accelerator=settings.accelerator,
        logger=CSVLogger(work, name="log"),
        callbacks=[checkpoints, RichProgressBar()],
        log_every_n_steps=10,
    )
    last = work / "last.ckpt"
    done = _steps_done(last)
    documents = DataLoader(Documents(settings, tokenizer, done), batch_size=settings.batch, shuffle=False)
    trainer.fit(CausalPretraining(model, settings), documents, ckpt_path=str(last) if done else None, weights_only=True)
    if trainer.is_global_zero and trainer.global_step >= settings.steps:
        save_model(model.float(), tokenizer, out)
        _save_log(work / "log", out)
    return out


def _save_log(log: Path, out: Path) -> None:
    """Keep the training log and its curve with the model."""
    from lightning_icl.pretraining.curve import draw_loss_curve, join_logs

    versions = sorted(
        log.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.removeprefix("version_"))
    )
    join_logs(versions, out / "training_log.csv")
    try:
        draw_loss_curve(out / "training_log.csv", out / "loss_curve.png")
    except ModuleNotFoundError:  # matplotlib is an extra
        return


def _steps_done(checkpoint: Path) -> int:
    """Steps behind a checkpoint; 0 where there is none."""
    import torch

    return (
        int(torch.load(checkpoint, weights_only=True, map_location="cpu")["global_step"]) if checkpoint.exists() else 0
    )


def new_model(settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase") -> "LlamaForCausalLM":
    """A Llama-shaped model with fresh weights and tied embeddings, ready to look for what is alike and to copy it.

    Keys start equal to queries and outputs undo values (Trockman and Kolter 2023, arXiv 2305.09828), which small models
    find by themselves only after long.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lightning_icl.models.momentum import to_momentum

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=4 * settings.width * 2 // 3 // 64 * 64,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        initializer_range=settings.width**-0.5,  # the common 0.02 is for widths of thousands and learns slowly here
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.k_proj.weight.copy_(block.self_attn.q_proj.weight)
            block.self_attn.o_proj.weight.copy_(block.self_attn.v_proj.weight.T)
    if settings.momentum is not None:
        to_momentum(model, eta=settings.momentum, learn=settings.learn_momentum)
    return model


def save_model(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerBase", out: Path) -> None:
    """Write model and tokenizer beside the folder, then move each file into it: never half a model."""
    part = out.parent / f"{out.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, safe_serialization=True)
    tokenizer.save_pretrained(part)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(part.iterdir(), key=lambda file: file.suffix == ".safetensors"):
        os.replace(file, out / file.name)
    part.rmdir()
