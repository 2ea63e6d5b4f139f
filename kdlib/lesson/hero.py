"""Figures drawn in the browser itself: real logits go in, the mathematics of `static/maths.js` moves them."""

import base64
import io
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib.figure import FigureBase
from PIL import Image

from kdlib.lesson import browser, figures, two_terms
from kdlib.lesson.canvas import Update


class _Hero(anywidget.AnyWidget):
    _css = browser.stylesheet()
    _moved = "temperature"
    images = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    labels = traitlets.List(traitlets.Int()).tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    selected = traitlets.Int(0).tag(sync=True)
    temperature = traitlets.Float().tag(sync=True)
    minimum = traitlets.Float().tag(sync=True)
    maximum = traitlets.Float().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __repr__(self) -> str:
        return f"{figures.INTERACTIVE} to move {self._moved} and to pick an image."


class TemperatureHero(_Hero):
    """See `temperature_hero`."""

    _esm = browser.script("maths.js", "page.js", "hero.js", "temperature.js")
    logits = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)


class _TeacherAndStudent(_Hero):
    _moved = "temperature, alpha"
    student_logits = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
    teacher_logits = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
    alpha = traitlets.Float().tag(sync=True)


class LossHero(_TeacherAndStudent):
    """See `temperature_hero`. `draw` makes its static twin: `twin(hero.draw, settings, caption=...)`."""

    _esm = browser.script("maths.js", "page.js", "hero.js", "loss.js")

    def draw(self, figure: FigureBase) -> Update:
        """Lay the picture out; the returned `update` takes the name of the image, the temperature and alpha."""
        return two_terms.draw(
            figure,
            pictures=[_pixels(source) for source in self.images],
            names=self.names,
            student_logits=torch.tensor(self.student_logits, dtype=torch.float64),
            teacher_logits=torch.tensor(self.teacher_logits, dtype=torch.float64),
            labels=torch.tensor(self.labels),
            classes=self.classes,
            temperatures=(self.minimum, self.maximum),
        )


class GradientHero(_TeacherAndStudent):
    """See `gradient_hero`."""

    _esm = browser.script("maths.js", "page.js", "hero.js", "gradient.js")


def temperature_hero(
    images: Any,
    logits: Any,
    labels: Any,
    classes: Any,
    *,
    caption: str,
    temperature: float | int = 4.0,
    temperatures: tuple[float | int, float | int] = (0.5, 20.0),
    student_logits: Any = None,
    alpha: float | int | None = None,
    names: Any = None,
) -> TemperatureHero | LossHero:
    """What the temperature does to one prediction, or, with a student beside the teacher, to the loss.

    Without a student: logits, softmax(z / T), the label, and the entropy over T. With a student: the softened
    probabilities p of the teacher and q of the student, and the two terms of `losses.distillation_loss`,
    (1 - alpha) * CE(label) at T = 1 and alpha * T^2 * KL(p || q), over T. Their scale is fixed for an image by
    the largest loss within the ranges of the sliders. The browser draws either without the kernel.

    Args:
        images: array or tensor of uint8, (n, height, width) or (n, channels, height, width).
        logits: array or tensor (n, classes): the teacher's, where there is a student.
        labels: array or tensor (n,).
        classes: the names of the classes.
        caption: what there is to see.
        temperature: where its slider stands at first.
        temperatures: the ends of the slider of T.
        student_logits: array or tensor (n, classes), best of a student that is half trained.
        alpha: where the slider of the teacher's weight stands at first; given with student_logits.
        names: what the picker calls each image; by default the name of its class.

    Raises:
        ValueError: shapes that do not fit each other, a label that is no class, logits that are not finite,
            a temperature outside its range, alpha outside [0, 1], one of student_logits and alpha alone.
    """
    if (student_logits is None) != (alpha is None):
        given, lacking = (
            ("alpha", "student_logits") if student_logits is None else ("student_logits", "alpha")
        )
        raise ValueError(
            f"{given} is given without {lacking}: the loss needs both, and without a student neither"
        )
    common = _common(images, labels, classes, names, caption, temperature, temperatures)
    teacher = _checked_logits("logits", logits, common)
    if student_logits is None:
        return TemperatureHero(logits=teacher, **common)
    student = _checked_logits("student_logits", student_logits, common)
    return LossHero(student_logits=student, teacher_logits=teacher, alpha=_checked_alpha(alpha), **common)


