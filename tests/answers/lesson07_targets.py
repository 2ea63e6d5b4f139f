"""Answers to the exercise of lesson 07 on stored targets."""

import torch
import torch.nn.functional as F

from answers import Answers


def in_float64_with_a_mask(student_logits, kept_log_probs, kept_classes, temperature):
    q = (student_logits.double() / temperature).log_softmax(1)
    kept = torch.nn.functional.one_hot(kept_classes, q.shape[1]).sum(1).bool()
    rest_q = q.masked_fill(kept, -1e30).logsumexp(1)
    p = kept_log_probs.double().exp()
    rest_p = (1 - p.sum(1)).clamp(min=0)
    of_kept = (p * (kept_log_probs - q.gather(1, kept_classes))).sum(1)
    of_bucket = torch.special.xlogy(rest_p, rest_p) - rest_p * rest_q
    return temperature**2 * (of_kept + of_bucket).mean()


def by_sorting_the_others(student_logits, kept_log_probs, kept_classes, temperature):
    """The k + 1 logits of the student, of which softmax makes the same: the bucket's is the others' logsumexp."""
    rows = []
    for logits, classes in zip(student_logits / temperature, kept_classes.tolist(), strict=True):
        others = [number for number in range(len(logits)) if number not in classes]
        rows.append(torch.cat([logits[classes], logits[others].logsumexp(0, keepdim=True)]))
    rest = torch.log1p(-kept_log_probs.exp().sum(1, keepdim=True).clamp(max=1 - 1e-7))
    targets = torch.cat([kept_log_probs, rest], 1)
    loss = F.kl_div(torch.stack(rows).log_softmax(1), targets, reduction="batchmean", log_target=True)
    return temperature * temperature * loss


def stored_loss(z, kept, classes, T, *, factor=None, softened=True, bucket=None, teacher=None, reduction="batchmean"):
    """An answer by F.kl_div, with the student's and the teacher's bucket as they are told to be."""
    log_q = F.log_softmax(z / T if softened else z, dim=1)
    others = log_q.scatter(1, classes, -1e30)
    rest_q = others.logsumexp(1) if bucket is None else bucket(log_q, others, classes)
    rest_p = 1 - kept.exp().sum(1)
    rest_p = rest_p.clamp(min=1e-20).log() if teacher is None else teacher(rest_p)
    student = torch.cat([log_q.gather(1, classes), rest_q[:, None]], dim=1)
    target = torch.cat([kept, rest_p[:, None]], dim=1)
    loss = F.kl_div(student, target, log_target=True, reduction=reduction)
    return loss * (T**2 if factor is None else factor(T))


def of_the_others(reduce):
    """A bucket of the student: what `reduce` makes of the logarithms of the classes that are not kept."""
    return lambda log_q, others, classes: torch.stack([reduce(row[row > -1e29]) for row in others])


def subtracted(log_q, others, classes):
    return torch.log(1 - log_q.exp().gather(1, classes).sum(1))


def renormalised(z, kept, classes, T, student_too=True):
    target = kept.exp() / kept.exp().sum(1, keepdim=True)
    picked = (z / T).gather(1, classes).log_softmax(1) if student_too else (z / T).log_softmax(1).gather(1, classes)
    return T**2 * F.kl_div(picked, target, reduction="batchmean")


def kept_terms_only(z, kept, classes, T):
    return T**2 * F.kl_div((z / T).log_softmax(1).gather(1, classes), kept.exp(), reduction="batchmean")


def with_the_rest_spread(z, kept, classes, T):
    rest = (1 - kept.exp().sum(1, keepdim=True)).clamp(min=0) / (z.shape[1] - kept.shape[1])
    target = rest.expand_as(z).scatter(1, classes, kept.exp())
    return T**2 * F.kl_div((z / T).log_softmax(1), target, reduction="batchmean")


def with_zeros_for_logits(z, kept, classes, T):
    target = torch.zeros_like(z).scatter(1, classes, kept).softmax(1)
    return T**2 * F.kl_div((z / T).log_softmax(1), target, reduction="batchmean")


def turned_round(z, kept, classes, T):
    log_q = (z / T).log_softmax(1)
    rest_q = log_q.scatter(1, classes, -1e30).logsumexp(1, keepdim=True)
    student = torch.cat([log_q.gather(1, classes), rest_q], 1)
    teacher = torch.cat([kept, (1 - kept.exp().sum(1, keepdim=True)).clamp(min=1.2e-38).log()], 1)
    return T**2 * F.kl_div(teacher, student, log_target=True, reduction="batchmean")


def cross_entropy(z, kept, classes, T):
    target = torch.cat([kept.exp(), (1 - kept.exp().sum(1, keepdim=True)).clamp(min=0)], 1)
    log_q = (z / T).log_softmax(1)
    rest_q = log_q.scatter(1, classes, -1e30).logsumexp(1, keepdim=True)
    return -(T**2) * (target * torch.cat([log_q.gather(1, classes), rest_q], 1)).sum(1).mean()


STORED_TARGET_LOSS = Answers(
    wrong={
        "the teacher's and the student's": renormalised,
        "which they do not": lambda *given: renormalised(*given, student_too=False),
        "the bucket's own term is missing": kept_terms_only,
        "the teacher's rest is spread": with_the_rest_spread,
        "got logit 0": with_zeros_for_logits,
        "the mean of its other probabilities": lambda *given: stored_loss(
            *given, bucket=of_the_others(lambda row: row.exp().mean().log())),
        "adds up logarithms": lambda *given: stored_loss(*given, bucket=of_the_others(torch.sum)),
        "the mean of its logarithms": lambda *given: stored_loss(*given, bucket=of_the_others(torch.mean)),
        "its largest other class only": lambda *given: stored_loss(*given, bucket=of_the_others(torch.max)),
        "1 - sum rounds to 0": lambda *given: stored_loss(*given, bucket=subtracted),
        "0 * log 0 is no number": lambda *given: stored_loss(*given, teacher=torch.log),
        "T^2 is missing": lambda *given: stored_loss(*given, factor=lambda T: 1),
        "the factor is T and not T^2": lambda *given: stored_loss(*given, factor=lambda T: T),
        "the mean is taken over the outcomes too": lambda *given: stored_loss(*given, reduction="mean"),
        "summed over the batch": lambda *given: stored_loss(*given, reduction="sum"),
        "the student is not softened": lambda *given: stored_loss(*given, softened=False),
        "the teacher is softened twice": lambda z, kept, classes, T: stored_loss(z, kept / T, classes, T),
        "the KL goes the other way round": turned_round,
        "this is the cross-entropy": cross_entropy,
        "the student's first k classes": lambda z, kept, classes, T: stored_loss(
            z, kept, torch.arange(kept.shape[1]).repeat(len(z), 1), T),
        "the student's own k largest": lambda z, kept, classes, T: stored_loss(
            z, kept, z.argsort(1, descending=True)[:, : kept.shape[1]], T),
        "the loss has no gradient": lambda *given: stored_loss(*given).item(),
        "It is -1 times the right result": lambda *given: -stored_loss(*given),
        "The loss contains nan": lambda z, kept, classes, T: F.kl_div(
            (z / T).log_softmax(1).gather(1, classes), kept, reduction="batchmean"),
        "changes its inputs in place": lambda z, kept, classes, T: stored_loss(z.div_(T), kept, classes, 1),
    },
    right=[in_float64_with_a_mask, by_sorting_the_others],
)  # fmt: skip
