"""What `compare --controls all` costs: its pass over the queries against one zero-shot observation for each condition.

    python -m benchmarks.controls_cost                           # GPT-2 124M shape, float32, prefix of about 1,000
    python -m benchmarks.controls_cost --layers 4 --queries 51   # the same in a few minutes
    python -m benchmarks.controls_cost --size tiny               # whether it runs

Single observations take their turn before each batch, and a ratio is the median over the batches. Fine-tunings,
prefixes and the final results are timed apart. Untrained models are conditions like any other.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from benchmarks.memory import MB, peak
from benchmarks.random_words import random_words
from benchmarks.rounds import Ratio, Seconds, timed
from lightning_icl.comparison.controls.catalogue import choose
from lightning_icl.comparison.controls.run import make_controls
from lightning_icl.comparison.plan import PlannedTask
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.data.module import ICLDataModule
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import QueryBatch

RATE = 1e-3
SETTINGS = CompareSettings(accelerator="cpu")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of the model, and of what is asked."""

    layers: int
    width: int
    queries: int
    words: int
    """Of each sentence."""
    shots: int
    batch_tokens: int


SHAPES = {
    "tiny": Shape(layers=2, width=64, queries=7, words=6, shots=4, batch_tokens=64),
    "gpt2": Shape(layers=12, width=768, queries=36, words=18, shots=24, batch_tokens=512),
}


def controlled_probe(model: PreTrainedModel, folder: Path, shape: Shape) -> tuple[ICLProbe, ICLDataModule, float]:
    """A probe with the main fine-tuning and those of all controls, ready to validate; and the seconds of the latter."""
    sizes = {"words": shape.words, "shots": shape.shots}
    data = random_words(folder, shape.queries, **sizes)
    data.batch_tokens = shape.batch_tokens
    (folder / "other").mkdir()
    neighbour = random_words(folder / "other", 2, **sizes, seed=1).demonstrations
    planned = PlannedTask(name="random", task=data.task, data=data, learning_rate=RATE, neighbour=neighbour)
    probe = ICLProbe(model, data.demonstrations)
    make_trainer(SETTINGS, [KVFinetuning(RATE)]).fit(probe, datamodule=data)
    controlled = make_controls(SETTINGS, planned, probe, choose("all"))
    if controlled.impossible:
        raise SystemExit(f"Left out: {controlled.impossible}")
    return probe, data, controlled.seconds


class Turns(Callback):
    """Before each batch of the pass, one zero-shot and one in-context observation of that batch take their turn."""

    def __init__(self) -> None:
        self.seconds: Seconds = {"zsl": [], "icl": [], "pass": []}
        self._started = 0.0

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: QueryBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        assert isinstance(pl_module, ICLProbe)
        for name in ("zsl", "icl"):
            with pl_module.capture as capture:
                self.seconds[name].append(timed(partial(pl_module.views[name].observe, capture, batch)))
        self._started = time.perf_counter()

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.seconds["pass"].append(time.perf_counter() - self._started)


def held_bytes(probe: ICLProbe) -> dict[str, int]:
    """What all conditions hold at once: weights, training's query vectors, keys and values of the prompts."""
    conditions = list(probe.conditions.values())
    overlays = [item.overlay.tensors.values() for item in conditions if item.overlay is not None]
    weights = {tensor.data_ptr(): tensor for tensors in overlays for tensor in tensors}
    vectors = {id(item): item for contrast in probe.studied if (item := contrast.training_queries) is not None}
    prompts = {item.inputs: len(item.prefix_token_ids) for item in conditions}
    config = probe.model.config
    return {
        "weights": sum(map(size, weights.values())),
        "query vectors": sum(map(size, vectors.values())),
        "prompts": 2 * sum(prompts.values()) * int(config.num_hidden_layers) * int(config.hidden_size) * 4,
    }


def size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def measured(shape: Shape) -> dict[str, Any]:
    """All figures, as the JSON file holds them."""
    torch.manual_seed(0)
    heads = max(2, shape.width // 64)
    config = GPT2Config(n_positions=2048, n_layer=shape.layers, n_embd=shape.width, n_head=heads)
    model = GPT2LMHeadModel(config).eval()
    with tempfile.TemporaryDirectory() as place:
        probe, data, controls = controlled_probe(model, Path(place), shape)
        prepared, turns = peak(), Turns()
        trainer = make_trainer(SETTINGS, [turns])
        trainer.validate(probe, datamodule=data, verbose=False)
    conditions = list(probe.conditions.values())
    in_context = sum(item.prefix_token_ids != data.demonstrations.bos for item in conditions)
    count, taken = len(conditions), turns.seconds
    each = [
        one * (count - in_context) + other * in_context for one, other in zip(taken["zsl"], taken["icl"], strict=True)
    ]
    total = {name: sum(values) for name, values in taken.items()}
    return {
        "shape": asdict(shape),
        "tokens": {
            "prefix": len(data.demonstrations.prefix_token_ids),
            "query": statistics.fmean(map(len, data.queries)),
        },
        "counts": {
            "conditions": count,
            "in context": in_context,
            "passes of the model": len({item.inputs for item in conditions}),
            "contrasts": len(probe.studied),
            "batches": len(taken["pass"]),
        },
        "seconds": {
            "fine-tuning": probe.seconds["finetune"],
            "controls' fine-tunings": controls,
            "prefixes": probe.seconds["prefix"],
            "pass": total["pass"],
            "kendall, of it": probe.seconds["kendall"],
            "results": probe.seconds["validate"] - sum(total.values()),
            "one zero-shot observation": total["zsl"],
            "one in-context observation": total["icl"],
        },
        "ratios": [
            Ratio.of(
                "pass / (conditions x ZSL)", taken["pass"], taken["zsl"], factor=1 / count, target="≤ 1.1"
            ).as_json(),
            Ratio.of("pass / each condition alone", taken["pass"], each).as_json(),
        ],
        "bytes": {**held_bytes(probe), "peak before the pass": int(prepared * MB), "peak": int(peak() * MB)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="gpt2")
    parser.add_argument("--layers", type=int, help="where not the shape's own")
    parser.add_argument("--queries", type=int, help="where not the shape's own")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    own = SHAPES[arguments.size]
    changes = {name: getattr(arguments, name) for name in ("layers", "queries") if getattr(arguments, name)}
    found = measured(Shape(**{**asdict(own), **changes}))
    for part in ("shape", "tokens", "counts", "seconds", "bytes"):
        print(part)
        for name, value in found[part].items():
            print(f"  {name:28} {value:,.2f}" if isinstance(value, float) else f"  {name:28} {value:,}")
    for ratio in found["ratios"]:
        print("{name:30} {median:.3f} ({low:.3f} to {high:.3f})  {target}".format(**ratio))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
