"""What a diagnosis says: an answer to each question, and all of them in their order. Both display themselves."""

import html
from dataclasses import dataclass

from kdlib.metrics import Interval

# In words, so that the verdict needs no colour.
_VERDICTS = {True: "yes", False: "no", None: "cannot be told"}


@dataclass(frozen=True, repr=False)
class Answer:
    """One question about a student and its teacher, answered by a measurement.

    Args:
        question: in words.
        good: True where all is well, False where something is wrong, None where it cannot be told.
        finding: one sentence with the measured numbers.
        advice: one sentence that says what to do next; empty where all is well.
    """

    question: str
    good: bool | None
    finding: str
    advice: str = ""

    @property
    def verdict(self) -> str:
        """`good` in words: "yes", "no" or "cannot be told"."""
        return _VERDICTS[self.good]

    def __repr__(self) -> str:
        lines = [f"{self.question} {self.verdict.capitalize()}.", f"   Measured: {self.finding}"]
        return "\n".join([*lines, f"   Do next: {self.advice}"] if self.advice else lines)


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """The answers to all questions, in the order in which to ask them.

    Args:
        answers: one for each question.
        standing: one sentence that says how student, baseline and teacher compare.
    """

    answers: tuple[Answer, ...]
    standing: str

    @property
    def first(self) -> Answer | None:
        """Where to start: the first answer that is no; where none is, the first that cannot be told; else None."""
        wrong = [answer for answer in self.answers if answer.good is False]
        untold = [answer for answer in self.answers if answer.good is None]
        return next(iter(wrong + untold), None)

    def __repr__(self) -> str:
        parts = [f"{number}. {answer!r}" for number, answer in enumerate(self.answers, 1)]
        return "\n".join([self.standing, *parts, self._start()])

    def _start(self) -> str:
        if self.first is None:
            return "Nothing is wrong that these questions see."
        return f"Start with question {self.answers.index(self.first) + 1}."

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{title}</th>" for title in ("", "Question", "Answer", "Measured", "Do next"))
        rows = "".join(self._row(number, answer) for number, answer in enumerate(self.answers, 1))
        return (
            f"<p>{html.escape(self.standing)}</p><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p><strong>{self._start()}</strong></p>"
        )

    def _row(self, number: int, answer: Answer) -> str:
        texts = [str(number), answer.question, answer.verdict, answer.finding, answer.advice]
        tag = "th" if answer is self.first else "td"
        cells = "".join(f'<{tag} style="text-align: left">{html.escape(text)}</{tag}>' for text in texts)
        return f"<tr>{cells}</tr>"


def percent(share: float) -> str:
    """0.934 as "93.4 %"."""
    return f"{100 * share:.1f} %"


def points(interval: Interval) -> str:
    """A difference of shares with its interval, such as "+1.2 points [+0.4, +2.0]"."""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in interval)  # + 0.0: no "-0.0"
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"
