"""What 36 learning rates cost: a sweep's unit against 36 x (fine-tuning + one observation) + zero-shot + in-context.

    python -m benchmarks.sweep_cost             # GPT-2 124M shape, float32, 32 shots, prefix of about 1,000 tokens

The parts are measured in the same process, before and after the whole, and the ratio is to their mean. Selection is on
the reported queries, so that no held-out rows are observed.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from benchmarks.random_words import random_words
from benchmarks.rounds import timed
from benchmarks.workload import WORKLOADS, observe
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.data.batches import batch_budget
from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import budget_batches, collate
from lightning_icl.models.finding import ModelSource
from lightning_icl.models.subject import Subject
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import Condition
from lightning_icl.saving.workspace import held
from lightning_icl.sweeping.cost import grouped
from lightning_icl.sweeping.measure import measure_group
from lightning_icl.sweeping.plan import SweepPlan, TaskSweep, Unit
from lightning_icl.sweeping.settings import PAPER_RATES, SweepSettings


def part_seconds(model: PreTrainedModel, data: ICLDataModule, settings: SweepSettings) -> dict[str, float]:
    """Seconds of one fine-tuning and of one observation of all queries under each condition."""
    probe = ICLProbe(model, data.demonstrations)
    trainer = make_trainer(settings.compare("random"), [KVFinetuning(1e-3)])
    seconds = {"fine-tuning": timed(lambda: trainer.fit(probe, datamodule=data))}
    assert probe.finetuned is not None
    batches = [collate(batch) for batch in budget_batches(data.queries, batch_budget(data.batch_tokens, []))]
    bos, prefix = data.demonstrations.bos, data.demonstrations.prefix_token_ids
    conditions = (
        Condition(name="zsl", prefix_token_ids=bos),
        Condition(name="icl", prefix_token_ids=prefix),
        Condition(name="ft", prefix_token_ids=bos, overlay=probe.finetuned.overlay),
    )
    for condition in conditions:
        seconds[condition.name] = timed(partial(observe, model, condition, batches))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--words", type=int, default=14, help="words of a sentence")
    parser.add_argument("--rates", type=int, default=36, help="the first of the paper's learning rates")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--overlay-memory", type=float, default=4.0)
    arguments = parser.parse_args()
    model = WORKLOADS["gpt2"].but(layers=arguments.layers, width=arguments.width).model()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = random_words(folder, arguments.queries, words=arguments.words)
        task = data.task
        settings = SweepSettings(
            select="paper", seeds=1, lrs=list(PAPER_RATES[: arguments.rates]), overlay_memory=arguments.overlay_memory
        )
        unit = Unit(model="random", task=task.name, shots=32, seed=1, folder=folder / "out")
        source = ModelSource(name="random", location="random")
        subject = Subject(source=source, config=model.config, tokenizer=data.tokenizer, model=model)
        swept = TaskSweep(subject=subject, task=task, data={unit: data}, held_out=[], fingerprints=data.fingerprints)
        plan = SweepPlan(settings=settings, out=folder, tasks=(swept,))
        groups = grouped([(unit, rate) for rate in settings.rates], swept, model, arguments.overlay_memory)
        part_seconds(model, data, settings)  # warm up
        before = part_seconds(model, data, settings)
        with held(unit.folder) as space:

            def sweep() -> None:
                for runs in groups:
                    measure_group(plan, swept, model, runs, lambda _: None, space)

            whole = timed(sweep)
        after = part_seconds(model, data, settings)
    parts = {name: statistics.fmean((before[name], after[name])) for name in before}
    expected = arguments.rates * (parts["fine-tuning"] + parts["ft"]) + parts["zsl"] + parts["icl"]
    for name in parts:
        print(f"{name:12} {before[name]:.3f} s before, {after[name]:.3f} s after")
    print(f"prefix {len(data.demonstrations.prefix_token_ids)} tokens, passes over queries: {len(groups)}")
    print(f"{arguments.rates} rates took {whole:.2f} s; the parts make {expected:.2f} s; ratio {whole / expected:.3f}")


if __name__ == "__main__":
    main()
