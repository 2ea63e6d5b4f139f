"""Answers to the exercises of lesson 08 whose losses count in some places only."""

import torch
import torch.nn.functional as F

from answers import Answers
from kdlib.features import score_weighted_loss
from kdlib.tasks import regression

# ------------------------------------------------------------------ weighted_map_loss


def by_the_library(student, teacher, scores):
    return score_weighted_loss(student, teacher, scores.flatten(1), scores=lambda rows: rows.view_as(scores))


def by_broadcasting(student, teacher, scores):
    weights = scores.detach().unsqueeze(1).expand_as(student)
    total = weights.sum()
    if total == 0:
        return (0 * student).sum()
    return (weights * F.mse_loss(student, teacher.detach(), reduction="none")).sum() / total


def by_rows(student, teacher, scores):
    """A row a position, weighed in float64."""
    own, given = (part.double().movedim(1, -1).flatten(0, 2) for part in (student, teacher.detach()))
    weights = scores.detach().double().flatten()
    errors = (own - given).pow(2).mean(dim=1)
    return weights @ errors / (weights.sum() + 1e-9)


def by_einsum(student, teacher, scores):
    with torch.no_grad():
        shares = scores / max(float(scores.sum()), 1e-12) / student.shape[1]
        given = teacher.clone()
    apart = student - given
    return torch.einsum("bchw,bchw,bhw->", apart, apart, shares)


def maps(weigh=None, *, total=None, power=2, detach=("teacher", "scores"), eps=1e-12):
    """An answer: `weigh` puts the scores beside the squares, `total` is what is divided by."""

    def answer(student, teacher, scores):
        t = teacher.detach() if "teacher" in detach else teacher
        w = scores.detach() if "scores" in detach else scores
        squares = (student - t).abs() ** power
        weighed = (w[:, None] if weigh is None else weigh(w)) * squares
        below = student.size(1) * w.sum() if total is None else total(w, student)
        return weighed.sum() / (below + eps)

    return answer


def a_mean_of_images(student, teacher, scores, eps=1e-12):
    images = [maps(eps=eps)(*(part[None] for part in one)) for one in zip(student, teacher, scores, strict=True)]
    return torch.stack(images).mean()


def in_the_features(student, teacher, scores):
    w = scores.detach()[:, None]
    apart = (w * student - w * teacher.detach()).square()
    return apart.sum() / (w.sum() * student.shape[1]).clamp(min=1e-12)


def kept_at_one(student, teacher, scores):
    w, apart = scores.detach(), student - teacher.detach()
    return (w * (apart * apart).sum(1)).sum() / max(w.sum() * student.shape[1], 1)


def of_distances(student, teacher, scores):
    w = scores.detach()
    return (w * torch.linalg.vector_norm(student - teacher.detach(), dim=1)).sum() / (
        student.shape[1] * w.sum().clamp(min=1e-12)
    )


def highest_one(student, teacher, scores):
    peaks = scores.flatten(1).max(dim=1).values
    return maps()(student, teacher, scores / (peaks[:, None, None] + 1e-20))


def in_the_scores_themselves(student, teacher, scores):
    w = scores.detach()
    w /= w.sum() + 1e-12
    return (w * (student - teacher.detach()).square().mean(1)).sum()


WEIGHTED_MAP_LOSS = Answers(
    wrong={
        "the scores come in nowhere": lambda s, t, w: F.mse_loss(s, t.detach()),
        "it is divided by the number of positions": lambda s, t, w: (
            w.detach()[:, None] * F.mse_loss(s, t.detach(), reduction="none")).mean(),
        "the channels are forgotten": maps(total=lambda w, s: w.sum()),
        "a sum over the positions stands above, no mean": lambda s, t, w: maps()(s, t, w) / w.numel(),
        "nothing is divided": maps(total=lambda w, s: 1, eps=0),
        "as where they multiply the features": in_the_features,
        "squared, above and below": lambda s, t, w: maps()(s, t, w.square()),
        "image 0 go to channel 0": maps(weigh=lambda w: w),
        "meets the rows with the columns": maps(weigh=lambda w: w.unsqueeze(-1)),
        "meets the channels with the rows": maps(weigh=lambda w: w.unsqueeze(2)),
        "rows and columns of the scores are exchanged": lambda s, t, w: maps()(s, t, w.mT),
        "each image is divided by the sum of its own weights; one": a_mean_of_images,
        "by 0 where it has none": lambda s, t, w: a_mean_of_images(s, t, w, eps=0),
        "a largest one of 1": highest_one,
        "it divides 0 by 0": maps(eps=0),
        "kept at 1 or above": kept_at_one,
        "the absolute difference": maps(power=1),
        "the root of the squared distance": of_distances,
        "the loss has no gradient": lambda s, t, w: by_the_library(s, t, w).detach(),
        "the gradient reaches teacher_features and scores, which": maps(detach=()),
        "the gradient reaches scores, which": maps(detach=("teacher",)),
        "the gradient reaches teacher_features, which": maps(detach=("scores",)),
        "It changes its inputs": in_the_scores_themselves,
        "of shape (4, 4, 4)": lambda s, t, w: w.detach() * (s - t.detach()).square().sum(1),
    },
    right=[by_the_library, by_broadcasting, by_rows, by_einsum, maps()],
)  # fmt: skip

