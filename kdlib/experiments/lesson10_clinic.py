"""Lesson 10, the clinic: students of code as it was found and of the same code mended, beside a control where there
is one.

All cells of a case share images, weights, order and settings; only the line that is mended differs. A rate is chosen
for nothing: the question is what the mending does where it was found. Two cores take about half an hour.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas
import torch
from torch import Tensor, nn

from kdlib import datafree, metrics, models, teachers, training
from kdlib.clinic import loops, losses, schedules
from kdlib.data import ImageSplit
from kdlib.data.noise import with_wrong_labels
from kdlib.datafree import substitutes
from kdlib.experiments.choosing import SEEDS, fashion, measured
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment

IMAGES, EPOCHS, RATE, PLAIN_RATE = 1000, 20, 0.02, 0.003
SHORTER = {
    "mode": 4,
    "adversary": 4,
    "together": 4,
}  # a part of the epochs, where a large network answers in each step
FOUND, MENDED = "found", "mended"
LABELS = "labels"


class Run(NamedTuple):
    """What a case needs: the seed's images and student, and the sizes."""

    seed: int
    images: int
    epochs: int

    @property
    def split(self) -> ImageSplit:
        return fashion().train.take(self.images, seed=self.seed)

    def student(self) -> nn.Module:
        return models.build("tiny-cnn", seed=self.seed)

    def batches(self, epochs: int | None = None):
        return loops.batches(self.images, epochs or self.epochs, self.seed)


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), PLAIN_RATE)


def _teacher() -> nn.Module:
    """The course's teacher without the frame that keeps it in eval mode."""
    return copy.deepcopy(teachers.load("fashion-mnist").network)


