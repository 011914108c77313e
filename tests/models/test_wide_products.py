"""On processors without bfloat16 instructions a bfloat16 model multiplies in float32, with the same rounding."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import VARIANTS, tiny_model
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_icl.data.queries import Query, collate
from lightning_icl.models import _fast_paths as fast_paths
from lightning_icl.models.capture import Capture

WITHOUT = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}
WITH = WITHOUT | {"avx512_bf16": True}
PREFIX = [1, *torch.randint(3, 97, (30,), generator=torch.Generator().manual_seed(1)).tolist()]


def batch() -> Any:
    drawn = torch.randint(3, 97, (4, 9), generator=torch.Generator().manual_seed(2)).tolist()
    return collate(
        [Query(index=i, gold=0, prompt_ids=tuple(ids), answers=((5,), (6, 7))) for i, ids in enumerate(drawn)]
    )


class Products(TorchDispatchMode):
    """The types that matrix products were given."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(part in str(func) for part in ("mm", "linear", "scaled_dot_product", "conv", "dot.")):
            self.types |= {item.dtype for item in args if isinstance(item, Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_wide_product_and_its_gradients_round_the_exact_ones_once(
    transposed: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_paths, "_WIDENED", 50)  # 4 rows at a time, the last piece smaller
    torch.manual_seed(0)
    states = torch.randn(2, 5, 12, dtype=torch.bfloat16)
    weight = torch.randn(12, 11, dtype=torch.bfloat16).T if transposed else torch.randn(11, 12, dtype=torch.bfloat16)
    given = [states, weight, *([torch.randn(11, dtype=torch.bfloat16)] if bias else [])]
    half = [item.detach().requires_grad_() for item in given]
    exact = [item.detach().double().requires_grad_() for item in given]
    to_output = torch.randn(2, 5, 11, dtype=torch.bfloat16)

    found = fast_paths.wide_linear(half[0], half[1], half[2] if bias else None)
    expected = linear(*exact)
    assert found.dtype == torch.bfloat16
    # Rounding float32's sum once: half a step of bfloat16, at most 2**-8 of the number.
    torch.testing.assert_close(found.double(), expected, rtol=2**-7.99, atol=1e-5)
    gradients = torch.autograd.grad(found, half, to_output)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, exact, to_output.double()), strict=True):
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(gradient.double(), wanted, rtol=2**-7.99, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_product_of_a_visit_is_left_in_bfloat16(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: WITHOUT, raising=False)
    model = tiny_model(variant, dtype=torch.bfloat16)
    whole = torch.tensor([PREFIX])
    with Products() as products, Capture(model) as capture:
        capture.observe(batch(), capture.prefix(PREFIX))
        logits, _ = capture.train_forward(whole, [slice(0, len(PREFIX) - 1)])
        cross_entropy(logits.float(), whole[0, 1:]).backward()
    assert products.types == {torch.float32}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_visit_sees_what_bfloat16_instructions_would_show(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for name, capabilities in (("without", WITHOUT), ("with", WITH)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        with Capture(tiny_model(variant, dtype=torch.bfloat16)) as capture:
            logits, recording = capture.observe(batch(), capture.prefix(PREFIX))
        seen[name] = [logits, *recording.outputs, *recording.queries]
    exact_model = tiny_model(variant, dtype=torch.bfloat16).float()
    with Capture(exact_model) as capture:
        logits, recording = capture.observe(batch(), capture.prefix(PREFIX))
    exact = [logits, *recording.outputs, *recording.queries]
    for wide, narrow, wanted in zip(seen["without"], seen["with"], exact, strict=True):
        assert wide.dtype == narrow.dtype == torch.bfloat16
        scale = wanted.abs().max()
        error, native = ((found.float() - wanted).abs().max() / scale for found in (wide, narrow))
        assert error <= 1.5 * native + 2**-7


def test_processors_with_bfloat16_and_other_types_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, dtype in ((WITH, torch.bfloat16), (WITHOUT, torch.float32), (WITHOUT, torch.float64)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        model = tiny_model("gpt2", dtype=dtype)
        with fast_paths.wide_products(model):
            assert not [module for module in model.modules() if "forward" in vars(module)]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: WITHOUT, raising=False)
    model = tiny_model("gpt2", dtype=torch.bfloat16)
    with fast_paths.wide_products(model):
        changed = [module for module in model.modules() if "forward" in vars(module)]
        assert len(changed) == 3 * 4 + 1  # attention in and out, feed-forward in and out; the unembedding
    assert not [module for module in model.modules() if "forward" in vars(module)]
