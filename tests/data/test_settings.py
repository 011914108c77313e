"""Flags about data: the settings' field and the data module's argument are all there is to one."""

import inspect
from dataclasses import fields

from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.settings import DataSettings


def test_every_field_about_data_is_an_argument_of_the_data_module_with_the_same_default() -> None:
    arguments = inspect.signature(ICLDataModule).parameters
    own = {field.name: field.default for field in fields(DataSettings) if field.name != "task"}
    assert own == {name: arguments[name].default for name in own}


def test_every_command_that_reads_tasks_has_every_flag_about_data() -> None:
    from lightning_icl.comparison.settings import CompareSettings
    from lightning_icl.dualform.settings import DualSettings
    from lightning_icl.sweeping.settings import SweepSettings

    for settings in (CompareSettings, DualSettings, SweepSettings):
        assert issubclass(settings, DataSettings)
