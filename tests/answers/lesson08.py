"""Answers to the exercises of lesson 08."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from answers import Answers
from answers.lesson08_weighed import BOUNDED_LOSS, WEIGHTED_MAP_LOSS
from kdlib import losses

# ------------------------------------------------------------------ repair_sigmoid_loss


def by_kl_div_twice(student_logits, teacher_logits, temperature):
    z, v = student_logits / temperature, teacher_logits / temperature
    yes = F.kl_div(F.logsigmoid(z), v.sigmoid(), reduction="batchmean")
    no = F.kl_div(F.logsigmoid(-z), torch.sigmoid(-v), reduction="batchmean")
    return (yes + no) * temperature**2


def by_a_softmax_of_two(student_logits, teacher_logits, temperature):
    both = [torch.stack([x, 0 * x], dim=-1).div(temperature).log_softmax(-1) for x in (student_logits, teacher_logits)]
    return temperature**2 * F.kl_div(*both, log_target=True, reduction="none").sum((1, 2)).mean()


def by_cross_entropies(student_logits, teacher_logits, temperature):
    """In float64, without the teacher's own."""
    z, v = student_logits.double() / temperature, teacher_logits.double() / temperature
    cross, own = (F.binary_cross_entropy_with_logits(x, v.sigmoid(), reduction="sum") for x in (z, v))
    return temperature**2 * (cross - own) / len(z)


def by_softplus(student_logits, teacher_logits, temperature):
    z, v = student_logits / temperature, teacher_logits / temperature
    images = (F.softplus(z) - F.softplus(v) - v.sigmoid() * (z - v)).sum(dim=-1)
    return temperature * temperature * images.mean()


def questions(student="log", teacher="log", *, factor=None, reduce=None, z_by=None, v_by=None):
    """An answer with the logarithms of yes and no that `student` and `teacher` name."""
    logs = {
        "log": lambda x: (F.logsigmoid(x), F.logsigmoid(-x)),
        "1 - p": lambda x: (F.logsigmoid(x), torch.log1p(-torch.sigmoid(x))),
        "plain": lambda x: (torch.sigmoid(x).log(), torch.log(1 - torch.sigmoid(x))),
        "eps": lambda x: (torch.log(torch.sigmoid(x) + 1e-8), torch.log(1 - torch.sigmoid(x) + 1e-8)),
        "clamp 1e-7": lambda x: ((p := torch.sigmoid(x).clamp(1e-7, 1 - 1e-7)).log(), (1 - p).log()),
        "1 - p + eps": lambda x: (F.logsigmoid(x), torch.log(1 - torch.sigmoid(x) + 1e-8)),
        "clamp": lambda x: ((p := torch.sigmoid(x).clamp(1e-8, 1 - 1e-8)).log(), (1 - p).log()),
    }

    def answer(z, v, T):
        z, v = z / (T if z_by is None else z_by), v / (T if v_by is None else v_by)
        p = v.sigmoid()
        (log_q, log_not_q), (log_p, log_not_p) = logs[student](z), logs[teacher](v)
        terms = p * (log_p - log_q) + (1 - p) * (log_not_p - log_not_q)
        loss = terms.sum() / len(terms) if reduce is None else reduce(terms)
        return loss * (T**2 if factor is None else factor(T))

    return answer


def by_quotients(z, v, T):
    p, q = (v / T).sigmoid(), (z / T).sigmoid()
    return T**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean()


def soft_labels(reduction):
    def answer(z, v, T):
        loss = F.binary_cross_entropy_with_logits(z / T, torch.sigmoid(v / T), reduction=reduction)
        return T**2 * (loss / len(z) if reduction == "sum" else loss)

    return answer


def of_probabilities(z, v, T):
    p, q = torch.sigmoid(v / T), torch.sigmoid(z / T)
    own = F.binary_cross_entropy(p, p, reduction="sum")
    return T**2 * (F.binary_cross_entropy(q, p, reduction="sum") - own) / len(z)


