"""The picture of the study on pretrained models shows each seed's own curves."""

import json
from pathlib import Path

import numpy as np

from experiments.pretrained.picture import draw, per_layer

CONTROLS = ("labels-random", "untrained", "ft-gaussian", "shuffled-query")


def test_curves_are_those_of_each_seed_and_control(tmp_path: Path) -> None:
    tasks = [f"t{number}" for number in range(6)]
    values = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).round(3)
    for seed, of_seed in enumerate(values):
        for number, task in enumerate(tasks):
            folder = tmp_path / f"seed-{seed + 1}" / task
            folder.mkdir(parents=True)
            own, *others = ({"sim_aou": {"per_layer": curve.tolist()}} for curve in of_seed[:, number])
            content = own | {"controls": dict(zip(CONTROLS, others, strict=True))}
            (folder / "results.json").write_text(json.dumps(content))
    for kind, control in enumerate(("", *CONTROLS)):
        for number, task in enumerate(tasks):
            assert np.array_equal(per_layer(tmp_path, task, control), values[:, kind, number])
    draw(tmp_path, tasks, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
