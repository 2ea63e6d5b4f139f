"""Predict before you run: a choice among ranges that is recorded, and later judged by what was measured."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ipywidgets

Range = tuple[int | float | None, int | float | None]
Verdict = Literal["right", "near", "wrong"]

UNDECIDED = "no single answer"  # how a comparison begins that the measurement leaves open; tools look for it
_FRACTIONS = ("points", "%")  # units in which a measured fraction is shown a hundred times as large
_chosen: dict[str, str | None] = {}  # by question: a cell that is run again keeps what its reader has clicked


@dataclass(frozen=True)
class Comparison:
    """What was predicted beside what was measured; it displays itself as text.

    A range holds its low end and not its high end, so that each value belongs to one option; the last range holds both.

    Attributes:
        predicted: the words of the chosen option, or None.
        measured: mean, low and high, in the unit of the ranges.
        options: the range of each option, in ascending order.
        unit: what the numbers count.
    """

    predicted: str | None
    measured: tuple[float, float, float]
    options: Mapping[str, Range]
    unit: str

    @property
    def answers(self) -> list[str]:
        """The options in which the measured interval lies: one, or several neighbours."""
        words = list(self.options)
        _, low, high = self.measured
        return words[self._position(low) : self._position(high) + 1]

    @property
    def decided(self) -> bool:
        """Whether the whole interval lies inside one option's range."""
        return len(self.answers) == 1

    @property
    def verdict(self) -> Verdict | None:
        """Whether the choice is "right", "near" (beside a right one) or "wrong"; None where there is none."""
        if self.predicted is None:
            return None
        words = list(self.options)
        apart = min(abs(words.index(self.predicted) - words.index(answer)) for answer in self.answers)
        return ("right", "near", "wrong")[min(apart, 2)]

    def _position(self, value: float) -> int:
        """The number of the option whose range holds the value."""
        return sum(low is not None and value >= low for low, _ in list(self.options.values())[1:])

    def __repr__(self) -> str:
        lines = [
            f"You predicted: {'nothing' if self.predicted is None else self.predicted}",
            f"Measured:      {self._amount()}",
            f"Answer:        {self._answer()}",
        ]
        return "\n".join(lines if self.predicted is None else [*lines, self._judgement()])

    def _amount(self) -> str:
        mean, low, high = (_number(value, self.unit) for value in self.measured)
        named = f"{mean} {self.unit}".strip()
        return named if low == mean == high else f"{named} [{low}, {high}]"

    def _range(self, option: str) -> str:
        return _in_words(self.options[option], self.unit, closed=option == list(self.options)[-1])

    def _answer(self) -> str:
        answers = self.answers
        if self.decided:
            return f"{answers[0]} ({self._range(answers[0])})"
        return f"{UNDECIDED}: the interval lies between {_quoted(answers)}; {_all_of(answers)} count as right"

    def _judgement(self) -> str:
        yours = f"your answer is {self._range(self.predicted)}"
        if self.verdict == "right":
            return f"Right:         {yours}, and {'there it lies' if self.decided else 'the interval reaches there'}."
        words = list(self.options)
        side = "above" if words.index(self.predicted) < words.index(self.answers[0]) else "below"
        if self.verdict == "near":
            return f"Near:          {yours}, and it lies {side} that, in the option beside yours."
        return f"Wrong:         {yours}, and it lies {side} that, further away than the option beside yours."


class Prediction(ipywidgets.VBox):
    """A reader's choice among ranges. `choice` is the current one, None as long as nobody has chosen.

    Who clicks an option and then presses Shift+Enter runs the question's cell again: the choice stays.
    """

    def __init__(self, question: str, options: Mapping[str, Range], unit: str):
        self.question = question
        self.options = dict(options)
        self.unit = unit
        layout = ipywidgets.Layout(width="max-content", max_width="100%")
        self._buttons = ipywidgets.RadioButtons(options=list(options), value=None, layout=layout)
        if _chosen.get(question) in self.options:
            self._buttons.value = _chosen[question]
        self._buttons.observe(lambda change: _chosen.update({question: change["new"]}), names="value")
        heading = ipywidgets.HTML(f"<strong>Predict.</strong> {html.escape(question)}")
        super().__init__([heading, self._buttons])

    @property
    def choice(self) -> str | None:
        """What is chosen now; may be set.

        Raises:
            ValueError: set to what is neither one of the options nor None.
        """
        return self._buttons.value

    @choice.setter
    def choice(self, option: Any) -> None:
        if option is not None and option not in self.options:
            raise ValueError(f"choice={option!r} is not one of {_quoted(self.options)}")
        self._buttons.value = option

    def compare(self, measured: Any) -> Comparison:
        """Judge the prediction by what was measured.

        Args:
            measured: an interval (mean, low, high) or one number; for the units "points" and "%" as a fraction.

        Raises:
            ValueError: a value that is not finite, an interval that does not hold its mean, or one that reaches
                outside of the ranges of all options.
        """
        values = _interval(measured)
        if self.unit in _FRACTIONS:
            values = tuple(round(100 * value, 9) for value in values)
        ranges = list(self.options.values())
        lowest, highest = ranges[0][0], ranges[-1][1]
        if (lowest is not None and values[1] < lowest) or (highest is not None and values[2] > highest):
            covered = _in_words((lowest, highest), self.unit, closed=True)
            raise ValueError(f"measured={measured!r} reaches outside of all options, which cover {covered}")
        return Comparison(self.choice, values, self.options, self.unit)

    def _repr_mimebundle_(self, **options):
        # ipywidgets cuts the words after 110 characters; a page without a kernel has nothing else to show.
        return super()._repr_mimebundle_(**options) | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        options = "\n".join(f"  ( ) {option}" for option in self.options)
        return f"Predict. {self.question}\n{options}"


