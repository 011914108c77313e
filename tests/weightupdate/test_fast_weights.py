"""Fast weights answer as the condition does, without the demonstrations, also out of a file and in another process."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from tiny_task import tiny_data, tiny_task, word_tokenizer

from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import collate
from lightning_icl.errors import ModelError, OutputError
from lightning_icl.models.capture import Capture
from lightning_icl.models.replacement import Updated
from lightning_icl.models.scope import Scope
from lightning_icl.weightupdate.fast_weights import FastRung, FastWeights, fast_weights
from lightning_icl.weightupdate.ladder_observation import observe_condition
from lightning_icl.weightupdate.survey import Survey


def data_of(folder: Path, answers: str = "single", bos: bool = True) -> ICLDataModule:
    return ICLDataModule(tiny_task(folder, answers), word_tokenizer(bos), context_length=256, shots=5, batch_tokens=64)


# Scores are about 6, where 1.5e-6 are three steps of float32.
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-6), (torch.float32, 1.5e-6)])
@pytest.mark.parametrize("rung", ["constant", "constant-mass", "affine"])
@pytest.mark.parametrize("scope", ["query", "alone"])
@pytest.mark.parametrize("variant", ["gpt2", "llama", "llama-momentum", "gpt2-momentum", "bloom"])
def test_they_answer_as_the_condition_does(
    variant: str, scope: Scope, rung: FastRung, dtype: torch.dtype, bound: float, tmp_path: Path
) -> None:
    model, data = tiny_model(variant, dtype=dtype), data_of(tmp_path, "multi")
    chosen, batch = data.demonstrations, collate(data.queries)
    held_out = [collate(data.held_out(3, [chosen]))]
    fast_weights(model, chosen, held_out, rung=rung, scope=scope).save(tmp_path / "fast.safetensors")
    with Capture(model) as capture:
        prefix = capture.prefix(chosen.prefix_token_ids)
        updates = Survey(3, len(chosen.bos), scope).of(capture, prefix, held_out).rungs()[rung]
        expected = observe_condition(
            capture, batch, prefix, name=rung, replacement=Updated(updates, len(chosen.bos), scope)
        )
        found = FastWeights.load(tmp_path / "fast.safetensors").observe(capture, batch)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.answer_scores, expected.answer_scores, rtol=0, atol=bound)
    torch.testing.assert_close(found.outputs, expected.outputs, rtol=0, atol=1e-5)


def test_a_model_without_bos_needs_no_token_before_the_query(tmp_path: Path) -> None:
    model, data = tiny_model("llama-momentum"), data_of(tmp_path)
    chosen, batch = replace(data.demonstrations, bos=()), collate(data.queries)
    held_out = [collate(data.held_out(3, [chosen]))]
    weights = fast_weights(model, chosen, held_out)
    with Capture(model) as capture:
        prefix = capture.prefix(chosen.prefix_token_ids)
        updates = Survey(3, 0, "query").of(capture, prefix, held_out).rungs()["affine"]
        expected = observe_condition(capture, batch, prefix, name="affine", replacement=Updated(updates, 0, "query"))
        torch.testing.assert_close(weights.observe(capture, batch).logits, expected.logits, rtol=0, atol=1e-5)


def test_another_process_answers_from_the_file_alone(tmp_path: Path) -> None:
    model, data = tiny_model("llama"), data_of(tmp_path)
    weights = fast_weights(model, data.demonstrations, [collate(data.held_out(3, [data.demonstrations]))])
    with Capture(model) as capture:
        expected = weights.observe(capture, collate(data.queries)).answer_scores
    weights.save(tmp_path / "fast.safetensors")
    model.save_pretrained(tmp_path / "model")
    save_file({"scores": expected}, tmp_path / "expected")
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from safetensors.torch import load_file, save_file
from tiny_task import tiny_data
from lightning_icl import find_model, load_model
from lightning_icl.data.queries import collate
from lightning_icl.models.capture import Capture
from lightning_icl.weightupdate.fast_weights import FastWeights
folder = Path({str(tmp_path)!r})
(folder / "queries").mkdir()
batch = collate(tiny_data(folder / "queries", shots=1).queries)
with Capture(load_model(find_model(str(folder / "model")))) as capture:
    seen = FastWeights.load(folder / "fast.safetensors").observe(capture, batch)
save_file({{"scores": seen.answer_scores}}, folder / "found")
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert run.returncode == 0, run.stderr
    torch.testing.assert_close(load_file(tmp_path / "found")["scores"], expected, rtol=0, atol=1e-6)


def test_their_size_does_not_depend_on_the_shots(tmp_path: Path) -> None:
    sizes = set()
    for shots in (1, 5):
        (tmp_path / str(shots)).mkdir()
        data = tiny_data(tmp_path / str(shots), shots=shots)
        weights = fast_weights(tiny_model("gpt2"), data.demonstrations, [collate(data.queries)])
        weights.save(tmp_path / "fast.safetensors")
        sizes.add(sum(value.numel() for value in load_file(tmp_path / "fast.safetensors").values()))
    assert sizes == {3 * 4 * (3 * 8 + 1 + 8 * 8)}  # layers, heads; three vectors, a mass and a matrix


def test_files_and_models_that_do_not_fit_are_named(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(OutputError, match="holds no fast weights"):
        FastWeights.load(tmp_path / "other")
    (tmp_path / "text").write_text("no")
    with pytest.raises(OutputError, match="cannot be read"):
        FastWeights.load(tmp_path / "text")
    weights = fast_weights(tiny_model("gpt2"), data.demonstrations, [collate(data.queries)])
    weights.check(tiny_model("gpt2"))
    with pytest.raises(ModelError, match="Use the model that they were made for"):
        weights.check(tiny_model("qwen3"))
    with pytest.raises(ValueError, match="cannot do without the demonstrations"):
        fast_weights(tiny_model("gpt2"), data.demonstrations, [], scope="probe")
