"""What may become a split: rules for `kdlib._checks.checked` that make tensors of what they are given."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

Array = Tensor | np.ndarray
Positions = Tensor | np.ndarray | Sequence | slice


def named(value: Any) -> str:
    """The type and the beginning of a value, for a message."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def images(name: str, values: Any) -> UInt8[Tensor, "n channels height width"]:
    """uint8 in the order in which networks take them."""
    tensor = _numbers(name, values)
    if tensor.dtype != torch.uint8:
        raise ValueError(
            f"{name} must be uint8 in 0..255, got {tensor.dtype}: convert numbers in [0, 1] by "
            f"({name} * 255).round(), and then to uint8"
        )
    if tensor.ndim != 4 or tensor.numel() == 0:
        raise ValueError(
            f"{name} must have the shape (n, channels, height, width), none of them 0, got {tuple(tensor.shape)}"
        )
    _, first, second, last = tensor.shape
    if first > 4 < second and (last in (3, 4) or last == 1 and first == second):
        raise ValueError(
            f"{name} must have the shape (n, channels, height, width), got {tuple(tensor.shape)}, which looks like "
            f"(n, height, width, channels): give {name}.transpose(0, 3, 1, 2), or .permute(0, 3, 1, 2) of a tensor"
        )
    return tensor


def labels(name: str, values: Any) -> Int64[Tensor, "..."] | Float32[Tensor, "n classes"]:
    """Classes, or numbers in [0, 1] for each class."""
    tensor = _numbers(name, values)
    if tensor.ndim != 2:
        return _whole_numbers(name, tensor)
    if tensor.dtype != torch.bool and not tensor.is_floating_point():
        remedy = "[:, 0]" if tensor.shape[1] == 1 else ".argmax(axis=1)"
        raise ValueError(
            f"{name} of the shape (n, classes) must be float32 in [0, 1] or bool, got {tensor.dtype} of the shape "
            f"{tuple(tensor.shape)}: give {name}{remedy} where each image has one class, or the same numbers as "
            "float32 where it may have several"
        )
    tensor = tensor.to(torch.float32)
    outside = ~((tensor >= 0) & (tensor <= 1))  # so is NaN
    if outside.any():
        row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"{name} of the shape (n, classes) must be in [0, 1], "
            f"got {tensor[row, column].item():.6g} at position {(row, column)}"
        )
    return tensor


def indices(name: str, values: Any) -> Int64[Tensor, "..."] | None:
    """Rows in the original set, or None."""
    return None if values is None else _whole_numbers(name, values)


def mean(name: str, values: Any) -> Float32[Tensor, "..."] | None:
    """Numbers in [0, 1], or None."""
    return _statistic(name, values, "in [0, 1]", lambda numbers: (numbers >= 0) & (numbers <= 1))


def std(name: str, values: Any) -> Float32[Tensor, "..."] | None:
    """Positive numbers of at most 1, or None."""
    return _statistic(name, values, "positive and at most 1", lambda numbers: (numbers > 0) & (numbers <= 1))


def belong_together(arguments: dict) -> None:
    """Relation: as many labels and indices as images, as many statistics as channels."""
    shape = tuple(arguments["images"].shape)
    found = {name: tuple(values.shape) for name, values in arguments.items() if isinstance(values, Tensor)}
    if len(found["labels"]) not in (1, 2) or found["labels"][0] != shape[0] or 0 in found["labels"]:
        raise ValueError(
            "labels must hold one number per image, or one per image and class: labels have the shape "
            f"{found['labels']}, images {shape}"
        )
    if found.get("indices", shape[:1]) != shape[:1]:
        raise ValueError(
            f"indices must hold one number per image: indices have the shape {found['indices']}, images {shape}"
        )
    for name in ("mean", "std"):
        if found.get(name, shape[1:2]) != shape[1:2]:
            raise ValueError(
                f"{name} must hold one finite number per channel: got {arguments[name].tolist()} of the shape "
                f"{found[name]}, images have {shape}"
            )


