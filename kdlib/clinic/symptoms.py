"""What is seen first of each defect: a few numbers, computed by running the code in question for a moment.

Each function takes the code, as it was found or mended, and returns a sentence. None of them needs an image.
"""

import copy
import math
from collections.abc import Callable
from itertools import repeat

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.clinic import loops

_IMAGES, _CLASSES = 32, 10


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _answers(size: float = 3.0, images: int = _IMAGES, seed: int = 0) -> Tensor:
    return size * torch.randn(images, _CLASSES, generator=_random(seed))


def of_reduction(loss: Callable) -> str:
    start = torch.zeros(_IMAGES, _CLASSES, requires_grad=True)
    labels = _answers().argmax(dim=1)
    (soft,) = torch.autograd.grad(loss(start, _answers(), 4.0), start)
    (hard,) = torch.autograd.grad(F.cross_entropy(start, labels), start)
    return (
        f"With alpha = 0.9 the teacher gives {0.9 * soft.norm() / (0.9 * soft.norm() + 0.1 * hard.norm()):.0%} of the "
        "gradient's length at the first step."
    )


def of_weights(loss: Callable) -> str:
    teacher_logits = _answers()
    labels = (teacher_logits.argmax(dim=1) + 1) % _CLASSES
    value = loss(teacher_logits, teacher_logits, labels, 4.0, alpha=0.9)
    return (
        "A student that repeats its teacher's logits, where all labels differ: cross-entropy "
        f"{F.cross_entropy(teacher_logits, labels):.2f}, loss at alpha = 0.9 {value:.2f}."
    )


def of_sigmoids(loss: Callable) -> str:
    teacher_logits = torch.tensor([[2.0, -1.0, 0.5]])
    student_logits = torch.zeros(1, 3, requires_grad=True)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(loss(student_logits, teacher_logits), student_logits)
        student_logits = (student_logits - gradient).detach().requires_grad_()
    said = {"teacher": teacher_logits, "student": student_logits.detach()}
    words = [f"{who} {' / '.join(f'{one:.2f}' for one in row.sigmoid()[0])}" for who, row in said.items()]
    return f"Three classes after 300 steps: {', '.join(words)}."


def of_clamp(loss: Callable) -> str:
    def at(place: float) -> tuple[Tensor, Tensor]:
        student_logits = torch.full((1, 1), place, requires_grad=True)
        value = loss(student_logits, torch.zeros(1, 1))
        return value.detach(), torch.autograd.grad(value, student_logits)[0]

    return (
        f"The teacher says one half. Student's logit 20: loss {at(20.0)[0]:.1f}; logit -25: gradient "
        f"{at(-25.0)[1].item():.1f}."
    )


def of_logarithm(loss: Callable) -> str:
    teacher_logits = torch.tensor([[20.0, 0.0, 1.0]])
    return (
        f"A teacher that is sure of one of three classes: loss {loss(torch.zeros(1, 3), teacher_logits):.2f}."
    )


