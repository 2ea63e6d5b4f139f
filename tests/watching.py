"""Students that keep what they are shown, for tests of what a step of training sees."""

import torch
from torch import nn

from kdlib import models, training
from kdlib.data import ImageSplit


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def student(seed: int = 0) -> nn.Module:
    return models.build("tiny-cnn", seed=seed)


class Watching(nn.Module):
    """A network that keeps the pixels, in 0..255, of each batch that it is trained on."""

    def __init__(self, split: ImageSplit):
        super().__init__()
        self.network, self.views = student(), []
        self.mean, self.std = split.mean[:, None, None], split.std[:, None, None]

    def forward(self, images):
        if self.training:
            self.views.append((images.detach() * self.std + self.mean) * 255)
        return self.network(images)


def steps_of(split: ImageSplit, **options) -> list[torch.Tensor]:
    """The pixels of each step of a training."""
    watching = Watching(split)
    training.train(watching, split, progress=False, **options)
    return watching.views