def normalised(z, v, T):
    p, q = torch.sigmoid(v / T), torch.sigmoid(z / T)
    p = p / p.sum(dim=1, keepdim=True)
    log_q = F.logsigmoid(z / T) - q.sum(dim=1, keepdim=True).log()
    return T**2 * F.kl_div(log_q, p, reduction="batchmean")


def only_no(z, v, T):
    return T**2 * F.kl_div(F.logsigmoid(-z / T), torch.sigmoid(-v / T), reduction="batchmean")


def with_abs(z, v, T):
    return T**2 * F.kl_div(F.logsigmoid(z / T), torch.sigmoid(v / T), reduction="none").abs().sum(1).mean()


REPAIR_SIGMOID_LOSS = Answers(
    wrong={
        "It still does what it did": lambda z, v, T: T**2 * F.kl_div(
            torch.nn.LogSigmoid()(z / T), torch.nn.Sigmoid()(v / T), reduction="sum") / len(z),
        "the gradient is right, but where student and teacher agree it is not 0": soft_labels("sum"),
        "takes the mean over the classes as well": soft_labels("mean"),
        "1 - sigmoid rounds to 0 where the student is sure": questions("1 - p"),
        "is sure of yes, student or teacher": questions("1 - p", "1 - p"),
        "where one is sure, student or teacher, and": by_quotients,
        "round to 0 and 1 where the student is sure, and": questions("plain"),
        "0 * -inf is no number": questions("log", "plain"),
        "in float32 1 - 1e-8 is 1: the student's clamp": questions("clamp"),
        "in float32 1 - 1e-8 is 1: the clamps": questions("clamp", "clamp"),
        "the logarithms stop at log(1e-08) = -18": questions("eps", "eps"),
        "at 1e-07 and 1 - 1e-07 stops the logarithms at -16": questions("clamp 1e-7", "clamp 1e-7"),
        "stops the logarithm of no at log(1e-8)": questions("1 - p + eps", "1 - p + eps"),
        "stops at 100": of_probabilities,
        "is not 0 where both agree, and has no gradient": lambda z, v, T: T**2 * F.binary_cross_entropy(
            torch.sigmoid(z / T), torch.sigmoid(v / T)),
        "now the mean is taken over the classes": lambda z, v, T: T**2 * F.kl_div(
            F.logsigmoid(z / T), torch.sigmoid(v / T), reduction="mean"),
        "only the answer no has a term now": only_no,
        "the mean is taken over the classes too": questions(reduce=torch.mean),
        "over yes and no and over the classes": questions(reduce=lambda terms: terms.mean() / 2),
        "summed over the batch": questions(reduce=torch.sum),
        "a number for each image": questions(reduce=lambda terms: terms.sum(-1)),
        "T^2 is missing": questions(factor=lambda T: 1),
        "the factor is T and not T^2": questions(factor=lambda T: T),
        "the teacher is not softened": questions(v_by=1),
        "the student is not softened": questions(z_by=1),
        "neither is softened": questions(z_by=1, v_by=1),
        "softmax makes the classes compete": losses.soft_target_loss,
        "made to sum to 1 over the classes": normalised,
        "The KL goes the other way round": lambda z, v, T: by_softplus(v, z, T),
        "the arguments of F.kl_div are exchanged": lambda z, v, T: by_kl_div_twice(v, z, T),
        "both terms compare the logarithms of yes": lambda z, v, T: T**2 * F.mse_loss(z, z) + T**2 * (
            F.logsigmoid(v / T) - F.logsigmoid(z / T)).sum() / len(z),
        "squared differences of probabilities": lambda z, v, T: T**2 * F.mse_loss(
            torch.sigmoid(z / T), torch.sigmoid(v / T), reduction="sum") / len(z),
        "the loss has no gradient": lambda z, v, T: by_kl_div_twice(z, v, T).item(),
        "The loss contains": with_abs,
    },
    right=[
        by_kl_div_twice, by_a_softmax_of_two, by_cross_entropies, by_softplus, losses.multilabel_distillation_loss,
    ],
)  # fmt: skip

# ------------------------------------------------------------------ item_and_direction


