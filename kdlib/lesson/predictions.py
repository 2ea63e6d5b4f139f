"""Predict before you run: a choice that is recorded, and later set beside what was measured."""

import html
from dataclasses import dataclass

import ipywidgets


class Prediction(ipywidgets.VBox):
    """A reader's choice among answers. `choice` is the current one; without a click it is the default."""

    def __init__(self, question: str, options: list[str], default: str):
        self.question = question
        self._buttons = ipywidgets.RadioButtons(
            options=options, value=default, layout=ipywidgets.Layout(width="max-content", max_width="100%")
        )
        heading = ipywidgets.HTML(f"<strong>Predict.</strong> {html.escape(question)}")
        super().__init__([heading, self._buttons])

    @property
    def choice(self) -> str:
        """What is chosen now; may be set."""
        return self._buttons.value

    @choice.setter
    def choice(self, option: str) -> None:
        self._buttons.value = option

    def compare(self, measured: str) -> "Comparison":
        """What was predicted, to be displayed beside what was measured."""
        return Comparison(self.choice, measured)

    def _repr_mimebundle_(self, **options):
        # ipywidgets cuts the words after 110 characters; a page without a kernel has nothing else to show.
        return super()._repr_mimebundle_(**options) | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        options = "\n".join(f"  ( ) {option}" for option in self._buttons.options)
        return f"Predict. {self.question}\n{options}"


@dataclass(frozen=True)
class Comparison:
    """What was predicted beside what was measured."""

    predicted: str
    measured: str

    def __repr__(self) -> str:
        return f"You predicted: {self.predicted}\nMeasured:      {self.measured}"


def predict(question: str, *options: str, default: str | None = None) -> Prediction:
    """Ask a question to which the reader picks an answer before the measurement.

    Args:
        question: what is asked.
        options: at least two different answers.
        default: the one that is chosen at the start; by default the first.

    Raises:
        ValueError: fewer than two options, two alike, or a default that is none of them.
    """
    if len(options) < 2 or len(set(options)) < len(options):
        raise ValueError(f"options={options!r} must be at least two different answers")
    default = options[0] if default is None else default
    if default not in options:
        raise ValueError(f"default={default!r} is not one of options={options!r}")
    return Prediction(question, list(options), default)
