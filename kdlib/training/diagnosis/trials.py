"""What a teacher answers under other circumstances: beside other images, and of pixels normalised otherwise."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdlib.data import ImageSplit, StreamSplit
from kdlib.inference import (
    MISFITS,
    Preprocessing,
    described,
    logits_of,
    on_device,
    pick_device,
    predict_logits,
    preprocessing_of,
    seen_by,
)
from kdlib.metrics import Interval, paired_interval
from kdlib.training.diagnosis.inputs import evenly

# Enough images that the statistics of a batch of them are far from those of a batch of two.
MIXED = 32
# Enough that a wrong normalisation, which costs tens of points, shows at once; each of up to seven is tried on them.
TRIED = 200
# Seven looks together should mislead hardly more often than one look in twenty does.
CONFIDENCE = 0.99
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Trial(NamedTuple):
    """Another normalisation, and what it does to the teacher's accuracy.

    Args:
        name: in words.
        preprocessing: what the teacher was given.
        accuracy: with it, on the images that were tried.
        gain: over the accuracy with what it gets now, with its interval over the images.
    """

    name: str
    preprocessing: Preprocessing
    accuracy: float
    gain: Interval


class _Seeing(nn.Module):
    """A network that is given another preprocessing, and is not changed."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        self.network, self.preprocessing = network, preprocessing

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.network(images))


def swing(teacher: nn.Module, split: ImageSplit) -> float:
    """By which share of its largest logit the teacher, in the mode in which it is, answers otherwise of the same
    images in batches of two than all at once; infinity where it is in training mode and gives no finite logits there.

    Raises:
        ValueError: in eval mode it does not take batches of two or of up to 32 images.
    """
    rows, device = evenly(len(split), MIXED), pick_device()
    with on_device(teacher, device), torch.no_grad(), _undisturbed(teacher, device):
        images = seen_by(teacher, split, rows).to(device)
        # Batch norm in training mode refuses a batch of one image.
        pairs = [pair for pair in images.split(2) if len(pair) == 2]
        try:
            together = logits_of(teacher(images)).float()
            apart = torch.cat([logits_of(teacher(pair)).float() for pair in pairs])
        except (*MISFITS, ValueError) as error:
            if any(module.training for module in teacher.modules()):
                return math.inf
            raise ValueError(
                f"teacher must answer about batches of any size, got of {len(images)} images and of two: "
                f"{described(error)}"
            ) from error
    moved = ((together[: len(apart)] - apart).abs().max() / together.abs().max().clamp(min=1e-12)).item()
    return moved if math.isfinite(moved) else math.inf


def best_other_normalisation(teacher: nn.Module, split: ImageSplit, right: Tensor) -> Trial:
    """The normalisation, of the usual ones, under which the teacher is most often right.

    Args:
        right: whether it is right about each image of the split, as it gets them now.
    """
    rows = evenly(len(split), TRIED)
    sample, now = split.subset(rows), right[rows].double()
    trials = []
    for name, preprocessing in _usual(teacher, split).items():
        seeing = _Seeing(teacher, preprocessing)
        with on_device(teacher, pick_device()):
            hits = (predict_logits(seeing, sample).argmax(dim=1) == sample.labels).double()
        gain = paired_interval(hits, now, confidence=CONFIDENCE)
        trials.append(Trial(name, preprocessing, hits.mean().item(), gain))
    return max(trials, key=lambda trial: trial.accuracy)


def _usual(teacher: nn.Module, split: ImageSplit) -> dict[str, Preprocessing]:
    some = split.take(min(len(split), 5_000)).in_memory() if isinstance(split, StreamSplit) else split
    own, images_alone = preprocessing_of(teacher), ImageSplit(some.images, some.labels)
    channels, size = (len(split.mean), None) if own is None else (len(own.mean), own.size)
    mean, std = split.mean.expand(channels), split.std.expand(channels)
    one = torch.ones(channels)
    statistics = {
        "raw pixels in [0, 1]": (0 * one, one),
        "raw pixels in [0, 255]": (0 * one, one / 255),
        "pixels in [-1, 1]": (one / 2, one / 2),
        "the mean and std of these images": (
            images_alone.mean.expand(channels),
            images_alone.std.expand(channels),
        ),
        "pixels normalised twice": (mean + std * mean, std**2),
    }
    if own is not None:
        statistics["the split's normalisation"] = mean, std
    if channels == 3:
        statistics["ImageNet's normalisation"] = torch.tensor(_IMAGENET[0]), torch.tensor(_IMAGENET[1])
    return {name: Preprocessing(*numbers, size) for name, numbers in statistics.items()}


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put back the modes, the buffers and the random numbers: a network in training mode moves its statistics."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