def size_of_a_part(arguments: dict) -> None:
    """Relation: `n` is a number of images that the split has."""
    n, size = arguments["n"], len(arguments["self"])
    if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= size:
        raise ValueError(f"n must be a whole number from 1 to {size}, the size of the split; got {n!r}")
    arguments["n"] = int(n)


def rows_of_the_split(arguments: dict) -> None:
    """Relation: `positions`, where they are given, become what chooses among the rows of the split's tensors."""
    if arguments.get("positions") is not None:
        arguments["positions"] = _index("positions", arguments["positions"], len(arguments["self"]))


def some_rows_of_the_split(arguments: dict) -> None:
    """Relation: likewise, but they must be given and choose something."""
    size = len(arguments["self"])
    rows = arguments["positions"] = _index("positions", arguments["positions"], size)
    if not len(arguments["self"].labels[rows]):
        raise ValueError(f"positions must choose at least one of the {size} images, got none")


def _index(name: str, positions: Any, n: int) -> Tensor | slice:
    """Row numbers, a mask or a slice, as torch takes them."""
    if isinstance(positions, slice):
        try:
            forwards = positions.indices(n)[2] > 0
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be a slice of whole numbers, got {positions} ({error})") from error
        if not forwards:
            raise ValueError(f"{name} must be a slice with a positive step, got {positions}")
        return positions
    # Torch would read a tuple of row numbers as one index per dimension.
    rows = _numbers(name, positions)
    if rows.ndim != 1 or rows.is_complex() or rows.is_floating_point() and len(rows):
        raise ValueError(
            f"{name} must be row numbers, a mask of {n} or a slice, got {rows.dtype} of the shape {tuple(rows.shape)}"
        )
    if rows.dtype == torch.bool:
        if len(rows) != n:
            raise ValueError(f"{name} must be a mask of {n}, one for each image, got {len(rows)}")
        return rows
    rows = rows.to(torch.int64)  # torch would take uint8 for a mask
    outside = (rows < -n) | (rows >= n)
    if outside.any():
        raise ValueError(f"{name} must be below {n}, the size of the split, got {rows[outside][0].item()}")
    return rows


def _whole_numbers(name: str, values: Any) -> Int64[Tensor, "..."]:
    tensor = _numbers(name, values)
    if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(
            f"{name} must be whole numbers, got {tensor.dtype}: convert them to int64 where that is what they mean"
        )
    tensor = tensor.to(torch.int64)
    if tensor.numel() and tensor.min() < 0:
        raise ValueError(f"{name} must not be negative, got {tensor.min().item()}")
    return tensor


def _statistic(name: str, values: Any, allowed: str, is_allowed: Any) -> Float32[Tensor, "..."] | None:
    if values is None:
        return None
    tensor = _numbers(name, values)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be real numbers, got {tensor.dtype}")
    tensor = tensor.to(torch.float32)
    if not tensor.isfinite().all():
        raise ValueError(f"{name} must hold one finite number per channel, got {tensor.tolist()}")
    if not is_allowed(tensor).all():
        raise ValueError(
            f"{name} must be {allowed}, for pixels in [0, 1], got {tensor.tolist()}: "
            "divide by 255 what was computed from pixels in 0..255"
        )
    return tensor


def _numbers(name: str, values: Any) -> Tensor:
    """Numbers in memory as a tensor on the CPU, shared where they can be."""
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_meta or values.is_quantized or values.is_nested:
            raise ValueError(
                f"{name} must be a dense tensor of plain numbers, got {values.layout} {values.dtype}"
            )
        return values.detach().as_subclass(Tensor).cpu().contiguous()
    try:
        array = np.require(values, requirements="CW")  # copies what torch could not write to
    except Exception as error:  # an array of somebody else's may fail in any way to become one of numpy's
        raise ValueError(f"{name} must be a rectangular array of numbers ({error})") from error
    if array.dtype.kind not in "biufc" or array.dtype in (np.longdouble, np.clongdouble):
        raise ValueError(f"{name} must be an array of numbers, got {named(values)} of dtype {array.dtype}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(array.view(np.dtype(array.dtype.str)))  # "ulonglong" is uint64 under another name
