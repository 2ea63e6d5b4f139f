"""Exercises of lesson 02: what the temperature does to a soft target, and to the gradient.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._observe import value_and_gradient

# ------------------------------------------------------------------------------------ entropy


def _entropy_cases():
    huge = torch.tensor([[500.0, 0.0, -500.0], [0.0, 0.0, -900.0]])
    return [(logits(0, 4, 10), 4.0), (logits(1, 3, 5), 1.0), (logits(2, 5, 3), 20.0), (huge, 2.0)]


def _entropy(z, T, *, unit=1.0):
    return torch.special.entr(torch.softmax(z / T, -1)).sum(-1) / unit


@exercise(
    cases=_entropy_cases,
    hints=[
        "Entropy is the expected surprise: the mean of -log p, each class counted with its probability p.",
        "Soften first: log_p = F.log_softmax(logits / temperature, dim=-1). Then sum over the classes only.",
        "`-(log_p.exp() * log_p).sum(dim=-1)`: with log_softmax, a class that underflows adds 0, not NaN.",
    ],
    mistakes={
        "this is in bits: log2 instead of the natural logarithm":
            lambda z, T: _entropy(z, T, unit=torch.tensor(2.0).log()),
        "the temperature is not used":
            lambda z, T: _entropy(z, 1.0),
        "the temperature multiplies the logits; it has to divide them":
            lambda z, T: _entropy(z, 1 / T),
        "the sign is turned round: log p is negative, entropy is not":
            lambda z, T: -_entropy(z, T),
        "the mean over the classes instead of the sum":
            lambda z, T: _entropy(z, T) / z.shape[-1],
        "the temperature divides the probabilities, which no longer add up to one; it has to divide the logits":
            lambda z, T: torch.special.entr(torch.softmax(z, -1) / T).sum(-1),
        "one number for the whole batch: one entropy for each row is asked for":
            lambda z, T: _entropy(z, T).mean(),
        "0 * log(0) is NaN: a class whose probability underflows has to add 0":
            lambda z, T: -((p := torch.softmax(z / T, -1)) * p.log()).sum(-1),
    },
)  # fmt: skip
def softened_entropy(logits, temperature):
    """Entropy, in nats, of softmax(logits / temperature); finite for logits of any size.

    logits: (batch, classes). Returns (batch,), from 0 (certain) to log(classes) (uniform).
    """
    # --- your code
    log_p = F.log_softmax(logits / temperature, dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)
    # --- end


# ------------------------------------------------------------------------------------ T for an entropy


def _wanted_cases():
    return [(logits(3, 1, 10)[0], 1.9), (logits(4, 1, 5)[0], 0.7), (logits(5, 1, 10, scale=8.0)[0], 2.2)]


def _bisect(z, wanted, *, grows=True):
    low, high = 0.01, 1000.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        if (_entropy(z, middle) < wanted) == grows:
            low = middle
        else:
            high = middle
    return middle


@exercise(
    cases=_wanted_cases,
    tolerance=0.01,  # any search that is fine enough will do
    hints=[
        "Does the entropy grow or fall with T? It does so all the way, so you can search.",
        "Halve the range again and again. T spans factors, so halve its logarithm: (low * high) ** 0.5.",
        """Where the entropy at the middle is below the wanted one, the T you look for is above it:
        `low = middle`, otherwise `high = middle`. Sixty halvings are plenty.""",
    ],
    mistakes={
        "the search runs the wrong way: the entropy grows with T":
            lambda z, wanted: _bisect(z, wanted, grows=False),
        "the entropy is not proportional to T, so one division cannot find it: search":
            lambda z, wanted: wanted / _entropy(z, 1.0),
        "this is 1 / T: the logits are divided by T":
            lambda z, wanted: 1 / _bisect(z, wanted),
        "the entropy is measured in bits: use the natural logarithm":
            lambda z, wanted: _bisect(z, wanted * torch.tensor(2.0).log()),
        "only whole temperatures are tried":
            lambda z, wanted: min(range(1, 101), key=lambda T: abs(_entropy(z, T) - wanted)),
        "the temperatures are tried in steps of a tenth, which is too coarse for one per cent of a small temperature":
            lambda z, wanted: min((T / 10 for T in range(1, 1001)), key=lambda T: abs(_entropy(z, T) - wanted)),
    },
)  # fmt: skip
def temperature_for_entropy(logits, entropy):
    """The temperature between 0.01 and 1000 at which softmax(logits / T) has the wanted entropy, in nats.

    logits: (classes,). Returns a number, right to one per cent.
    """
    low, high = 0.01, 1000.0
    # --- your code
    for _ in range(60):
        middle = (low * high) ** 0.5
        p = torch.softmax(logits / middle, dim=-1)
        if torch.special.entr(p).sum() < entropy:
            low = middle
        else:
            high = middle
    return middle
    # --- end


# ------------------------------------------------------------------------------------ T^2 by differentiating


def _gradient_cases():
    return [(logits(6, 6, 10), logits(7, 6, 10), 4.0), (logits(8, 3, 5), logits(9, 3, 5), 1.5),
            (logits(10, 2, 4), logits(11, 2, 4), 20.0)]  # fmt: skip


def _slope(student, teacher, T, *, factor=None, batch=True):
    difference = torch.softmax(student / T, -1) - torch.softmax(teacher / T, -1)
    return (T if factor is None else factor) * difference / (len(student) if batch else 1)


@exercise(
    cases=_gradient_cases,
    hints=[
        "The gradient of a cross-entropy in its logits is prediction minus target. What is a logit here?",
        "The softmax sees z / T: the chain rule gives a factor 1 / T. The loss has T^2 in front, and a mean.",
        """`T * (softmax(student / T) - softmax(teacher / T)) / batch`. For large T the difference falls like
        1 / T, so the whole keeps its size: that is why T^2 is there.""",
    ],
    mistakes={
        "this is the gradient without T^2: it falls like 1 / T^2":
            lambda s, t, T: _slope(s, t, T, factor=1 / T),
        "the chain rule's 1 / T is missing: the softmax sees z / T, not z":
            lambda s, t, T: _slope(s, t, T, factor=T**2),
        "T^2 and the chain rule's 1 / T leave one T, not none":
            lambda s, t, T: _slope(s, t, T, factor=1.0),
        "the sign is turned round: it is student minus teacher, so that downhill leads to the teacher":
            lambda s, t, T: _slope(t, s, T),
        "the mean over the batch is missing: divide by the number of rows":
            lambda s, t, T: _slope(s, t, T, batch=False),
        "divided by the classes too: KL is summed over them and averaged over the batch":
            lambda s, t, T: _slope(s, t, T) / s.shape[-1],
        "the probabilities are taken at T = 1; both are softened":
            lambda s, t, T: T * _slope(s, t, 1.0),
        "the teacher is not softened: both are divided by T":
            lambda s, t, T: _slope(s, T * t, T),
        "the student is not softened: both are divided by T":
            lambda s, t, T: _slope(T * s, t, T),
    },
)  # fmt: skip
def soft_gradient(student_logits, teacher_logits, temperature):
    """The gradient of T^2 * KL(teacher at T || student at T) in the student's logits, without autograd.

    KL is summed over the classes and averaged over the batch.
    student_logits, teacher_logits: (batch, classes). Returns (batch, classes).
    """
    # --- your code
    student = torch.softmax(student_logits / temperature, dim=-1)
    teacher = torch.softmax(teacher_logits / temperature, dim=-1)
    return temperature * (student - teacher) / len(student_logits)
    # --- end


# ------------------------------------------------------------------------------------ two losses to repair


def _repair_cases():
    return [(logits(12, 6, 10), logits(13, 6, 10), 4.0), (logits(14, 4, 5), logits(15, 4, 5), 1.0),
            (logits(16, 5, 3), logits(17, 5, 3), 8.0)]  # fmt: skip


def _term(student, teacher, T, *, factor=None, student_T=None, teacher_T=None):
    log_p = F.log_softmax(student / (student_T or T), -1)
    q = F.softmax(teacher / (teacher_T or T), -1)
    return (T**2 if factor is None else factor) * F.kl_div(log_p, q, reduction="batchmean")


_TERM_MISTAKES = {
    "the roles are swapped: soft targets come from the teacher, log-probabilities from the student":
        lambda s, t, T: _term(t, s, T),
    "the teacher is not softened: both are divided by T":
        lambda s, t, T: _term(s, t, T, teacher_T=1.0),
    "the student is not softened: both are divided by T":
        lambda s, t, T: _term(s, t, T, student_T=1.0),
    "this is the mean over the classes as well; KL is summed over them and averaged over the batch":
        lambda s, t, T: _term(s, t, T) / s.shape[-1],
    "this is the sum over the batch: KL is summed over the classes and averaged over the batch":
        lambda s, t, T: _term(s, t, T) * len(s),
    "this is the cross-entropy with the soft targets: its gradient is right, but KL takes off the targets' entropy":
        lambda s, t, T: _term(s, t, T) + T**2 * _entropy(t, T).mean(),
    "F.kl_div is given the student's probabilities; its first argument has to be LOG-probabilities":
        lambda s, t, T: T**2 * F.kl_div(F.softmax(s / T, -1), F.softmax(t / T, -1), reduction="batchmean"),
    "the loss has no gradient: .item(), .detach() or .numpy() cuts the student off":
        lambda s, t, T: _term(s, t, T).detach(),
}  # fmt: skip


def _soft_loss_as_found(student_logits, teacher_logits, temperature):
    # --- your code
    log_student = F.log_softmax(teacher_logits / temperature, dim=-1)
    soft_targets = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, soft_targets, reduction="batchmean")
    # --- end


@exercise(
    cases=_repair_cases,
    probe=value_and_gradient,
    start=_soft_loss_as_found,
    hints=[
        "Print the loss for a few students. What do you notice?",
        "It is 0 whatever the student says: only the labels teach. Who is compared with whom?",
        "`log_student` has to be made from the student's logits.",
    ],
    mistakes={
        **_TERM_MISTAKES,
        "T^2 got lost in the repair":
            lambda s, t, T: _term(s, t, T, factor=1.0),
        "T makes up for half of it: the factor is T^2":
            lambda s, t, T: _term(s, t, T, factor=T),
        "divided by T^2 instead of multiplied: that makes it vanish twice as fast":
            lambda s, t, T: _term(s, t, T, factor=T**-2),
        "T^2 multiplies the loss; the logits are still divided by T":
            lambda s, t, T: _term(s, t, T, factor=1.0, student_T=T**2, teacher_T=T**2),
    },
)  # fmt: skip
def repair_soft_loss(student_logits, teacher_logits, temperature):
    """Repair: a distillation term with which students come out the same, whoever teaches them.

    student_logits, teacher_logits: (batch, classes). Returns a scalar.
    """
    # --- your code
    log_student = F.log_softmax(student_logits / temperature, dim=-1)
    soft_targets = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, soft_targets, reduction="batchmean")
    # --- end
