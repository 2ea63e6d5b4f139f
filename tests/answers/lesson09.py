"""Answers to the exercises of lesson 09."""

import functools

import numpy as np
import torch
import torch.nn.functional as F

from answers import Answers
from answers.lesson09_generations import REPAIR_GENERATIONS
from answers.lesson09_statistics import STATISTICS_LOSS
from kdlib import losses

# ------------------------------------------------------------------ mutual_loss


def two_distillations(first_logits, second_logits, labels):
    def of(own, peer):
        terms = losses.distillation_loss(own, peer.detach(), labels, temperature=1.0, alpha=0.5)
        return 2 * terms.total

    return of(first_logits, second_logits) + of(second_logits, first_logits)


def by_target_logs(first_logits, second_logits, labels):
    with torch.no_grad():
        said = [F.log_softmax(logits, dim=-1) for logits in (second_logits, first_logits)]
    total = 0.0
    for logits, target in zip((first_logits, second_logits), said, strict=True):
        own = F.log_softmax(logits, dim=-1)
        total = total + F.nll_loss(own, labels)
        total = total + F.kl_div(own, target, log_target=True, reduction="sum") / labels.shape[0]
    return total


def by_cross_entropies(first_logits, second_logits, labels):
    """KL as a cross-entropy less the peer's entropy, in float64."""

    def of(own, peer):
        peer = peer.double().detach()
        p, log_p = peer.softmax(1), peer.log_softmax(1)
        return F.cross_entropy(own.double(), p) - F.cross_entropy(peer, p) + F.cross_entropy(own.double(), labels) + (
            0 * log_p.sum()
        )

    return of(first_logits, second_logits) + of(second_logits, first_logits)


def image_by_image(first_logits, second_logits, labels):
    images = []
    for z, v, label in zip(first_logits, second_logits, labels, strict=True):
        log_z, log_v = z - z.logsumexp(0), v - v.logsumexp(0)
        for own, peer in ((log_z, log_v.detach()), (log_v, log_z.detach())):
            images.append(-own[label] + torch.sum(peer.exp() * (peer - own)))
    return 2 * torch.stack(images).mean()


def both(term, *, labels=True):
    """An answer: beside the labels' term, `term` of the own logits, the peer's (detached) and the labels."""

    def answer(z, v, y):
        loss = term(z, v.detach(), y) + term(v, z.detach(), y)
        return loss + F.cross_entropy(z, y) + F.cross_entropy(v, y) if labels else loss

    return answer


def kl(own, peer, y=None, reduction="batchmean"):
    return torch.nn.KLDivLoss(reduction=reduction)(F.log_softmax(own, 1), F.softmax(peer, 1))


def without_detach(z, v, y):
    return F.cross_entropy(z, y) + kl(z, v) + F.cross_entropy(v, y) + kl(v, z)


def own_side_detached(z, v, y):
    labels = F.cross_entropy(z, y) + F.cross_entropy(v, y)
    return labels + kl(z.detach(), v) + kl(v.detach(), z)


def to_the_average(z, v, y):
    target = (0.5 * z.softmax(1) + 0.5 * v.softmax(1)).detach()
    parts = [F.cross_entropy(x, y) + F.kl_div(x.log_softmax(1), target, reduction="batchmean") for x in (z, v)]
    return sum(parts)


def by_quotients(own, peer, y):
    p, q = peer.softmax(1), own.softmax(1)
    return (p * (p / q).log()).sum(1).mean()


def with_small_number(own, peer, y):
    p, q = peer.softmax(1), own.softmax(1)
    return (p * (torch.log(p + 1e-8) - torch.log(q + 1e-8))).sum(1).mean()


def by_entropies(own, peer, y):
    p = peer.softmax(1)
    return (torch.special.xlogy(p, p) - p * own.softmax(1).log()).sum(1).mean()


def peers_plain_logs(own, peer, y):
    p = F.softmax(peer, 1)
    return torch.mean(torch.sum(p * (torch.log(p) - F.log_softmax(own, 1)), 1))


def in_place(z, v, y):
    z -= z.logsumexp(1, keepdim=True)
    return by_target_logs(z, v, y)


