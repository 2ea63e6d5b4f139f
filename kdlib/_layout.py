"""How weights lie in memory while a network is trained or asked."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Below so many channels on both sides a convolution is narrow.
_NARROW = 8


@contextmanager
def channels_last(model: nn.Module) -> Iterator[None]:
    """Lay the weights out as convolutions on a CPU like them, up to twice as fast, and then as they were.

    Where a convolution joins maps of a few channels each, oneDNN is left out as well: its backward pass writes beside
    its memory there (torch 2.15, a processor with AVX2 alone), and the process dies.
    """
    if any(map(_is_narrow, model.modules())):
        before, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, False
        try:
            yield
        finally:
            torch.backends.mkldnn.enabled = before
        return
    parameters = [*model.parameters()]
    if any(p.ndim == 4 and not p.is_contiguous() for p in parameters) or any(p.ndim == 5 for p in parameters):
        yield  # they are already, and whoever did it will undo it; or there are maps of three dimensions
        return
    model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        # Other tools (safetensors, pruning) refuse weights that are laid out so.
        model.to(memory_format=torch.contiguous_format)


def _is_narrow(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or module.groups > 1:
        return False
    return 1 < module.in_channels < _NARROW and module.out_channels < _NARROW and max(module.kernel_size) > 1