def gradient_hero(
    images: Any,
    student_logits: Any,
    teacher_logits: Any,
    labels: Any,
    classes: Any,
    *,
    caption: str,
    temperature: float | int = 4.0,
    alpha: float | int = 0.5,
    temperatures: tuple[float | int, float | int] = (0.5, 20.0),
    names: Any = None,
) -> GradientHero:
    """How the label and the teacher push the student's logits z, and what their mix does as alpha moves.

    task = softmax(z) - onehot(label); distill = T (softmax(z / T) - softmax(z_teacher / T)), which is the
    gradient of T^2 KL; mix = alpha * distill + (1 - alpha) * task. Bars show the push (minus the gradient) on
    each logit, arrows the three vectors in their common plane, with their norms.

    Args:
        images: this and what is not named here as for `temperature_hero`.
        student_logits: array or tensor (n, classes).
        teacher_logits: array or tensor (n, classes).

    Raises:
        ValueError: as for `temperature_hero`.
    """
    common = _common(images, labels, classes, names, caption, temperature, temperatures)
    return GradientHero(
        alpha=_checked_alpha(alpha),
        student_logits=_checked_logits("student_logits", student_logits, common),
        teacher_logits=_checked_logits("teacher_logits", teacher_logits, common),
        **common,
    )


def _common(images, labels, classes, names, caption, temperature, temperatures) -> dict[str, Any]:
    low, high = temperatures
    if not 0 < low < high:
        raise ValueError(f"temperatures={temperatures!r} must be a range (low, high) with 0 < low < high")
    if not low <= temperature <= high:
        raise ValueError(f"temperature={temperature!r} lies outside temperatures={temperatures!r}")
    sources = [_data_uri(image) for image in np.asarray(images)]
    labels = [int(label) for label in labels]
    classes = [str(name) for name in classes]
    if not sources or len(labels) != len(sources):
        raise ValueError(
            f"{len(sources)} images and {len(labels)} labels: give one label per image, at least 1"
        )
    for label in labels:
        if not 0 <= label < len(classes):
            raise ValueError(
                f"label {label} is not one of the {len(classes)} classes (0 to {len(classes) - 1})"
            )
    names = [classes[label] for label in labels] if names is None else [str(name) for name in names]
    if len(names) != len(sources):
        raise ValueError(f"{len(names)} names for {len(sources)} images: give one name per image")
    return {
        "images": sources,
        "labels": labels,
        "classes": classes,
        "names": names,
        "caption": figures.checked_caption(caption),
        "temperature": float(temperature),
        "minimum": float(low),
        "maximum": float(high),
    }


def _checked_alpha(alpha: float | int) -> float:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha!r} must lie in [0, 1]")
    return float(alpha)


def _checked_logits(argument: str, logits: Any, common: dict[str, Any]) -> list[list[float]]:
    table = np.asarray(logits, dtype=np.float64)
    expected = (len(common["images"]), len(common["classes"]))
    if table.shape != expected:
        raise ValueError(f"{argument} has shape {table.shape}, but (images, classes) is {expected}")
    if not np.isfinite(table).all():
        raise ValueError(f"{argument} must be finite; it holds NaN or infinity")
    return table.tolist()


def _data_uri(image: np.ndarray) -> str:
    """The image as a PNG that a page can hold: uint8 (height, width) or (1 or 3 channels, height, width)."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and len(image) not in (1, 3)):
        raise ValueError(
            f"each image must be uint8 of shape (height, width) or (1 or 3, height, width), "
            f"not {image.dtype} of shape {image.shape}"
        )
    pixels = image if image.ndim == 2 else image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _pixels(source: str) -> np.ndarray:
    """The pixels of a PNG that a page holds."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
