"""What the processor can do, where it decides what is worth asking of it."""

import torch


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 has matrix instructions here; without them a product takes many times as long as in float32.

    Told by the flags of x86 processors; others, and versions of PyTorch that do not tell, count as able.
    """
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities.get("architecture") != "x86_64":
        return True
    return any(capabilities.get(flag) for flag in ("avx512_bf16", "amx_bf16"))
