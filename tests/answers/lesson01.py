"""Answers to the exercises of lesson 01."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

from answers import Answers

# ------------------------------------------------------------------ soften


def soften_by_hand(logits, temperature):
    weights = ((logits - logits.max(dim=1, keepdim=True).values) / temperature).exp()
    return weights / weights.sum(dim=1, keepdim=True)


def soften_in_numpy(logits, temperature):
    z = logits.double().numpy() / temperature
    return np.exp(z - np.logaddexp.reduce(z, axis=1)[:, None])


def soften_row_by_row(logits, temperature):
    return torch.stack([F.softmax(row / temperature, dim=0) for row in logits])


def without_normalising(logits, temperature):
    return (logits / temperature - logits.max(dim=1, keepdim=True).values / temperature).exp()


SOFTEN = Answers(
    wrong={
        "has to divide": lambda logits, T: F.softmax(T * logits, dim=1),
        "temperature is not used": lambda logits, T: soften_by_hand(logits, 1),
        "over the batch instead of the classes": lambda logits, T: F.softmax(logits / T, dim=0),
        "before the softmax": lambda logits, T: F.softmax(logits, dim=1) / T,
        "exp overflows": lambda logits, T: torch.exp(logits / T) / torch.exp(logits / T).sum(1, keepdim=True),
        "want normalising again": lambda logits, T: F.softmax(logits, dim=1).pow(1 / T),
        "log-probabilities": lambda logits, T: F.log_softmax(logits / T, dim=1),
        "contains 1 where": without_normalising,
        "of shape (40,)": lambda logits, T: F.softmax(logits / T, dim=1).flatten(),
        "changes its inputs in place": lambda logits, T: logits.div_(T).softmax(dim=1),
    },
    right=[soften_by_hand, soften_in_numpy, soften_row_by_row],
)

# ------------------------------------------------------------------ kd_loss


def written_out(student, teacher, labels, T, alpha):
    log_p, log_q = F.log_softmax(student / T, dim=1), F.log_softmax(teacher / T, dim=1)
    distill = (log_q.exp() * (log_q - log_p)).sum(dim=1).mean()
    task = F.nll_loss(F.log_softmax(student, dim=1), labels)
    return alpha * distill * T**2 + (1 - alpha) * task


def by_a_module_and_logarithms(student, teacher, labels, T, alpha):
    divergence = torch.nn.KLDivLoss(reduction="sum", log_target=True)
    distill = divergence(F.log_softmax(student / T, 1), F.log_softmax(teacher / T, 1)) / student.size(0)
    return alpha * (T * T) * distill + (1.0 - alpha) * torch.nn.CrossEntropyLoss()(student, labels)


def cross_entropy_less_entropy(student, teacher, labels, T, alpha):
    q = torch.softmax(teacher / T, dim=-1)
    distill = F.cross_entropy(student / T, q) - torch.special.entr(q).sum(dim=-1).mean()
    return torch.lerp(F.cross_entropy(student, labels), T**2 * distill, alpha)


def soft_cross_entropy(student, teacher, labels, T, alpha):
    soft = -(torch.softmax(teacher / T, 1) * torch.log_softmax(student / T, 1)).sum(1).mean()
    return alpha * T**2 * soft + (1 - alpha) * F.cross_entropy(student, labels)


def kd(distill, factor=None, task=None, weight=None):
    """A loss whose distillation term is distill(student, teacher, T)."""

    def loss(student, teacher, labels, T, alpha):
        labels_term = F.cross_entropy(student, labels) if task is None else task(student, labels, T)
        soft_term = (T**2 if factor is None else factor(T)) * distill(student, teacher, T)
        return alpha * soft_term + (1 - alpha if weight is None else weight(alpha)) * labels_term

    return loss


def kl(student, teacher, student_T, teacher_T, reduction="batchmean"):
    return F.kl_div(F.log_softmax(student / student_T, 1), F.softmax(teacher / teacher_T, 1), reduction=reduction)


KD_LOSS = Answers(
    wrong={
        "the teacher is not softened": kd(lambda s, t, T: kl(s, t, T, 1)),
        "the student is not softened": kd(lambda s, t, T: kl(s, t, 1, T)),
        "neither student nor teacher is softened": kd(lambda s, t, T: kl(s, t, 1, 1)),
        "its gradient is right, its value is not": soft_cross_entropy,
        "T^2 is missing, and mean instead of batchmean": kd(lambda s, t, T: kl(s, t, T, T, "mean"), lambda T: 1),
        "you forgot T^2": kd(lambda s, t, T: kl(s, t, T, T), lambda T: 1),
        "T instead of T^2": kd(lambda s, t, T: kl(s, t, T, T), lambda T: T),
        "mean instead of batchmean: ": kd(lambda s, t, T: torch.nn.KLDivLoss()(
            F.log_softmax(s / T, 1), F.softmax(t / T, 1))),
        "sum instead of batchmean": kd(lambda s, t, T: kl(s, t, T, T, "sum")),
        "are swapped": kd(lambda s, t, T: kl(t, s, T, T)),
        "alpha weighs the wrong term": lambda s, t, y, T, a: written_out(s, t, y, T, 1 - a),
        "is softened too": kd(lambda s, t, T: kl(s, t, T, T), task=lambda s, y, T: F.cross_entropy(s / T, y)),
        "is given probabilities": kd(
            lambda s, t, T: kl(s, t, T, T), task=lambda s, y, T: F.cross_entropy(s.softmax(1), y)),
        "has to be LOG-probabilities": kd(
            lambda s, t, T: F.kl_div(F.softmax(s / T, 1), F.softmax(t / T, 1), reduction="batchmean")),
        "gives NaN where one is 0": kd(
            lambda s, t, T: ((q := F.softmax(t / T, 1)) * (q.log() - F.log_softmax(s / T, 1))).sum(1).mean()),
        "is infinite where a probability underflows": kd(
            lambda s, t, T: F.kl_div(F.softmax(s / T, 1).log(), F.softmax(t / T, 1), reduction="batchmean")),
        "has no gradient": lambda s, t, y, T, a: written_out(s, t, y, T, a).item(),
        "belongs to the teacher's alone": lambda s, t, y, T, a: T**2 * kd(
            lambda s, t, T: kl(s, t, T, T), lambda T: 1)(s, t, y, T, a),
        "1 - alpha is missing": kd(lambda s, t, T: kl(s, t, T, T), weight=lambda a: 1),
        "it should be a single number": lambda s, t, y, T, a: (
            a * T**2 * F.kl_div(F.log_softmax(s / T, 1), F.softmax(t / T, 1), reduction="none").sum(1)
            + (1 - a) * F.cross_entropy(s, y, reduction="none")),
        "times the right result on every input": lambda s, t, y, T, a: 2 * written_out(s, t, y, T, a),
        "changes its inputs in place": lambda s, t, y, T, a: written_out(s.mul_(1.0).add_(1), t, y, T, a),
    },
    right=[written_out, by_a_module_and_logarithms, cross_entropy_less_entropy],
)  # fmt: skip

# ------------------------------------------------------------------ train_by_hand


def loop(step, *, order=None, every=1):
    """The given lines of the exercise, with `step(student, optimizer, schedule, compute_loss, rows)` inside."""

    def train(student, images, labels, teacher_logits, loss, epochs, seed):
        batches = -(-len(images) // 32)
        optimizer = torch.optim.AdamW(student.parameters(), lr=0.01, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=batches * epochs + 1)
        for epoch in range(epochs):
            torch.manual_seed(seed * 1_000_003 + epoch)
            for rows in torch.randperm(len(images)).tensor_split(batches):
                step(student, images, labels, teacher_logits, loss, rows, optimizer, schedule)

    return train


def gradients_away_first(student, images, labels, teacher_logits, loss, rows, optimizer, schedule):
    optimizer.zero_grad()
    loss(student(images[rows]), teacher_logits[rows], labels[rows]).backward()
    optimizer.step()
    schedule.step()


def gradients_away_last(student, images, labels, teacher_logits, loss, rows, optimizer, schedule):
    inputs, targets, soft = images.index_select(0, rows), labels[rows], teacher_logits.index_select(0, rows)
    value = loss(student(inputs), soft, targets)
    value.backward()
    optimizer.step()
    for parameter in student.parameters():
        parameter.grad = None
    schedule.step()


def gradients_by_autograd(student, images, labels, teacher_logits, loss, rows, optimizer, schedule):
    value = loss(student(images[rows]), teacher_logits[rows], labels[rows])
    parameters = list(student.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
    schedule.step()


def with_steps(*, zero=True, step=True, turn=True):
    def inner(student, images, labels, teacher_logits, loss, rows, optimizer, schedule):
        if zero:
            optimizer.zero_grad()
        loss(student(images[rows]), teacher_logits[rows], labels[rows]).backward()
        if step:
            optimizer.step()
        if turn:
            schedule.step()

    return inner


def on_batch(compute):
    def inner(student, images, labels, teacher_logits, loss, rows, optimizer, schedule):
        value = compute(student, images, labels, teacher_logits, loss, rows)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    return inner


TRAIN_BY_HAND = Answers(
    wrong={
        "the gradients of all batches add up": loop(with_steps(zero=False)),
        "no weight moves": loop(with_steps(step=False)),
        "the learning rate never changes": loop(with_steps(turn=False)),
        "logits are read by place": loop(on_batch(
            lambda s, x, y, v, loss, rows: loss(s(x[rows]), v[: rows.numel()], y[rows]))),
        "labels are read by place": loop(on_batch(
            lambda s, x, y, v, loss, rows: loss(s(x[rows]), v[rows], y[: rows.numel()]))),
        "student and teacher are swapped": loop(on_batch(
            lambda s, x, y, v, loss, rows: loss(v[rows], s(x[rows]), y[rows]))),
        "each step looks at all images": loop(on_batch(lambda s, x, y, v, loss, rows: loss(s(x), v, y))),
        "The change of the weights contains": loop(on_batch(
            lambda s, x, y, v, loss, rows: loss(s(x[rows]), v[rows].softmax(1), y[rows]))),
        "does not require grad": loop(on_batch(
            lambda s, x, y, v, loss, rows: loss(s(x[rows]).detach(), v[rows], y[rows]))),
    },
    right=[loop(gradients_away_first), loop(gradients_away_last), loop(gradients_by_autograd)],
)  # fmt: skip

# ------------------------------------------------------------------ aligned_logits


def by_searching_in_sorted_indices(cached_logits, cached_indices, batch_indices):
    order = torch.argsort(cached_indices)
    return cached_logits[order[torch.searchsorted(cached_indices[order], batch_indices)]]


def by_comparing_all_with_all(cached_logits, cached_indices, batch_indices):
    same = batch_indices[:, None] == cached_indices[None, :]
    return same.to(cached_logits.dtype) @ cached_logits


def by_a_list_and_its_index(cached_logits, cached_indices, batch_indices):
    known = cached_indices.tolist()
    return torch.stack([cached_logits[known.index(image)] for image in batch_indices.tolist()])


def by_a_table_of_all_images(cached_logits, cached_indices, batch_indices):
    row_of = torch.full((int(cached_indices.max()) + 1,), -1)
    row_of[cached_indices] = torch.arange(len(cached_indices))
    return cached_logits[row_of[batch_indices]]


def inverse_permutation(cached_logits, cached_indices, batch_indices):
    inverse = torch.empty_like(cached_indices)
    inverse[cached_indices] = torch.arange(len(cached_indices))
    return cached_logits[inverse[batch_indices]]


ALIGNED_LOGITS = Answers(
    wrong={
        "read by batch order": lambda cached, known, batch: cached[torch.arange(len(batch))],
        "the images are numbered 0 to n - 1; their": lambda cached, known, batch: cached[known.argsort()[batch]],
        "their numbers may be any": inverse_permutation,
        "the wrong way": lambda cached, known, batch: cached.index_select(0, known.index_select(0, batch)),
        "in the cache's order": lambda cached, known, batch: cached[[i in batch.tolist() for i in known.tolist()]],
        "sorted by image index": lambda cached, known, batch: (
            by_searching_in_sorted_indices(cached, known, batch.sort().values)),
        "It still does what it did": lambda cached, known, batch: cached.index_select(0, batch),
        "of shape (12,)": lambda cached, known, batch: by_a_list_and_its_index(cached, known, batch)[:, 0],
        "contains": lambda cached, known, batch: by_a_list_and_its_index(cached, known, batch).softmax(dim=1),
    },
    right=[
        by_searching_in_sorted_indices,
        by_comparing_all_with_all,
        by_a_list_and_its_index,
        by_a_table_of_all_images,
    ],
)  # fmt: skip

# ------------------------------------------------------------------ paired_gain


def by_scipys_paired_test(with_teacher, labels_only):
    test = stats.ttest_rel(with_teacher, labels_only)
    low, high = test.confidence_interval(0.95)
    return np.mean(with_teacher) - np.mean(labels_only), low, high


def in_plain_python(with_teacher, labels_only):
    gains = [a - b for a, b in zip(with_teacher, labels_only, strict=True)]
    n = len(gains)
    mean = math.fsum(gains) / n
    error = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (n - 1) / n)
    quantile = {3: 4.302653, 5: 2.776445, 8: 2.364624}[n]
    return [mean, mean - quantile * error, mean + quantile * error]


def in_torch(with_teacher, labels_only):
    gains = torch.tensor(with_teacher, dtype=torch.float64) - torch.tensor(labels_only, dtype=torch.float64)
    low, high = stats.t.interval(0.95, len(gains) - 1, loc=gains.mean(), scale=stats.sem(gains))
    return torch.stack([gains.mean(), torch.tensor(low), torch.tensor(high)]).unbind()


def interval(gains, error, quantile):
    return np.mean(gains), np.mean(gains) - quantile * error, np.mean(gains) + quantile * error


def unpaired_by_hand(a, b):
    error = math.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    return interval(np.subtract(a, b), error, stats.t.ppf(0.975, 2 * len(a) - 2))


def of_differences(make):
    return lambda a, b: make(np.subtract(a, b), len(a))


PAIRED_GAIN = Answers(
    wrong={
        "unpaired: the two lists": unpaired_by_hand,
        "1.96 is for many runs": of_differences(lambda d, n: interval(d, stats.sem(d), 1.96)),
        "divide by the root of n": of_differences(lambda d, n: interval(d, d.std(ddof=1), stats.t.ppf(0.975, n - 1))),
        "a sample needs n - 1, ddof=1": of_differences(
            lambda d, n: interval(d, d.std() / n**0.5, stats.t.ppf(0.975, n - 1))),
        "two things: a sample needs n - 1": of_differences(lambda d, n: interval(d, d.std() / n**0.5, 1.96)),
        "the sign is turned round": lambda a, b: by_scipys_paired_test(b, a),
        "this is a 90 % interval": of_differences(lambda d, n: interval(d, stats.sem(d), stats.t.ppf(0.95, n - 1))),
        "n degrees of freedom": of_differences(lambda d, n: interval(d, stats.sem(d), stats.t.ppf(0.975, n))),
        "in another order": of_differences(lambda d, n: (by := by_scipys_paired_test(d, 0 * d))[1:2] + by[:1] + by[2:]),
        "the low end comes before": of_differences(
            lambda d, n: interval(d, stats.sem(d), -stats.t.ppf(0.975, n - 1))),
        "It is 100 times the right result": of_differences(
            lambda d, n: interval(100 * d, stats.sem(100 * d), stats.t.ppf(0.975, n - 1))),
        "one value where 3 values": of_differences(lambda d, n: d.mean()),
        "2 values where 3 values": lambda a, b: by_scipys_paired_test(a, b)[1:],
    },
    right=[by_scipys_paired_test, in_plain_python, in_torch],
)  # fmt: skip

ANSWERS = {
    "soften": SOFTEN,
    "kd_loss": KD_LOSS,
    "train_by_hand": TRAIN_BY_HAND,
    "aligned_logits": ALIGNED_LOGITS,
    "paired_gain": PAIRED_GAIN,
}
