"""A network as a teacher: in eval mode, without gradients, with the preprocessing that it was trained with."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import checked
from kdlib.inference import (
    Preprocessing,
    network_rule,
    optional_count_rule,
    preprocessing_of,
    statistic_rule,
    switch,
)


class FrozenTeacher(nn.Module):
    """A network that stays in eval mode and takes no gradient, whatever is done to what surrounds it.

    `train()` on a wrapper would otherwise switch a teacher inside it to training mode, where its batch
    norm drifts with every batch.

    Args:
        network: any network; its parameters are set to take no gradient.
        preprocessing: how it wants its images, where that is not how the student's are normalised.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing | None = None):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.preprocessing = preprocessing_of(network) if preprocessing is None else preprocessing
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in eval mode, for either value of `mode`."""
        self.training = False
        switch(self.network, training=False)
        return self

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Any:
        # Somebody may hold the network itself and have switched it.
        switch(self.network, training=False)
        return self.network(images)


@checked(network=network_rule, mean=statistic_rule, std=statistic_rule, size=optional_count_rule)
def freeze(
    network: nn.Module,
    *,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    size: int | None = None,
) -> FrozenTeacher:
    """A network as a teacher, with the preprocessing that it was trained with.

    Whatever the student's images are normalised by, and whatever their size: in `distill`, `cached_logits`, the
    metrics and a sweep this teacher gets (pixels / 255 - mean) / std, scaled to `size`. Without mean, std and size
    it gets what the student gets, which is right only where it was trained on such images.

    Args:
        network: any network; one that is frozen already is returned as it is where nothing else is given.
        mean, std: a number for each channel, in units of pixels in [0, 1]; torchvision's weights for ImageNet
            want [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225]. Grey images are repeated for three channels.
        size: height and width of the images that it wants.

    Returns:
        A `FrozenTeacher`: eval mode, no gradients.

    Raises:
        ValueError: only one of mean and std, other lengths, numbers out of their range.
    """
    inner = network.network if isinstance(network, FrozenTeacher) else network
    if mean is None and std is None and size is None:
        return network if isinstance(network, FrozenTeacher) else FrozenTeacher(network)
    return FrozenTeacher(inner, preprocessing(mean, std, size))


def preprocessing(mean: Tensor | None, std: Tensor | None, size: int | None) -> Preprocessing:
    """A preprocessing of these numbers.

    Raises:
        ValueError: only one of mean and std, other lengths, a std that is not above 0.
    """
    if mean is None or std is None:
        raise ValueError(f"mean and std must both be given, got mean={mean!r} and std={std!r}")
    if len(mean) != len(std):
        raise ValueError(
            f"mean and std must have one number for each channel, got {len(mean)} and {len(std)}"
        )
    if not (std > 0).all():
        raise ValueError(f"std must be above 0, got {std.tolist()}")
    return Preprocessing(mean, std, size)
