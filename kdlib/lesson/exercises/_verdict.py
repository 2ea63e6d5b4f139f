"""What an exercise says to the learner: a verdict, a hint or a solution, each of which displays itself."""

import functools
import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

UNFINISHED, WRONG, CORRECT = "not done yet", "not yet right", "correct"

# The sign and the words carry the verdict; the colour only repeats it. Readable on light and dark themes.
_SIGNS = {UNFINISHED: ("○", "#7f7f7f"), WRONG: ("✗", "#d55e00"), CORRECT: ("✓", "#009e73")}


@dataclass(frozen=True, repr=False)
class Verdict:
    """The judgement of one answer. True in an `if` or an `assert` only when the answer is correct."""

    name: str
    status: str
    message: str
    diagnosis: str | None = None  # the typical mistake that was recognised, if any

    @property
    def passed(self) -> bool:
        return self.status == CORRECT

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"{_SIGNS[self.status][0]} {self.name}: {self.status}. {self.message}"

    def _repr_html_(self) -> str:
        sign, colour = _SIGNS[self.status]
        name, message = html.escape(self.name), re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.message))
        return (
            f'<div role="status" style="border-left: 0.4em solid {colour}; padding: 0.3em 0.8em">'
            f"<strong>{sign} {name}: {self.status}.</strong> {message}</div>"
        )


@dataclass(frozen=True, repr=False)
class Hint:
    name: str
    number: int
    total: int
    text: str

    def __repr__(self) -> str:
        after = f' (the last one; solution("{self.name}") shows a way)' if self.number == self.total else ""
        return f"Hint {self.number} of {self.total}: {' '.join(self.text.split())}{after}"

    def _repr_markdown_(self) -> str:
        return repr(self)


class Solution:
    """The worked solution: shown as its source, and callable as the function itself."""

    def __init__(self, function: Callable, source: str) -> None:
        functools.update_wrapper(self, function)
        self.source = source

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.__wrapped__(*arguments, **named)

    def __repr__(self) -> str:
        return self.source

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.source}\n```"