def predict(question: str, options: Any, *, unit: Any = "points") -> Prediction:
    """Ask a question to which the reader picks an answer before the measurement; none is picked for them.

    Args:
        question: what is asked.
        options: for the words of each answer its range (low, high) in the unit. The ranges ascend and join; the first
            low and the last high may be None, for no border.
        unit: "points" or "%" (a measured fraction is then shown a hundred times as large), or any other words that
            stand well after a number ("nats", "times", "of 25 cells", "").

    Raises:
        TypeError: a unit that is not a string, or options that are no mapping.
        ValueError: fewer than two options, or ranges with a gap, an overlap or in another order.
    """
    if not isinstance(unit, str):
        raise TypeError(f"unit={unit!r} must be a string, such as 'points', '%', 'times' or ''")
    if not isinstance(options, Mapping):
        raise TypeError(
            f"options={options!r} must be a dict from the words of an answer to its range (low, high)"
        )
    if len(options) < 2:
        raise ValueError(f"options={dict(options)!r} must be at least two answers")
    _require_ranges(options)
    return Prediction(question, options, unit)


def _require_ranges(options: Mapping[str, Any]) -> None:
    """Each range is one, and they join in ascending order."""
    words = list(options)
    for place, (answer, range_) in enumerate(options.items()):
        _require_range(answer, range_, first=place == 0, last=place == len(words) - 1)
    for answer, following in zip(words, words[1:], strict=False):
        (low, high), (next_low, next_high) = options[answer], options[following]
        between = (
            f"options: {answer!r} is ({low}, {high}) and {following!r} after it ({next_low}, {next_high})"
        )
        if low is not None and next_low < low:
            raise ValueError(f"{between}: they must be in ascending order")
        if next_low != high:
            fault = "an overlap" if next_low < high else "a gap"
            raise ValueError(
                f"{between}: {fault} between {high} and {next_low}; each must begin where the last ends"
            )


def _require_range(answer: str, range_: Any, *, first: bool, last: bool) -> None:
    if not isinstance(range_, tuple | list) or len(range_) != 2:
        raise ValueError(f"options[{answer!r}]={range_!r} must be a range (low, high)")
    low, high = range_
    if (low is None and not first) or (high is None and not last):
        raise ValueError(f"options[{answer!r}]={range_!r}: only the first low and the last high may be None")
    for value in range_:
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError(f"options[{answer!r}]={range_!r}: {value!r} is not a finite number")
    if low is not None and high is not None and low >= high:
        raise ValueError(f"options[{answer!r}]={range_!r}: low must be smaller than high")


def _interval(measured: Any) -> tuple[float, float, float]:
    try:
        values = (
            tuple(float(value) for value in measured)
            if hasattr(measured, "__len__")
            else (float(measured),) * 3
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"measured={measured!r} must be an interval (mean, low, high) or a number"
        ) from error
    if len(values) != 3 or not all(map(math.isfinite, values)) or not values[1] <= values[0] <= values[2]:
        raise ValueError(f"measured={measured!r} must be finite: a number, or low <= mean <= high")
    return values


def _number(value: float, unit: str) -> str:
    if unit == "points":
        return f"{value:+.1f}"
    if unit == "%":
        return f"{value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _in_words(range_: Range, unit: str, *, closed: bool) -> str:
    """A range in words; closed: its high end belongs to it."""
    low, high = (None if end is None else f"{end:g}" for end in range_)
    if high is None:
        return "every value" if low is None else f"{low} {unit}".strip() + " or more"
    words = f"{low} to {'' if closed else 'below '}{high}" if low is not None else f"below {high}"
    return f"{words} {unit}".strip()


def _quoted(words: Iterable[str]) -> str:
    *others, last = (f'"{word}"' for word in words)
    return f"{', '.join(others)} and {last}" if others else last


def _all_of(answers: Sequence[str]) -> str:
    return "both" if len(answers) == 2 else "all of them"
