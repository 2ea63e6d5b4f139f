"""Where the engine meets what others made: preprocessing, several teachers, checkpoints, files of results."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from kdlib import _logit_cache, data, inference, losses, models, sweeps, teachers, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.sweeps import journal

pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = {"epochs": 1, "progress": False}


@pytest.fixture(scope="module")
def split():
    return data.load().train.take(60)


def net(seed=9, channels=1, classes=10):
    return models.build("tiny-cnn", seed=seed, in_channels=channels, num_classes=classes)


# --- kdlib/inference.py


def test_images_that_are_not_square_are_scaled_and_cropped_as_torchvision_does():
    """int() of the longer side, round() of the margin, as Resize and CenterCrop."""
    random = torch.Generator().manual_seed(0)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    for height, width, size in ((28, 41, 32), (28, 43, 20), (28, 43, 28), (33, 28, 20), (31, 57, 28)):
        pixels = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=random)
        expected = v2.Compose([
            v2.ToDtype(torch.float32, scale=True), v2.Resize(size, antialias=True), v2.CenterCrop(size),
            v2.Normalize(mean, std),
        ])(pixels)  # fmt: skip
        found = inference.Preprocessing(torch.tensor(mean), torch.tensor(std), size)(pixels)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class OwnLayer(nn.Module):
    """A network with a layer that happens to be called `preprocessing`."""

    def __init__(self):
        super().__init__()
        self.preprocessing, self.network = nn.Identity(), net()

    def forward(self, images):
        return self.network(self.preprocessing(images))


def test_a_layer_called_preprocessing_is_a_layer(split):
    model = OwnLayer()
    torch.testing.assert_close(
        inference.predict_logits(model, split), inference.predict_logits(model.network, split), rtol=1e-4, atol=1e-4
    )
    training.distill(net(0), model, split, **QUIET)


def test_images_with_other_channels_than_the_preprocessing_are_refused(split):
    four = ImageSplit(torch.randint(0, 256, (10, 4, 28, 28), dtype=torch.uint8), torch.arange(10))
    teacher = teachers.freeze(net(channels=3), mean=[0.3] * 3, std=[0.4] * 3)
    for options in ({}, {"augment": random_crop_flip()}):
        with pytest.raises(ValueError):
            training.distill(net(0, channels=4), teacher, four, **QUIET, **options)


class Volumes(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv3d(1, 4, (1, 3, 3)), nn.Linear(4, 10)

    def forward(self, images):
        return self.head(self.conv(images[:, :, None]).mean(dim=(2, 3, 4)))


def test_a_network_with_three_dimensional_convolutions_can_be_trained(split):
    training.train(Volumes(), split, **QUIET)


def test_a_device_that_is_none_is_refused_with_a_sentence(split):
    for device in ("gpu", "cuda:77"):
        with pytest.raises(ValueError, match="device"):
            training.train(net(), split, device=device, **QUIET)


# --- kdlib/teachers.py, kdlib/_logit_cache.py


def test_combining_leaves_the_members_as_they_were():
    members = [net(1).train(), net(2).train()]
    teachers.combine(members)
    assert all(parameter.requires_grad for member in members for parameter in member.parameters())
    assert all(member.training for member in members)


def test_a_grey_and_a_colour_member_look_at_grey_images_together(split):
    grey = teachers.freeze(net(1), mean=[0.3], std=[0.4])
    colour = teachers.freeze(net(2, channels=3), mean=[0.3] * 3, std=[0.4] * 3)
    found = teachers.cached_logits(teachers.combine([grey, colour], by="logits"), split)
    apart = [teachers.cached_logits(member, split) for member in (grey, colour)]
    torch.testing.assert_close(found, sum(apart) / 2, rtol=1e-4, atol=1e-4)


def test_what_is_combined_otherwise_or_prepared_otherwise_has_a_key_of_its_own():
    members = [net(1), net(2)]
    by_logits, by_probabilities = (teachers.combine(members, by=by) for by in ("logits", "probabilities"))
    assert _logit_cache._digest(by_logits) != _logit_cache._digest(by_probabilities)
    first, second = (
        teachers.combine([teachers.freeze(net(1), mean=[mean], std=[0.5])]) for mean in (0.1, 0.2)
    )
    assert _logit_cache._digest(first) != _logit_cache._digest(second)


def test_logits_that_are_no_rows_cannot_be_combined():
    with pytest.raises(ValueError, match="must have logits of shape|shape"):
        teachers.combine([torch.zeros(4), torch.zeros(4)])


# --- kdlib/training/loop.py


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm = nn.Linear(784, 10), nn.BatchNorm1d(10)

    def forward(self, images):
        return self.norm(self.body(images.flatten(1)))


def test_batch_norm_of_vectors_in_batches_of_one_says_what_is_wrong(split):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        training.train(Normed(), split.subset(slice(5)), batch_size=1, **QUIET)


def test_a_checkpoint_of_other_labels_is_refused(split, tmp_path):
    others = ImageSplit(split.images, (split.labels + 1) % 10, mean=split.mean, std=split.std)
    training.train(net(), split, checkpoint=tmp_path / "c", **QUIET)
    with pytest.raises(ValueError, match="belongs to another training"):
        training.train(net(), others, checkpoint=tmp_path / "c", **QUIET)


# --- kdlib/sweeps

GRID = {"temperatures": [1.0], "alphas": [0.5], "seeds": [0], "workers": 0, **QUIET}


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, student_logits, teacher_logits):
        return F.mse_loss(self.scale * student_logits, teacher_logits)


def test_a_loss_with_parameters_begins_anew_for_every_student(split):
    run = lambda seeds: sweeps.run(  # noqa: E731
        "tiny-cnn", net(), split, split, **(GRID | {"epochs": 2, "seeds": seeds}), loss=Scaled(), bfloat16=False
    ).set_index("seed")["ece"]
    both = run([0, 1])
    assert both[1] == run([1])[1]


def test_numbers_of_numpy_are_numbers_in_a_sweep(split):
    table = sweeps.run(
        "tiny-cnn", net(), split, split, **(GRID | {"epochs": np.int64(1), "seeds": np.arange(2)}),
        batch_size=np.int32(16),
    )  # fmt: skip
    assert len(table) == 2


def test_what_cannot_be_measured_is_refused_before_anything_is_trained(split):
    several = ImageSplit(split.images, F.one_hot(split.labels % 4, 4).float())
    seven, soft = ImageSplit(split.images, torch.zeros(60, 7)), ImageSplit(split.images, torch.full((60, 4), 0.25))
    for test in (seven, soft):
        with pytest.raises(ValueError, match="test"):
            sweeps.run(
                "tiny-cnn", net(classes=4), several, test, loss=losses.multilabel_distillation_loss,
                task_loss=F.binary_cross_entropy_with_logits, **GRID,
            )  # fmt: skip
    for test_logits in (torch.zeros(60, 9), torch.full((60, 10), torch.nan)):
        with pytest.raises(ValueError, match="test_logits"):
            sweeps.run("tiny-cnn", torch.zeros(60, 10), split, split, test_logits=test_logits, **GRID)


def test_a_file_of_results_tells_closures_apart():
    assert journal.describe(random_crop_flip(2)) != journal.describe(random_crop_flip(4))
    assert journal.describe(random_crop_flip(2)) == journal.describe(random_crop_flip(2))

    def scaled(weight):
        return lambda z, v: weight * F.mse_loss(z, v)

    assert journal.describe(scaled(1)) != journal.describe(scaled(2))