class _Linear(nn.Module):
    """A linear layer: images of one number each to logits."""

    def __init__(self, classes: int = 1):
        super().__init__()
        self.layer = nn.Linear(1, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


def of_cache(loop: Callable) -> str:
    """Images are their own numbers, the teacher answers with that number, and the loss compares which is which."""
    images, met = torch.arange(96.0)[:, None], []

    def teacher(seen: Tensor) -> Tensor:
        return seen

    student = _Linear()

    def loss(student_logits: Tensor, answers: Tensor) -> Tensor:
        met.append((answers == batch[-1]).float().mean().item())
        return student_logits.mean()

    batch: list[Tensor] = []

    def seen_batches():
        for epoch, number, positions in loops.batches(len(images), 3, seed=0):
            batch.append(images[positions])
            yield epoch, number, positions

    loop(student, teacher, images, loss, torch.optim.SGD(student.parameters(), 0.0), seen_batches())
    epochs = [sum(met[start : start + 3]) / 3 for start in (0, 3, 6)]
    shares = ", ".join(f"{share:.0%}" for share in epochs)
    return f"Stored answers that belong to the image beside them, in epochs 1, 2 and 3: {shares}."


def of_mode(loop: Callable) -> str:
    teacher = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
    before = copy.deepcopy(teacher).eval()
    images = 5 + torch.randn(320, 1, generator=_random())
    student = _Linear(2)
    loop(
        student, teacher, images, F.mse_loss, torch.optim.SGD(student.parameters(), 0.01),
        loops.batches(len(images), 1, seed=0),
    )  # fmt: skip
    moved = teacher[0].running_mean.item()
    change = (teacher.eval()(images) - before(images)).abs().max()
    return (
        f"One pass over images of mean 5: the teacher's running mean is {moved:.2f}, its answers moved by up to "
        f"{change:.2f}."
    )


def of_best(loop: Callable) -> str:
    """The weight is the number of the epoch, and the first epoch is the best."""
    student = nn.Linear(1, 1, bias=False)

    def one_epoch(network: nn.Module, epoch: int) -> None:
        nn.init.constant_(network.weight, float(epoch + 1))

    reported = loop(student, one_epoch, lambda network: 1 / network.weight.item(), 5)
    epoch = student.weight.item()
    return f"Best of five epochs: reported {reported:.2f}; the weights that come back are those of epoch {epoch:.0f}."


def of_adversary(loop: Callable) -> str:
    met: list[Tensor] = []

    def loss(student_logits: Tensor, answers: Tensor) -> Tensor:
        return F.mse_loss(student_logits, answers)

    class Watched(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            met.append(images.detach())
            return super().forward(images.flatten(1))

    images = torch.randn(_IMAGES, 1, 2, 2, generator=_random(1))
    student, teacher = Watched(4, 3), Watched(4, 3)
    for number, network in enumerate((student, teacher)):
        nn.init.normal_(network.weight, generator=_random(number))
        nn.init.zeros_(network.bias)
    loop(
        student,
        teacher,
        images,
        loss,
        torch.optim.SGD(student.parameters(), 0.0),
        repeat((0, 0, torch.arange(_IMAGES)), 1),
        0.1,
    )
    moved = (met[-1] - images).abs().max()
    return f"The images are to move by 0.1 to where student and teacher disagree: they move by {moved:.2f}."


def of_report(report: Callable) -> str:
    """A student that learns by heart what it is given, and guesses the rest."""
    labels = [number % _CLASSES for number in range(1000)]
    splits = {"train": set(range(500)), "validation": set(range(500, 1000))}

    def accuracy(known: set[int], split: set[int]) -> float:
        return sum(one in known or labels[one] == 0 for one in split) / len(split)

    reported = float(report(set, accuracy, splits))
    return f"A student that learns images by heart and guesses all others: reported {reported:.0%}."


def of_schedule(schedule: Callable) -> str:
    try:
        values = [schedule(10.0, 1.0, 100)(epoch) for epoch in (0, 50, 100)]
    except AttributeError as problem:
        return f"At the first step: AttributeError: {str(problem).replace('AsFound', '')}."
    return f"Temperatures in epochs 0, 50, 100: {', '.join(f'{value:g}' for value in values)}."


def of_together(loop: Callable) -> str:
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(1000))
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, _CLASSES))
    teacher(torch.zeros(1, 3, 8, 8))
    images, labels = torch.randn(20, 1, 8, 8, generator=_random()), torch.arange(20) % _CLASSES
    optimizers = {
        name: torch.optim.SGD(one.parameters(), 1e-4)
        for name, one in (("student", student), ("teacher", teacher))
    }
    try:
        loop(student, teacher, images, labels, optimizers, loops.batches(20, 1, seed=0))
    except RuntimeError as problem:
        return f"At the first step: {str(problem).splitlines()[0][:150]}"
    finite = all(one.isfinite().all() for one in student.parameters())
    return f"One pass is done; the student's weights are {'' if finite else 'not '}finite."


def of_decay(schedule: Callable) -> str:
    values = [schedule()(epoch) for epoch in (0, 5, 10)]
    said = ", ".join(f"{_zero(value):.2f}" for value in values)
    return f'The report: "it runs from -1 to 0". In epochs 0, 5 and 10: {said}.'


def _zero(value: float) -> float:
    return 0.0 if math.isclose(value, 0.0, abs_tol=1e-9) else value
