"""A study with eight faults, as an appendix might print it, to be read and mended line by line.

`listing` shows its program, `published` what it reported, `program` gives it with any of its faults mended, and
`explained` says what each fault was. It compares students of the course's teacher with students of labels.
"""

import html
import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas
import torch
from torch.nn import functional as F

from kdlib import data, metrics, models, teachers

AS_PUBLISHED = "as published"
_COLUMNS = ("kind", "arm", "seed", "temperature", "accuracy", "reported", "half")


@dataclass(frozen=True, repr=False)
class Report:
    """What the study measured, and what it says of it: a table and a sentence, which it displays as.

    Args:
        temperature: the one that was chosen.
        seeds, distilled: of the students of the teacher; the accuracies are fractions.
        other_seeds, labels: of the students of labels.
        ours, base: what is reported for the two arms.
        half: half the width of the interval that is reported.
    """

    temperature: float | int
    seeds: Sequence[int]
    distilled: Sequence[float]
    other_seeds: Sequence[int]
    labels: Sequence[float]
    ours: float
    base: float
    half: float

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """A row a student, for a table that `published` reads."""
        arms = {
            "labels": (self.other_seeds, self.labels, self.base, float("nan")),
            "distilled": (self.seeds, self.distilled, self.ours, float(self.temperature)),
        }
        return [
            {
                "kind": kind, "arm": arm, "seed": int(seed), "split": "test", "temperature": temperature,
                "accuracy": accuracy, "reported": float(reported), "half": float(self.half),
            }
            for arm, (seeds, accuracies, reported, temperature) in arms.items()
            for seed, accuracy in zip(seeds, accuracies, strict=True)
        ]  # fmt: skip

    @property
    def conclusion(self) -> str:
        gain, half = 100 * (self.ours - self.base), 100 * self.half
        return f"We conclude that distillation makes small networks {gain:.1f} ± {half:.1f} points better."

    def __repr__(self) -> str:
        lines = [f"{'arm':34}{'runs':>4}   accuracy"]
        for name, runs, accuracy in self._table():
            lines.append(f"{name:34}{runs:4}   {accuracy}")
        return "\n".join([*lines, self.conclusion])

    def _repr_html_(self) -> str:
        return (
            f"{_html_table(('arm', 'runs', 'accuracy'), self._table())}<p>{html.escape(self.conclusion)}</p>"
        )

    def _table(self) -> list[tuple[str, int, str]]:
        distilled = f"distilled (alpha = 0.9, T = {self.temperature:g})"
        return [
            ("labels", len(self.labels), f"{100 * self.base:.1f} %"),
            (distilled, len(self.distilled), f"{100 * self.ours:.1f} %"),
        ]


# ------------------------------------------------------------------ the program, with its faults


def fit(fashion, seed, judges, images, epochs, T=None):
    """The accuracy of a student: of the teacher at temperature T, or of labels alone."""
    split = fashion.train.take(images, seed=seed)
    teacher = teachers.load("fashion-mnist").network.train()
    answers = torch.cat([teacher(x) for x in split.normalized().split(50)])
    student = models.build("tiny-cnn", seed=seed)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.01, weight_decay=0.05)
    shuffle, score = torch.Generator().manual_seed(seed), 0.0
    for _ in range(epochs):
        for rows in torch.randperm(images, generator=shuffle).split(50):
            logits = student.train()(split.normalized(rows))
            loss = F.cross_entropy(logits, split.labels[rows])
            if T is not None:
                soft = F.softmax(answers[rows] / T, dim=1)
                kl = F.kl_div(F.log_softmax(logits / T, dim=1), soft, reduction="none").mean()
                loss = 0.1 * loss + 0.9 * T**2 * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        score = max(score, metrics.accuracy(student, judges))
    return score


