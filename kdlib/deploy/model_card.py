"""A model card: what a model file is, what was measured on it, what it is for and what it is not for.

The form follows Mitchell et al. 2019, "Model Cards for Model Reporting", arXiv 1810.03993. Every number in the card
comes from the file itself or from a measurement that is handed over; the texts are the author's.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from typing import Any

from kdlib.deploy import arguments, runtime
from kdlib.deploy.description import Description


@dataclass(frozen=True)
class Measure:
    """One measured number of a model, a row in the card's table.

    Args:
        name: what was measured, such as "accuracy on 10,000 test images".
        value: the number, in `unit`.
        unit: "%", "ms", "bytes"; nothing for a plain count.
        low, high: the ends of its interval; None where there is none, as for a number of bytes.
        interval: what kind of interval that is, such as "95 %, five seeds" or "quartiles of 50 rounds".
        how: under which conditions, such as `Latencies.conditions()`.

    Raises:
        ValueError: numbers that are not finite, an interval with one end, one that does not contain the value, or
            one of which nothing says what it is.
        TypeError: texts that are none, numbers that are none.
    """

    name: str
    value: Real
    unit: str = ""
    low: Real | None = None
    high: Real | None = None
    interval: str = ""
    how: str = ""

    def __post_init__(self) -> None:
        for argument in ("name", "unit", "interval", "how"):
            arguments.text(argument, getattr(self, argument))
        if not self.name.strip():
            raise ValueError(f"name={self.name!r} is empty; say what was measured")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.name}: low and high belong together, got {self.low} and {self.high}")
        numbers = [self.value] if self.low is None else [self.low, self.value, self.high]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, Real):
                raise TypeError(f"{self.name}: value, low and high must be numbers, got {number!r}")
        if any(number != number or abs(number) == math.inf for number in numbers):
            raise ValueError(f"{self.name}: value, low and high must be finite, got {numbers}")
        if numbers != sorted(numbers):
            raise ValueError(
                f"{self.name}: low <= value <= high must hold, got {' <= '.join(map(str, numbers))}"
            )
        if (self.low is None) != (not self.interval.strip()):
            raise ValueError(
                f"{self.name}: low and high need `interval`, which says what they are, and the other way round; "
                f"got {self.low}, {self.high} and {self.interval!r}"
            )


def model_card(
    path: str | PathLike,
    measures: Sequence[Measure],
    *,
    summary: str,
    intended_use: Sequence[str],
    limits: Sequence[str],
    training_data: str,
    data_licence: str,
    evaluation_data: str,
    teacher: str | None,
    command: str,
    versions: Mapping[str, str],
) -> str:
    """The card of an exported ONNX model, as Markdown.

    Name, classes and input come from the description inside the file; its size and sha256 from its bytes, so a
    card cannot be passed off as that of another file. Where the texts contain characters that mean something in
    Markdown or HTML, these are shown as they are.

    Args:
        path: a file written by `kdlib.deploy.export.export_onnx`.
        measures: at least one; measured on this file.
        summary: a sentence on what the model does.
        intended_use: what it was made for, one entry a point.
        limits: what it was not made for, where it fails, who may be harmed; one entry a point.
        training_data: which images, how many, which of their labels were used.
        data_licence: of the training data, with its holder.
        evaluation_data: on what accuracy was measured, and whether anything was chosen by it.
        teacher: whose outputs the model was trained on; None for labels alone.
        command: what makes the file again.
        versions: program -> version.

    Returns:
        The text; write it with `Path(...).write_text(card, encoding="utf-8")`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX file or does not describe itself; an empty text or list: a card with gaps.
        TypeError: a text, a list of texts or a measure that is none.
    """
    path = arguments.file_to_read("path", path)
    texts = {"summary": summary, "training_data": training_data, "data_licence": data_licence,
             "evaluation_data": evaluation_data, "command": command}  # fmt: skip
    intended_use = arguments.texts("intended_use", intended_use)
    limits = arguments.texts("limits", limits)
    lists = {"intended_use": intended_use, "limits": limits}
    _check_kinds(texts | ({} if teacher is None else {"teacher": teacher}), measures, versions)
    for name, value in (texts | lists | {"measures": measures, "versions": versions}).items():
        if not (value.strip() if isinstance(value, str) else value):
            raise ValueError(f"{name} is empty: a model card without it would hide what a reader looks for")
    content = path.read_bytes()
    described = _description(content, path.name)
    details = {
        "File": f"{_code(path.name)}, {len(content):,} bytes",
        "SHA-256": _code(hashlib.sha256(content).hexdigest()),
        "Input": _input(described),
        "Output": f"a logit for each of {len(described.classes)} classes: {', '.join(map(_text, described.classes))}",
        "Teacher": "none; trained on labels alone" if teacher is None else _text(teacher),
    }
    data = {"Training": training_data, "Licence": data_licence, "Evaluation": evaluation_data}
    parts = [
        f"# Model card: {_text(described.name)}",
        _text(summary),
        "## Model details",
        _points(f"**{name}:** {value}" for name, value in details.items()),
        "## Intended use",
        _points(map(_text, intended_use)),
        "## Limits",
        _points(map(_text, limits)),
        "## Measurements",
        _table(measures),
        "## Data",
        _points(f"**{name}:** {_text(value)}" for name, value in data.items()),
        "## How it was made",
        _block(command),
        _points(_text(f"{program} {version}") for program, version in versions.items()),
        "Form of this card: Mitchell et al. 2019, [arXiv 1810.03993](https://arxiv.org/abs/1810.03993).",
    ]
    return "\n\n".join(parts) + "\n"


def _check_kinds(texts: dict, measures: Any, versions: Any) -> None:
    for name, value in texts.items():
        arguments.text(name, value)
    if not isinstance(measures, Sequence) or not all(isinstance(measure, Measure) for measure in measures):
        raise TypeError(f"measures must be a list of Measure, got {measures!r}")
    if not isinstance(versions, Mapping):
        raise TypeError(
            f"versions must name a version for each program, as in {{'torch': '2.6'}}, got {versions!r}"
        )
    arguments.texts("versions", [text for pair in versions.items() for text in pair])


def _description(content: bytes, file: str) -> Description:
    try:
        metadata = runtime.session(content).get_modelmeta().custom_metadata_map
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return Description.from_metadata(metadata, file)


def _input(described: Description) -> str:
    low, high = described.value_range
    colour = "grey" if described.channels == 1 else "RGB"
    mean, std = (
        ", ".join(f"{number:.4g}" for number in values) for values in (described.mean, described.std)
    )
    return (
        f"{colour} images of {described.height} x {described.width} pixels (height x width), values from {low:g} to "
        f"{high:g}, less the mean {mean}, divided by the standard deviation {std}"
    )


def _table(measures: Sequence[Measure]) -> str:
    rows = [["Measure", "Value", "Interval", "Conditions"], ["---", "---:", "---", "---"]]
    for measure in measures:
        unit = f" {_text(measure.unit)}" if measure.unit else ""
        value = f"{_number(measure.value, measure)}{unit}"
        interval = "none given"
        if measure.low is not None:
            ends = " to ".join(_number(end, measure) for end in (measure.low, measure.high))
            interval = f"{ends}{unit} ({_text(measure.interval)})"
        rows.append([_text(measure.name), value, interval, _text(measure.how)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: Real, measure: Measure) -> str:
    """Whole numbers in full; others with as many decimals as give the interval's width two digits, or with four
    digits where there is no interval."""
    if isinstance(value, Integral):
        return f"{int(value):,}"
    exact = measure.low is None or measure.low == measure.high
    value = float(value)
    size, digits = (abs(measure.value), 4) if exact else (measure.high - measure.low, 2)
    decimals = digits - 1 - math.floor(math.log10(size)) if size else 0
    return f"{value:,.{max(0, decimals)}f}"


def _text(text: str) -> str:
    """Text on one line in which nothing is taken for Markdown, HTML or a formula."""
    line = " ".join(text.split())
    line = re.sub(r"([\\`*_\[\]<>&|~#$])", r"\\\1", line)
    return re.sub(r"^(\d*)([-+.)])(?=\s|-|$)", r"\1\\\2", line)  # "- a" and "1. a" would begin a list


def _code(text: str) -> str:
    """A code span: shown letter by letter."""
    line = " ".join(text.split())
    fence = "`" * (1 + _longest_run(line))
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def _block(text: str) -> str:
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}sh\n{text.strip()}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _points(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
