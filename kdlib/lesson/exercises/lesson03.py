"""Exercises of lesson 03: the mix of both terms, who weighs how much in it, and how to choose it honestly.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._observe import value_and_gradient

# ------------------------------------------------------------------------------------ the mix


def _mixed_cases():
    labels = torch.tensor([1, 0, 4, 2, 3, 1])
    return [(logits(8, 6, 10), logits(9, 6, 10), labels, 4.0, 0.9),
            (logits(10, 6, 5), logits(11, 6, 5), labels, 2.0, 0.5),
            (logits(12, 6, 5), logits(13, 6, 5), labels, 1.0, 0.2)]  # fmt: skip


def _gradients(student, teacher, labels, T):
    distill = T * (torch.softmax(student / T, -1) - torch.softmax(teacher / T, -1))
    task = torch.softmax(student, -1) - F.one_hot(labels, student.shape[1])
    return distill, task


def _mix(student, teacher, labels, T, alpha, *, factor=1.0, task_temperature=1.0):
    distill, _ = _gradients(student, teacher, labels, T)
    task = torch.softmax(student / task_temperature, -1) - F.one_hot(labels, student.shape[1])
    return factor * alpha * distill + (1 - alpha) * task


@exercise(
    cases=_mixed_cases,
    hints=[
        """The label is a teacher, too: one that puts all of its probability on one class, at temperature 1. So the
        formula of the text gives you both gradients.""",
        """The teacher's: T * (softmax(student / T) - softmax(teacher / T)). The label's: softmax(student) minus the
        label as a row of zeros with a single one, which `F.one_hot(labels, classes)` makes.""",
        "Weigh the teacher's gradient with alpha and the label's with 1 - alpha, and add them up.",
    ],
    mistakes={
        "alpha weighs the labels here; it goes with the teacher":
            lambda s, t, y, T, a: _mix(s, t, y, T, 1 - a),
        "the sign is that of the push; the gradient points the other way, from the target to the student":
            lambda s, t, y, T, a: -_mix(s, t, y, T, a),
        "the factor T of the teacher's gradient is missing":
            lambda s, t, y, T, a: _mix(s, t, y, T, a, factor=1 / T),
        "T^2 is the factor of the loss; of its gradient the chain rule takes one T away":
            lambda s, t, y, T, a: _mix(s, t, y, T, a, factor=T),
        "T^2 is missing: this is the gradient of KL alone, which is T^2 times too small":
            lambda s, t, y, T, a: _mix(s, t, y, T, a, factor=1 / T**2),
        "the label's gradient uses the softened student; labels are learned at temperature 1":
            lambda s, t, y, T, a: _mix(s, t, y, T, a, task_temperature=T),
        "the teacher is not softened: divide its logits by T as well":
            lambda s, t, y, T, a: _mix(s, T * t, y, T, a),
        "each image's own gradient is asked for, not divided by the size of the batch":
            lambda s, t, y, T, a: _mix(s, t, y, T, a) / len(s),
    },
)  # fmt: skip
def mixed_gradient(student_logits, teacher_logits, labels, temperature, alpha):
    """The gradient of alpha * T^2 * KL + (1 - alpha) * CE in the student's logits, for each image.

    student_logits, teacher_logits: (batch, classes); labels: (batch,), the numbers of the classes.
    Returns (batch, classes): row by row what autograd would give for this image alone.
    """
    # --- your code
    student, teacher = (F.softmax(z / temperature, dim=-1) for z in (student_logits, teacher_logits))
    task = F.softmax(student_logits, dim=-1) - F.one_hot(labels, student_logits.shape[1])
    return alpha * temperature * (student - teacher) + (1 - alpha) * task
    # --- end


# ------------------------------------------------------------------------------------ a loss to repair


def _kl(student, teacher, T, *, factor=1.0):
    return factor * T**2 * F.kl_div(F.log_softmax(student / T, -1), F.softmax(teacher / T, -1), reduction="batchmean")


def _mixed_loss(student, teacher, labels, T, alpha, *, task_temperature=1.0, factor=1.0, distill=None):
    distill = _kl(student, teacher, T, factor=factor) if distill is None else distill
    return alpha * distill + (1 - alpha) * F.cross_entropy(student / task_temperature, labels)


def _softened_label_term(student_logits, teacher_logits, labels, temperature, alpha):
    # --- your code
    z, v = student_logits / temperature, teacher_logits / temperature
    distill = F.kl_div(F.log_softmax(z, dim=-1), F.softmax(v, dim=-1), reduction="batchmean")
    task = F.cross_entropy(z, labels)
    return alpha * temperature**2 * distill + (1 - alpha) * task
    # --- end


@exercise(
    cases=_mixed_cases,
    probe=value_and_gradient,
    start=_softened_label_term,
    hints=[
        "At T = 1 it is right. Which of the two terms must not notice that T is something else now?",
        "Set alpha = 0 and move T: the loss of the labels alone changes. Follow the temperature to where it gets in.",
        "The labels are learned at temperature 1: `F.cross_entropy(student_logits, labels)`.",
    ],
    mistakes={
        "T^2 in front of the label term does not undo the softening; it hides its size":
            lambda s, t, y, T, a: (1 - a) * T**2 * F.cross_entropy(s / T, y) + a * _kl(s, t, T),
        "T in front of the label term does not undo the softening; it hides its size":
            lambda s, t, y, T, a: (1 - a) * T * F.cross_entropy(s / T, y) + a * _kl(s, t, T),
        "the label term is right now, but the student is no longer softened for the teacher's":
            lambda s, t, y, T, a: _mixed_loss(s, t, y, T, a, distill=_kl(T * s, t, T)),
        "the label term is right now, but the teacher is no longer softened":
            lambda s, t, y, T, a: _mixed_loss(s, t, y, T, a, distill=_kl(s, T * t, T)),
        "the label term is right now, but T^2 got lost":
            lambda s, t, y, T, a: _mixed_loss(s, t, y, T, a, factor=1 / T**2),
        "alpha weighs the labels now; it goes with the teacher":
            lambda s, t, y, T, a: _mixed_loss(s, t, y, T, 1 - a),
        "the temperature is gone from both terms; the teacher's needs it":
            lambda s, t, y, T, a: _mixed_loss(s, t, y, T, a, distill=_kl(s, t, 1.0, factor=T**2)),
        "the label term is right now; but KL is summed over the classes, and this is a mean over them":
            lambda s, t, y, T, a: _mixed_loss(s, t, y, T, a, distill=_kl(s, t, T) / s.shape[-1]),
        "the label term is right now; but the teacher's is the cross-entropy with the soft targets, larger than KL":
            lambda s, t, y, T, a: _mixed_loss(
                s, t, y, T, a, distill=T**2 * F.cross_entropy(s / T, F.softmax(t / T, -1))),
        "the loss has no gradient: .item(), .detach() or .numpy() cuts the student off":
            lambda s, t, y, T, a: _mixed_loss(s, t, y, T, a).detach(),
    },
)  # fmt: skip
def repair_loss_a(student_logits, teacher_logits, labels, temperature, alpha):
    """Repair: meant is alpha * T^2 * KL + (1 - alpha) * CE. At T = 1 autograd finds your mixed gradient; at T = 8 it
    finds another one.

    student_logits, teacher_logits: (batch, classes); labels: (batch,). Returns a scalar, the mean over the batch.
    """
    # --- your code
    z, v = student_logits / temperature, teacher_logits / temperature
    distill = F.kl_div(F.log_softmax(z, dim=-1), F.softmax(v, dim=-1), reduction="batchmean")
    task = F.cross_entropy(student_logits, labels)
    return alpha * temperature**2 * distill + (1 - alpha) * task
    # --- end


# ------------------------------------------------------------------------------------ effective shares


def _norms(student, teacher, labels, T, alpha, *, factor=1.0, **options):
    distill, task = _gradients(student, teacher, labels, T)
    return torch.linalg.norm(factor * alpha * distill, **options), torch.linalg.norm((1 - alpha) * task, **options)


def _share(student, teacher, labels, T, alpha, *, factor=1.0):
    a, b = _norms(student, teacher, labels, T, alpha, factor=factor)
    return a / (a + b)


def _mean_of_shares(student, teacher, labels, T, alpha):
    a, b = _norms(student, teacher, labels, T, alpha, dim=1)
    return (a / (a + b)).mean()


def _share_of_squares(student, teacher, labels, T, alpha):
    a, b = _norms(student, teacher, labels, T, alpha)
    return a**2 / (a**2 + b**2)


def _share_of_loss(student, teacher, labels, T, alpha):
    distill, task = alpha * _kl(student, teacher, T), (1 - alpha) * F.cross_entropy(student, labels)
    return distill / (distill + task)


@exercise(
    cases=_mixed_cases,
    hints=[
        "A term is as strong as its gradient, not as its value. You have written both gradients.",
        """Your mixed_gradient gives both: the teacher's at alpha = 1, the label's at alpha = 0. Weigh them with alpha
        and 1 - alpha.""",
        "Take `torch.linalg.norm` of each weighted gradient over the whole batch: a / (a + b).",
    ],
    mistakes={
        "this is alpha itself; the two gradients differ in size":
            lambda s, t, y, T, a: a,
        "the share of the loss, not of the gradient: a loss may be large and flat":
            _share_of_loss,
        "the weights alpha and 1 - alpha are missing":
            lambda s, t, y, T, a: _share(s, t, y, T, 0.5),
        "T^2 is missing in the distillation term":
            lambda s, t, y, T, a: _share(s, t, y, T, a, factor=1 / T**2),
        "the chain rule's 1 / T is missing in the distillation term":
            lambda s, t, y, T, a: _share(s, t, y, T, a, factor=T),
        "this is the share of the labels; the teacher's is asked for":
            lambda s, t, y, T, a: 1 - _share(s, t, y, T, a),
        "alpha weighs the wrong gradient":
            lambda s, t, y, T, a: _share(s, t, y, T, 1 - a),
        "a share of each image, and then their mean; the norms are taken over the whole batch":
            _mean_of_shares,
        "the squares of the norms are compared; take the root":
            _share_of_squares,
    },
)  # fmt: skip
def distill_share(student_logits, teacher_logits, labels, temperature, alpha):
    """The teacher's share a / (a + b) in the gradient of alpha * T^2 * KL + (1 - alpha) * CE.

    a and b are the norms, over the whole batch, of the two weighted gradients in the student's logits.
    student_logits, teacher_logits: (batch, classes); labels: (batch,). Returns a number from 0 to 1.
    """
    # --- your code
    student, teacher = (F.softmax(z / temperature, dim=-1) for z in (student_logits, teacher_logits))
    distill = temperature * (student - teacher)
    task = F.softmax(student_logits, dim=-1) - F.one_hot(labels, student_logits.shape[1])
    a, b = torch.linalg.norm(alpha * distill), torch.linalg.norm((1 - alpha) * task)
    return a / (a + b)
    # --- end


@exercise(
    cases=lambda: [(0.1, 0.9), (1.0, 1.0), (0.5, 4.0), (0.3, 0.1)],
    hints=[
        "Ours has weights that add up to 1. Do theirs?",
        "Divide both weights by their sum, which moves to the front, where it scales the learning rate.",
        "alpha is the distillation's share of the two weights, scale is their sum.",
    ],
    mistakes={
        "this is the weight of the labels; ours goes with the teacher":
            lambda label, distill: (label / (label + distill), label + distill),
        "the weights are taken as they are; they have to add up to 1":
            lambda label, distill: (distill, 1.0),
        "alpha is right; but the other loss is larger by the sum of its weights, not equal":
            lambda label, distill: (distill / (label + distill), 1.0),
        "alpha is right; but the scale is the sum of the weights, not its inverse":
            lambda label, distill: (distill / (label + distill), 1 / (label + distill)),
        "the ratio of the weights instead of the share":
            lambda label, distill: (distill / label, label + distill),
    },
)  # fmt: skip
def our_alpha(label_weight, distill_weight):
    """Translate another code's loss, label_weight * CE + distill_weight * T^2 * KL, into ours:
    scale * (alpha * T^2 * KL + (1 - alpha) * CE).

    Both weights are positive. Returns (alpha, scale).
    """
    # --- your code
    scale = label_weight + distill_weight
    return distill_weight / scale, scale
    # --- end


# ------------------------------------------------------------------------------------ choosing alpha


def _table(alphas, validation, test):
    rows = [(alpha, seed, validation[i][seed], test[i][seed])
            for i, alpha in enumerate(alphas) for seed in range(len(validation[i]))]  # fmt: skip
    return pd.DataFrame(rows, columns=["alpha", "seed", "validation", "test"])


def _tables():
    generator = np.random.default_rng(0)
    noisy = [generator.normal(0.8, 0.02, size=(6, 5)).round(4) for _ in range(2)]
    lucky_seed = _table(
        [0.0, 0.5, 0.9],
        [[0.70, 0.71, 0.72], [0.80, 0.81, 0.79], [0.86, 0.74, 0.76]],
        [[0.715, 0.705, 0.70], [0.78, 0.79, 0.805], [0.83, 0.82, 0.80]],
    )
    return [(lucky_seed,), (_table([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], *noisy),)]


def _choose(results, *, by="validation", report="test", pick="idxmax", over_seeds="mean"):
    means = results.groupby("alpha")[["validation", "test"]].mean()
    best = getattr(means[by], pick)()
    return best, getattr(results[results.alpha == best][report], over_seeds)()


def _lucky_row(results):
    row = results.loc[results.validation.idxmax()]
    return row.alpha, row.test


@exercise(
    cases=_tables,
    hints=[
        "Which of the two columns may you look at before you have decided?",
        "Average over the seeds first: results.groupby('alpha')[['validation', 'test']].mean().",
        "alpha is `.idxmax()` of the mean validation accuracy; look up the mean test accuracy at that alpha.",
    ],
    mistakes={
        "alpha is chosen on the test set: what it reports there is then too good":
            lambda results: _choose(results, by="test"),
        "the best single run is chosen; that picks a lucky seed: average over the seeds first":
            _lucky_row,
        "the validation accuracy is reported; it was used for choosing and is too good: report the test's":
            lambda results: _choose(results, report="validation"),
        "the worst alpha is chosen; accuracy is the higher the better":
            lambda results: _choose(results, pick="idxmin"),
        "the best test run of the chosen alpha is reported; report the mean over the seeds":
            lambda results: _choose(results, over_seeds="max"),
    },
)  # fmt: skip
def choose_alpha(results):
    """Choose the alpha with the best mean validation accuracy, then look at the test set once.

    results: a DataFrame with the columns alpha, seed, validation, test; one row a student, accuracies.
    Returns (the chosen alpha, its mean test accuracy).
    """
    # --- your code
    means = results.groupby("alpha")[["validation", "test"]].mean()
    alpha = means["validation"].idxmax()
    return alpha, means["test"][alpha]
    # --- end
