"""The model under study with its configuration and tokenizer, before its weights are read."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.finding import ModelSource, find_source
from lightning_icl.models.fingerprint import object_fingerprint, weights_fingerprint
from lightning_icl.models.loading import check_weights, load_config, load_model, load_tokenizer
from lightning_icl.models.settings import ModelSettings

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is known of a model without its weights, and how to get it."""

    source: ModelSource
    config: "PretrainedConfig"
    tokenizer: "PreTrainedTokenizerBase"
    model: "PreTrainedModel | None" = None
    """The model itself, where it was given as an object."""

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the model's weights; files are read for it."""
        if self.model is not None:
            return object_fingerprint(self.model)
        return weights_fingerprint(self.source, self.config)

    def load(self, dtype: "torch.dtype", *, device_map: str | None = None) -> "PreTrainedModel":
        """The model: as it was given, or read from its files.

        Args:
            dtype: of the weights that are read.
            device_map: `auto` spreads them over all GPUs.

        Raises:
            UserError: they cannot be used.
        """
        return self.model if self.model is not None else load_model(self.source, dtype, device_map=device_map)


def read_subject(
    settings: ModelSettings, name: str | None = None, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> Subject:
    """The model that settings name, its configuration and tokenizer read and its weights looked for.

    Args:
        settings: with the permissions of the model.
        name: another model, with the same permissions.
        tokenizer: another one than the model's own.

    Raises:
        UserError: it cannot be found or probed.
    """
    source = find_source(settings, name)
    config = load_config(source)
    # Refuses unsupported models before tokenizer and weights are touched.
    architecture_of(config)
    check_weights(source, config)
    return Subject(source=source, config=config, tokenizer=tokenizer or load_tokenizer(source))
