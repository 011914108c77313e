"""Runs made of numbers alone, with everything that a report can show."""

import json
import random
from pathlib import Path
from typing import Any

from lightning_icl.published import published_layers, tables

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"> & {braces}"
LAYERS, HEADS, SHOTS = 24, 6, 8


def repetition(task: str = "sst2", size: str = "1.3B") -> dict[str, Any]:
    """The content of `results.json` of a run that repeats a published one to the digit."""
    known = {name: values.get(task) for name, values in tables()[size].items()}
    curve = published_layers(task, "sim_aou") or [0.1] * LAYERS
    maps = [[(layer - head) / LAYERS for head in range(HEADS)] for layer in range(LAYERS)]
    level = {"per_layer": curve, "raw_per_layer": curve, "random_per_layer": [0.0] * LAYERS}
    return {
        "schema": 1,
        "task_number": 0,
        "model": {
            "name": f"KoboldAI/fairseq-dense-{size}", "parameters": 1_300_000_000, "layers": LAYERS, "heads": HEADS,
        },
        "task": {"name": task, "labels": ["Negative", "Positive"], "template": HOSTILE, "probe_token": "answer"},
        "demonstrations": {"count": SHOTS, "seed": known["seed"], "texts": [HOSTILE] * SHOTS},
        "finetune": {
            "lr": known["learning_rate"], "steps": SHOTS, "loss": [3.0 - 0.1 * step for step in range(SHOTS)],
            "update_norm_per_layer": [0.01] * LAYERS,
        },
        "queries": {"count": 872},
        "accuracy": {"majority": 0.55, **{name: known[f"accuracy_{name}"] / 100 for name in ("zsl", "icl", "ft")}},
        "rec2ftp": {
            "value": known["rec2ftp"] / 100, "corrected_by_ft": 49, "right_table": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
        },
        "sim_aou": {"value": known["sim_aou"], "random": known["sim_aou_random"], "raw": None, **level},
        "sim_am": {
            "value": known["sim_am"], "zsl": known["sim_am_zsl"], "difference": 0.1, "per_layer": curve,
            "zsl_per_layer": curve, "difference_per_layer": [None, *curve[1:]], "per_head": maps,
        },
        "kendall": {
            "value": known["kendall"], "random": known["kendall_random"], "per_layer": curve,
            "example_icl": [[float(shot) for shot in range(SHOTS)]] * LAYERS,
            "example_ft": [[float(-shot) for shot in range(SHOTS)]] * LAYERS,
        },
        "versions": {"torch": HOSTILE},
        "bootstrap": {"replicates": 1000, "level": 0.95},
        "undefined": {"sim_aou.value": HOSTILE},
        "intervals": {"rec2ftp.value": [0.8, 1.0], "sim_aou.value": [0.05, 0.15]},
        "controls": {
            "untrained": {"title": HOSTILE, "sim_aou": {"value": 0.0123, "per_layer": [0.3] * LAYERS}, "note": HOSTILE},
            "order-1": {"title": "order 1", "sim_aou": {"per_layer": [0.2] * LAYERS}},
            "order-2": {"title": "order 2", "sim_aou": {"per_layer": [0.4] * LAYERS}},
        },
    }  # fmt: skip


def save(folder: Path, results: dict[str, Any], queries: int = 0) -> Path:
    """Write a run of one task; its predictions are drawn at random, the first prompt is hostile."""
    task = folder / results["task"]["name"]
    task.mkdir(parents=True)
    (task / "results.json").write_text(json.dumps(results))
    (task / "config.yaml").write_text(f"model: '{HOSTILE}'\n")
    draw = random.Random(0)
    with (task / "predictions.jsonl").open("w") as file:
        for index in range(queries):
            row: dict[str, Any] = {"index": index, **{name: draw.randrange(2) for name in ("gold", "zsl", "icl", "ft")}}
            row["scores"] = {name: [-draw.random(), -draw.random()] for name in ("zsl", "icl", "ft")}
            row["prompt"] = (
                f"{HOSTILE} first" if index == 0 else f"Sentence: film number {index}, " + "rather long " * 9
            )
            file.write(json.dumps(row) + "\n")
    return folder
