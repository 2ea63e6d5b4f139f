"""Several networks, or several exits of one, that learn together in the loop of `kdlib.training.train`.

Their logits stand side by side, (batch, members * classes), as those of one network; a loss of this module takes them
apart again. Each member's gradient is its own: what it is taught by is a target, through which nothing flows back.

    pair = SideBySide([models.build("tiny-cnn", seed=0), models.build("tiny-cnn", seed=1)])
    training.train(pair, split, epochs=20, task_loss=functools.partial(mutual_loss, members=2))
    first, second = apart(predict_logits(pair, test), 2)
"""

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import _checks
from kdlib._checks import checked, fraction, positive_integer
from kdlib.inference import logits_of, network_rule
from kdlib.losses import soft_target_loss
from kdlib.models import TinyCNN

__all__ = ["ExitCNN", "SideBySide", "alone_loss", "apart", "exits_loss", "mutual_loss"]

SideBySideLogits = Float[Tensor, "batch side_by_side"]


def _networks(name: str, value: Any) -> list[nn.Module]:
    if isinstance(value, nn.Module | str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of networks, got {type(value).__name__}")
    networks = [network_rule(f"{name}[{number}]", member) for number, member in enumerate(value)]
    if not networks:
        raise ValueError(f"{name} must hold at least one network")
    if len({id(network) for network in networks}) < len(networks):
        raise ValueError(f"{name} must be different networks: one that stands there twice has nobody to learn from")
    return networks


def _several(name: str, value: Any) -> int:
    if isinstance(value, Integral) and value < 2:
        raise ValueError(f"{name} must be at least 2: one has nobody to learn from, got {value}")
    return positive_integer(name, value)


class SideBySide(nn.Module):
    """Networks that see the same images, as one whose logits are theirs, one behind the other.

    Args:
        members: networks with the same number of classes.

    Raises:
        ValueError: no network, or one twice; in a forward pass, different numbers of classes.
    """

    @checked(members=_networks)
    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> SideBySideLogits:
        logits = [logits_of(member(images)) for member in self.members]
        if len({own.shape[1:] for own in logits}) > 1:
            raise ValueError(f"members must have the same number of classes, got {[own.shape[1] for own in logits]}")
        return torch.cat(logits, dim=1)


class ExitCNN(TinyCNN):
    """The lessons' student with an exit behind every stage: a linear layer on the mean over its map's positions.

    Its logits are those of all exits, the last one's at the end. Without the earlier exits it is a `TinyCNN`.

    Zhang et al. 2019 (Be Your Own Teacher, arXiv 1905.08094) put convolutions before each exit; here there are none.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, widths: tuple[int, ...] = (16, 32, 64)):
        super().__init__(num_classes, in_channels, widths)
        self.exits = nn.ModuleList(nn.Linear(width, num_classes) for width in widths[:-1])

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> SideBySideLogits:
        logits, features = [], images
        for stage, head in zip(self.stages, [*self.exits, self.head], strict=True):
            features = stage(features)
            logits.append(head(features.mean(dim=(2, 3))))
        return torch.cat(logits, dim=1)


@checked(logits=_checks.logits, members=positive_integer)
def apart(logits: SideBySideLogits, members: int) -> tuple[Float[Tensor, "batch classes"], ...]:
    """The logits of each member.

    Raises:
        ValueError: their number cannot be shared evenly by so many members.
    """
    if logits.shape[1] % members:
        raise ValueError(
            f"logits must be those of {members} members side by side, got {logits.shape[1]} of them, which is no "
            f"multiple of {members}"
        )
    return logits.chunk(members, dim=1)


def _labels_match(count: str) -> Callable[[dict], None]:
    """Relation: `labels` fit the logits of each of `count` members."""

    def relation(arguments: dict) -> None:
        own = apart(arguments["logits"], arguments[count])[0]
        _checks.labels_fit(arguments["labels"], tuple(own.shape))

    return relation


@checked(_labels_match("members"), logits=_checks.logits, members=positive_integer)
def alone_loss(logits: SideBySideLogits, labels: Int64[Tensor, " batch"], *, members: int) -> Float[Tensor, ""]:
    """The sum of the members' cross-entropies with the labels: each learns as if it were alone, and sees the same
    images in the same order. For exits of one network this is deep supervision (Lee et al. 2014, arXiv 1409.5185).

    Raises:
        ValueError: as `apart`, or a label that is no class.
    """
    return sum(F.cross_entropy(own, labels) for own in apart(logits, members))


@checked(
    _labels_match("members"), logits=_checks.logits, members=_several, temperature=_checks.temperature,
    weight=_checks.weight,
)  # fmt: skip
def mutual_loss(
    logits: SideBySideLogits,
    labels: Int64[Tensor, " batch"],
    *,
    members: int,
    temperature: float | int = 1.0,
    weight: float | int = 1.0,
) -> Float[Tensor, ""]:
    """Deep mutual learning: each member learns from the labels and from what its peers say of the same images.

        L = sum over members k of CE(z_k, labels) + weight * mean over the others j of T^2 * KL(p_j || p_k),
        p = softmax(z / T)

    No gradient reaches p_j in the terms of k.

    Common implementations differ: the paper updates one member after the other, each on what the others say after
    their update, where here all move at once; some forget to detach the peer, and then both are drawn towards each
    other twice, the second time by a divergence whose arguments are swapped.

    Source: Zhang, Xiang, Hospedales & Lu 2018, arXiv 1706.00384, where T = 1 and weight = 1.

    Args:
        logits: of `SideBySide`.
        members: how many, at least 2.
        temperature: T.
        weight: of what the peers say; with 0 it is `alone_loss`.

    Raises:
        ValueError: fewer than two members, or as `alone_loss`.
    """
    each = apart(logits, members)
    said = [
        soft_target_loss(own, peer, temperature)
        for number, own in enumerate(each)
        for other, peer in enumerate(each)
        if other != number
    ]
    return alone_loss(logits, labels, members=members) + weight * sum(said) / (members - 1)


@checked(
    _labels_match("exits"), logits=_checks.logits, exits=_several, alpha=fraction, temperature=_checks.temperature
)
def exits_loss(
    logits: SideBySideLogits,
    labels: Int64[Tensor, " batch"],
    *,
    exits: int,
    alpha: float | int,
    temperature: float | int = 4.0,
) -> Float[Tensor, ""]:
    """Early exits that are taught by the last one.

        L = CE(last, labels) + sum over earlier exits of (1 - alpha) * CE(exit, labels)
                                                         + alpha * T^2 * KL(p_last || p_exit)

    With alpha = 0 it is deep supervision (`alone_loss`). No gradient reaches the last exit through p_last.

    Common implementations differ: the paper adds an L2 loss between the features of the exits.

    Source: Zhang et al. 2019, arXiv 1905.08094.

    Args:
        logits: of `ExitCNN`, the last exit's at the end.
        exits: how many, at least 2.
        alpha: the weight of the last exit's answers for the earlier ones, in [0, 1].
        temperature: T.

    Raises:
        ValueError: fewer than two exits, or as `alone_loss`.
    """
    *early, last = apart(logits, exits)
    loss = F.cross_entropy(last, labels)
    for own in early:
        loss = loss + (1 - alpha) * F.cross_entropy(own, labels)
        if alpha:
            loss = loss + alpha * soft_target_loss(own, last, temperature)
    return loss
