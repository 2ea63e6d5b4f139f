"""Exercises of lesson 09: two networks that teach each other, and the labels of the nearest neighbours.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import functools
import math

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._observe import ChangedInput, Complaint, is_unfinished

# ------------------------------------------------------------------------------------ two peers


def _peers():
    """Moderate logits, as many images as classes, and two networks that are sure of an answer."""
    sure, sure_of_another = logits(6, 3, 4), logits(7, 3, 4)
    sure[0, 1] = sure[1, 2] = sure_of_another[1, 0] = sure_of_another[2, 3] = 200.0
    pairs = [(logits(0, 5, 10), logits(1, 5, 10)), (logits(2, 4, 4), logits(3, 4, 4)), (sure, sure_of_another)]
    return [(*pair, (3 * torch.arange(len(pair[0])) + 1) % pair[0].shape[1]) for pair in pairs]


def _for_both_peers(function, first, second, labels):
    """Probe: the value, and the gradient in the logits of either peer (zero where it is cut off)."""
    leaves = [part.clone().requires_grad_() for part in (first, second)]
    seen = [leaf.clone() for leaf in leaves]  # no leaves, so that an in-place change is possible and can be told
    loss = function(*seen, labels)
    if not all(map(torch.equal, seen, leaves)):
        raise ChangedInput
    if is_unfinished(loss):
        return loss
    if isinstance(loss, tuple | list):
        raise Complaint(_SEVERAL)
    gradients = [torch.zeros_like(leaf) for leaf in leaves]
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        found = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        gradients = [zero if one is None else one for one, zero in zip(found, gradients, strict=True)]
    return {"loss": loss, "gradient in first_logits": gradients[0], "gradient in second_logits": gradients[1]}


_SEVERAL = "several numbers come back; one is asked for, the sum of both peers' losses"


def _from_labels(own, labels):
    return F.cross_entropy(own, labels)


def _from_peer(own, peer, reduction="batchmean"):
    """KL(p_peer || p_own), the peer's logits being as they are given."""
    return F.kl_div(own.log_softmax(1), peer.softmax(1), reduction=reduction)


def _sum_over_peers(part):
    """The sum over both of part(own, the peer's detached, labels)."""
    return lambda first, second, y: part(first, second.detach(), y) + part(second, first.detach(), y)


def _mimics(mimicry):
    """The labels' term as it should be, beside another one of the peer."""
    return _sum_over_peers(lambda own, peer, y: _from_labels(own, y) + mimicry(own, peer))


_mutual = _mimics(_from_peer)


def _learns(own, peer, y):
    return _from_labels(own, y) + _from_peer(own, peer.detach())


def _not_detached(first, second, y):
    return sum(_from_labels(a, y) + _from_peer(a, b) for a, b in ((first, second), (second, first)))


def _to_their_mean(own, peer):
    """KL(the mean of both, a target, || p_own)"""
    mean = (own.detach().softmax(1) + peer.softmax(1)) / 2
    return F.kl_div(own.log_softmax(1), mean, reduction="batchmean")


def _plain_logs(own, peer, lowest=0.0):
    p = peer.softmax(1)
    return (p * (peer.log_softmax(1) - (own.softmax(1) + lowest).log())).sum(1).mean()


def _logs_of_quotients(own, peer):
    p = peer.softmax(1)
    return (p * (p / own.softmax(1)).log()).sum(1).mean()


def _plain_logs_of_the_peer(own, peer):
    p = peer.softmax(1)
    return (p * (p.log() - own.log_softmax(1))).sum(1).mean()


def _stops():
    """Mistakes by diagnosis: logarithms of small numbers added or clamped."""
    return {
        f"the logarithms stop at log({lowest:g}) = {math.log(lowest):.0f}, and where a network is sure and wrong there "
        "is no gradient; log_softmax needs no such number":
            _mimics(functools.partial(_plain_logs, lowest=lowest))
        for lowest in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)
    }  # fmt: skip