def soft_targets(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return losses.reduction_mended(student_logits, teacher_logits, 4.0)


def on_test(student: nn.Module | Tensor, **more: float) -> dict[str, float]:
    """A student of numbers that are none answers with the first class, whatever it sees."""
    logits = student if isinstance(student, Tensor) else predict_logits(student, fashion().test)
    finite = bool(logits.isfinite().all())
    accuracy = metrics.accuracy(logits if finite else torch.zeros_like(logits), fashion().test)
    return {"accuracy": accuracy, "reported": accuracy, "finite": float(finite)} | more


# ------------------------------------------------------------------ losses


def by_loss(
    run: Run,
    loss: Callable,
    *,
    alpha: float = 0.9,
    temperature: float = 4.0,
    rate: float = RATE,
    answers=None,
):
    """A student by the library's loop; a loss that is not finite ends the training, and the student."""
    split, student = run.split, run.student()
    logits = predict_logits(teachers.load("fashion-mnist"), split)
    settings = {
        "alpha": alpha,
        "epochs": run.epochs,
        "learning_rate": rate,
        "seed": run.seed,
        "progress": False,
    }
    logits = logits if answers is None else answers(logits)
    try:
        training.distill(student, logits, split, loss=loss, temperature=temperature, **settings)
    except FloatingPointError:
        return on_test(torch.full((len(fashion().test), 10), torch.nan))
    return on_test(student)


def yes_or_no(logits: Tensor) -> Tensor:
    """The teacher's softmax as ten questions: the logit of each class against all others, from -30 to 30."""
    return torch.special.logit(logits.double().softmax(dim=1)).clamp(-30, 30).float()


def by_weights(run: Run, loss: Callable) -> dict[str, float]:
    """The loss weighs both terms itself, as its user asks: nine tenths for the teacher."""
    return by_loss(run, functools.partial(loss, alpha=0.9), alpha=1.0)


def by_yes_or_no(run: Run, loss: Callable, rate: float) -> dict[str, float]:
    return by_loss(run, loss, alpha=1.0, rate=rate, answers=yes_or_no)


def by_logarithm(run: Run, loss: Callable) -> dict[str, float]:
    """By a plain loop, which asks nobody whether a loss is a number."""
    student = run.student()
    loops.cache_mended(
        student, _teacher().eval(), run.split.normalized(), loss, _optimizer(student), run.batches()
    )
    return on_test(student.eval())


# ------------------------------------------------------------------ loops


def _glyphs(run: Run) -> Tensor:
    """Letters and signs of fonts, in place of garments."""
    return datafree.unlabelled(substitutes.glyphs(run.images, seed=run.seed), fashion()).normalized()


def by_loop(run: Run, loop: Callable, images: Callable[[Run], Tensor] | None = None) -> dict[str, float]:
    student, teacher = run.student(), _teacher()
    seen = run.split.normalized() if images is None else images(run)
    loop(student, teacher, seen, soft_targets, _optimizer(student), run.batches())
    student.eval()
    return on_test(student, teacher=metrics.accuracy(teacher.eval(), fashion().test.take(2000, seed=0)))


def by_labels(run: Run) -> dict[str, float]:
    student, split = run.student(), run.split
    images, optimizer = split.normalized(), _optimizer(student)
    for _, _, positions in run.batches():
        loops.step(
            optimizer, nn.functional.cross_entropy(student(images[positions]), split.labels[positions])
        )
    return on_test(student.eval())


def by_best_epoch(run: Run, loop: Callable) -> dict[str, float]:
    """Labels of which four in ten are wrong, three times as long, so that the last epoch is not the best."""
    student = run.student()
    noisy = with_wrong_labels(run.split, 0.4, seed=1000 + run.seed)
    images, optimizer, validation = (
        noisy.normalized(),
        _optimizer(student),
        fashion().validation.take(1000, seed=0),
    )
    of_epoch: dict[int, list[Tensor]] = {}
    for epoch, _, positions in run.batches(3 * run.epochs):
        of_epoch.setdefault(epoch, []).append(positions)

    def one_epoch(network: nn.Module, epoch: int) -> None:
        network.train()
        for positions in of_epoch[epoch]:
            loops.step(
                optimizer, nn.functional.cross_entropy(network(images[positions]), noisy.labels[positions])
            )
        network.eval()

    highest = loop(student, one_epoch, lambda network: metrics.accuracy(network, validation), len(of_epoch))
    return on_test(student, reported=highest)


def by_adversary(run: Run, loop: Callable | None, size: float = 0.1) -> dict[str, float]:
    """A student that sees glyphs of fonts, as they are or moved; None: moved at random."""
    glyphs, student, teacher = _glyphs(run), run.student(), _teacher().eval()
    optimizer, random = _optimizer(student), torch.Generator().manual_seed(run.seed)
    if loop is not None:
        loop(student, teacher, glyphs, soft_targets, optimizer, run.batches(), size)
        return on_test(student.eval())
    for _, _, positions in run.batches():
        moved = glyphs[positions]
        moved = moved + size * torch.randn(moved.shape, generator=random).sign()
        with torch.no_grad():
            answers = teacher(moved)
        loops.step(optimizer, soft_targets(student(moved), answers))
    return on_test(student.eval())


def by_report(run: Run, report: Callable) -> dict[str, float]:
    """What is printed, and what is so: accuracy on images that nothing has seen."""
    students: list[nn.Module] = []
    splits = {"train": run.split, "validation": fashion().validation.take(run.images, seed=run.seed)}

    def train(split: ImageSplit) -> nn.Module:
        students.append(run.student())
        settings = {"epochs": run.epochs, "learning_rate": RATE, "seed": run.seed, "progress": False}
        training.train(students[0], split, **settings)
        return students[0]

    reported = report(train, metrics.accuracy, splits)
    return on_test(students[0], reported=reported)


def by_both(run: Run) -> dict[str, float]:
    """A teacher with 1,000 outputs for colour images learns beside the student."""
    student, teacher = run.student(), models.build("resnet8", num_classes=1000, in_channels=3, seed=run.seed)
    optimizers = {"student": _optimizer(student), "teacher": _optimizer(teacher)}
    split = run.split
    loops.together_mended(student, teacher, split.normalized(), split.labels, optimizers, run.batches())
    return on_test(student.eval())


def by_squares(run: Run) -> dict[str, float]:
    """The same loss with the course's teacher, which has finished."""
    student, teacher, split = run.student(), _teacher().eval(), run.split
    images, optimizer = split.normalized(), _optimizer(student)
    with torch.no_grad():
        answers = teacher(images)
    for _, _, positions in run.batches():
        logits = student(images[positions])
        apart = ((logits - answers[positions]) ** 2).sum()
        loops.step(optimizer, nn.functional.cross_entropy(logits, split.labels[positions]) + 0.1 * apart)
    return on_test(student.eval())


def by_temperature(run: Run, decay: Callable[[int], float]) -> dict[str, float]:
    student = run.student()
    last = loops.learned_temperature(
        student, _teacher().eval(), run.split.normalized(), _optimizer(student), run.batches(), decay
    )
    return on_test(student.eval(), temperature=last)


# case -> arm -> what gives its row
CASES: dict[str, dict[str, Callable[[Run], dict[str, float]]]] = {
    "reduction": {
        FOUND: lambda run: by_loss(run, losses.reduction_as_found),
        MENDED: lambda run: by_loss(run, losses.reduction_mended),
        "found, its alpha corrected": lambda run: by_loss(run, losses.reduction_as_found, alpha=90 / 91),
    },
    "weights": {
        FOUND: lambda run: by_weights(run, losses.weights_as_found),
        MENDED: lambda run: by_weights(run, losses.weights_mended),
    },
    "clamp": {
        FOUND: lambda run: by_yes_or_no(run, losses.clamp_as_found, RATE),
        MENDED: lambda run: by_yes_or_no(run, losses.clamp_mended, RATE),
        "found, a higher rate": lambda run: by_yes_or_no(run, losses.clamp_as_found, 0.18),
        "mended, a higher rate": lambda run: by_yes_or_no(run, losses.clamp_mended, 0.18),
    },
    "logarithm": {
        FOUND: lambda run: by_logarithm(run, losses.logarithm_as_found),
        MENDED: lambda run: by_logarithm(run, losses.logarithm_mended),
    },
    "cache": {
        FOUND: lambda run: by_loop(run, loops.cache_as_found),
        MENDED: lambda run: by_loop(run, loops.cache_mended),
        LABELS: by_labels,
    },
    "mode": {
        FOUND: lambda run: by_loop(run, loops.mode_as_found),
        MENDED: lambda run: by_loop(run, loops.mode_mended),
        "found, images of another kind": lambda run: by_loop(run, loops.mode_as_found, _glyphs),
        "mended, images of another kind": lambda run: by_loop(run, loops.mode_mended, _glyphs),
    },
    "best": {
        FOUND: lambda run: by_best_epoch(run, loops.best_as_found),
        MENDED: lambda run: by_best_epoch(run, loops.best_mended),
    },
    "adversary": {
        FOUND: lambda run: by_adversary(run, loops.adversary_as_found),
        MENDED: lambda run: by_adversary(run, loops.adversary_mended),
        "moved at random": lambda run: by_adversary(run, None),
    },
    "training on validation": {
        FOUND: lambda run: by_report(run, loops.report_as_found),
        MENDED: lambda run: by_report(run, loops.report_mended),
    },
    "together": {
        MENDED: by_both,
        LABELS: by_labels,
        "the finished teacher, same loss": by_squares,
    },
    "false alarm": {
        "as it stands": lambda run: by_temperature(run, schedules.CosineDecay()),
        "after the change that it suggests": lambda run: by_temperature(
            run, schedules.CosineDecay(-1.0, 0.0)
        ),
        "a constant temperature": lambda run: by_temperature(run, lambda epoch: 0.0),
    },
}


def on_split(
    case: str, arm: str, seed: int, split: str, *, images: int = IMAGES, epochs: int = EPOCHS
) -> dict[str, float]:
    torch.set_num_threads(1)
    row = CASES[case][arm](Run(seed, images, max(1, epochs // SHORTER.get(case, 1))))
    return {
        name: row.get(name, -1.0) for name in ("accuracy", "reported", "finite", "teacher", "temperature")
    }


def _cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    pairs = [(case, arm) for case, arms in CASES.items() for arm in arms]
    return [
        {"case": case, "arm": arm, "seed": seed, "split": "test"} for seed in seeds for case, arm in pairs
    ]


@experiment("lesson10-clinic")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Students of the code as it was found and mended, on the test images; -1 stands where there is no such number."""
    return measured(functools.partial(on_split, **sizes), _cells(seeds))