# ------------------------------------------------------------------ bounded_loss


def by_where(student, teacher, labels):
    own, other = (F.mse_loss(x, labels, reduction="none").sum(-1) for x in (student, teacher))
    return torch.where(own > other, own, torch.zeros_like(own)).mean()


def by_indexing(student, teacher, labels):
    own, other = ((x.double() - labels) ** 2 for x in (student, teacher))
    worse = own.sum(1) > other.sum(1)
    return own[worse].sum() / len(labels)


def by_a_loop(student, teacher, labels):
    total = 0 * student.sum()
    for one, bound, label in zip(student, teacher, labels, strict=True):
        error = torch.dot(one - label, one - label)
        if error > torch.dot(bound - label, bound - label):
            total = total + error
    return total / student.shape[0]


def errors(student, teacher, labels, power=2):
    return tuple((x - labels).abs().pow(power).sum(1) for x in (student, teacher))


def gate(value=None, worse=torch.gt, power=2):
    """An answer: what counts, of both errors, and where."""

    def answer(student, teacher, labels):
        own, other = errors(student, teacher, labels, power)
        counts = own if value is None else value(own, other)
        return (counts * worse(own, other).float()).mean()

    return answer


def where_it_acts(student, teacher, labels):
    own, other = errors(student, teacher, labels)
    worse = own > other
    return own[worse].mean() if worse.any() else 0 * own.sum()


def by_outputs(student, teacher, labels):
    own, other = (F.mse_loss(x, labels, reduction="none") for x in (student, teacher))
    own[own <= other] = 0
    return own.sum() / len(own)


def towards_the_teacher(student, teacher, labels):
    own, other = errors(student, teacher, labels)
    return F.mse_loss(student, teacher, reduction="none").sum(1).mul(own > other).mean()


def for_the_batch(student, teacher, labels):
    own, other = (x.mean() for x in errors(student, teacher, labels))
    return own if own > other else own * 0


BOUNDED_LOSS = Answers(
    wrong={
        "over the images alone where it acts; the others": where_it_acts,
        "which is no number where it acts nowhere": lambda s, t, y: torch.mean(
            torch.masked_select((s - y).square().sum(1), (s - y).square().sum(1) > (t - y).square().sum(1))),
        "the gate is the other way round": gate(worse=torch.lt),
        "the student's must be larger, > and not >=": gate(worse=torch.ge),
        "the gate is missing": lambda s, t, y: F.mse_loss(s, y, reduction="sum") / len(y),
        "what the student's error has above the teacher's": gate(value=torch.sub),
        "the distance to the teacher is what is learned": towards_the_teacher,
        "absolute errors": gate(power=1),
        "the root of the squared error": gate(value=lambda own, other: own.sqrt()),
        "each output has a gate of its own": by_outputs,
        "one gate for the whole batch": for_the_batch,
        "the teacher's error is what counts": gate(value=lambda own, other: other),
        "where the student is better the teacher's error counts": lambda s, t, y: torch.max(*errors(s, t, y)).mean(),
        "over the outputs too": lambda s, t, y: by_where(s, t, y) / y.shape[-1],
        "summed over the batch": lambda s, t, y: by_where(s, t, y) * len(y),
        "a number for each image": lambda s, t, y: (s - y).square().sum(1) * (
            (s - y).square().sum(1) > (t - y).square().sum(1)),
        "the loss has no gradient": lambda s, t, y: float(by_where(s, t, y)),
        "It is 0.5 times the right result": lambda s, t, y: by_where(s, t, y) / 2,
        "It stops with": lambda s, t, y: by_where(s, t, y).numpy(),
    },
    right=[by_where, by_indexing, by_a_loop, regression.bounded_loss, lambda s, t, y: gate()(s, t.detach(), y)],
)  # fmt: skip
