"""The logits of any teacher, computed once."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib import _logit_cache
from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.data.items import split_or_items
from kdlib.inference import device_rule, network_rule


def _kept_in(name: str, value: Any) -> torch.dtype:
    if value not in (torch.float32, torch.float16):
        raise ValueError(f"{name} must be torch.float32 or torch.float16, got {value!r:.80}")
    return value


@checked(teacher=network_rule, split=split_or_items, device=device_rule, dtype=_kept_in)
def cached_logits(
    teacher: nn.Module,
    split: ImageSplit,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n classes"]:
    """The teacher's logits on `split`, row i for image i; computed once for the same weights and images.

    Kept in memory, and on disk below the user's cache folder, under a digest of the teacher's weights and of
    the images. They are written as they come, some thousands at a time: a process that is killed goes on from there,
    and two processes may share them. They hold for the images as they are: an augmented view has other logits. Common
    implementations that cache by batch number hand out the logits of other images after a reshuffle.

    Args:
        teacher: any network; one that carries a preprocessing of its own gets it.
        split: the images, in memory or streamed (`kdlib.data.stream`), or a torch data set.
        device: where to compute; by default CUDA, MPS or the CPU, in this order.
        dtype: in which they are kept and returned: float32, or float16, half the memory and rounded to about three
            digits.

    Raises:
        ValueError: as `kdlib.inference.predict_logits`; logits that float16 does not hold.
    """
    return _logit_cache.known_or_computed(teacher, split, device, dtype=dtype)