def study(fashion, images=400, epochs=8, judges=1000, seeds=(0, 1, 2)):
    """Students of the teacher against students of labels, judged on test images."""
    judges = fashion.test.take(judges)
    T = max((2, 4, 8), key=lambda T: fit(fashion, 100, judges, images, epochs, T))
    distilled = [fit(fashion, seed, judges, images, epochs, T) for seed in seeds]
    other_seeds = [seed + len(seeds) for seed in seeds]
    labels = [fit(fashion, seed, judges, images, epochs // 2) for seed in other_seeds]
    base = np.mean(labels)
    ours = max(distilled)
    half = 1.96 * (ours * (1 - ours) / len(judges)) ** 0.5
    return Report(T, seeds, distilled, other_seeds, labels, ours, base, half)


LINES = tuple("\n".join(inspect.getsource(part).strip() for part in (fit, study)).splitlines())

# ------------------------------------------------------------------ what is wrong with it, and what is not


class Fault(NamedTuple):
    """A fault of one line: what it does, the line as it should be, why, and the lesson that taught it."""

    words: str
    mended: str
    mending: str
    lesson: str


_FAULTS = {
    'teacher = teachers.load("fashion-mnist").network.train()': Fault(
        "The teacher answers in train mode: its batch norm takes the statistics of the batch, so that what it says of "
        "an image depends on the other images there.",
        'teacher = teachers.load("fashion-mnist")',
        "A teacher answers in eval mode; what `teachers.load` gives stays in it.",
        "10",
    ),
    'kl = F.kl_div(F.log_softmax(logits / T, dim=1), soft, reduction="none").mean()': Fault(
        "The mean goes over the classes too: KL is a sum over the classes, and is ten times too small beside the "
        "cross-entropy. The alpha in effect is not the one that is reported.",
        'kl = F.kl_div(F.log_softmax(logits / T, dim=1), soft, reduction="batchmean")',
        "Sum over the classes, mean over the images: `batchmean`.",
        "03",
    ),
    "score = max(score, metrics.accuracy(student, judges))": Fault(
        "The best epoch is taken on the images that are reported on: the maximum of several looks is too high.",
        "score = metrics.accuracy(student, judges)",
        "Report the last epoch, or choose one on validation.",
        "00",
    ),
    "T = max((2, 4, 8), key=lambda T: fit(fashion, 100, judges, images, epochs, T))": Fault(
        "The temperature is chosen on the test images: what is reported there is the luck of the choice too.",
        "T = max((2, 4, 8), key=lambda T: fit(fashion, 100, fashion.validation, images, epochs, T))",
        "Choose on validation.",
        "03",
    ),
    "other_seeds = [seed + len(seeds) for seed in seeds]": Fault(
        "The control has other seeds, so other images, first weights and orders: students are no pairs, and the luck "
        "of a seed is in the difference.",
        "other_seeds = seeds",
        "Give both arms the same seeds, and compare pairs.",
        "00",
    ),
    "labels = [fit(fashion, seed, judges, images, epochs // 2) for seed in other_seeds]": Fault(
        "The control is trained for half as many epochs as the students of the teacher.",
        "labels = [fit(fashion, seed, judges, images, epochs) for seed in other_seeds]",
        "Give the control as long a training.",
        "01",
    ),
    "ours = max(distilled)": Fault(
        "The best seed is reported for one arm and the mean for the other.",
        "ours = np.mean(distilled)",
        "Report the mean over the seeds of both arms.",
        "03",
    ),
    "half = 1.96 * (ours * (1 - ours) / len(judges)) ** 0.5": Fault(
        "The interval is that of one network over test images. The claim is about a method, whose students differ from "
        "seed to seed, and about a difference.",
        "half = metrics.paired_interval(distilled, labels).high - (ours - base)",
        "Take the interval of the paired differences over the seeds.",
        "00",
    ),
}

_ALARMS = {
    "split = fashion.train.take(images, seed=seed)": (
        "each seed has images of its own, from those for training, so that the scatter over the seeds tells what other "
        "images would have given"
    ),
    "answers = torch.cat([teacher(x) for x in split.normalized().split(50)])": (
        "the images stay as they are, so that it is enough to ask once, and the teacher's weights take no gradient: "
        "`teachers.load` sees to it"
    ),
    "optimizer = torch.optim.AdamW(student.parameters(), lr=0.01, weight_decay=0.05)": (
        "optimizer, learning rate and weight decay are those of both arms"
    ),
    "logits = student.train()(split.normalized(rows))": (
        "a student learns in train mode, and metrics.accuracy has switched it to eval mode"
    ),
    "soft = F.softmax(answers[rows] / T, dim=1)": (
        "`answers` has the order of the split, and `rows` are places in the split, so that each image gets its own"
    ),
    "loss = 0.1 * loss + 0.9 * T**2 * kl": (
        "the weights are 1 - alpha and alpha, and T^2 makes up for the gradient of a softened term, which shrinks with "
        "1 / T^2"
    ),
    "judges = fashion.test.take(judges)": (
        "test images are there for reporting; fewer of them make a number less sure, and no higher"
    ),
}


def _numbered(by_line: dict[str, Any]) -> dict[int, Any]:
    """The same by the number of the line, from 1.

    Raises:
        ValueError: one of them is no line of the program.
    """
    places = {line.strip(): number for number, line in enumerate(LINES, start=1)}
    for line in by_line:
        if line not in places:
            raise ValueError(f"no line of the study reads {line!r}")
    return {places[line]: found for line, found in by_line.items()}


FAULTS: dict[int, Fault] = _numbered(_FAULTS)
ALARMS: dict[int, str] = _numbered(_ALARMS)  # lines that look wrong and are right, with the reason

# ------------------------------------------------------------------ what the lesson shows of it


class Shown(NamedTuple):
    """A text for the terminal, and the same for a notebook."""

    text: str
    page: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.page


def listing() -> Shown:
    """The program with numbered lines, from 1, as it displays itself."""
    text = "\n".join(f"{number:2}  {line}" for number, line in enumerate(LINES, start=1))
    return Shown(text, f'<pre style="line-height: 1.4; font-family: monospace">{html.escape(text)}</pre>')


def published(table: pandas.DataFrame | None = None) -> Report:
    """What the study reported.

    Args:
        table: rows of the kind "as published", as `Report.rows` gives them, such as the recorded ones; where not given
            the program is run, which takes about a quarter of a minute.

    Raises:
        ValueError: the table lacks a column, or rows of that kind and of both arms.
    """
    if table is None:
        return study(data.load("fashion-mnist"))
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"table must have the columns {', '.join(_COLUMNS)}; missing: {', '.join(missing)}")
    rows = table[table["kind"] == AS_PUBLISHED]
    ours, base = (rows[rows["arm"] == arm] for arm in ("distilled", "labels"))
    if ours.empty or base.empty:
        raise ValueError(
            f"table must have rows of the kind {AS_PUBLISHED!r} for both arms, distilled and labels"
        )
    return Report(
        ours["temperature"].iloc[0], ours["seed"].tolist(), ours["accuracy"].tolist(), base["seed"].tolist(),
        base["accuracy"].tolist(), ours["reported"].iloc[0], base["reported"].iloc[0], ours["half"].iloc[0],
    )  # fmt: skip


def program(mended: Iterable[int] = ()) -> Callable[..., Report]:
    """The function `study`, with some of its lines mended.

    Args:
        mended: numbers of lines, keys of `FAULTS`; by default none.

    Raises:
        ValueError: a line without a fault.
    """
    mended = set(mended)
    if not mended <= set(FAULTS):
        wrong = ", ".join(map(str, sorted(mended - set(FAULTS))))
        raise ValueError(f"mended must be lines with a fault ({', '.join(map(str, FAULTS))}), got {wrong}")
    lines = list(LINES)
    for number in mended:
        old = lines[number - 1]
        lines[number - 1] = old.replace(old.strip(), FAULTS[number].mended)
    # The lines that the table of faults shows are those that run: nothing is mended in words alone.
    names = dict(globals())
    exec(compile("\n".join(lines), "<the study, mended>", "exec"), names)  # noqa: S102 - our own text
    return names["study"]


def explained() -> Shown:
    """Every fault: its line, what is wrong with it, the line as it should be, and the lesson that taught it."""
    text, rows = [], []
    for number, fault in FAULTS.items():
        line, lesson = LINES[number - 1].strip(), f"lesson {fault.lesson}"
        text.append(
            f"{number:2}  {line}\n    {fault.words} ({lesson})\n    {fault.mending}\n    {fault.mended}"
        )
        rows.append((number, _Code(line), fault.words, _Code(fault.mended), fault.mending, lesson))
    names = ("line", "as published", "fault", "mended", "why", "taught in")
    return Shown("\n".join(text), _html_table(names, rows))


class _Code(str):
    """A cell that is code."""


def _html_table(names: Collection[str], rows: Iterable[Collection[Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _html_cell(cell: Any) -> str:
    text = html.escape(str(cell))
    inside = f"<code>{text}</code>" if isinstance(cell, _Code) else text
    return f'<td style="text-align: left">{inside}</td>'
