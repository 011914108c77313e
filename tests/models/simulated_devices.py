"""Visit every tiny model, its last layer on a second simulated device: run as a program, one printed line a variant.

Fake tensors compute no numbers, but refuse operations between devices as a GPU does.
"""

import traceback
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from tiny_models import VARIANTS, tiny_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration
from transformers import PreTrainedModel

from lightning_icl.data.queries import Query, collate
from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.capture import Capture

# Their scaled embedding makes a tensor from a number on the device, which a simulated device cannot.
LEFT_OUT = {"gemma2", "gemma3_text"}


class Devices(backend_registration._DummyBackendModule):
    """What torch asks of a kind of device."""

    def device_count(self) -> int:
        return 2

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def spread(model: PreTrainedModel, first: torch.device, second: torch.device) -> None:
    """Put the last layer on the second device and all else on the first, with the hooks of `device_map`."""
    layers = architecture_of(model.config).layers
    blocks = list(model.get_submodule(layers).children())
    on_second = set(blocks[-1].modules())
    moved: dict[int, Any] = {}
    kept = []  # ids of tensors are theirs only while they live
    for module in model.modules():
        device = second if module in on_second else first
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is None:
                    continue
                if id(tensor) not in moved:
                    kept.append(tensor)
                    there = tensor.detach().to(device)
                    moved[id(tensor)] = torch.nn.Parameter(there) if store is module._parameters else there
                store[name] = moved[id(tensor)]
    for block in blocks:
        add_hook_to_module(block, AlignDevicesHook(execution_device=second if block is blocks[-1] else first))
    others = [
        child for child in model.get_submodule(layers.rpartition(".")[0]).children() if blocks[0] not in child.modules()
    ]
    for module in (*others, model.get_output_embeddings()):
        add_hook_to_module(module, AlignDevicesHook(execution_device=first))
    add_hook_to_module(model, AlignDevicesHook(execution_device=first, io_same_device=True))


def visit(variant: str) -> str:
    """Run a prefix, a batch of queries and a training pass."""
    first, second = torch.device("simulated", 0), torch.device("simulated", 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = tiny_model(variant)
        spread(model, first, second)
        queries = [Query(index=i, gold=0, prompt_ids=tuple(range(5, 12 + i)), answers=((5,), (6, 7))) for i in range(3)]
        batch = collate(queries).to(first)
        with Capture(model) as capture:
            with torch.no_grad():
                prefix = capture.prefix(range(1, 33))
                logits, recording = capture.observe(batch, prefix)
            trained, states = capture.train_forward(batch.token_ids, [slice(1, 5)] * 3)
        assert prefix is not None
        for layer, (key, value) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
            assert key.device == value.device == (second if layer == len(prefix.keys) - 1 else first)
        gathered = [*recording.queries, *recording.outputs, *recording.own_scores, *recording.prefix_scores, *states]
        assert {tensor.device for tensor in (logits, trained, *gathered)} == {first}
    return "visited"


def main() -> None:
    backend_registration._setup_privateuseone_for_python_backend("simulated", backend_module=Devices())
    torch.random.fork_rng = lambda *_, **__: nullcontext()  # type: ignore[assignment]  # fake tensors draw nothing
    for variant in VARIANTS.keys() - LEFT_OUT:
        try:
            print(variant, visit(variant))
        except Exception:
            print(variant, "failed")
            traceback.print_exc()


if __name__ == "__main__":
    main()