@exercise(
    cases=_peers,
    probe=_for_both_peers,
    hints=[
        """Write the loss of one network first, as if the other one were a teacher: labels and a KL. What may a teacher
        not do while its student learns?""",
        """`F.cross_entropy(first_logits, labels)` and a KL whose target is `second_logits.detach().softmax(dim=1)`;
        then the same with the names exchanged.""",
        """`F.kl_div(own.log_softmax(dim=1), peer.detach().softmax(dim=1), reduction="batchmean")`, once for each of the
        two as `own`, and add up all four terms.""",
    ],
    mistakes={
        "a gradient flows into each network through what it says to the other: .detach() makes it a target":
            _not_detached,
        "this is KL(p_own || p_peer): the KL's arguments are exchanged, or .detach() stands on the network that learns":
            _mimics(lambda own, peer: _from_peer(peer, own)),
        "the first network learns, the second does not: the sum goes over both":
            _learns,
        "the second network learns, the first does not: the sum goes over both":
            lambda first, second, y: _learns(second, first, y),
        "the second network learns from labels alone; both learn from their peer":
            lambda first, second, y: _learns(first, second, y) + _from_labels(second, y),
        "the first network learns from labels alone; both learn from their peer":
            lambda first, second, y: _learns(second, first, y) + _from_labels(first, y),
        "the second network has no labels; both learn from labels and peer":
            lambda first, second, y: _learns(first, second, y) + _from_peer(second, first.detach()),
        "the first network has no labels; both learn from labels and peer":
            lambda first, second, y: _learns(second, first, y) + _from_peer(first, second.detach()),
        "nothing is learned from the peer: the KL is missing":
            _mimics(lambda own, peer: 0),
        "nothing is learned from the labels: the cross-entropy is missing":
            _sum_over_peers(lambda own, peer, y: _from_peer(own, peer)),
        "summed over the batch; take the mean, of the KL with reduction=\"batchmean\"":
            lambda first, second, y: len(y) * _mutual(first, second, y),
        "the KL is summed over the batch; take the mean, reduction=\"batchmean\"":
            _mimics(lambda own, peer: _from_peer(own, peer, "sum")),
        "reduction=\"mean\" divides the KL by the number of classes too: the mean over the batch is \"batchmean\"":
            _mimics(lambda own, peer: _from_peer(own, peer, "mean")),
        "the mean over both networks; their sum is asked for":
            lambda first, second, y: _mutual(first, second, y) / 2,
        "only the KL is halved: with two networks each has one peer, and their terms add up":
            _mimics(lambda own, peer: _from_peer(own, peer) / 2),
        "the class that the peer takes for the likeliest serves as a label; all its probabilities are the target":
            _mimics(lambda own, peer: F.cross_entropy(own, peer.argmax(1))),
        "the mean of both networks is the target; each learns from its peer alone":
            _mimics(_to_their_mean),
        "the gradient is right, but this is the cross-entropy with the peer's probabilities: their entropy is missing":
            _mimics(lambda own, peer: F.cross_entropy(own, peer.softmax(1))),
        "F.kl_div wants the logarithms of the own probabilities, log_softmax, and is given the probabilities":
            _mimics(lambda own, peer: F.kl_div(own.softmax(1), peer.softmax(1), reduction="batchmean")),
        "F.kl_div wants the logarithms of the own probabilities, log_softmax, and is given the logits":
            _mimics(lambda own, peer: F.kl_div(own, peer.softmax(1), reduction="batchmean")),
        "F.kl_div takes the peer's logarithms for probabilities: softmax for the peer, or log_target=True":
            _mimics(lambda own, peer: F.kl_div(own.log_softmax(1), peer.log_softmax(1), reduction="batchmean")),
        "softmax is taken over the batch; each image has probabilities of its own, so over dim=1":
            _mimics(lambda own, peer: F.kl_div(own.log_softmax(0), peer.softmax(0), reduction="batchmean")),
        "softmax rounds to 0 where a network is sure, and the logarithm of 0 is -inf: take log_softmax":
            _mimics(_plain_logs),
        "softmax rounds to 0 where a network is sure, and a quotient by 0 is no number: subtract values of log_softmax":
            _mimics(_logs_of_quotients),
        "the logarithm of the peer's softmax is -inf where it rounds to 0, and 0 * -inf is no number: take log_softmax":
            _mimics(_plain_logs_of_the_peer),
        "squared differences of probabilities; the KL is asked for":
            _mimics(lambda own, peer: (own.softmax(1) - peer.softmax(1)).square().sum(1).mean()),
        "squared differences of logits; the KL is asked for":
            _mimics(lambda own, peer: F.mse_loss(own, peer)),
        "a number for each image comes back; take their mean":
            _sum_over_peers(lambda own, peer, y: F.cross_entropy(own, y, reduction="none")
                            + _from_peer(own, peer, "none").sum(1)),
        "the loss has no gradient: .item(), .detach() or .numpy() cuts both networks off":
            lambda first, second, y: _mutual(first, second, y).detach(),
        _SEVERAL:
            lambda first, second, y: (_learns(first, second, y), _learns(second, first, y)),
        **_stops(),
    },
)  # fmt: skip
def mutual_loss(first_logits, second_logits, labels):
    """Deep mutual learning (Zhang, Xiang, Hospedales & Lu 2018) for two networks, each of which is the other's peer:
    the sum over both of cross-entropy with the labels + KL(p_peer || p_own), p = softmax(logits), each a mean over the
    batch. In the KL of a network its peer is a target: no gradient flows into the peer through it.

    first_logits, second_logits: (batch, classes), of the same images; labels: (batch,). Returns one number. Value and
    gradient stay finite for a logit of 200.
    """
    # --- your code
    loss = F.cross_entropy(first_logits, labels) + F.cross_entropy(second_logits, labels)
    for own, peer in ((first_logits, second_logits), (second_logits, first_logits)):
        target = peer.detach().softmax(dim=1)
        loss = loss + F.kl_div(own.log_softmax(dim=1), target, reduction="batchmean")
    return loss
    # --- end


