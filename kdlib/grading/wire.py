"""What comes back from behind the walls: plain numbers and words, of which nothing is believed but their form."""

import base64
import builtins
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kdlib.lesson.exercises._observe import Complaint, Outcome

_WORDS = 600  # characters of a message


class Forged(ValueError):
    """What came back is not what the judge's own code sends."""


@dataclass(frozen=True)
class Received(Outcome):
    """An outcome of another process: of its error there is a stand-in, and the text it had."""

    said: str = ""

    @property
    def error_text(self) -> str:
        return self.said


def pack(outcome: Outcome) -> dict[str, Any]:
    """An outcome as what JSON can hold."""
    packed = {"unfinished": outcome.unfinished, "changed_input": outcome.changed_input, "numbers": []}
    for label, part in outcome.numbers.items():
        data = part.contiguous().numpy().tobytes()
        packed["numbers"].append([str(label)[:100], list(part.shape), base64.b64encode(data).decode()])
    if outcome.error is not None:
        kind = type(outcome.error)
        packed["error"] = [
            kind.__module__,
            kind.__qualname__,
            shortened(str(outcome.error)),
            outcome.error_text,
        ]
    return packed


def unpack(packed: Any) -> Received:
    """The outcome again.

    Raises:
        Forged: it is of another form.
    """
    try:
        numbers = {label: _numbers(shape, data) for label, shape, data in packed["numbers"]}
        flags = {name: bool(packed[name]) for name in ("unfinished", "changed_input")}
        if "error" not in packed:
            return Received(numbers, **flags)
        module, name, message, said = map(str, packed["error"])
        return Received(numbers, **flags, error=_error(module, name, message), said=shortened(said))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise Forged("an outcome of another form") from error


def parse(content: bytes) -> dict[str, Any]:
    """The dictionary that was sent.

    Raises:
        Forged: it is none.
    """
    try:
        sent = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Forged("what came back cannot be read") from error
    if not isinstance(sent, dict):
        raise Forged("what came back is of another form")
    return sent


def shortened(text: Any) -> str:
    """A text on one line, without what a terminal would obey, and not too long."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 4 * _WORDS]).split())
    return words if len(words) <= _WORDS else f"{words[:_WORDS]} ..."


def _numbers(shape: Sequence[int], data: str) -> torch.Tensor:
    numbers = np.frombuffer(base64.b64decode(data, validate=True), dtype=np.float64)
    if math.prod(shape) != numbers.size or min(shape, default=0) < 0:
        raise ValueError("numbers and shape do not agree")
    return torch.from_numpy(numbers.copy()).reshape(tuple(shape))


def _error(module: str, name: str, message: str) -> BaseException:
    """An error of the same kind, by which outcomes are compared; of an unknown kind one that equals no other."""
    if (module, name) == (Complaint.__module__, Complaint.__qualname__):
        return Complaint(message)
    known = vars(sys.modules.get(module, builtins)).get(name)
    if not (isinstance(known, type) and issubclass(known, BaseException)):
        known = type(name if name.isidentifier() else "Error", (Exception,), {})
    return known.__new__(known, message)
