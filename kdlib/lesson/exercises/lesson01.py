"""Exercises of lesson 01: soften, combine, and say how large the gain is.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._intervals import MANY, paired, pooled, reordered, unpaired, welch
from kdlib.lesson.exercises._observe import value_and_gradient

# ------------------------------------------------------------------------------------ softened softmax


def _soften_cases():
    huge = torch.tensor([[1000.0, 0.0, -1000.0], [-2000.0, -2001.0, -2002.0]])
    return [(logits(0, 4, 10), 4.0), (logits(1, 3, 3), 1.0), (logits(2, 2, 5), 0.5), (huge, 2.0)]


@exercise(
    cases=_soften_cases,
    hints=[
        "The temperature acts on the logits, not on the probabilities: what becomes of each logit?",
        "Divide the logits by the temperature, then take the softmax over the classes: which axis is that?",
        "exp(1000) overflows. `torch.softmax(..., dim=-1)` subtracts the largest logit first: let it work.",
    ],
    mistakes={
        "the temperature multiplies the logits; it has to divide them":
            lambda logits, temperature: torch.softmax(logits * temperature, dim=-1),
        "the temperature is not used":
            lambda logits, temperature: torch.softmax(logits, dim=-1),
        "the softmax runs over the batch instead of the classes":
            lambda logits, temperature: torch.softmax(logits / temperature, dim=0),
        "the temperature divides the probabilities; divide the logits, before the softmax":
            lambda logits, temperature: torch.softmax(logits, dim=-1) / temperature,
        "each row has to sum to 1: probabilities to the power 1/T want normalising again":
            lambda logits, temperature: torch.softmax(logits, dim=-1) ** (1 / temperature),
        "these are log-probabilities; probabilities are asked for":
            lambda logits, temperature: torch.log_softmax(logits / temperature, dim=-1),
        "exp overflows on large logits; subtract the largest logit first, or use torch.softmax":
            lambda logits, temperature: (e := (logits / temperature).exp()) / e.sum(-1, keepdim=True),
    },
)  # fmt: skip
def soften(logits, temperature):
    """Softened probabilities softmax(logits / temperature), finite for logits of any size.

    logits: (batch, classes). Returns (batch, classes); each row sums to 1.
    """
    # --- your code
    return torch.softmax(logits / temperature, dim=-1)
    # --- end


# ------------------------------------------------------------------------------------ the loss


def _kd_loss_cases():
    labels = torch.tensor([1, 0, 4, 2, 3, 1])
    sure_teacher = torch.tensor([[300.0, 0.0, -50.0], [0.0, 300.0, 10.0]])
    return [
        (logits(3, 6, 10), logits(4, 6, 10), labels, 4.0, 0.9),
        (logits(5, 6, 5), logits(6, 6, 5), labels, 2.0, 0.3),
        (logits(7, 6, 5), logits(8, 6, 5), labels, 1.0, 0.5),
        (logits(9, 2, 3), sure_teacher, torch.tensor([0, 1]), 1.0, 0.6),
        (sure_teacher, logits(9, 2, 3), torch.tensor([1, 2]), 1.0, 0.6),
    ]


def _kd(student, teacher, labels, T, alpha, *, scale=None, reduction="batchmean", task=None, soft=None):
    """The loss in parts, so that each mistake below changes one of them."""
    log_student = F.log_softmax(student / T, -1)
    divergence = F.kl_div(log_student, F.softmax(teacher / T, -1), reduction=reduction) if soft is None else soft
    task = F.cross_entropy(student, labels) if task is None else task
    return alpha * (T**2 if scale is None else scale) * divergence + (1 - alpha) * task


def _divergence(student, teacher, student_T, teacher_T):
    return F.kl_div(F.log_softmax(student / student_T, -1), F.softmax(teacher / teacher_T, -1), reduction="batchmean")


def _kd_swapped(student, teacher, labels, T, alpha):
    divergence = F.kl_div(F.log_softmax(teacher / T, -1), F.softmax(student / T, -1), reduction="batchmean")
    return alpha * T**2 * divergence + (1 - alpha) * F.cross_entropy(student, labels)


def _kd_by_logarithm(student, teacher, labels, T, alpha):
    log_p, q = F.log_softmax(student / T, -1), F.softmax(teacher / T, -1)
    divergence = (q * (q.log() - log_p)).sum(-1).mean()
    return alpha * T**2 * divergence + (1 - alpha) * F.cross_entropy(student, labels)


def _kd_log_of_softmax(student, teacher, labels, T, alpha):
    divergence = F.kl_div(F.softmax(student / T, -1).log(), F.softmax(teacher / T, -1), reduction="batchmean")
    return alpha * T**2 * divergence + (1 - alpha) * F.cross_entropy(student, labels)


def _kd_probabilities(student, teacher, labels, T, alpha):
    divergence = F.kl_div(F.softmax(student / T, -1), F.softmax(teacher / T, -1), reduction="batchmean")
    return alpha * T**2 * divergence + (1 - alpha) * F.cross_entropy(student, labels)


@exercise(
    cases=_kd_loss_cases,
    probe=value_and_gradient,
    hints=[
        "One term compares softened student with softened teacher, the other is the ordinary cross-entropy.",
        """F.kl_div wants the student's LOG-probabilities first and the teacher's probabilities second, both
        at T; `reduction="batchmean"` sums over the classes. Its gradient shrinks like 1 / T^2: undo that.""",
        """`distill = T**2 * F.kl_div(F.log_softmax(student / T, -1), F.softmax(teacher / T, -1),
        reduction="batchmean")`; the cross-entropy takes the student's logits as they are, without T;
        alpha weighs distill, 1 - alpha the cross-entropy.""",
    ],
    mistakes={
        "you forgot T^2: at a high temperature the distillation term all but vanishes":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, scale=1.0),
        "the factor is T instead of T^2":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, scale=T),
        'mean instead of batchmean: F.kl_div\'s default "mean" divides by the number of classes too':
            lambda s, t, y, T, a: _kd(s, t, y, T, a, reduction="mean"),
        "two things: T^2 is missing, and mean instead of batchmean divides by the number of classes too":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, reduction="mean", scale=1.0),
        "sum instead of batchmean: the distillation term grows with the batch":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, reduction="sum"),
        "the teacher is not softened: its logits are divided by T as the student's are":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, soft=_divergence(s, t, T, 1)),
        "the student is not softened: in the teacher's term its logits are divided by T as well":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, soft=_divergence(s, t, 1, T)),
        "neither student nor teacher is softened: both are divided by T before the softmax":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, soft=_divergence(s, t, 1, 1)),
        "its gradient is right, its value is not: this is the cross-entropy with the soft targets, which is larger "
        "than KL by their entropy and so never comes to 0":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, soft=F.cross_entropy(s / T, F.softmax(t / T, -1))),
        "T^2 multiplies the labels' term as well; it belongs to the teacher's alone":
            lambda s, t, y, T, a: T**2 * _kd(s, t, y, T, a, scale=1.0),
        "alpha weighs the teacher's term, but 1 - alpha is missing before the labels' term":
            lambda s, t, y, T, a: _kd(s, t, y, T, a) + a * F.cross_entropy(s, y),
        "teacher and student are swapped in the KL divergence":
            _kd_swapped,
        "alpha weighs the wrong term: here alpha belongs to the teacher, 1 - alpha to the labels":
            lambda s, t, y, T, a: _kd(s, t, y, T, 1 - a),
        "the cross-entropy with the labels is softened too; the labels' term is taken at T = 1":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, task=F.cross_entropy(s / T, y)),
        "F.cross_entropy is given probabilities; it wants logits and applies the softmax itself":
            lambda s, t, y, T, a: _kd(s, t, y, T, a, task=F.cross_entropy(F.softmax(s, -1), y)),
        "F.kl_div is given the student's probabilities; its first argument has to be LOG-probabilities":
            _kd_probabilities,
        "the log of the teacher's probabilities gives NaN where one is 0; F.kl_div takes them as they are":
            _kd_by_logarithm,
        "log(softmax) is infinite where a probability underflows; F.log_softmax is not":
            _kd_log_of_softmax,
        "the loss has no gradient: .item(), .detach() or .numpy() cuts the student off":
            lambda s, t, y, T, a: _kd(s, t, y, T, a).detach(),
    },
)  # fmt: skip
def kd_loss(student_logits, teacher_logits, labels, temperature, alpha):
    """alpha * T^2 * KL(teacher at T || student at T) + (1 - alpha) * cross-entropy with the labels.

    KL is summed over the classes and averaged over the batch.
    student_logits, teacher_logits: (batch, classes); labels: (batch,). Returns a scalar tensor.
    """
    # --- your code
    log_student = F.log_softmax(student_logits / temperature, dim=-1)
    soft_targets = F.softmax(teacher_logits / temperature, dim=-1)
    distill = temperature**2 * F.kl_div(log_student, soft_targets, reduction="batchmean")
    task = F.cross_entropy(student_logits, labels)
    return alpha * distill + (1 - alpha) * task
    # --- end


# ------------------------------------------------------------------------------------ the evidence


def _gain_cases():
    return [
        ([0.812, 0.807, 0.815, 0.809, 0.811], [0.771, 0.782, 0.768, 0.779, 0.774]),
        ([0.70, 0.73, 0.69, 0.75, 0.71, 0.72, 0.74, 0.70], [0.69, 0.72, 0.70, 0.73, 0.70, 0.72, 0.72, 0.68]),
        ([0.9, 0.8, 0.7], [0.85, 0.76, 0.68]),
    ]


def _signed(with_teacher, labels_only):
    return [np.array(with_teacher), -np.array(labels_only)]


@exercise(
    cases=_gain_cases,
    hints=[
        "The runs come in pairs: same seed, same images. What is one number a pair?",
        """Take the differences: their mean, and its standard error, which is their standard deviation (n - 1
        in the denominator) divided by the root of n. Few runs need Student's t, not 1.96.""",
        """The interval reaches `stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5` to either side
        of the mean.""",
    ],
    mistakes={
        "unpaired: the two lists are treated as independent, which throws the pairing by seed away":
            lambda a, b: unpaired(_signed(a, b), pooled),
        "unpaired (Welch): the two lists are treated as independent, which throws the pairing by seed away":
            lambda a, b: unpaired(_signed(a, b), welch),
        "1.96 is for many runs; for a few, take Student's t with n - 1 degrees of freedom":
            lambda a, b: paired(_signed(a, b), degrees=MANY),
        "the standard deviation instead of the standard error: divide by the root of n":
            lambda a, b: paired(_signed(a, b), root=False),
        "the population's standard deviation (n in the denominator); a sample needs n - 1, ddof=1":
            lambda a, b: paired(_signed(a, b), ddof=0),
        "two things: a sample needs n - 1 below (ddof=1), and a few runs need Student's t instead of 1.96":
            lambda a, b: paired(_signed(a, b), ddof=0, degrees=MANY),
        "the sign is turned round: the gain is with the teacher minus labels only":
            lambda a, b: paired(_signed(b, a)),
        "the numbers are right, but in another order: (mean, low, high)":
            lambda a, b: reordered(_signed(a, b), 1, 0, 2),
        "the low end comes before the high one":
            lambda a, b: reordered(_signed(a, b), 0, 2, 1),
        "this is a 90 % interval: 95 % leaves 2.5 % on each side, so the quantile is 0.975":
            lambda a, b: paired(_signed(a, b), quantile=0.95),
        "n degrees of freedom instead of n - 1":
            lambda a, b: paired(_signed(a, b), degrees=len(a)),
    },
)  # fmt: skip
def paired_gain(with_teacher, labels_only):
    """The mean gain over paired runs and its 95 % interval by Student's t: (mean, low, high).

    with_teacher, labels_only: lists of accuracies; entries at the same place share seed and images.
    """
    # --- your code
    differences = np.array(with_teacher) - np.array(labels_only)
    n = len(differences)
    standard_error = differences.std(ddof=1) / n**0.5
    half = stats.t.ppf(0.975, n - 1) * standard_error
    return differences.mean(), differences.mean() - half, differences.mean() + half
    # --- end
