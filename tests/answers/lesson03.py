"""Answers to the exercises of lesson 03."""

import numpy as np
import torch
import torch.nn.functional as F

from answers import Answers


def kl_by_image(student, teacher, T):
    log_p, log_q = F.log_softmax(student / T, dim=1), F.log_softmax(teacher / T, dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(dim=1)


def gradient_by_autograd(student, teacher, labels, T, alpha, distill=None, task=None):
    """Of the sum over the images, so that each row is the gradient of its own image."""
    leaf = student.detach().clone().requires_grad_()
    soft = T**2 * kl_by_image(leaf, teacher, T) if distill is None else distill(leaf, teacher, T)
    hard = F.cross_entropy(leaf, labels, reduction="none") if task is None else task(leaf, labels, T)
    (alpha * soft + (1 - alpha) * hard).sum().backward()
    return leaf.grad


# ------------------------------------------------------------------ mixed_gradient


def row_by_row(student, teacher, labels, T, alpha):
    rows = []
    for z, v, label in zip(student, teacher, labels, strict=True):
        task = torch.softmax(z, dim=0)
        task[label] -= 1
        rows.append(alpha * T * (torch.softmax(z / T, 0) - torch.softmax(v / T, 0)) + (1 - alpha) * task)
    return torch.stack(rows)


def in_numpy(student, teacher, labels, T, alpha):
    def softmax(z):
        weights = np.exp(z - z.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    z, v = student.double().numpy(), teacher.double().numpy()
    onehot = np.eye(z.shape[1])[labels.numpy()]
    return alpha * T * (softmax(z / T) - softmax(v / T)) + (1 - alpha) * (softmax(z) - onehot)


MIXED_GRADIENT = Answers(
    wrong={
        "alpha weighs the labels here": lambda s, t, y, T, a: row_by_row(s, t, y, T, 1 - a),
        "the sign is that of the push": lambda s, t, y, T, a: -row_by_row(s, t, y, T, a),
        "the factor T of the teacher's gradient is missing": lambda s, t, y, T, a: gradient_by_autograd(
            s, t, y, T, a, distill=lambda s, t, T: T * kl_by_image(s, t, T)),
        "of its gradient the chain rule takes one T away": lambda s, t, y, T, a: gradient_by_autograd(
            s, t, y, T, a, distill=lambda s, t, T: T**3 * kl_by_image(s, t, T)),
        "T^2 is missing": lambda s, t, y, T, a: gradient_by_autograd(s, t, y, T, a, distill=kl_by_image),
        "uses the softened student": lambda s, t, y, T, a: a * row_by_row(s, t, y, T, 1) + (1 - a) * (
            F.softmax(s / T, dim=1) - F.one_hot(y, s.shape[1])),
        "the teacher is not softened": lambda s, t, y, T, a: (
            a * T * (F.softmax(s / T, 1) - F.softmax(t, 1)) + (1 - a) * row_by_row(s, t, y, T, 0)),
        "not divided by the size of the batch": lambda s, t, y, T, a: gradient_by_autograd(s, t, y, T, a) / len(y),
        "of shape (10,)": lambda s, t, y, T, a: gradient_by_autograd(s, t, y, T, a).mean(dim=0),
        "the result contains": lambda s, t, y, T, a: a * row_by_row(s, t, y, T, 1) + (1 - a) * F.softmax(s, dim=1),
    },
    right=[gradient_by_autograd, row_by_row, in_numpy],
)  # fmt: skip

# ------------------------------------------------------------------ repair_loss_a


def mixed_loss(student, teacher, labels, T, alpha):
    task = F.nll_loss(F.log_softmax(student, dim=1), labels)
    return alpha * T**2 * kl_by_image(student, teacher, T).mean() + (1 - alpha) * task


def image_by_image(student, teacher, labels, T, alpha):
    losses = []
    for image, label in enumerate(labels.tolist()):
        z, v = student[image] / T, F.softmax(teacher[image] / T, dim=0)
        distill = F.kl_div(F.log_softmax(z, dim=0), v, reduction="sum")
        losses.append(alpha * T**2 * distill - (1 - alpha) * F.log_softmax(student[image], dim=0)[label])
    return sum(losses) / len(losses)


def by_modules(student, teacher, labels, T, alpha):
    soft = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)
    distill = soft(F.log_softmax(student / T, -1), F.log_softmax(teacher / T, -1))
    return torch.nn.CrossEntropyLoss()(student, labels) * (1 - alpha) + distill * alpha * T * T


def mix(distill, task=F.cross_entropy):
    return lambda s, t, y, T, a: a * distill(s, t, T) + (1 - a) * task(s, y)


REPAIR_LOSS_A = Answers(
    wrong={
        "It still does what it did": lambda s, t, y, T, a: (
            a * T**2 * kl_by_image(s, t, T).mean() + (1 - a) * F.cross_entropy(s / T, y)),
        "T^2 in front of the label term": lambda s, t, y, T, a: (
            T**2 * (a * kl_by_image(s, t, T).mean() + (1 - a) * F.cross_entropy(s / T, y))),
        "T in front of the label term": lambda s, t, y, T, a: (
            a * T**2 * kl_by_image(s, t, T).mean() + (1 - a) * T * F.cross_entropy(s / T, y)),
        "the student is no longer softened": mix(lambda s, t, T: T**2 * kl_by_image(T * s, t, T).mean()),
        "the teacher is no longer softened": mix(lambda s, t, T: T**2 * kl_by_image(s, T * t, T).mean()),
        "T^2 got lost": mix(lambda s, t, T: kl_by_image(s, t, T).mean()),
        "alpha weighs the labels now": lambda s, t, y, T, a: mixed_loss(s, t, y, T, 1 - a),
        "the temperature is gone from both terms": mix(lambda s, t, T: T**2 * kl_by_image(s, t, 1).mean()),
        "this is a mean over them": mix(lambda s, t, T: T**2 * kl_by_image(s, t, T).mean() / t.size(1)),
        "the cross-entropy with the soft targets": mix(lambda s, t, T: (
            T**2 * -(F.softmax(t / T, dim=1) * F.log_softmax(s / T, dim=1)).sum(dim=1).mean())),
        "has no gradient": lambda s, t, y, T, a: mixed_loss(s, t, y, T, a).detach(),
        "it should be a single number": mix(lambda s, t, T: T**2 * kl_by_image(s, t, T)),
    },
    right=[mixed_loss, image_by_image, by_modules],
)  # fmt: skip

# ------------------------------------------------------------------ distill_share


def both_gradients(student, teacher, labels, T, alpha):
    """The weighted gradient of either term, by autograd."""
    with_teacher = gradient_by_autograd(student, teacher, labels, T, 1.0)
    return alpha * with_teacher, (1 - alpha) * gradient_by_autograd(student, teacher, labels, T, 0.0)


def share_by_autograd(student, teacher, labels, T, alpha):
    a, b = (gradient.norm() for gradient in both_gradients(student, teacher, labels, T, alpha))
    return a / (a + b)


def share_in_numpy(student, teacher, labels, T, alpha):
    gradients = in_numpy(student, teacher, labels, T, 1.0), in_numpy(student, teacher, labels, T, 0.0)
    a, b = (np.sqrt((gradient**2).mean()) for gradient in gradients)
    return alpha * a / (alpha * a + (1 - alpha) * b)


def share_by_ratio(student, teacher, labels, T, alpha):
    a, b = both_gradients(student, teacher, labels, T, alpha)
    return 1 / (1 + torch.dist(b, torch.zeros_like(b)) / torch.dist(a, torch.zeros_like(a)))


def share_of(norm):
    def share(student, teacher, labels, T, alpha):
        a, b = (norm(gradient) for gradient in both_gradients(student, teacher, labels, T, alpha))
        return (a / (a + b)).mean()

    return share


DISTILL_SHARE = Answers(
    wrong={
        "this is alpha itself": lambda s, t, y, T, a: torch.tensor(a),
        "the share of the loss": lambda s, t, y, T, a: (
            a * T**2 * kl_by_image(s, t, T).mean() / mixed_loss(s, t, y, T, a)),
        "the weights alpha and 1 - alpha are missing": lambda s, t, y, T, a: share_by_autograd(s, t, y, T, 1 / 2),
        "T^2 is missing": lambda s, t, y, T, a: share_by_autograd(s, t, y, T, a / T**2 / (a / T**2 + 1 - a)),
        "the chain rule's 1 / T is missing": lambda s, t, y, T, a: (
            share_by_autograd(s, t, y, T, a * T / (a * T + 1 - a))),
        "this is the share of the labels": lambda s, t, y, T, a: 1 - share_by_autograd(s, t, y, T, a),
        "alpha weighs the wrong gradient": lambda s, t, y, T, a: share_by_autograd(s, t, y, T, 1 - a),
        "a share of each image": share_of(lambda gradient: gradient.norm(dim=1)),
        "take the root": share_of(lambda gradient: gradient.square().sum()),
        "the result contains": share_of(lambda gradient: gradient.abs().max()),
    },
    right=[share_by_autograd, share_in_numpy, share_by_ratio],
)  # fmt: skip

# ------------------------------------------------------------------ our_alpha


def by_dividing_both(label_weight, distill_weight):
    total = sum([label_weight, distill_weight])
    weights = np.array([label_weight, distill_weight]) / total
    return [weights[1], total]


def by_their_ratio(label_weight, distill_weight):
    alpha = 1 / (1 + label_weight / distill_weight)
    return alpha, distill_weight / alpha


OUR_ALPHA = Answers(
    wrong={
        "this is the weight of the labels": lambda label, distill: (1 - distill / (label + distill), label + distill),
        "they have to add up to 1": lambda label, distill: (distill, 1),
        "larger by the sum of its weights": lambda label, distill: (by_their_ratio(label, distill)[0], 1),
        "not its inverse": lambda label, distill: (by_their_ratio(label, distill)[0], 1 / (label + distill)),
        "the ratio of the weights": lambda label, distill: (distill / label, distill + label),
        "one value where 2 values": lambda label, distill: distill / (label + distill),
        "value 2 contains": lambda label, distill: (distill / (label + distill), distill),
        "value 1 contains": lambda label, distill: (label + distill, distill / (label + distill)),
    },
    right=[by_dividing_both, by_their_ratio],
)

# ------------------------------------------------------------------ choose_alpha


def with_loops(results):
    accuracies = {}
    for _, row in results.iterrows():
        accuracies.setdefault(row["alpha"], []).append((row["validation"], row["test"]))
    best = max(accuracies, key=lambda alpha: sum(v for v, _ in accuracies[alpha]) / len(accuracies[alpha]))
    return best, sum(t for _, t in accuracies[best]) / len(accuracies[best])


def by_sorting(results):
    means = results.groupby("alpha", as_index=False).mean().sort_values("validation")
    return tuple(means.iloc[-1][["alpha", "test"]])


def by_a_pivot(results):
    means = results.pivot(index="alpha", columns="seed").T.groupby(level=0).mean()
    alpha = means.columns[means.loc["validation"].argmax()]
    return alpha, means.loc["test", alpha]


def chosen(by, report):
    """A choice that takes for each alpha the statistic `by`, and reports another."""

    def choice(results):
        groups = dict(list(results.groupby("alpha")))
        best = max(groups, key=lambda alpha: by(groups[alpha]))
        return best, report(groups[best])

    return choice


CHOOSE_ALPHA = Answers(
    wrong={
        "chosen on the test set": chosen(lambda rows: rows.test.mean(), lambda rows: rows.test.mean()),
        "that picks a lucky seed": lambda results: tuple(
            results.sort_values("validation").iloc[-1][["alpha", "test"]]),
        "it was used for choosing": chosen(
            lambda rows: rows.validation.mean(), lambda rows: rows.validation.mean()),
        "the worst alpha is chosen": chosen(lambda rows: -rows.validation.mean(), lambda rows: rows.test.mean()),
        "the best test run": chosen(lambda rows: rows.validation.mean(), lambda rows: rows.test.max()),
        "one value where 2 values": lambda results: by_sorting(results)[1],
        "value 1 contains": lambda results: by_sorting(results)[::-1],
        "value 2 contains": chosen(
            lambda rows: rows.validation.mean(), lambda rows: (rows.test.mean() + rows.validation.mean()) / 2),
    },
    right=[with_loops, by_sorting, by_a_pivot],
)  # fmt: skip

ANSWERS = {
    "mixed_gradient": MIXED_GRADIENT,
    "repair_loss_a": REPAIR_LOSS_A,
    "distill_share": DISTILL_SHARE,
    "our_alpha": OUR_ALPHA,
    "choose_alpha": CHOOSE_ALPHA,
}