MUTUAL_LOSS = Answers(
    wrong={
        "a gradient flows into each network through what it says": without_detach,
        "this is KL(p_own || p_peer)": both(lambda own, peer, y: kl(peer, own)),
        ".detach() stands on the network that learns": own_side_detached,
        "the first network learns, the second does not": lambda z, v, y: F.cross_entropy(z, y) + kl(z, v.detach()),
        "the second network learns, the first does not": lambda z, v, y: F.cross_entropy(v, y) + kl(v, z.detach()),
        "the second network learns from labels alone": lambda z, v, y: (
            F.cross_entropy(z, y) + F.cross_entropy(v, y) + kl(z, v.detach())),
        "the first network learns from labels alone": lambda z, v, y: (
            F.cross_entropy(z, y) + F.cross_entropy(v, y) + kl(v, z.detach())),
        "the second network has no labels": lambda z, v, y: both(kl, labels=False)(z, v, y) + F.cross_entropy(z, y),
        "the first network has no labels": lambda z, v, y: both(kl, labels=False)(z, v, y) + F.cross_entropy(v, y),
        "the KL is missing": lambda z, v, y: F.cross_entropy(z, y) + F.cross_entropy(v, y),
        "the cross-entropy is missing": both(kl, labels=False),
        "summed over the batch; take the mean, of the KL": both(labels=False, term=lambda own, peer, y: (
            F.cross_entropy(own, y, reduction="sum") + kl(own, peer, reduction="sum"))),
        "the KL is summed over the batch": both(functools.partial(kl, reduction="sum")),
        "divides the KL by the number of classes too": both(functools.partial(kl, reduction="mean")),
        "the mean over both networks": lambda z, v, y: 0.5 * two_distillations(z, v, y),
        "only the KL is halved": both(lambda own, peer, y: 0.5 * kl(own, peer)),
        "the likeliest serves as a label": both(lambda own, peer, y: F.cross_entropy(own, peer.max(dim=1).indices)),
        "the mean of both networks is the target": to_the_average,
        "their entropy is missing": both(lambda own, peer, y: -(peer.softmax(1) * own.log_softmax(1)).sum(1).mean()),
        "log_softmax, and is given the probabilities": both(lambda own, peer, y: F.kl_div(
            own.softmax(-1), peer.softmax(-1), reduction="batchmean")),
        "log_softmax, and is given the logits": both(lambda own, peer, y: F.kl_div(
            own, peer.softmax(-1), reduction="sum") / len(y)),
        "takes the peer's logarithms for probabilities": both(lambda own, peer, y: F.kl_div(
            own.log_softmax(-1), peer.log_softmax(-1), reduction="batchmean")),
        "softmax is taken over the batch": both(lambda own, peer, y: F.kl_div(
            own.log_softmax(0), peer.softmax(0), reduction="batchmean")),
        "where a network is sure, and a quotient by 0": both(by_quotients),
        "where a network is sure, and the logarithm of 0 is -inf": both(by_entropies),
        "the logarithms stop at log(1e-08) = -18": both(with_small_number),
        "0 * -inf is no number": both(peers_plain_logs),
        "squared differences of probabilities": both(lambda own, peer, y: (
            F.softmax(own, 1) - F.softmax(peer, 1)).pow(2).sum() / len(y)),
        "squared differences of logits": both(lambda own, peer, y: (own - peer).square().mean()),
        "a number for each image": both(labels=False, term=lambda own, peer, y: (
            F.cross_entropy(own, y, reduction="none") + kl(own, peer, reduction="none").sum(dim=-1))),
        "the loss has no gradient": lambda z, v, y: two_distillations(z, v, y).item(),
        "cuts both networks off": lambda z, v, y: by_target_logs(z.detach(), v.detach(), y),
        "several numbers come back": lambda z, v, y: [
            F.cross_entropy(z, y) + kl(z, v.detach()), F.cross_entropy(v, y) + kl(v, z.detach())],
        "It is 2 times the right result": lambda z, v, y: 2 * image_by_image(z, v, y),
        "It changes its inputs in place": in_place,
        "The loss contains": both(lambda own, peer, y: 3 * kl(own, peer)),
    },
    right=[two_distillations, by_target_logs, by_cross_entropies, image_by_image],
)  # fmt: skip

# ------------------------------------------------------------------ nearest_labels


def by_cosine_similarity(embeddings, known_embeddings, known_labels):
    cosines = F.cosine_similarity(embeddings[:, None], known_embeddings[None], dim=-1)
    return known_labels.take(cosines.max(dim=-1).indices)


