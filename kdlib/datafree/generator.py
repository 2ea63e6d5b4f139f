"""A network that makes images for distillation, trained against the teacher alone (Chen et al. 2019)."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import _checks
from kdlib._checks import (
    checked,
    finite_number,
    function,
    non_negative_number,
    positive_integer,
    positive_number,
)
from kdlib.data import ImageSplit
from kdlib.datafree.inversion import StatisticsLoss, statistics_loss, statistics_of
from kdlib.inference import Preprocessing, logits_of, network_rule, predict_logits, preprocessing_of
from kdlib.teachers import freeze

__all__ = ["AgainstTeacher", "DataFreeLoss", "Generator", "generated", "latent"]

LATENT_SIDE = 8  # a latent vector is a noise image of so many times so many pixels


class Generator(nn.Module):
    """From noise to 28x28 images as the teacher sees them: a linear layer, then twice enlarged and convolved.

    Args:
        mean, std: of the teacher's training images; the last layer's pixels in [0, 1] are normalised by them.
        channels: of the first map and of the two that follow.
    """

    @checked(mean=finite_number, std=positive_number)
    def __init__(self, mean: float | int, std: float | int, channels: tuple[int, int, int] = (32, 64, 32)):
        super().__init__()
        first, second, third = channels
        self.spread = nn.Linear(LATENT_SIDE**2, first * 49)
        self.grow = nn.Sequential(
            nn.Unflatten(1, (first, 7, 7)), nn.BatchNorm2d(first),
            nn.Upsample(scale_factor=2), nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2), nn.Conv2d(second, third, 3, padding=1), nn.BatchNorm2d(third),
            nn.LeakyReLU(0.2),
            nn.Conv2d(third, 1, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, noise: Float[Tensor, "batch 1 8 8"]) -> Float[Tensor, "batch 1 28 28"]:
        return (self.grow(self.spread(noise.flatten(1))) - self.mean) / self.std


def _generator(name: str, value: Any) -> Generator:
    if not isinstance(value, Generator):
        raise TypeError(f"{name} must be a kdlib.datafree.generator.Generator, got {type(value).__name__}")
    return value


def _statistics(generator: Generator) -> Tensor:
    return torch.stack([generator.mean, generator.std]).cpu()


def _normalises_like(own: Preprocessing, generator: Generator) -> bool:
    its, made = torch.cat([own.mean, own.std]).cpu(), _statistics(generator)
    return its.shape == made.shape and torch.allclose(its, made)


class AgainstTeacher(nn.Module):
    """What the teacher says of what the generator makes: the network that `training.train` trains.

    Only the generator learns; the teacher is frozen.

    Raises:
        ValueError: the teacher carries another preprocessing than the generator's mean and std.
    """

    @checked(generator=_generator, teacher=network_rule)
    def __init__(self, generator: Generator, teacher: nn.Module):
        super().__init__()
        own = preprocessing_of(teacher)
        if own is not None and not _normalises_like(own, generator):
            raise ValueError(
                f"teacher must be shown what it learned from, images normalised by {own.describe()}; got a generator "
                f"with mean and std {_statistics(generator).tolist()}"
            )
        self.generator = generator
        self.teacher = freeze(teacher)

    def forward(self, noise: Float[Tensor, "batch 1 8 8"]) -> Float[Tensor, "batch classes"]:
        return logits_of(self.teacher(self.generator(noise)))


class DataFreeLoss:
    """A `task_loss` for `AgainstTeacher`, which looks at no labels; use it in a `with` block.

        L = sure * CE(logits, argmax logits)                    the teacher shall be sure of each image
          - balance * entropy of the mean of softmax(logits)    all classes shall occur in a batch
          + statistics * mean over batch norms of |mean - running_mean| + |var - running_var|

    Common implementations differ: DAFL, whose first two terms these are, also asks for large features of the teacher
    in place of the third, which is DeepInversion's; later methods (DFAD, CMI) add images on which teacher and student
    disagree, and so train both in turn.

    Source: Chen et al. 2019 (DAFL), arXiv 1904.01186; Yin et al. 2020 (DeepInversion), arXiv 1912.08795.

    Args:
        teacher: the one inside the `AgainstTeacher`; its batch norms are listened to.
        sure, balance, statistics: weights of the terms, at least 0; where `statistics` is 0 the teacher needs no
            batch norms.
        statistics_term: (maps, running_mean, running_var) -> scalar.
    """

    @checked(
        teacher=network_rule, sure=non_negative_number, balance=non_negative_number, statistics=non_negative_number,
        statistics_term=function,
    )  # fmt: skip
    def __init__(
        self,
        teacher: nn.Module,
        *,
        sure: float | int = 1.0,
        balance: float | int = 5.0,
        statistics: float | int = 5.0,
        statistics_term: StatisticsLoss = statistics_loss,
    ):
        self.sure, self.balance, self.statistics = sure, balance, statistics
        self._teacher, self._statistics_term = teacher, statistics_term
        self._listening: AbstractContextManager[list[Tensor]] | None = None
        self._terms: list[Tensor] | None = None

    def __enter__(self) -> "DataFreeLoss":
        self._listening = statistics_of(self._teacher, self._statistics_term) if self.statistics else nullcontext([])
        self._terms = self._listening.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._terms = None
        self._listening.__exit__(*error)

    def __call__(self, logits: Float[Tensor, "batch classes"], labels: Any = None) -> Float[Tensor, ""]:
        if self._terms is None:
            raise RuntimeError("a DataFreeLoss must be used in a with block: with DataFreeLoss(teacher) as loss: ...")
        if self.statistics and not self._terms:
            raise RuntimeError("teacher has seen no images in this with block: it must be the one in AgainstTeacher")
        mean = logits.softmax(dim=1).mean(dim=0)
        balance = torch.special.entr(mean).sum()
        loss = self.sure * F.cross_entropy(logits, logits.argmax(dim=1)) - self.balance * balance
        return loss + self.statistics * torch.stack(self._terms).mean() if self.statistics else loss


@checked(n=positive_integer, seed=_checks.seed)
def latent(n: int, *, seed: int = 0) -> ImageSplit:
    """Noise for a generator to start from, as a split that `training.train` takes; each number is of mean 0 and
    std 1 when it is normalised. All labels are 0 and say nothing."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (n, 1, LATENT_SIDE, LATENT_SIDE), generator=random, dtype=torch.uint8)
    mean, std = 0.5, (256**2 - 1) ** 0.5 / 255 / 12**0.5  # of 256 equally likely values, over 255
    return ImageSplit(noise, torch.zeros(n, dtype=torch.int64), mean=[mean], std=[std])


@checked(generator=_generator, n=positive_integer, seed=_checks.seed)
def generated(generator: Generator, n: int, *, seed: int = 0) -> UInt8[Tensor, "n 1 28 28"]:
    """What the generator makes of noise that it has not been trained with, unless that had this seed.

    On the CPU, where a seed gives the same images everywhere; the generator stays there.
    """
    seen = predict_logits(_Flat(generator), latent(n, seed=seed), device="cpu").view(n, 1, 28, 28)
    pixels = seen * generator.std + generator.mean
    return (255 * pixels).round().clamp(0, 255).to(torch.uint8)


class _Flat(nn.Module):
    """An image as a row of numbers, which is what `predict_logits` collects."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise).flatten(1)
