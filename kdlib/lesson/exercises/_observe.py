"""Running a function of unknown quality: what it gives on one case, as numbers that can be compared."""

import contextlib
import copy
import io
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from kdlib.lesson.exercises._limits import cpu_limit

SECONDS = 3  # for one call; the right answers take milliseconds


class ChangedInput(Exception):
    """Raised by a probe that sees its arguments altered in place."""


class Complaint(Exception):
    """Raised by a probe that looks for properties and misses one: the sentence that is said of it."""


@dataclass(frozen=True)
class Outcome:
    """What one call gave. Either `numbers`, or the reason why there are none."""

    numbers: dict[str, torch.Tensor] = field(default_factory=dict)  # label in messages -> float64
    unfinished: bool = False
    changed_input: bool = False
    error: BaseException | None = None

    @property
    def finite(self) -> bool:
        return self.error is None and all(bool(torch.isfinite(part).all()) for part in self.numbers.values())

    @property
    def shapes(self) -> list[tuple]:
        return [tuple(part.shape) for part in self.numbers.values()]

    @property
    def error_text(self) -> str:
        return traceback.format_exception_only(self.error)[-1].strip()


def observe(probe: Callable, function: Callable, arguments: tuple) -> Outcome:
    """Call `function` on copies of the arguments, silently, with every failure caught but an EndlessLoop."""
    given = copy.deepcopy(arguments)
    try:
        with _quiet(), cpu_limit(SECONDS):
            result = probe(function, *given)
        if is_unfinished(result):
            return Outcome(unfinished=True)
        return Outcome(_flatten(result), changed_input=not _same(given, arguments))
    except ChangedInput:
        return Outcome(changed_input=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a learner's function may raise anything
        return Outcome(unfinished=_hits_placeholder(error), error=error)


def _hits_placeholder(error: BaseException) -> bool:
    """True for `raise NotImplementedError`, and for lines like `loss = ...; return 2 * loss`.

    Torch raises NotImplementedError too, for a missing kernel, with a message: that is a mistake to be shown.
    """
    texts = [argument for argument in error.args if isinstance(argument, str)]
    bare = isinstance(error, NotImplementedError) and not error.args
    return bare or any("'ellipsis'" in text for text in texts)


def is_unfinished(result: Any) -> bool:
    parts = result if isinstance(result, (tuple, list)) else [result]
    return any(part is None or part is ... for part in parts)


def agree(one: Outcome, other: Outcome, tolerance: float) -> bool:
    """The same behaviour: the same numbers within the tolerance, or the same kind of failure.

    NaN and infinity count as one thing: which of them an overflow ends in is a matter of chance.
    """
    if one.changed_input != other.changed_input or _kind(one.error) != _kind(other.error):
        return False
    if one.shapes != other.shapes:
        return False
    pairs = zip(one.numbers.values(), other.numbers.values(), strict=True)
    return all(close(a, b, tolerance) for a, b in pairs)


def _kind(error: BaseException | None) -> type | str:
    return str(error) if isinstance(error, Complaint) else type(error)


def value_and_gradient(function: Callable, student_logits: torch.Tensor, *rest: Any) -> Any:
    """Probe of a loss: its value, and its gradient in the student's logits (zero where it is cut off)."""
    leaf = student_logits.clone().requires_grad_()
    seen = leaf.clone()  # not a leaf, so that an in-place change is possible and can be told from a crash
    loss = function(seen, *rest)
    if not torch.equal(seen, leaf):
        raise ChangedInput
    if is_unfinished(loss):
        return loss
    if not (isinstance(loss, torch.Tensor) and loss.requires_grad):
        return {"loss": loss, "gradient": torch.zeros_like(student_logits)}
    return {"loss": loss, "gradient": torch.autograd.grad(loss.sum(), leaf)[0]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No printing, no warnings, and the global state of torch as it was."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
    ):
        warnings.simplefilter("ignore")
        yield


def _flatten(result: Any) -> dict[str, torch.Tensor]:
    if isinstance(result, (tuple, list)):
        result = {f"value {i}": part for i, part in enumerate(result, start=1)}
    if isinstance(result, dict):
        return {label: _number(part) for label, part in result.items()}
    return {"result": _number(result)}


def _number(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().to(torch.float64)
    if isinstance(value, (int, float, np.ndarray, np.number)):
        return torch.as_tensor(value, dtype=torch.float64)
    raise TypeError(f"the result is a {type(value).__name__}, not a tensor or a number")


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    """Equal within the tolerance, relative and (a tenth of it) absolute; not finite in the same places."""
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)):
        return False
    return torch.allclose(a[finite], b[finite], rtol=tolerance, atol=tolerance / 10)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        equal_or_both_nan = (a == b) | ((a != a) & (b != b)) if a.shape == b.shape else a.new_zeros(1)
        return bool(equal_or_both_nan.all())
    if isinstance(a, pd.DataFrame):
        return a.equals(b)
    return a == b
