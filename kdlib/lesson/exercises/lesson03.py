"""Exercises of lesson 03: who weighs how much in the loss, and how to choose it honestly.

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

# ------------------------------------------------------------------------------------ three losses to repair


def _plain_cases():
    return [(logits(0, 6, 10), logits(1, 6, 10), 4.0), (logits(2, 4, 5), logits(3, 4, 5), 1.0),
            (logits(4, 3, 8), logits(5, 3, 8), 2.0)]  # fmt: skip


def _extreme_cases():
    sure = torch.tensor([[300.0, 0.0, -50.0], [0.0, 300.0, 10.0]])
    return [*_plain_cases(), (logits(6, 2, 3), sure, 1.0), (sure, logits(7, 2, 3), 1.0)]


def _kl(student, teacher, T, *, factor=1.0, reduction="batchmean"):
    divergence = F.kl_div(F.log_softmax(student / T, -1), F.softmax(teacher / T, -1), reduction=reduction)
    return factor * T**2 * divergence


def _averaged(student_logits, teacher_logits, temperature):
    # --- your code
    log_student = F.log_softmax(student_logits / temperature, dim=-1)
    soft_targets = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * torch.nn.KLDivLoss()(log_student, soft_targets)
    # --- end


@exercise(
    cases=_plain_cases,
    probe=value_and_gradient,
    start=_averaged,
    hints=[
        "Compute KL of one image by hand and compare. By which factor is the loss too small?",
        "By the number of classes: the default reduction averages over everything, classes included.",
        '`torch.nn.KLDivLoss(reduction="batchmean")` sums over the classes and averages over the batch.',
    ],
    mistakes={
        "sum instead of batchmean: now the loss grows with the batch":
            lambda s, t, T: _kl(s, t, T, reduction="sum"),
        "divided by the classes and not by the batch; it is the other way round":
            lambda s, t, T: _kl(s, t, T, reduction="sum", factor=1 / s.shape[1]),
        "a fixed factor of 10 makes up for the mean on ten classes only":
            lambda s, t, T: _kl(s, t, T, reduction="mean", factor=10),
        "T^2 got lost in the repair":
            lambda s, t, T: _kl(s, t, T, factor=1 / T**2),
    },
)  # fmt: skip
def repair_reduction(student_logits, teacher_logits, temperature):
    """Repair: on ten classes this term counts a tenth of what alpha says, on a hundred classes a hundredth.

    student_logits, teacher_logits: (batch, classes). Returns a scalar.
    """
    # --- your code
    log_student = F.log_softmax(student_logits / temperature, dim=-1)
    soft_targets = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * torch.nn.KLDivLoss(reduction="batchmean")(log_student, soft_targets)
    # --- end


def _swapped(student_logits, teacher_logits, temperature):
    # --- your code
    student = F.softmax(student_logits / temperature, dim=-1)
    teacher = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(teacher.log(), student, reduction="batchmean")
    # --- end


@exercise(
    cases=_extreme_cases,
    probe=value_and_gradient,
    start=_swapped,
    hints=[
        "With which distribution should the sum be weighted: with the student's, or with the teacher's?",
        "F.kl_div(input, target) is KL(target || input), its input in logarithms: the student goes first.",
        "F.kl_div(F.log_softmax(student_logits / T, -1), F.softmax(teacher_logits / T, -1), ...)",
    ],
    mistakes={
        "the order is right now, but the first argument has to be LOG-probabilities":
            lambda s, t, T: T**2 * F.kl_div(F.softmax(s / T, -1), F.softmax(t / T, -1),
                                            reduction="batchmean"),
        "the targets are in logarithms too, and F.kl_div is not told so: log_target=True, or probabilities":
            lambda s, t, T: T**2 * F.kl_div(F.log_softmax(s / T, -1), F.log_softmax(t / T, -1),
                                            reduction="batchmean"),
        "the order is right now, but log(softmax) is infinite where a probability underflows: F.log_softmax":
            lambda s, t, T: T**2 * F.kl_div(F.softmax(s / T, -1).log(), F.softmax(t / T, -1),
                                            reduction="batchmean"),
        "still KL(student || teacher), only computed more stably":
            lambda s, t, T: _kl(t, s, T),
    },
)  # fmt: skip
def repair_arguments(student_logits, teacher_logits, temperature):
    """Repair: meant is T^2 * KL(teacher || student), but this student ignores all classes but its favourite.

    student_logits, teacher_logits: (batch, classes), of any size. Returns a scalar.
    """
    # --- your code
    log_student = F.log_softmax(student_logits / temperature, dim=-1)
    soft_targets = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, soft_targets, reduction="batchmean")
    # --- end


def _not_a_number(student_logits, teacher_logits, temperature):
    # --- your code
    log_p = F.log_softmax(student_logits / temperature, dim=-1)
    q = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * (q * (q.log() - log_p)).sum(dim=-1).mean()
    # --- end


def _written_out(student, teacher, T, log_p):
    q = F.softmax(teacher / T, -1)
    return T**2 * (torch.xlogy(q, q) - q * log_p).sum(-1).mean()


@exercise(
    cases=_extreme_cases,
    probe=value_and_gradient,
    start=_not_a_number,
    hints=[
        "Try it with teacher logits [300, 0, 0]. Which of the quantities is the first that is not finite?",
        "A probability that underflows to 0 gives 0 * log(0) = 0 * -inf = NaN. Its true limit is 0.",
        "F.kl_div knows that limit; so do torch.xlogy, and F.log_softmax of the teacher in place of q.log().",
    ],
    mistakes={
        "nan_to_num hides the NaN: where the teacher is sure, the loss is 0 and teaches nothing":
            lambda s, t, T: _not_a_number(s, t, T).nan_to_num(),
        "the log of q is gone, and with it the NaN; but this is the cross-entropy, not KL":
            lambda s, t, T: -T**2 * (F.softmax(t / T, -1) * F.log_softmax(s / T, -1)).sum(-1).mean(),
        "an epsilon inside the student's logarithm caps the loss: F.log_softmax was right":
            lambda s, t, T: _written_out(s, t, T, (F.softmax(s / T, -1) + 1e-8).log()),
        "the student's log(softmax) is infinite where a probability underflows: F.log_softmax was right":
            lambda s, t, T: _written_out(s, t, T, F.softmax(s / T, -1).log()),
    },
)  # fmt: skip
def repair_log(student_logits, teacher_logits, temperature):
    """Repair: the loss turns to NaN in the middle of training, as soon as the teacher is very sure.

    student_logits, teacher_logits: (batch, classes), of any size. Returns T^2 * KL(teacher || student).
    """
    # --- your code
    log_p = F.log_softmax(student_logits / temperature, dim=-1)
    q = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_p, q, reduction="batchmean")
    # --- end


# ------------------------------------------------------------------------------------ effective shares


def _share_cases():
    labels = torch.tensor([1, 0, 4, 2, 3, 1])
    return [(logits(8, 6, 10), logits(9, 6, 10), labels, 4.0, 0.9),
            (logits(10, 6, 5), logits(11, 6, 5), labels, 2.0, 0.5),
            (logits(12, 6, 5), logits(13, 6, 5), labels, 1.0, 0.2)]  # fmt: skip


def _gradients(student, teacher, labels, T):
    distill = T * (torch.softmax(student / T, -1) - torch.softmax(teacher / T, -1))
    task = torch.softmax(student, -1) - F.one_hot(labels, student.shape[1])
    return distill, task


def _share(student, teacher, labels, T, alpha, *, norm=torch.linalg.norm, factor=1.0):
    distill, task = (norm(gradient) for gradient in _gradients(student, teacher, labels, T))
    return factor * alpha * distill / (factor * alpha * distill + (1 - alpha) * task)


def _share_of_loss(student, teacher, labels, T, alpha):
    distill, task = alpha * _kl(student, teacher, T), (1 - alpha) * F.cross_entropy(student, labels)
    return distill / (distill + task)


@exercise(
    cases=_share_cases,
    hints=[
        "A term is as strong as its gradient, not as its value. You know both gradients in closed form.",
        """In the student's logits: distill T * (softmax(student / T) - softmax(teacher / T)) / batch, task
        (softmax(student) - one-hot label) / batch. Weigh them with alpha and 1 - alpha.""",
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


@exercise(
    cases=lambda: [()],
    hints=[
        'What does reduction="mean" divide by, beyond the batch?',
        "Two things are missing at once, and their factors multiply: one is the classes, one comes from T.",
        "Classes times T^2.",
    ],
    mistakes={
        "this is the mean's part, the classes; the missing T^2 makes it smaller still": lambda: 10,
        "this is the part of the missing T^2; the mean divides by the classes too": lambda: 16,
        "T has to be squared": lambda: 40,
        "the other way round: how many times smaller is asked, a number above 1": lambda: 1 / 160,
        "the factors multiply, they do not add up": lambda: 26,
    },
)
def hidden_factor():
    """On 10 classes, at T = 4, a loss uses reduction="mean" and leaves T^2 out.
    How many times smaller than it should be is its distillation term?
    """
    # --- your code
    return 10 * 4**2
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
