"""The larger pair of lesson 04: a ResNet-18 teaches a ShuffleNetV2 on colour images. For a GPU, or an evening."""

from collections.abc import Sequence

import pandas
from torch import nn

from kdlib import features, metrics, models, training
from kdlib.data import ImageDataset
from kdlib.data.augment import random_crop_flip
from kdlib.features import FeatureTerm

TEACHER, STUDENT = "resnet18", "shufflenet_v2_x0_5"


def for_small_images(name: str, classes: int, size: int, seed: int) -> nn.Module:
    """A torchvision network whose stem keeps the resolution, as is usual for images of 32 pixels.

    The originals halve the image twice before their first stage, which leaves 8 of 32 pixels.
    """
    network = models.build(name, num_classes=classes, in_channels=3, image_size=size, seed=seed)
    stem = network.conv1 if isinstance(network.conv1, nn.Conv2d) else network.conv1[0]
    stem.stride = (1, 1)
    network.maxpool = nn.Identity()
    return network


def terms(method: str, student: nn.Module, teacher: nn.Module, shape: Sequence[int]) -> list[FeatureTerm]:
    """What is added to distillation; the layers are those that `suggest_layers` pairs."""
    losses = {
        "hint": {"loss": features.hint_loss, "weight": 1.0, "regressor": True},
        "attention": {"loss": features.attention_transfer_loss, "weight": 1.0},
    }
    if method not in losses:
        return []
    pairs = features.suggest_layers(student, teacher, shape)
    return [FeatureTerm(student_layer=mine, teacher_layer=theirs, **losses[method]) for mine, theirs in pairs]


def larger_pair(
    dataset: ImageDataset,
    *,
    seeds: Sequence[int],
    teacher_epochs: int = 60,
    epochs: int = 60,
    methods: Sequence[str] = ("labels only", "distillation", "hint", "attention"),
) -> pandas.DataFrame:
    """Train the teacher once and a student for each method and seed; accuracy on the test images.

    All get the same images, augmentation and epochs. The weights of the feature losses are not tuned.
    """
    shape = tuple(dataset.train.images.shape[1:])
    recipe = {"batch_size": 128, "augment": random_crop_flip(padding=4)}
    teacher = for_small_images(TEACHER, len(dataset.classes), shape[-1], seed=0)
    training.train(teacher, dataset.train, epochs=teacher_epochs, seed=0, **recipe)
    rows = [{"method": "teacher", "seed": 0, "accuracy": metrics.accuracy(teacher, dataset.test)}]
    for seed in seeds:
        for method in methods:
            student = for_small_images(STUDENT, len(dataset.classes), shape[-1], seed=seed)
            training.distill(
                student, teacher, dataset.train, epochs=epochs, seed=seed, **recipe,
                alpha=0.0 if method == "labels only" else 0.9, features=terms(method, student, teacher, shape),
            )  # fmt: skip
            rows.append({"method": method, "seed": seed, "accuracy": metrics.accuracy(student, dataset.test)})
    return pandas.DataFrame(rows)
