"""The data module of programs against the flags of the command line."""

import inspect
from dataclasses import fields
from typing import Any

import pytest

import lightning_icl
from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.settings import DataSettings

# Arguments of a data module that are no settings about data: what is asked, of whom, and how often.
_OF_ONE_PROMPT = {"task", "model", "tokenizer", "context_length", "shots", "seed"}


@pytest.mark.parametrize("kind", [ICLDataModule, lightning_icl.ICLDataModule])
def test_every_flag_about_data_is_an_argument_with_the_same_default(kind: type) -> None:
    parameters = inspect.signature(kind).parameters
    defaults: dict[str, Any] = {name: item.default for name, item in parameters.items() if name not in _OF_ONE_PROMPT}
    assert defaults == {field.name: field.default for field in fields(DataSettings) if field.name != "task"}
