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
