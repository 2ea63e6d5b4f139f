"""Images made from a teacher alone: pixels are moved until the teacher is sure of a class (Yin et al. 2020)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib._checks import (
    checked,
    function,
    natural_number,
    non_negative_number,
    positive_integer,
    positive_number,
)
from kdlib.data import ImageDataset
from kdlib.inference import network_rule, switch

__all__ = ["invert", "smoothness", "statistics_loss", "statistics_of"]

StatisticsLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
_SHIFT = 2


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
        raise ValueError("network must have batch norms with running statistics: there is nothing to compare with")
    terms: list[Tensor] = []

    def hook(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        if norm is norms[0]:
            terms.clear()
        terms.append(loss(inputs[0], norm.running_mean, norm.running_var))

    handles = [norm.register_forward_pre_hook(hook) for norm in norms]
    try:
        yield terms
    finally:
        for handle in handles:
            handle.remove()


def _classes(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.dim() != 1 or not len(value):
        raise ValueError(f"{name} must be an int64 tensor (n,) with a class for each image, got {value!r:.80}")
    return value


@checked(
    teacher=network_rule, labels=_classes, steps=positive_integer, learning_rate=positive_number,
    statistics=non_negative_number, smooth=non_negative_number, statistics_term=function, seed=natural_number,
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
        like: whose mean, std and image size the teacher was trained with; its images are not looked at.
        steps, learning_rate: of Adam, the rate falling to 0 along a cosine.
        statistics, smooth: weights of the terms.
        statistics_term: (maps, running_mean, running_var) -> scalar.
        seed: of the noise and the shifts.
        device: where to compute.

    Raises:
        ValueError: labels of another kind, numbers out of their range, a teacher without batch norms.
        FloatingPointError: the loss is not finite.
    """
    random = torch.Generator().manual_seed(seed)
    shape = (len(labels), *like.train.images.shape[1:])
    mean, std = (values.view(1, -1, 1, 1).to(device) for values in (like.mean, like.std))
    free = torch.randn(shape, generator=random).to(device).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    switch(teacher.to(device), training=False)
    labels = labels.to(device)
    with statistics_of(teacher, statistics_term) as terms:
        for _ in range(steps):
            pixels = free.sigmoid()  # in [0, 1], as pixels are
            shift = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=random).tolist()
            logits = teacher((pixels.roll(shift, dims=(2, 3)) - mean) / std)
            loss = F.cross_entropy(logits, labels) + smooth * smoothness(pixels)
            loss = loss + statistics * torch.stack(terms).mean()
            if not loss.isfinite():
                raise FloatingPointError(f"the loss is {loss.item()}: lower learning_rate={learning_rate}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    teacher.to("cpu")
    return (255 * free.detach().sigmoid()).round().to(torch.uint8).cpu()