def by_logsumexp(logits, directions):
    n, classes = logits.shape
    table = logits.view(n, classes // directions, directions)
    return table.logsumexp(2).softmax(1), table.logsumexp(1).softmax(1)


def in_python(logits, directions):
    items = [[0.0] * (logits.shape[1] // directions) for _ in logits]
    ways = [[0.0] * directions for _ in logits]
    for n, row in enumerate(logits.double().tolist()):
        weights = [math.exp(value - max(row)) for value in row]
        for number, weight in enumerate(weights):
            item, direction = divmod(number, directions)
            items[n][item] += weight / math.fsum(weights)
            ways[n][direction] += weight / math.fsum(weights)
    return torch.tensor(items), torch.tensor(ways)


def by_slices(logits, directions):
    p = torch.softmax(logits.double(), dim=-1)
    items = sum(p[:, direction::directions] for direction in range(directions))
    parts = p.split(directions, dim=1)
    return [items, torch.stack(parts).sum(dim=0).numpy()]


def table(logits, directions):
    return logits.softmax(-1).reshape(logits.shape[0], logits.shape[1] // directions, directions)


def both(reduce, of=table):
    return lambda logits, directions: (reduce(of(logits, directions), -1), reduce(of(logits, directions), -2))


def raw(logits, directions):
    return logits.reshape(len(logits), -1, directions)


def then(function, answer=by_logsumexp):
    return lambda logits, directions: tuple(map(function, answer(logits, directions)))


def by_rows(reduce):
    def answer(logits, directions):
        values = raw(logits, directions)
        return reduce(F.softmax(values, 1), 2), reduce(F.softmax(values, 2), 1)

    return answer


def reshaped_the_other_way(logits, directions):
    values = logits.softmax(1).reshape(len(logits), directions, -1)
    return values.sum(dim=1), values.sum(dim=2)


def given_the_likeliest(logits, directions):
    """The table's own row or column of the likeliest, made to sum to 1."""
    found = []
    for one, of_items, of_ways in zip(table(logits, directions), *by_logsumexp(logits, directions), strict=True):
        column, row = one[:, of_ways.argmax()], one[of_items.argmax()]
        found.append((column / column.sum(), row / row.sum()))
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def by_exp(logits, directions):
    weights = torch.exp(logits)
    return both(torch.sum, lambda *_: raw(weights / weights.sum(1, keepdim=True), directions))(logits, directions)


ITEM_AND_DIRECTION = Answers(
    wrong={
        "the logits are averaged before the softmax": then(lambda x: x.softmax(1), both(torch.mean, raw)),
        "the logits are summed before the softmax": then(lambda x: x.softmax(1), both(torch.sum, raw)),
        "the largest logit stands for its whole row": then(lambda p: p / p.sum(1, keepdim=True), both(torch.amax)),
        "counts directions fastest": reshaped_the_other_way,
        "the largest probability stands for its row": both(torch.amax),
        "the two are exchanged": lambda z, d: by_logsumexp(z, d)[::-1],
        "logarithms come back": then(torch.log),
        "averaged: the probabilities": both(torch.mean),
        "as if these were equally likely": by_rows(torch.mean),
        "the sums do not add up to 1": by_rows(torch.sum),
        "softmax is taken once more": then(lambda p: F.softmax(p, dim=-1)),
        "softmax is taken over the clips": both(torch.sum, lambda z, d: raw(z.softmax(0), d)),
        "these are sums of logits": both(torch.sum, raw),
        "the likeliest of the other only": given_the_likeliest,
        "exp of a large logit is inf": by_exp,
        "the likeliest ones come back": then(lambda p: p.max(dim=1).indices),
        "one value where 2 values should be": lambda z, d: by_logsumexp(z, d)[0],
        "of shape (6, 4, 4)": lambda z, d: (table(z, d), table(z, d)),
    },
    right=[by_logsumexp, in_python, by_slices, lambda z, d: tuple(np.asarray(p) for p in in_python(z, d))],
)  # fmt: skip

ANSWERS = {
    "repair_sigmoid_loss": REPAIR_SIGMOID_LOSS,
    "item_and_direction": ITEM_AND_DIRECTION,
    "weighted_map_loss": WEIGHTED_MAP_LOSS,
    "bounded_loss": BOUNDED_LOSS,
}
