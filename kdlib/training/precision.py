"""Whether a network is computed in bfloat16."""

import torch
from torch import nn


def bfloat16_helps(model: nn.Module, device: torch.device) -> bool:
    """Whether a bfloat16 forward pass is expected to be faster.

    On CUDA where the chip has it. On a CPU only with its own bfloat16 instructions, for networks that are
    large enough to gain and have no grouped convolutions, whose backward pass is several times slower then.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not computes_bfloat16():
        return False
    grouped = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules())
    return not grouped and sum(p.numel() for p in model.parameters()) >= 100_000


def computes_bfloat16() -> bool:
    """Whether this processor has bfloat16 instructions of its own; without them they are emulated, slowly."""
    return torch.cpu.get_capabilities().get("avx512_bf16", False)
