"""On AMD's newer processors a visit multiplies by oneDNN, with the numbers of plain transformers."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import VARIANTS, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_icl.data.queries import Query, collate
from lightning_icl.models import onednn
from lightning_icl.models.capture import Capture

AMD = {"cpu_name": "AMD EPYC", "avx512_f": True, "avx_vnni": True}
OTHERS = (AMD | {"cpu_name": "Intel(R) Xeon(R)"}, AMD | {"avx512_f": False}, AMD | {"avx_vnni": False}, {})
PREFIX = [1, *torch.randint(3, 97, (30,), generator=torch.Generator().manual_seed(1)).tolist()]

pytestmark = pytest.mark.skipif(
    not torch.backends.mkl.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this PyTorch lacks MKL or oneDNN",
)


def batch() -> Any:
    drawn = torch.randint(3, 97, (4, 9), generator=torch.Generator().manual_seed(2)).tolist()
    return collate(
        [Query(index=i, gold=0, prompt_ids=tuple(ids), answers=((5,), (6, 7))) for i, ids in enumerate(drawn)]
    )


def on(capabilities: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


class Products(TorchDispatchMode):
    """Counts products of weights by oneDNN and by anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.by_onednn = self.others = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        self.by_onednn += "mkldnn._linear_pointwise" in name
        self.others += name.startswith(("aten.mm.", "aten.addmm.", "aten.linear."))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_projection_runs_by_onednn_with_the_same_numbers(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for name, capabilities, dtype in (("plain", {}, torch.float64), ("fast", AMD, torch.float32)):
        on(capabilities, monkeypatch)
        # The same weights: float64 holds float32's.
        model = tiny_model(variant, dtype=torch.float32).to(dtype)  # type: ignore[arg-type]
        with Products() as products, Capture(model) as capture:
            logits, recording = capture.observe(batch(), capture.prefix(PREFIX))
        seen[name] = [logits, *recording.outputs, *recording.queries, *recording.own_scores]
        assert bool(products.by_onednn) == (name == "fast")
    assert products.others == 0
    for found, expected in zip(seen["fast"], seen["plain"], strict=True):
        torch.testing.assert_close(found.double(), expected.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_go_through_weights_that_are_not_trained(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = {}
    for name, capabilities, dtype in (("plain", {}, torch.float64), ("fast", AMD, torch.float32)):
        on(capabilities, monkeypatch)
        model = tiny_model(variant, dtype=torch.float32).to(dtype).requires_grad_(False)  # type: ignore[arg-type]
        # The unembedding that is tied to it is trained too, and multiplied as ever.
        embedding = model.get_input_embeddings().weight.requires_grad_()
        with Products() as products, Capture(model) as capture:
            logits, _ = capture.train_forward(torch.tensor([PREFIX]), [slice(0, len(PREFIX) - 1)])
            (gradients[name],) = torch.autograd.grad(logits.square().sum(), [embedding])
        assert bool(products.by_onednn) == (name == "fast")
    scale = float(gradients["plain"].abs().max())
    torch.testing.assert_close(gradients["fast"].double(), gradients["plain"].double(), rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("variant", ["gpt2", "llama", "opt", "falcon-multiquery"])
def test_trained_weights_and_other_types_are_multiplied_as_ever(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on(AMD, monkeypatch)
    with Products() as products, Capture(tiny_model(variant).requires_grad_()) as capture:
        capture.train_forward(torch.tensor([PREFIX]), [slice(0, 5)])
    assert products.by_onednn == 0
    for dtype in (torch.float64, torch.bfloat16):
        with Products() as products, Capture(tiny_model(variant, dtype=dtype)) as capture:
            capture.prefix(PREFIX)
        assert products.by_onednn == 0
    with Products() as products, Capture(tiny_model(variant)) as capture, torch.autocast("cpu", torch.bfloat16):
        capture.prefix(PREFIX)
    assert products.by_onednn == 0


@pytest.mark.parametrize("capabilities", OTHERS)
def test_other_processors_are_left_alone_and_a_visit_leaves_nothing(
    capabilities: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    on(capabilities, monkeypatch)
    with onednn.onednn_products(model):
        assert not [module for module in model.modules() if "forward" in vars(module)]
    on(AMD, monkeypatch)
    with onednn.onednn_products(model):
        changed = [module for module in model.modules() if "forward" in vars(module)]
        assert len(changed) == 3 * 7 + 1  # attention has four matrices and a block's MLP three; the unembedding
    assert not [module for module in model.modules() if "forward" in vars(module)]
