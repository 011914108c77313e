"""Several fine-tunings of a run's model by one `Trainer.fit`."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.probing.finetuning_run import FinetuningRun
from lightning_icl.probing.group import GroupFinetuning, group_steps
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.process_watch import guarded


def fit_together(
    settings: CompareSettings, model: PreTrainedModel, runs: Sequence[FinetuningRun], *, title: str = ""
) -> GroupFinetuning:
    """Fine-tune runs side by side; what they have learnt, or why nothing, is in the group that comes back.

    Args:
        settings: of the run.
        model: the model under study, which is left as it was.
        runs: what learns.
        title: what the display of progress calls the work; without it there is none.
    """
    group = GroupFinetuning(runs)
    # Made here and not by the caller: every group needs a Trainer of its own, whose one epoch it spends.
    trainer = make_trainer(settings, [group], title=title)
    with guarded(trainer):
        trainer.fit(FinetunedModule(model, runs[0].demonstrations), group_steps(runs))
    return group