# ------------------------------------------------------------------------------------ the nearest label


def _collections():
    """More embeddings than known ones, fewer, as many as directions; labels in no order; lengths that differ a lot."""
    return [_collection(seed, *sizes) for seed, sizes in enumerate([(40, 25, 4, 6), (20, 50, 8, 10), (6, 6, 6, 30)])]


def _collection(seed, n, known, width, classes):
    random = torch.Generator().manual_seed(seed)
    lengths = torch.empty(n + known, 1).uniform_(0.2, 4.0, generator=random)
    points = lengths * (torch.randn(n + known, width, generator=random) + 0.3)
    return points[:n], points[n:], torch.randint(classes, (known,), generator=random)


def _with_their_type(function, *given):
    """Probe: the labels, and whether they are of the type that labels have."""
    labels = function(*given)
    if is_unfinished(labels):
        return labels
    of_labels = isinstance(labels, torch.Tensor) and labels.dtype == torch.int64
    return {"tensor of labels": labels, "answer to whether they are int64, 1 or 0,": float(of_labels)}


def _cosines(embeddings, known):
    return F.normalize(embeddings, dim=1) @ F.normalize(known, dim=1).T


def _of_the_mean(embeddings, known, labels):
    """The label whose known embeddings have the most similar mean."""
    classes = labels.unique()
    means = torch.stack([known[labels == one].mean(0) for one in classes])
    return classes[_cosines(embeddings, means).argmax(1)]


@exercise(
    cases=_collections,
    probe=_with_their_type,
    hints=[
        """The cosine of two embeddings is the product of both after each has been divided by its length. Write down the
        shape of the table of all of them: which axis do you look along?""",
        """`F.normalize(embeddings, dim=1) @ F.normalize(known_embeddings, dim=1).T` is (n, m); `argmax(dim=1)` gives,
        for each embedding, the number of a row. That is no label yet.""",
        """With `rows = cosines.argmax(dim=1)`, the labels are `known_labels[rows]`.""",
    ],
    mistakes={
        "the dot product: a long known embedding is near to everything; divide each row by its length first":
            lambda e, k, y: y[(e @ k.T).argmax(1)],
        "the distance between the embeddings as they are; the cosine does not know how long they are":
            lambda e, k, y: y[torch.cdist(e, k).argmin(1)],
        "the sum of the absolute differences of the embeddings as they are; the cosine is asked for":
            lambda e, k, y: y[torch.cdist(e, k, p=1).argmin(1)],
        "the farthest one: the greater the cosine, the nearer; take argmax":
            lambda e, k, y: y[_cosines(e, k).argmin(1)],
        "the farthest one: of distances the smallest is the nearest; and the cosine does not know how long they are":
            lambda e, k, y: y[torch.cdist(e, k).argmax(1)],
        "what points the other way counts as near: the largest cosine is asked for, without its absolute value":
            lambda e, k, y: y[_cosines(e, k).abs().argmax(1)],
        "these are the numbers of the nearest rows; their labels are known_labels[rows]":
            lambda e, k, y: _cosines(e, k).argmax(1),
        "each column is divided by its length; each embedding, a row, has a length":
            lambda e, k, y: y[(F.normalize(e, dim=0) @ F.normalize(k, dim=0).T).argmax(1)],
        "the sum of the absolute values is no length: the second argument of F.normalize is p, not dim":
            lambda e, k, y: y[(F.normalize(e, 1) @ F.normalize(k, 1).T).argmax(1)],
        "the nearest embedding of each known one is looked for; it is the other way round":
            lambda e, k, y: y[_cosines(e, k).argmax(0)],
        "all embeddings get the most frequent label; each has a nearest row of its own":
            lambda e, k, y: y.mode().values.expand(len(e)),
        "the nearest mean of a class decides; the nearest single row is asked for":
            _of_the_mean,
        "the three nearest vote; the nearest one is asked for":
            lambda e, k, y: y[_cosines(e, k).topk(3).indices].mode(dim=1).values,
        "the largest cosines come back; the labels of their rows are asked for":
            lambda e, k, y: _cosines(e, k).amax(1),
        "the labels are right, but they are numbers of another type: int64 tensors such as known_labels[rows] are "
        "asked for":
            lambda e, k, y: y[_cosines(e, k).argmax(1)].float(),
        "a column comes back, (n, 1); a label for each embedding is asked for, (n,)":
            lambda e, k, y: y[_cosines(e, k).argmax(1, keepdim=True)],
    },
)  # fmt: skip
def nearest_labels(embeddings, known_embeddings, known_labels):
    """For each embedding, the label of the known one that is most similar to it: the one of the largest cosine.

    embeddings: (n, width); known_embeddings: (m, width); known_labels: int64 (m,). Returns the labels: int64 (n,).
    """
    # --- your code
    cosines = F.normalize(embeddings, dim=1) @ F.normalize(known_embeddings, dim=1).T
    return known_labels[cosines.argmax(dim=1)]
    # --- end