def known_ones_alone_are_normalised(embeddings, known_embeddings, known_labels):
    """Each embedding's own length changes nothing for it."""
    rows = known_embeddings / known_embeddings.norm(dim=1, keepdim=True)
    return known_labels[torch.argmax(embeddings @ rows.t(), dim=1)]


def by_distance_of_unit_vectors(embeddings, known_embeddings, known_labels):
    distances = torch.cdist(F.normalize(embeddings), F.normalize(known_embeddings))
    return known_labels[distances.argmin(dim=-1)]


def by_angle(embeddings, known_embeddings, known_labels):
    a, b = (x / x.square().sum(1, keepdim=True).sqrt() for x in (embeddings.double(), known_embeddings.double()))
    angles = torch.acos((a @ b.mT).clamp(-1, 1))
    return known_labels[angles.sort(dim=1).indices[:, 0]]


def one_by_one(embeddings, known_embeddings, known_labels):
    known = known_embeddings.double().numpy()
    found = []
    for row in embeddings.double().numpy():
        cosines = [float(row @ other) / np.linalg.norm(other) for other in known]
        found.append(int(known_labels[cosines.index(max(cosines))]))
    return torch.tensor(found)


def normalised(choose, **how):
    """An answer that chooses from the products of rows that are normalised so."""
    return lambda e, k, y: choose(F.normalize(e, **how) @ F.normalize(k, **how).T, y)


def by_class(e, k, y):
    means = [k[y == number].mean(0) if (y == number).any() else torch.zeros(k.shape[1]) for number in range(60)]
    cosines = F.cosine_similarity(e[:, None], torch.stack(means), dim=2)
    cosines[:, [not bool((y == number).any()) for number in range(60)]] = -2
    return cosines.argmax(1)


def most_frequent(e, k, y):
    return torch.full((len(e),), int(torch.bincount(y).argmax()))


def votes(e, k, y):
    nearest = torch.cdist(F.normalize(e), F.normalize(k)).topk(3, largest=False).indices
    return torch.mode(y[nearest]).values


NEAREST_LABELS = Answers(
    wrong={
        "the dot product": lambda e, k, y: y[torch.einsum("nd,md->nm", e, k).argmax(1)],
        "divide each row by its length first": lambda e, k, y: y[(F.normalize(e) @ k.T).argmax(1)],
        "the distance between the embeddings as they are": lambda e, k, y: y[
            (e[:, None] - k).square().sum(-1).argmin(1)],
        "the sum of the absolute differences": lambda e, k, y: y[(e[:, None] - k).abs().sum(-1).argmin(1)],
        "the farthest one: the greater the cosine": normalised(lambda c, y: y[c.min(1).indices]),
        "the farthest one: of distances": lambda e, k, y: y[(e[:, None] - k).norm(dim=-1).argmax(1)],
        "what points the other way counts as near": normalised(lambda c, y: y[c.square().argmax(1)]),
        "the numbers of the nearest rows": normalised(lambda c, y: c.max(1).indices),
        "each column is divided by its length": normalised(lambda c, y: y[c.argmax(1)], dim=0),
        "the second argument of F.normalize is p": normalised(lambda c, y: y[c.argmax(1)], p=1),
        "the nearest embedding of each known one": normalised(lambda c, y: y[c.max(0).indices]),
        "the most frequent label": most_frequent,
        "the nearest mean of a class": by_class,
        "the three nearest vote": votes,
        "the largest cosines come back": normalised(lambda c, y: c.max(dim=1).values),
        "they are numbers of another type": lambda e, k, y: by_angle(e, k, y.double()),
        "int64 tensors such as known_labels[rows]": lambda e, k, y: by_angle(e, k, y).numpy(),
        "a column comes back": normalised(lambda c, y: y[c.topk(1, dim=1).indices]),
        "the result is a list": lambda e, k, y: by_angle(e, k, y).tolist(),
        "It stops with": lambda e, k, y: y[(e @ k).argmax(1)],
    },
    right=[
        by_cosine_similarity, known_ones_alone_are_normalised, by_distance_of_unit_vectors, by_angle, one_by_one,
    ],
)  # fmt: skip

ANSWERS = {
    "repair_generations": REPAIR_GENERATIONS,
    "mutual_loss": MUTUAL_LOSS,
    "nearest_labels": NEAREST_LABELS,
    "statistics_loss": STATISTICS_LOSS,
}
