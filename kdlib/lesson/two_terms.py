"""The two terms of the loss of one image as a still picture: what `LossHero` shows where no browser draws it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.text import Text
from matplotlib.ticker import NullLocator, PercentFormatter
from torch import Tensor

from kdlib import losses
from kdlib.lesson import figures
from kdlib.lesson.canvas import Update

_POINTS = 81  # of the curve over T
_LABEL, _TEACHER, _STUDENT = (figures.COLOURS[role] for role in ("label", "teacher", "student"))


def draw(
    figure: FigureBase,
    *,
    pictures: Sequence[np.ndarray],
    names: Sequence[str],
    student_logits: Float[Tensor, "images classes"],
    teacher_logits: Float[Tensor, "images classes"],
    labels: Int[Tensor, "images"],
    classes: Sequence[str],
    temperatures: tuple[float, float],
) -> Update:
    """Lay the figure out: the image, both softened predictions, and the terms of the loss over the temperature.

    Returns:
        `update(image, temperature, alpha)`, `image` being one of `names`.
    """
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 2.2, 2.3])
    left.set_axis_off()
    shown = left.imshow(pictures[0], cmap="gray", vmin=0, vmax=255)
    show_bars = _probability_bars(middle, classes)
    show_terms = _terms(right, np.geomspace(*temperatures, _POINTS))

    def update(*, image: str, temperature: float | int, alpha: float | int):
        row = _row(image, names)
        student, teacher, label = student_logits[[row]], teacher_logits[[row]], labels[[row]]
        shown.set_data(pictures[row])
        left.set_title(f"label:\n{classes[label]}")
        bars = show_bars(teacher[0] / temperature, student[0] / temperature, int(label))
        return [shown, bars, show_terms(student, teacher, label, temperature, alpha)]

    return update


def _row(image: str, names: Sequence[str]) -> int:
    if names.count(image) != 1:
        raise ValueError(f"image={image!r} is the name of {names.count(image)} images; the names are {names}")
    return names.index(image)


def _probability_bars(axes: Axes, classes: Sequence[str]):
    """Bars of the teacher's and the student's probability of each class, side by side, and the label."""
    places, height = np.arange(len(classes)), 0.4
    teacher = axes.barh(places - height / 2, 0, height, color=_TEACHER, label="teacher p")
    student = axes.barh(places + height / 2, 0, height, color=_STUDENT, label="student q")
    (diamond,) = axes.plot([], [], "D", color=_LABEL, label="label", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(len(classes) - 0.4, -0.6), xlabel="softmax(z / T)")
    axes.set_yticks(places, classes)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(
        handles=[teacher, student, diamond], loc="lower left", bbox_to_anchor=(-0.15, 1), ncols=3,
        columnspacing=1, handlelength=1,
    )  # fmt: skip
    numbers = [_column_of_numbers(axes, x, letter, len(classes)) for x, letter in ((1.22, "p"), (1.42, "q"))]

    def show(teacher_scaled: Tensor, student_scaled: Tensor, label: int):
        scaled = (teacher_scaled, student_scaled)
        for bars, column, logits in zip((teacher, student), numbers, scaled, strict=True):
            for bar, number, share in zip(bars, column, logits.softmax(dim=0).tolist(), strict=True):
                bar.set_width(share)
                number.set_text(f"{100 * share:.1f} %")
        diamond.set_data([1], [label])
        return [*teacher, *student, *numbers, diamond]

    return show


def _column_of_numbers(axes: Axes, x: float, heading: str, rows: int) -> list[Text]:
    """Texts to the right of the bars, one a class, below a heading."""
    axes.text(x, 1.03, heading, transform=axes.get_xaxis_transform(), ha="right", fontweight="bold")
    return [axes.text(x, row, "", ha="right", va="center", fontsize=10) for row in range(rows)]


def _terms(axes: Axes, temperatures: np.ndarray):
    """The terms over T as areas that stand on each other, a bar at the chosen T, the terms in numbers."""
    task_area = axes.fill_between(temperatures, 0, 0, color=_LABEL, alpha=0.3, linewidth=0)
    distill_area = axes.fill_between(temperatures, 0, 0, color=_TEACHER, alpha=0.3, linewidth=0)
    bars = [axes.plot([], [], color=c, linewidth=12, solid_capstyle="butt")[0] for c in (_LABEL, _TEACHER)]
    (top,) = axes.plot([], [], "_", color="black", markersize=20, markeredgewidth=2.5)
    axes.set(xscale="log", xlim=temperatures[[0, -1]], xlabel="temperature T", ylabel="loss (nats)")
    ticks = [tick for tick in 2.0 ** np.arange(-2, 7) if temperatures[0] <= tick <= temperatures[-1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    words = axes.legend(
        [*bars, top], ["", "", ""], loc="lower left", bbox_to_anchor=(-0.15, 1), handlelength=1
    )

    def show(student, teacher, label, temperature, alpha):
        curve = np.array([float(losses.soft_target_loss(student, teacher, T)) for T in temperatures])
        terms = losses.distillation_loss(student, teacher, label, temperature=temperature, alpha=alpha)
        total, task, distill = (float(term) for term in terms)
        floor = (1 - alpha) * task
        task_area.set_data(temperatures, 0, floor)
        distill_area.set_data(temperatures, floor, floor + alpha * curve)
        bars[0].set_data([temperature] * 2, [0, floor])
        bars[1].set_data([temperature] * 2, [floor, total])
        top.set_data([temperature], [total])
        # The loss lies between its unweighted terms: no temperature and no alpha leaves this scale.
        axes.set_ylim(0, max(*curve, task))
        for text, line in zip(words.get_texts(), _in_numbers(terms, temperature, alpha), strict=True):
            text.set_text(line)
        return [task_area, distill_area, *bars, top, words]

    return show


def _in_numbers(terms: losses.LossTerms, temperature: float | int, alpha: float | int) -> list[str]:
    total, task, distill = (float(term) for term in terms)
    return [
        f"(1 − α) · CE(label), T = 1: {1 - alpha:.2f} × {task:.2f} = {(1 - alpha) * task:.2f}",
        f"α · T² · KL(p ‖ q): {alpha:.2f} × {temperature:g}² × {distill / temperature**2:#.3g}"
        f" = {alpha * distill:.2f}",
        f"loss = {total:.2f}",
    ]
