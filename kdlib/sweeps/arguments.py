"""Rules for the arguments of a sweep (see `kdlib._checks`)."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor, nn

from kdlib.training import checks


def listed(name: str, values: Any) -> list:
    """A rule: a list, also out of a range or an array; numbers are left for another rule."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of numbers, got {type(values).__name__} {values!r:.80}")
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def numbers(name: str, values: Iterable, rule: Callable[[str, Any], Any]) -> list:
    """What `rule` makes of the values: at least one, and none twice."""
    found = [rule(f"{name}[{position}]", value) for position, value in enumerate(values)]
    if not found:
        raise ValueError(f"{name} must not be empty")
    if len(set(found)) < len(found):
        raise ValueError(f"{name} must not hold a value twice, got {found}")
    return found


def seed(name: str, value: Any) -> int:
    """A rule: a whole number of either sign."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    return value.__index__()


def list_of(rule: Callable[[str, Any], Any]) -> Callable[[str, Any], list]:
    """A rule: a list of numbers that each pass `rule`, as they are."""

    def rule_of_list(name: str, values: Any) -> list:
        values = listed(name, values)
        numbers(name, values, rule)
        return values

    return rule_of_list


def name_or_builder(name: str, value: Any) -> str | Callable[[], nn.Module]:
    """A rule: a name, or a function that builds a network."""
    if isinstance(value, nn.Module) or not (callable(value) or isinstance(value, str)):
        raise ValueError(
            f"{name} must be a name or a function that builds a network, got {type(value).__name__}: "
            "every cell needs a new one"
        )
    return value


def optional_logits(name: str, value: Any) -> Tensor | None:
    """A rule: logits as a tensor or NumPy array, or None."""
    if value is not None and not isinstance(value, Tensor | np.ndarray):
        raise TypeError(f"{name} must be logits, got {type(value).__name__}")
    return None if value is None else checks.teacher_rule(name, value)
