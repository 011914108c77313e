"""A task as a data module, for programs: the model and the task each by name or as an object."""

from typing import TYPE_CHECKING, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_icl.data.module import ICLDataModule as TaskData
from lightning_icl.data.settings import BatchTokens, ProbeToken
from lightning_icl.errors import UserError
from lightning_icl.front._arguments import Rows, folder_of, name_of, one_task, subject_of
from lightning_icl.models.architecture import context_length
from lightning_icl.models.fitting import check_vocabulary
from lightning_icl.models.settings import ModelSettings
from lightning_icl.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class ICLDataModule(TaskData):
    """A task as a data module: everything is read, checked and encoded here.

    Args:
        task: the task, or its name, or the path of a task file.
        model: the model, whose positions and tokenizer are taken, or its name; or a tokenizer alone, which needs
            `context_length` with it.
        tokenizer: another tokenizer than the one that the model was loaded with.
        context_length: positions of the model, None for no limit; needed with a tokenizer alone.
        data: a folder, or rows in memory by split; None for the task's own source.
        shots: demonstrations asked for; fewer are used where the context is full.
        seed: seed of the shuffle that picks the demonstrations.
        limit: number of queries; None for the first 2,000 of the fixed shuffle.
        template: variant of the prompt template; None for the task's default.
        separator: what closes a demonstration: `eos`, `newline`, any other text, or `auto` for what fits the tokenizer.
        chat: whether demonstrations are turns of user and assistant, written by the tokenizer's chat template.
        probe_token: which token is probed.
        batch_tokens: tokens in a batch of queries, padding counted, or `auto`; a batch has three queries at least.

    Raises:
        TaskError: the task is not known, or rows, answers, or lengths do not fit.
        ModelError: the model cannot be found, or does not fit its tokenizer.
        UserError: an argument is of another kind.
    """

    def __init__(
        self,
        task: Task | str,
        model: PreTrainedModel | PreTrainedTokenizerBase | str,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        context_length: int | Literal["model"] | None = "model",
        data: Rows | None = None,
        shots: int = 32,
        seed: int = 1,
        limit: int | None = None,
        template: str | None = None,
        separator: str = "auto",
        chat: bool = False,
        probe_token: ProbeToken = "prompt",
        batch_tokens: BatchTokens = "auto",
    ) -> None:
        # A tokenizer alone does not know its model's positions.
        config = None
        if isinstance(model, PreTrainedTokenizerBase):
            tokenizer = model
        else:
            subject = subject_of(model, tokenizer, ModelSettings())
            config, tokenizer = subject.config, subject.tokenizer
        super().__init__(
            one_task(task, data),
            tokenizer,
            context_length=_positions(config) if context_length == "model" else context_length,
            data=folder_of(data),
            shots=shots,
            seed=seed,
            limit=limit,
            template=template,
            separator=separator,
            chat=chat,
            probe_token=probe_token,
            batch_tokens=batch_tokens,
        )
        # Only with a model: a tokenizer alone has no embedding to fit.
        if config is not None:
            check_vocabulary(name_of(model), config, tokenizer, self.token_ids)


def _positions(config: "PretrainedConfig | None") -> int | None:
    if config is None:
        raise UserError(
            "A tokenizer does not say how many positions its model has: give the model itself, or context_length=…, "
            "None for no limit."
        )
    return context_length(config)
