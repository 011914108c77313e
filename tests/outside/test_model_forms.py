"""GGUF files, adapters and revisions as users give them: of another kind, cut short, of another model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from outside_case import Case, check_case
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from tiny_folders import SETTINGS, model_folder
from tiny_gguf import gguf_model, write_gguf
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM

from lightning_icl.cli import main

Prepare = Callable[[Path], object]
GGUF = f"compare --model tiny.gguf {SETTINGS} --out out"
ADAPTED = f"compare --model model --adapter adapter {SETTINGS} --out out"


def gguf(here: Path) -> Path:
    model_folder(here)  # for its task
    return write_gguf(here / "tiny.gguf", gguf_model())


def cut(share: float) -> Prepare:
    def prepare(here: Path) -> None:
        path = gguf(here)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return prepare


def of_kind(number: int) -> Prepare:
    """The first matrix is said to be of another kind."""

    def prepare(here: Path) -> None:
        path = gguf(here)
        tensor = GGUFReader(path).tensors[0]
        place = int(tensor.field.offset) + sum(part.nbytes for part in tensor.field.parts[:-2])
        content = bytearray(path.read_bytes())
        content[place : place + 4] = number.to_bytes(4, "little")
        path.write_bytes(content)

    return prepare


def adapter(here: Path, base: str = "model", **settings: object) -> Path:
    """A LoRA adapter in `adapter`, its change not zero, and the model it was trained on in `model`."""
    model_folder(here)
    chosen = {"target_modules": ["q_proj", "k_proj", "down_proj"], "r": 2, "init_lora_weights": False, **settings}
    torch.manual_seed(0)
    adapted = get_peft_model(tiny_model("llama"), LoraConfig(**chosen))
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(here / "adapter")
    return here / "adapter"


def prompt_tuning(here: Path) -> None:
    model_folder(here)
    config = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(tiny_model("llama"), config).save_pretrained(here / "adapter")


def narrow(here: Path) -> None:
    shutil.rmtree(adapter(here).parent / "model")
    model = tiny_model("llama", intermediate_size=64)
    shutil.copytree(model_folder(here, name="other"), here / "model")
    model.save_pretrained(here / "model")


def case(situation: str, arguments: str, prepare: Prepare, *says: str) -> Case:
    return Case(situation=situation, arguments=arguments, prepare=lambda here: prepare(here) and None, says=says)


CASES = [
    case(
        "no GGUF file", GGUF, lambda here: (model_folder(here), (here / "tiny.gguf").write_text("no")), "no GGUF file"
    ),
    case("an empty GGUF file", GGUF, lambda here: (model_folder(here), (here / "tiny.gguf").touch()), "no GGUF file"),
    case("cut in its tensors", GGUF, cut(0.9), "'tiny.gguf' is cut short or damaged"),
    case("cut in its words", GGUF, cut(0.02), "'tiny.gguf' is cut short or damaged"),
    case(
        "cut behind its first bytes",
        GGUF,
        lambda here: cut(0)(here) or (here / "tiny.gguf").write_bytes(b"GGUF"),
        "cut short",
    ),
    case("a kind that cannot be read", GGUF, of_kind(200), "cut short or damaged"),
    case(
        "an architecture that transformers cannot read",
        GGUF,
        lambda here: (model_folder(here), write_gguf(here / "tiny.gguf", gguf_model(), architecture="rwkv7")),
        "'tiny.gguf'",
        "rwkv7 is not supported",
    ),
    case(
        "an architecture that cannot be probed",
        GGUF,
        lambda here: (model_folder(here), write_gguf(here / "tiny.gguf", gguf_model(), architecture="starcoder2")),
        "starcoder2",
        "not in the table",
    ),
    case("a GGUF file that is not there", GGUF, model_folder, "'tiny.gguf' does not exist", "OWNER/NAME/FILE.gguf"),
    case("a revision of a file", f"{GGUF} --revision main", gguf, "--revision 'main'", "only models on the hub"),
    case("a revision of a folder", f"compare --model model {SETTINGS} --revision v1", model_folder, "--revision 'v1'"),
    case("no adapter", ADAPTED, model_folder, "--adapter 'adapter' holds no PEFT adapter", "adapter_config.json"),
    case(
        "an adapter without weights",
        ADAPTED,
        lambda here: (adapter(here) / "adapter_model.safetensors").unlink(),
        "adapter_model.safetensors is missing",
    ),
    case(
        "an adapter cut short",
        ADAPTED,
        lambda here: (adapter(here) / "adapter_model.safetensors").write_bytes(b"1"),
        "cut short",
    ),
    case(
        "an adapter's settings cut short",
        ADAPTED,
        lambda here: (adapter(here) / "adapter_config.json").write_text("{"),
        "cannot be read as JSON",
    ),
    case(
        "an adapter's settings of nothing",
        ADAPTED,
        lambda here: (adapter(here) / "adapter_config.json").write_text("{}"),
        "cannot be used with this model",
    ),
    case(
        "an adapter of another model",
        ADAPTED,
        lambda here: adapter(here, "org/gpt2-large"),
        "was trained on 'org/gpt2-large', not on model",
    ),
    case("an adapter of another width", ADAPTED, narrow, "does not fit the model", "down_proj"),
    case("a learnt prompt", ADAPTED, prompt_tuning, "cannot be merged"),
    case("an adapter of fresh weights", ADAPTED.replace("model --", "random:model --", 1), adapter, "fresh"),
    case(
        "an adapter as the model",
        ADAPTED.replace("--model model --adapter adapter", "--model adapter"),
        adapter,
        "holds a PEFT adapter",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.situation)
@pytest.mark.filterwarnings("ignore")
def test_models_in_other_forms(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)


def compared(arguments: str, out: Path) -> dict:
    main(arguments.split())
    return json.loads((out / "tiny/results.json").read_text())


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_is_measured_as_the_model_it_is_merged_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel

    adapter(tmp_path)
    monkeypatch.chdir(tmp_path)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("model"), "adapter").merge_and_unload()
    shutil.copytree("model", "merged")
    merged.save_pretrained("merged")
    assert not torch.equal(
        *(load_file(f"{name}/model.safetensors")["model.layers.0.mlp.down_proj.weight"] for name in ("model", "merged"))
    )
    by_adapter = compared(ADAPTED, tmp_path / "out")
    by_weights = compared(f"compare --model merged {SETTINGS} --out two", tmp_path / "two")
    assert by_adapter["sim_aou"]["value"] == pytest.approx(by_weights["sim_aou"]["value"], abs=1e-5)
    assert by_adapter["model"]["adapter"] == "adapter"
    assert by_adapter["fingerprints"]["weights"] != by_weights["fingerprints"]["weights"]


def test_a_gguf_file_is_compared_and_its_run_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf(tmp_path)
    monkeypatch.chdir(tmp_path)
    results = compared(GGUF, tmp_path / "out")
    assert results["model"] | {"name": "tiny.gguf", "dtype": "float32", "commit": None} == results["model"]
    assert results["environment"]["threads"] == torch.get_num_threads()
    assert set(results["environment"]) == {
        "date",
        "system",
        "processor",
        "device",
        "threads",
        "processes",
        "batch_tokens",
    }
