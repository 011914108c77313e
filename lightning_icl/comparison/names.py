"""Names of models, tasks and folders, checked before anything heavy is imported: a slip of the pen is answered at once.

The plan finds these mistakes too, and all others.
"""

from lightning_icl.comparison.settings import RunSettings
from lightning_icl.errors import TaskError
from lightning_icl.file_names import input_path
from lightning_icl.models.finding import find_source
from lightning_icl.models.hub import check_on_hub
from lightning_icl.tasks.catalogue import resolve_tasks


def check_names(settings: RunSettings) -> None:
    """Find what names tell by themselves.

    Raises:
        UserError: there is no such task, template, folder of data or model.
    """
    tasks = resolve_tasks(settings.task).values()
    # Raises for a variant that a task lacks.
    for task in tasks:
        task.template(settings.template)
    if settings.data is not None:
        data = input_path(settings.data, "--data")
        if not data.is_dir():
            raise TaskError(f"--data {str(data)!r} is no folder. Give one with TASK/train and TASK/validation files.")
    for name in settings.models:
        check_on_hub(find_source(settings, name))
