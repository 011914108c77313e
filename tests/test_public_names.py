"""What a user's program meets: an import that changes nothing else, and types that tell right from wrong."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

IMPORTS_ALL = """
import importlib, pkgutil, sys, types
import datasets, lightning, torch, torchmetrics, transformers
from transformers.masking_utils import AttentionMaskInterface

CODE = (type, types.FunctionType)
def code():
    "Every function and class of every module loaded so far, and of the classes there, by where it stands."
    seen = {}
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if isinstance(value, CODE):
                seen[module.__name__, name] = value
                if isinstance(value, type):
                    for key, method in vars(value).items():
                        if isinstance(method, CODE):
                            seen[value.__module__, id(value), value.__qualname__, key] = method
    return seen
def registered():
    return [dict(transformers.AttentionInterface._global_mapping), dict(AttentionMaskInterface._global_mapping),
            list(sys.meta_path), torch.get_default_dtype(), torch.get_num_threads()]

transformers.PreTrainedModel, transformers.AutoModelForCausalLM
before, kept = code(), registered()
import lightning_icl
for module in pkgutil.walk_packages(lightning_icl.__path__, "lightning_icl."):
    if "checkpoints" not in module.name:
        importlib.import_module(module.name)
after = code()
changed = [place for place, value in before.items() if after.get(place, value) is not value]
assert not changed, changed
assert kept == registered()
assert len(before) > 10_000
"""


def test_importing_the_whole_package_changes_no_other() -> None:
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", IMPORTS_ALL], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


RIGHT = """
from lightning_icl import ICLDataModule, ICLProbe, KVFinetuning, Task, find_model, load_model, load_tokenizer
from lightning_icl import Rec2FTP, compare, dual_form, resolve_tasks, sweep, value_ema, weight_update

task: Task = resolve_tasks("tiny-sst2")["tiny-sst2"]
source = find_model("builtin")
data = ICLDataModule(task, load_tokenizer(source), context_length=2048, shots=32, limit=64)
probe = ICLProbe(load_model(source), data.demonstrations)
tuning, metric = KVFinetuning(learning_rate=0.1), Rec2FTP()
found = compare("builtin", task, controls=["ft-gaussian"], limit=64).tasks, dual_form("builtin", layers=[0, 1])["t"]
chosen = sweep(load_model(source), task, lrs=[0.1], seeds=(1, 2), data={"train": [{"text": "a", "label": 0}]}).chosen
rungs = weight_update("builtin", task, scope="alone", fast_weights="affine").table(intervals=True)
reveal_type(ICLDataModule)
reveal_type(data.demonstrations.labels)
reveal_type(value_ema)
reveal_type(chosen[0])
reveal_type(rungs)
"""
WRONG = """
from lightning_icl import ICLDataModule, KVFinetuning, find_model, load_tokenizer, nothing, resolve_tasks, weight_update

source = find_model(7)
data = ICLDataModule(7, load_tokenizer(source), context_length=2048, shot=32)
tuning = KVFinetuning(learning_rate="fast")
print(resolve_tasks("tiny-sst2")["tiny-sst2"].tokens)
rungs = weight_update("builtin", scope="all")
"""
# What third parties export is left out: their types would take minutes to read, and none of them is in question.
STRICT = """
[mypy]
strict = true
[mypy-torch.*,lightning.*,torchmetrics.*,datasets.*,transformers.*,jaxtyping.*,numpy.*,scipy.*]
follow_imports = skip
[mypy-lightning_icl.*]
follow_imports = silent
"""


def test_a_strict_type_checker_passes_right_programs_and_stops_every_mistake_of_a_wrong_one(tmp_path: Path) -> None:
    """The notebooks of the documentation are right programs."""
    for name, content in (("right.py", RIGHT), ("wrong.py", WRONG), ("mypy.ini", STRICT)):
        (tmp_path / name).write_text(content)
    command = [sys.executable, "-m", "mypy", "--config-file", tmp_path / "mypy.ini", "--cache-dir", tmp_path / "cache"]
    command += [tmp_path / "right.py", tmp_path / "wrong.py", *(ROOT / "docs" / "notebooks").glob("*.py")]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    revealed = [line.split('"')[1].replace("builtins.", "") for line in said if "Revealed type" in line]
    assert revealed[0].startswith("def (task: lightning_icl.tasks.task.Task | str, ")
    assert revealed[0].endswith("lightning_icl.front.data.ICLDataModule")
    assert revealed[1:2] == ["tuple[int, ...]"]
    assert "object" not in revealed
    mistakes = [line for line in said if " error: " in line]
    assert all("wrong.py:" in line for line in mistakes), mistakes
    codes = {(int(line.split("wrong.py:")[1].split(":")[0]), line.rsplit("[", 1)[1]) for line in mistakes}
    assert codes == {
        (2, "attr-defined]"), (4, "arg-type]"), (5, "call-arg]"), (5, "arg-type]"), (6, "arg-type]"),
        (7, "attr-defined]"), (8, "arg-type]"),
    }  # fmt: skip
