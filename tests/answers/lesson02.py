"""Answers to the exercises of lesson 02."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import optimize, special

from answers import Answers

# ------------------------------------------------------------------ softened_entropy


def by_a_distribution(logits, temperature):
    return torch.distributions.Categorical(logits=logits / temperature).entropy()


def by_scipy(logits, temperature):
    return special.entr(special.softmax(logits.double().numpy() / temperature, axis=1)).sum(axis=1)


def by_logsumexp(logits, temperature):
    z = logits.double() / temperature
    return torch.logsumexp(z, dim=1) - (z.softmax(dim=1) * z).sum(dim=1)


def entropy(logits, temperature=1.0):
    return torch.special.entr(F.softmax(logits / temperature, dim=-1)).sum(dim=-1)


SOFTENED_ENTROPY = Answers(
    wrong={
        "in bits": lambda z, T: by_a_distribution(z, T) * math.log2(math.e),
        "temperature is not used": lambda z, T: by_a_distribution(z, 1),
        "multiplies the logits": lambda z, T: by_a_distribution(z, 1 / T),
        "sign is turned round": lambda z, T: -by_a_distribution(z, T),
        "the mean over the classes": lambda z, T: torch.special.entr(F.softmax(z / T, 1)).mean(dim=1),
        "one number for the whole batch": lambda z, T: by_a_distribution(z, T).mean(),
        "0 * log(0) is NaN": lambda z, T: -(F.softmax(z / T, 1) * F.softmax(z / T, 1).log2() * math.log(2)).sum(1),
        "of shape (10,)": lambda z, T: torch.special.entr(F.softmax(z / T, 1)).sum(dim=0),
        "contains": lambda z, T: torch.special.entr(F.softmax(z, 1)).sum(1) * T,
    },
    right=[by_a_distribution, by_scipy, by_logsumexp],
)

# ------------------------------------------------------------------ temperature_for_entropy


def by_brents_method(logits, wanted):
    return optimize.brentq(lambda T: entropy(logits, T).item() - wanted, 0.01, 1000)


def by_a_grid_of_factors(logits, wanted):
    temperatures = np.geomspace(0.01, 1000, 2000)
    reached = by_scipy(logits[None] / torch.from_numpy(temperatures)[:, None], 1.0)
    return temperatures[np.abs(reached - wanted).argmin()]


def by_steps_of_a_hundredth(logits, wanted):
    temperatures = torch.arange(1, 100_001) / 100
    return temperatures[entropy(logits / temperatures[:, None]).sub(wanted).abs().argmin()]


def by_steps_that_shrink(logits, wanted):
    temperature, step = 0.01, 100.0
    while step > 1e-4:
        while entropy(logits, temperature + step) < wanted:
            temperature += step
        step /= 10
    return temperature


def halved_so_often(times, *, upwards=True):
    def search(logits, wanted):
        low, high = 0.01, 1000.0
        for _ in range(times):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if (entropy(logits, middle) < wanted) == upwards else (low, middle)
        return middle

    return search


def by_a_grid(temperatures):
    return lambda logits, wanted: min(temperatures, key=lambda T: abs(entropy(logits, T).item() - wanted))


TEMPERATURE_FOR_ENTROPY = Answers(
    wrong={
        "only whole temperatures": by_a_grid(range(1, 101)),
        "steps of a tenth": by_a_grid(np.arange(0.1, 100, 0.1).tolist()),
        "% off (allowed: 1 %)": halved_so_often(6),
        "5.3 % off": by_a_grid(np.geomspace(0.01, 1000, 100).tolist()),
        "contains 2 where 1.978": by_a_grid([0.5, 1, 2, 4, 8, 16, 32]),
        "the search runs the wrong way": halved_so_often(60, upwards=False),
        "is not proportional to T": lambda z, wanted: wanted / by_a_distribution(z, 1),
        "this is 1 / T": lambda z, wanted: 1 / by_brents_method(z, wanted),
        "measured in bits": lambda z, wanted: by_brents_method(z, wanted * math.log(2)),
        "returns nothing": lambda z, wanted: None if wanted > 2 else by_brents_method(z, wanted),
    },
    right=[by_brents_method, by_a_grid_of_factors, by_steps_of_a_hundredth, by_steps_that_shrink, halved_so_often(20)],
)

# ------------------------------------------------------------------ soft_gradient


def by_autograd(student, teacher, temperature):
    leaf = student.clone().requires_grad_()
    log_p, q = F.log_softmax(leaf / temperature, 1), F.softmax(teacher / temperature, 1)
    (temperature**2 * F.kl_div(log_p, q, reduction="batchmean")).backward()
    return leaf.grad


def by_differences(student, teacher, temperature):
    """Central differences of the loss, in double precision."""
    student, teacher = student.double(), teacher.double()
    q = F.softmax(teacher / temperature, 1)
    gradient = torch.zeros_like(student)
    for place in np.ndindex(*student.shape):
        step = torch.zeros_like(student)
        step[place] = 1e-4
        up, down = (F.kl_div(F.log_softmax((student + s) / temperature, 1), q, reduction="batchmean")
                    for s in (step, -step))  # fmt: skip
        gradient[place] = temperature**2 * (up - down) / 2e-4
    return gradient


def in_numpy(student, teacher, temperature):
    p, q = (special.softmax(z.double().numpy() / temperature, axis=1) for z in (student, teacher))
    return (p - q) / (len(p) / temperature)


def slope(factor, student_T=None, teacher_T=None):
    def gradient(student, teacher, T):
        p, q = F.softmax(student / (student_T or T), 1), F.softmax(teacher / (teacher_T or T), 1)
        return factor(T) * (p - q) / len(student)

    return gradient


SOFT_GRADIENT = Answers(
    wrong={
        "the gradient without T^2": slope(lambda T: 1 / T),
        "1 / T is missing": slope(lambda T: T * T),
        "leave one T, not none": slope(lambda T: 1),
        "the sign is turned round": lambda s, t, T: by_autograd(t, s, T),
        "the mean over the batch is missing": lambda s, t, T: len(s) * by_autograd(s, t, T),
        "taken at T = 1": slope(lambda T: T, 1, 1),
        "the teacher is not softened": slope(lambda T: T, None, 1),
        "the student is not softened": slope(lambda T: T, 1, None),
        "divided by the classes too": lambda s, t, T: by_autograd(s, t, T) / s.shape[1],
        "contains": lambda s, t, T: T * (F.log_softmax(s / T, 1) - F.log_softmax(t / T, 1)) / len(s),
        "a single number": lambda s, t, T: by_autograd(s, t, T).sum(),
    },
    right=[by_autograd, by_differences, in_numpy],
)

# ------------------------------------------------------------------ the two repairs


def written_out(student, teacher, temperature):
    log_p, log_q = (torch.log_softmax(z / temperature, dim=1) for z in (student, teacher))
    return temperature**2 * (log_q.exp() * (log_q - log_p)).sum(dim=1).mean()


def by_a_module(student, teacher, temperature):
    divergence = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)
    student, teacher = (F.log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    return temperature**2 * divergence(student, teacher)


def as_cross_entropy_less_entropy(student, teacher, temperature):
    q = F.softmax(teacher / temperature, dim=1)
    return temperature**2 * (F.cross_entropy(student / temperature, q) - entropy(teacher, temperature).mean())


def term(factor=lambda T: T**2, student_T=None, teacher_T=None, reduction="batchmean"):
    def loss(student, teacher, T):
        log_p, q = F.log_softmax(student / (student_T or T), 1), F.softmax(teacher / (teacher_T or T), 1)
        return factor(T) * F.kl_div(log_p, q, reduction=reduction)

    return loss


WRONG_TERMS = {
    "the roles are swapped": lambda s, t, T: written_out(t, s, T),
    "the teacher is not softened": term(teacher_T=1),
    "the student is not softened": term(student_T=1),
    "this is the mean over the classes as well": term(reduction="mean"),
    "this is the cross-entropy with the soft targets": lambda s, t, T: (
        T**2 * F.cross_entropy(s / T, F.softmax(t / T, dim=1))),
    "the loss has no gradient": lambda s, t, T: written_out(s.detach(), t, T),
    "this is the sum over the batch": term(reduction="sum"),
    "has to be LOG-probabilities": lambda s, t, T: (
        T**2 * F.kl_div(F.softmax(s / T, 1), F.softmax(t / T, 1), reduction="batchmean")),
    "it should be a single number": lambda s, t, T: (
        T**2 * F.kl_div(F.log_softmax(s / T, 1), F.softmax(t / T, 1), reduction="none").sum(1)),
}  # fmt: skip
RIGHT_TERMS = [written_out, by_a_module, as_cross_entropy_less_entropy]

ANSWERS = {
    "softened_entropy": SOFTENED_ENTROPY,
    "temperature_for_entropy": TEMPERATURE_FOR_ENTROPY,
    "soft_gradient": SOFT_GRADIENT,
    "repair_soft_loss": Answers(
        wrong={
            **WRONG_TERMS,
            "It still does what it did": lambda s, t, T: T**2 * written_out(t, t, T),
            "T^2 got lost": term(factor=lambda T: 1),
            "T makes up for half of it": term(factor=lambda T: T),
            "divided by T^2 instead of multiplied": term(factor=lambda T: 1 / T / T),
            "the logits are still divided by T": lambda s, t, T: written_out(s / T, t / T, T) / T**2,
        },
        right=RIGHT_TERMS,
    ),
}
