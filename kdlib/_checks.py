"""Checks of arguments, applied by a decorator above the annotations.

A rule is a function `rule(name, value) -> value` that returns the value as the function should see it, or
raises an error that names the argument, the value, and what is allowed.  A relation is a function
`relation(arguments)` of all arguments by name, for what must hold between several of them.
"""

import functools
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LOGIT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def checked(*relations: Callable[[dict], None], **rules: Callable[[str, Any], Any]) -> Callable:
    """Decorator: apply each rule to the argument of its name, then each relation, then call the function.

    It stands above the annotated function, so bad input meets these messages before any type checker.
    """

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked_function(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            arguments = bound.arguments
            for name, rule in rules.items():
                if name in arguments:
                    arguments[name] = rule(name, arguments[name])
            for relation in relations:
                relation(arguments)
            return function(*bound.args, **bound.kwargs)

        return checked_function

    return decorate


def finite_number(name: str, value: Any) -> float:
    """A real number that is neither NaN nor infinite; NumPy's numbers count."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be a finite number, got a whole number above 1e308") from error
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {value}")
    return number


def positive_number(name: str, value: Any) -> float:
    """A finite number above 0, such as a temperature."""
    number = finite_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return number


def non_negative_number(name: str, value: Any) -> float:
    """A finite number of at least 0, such as the weight of a loss."""
    number = finite_number(name, value)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return number


def temperature(name: str, value: Any) -> float:
    """A number above 0 that leaves something of logits that are divided by it."""
    return _between(1e-6, positive_number(name, value), 1e9, name)


def weight(name: str, value: Any) -> float:
    """A number of at least 0 that a loss may be multiplied by."""
    return _between(0.0, non_negative_number(name, value), 1e9, name)


def _between(lowest: float, number: float, highest: float, name: str) -> float:
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be from {lowest:g} to {highest:g}, got {number}")
    return number


def fraction(name: str, value: Any) -> float:
    """A number in [0, 1], such as alpha."""
    number = finite_number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return number


def open_fraction(name: str, value: Any) -> float:
    """A number strictly between 0 and 1, such as a confidence."""
    number = finite_number(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name} must be strictly between 0 and 1, got {value}")
    return number


def positive_integer(name: str, value: Any) -> int:
    """An integer of at least 1, such as a number of bins."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def natural_number(name: str, value: Any) -> int:
    """An integer of at least 0, such as a seed."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return int(value)


def seed(name: str, value: Any) -> int:
    """What PyTorch's random numbers may begin with."""
    number = natural_number(name, value)
    if number >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {number}")
    return number


def boolean(name: str, value: Any) -> bool:
    """True or False; NumPy's count."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__} {value!r}")
    return bool(value)


def function(name: str, value: Any) -> Callable:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {type(value).__name__} {value!r:.80}")
    return value


def logits(name: str, value: Any) -> Tensor:
    """A finite floating-point tensor of shape (batch, classes) with at least one row and one class."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.is_nested or value.dim() != 2 or 0 in value.shape:
        shape = "a nested tensor" if value.is_nested else tuple(value.shape)
        raise ValueError(f"{name} must have shape (batch, classes), neither of them 0, got {shape}")
    if value.dtype not in _LOGIT_TYPES or value.layout != torch.strided:
        raise ValueError(
            f"{name} must be floating-point logits, got {value.dtype}: a dense tensor of float32, or of bfloat16, "
            "float16 or float64, is allowed"
        )
    all_finite(name, value)
    return value


def several_logits(name: str, value: Any) -> Tensor:
    """Logits of at least two classes: a softmax over one class is 1 whatever the network says."""
    if logits(name, value).shape[1] < 2:
        raise ValueError(f"{name} must have at least 2 classes, got shape {tuple(value.shape)}")
    return value


def many_logits(name: str, value: Any) -> Tensor:
    """Logits of at least three classes: two that are standardised are 1 and -1, whatever the network says."""
    if logits(name, value).shape[1] < 3:
        raise ValueError(
            f"{name} must have at least 3 classes, got shape {tuple(value.shape)}: two logits standardise to 1 and -1, "
            "whatever they were, which trains nothing; take soft_target_loss"
        )
    return value


def same_shape(first: str, second: str) -> Callable[[dict], None]:
    """Relation: two tensors have one shape and lie on one device."""

    def relation(arguments: dict) -> None:
        one, other = arguments[first], arguments[second]
        if one.shape != other.shape:
            raise ValueError(
                f"{first} and {second} must have the same shape, "
                f"got {tuple(one.shape)} and {tuple(other.shape)}"
            )
        if one.device != other.device:
            raise ValueError(
                f"{first} and {second} must be on one device, got {one.device} and {other.device}"
            )

    return relation


def labels_fit(labels: Any, logits_shape: tuple[int, ...], name: str = "labels") -> None:
    """Labels are int64 of shape (batch,) with values in [0, classes); values are read on the CPU only."""
    batch, classes = logits_shape
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(labels).__name__}")
    if labels.dtype != torch.int64:
        raise ValueError(f"{name} must be class numbers of dtype torch.int64, got {labels.dtype}")
    if labels.shape != (batch,):
        raise ValueError(
            f"{name} must have shape ({batch},) to match logits of shape {(batch, classes)}, "
            f"got {tuple(labels.shape)}"
        )
    if labels.device.type == "cpu":
        lowest, highest = (bound.item() for bound in labels.aminmax())
        if lowest < 0 or highest >= classes:
            offending = lowest if lowest < 0 else highest
            raise ValueError(f"{name} must be in [0, {classes - 1}] for {classes} classes, got {offending}")


def labels_match(arguments: dict) -> None:
    """Relation: `labels` fit `student_logits`, and lie on the same device."""
    labels, student_logits = arguments["labels"], arguments["student_logits"]
    labels_fit(labels, tuple(student_logits.shape))
    if labels.device != student_logits.device:
        raise ValueError(
            f"labels and student_logits must be on one device, got {labels.device} and {student_logits.device}"
        )


def all_finite(name: str, value: Tensor) -> None:
    """No NaN and no infinity in a tensor; the message says where the first one is.

    Values are read on the CPU only: on an accelerator that would stall its queue at every step.
    """
    # A sum is finite only where every term is, and costs a third of looking at each.
    if value.device.type != "cpu" or math.isfinite(value.detach().sum().item()):
        return
    bad = (~torch.isfinite(value)).nonzero()
    if len(bad):  # not so where the sum overflowed
        position = tuple(bad[0].tolist())
        raise ValueError(f"{name} must be finite, got {value[position].item()} at position {position}")
