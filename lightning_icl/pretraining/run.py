"""One pre-training run: text, tokenizer, model, `Trainer.fit`, and the finished folder.

Everything unfinished lies in `OUT.training` beside the folder of the finished model: tokenizer, tokens, logs and the
checkpoint that an interrupted run goes on from.
"""

import os
import shutil
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import UserError
from lightning_icl.lightning_parts import make_logger, quiet_lightning, trainer_on
from lightning_icl.pretraining.resume import (
    RECORD,
    check_folders,
    check_resume,
    keep_record,
    last_checkpoint,
    model_folder,
    remove_work,
    training_record,
    work_folder,
)
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.pretraining.text import Text, find_text
from lightning_icl.process_watch import guarded
from lightning_icl.saving.workspace import Workspace, held

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.loggers import Logger
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lightning_icl.pretraining._training_log import TrainingLog
    from lightning_icl.pretraining.data import PretrainingData


def pretrain(settings: PretrainSettings) -> Path:
    """Train a model and put it into `settings.out`; an interrupted run goes on from its last checkpoint, exactly.

    Raises:
        UserError: before training, for anything that cannot be used: text, tokenizer, configuration, an output folder
            that holds a model, or an unfinished training of other settings.
    """
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    out = model_folder(settings)
    # Only the first process touches folders; the others train and return.
    if getattr(rank_zero_only, "rank", 0):
        _train(settings, None)
        return out
    with held(out.parent, out.name) as space:
        check_folders(settings)
        _train(settings, space)
    return out


