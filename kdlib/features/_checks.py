"""What every feature loss does before its formula: checks, precision, and detaching the teacher.

The decorators stand above the annotated functions, so bad input meets these messages before any type checker.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_AXES = {"batch": 0, "channels": 1, "height": 2, "width": 3}


def check_network(name: str, value: Any) -> nn.Module:
    """A rule for `kdlib._checks.checked`: a module."""
    if not isinstance(value, nn.Module):
        exported = type(value).__name__ == "ExportedProgram"
        raise TypeError(
            f"{name} must be a torch.nn.Module, got {type(value).__name__}"
            + ("; give the module from which it was exported" if exported else "")
        )
    return value


def check_features(name: str, value: Any, *, maps: bool = False) -> Tensor:
    """A floating-point tensor (batch, ...), with `maps` (batch, channels, height, width); no axis is
    empty."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise ValueError(f"{name} must be floating-point features, got {value.dtype}")
    if maps and value.dim() != 4:
        raise ValueError(
            f"{name} must have shape (batch, channels, height, width), got {tuple(value.shape)}; "
            "bring tokens and channels-last maps into this layout with kdlib.features.to_map"
        )
    if value.dim() < 2 or 0 in value.shape:
        raise ValueError(
            f"{name} must have shape (batch, ...) with no axis of length 0, got {tuple(value.shape)}"
        )
    if maps:
        _warn_of_channels_last(name, tuple(value.shape))
    return value


def _warn_of_channels_last(name: str, shape: tuple[int, ...]) -> None:
    """A tensor does not tell its layout; a square with more channels than positions to a side is a hint."""
    _, first, second, last = shape
    if 1 < first == second < last:
        warnings.warn(
            f"{name} of shape {shape} look like a channels-last map; they are read as {first} channels of "
            f"{second} x {last} positions. If they are (batch, height, width, channels), turn them with "
            "kdlib.features.to_map(features, channels_last=True); kdlib.features.capture returns them turned",
            stacklevel=4,
        )


def to_map_advice(shape: tuple[int, ...], channels: int) -> str:
    """What to say of features whose axis 1 is not `channels` long, where the last one is."""
    if len(shape) < 3 or shape[-1] != channels:
        return ""
    return "; tokens and channels-last maps are brought into this layout by kdlib.features.to_map"


def check_map(name: str, value: Any) -> Tensor:
    """A rule for `kdlib._checks.checked`: features (batch, channels, height, width)."""
    return check_features(name, value, maps=True)


def check_match(
    first: str, one: Tensor, second: str, other: Tensor, *, same: tuple[str, ...] | None, remedy: str = ""
) -> None:
    """Two tensors agree on the named axes (None: on all of them) and lie on one device."""
    if same is None:
        differing = ["shape"] if one.shape != other.shape else []
    else:
        differing = [axis for axis in same if one.shape[_AXES[axis]] != other.shape[_AXES[axis]]]
    if differing:
        advice = f"; {remedy}" if remedy and differing != ["batch"] else ""
        raise ValueError(
            f"{first} and {second} must have the same {' and '.join(differing)}, "
            f"got shapes {tuple(one.shape)} and {tuple(other.shape)}{advice}"
        )
    if one.device != other.device:
        raise ValueError(f"{first} and {second} must be on one device, got {one.device} and {other.device}")


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All tensors in their common dtype, and never in less than float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def full_precision(device: torch.device) -> torch.autocast:
    """A context without autocast, which would compute Gram matrices in bfloat16."""
    return torch.autocast(device_type=device.type, enabled=False)


def feature_pair(
    *,
    maps: bool = False,
    same: tuple[str, ...] | None = (),
    like: Mapping[str, str] | None = None,
    remedy: str = "",
) -> Callable:
    """Decorator of `loss(student, teacher, ...)`: the first two arguments are checked and prepared.

    maps: both must be (batch, channels, height, width).  same: the axes on which they must agree besides the
    batch; None: all.  like: {tensor: the tensor whose shape it must have}, for further tensor arguments,
    named student_... or teacher_....  remedy: what to do about a mismatch.  The teacher's tensors are
    detached.
    """
    axes = None if same is None else ("batch", *same)

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)
        first, second = [name for name in signature.parameters if name != "self"][:2]
        tensors = [first, second, *(like or {})]

        @functools.wraps(function)
        def prepared(*args, **kwargs):
            arguments = signature.bind(*args, **kwargs).arguments
            for name in tensors:
                check_features(name, arguments[name], maps=maps)
            check_match(first, arguments[first], second, arguments[second], same=axes, remedy=remedy)
            for name, model in (like or {}).items():
                check_match(name, arguments[name], model, arguments[model], same=None)
            values = at_least_float32(*(arguments[name] for name in tensors))
            for name, value in zip(tensors, values, strict=True):
                arguments[name] = value.detach() if name.startswith("teacher_") else value
            with full_precision(arguments[first].device):
                return function(**arguments)

        return prepared

    return decorate


# Rows whose largest entry is below this have no direction; it also bounds the gradient of `unit_rows`.
_SHORTEST = 1e-30


def unit_rows(rows: Tensor) -> Tensor:
    """Rows (last axis) divided by their L2 norm; a zero row stays zero and receives no gradient.

    Each row is first divided by its largest entry, held constant: the result does not depend on that divisor,
    so the gradient is exact, and squaring can neither overflow nor underflow.
    """
    largest = rows.detach().abs().amax(dim=-1, keepdim=True)
    scaled = rows / largest.masked_fill(largest < _SHORTEST, torch.inf)
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).clamp_min(1)


def rescaled(tensor: Tensor) -> Tensor:
    """A tensor divided by its largest entry, held constant: for losses that ignore the overall scale."""
    largest = tensor.detach().abs().amax()
    return tensor / largest.masked_fill(largest < _SHORTEST, torch.inf)
