"""Which known loss one acts like: its gradient as a sum of the teacher's and the labels' usual ones."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kdlib.loss_doctor.patient import ONE_LABEL, Patient, Question

# How a row of logits is read.
SOFTMAX, SIGMOIDS, LOGITS = "softmax", "sigmoids", "logits"
# How two readings are compared.
FORWARDS, BACKWARDS, SQUARES = (
    "KL(teacher || student)",
    "KL(student || teacher)",
    "half the squared difference",
)
# Tried first, and refined between neighbours. From the last on a softened answer is linear in the logits to a percent.
_TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_REFINEMENTS = 24  # golden sections: the temperature to one part in 1e5
# Of two gradients whose difference is less than this part of them the one is called the other.
ALIKE = 0.02
# A teacher whose share of the two weights is below this weighs less than the labels: a half, less what the fit of the
# shares may be off.
HALF = 0.5 - ALIKE / 2


@dataclass(frozen=True)
class Likeness:
    """d loss / dz = weight * d T^2 KL / dz + label_weight * d CE / dz, but for a part `rest` of its norm.

    Args:
        kind: how rows are read. Of logits half the mean squared difference is meant, the limit of KL for large T; of
            sigmoids the sum over the classes.
        temperature: T; infinite for logits.
        weight: of the teacher's term, averaged over the batch.
        label_weight: of the labels' cross-entropy.
        rest: the part of the gradient that is not explained, in [0, 1].
        form: how the two readings are compared.
    """

    kind: str
    temperature: float
    weight: float
    label_weight: float
    rest: float
    form: str = FORWARDS

    @property
    def close(self) -> bool:
        """Is the gradient explained?"""
        return self.rest < ALIKE and self.weight > 0

    @property
    def has_labels(self) -> bool:
        """Do the labels pull?"""
        return abs(self.label_weight) > 1e-6 * abs(self.weight)

    @property
    def alpha(self) -> float:
        """The teacher's share of the two weights."""
        return self.weight / (self.weight + max(self.label_weight, 0.0))

    def __str__(self) -> str:
        if self.kind == LOGITS:
            name = "half the mean squared difference of the logits"
        else:
            what = {SIGMOIDS: " of each class's yes or no", SOFTMAX: ""}[self.kind]
            what = (" of probabilities" if self.kind == SOFTMAX else what) if self.form == SQUARES else what
            name = f"T^2 * {self.form}{what} at T = {self.temperature:.3g}"
        return f"{self.weight:.3g} x {name}"


def gradient_of(kind: str, asked: Question, temperature: float, form: str = FORWARDS) -> Tensor:
    """The usual gradient on the student's logits, averaged over the batch."""
    z, v, _ = asked
    if kind == LOGITS:
        return (z - v) / z.numel()
    q, p = (_answers(kind, logits / temperature) for logits in (z, v))
    if form == FORWARDS:
        return temperature * (q - p) / len(z)
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        if form == BACKWARDS:
            value = _divergence(kind, z / temperature, v / temperature)
        else:
            value = (_answers(kind, z / temperature) - p).square().sum(dim=1) / 2
        return torch.autograd.grad(temperature**2 * value.mean(), z)[0]


def _answers(kind: str, logits: Tensor) -> Tensor:
    return logits.softmax(dim=1) if kind == SOFTMAX else logits.sigmoid()


def _divergence(kind: str, first: Tensor, second: Tensor) -> Tensor:
    """KL(first || second) of each row."""
    if kind == SIGMOIDS:
        first, second = (torch.stack([x, torch.zeros_like(x)], dim=-1) for x in (first, second))
    log_first, log_second = (x.log_softmax(dim=-1) for x in (first, second))
    return (log_first.exp() * (log_first - log_second)).flatten(1).sum(dim=1)


def likeness(patient: Patient, several_labels: bool | None) -> Likeness:
    """The usual loss whose gradient is closest to this one's, on random logits."""
    asked = patient.question(batch=32, seed=1)
    gradient = patient.reply(asked).pull.to(torch.float64).expand_as(asked.student)
    # A gradient of some value counts as that of a loss that has it everywhere.
    if not gradient.isfinite().all() or not gradient.any():
        return Likeness(SIGMOIDS if several_labels else SOFTMAX, 1.0, 0.0, 0.0, 1.0)
    asked = asked.to(torch.float64)
    labels = _label_gradient(patient, asked) if "labels" in patient.takes else None
    kinds = {None: (SOFTMAX, SIGMOIDS), True: (SIGMOIDS,), False: (SOFTMAX,)}[several_labels]
    found = [
        _best_temperature(kind, form, gradient, labels, asked)
        for kind in kinds
        for form in (FORWARDS, BACKWARDS, SQUARES)
    ]
    found.append(_fitted(LOGITS, FORWARDS, math.inf, gradient, labels, asked))
    return min(found, key=lambda each: each.rest)


def _best_temperature(
    kind: str, form: str, gradient: Tensor, labels: Tensor | None, asked: Question
) -> Likeness:
    def at(temperature: float) -> Likeness:
        return _fitted(kind, form, temperature, gradient, labels, asked)

    tried = [at(temperature) for temperature in _TEMPERATURES]
    best = min(range(len(tried)), key=lambda index: tried[index].rest)
    if tried[best].rest < 1e-9:
        return tried[best]
    low, high = (
        math.log(_TEMPERATURES[index]) for index in (max(best - 1, 0), min(best + 1, len(_TEMPERATURES) - 1))
    )
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(_REFINEMENTS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if at(math.exp(left)).rest < at(math.exp(right)).rest:
            high = right
        else:
            low = left
    return min(tried[best], at(math.exp((low + high) / 2)), key=lambda each: each.rest)


def _fitted(
    kind: str, form: str, temperature: float, gradient: Tensor, labels: Tensor | None, asked: Question
) -> Likeness:
    columns = [gradient_of(kind, asked, temperature, form)]
    columns += [] if labels is None else [labels]
    usual = torch.stack([column.flatten() for column in columns], dim=1)
    weights = torch.linalg.lstsq(usual, gradient.reshape(-1, 1), driver="gelsd").solution
    rest = (usual @ weights - gradient.reshape(-1, 1)).norm() / gradient.norm()
    weight, label_weight = [*weights.flatten().tolist(), 0.0][:2]
    return Likeness(kind, temperature, weight, label_weight, rest.item(), form)


def _label_gradient(patient: Patient, asked: Question) -> Tensor:
    """That of the labels' cross-entropy, averaged over the batch."""
    if patient.labels == ONE_LABEL:
        one_hot = torch.nn.functional.one_hot(asked.labels, patient.classes)
        return (asked.student.softmax(dim=1) - one_hot) / len(asked.labels)
    return (asked.student.sigmoid() - patient.labels_as_taken(asked)) / len(asked.labels)
