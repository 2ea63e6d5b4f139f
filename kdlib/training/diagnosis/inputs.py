"""What the questions take, checked, and the logits that a network or a tensor stands for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdlib import _checks
from kdlib.data import ImageSplit
from kdlib.data.items import split_or_items
from kdlib.inference import network_rule, on_device, pick_device, predict_logits
from kdlib.training.checks import teacher_rule

# Three differences hardly show their spread, fewer do not at all.
FEWEST_SEEDS, ADVISED_SEEDS = 3, 5
# With fewer images an interval of zero width, or a share of all, is a matter of chance.
FEWEST_IMAGES = 20
# So many of the held-out images may be among those that were learned from: published sets share a few with themselves.
LARGEST_OVERLAP = 0.1
# By which share of the largest logit two answers about one image may differ: 16 and 8 bits round by up to .02, while
# another batch, view or image changes several times that.
ROUNDING = 0.05


def one_class_an_image(name: str, value: Any) -> ImageSplit:
    """A rule: a split whose images have one class each; an interval over them needs two."""
    split = split_or_items(name, value)
    if not split.has_classes or len(split) < 2:
        raise ValueError(
            f"{name} must hold at least 2 images of one class each, got {len(split)} with labels of shape "
            f"{tuple(split.labels.shape)}"
        )
    return split


def stored_logits(name: str, value: Any) -> Tensor:
    """A rule: logits (n, classes) as a tensor or NumPy array, and no network."""
    if isinstance(value, nn.Module):
        raise TypeError(f"{name} must be logits (n, classes), got the network {type(value).__name__}")
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(
            f"{name} must be logits (n, classes), a tensor or NumPy array, got {type(value).__name__}"
        )
    return _checks.several_logits(name, teacher_rule(name, value))


def optional_logits(name: str, value: Any) -> Tensor | None:
    """Likewise, or None."""
    return None if value is None else stored_logits(name, value)


def optional_network(name: str, value: Any) -> nn.Module | None:
    """A rule: a network, or None."""
    return None if value is None else network_rule(name, value)


def optional_share(name: str, value: Any) -> float | None:
    """A rule: a number in [0, 1], or None."""
    return None if value is None else _checks.fraction(name, value)


def network_or_pair(name: str, value: Any) -> nn.Module | tuple[Tensor, Tensor]:
    """A rule: a network, or its logits on the transfer set and on the held-out images."""
    if isinstance(value, nn.Module | type):
        return network_rule(name, value)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(
            f"{name} must be a network, or the pair of its logits on transfer_set and on held_out, got "
            f"{type(value).__name__}"
        )
    return stored_logits(f"{name}[0]", value[0]), stored_logits(f"{name}[1]", value[1])


def accuracies(name: str, value: Any) -> list[float]:
    """A rule: shares in [0, 1], one for each seed."""
    numbers = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(numbers, str) or not isinstance(
        numbers, Sequence
    ):  # a set or a dictionary has not the seeds' order
        raise TypeError(f"{name} must be a list of accuracies, one for each seed, got {type(value).__name__}")
    shares = [_checks.fraction(f"{name}[{seed}]", number) for seed, number in enumerate(numbers)]
    if len(shares) < FEWEST_SEEDS:
        raise ValueError(
            f"{name} must hold the accuracies of at least {FEWEST_SEEDS} seeds ({ADVISED_SEEDS} are advised), got "
            f"{len(shares)}"
        )
    return shares


def pair_of_accuracies(name: str, value: Any) -> tuple[list[float], list[float]] | None:
    """A rule: the accuracies of students and of baselines, or None."""
    if value is None:
        return None
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(
            f"{name} must be the pair (students, baselines) of accuracies, got {type(value).__name__}"
        )
    return accuracies(f"{name}[0]", value[0]), accuracies(f"{name}[1]", value[1])


def logits_on(name: str, source: nn.Module | Tensor, split: ImageSplit) -> Tensor:
    """Finite logits on the CPU, one row for each image; of a network in eval mode, which is left where it was.

    Raises:
        ValueError: another number of rows, fewer than two classes, numbers that are not finite, labels that are none
            of the classes.
    """
    if isinstance(source, nn.Module):
        with on_device(source, pick_device()):
            logits = predict_logits(source, split)
    else:
        logits = source.detach().float().cpu()
    if len(logits) != len(split):
        raise ValueError(
            f"{name} must give one row of logits for each of the {len(split)} images, got shape {tuple(logits.shape)}"
        )
    if logits.shape[1] < 2:
        raise ValueError(f"{name} must have at least 2 classes, got logits of shape {tuple(logits.shape)}")
    _checks.all_finite(f"logits of {name}", logits)
    if split.has_classes:
        _checks.labels_fit(
            split.labels, tuple(logits.shape), name=f"labels of the images that {name} is asked about"
        )
    return logits


def hits(name: str, source: nn.Module | Tensor, split: ImageSplit) -> Tensor:
    """1.0 for each image whose largest logit is at its label, else 0.0."""
    return (logits_on(name, source, split).argmax(dim=1) == split.labels).double()


def same_classes(**logits: Tensor) -> None:
    """Refuse logits of different numbers of classes."""
    (first, one), (second, other) = logits.items()
    if one.shape[1] != other.shape[1]:
        raise ValueError(
            f"{first} and {second} must have the same classes, got logits of shape {tuple(one.shape)} and "
            f"{tuple(other.shape)}"
        )


def refuse_the_same_images(transfer_set: ImageSplit, held_out: ImageSplit) -> None:
    """What is measured on images that were learned from says nothing of others."""
    learned = set(_hashes(transfer_set))
    again = sum(one in learned for one in _hashes(held_out))
    if again > LARGEST_OVERLAP * len(held_out) and transfer_set.images.shape[1:] == held_out.images.shape[1:]:
        raise ValueError(
            f"held_out must hold images that the student did not learn from, got {again} of {len(held_out)} that are "
            "in transfer_set: give a validation split"
        )


def _hashes(split: ImageSplit) -> Iterator[int]:
    for pixels in split.pixel_batches(torch.arange(len(split)).split(100)):
        yield from (hash(image.tobytes()) for image in pixels.numpy())


def evenly(length: int, count: int) -> Tensor:
    """Positions of up to `count` rows, evenly spread: they meet every class also where images are sorted by class."""
    return torch.linspace(0, length - 1, min(count, length)).round().long()
