"""Losses of any author: what a function's signature names is what it is passed."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn

from kdlib.features.terms import written


def wanted(
    loss: Any, offered: Collection[str], *, name: str, takes: str = "the student's and the teacher's"
) -> tuple[str, ...]:
    """Which of the `offered` arguments a loss takes, by the names in its signature behind the first two.

    An argument that `functools.partial` has set keeps that value.

    Args:
        loss: any function of two arguments and further ones.
        offered: the names that mean something.
        name: of the loss, for messages.
        takes: what the two arguments are, for messages.

    Raises:
        TypeError: `loss` cannot be called, or is the class of a module.
        ValueError: it takes fewer than two arguments, or demands one that nothing offers.
    """
    if not callable(loss):
        raise TypeError(
            f"{name} must be a function of two arguments, {takes}, got {type(loss).__name__} {loss!r:.80}"
        )
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        raise TypeError(
            f"{name} must be a function or a module, got the class {loss.__name__}: give one of it"
        )
    parameters = _parameters(loss)
    if parameters is None:  # some built-in functions show no signature
        return ()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ValueError(
            f"{name} must take two arguments, {takes}, got {written(loss)}{inspect.Signature(parameters)}"
        )
    fixed = loss.keywords if isinstance(loss, functools.partial) else {}
    rest = [p for p in parameters if p not in positional[:2] and p.name not in fixed]
    rest = [p for p in rest if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    unknown = [p.name for p in rest if p.default is p.empty and p.name not in offered]
    if unknown:
        named = f"it is passed what its signature names of {', '.join(offered)}; " if offered else ""
        raise ValueError(
            f"{name} demands {', '.join(unknown)}, which training does not know; {named}set others by functools.partial"
        )
    asked = [p for p in rest if p.name in offered]
    if nameless := [p.name for p in asked if p.kind is p.POSITIONAL_ONLY]:
        raise ValueError(
            f"{name} must take {', '.join(nameless)} as a keyword: its signature has it in front of a slash"
        )
    return tuple(p.name for p in asked)


def _parameters(loss: Callable) -> list[inspect.Parameter] | None:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    if isinstance(loss, functools.partial) and isinstance(loss.func, nn.Module):
        function = functools.partial(loss.func.forward, *loss.args, **loss.keywords)
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def partial_modules(losses: Collection[Any]) -> nn.ModuleList:
    """The modules whose options functools.partial has set: what they hold is trained as that of a plain module."""
    partials = [loss for loss in losses if isinstance(loss, functools.partial)]
    return nn.ModuleList(partial.func for partial in partials if isinstance(partial.func, nn.Module))


def chosen(names: tuple[str, ...], offered: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The arguments of these names, each computed only where it is wanted."""
    return {name: offered[name]() for name in names}
