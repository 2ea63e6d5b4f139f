"""Losses of any author: what a function's signature names is what it is passed."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn

from kdlib.features.terms import written


def wanted(loss: Any, offered: Collection[str], *, name: str) -> tuple[str, ...]:
    """Which of the `offered` arguments a loss takes, by the names in its signature behind the first two.

    An argument that `functools.partial` has set keeps that value.

    Raises:
        TypeError: `loss` cannot be called.
        ValueError: it takes fewer than two arguments, or demands one that nothing offers.
    """
    if not callable(loss):
        raise TypeError(
            f"{name} must be a function of student and teacher, got {type(loss).__name__} {loss!r}"
        )
    parameters = _parameters(loss)
    if parameters is None:  # some built-in functions show no signature
        return ()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ValueError(
            f"{name} must take two arguments, the student's and the teacher's, got {written(loss)}"
        )
    fixed = loss.keywords if isinstance(loss, functools.partial) else {}
    rest = [p for p in parameters if p not in positional[:2] and p.name not in fixed]
    rest = [p for p in rest if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    unknown = [p.name for p in rest if p.default is p.empty and p.name not in offered]
    if unknown:
        raise ValueError(
            f"{name} demands {', '.join(unknown)}, which training does not know; it is passed what its signature "
            f"names of {', '.join(offered)}; set others by functools.partial"
        )
    return tuple(p.name for p in rest if p.name in offered)


def _parameters(loss: Callable) -> list[inspect.Parameter] | None:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def chosen(names: tuple[str, ...], offered: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The arguments of these names, each computed only where it is wanted."""
    return {name: offered[name]() for name in names}
