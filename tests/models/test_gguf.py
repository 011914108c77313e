"""GGUF files: the weights that were written are those that are measured, and nothing says that they are quantised."""

import hashlib
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType, dequantize, quantize
from tiny_gguf import WORDS, gguf_model, write_gguf
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_icl.errors import ModelError
from lightning_icl.models import packaged
from lightning_icl.models._gguf import check_vocabulary
from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.finding import find_model
from lightning_icl.models.fingerprint import weights_fingerprint
from lightning_icl.models.loading import load_config, load_model, load_tokenizer
from lightning_icl.models.plain import check_plain


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return gguf_model()


def test_weights_in_floating_point_are_read_to_the_bit(model: PreTrainedModel, tmp_path: Path) -> None:
    source = find_model(str(write_gguf(tmp_path / "tiny.gguf", model)))
    config = load_config(source)
    assert architecture_of(config).model_type == "llama"
    loaded = load_model(source)
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name
    check_plain(loaded)
    assert not hasattr(loaded.config, "quantization_config")
    assert not hasattr(loaded, "hf_quantizer")
    tokens = torch.arange(20)[None]
    assert torch.allclose(loaded(tokens).logits, model(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_quantised_weights_become_numbers_of_the_type_asked_for(
    dtype: torch.dtype, model: PreTrainedModel, tmp_path: Path
) -> None:
    kind = GGMLQuantizationType.Q8_0
    loaded = load_model(find_model(str(write_gguf(tmp_path / "tiny.gguf", model, kind))), dtype)
    name = "model.layers.1.mlp.down_proj.weight"
    written = torch.from_numpy(dequantize(quantize(model.get_parameter(name).detach().numpy(), kind), kind))
    assert torch.equal(loaded.get_parameter(name), written.to(dtype))


def test_the_tokenizer_is_that_of_the_file(model: PreTrainedModel, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(find_model(str(write_gguf(tmp_path / "tiny.gguf", model))))
    assert tokenizer.convert_ids_to_tokens(range(len(WORDS))) == WORDS
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.decode(tokenizer("a <b> ä", add_special_tokens=False).input_ids) == "a <b> ä"


def test_a_vocabulary_of_merges_read_as_one_of_probabilities_is_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", model)
    check_vocabulary(path, load_tokenizer(find_model(str(path))))
    scored = Tokenizer(Unigram([(word, -float(place)) for place, word in enumerate(WORDS)], unk_id=0))
    with pytest.raises(ModelError, match=r"tiny\.gguf.*fragments.*transformers>="):
        check_vocabulary(path, PreTrainedTokenizerFast(tokenizer_object=scored))


def test_another_file_is_another_fingerprint(model: PreTrainedModel, tmp_path: Path) -> None:
    prints = set()
    for kind in (GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0):
        source = find_model(str(write_gguf(tmp_path / f"{kind.name}.gguf", model, kind)))
        prints.add(weights_fingerprint(source, load_config(source)))
    assert len(prints) == 2


class Installed:
    """Pieces of a file, each in a package of its own."""

    def __init__(self, folder: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for number, piece in enumerate((whole[:1000], whole[1000:])):
            (folder / f"part{number}").mkdir(parents=True)
            (folder / f"part{number}/piece").write_bytes(piece)
        row = replace(
            packaged.PACKAGED["gemma-3-270m"],
            pieces=("part0/piece", "part1/piece"),
            sha256=hashlib.sha256(whole).hexdigest(),
        )
        monkeypatch.setitem(packaged.PACKAGED, "gemma-3-270m", row)
        monkeypatch.setattr(packaged, "find_spec", self.find)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    def find(self, name: str) -> ModuleSpec | None:
        if not (self.folder / name).is_dir():
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(self.folder / name)]
        return spec


def test_pieces_are_joined_once_and_checked_each_time(
    model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf", model).read_bytes()
    Installed(tmp_path / "site", whole, monkeypatch)
    joined = packaged.packaged_file("gemma-3-270m")
    assert joined.read_bytes() == whole
    assert [path.name for path in joined.parent.iterdir()] == [joined.name]
    made = joined.stat().st_mtime_ns
    assert packaged.packaged_file("gemma-3-270m").stat().st_mtime_ns == made
    joined.write_bytes(whole[:-1])
    assert packaged.packaged_file("gemma-3-270m").read_bytes() == whole
    assert load_config(find_model("gemma-3-270m")).model_type == "llama"


def test_a_damaged_or_missing_package_is_said(
    model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Installed(tmp_path, b"GGUF" + bytes(2000), monkeypatch)
    (tmp_path / "part1/piece").write_bytes(b"changed")
    with pytest.raises(ModelError, match="damaged: their SHA-256"):
        packaged.packaged_file("gemma-3-270m")
    assert not (installed.folder / "cache").exists()
    (tmp_path / "part1/piece").unlink()
    with pytest.raises(ModelError, match=r"not installed.*lightning-icl\[gemma3\]"):
        packaged.packaged_file("gemma-3-270m")