def _train(settings: PretrainSettings, space: Workspace | None) -> None:
    """Train, and finish the model's folder where this process may write it."""
    from lightning_icl.pretraining.models import check_model

    quiet()
    if settings.compile:
        _check_compiler()
        # PyTorch's compiler warns of PyTorch's own functions.
        warnings.filterwarnings("ignore", module=r"torch\._inductor")
    # Devices first: Lightning refuses what it cannot have before any text is read.
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    chosen = {name: getattr(settings, name) for name in names}
    trainer_on(chosen, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    texts = _find_texts(settings)
    check_model(settings)
    record = full_record(settings)
    check_resume(settings, record)
    checkpoint = last_checkpoint(settings)

    # Imported only now: every mistake above is found in a second, these imports take several.
    import lightning as L

    from lightning_icl.pretraining._module import CausalPretraining
    from lightning_icl.pretraining._training_log import TrainingLog
    from lightning_icl.pretraining.models import new_model

    tokenizer = _tokenizer(settings, texts)
    if space is not None:
        keep_record(settings, record)
    data = _data(settings, tokenizer, texts)
    # Before the model is made, whose weights are drawn.
    L.seed_everything(settings.seed, verbose=False)
    model, log = new_model(settings, tokenizer), TrainingLog(settings.steps)
    trainer = _trainer(settings, log, validating=data.validation is not None)
    with guarded(trainer):
        trainer.fit(
            CausalPretraining(model, settings, tokenizer.eos_token_id),
            datamodule=data,
            ckpt_path=None if checkpoint is None else str(checkpoint),
            # A checkpoint holds tensors and numbers only, and nothing in it may run.
            weights_only=True,
        )
    # A training that was stopped leaves its checkpoint and no model.
    if space is not None and trainer.global_step >= settings.steps:
        _finish(settings, space, model, tokenizer, log)


def _check_compiler() -> None:
    """Raise `UserError` where torch.compile would find no compiler, which it says only when the model is there."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if not any(map(shutil.which, names)):
        raise UserError(
            f"compile = true needs a C++ compiler, and {' or '.join(names)} is not there. Install one, name it in CXX, "
            "or leave compile out."
        )


def quiet() -> None:
    """Keep Lightning's banners, and its advice about a folder that goes on being used, off the terminal."""
    quiet_lightning(".*exists and is not empty.*")


def full_record(settings: PretrainSettings) -> dict[str, Any]:
    """Everything that the numbers of a training depend on, its texts and the model it begins with as they are now.

    Raises:
        UserError: a text or the model cannot be found.
    """
    from lightning_icl.pretraining.models import init_record

    files = {name: text.record for name, text in _find_texts(settings).items()}
    return training_record(settings, files if settings.init is None else {**files, "init": init_record(settings)})


def _find_texts(settings: PretrainSettings) -> dict[str, Text]:
    """The texts that the settings name, by setting."""
    texts = {}
    if settings.text is not None:
        texts["text"] = find_text(settings.text, "text")
    if settings.validation_text is not None:
        texts["validation_text"] = find_text(settings.validation_text, "validation_text", split="validation")
    return texts


def _tokenizer(settings: PretrainSettings, texts: dict[str, Text]) -> "PreTrainedTokenizerBase":
    """The tokenizer asked for, that of the model training begins with, or one trained on what the model will read."""
    from lightning_icl.pretraining.models import model_source
    from lightning_icl.pretraining.tokenizer import fitting_tokenizer, named_tokenizer, train_tokenizer

    # A model that exists comes with its own vocabulary.
    if settings.init is not None and (source := model_source(settings)) is not None:
        return fitting_tokenizer(source, settings.tokenizer)
    if settings.tokenizer is not None:
        return named_tokenizer(settings.tokenizer)
    text = texts.get("text") if settings.read_share else None
    return train_tokenizer(settings.vocabulary, settings.seed, text, generated=settings.read_share < 1)


def _data(
    settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase", texts: dict[str, Text]
) -> "PretrainingData":
    """Blocks of everything that is read, their tokens on disk."""
    from lightning_icl.pretraining.data import PretrainingData
    from lightning_icl.pretraining.packing import PackedText, encode_text, tokens_name

    packed: dict[str, PackedText] = {}
    for name, text in texts.items():
        path = work_folder(settings) / tokens_name(name, text, tokenizer)
        encode_text(text, tokenizer, path)
        packed[name] = PackedText(path, int(tokenizer.eos_token_id), settings.block, name)
    return PretrainingData(settings, tokenizer, packed.get("text"), packed.get("validation_text"))


def _trainer(settings: PretrainSettings, log: "TrainingLog", *, validating: bool) -> "L.Trainer":
    import lightning as L

    from lightning_icl.bfloat16_support import warn_of_slow_bfloat16
    from lightning_icl.pretraining._progress import speed_display
    from lightning_icl.pretraining.checkpoint import LastCheckpoint, WholeCheckpointIO

    work = work_folder(settings)
    # Counted in batches, which accumulation multiplies.
    every = min(settings.validate_every, settings.steps) * settings.accumulate
    trainer = L.Trainer(
        max_epochs=1,  # the order of blocks goes on to the last step
        max_steps=settings.steps,
        gradient_clip_val=settings.clip,
        accumulate_grad_batches=settings.accumulate,
        precision=settings.precision,  # type: ignore[arg-type]
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        logger=_loggers(settings, work),
        callbacks=[
            log,
            LastCheckpoint(settings, work, validating=validating),
            speed_display(settings),
        ],
        plugins=[WholeCheckpointIO()],
        enable_progress_bar=sys.stdout.isatty(),
        enable_model_summary=False,
        log_every_n_steps=min(10, settings.steps),
        val_check_interval=every if validating else None,
        limit_val_batches=None if validating else 0,
        # A check before training would validate the untouched model and log it.
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # PretrainingData divides every step itself
    )
    warn_of_slow_bfloat16(trainer, "bf16-true", "bf16-mixed")
    return trainer


def _loggers(settings: PretrainSettings, work: Path) -> list["Logger"]:
    """Those asked for besides the training's own log, which is kept with its checkpoint."""
    # Its own log is CSV already.
    if settings.logger == "csv":
        return []
    name = "tensorboard" if settings.logger == "tensorboard" else model_folder(settings).name
    logger = make_logger(settings.logger, name, work)
    return [] if logger is None else [logger]


def _finish(
    settings: PretrainSettings,
    space: Workspace,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    log: "TrainingLog",
) -> None:
    """Make the model's folder, whole, with the training's settings, log and curve; the rest has served."""
    from lightning_icl.pretraining._curve import draw_loss_curve
    from lightning_icl.pretraining._training_log import LOG
    from lightning_icl.pretraining.models import save_model

    work = work_folder(settings)
    with space.replacing(model_folder(settings)) as part:
        save_model(model.float(), tokenizer, part)
        log.write(part)
        with suppress(ModuleNotFoundError):  # matplotlib is an extra
            draw_loss_curve(part / LOG, part / "loss_curve.png")
        shutil.copyfile(work / RECORD, part / RECORD)
        if (work / "tensorboard").is_dir():
            shutil.copytree(work / "tensorboard", part / "tensorboard")
    remove_work(work)
