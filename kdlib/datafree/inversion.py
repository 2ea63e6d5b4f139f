"""Images made from a teacher alone: pixels are moved until the teacher is sure of a class (Yin et al. 2020)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import _checks
from kdlib._checks import (
    checked,
    function,
    non_negative_number,
    positive_integer,
    positive_number,
)
from kdlib.data import ImageDataset
from kdlib.data.splits import is_dataset
from kdlib.inference import logits_of, network_rule, on_device, pick_device, preprocessing_of, switch

__all__ = ["invert", "smoothness", "statistics_loss", "statistics_of"]

StatisticsLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
_SHIFT = 2


def _a_number_a_channel(arguments: dict) -> None:
    maps = arguments["maps"]
    if maps.dim() != 4 or 0 in maps.shape:
        raise ValueError(f"maps must have the shape (batch, channels, height, width), got {tuple(maps.shape)}")
    for name in ("running_mean", "running_var"):
        if arguments[name].shape != (maps.shape[1],):
            raise ValueError(
                f"{name} must have a number for each of the {maps.shape[1]} channels of maps, got the shape "
                f"{tuple(arguments[name].shape)}"
            )


@checked(_a_number_a_channel)
def statistics_loss(
    maps: Float[Tensor, "batch channels height width"],
    running_mean: Float[Tensor, " channels"],
    running_var: Float[Tensor, " channels"],
) -> Float[Tensor, ""]:
    """How far the statistics of a batch are from those that a batch norm has kept of its training images.

        L = |mean - running_mean| + |var - running_var|

    with the mean and the (biased) variance of each channel over the batch and all positions, and Euclidean lengths
    over the channels.

    Common implementations differ: some square the lengths; PyTorch keeps a running variance that is unbiased, which at
    the numbers of values of a batch makes no difference that matters.

    Source: Yin et al. 2020 (DeepInversion), arXiv 1912.08795.
    """
    mean, var = maps.mean(dim=(0, 2, 3)), maps.var(dim=(0, 2, 3), unbiased=False)
    return (mean - running_mean).norm() + (var - running_var).norm()


def smoothness(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, ""]:
    """Total variation: the mean absolute difference of neighbours, down and across (Rudin, Osher & Fatemi 1992)."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


@contextmanager
def statistics_of(network: nn.Module, loss: StatisticsLoss = statistics_loss) -> Iterator[list[Tensor]]:
    """A list that after each forward pass of `network` holds `loss` for each of its batch norms that keep statistics.

    Raises:
        ValueError: there is none in the network.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]
    if not norms:
        raise ValueError(
            "network must have batch norms (BatchNorm2d) with running statistics, there is nothing to compare with: "
            "give statistics=0 where it has none"
        )
    terms: list[Tensor] = []
    passed: list[nn.Module] = []  # by the images of this forward pass, in the order of the pass

    def hook(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        if passed and norm is passed[0]:
            passed.clear()
            terms.clear()
        passed.append(norm)
        terms.append(loss(inputs[0], norm.running_mean, norm.running_var))

    handles = [norm.register_forward_pre_hook(hook) for norm in norms]
    try:
        yield terms
    finally:
        for handle in handles:
            handle.remove()


def _classes(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.dim() != 1 or not len(value):
        raise ValueError(f"{name} must be an int64 tensor (n,) with a class for each image, got {value!r:.80}")
    return value


@checked(
    teacher=network_rule, labels=_classes, steps=positive_integer, learning_rate=positive_number,
    statistics=non_negative_number, smooth=non_negative_number, statistics_term=function, seed=_checks.seed,
    like=is_dataset,
)  # fmt: skip
def invert(
    teacher: nn.Module,
    labels: Int64[Tensor, " n"],
    *,
    like: ImageDataset,
    steps: int = 500,
    learning_rate: float | int = 0.05,
    statistics: float | int = 1.0,
    smooth: float | int = 1.0,
    statistics_term: StatisticsLoss = statistics_loss,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> UInt8[Tensor, "n 1 size size"]:
    """Images that the teacher takes for these classes, from noise, without any real image.

    Minimises over the pixels, by Adam,

        CE(teacher(images), labels) + statistics * mean over batch norms of statistics_term + smooth * smoothness

    on images that are shifted by up to two pixels in every step. All n images are one batch, whose statistics are
    compared: a hundred or more are needed for these to mean something.

    Common implementations differ: DeepInversion sums over the batch norms and adds a term that seeks images on which
    teacher and student disagree; one stores its "best" images without copying them, and so keeps the last.

    Source: Yin et al. 2020 (DeepInversion), arXiv 1912.08795.

    Args:
        teacher: with batch norms; it is left in eval mode.
        labels: the class that each image shall be.
        like: whose mean, std and image size the teacher was trained with; its images are not looked at. A teacher that
            carries a preprocessing of its own is shown that.
        steps, learning_rate: of Adam, the rate falling to 0 along a cosine.
        statistics, smooth: weights of the terms; with `statistics=0` the teacher needs no batch norm.
        statistics_term: (maps, running_mean, running_var) -> scalar.
        seed: of the noise and the shifts.
        device: where to compute; the teacher comes back from there.

    Raises:
        ValueError: labels of another kind or of no class, numbers out of their range, a teacher without batch norms
            where `statistics` is above 0.
        FloatingPointError: the loss is not finite.
    """
    random, device = torch.Generator().manual_seed(seed), pick_device(device)
    shape = (len(labels), *like.train.images.shape[1:])
    own = preprocessing_of(teacher) or like
    mean, std = (values.view(1, -1, 1, 1).to(device) for values in (own.mean, own.std))
    free = torch.randn(shape, generator=random).to(device).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    switch(teacher, training=False)
    listening = statistics_of(teacher, statistics_term) if statistics else nullcontext([])
    with on_device(teacher, device), listening as terms:
        for _ in range(steps):
            pixels = free.sigmoid()  # in [0, 1], as pixels are
            shift = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=random).tolist()
            logits = logits_of(teacher((pixels.roll(shift, dims=(2, 3)) - mean) / std))
            _checks.labels_fit(labels, tuple(logits.shape))
            loss = F.cross_entropy(logits, labels.to(device)) + smooth * smoothness(pixels)
            if statistics:
                loss = loss + statistics * torch.stack(terms).mean()
            if not loss.isfinite():
                raise FloatingPointError(f"the loss is {loss.item()}: lower learning_rate={learning_rate}")
            (free.grad,) = torch.autograd.grad(loss, free)  # and none for the weights of the teacher
            optimizer.step()
            schedule.step()
    return (255 * free.detach().sigmoid()).round().to(torch.uint8).cpu()
