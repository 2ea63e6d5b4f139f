"""Which answer the student gives at the minimum, in words."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.loss_doctor.likeness import SIGMOIDS, SOFTMAX
from kdlib.loss_doctor.patient import ONE_LABEL, Patient, Question

# Two answers are the same where no row differs by more: for softmaxes in the sum of what one has more than the other,
# for sigmoids in any class. Saturated answers are approached without end, so that less would ask for many more steps.
SAME = 0.02
# Rows whose correlation is at least this, are called an affine map of each other.
_STRAIGHT = 0.999


class Reading:
    """The teacher's answers at one temperature, and what a student's logits say about them.

    Args:
        asked: with the teacher's logits and the labels.
        patient: the loss, for the kind of its labels and its classes.
        kind: how a row is read, SOFTMAX or SIGMOIDS.
        temperature: at which the answers are compared.
    """

    def __init__(self, asked: Question, patient: Patient, kind: str, temperature: float):
        self.teacher = asked.teacher.to(torch.float64)
        self.kind, self.temperature, self.patient = kind, temperature, patient
        self.p = self.read(self.teacher)
        self.asked = asked

    def read(self, logits: Tensor) -> Tensor:
        """Softmax or sigmoids at the temperature."""
        logits = logits.to(torch.float64) / self.temperature
        return logits.softmax(dim=1) if self.kind == SOFTMAX else logits.sigmoid()

    def differ(self, first: Tensor, second: Tensor) -> float:
        """The largest difference of two answers over the rows."""
        gaps = (first - second).abs()
        return (gaps.sum(dim=1) / 2 if self.kind == SOFTMAX else gaps.amax(dim=1)).max().item()

    def is_teacher(self, student: Tensor) -> bool:
        return self.differ(self.read(student), self.p) < SAME

    def alike(self, student: Tensor) -> str | None:
        """How an answer that is not the teacher's still follows it: a rescaled one, or one with free tails."""
        z, v = student.to(torch.float64), self.teacher
        if self.kind == SIGMOIDS:  # a shift would turn a no into a yes
            straight = (F.cosine_similarity(z, v, dim=1) > _STRAIGHT).all()
            return "any rescaled teacher's logits are as good (z = a * v with a > 0)" if straight else None
        if _straight(z, v):
            return "any rescaled and shifted teacher's logits are as good (z = a * v + b with a > 0)"
        if _straight(self.read(z), self.p):
            return "any mixture of the teacher's probabilities with equal ones is as good"
        kept = self._kept(self.read(z))
        if not kept:
            return None
        apart = (
            "the teacher's likeliest class is" if kept == 1 else f"the teacher's {kept} likeliest classes are"
        )
        return f"only {apart} told apart, the others count in sum"

    def _kept(self, q: Tensor) -> int:
        """For how many of the likeliest classes, at least 1, the student has the teacher's probabilities."""
        order = self.p.argsort(dim=1, descending=True)
        off = (q - self.p).abs().gather(1, order).amax(dim=0) >= SAME / 2
        return int(off.nonzero()[0]) if off.any() else q.shape[1]

    def other(self, student: Tensor) -> str:
        """An answer that is not the teacher's, in words."""
        q = self.read(student)
        for name, answer in self._candidates(student):
            if self.differ(q, answer) < SAME:
                return name
        z, v = student.to(torch.float64), self.teacher
        slope = _slope(z, v)
        if _straight(z, v) and slope.std() < 0.05 * slope.mean():
            return f"the teacher's answer up to scale: its logits times {slope.mean():.3g}{_softened(slope.mean())}"
        if _straight(z, v):
            return "the teacher's answer up to scale, by another factor in each row"
        if _straight(q, self.p):
            return "the teacher's answer mixed with equal probabilities"
        if _straight(-z, v):
            return "the opposite of the teacher's: the order of its classes is turned round"
        return f"an answer that differs from the teacher's by up to {self.differ(q, self.p):.2f}"

    def _candidates(self, student: Tensor) -> Iterator[tuple[str, Tensor]]:
        p, v, classes = self.p, self.teacher, self.patient.classes
        if "labels" in self.patient.takes:
            labels = self.patient.labels_as_taken(self.asked)
            if self.patient.labels == ONE_LABEL:
                labels = F.one_hot(labels, classes)
            yield "the label's, whatever the teacher says", labels.to(torch.float64)
        if self.kind == SIGMOIDS:
            yield "yes for every class: all of them saturate at 1", torch.ones_like(p)
            yield "no for every class: all of them saturate at 0", torch.zeros_like(p)
            yield "undecided about every class", torch.full_like(p, 0.5)
        else:
            saturated = student.sigmoid()
            if saturated.min() > 1 - SAME:
                yield "yes for every class: all sigmoids saturate at 1", self.read(student)
            yield (
                "the teacher's first choice alone, as if it were certain",
                F.one_hot(v.argmax(dim=1), classes) * 1.0,
            )
            yield "equal probabilities for all classes", torch.full_like(p, 1 / classes)
            yield from self._of_the_likeliest()
        yield "the teacher's mean over the batch, the same for every image", p.mean(dim=0).expand_as(p)
        for shift in range(1, len(p)):
            yield "the teacher's for another image: rows are shifted against each other", p.roll(shift, 0)
        yield "the teacher's for other images: rows stand in the opposite order", p.flip(0)
        for factor in (self.temperature, 1 / self.temperature):
            yield (
                f"the teacher's answer up to scale: its logits times {factor:.3g}{_softened(factor)}",
                self.read(factor * v),
            )

    def _of_the_likeliest(self) -> Iterator[tuple[str, Tensor]]:
        order = self.teacher.argsort(dim=1, descending=True)
        for kept in range(2, self.patient.classes):
            inside = torch.zeros_like(self.teacher).scatter(1, order[:, :kept], 1.0).bool()
            only = f"the teacher's {kept} likeliest classes"
            yield (
                f"{only} alone, renormalised: the others are impossible",
                self.read(self.teacher.masked_fill(~inside, -torch.inf)),
            )
            yield f"{only} with logits of 0 for the others", self.read(self.teacher.masked_fill(~inside, 0.0))


def _softened(slope: Tensor | float) -> str:
    return f", as if softened at T = {1 / slope:.3g}" if slope < 1 else ", sharper than it"


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=1, keepdim=True)


def _slope(z: Tensor, v: Tensor) -> Tensor:
    z, v = _centred(z), _centred(v)
    return (z * v).sum(dim=1) / v.square().sum(dim=1)


def _straight(z: Tensor, v: Tensor) -> bool:
    """Is each row a rising straight line of the other's?"""
    return bool((F.cosine_similarity(_centred(z), _centred(v), dim=1, eps=1e-9) > _STRAIGHT).all())
