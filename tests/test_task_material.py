"""What sensors leave of images, and images to learn from, to choose by and to be judged by."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from task_items import noise_items

from kdlib import data
from kdlib.data import ImageDataset, ImageSplit
from kdlib.tasks import material as materials
from kdlib.tasks import modalities
from kdlib.tasks.collages import collages
from kdlib.tasks.material import material, normalised_like, seen_by_sensor

pytestmark = pytest.mark.usefixtures("one_thread")

SENSORS = (modalities.edges, modalities.thumbnails, modalities.silhouettes)


@pytest.fixture(scope="module")
def fashion() -> ImageDataset:
    return data.load("fashion-mnist")


# ------------------------------------------------------------------ another modality


def grey(rows, indices=None):
    return ImageSplit(torch.tensor([[rows]], dtype=torch.uint8), torch.tensor([4]), indices)


def test_the_edges_of_a_constant_image_are_black_whatever_its_brightness():
    for brightness in (0, 77, 255):
        assert not modalities.edges(grey(5 * [5 * [brightness]])).images.any()


def test_the_edges_of_a_step_by_hand():
    """Sobel across a step of height h is 4 h / 4 in the two columns beside it; along it, nothing."""
    step = 5 * [[10, 10, 10, 90, 90, 90]]
    expected = 5 * [[0, 0, 80, 80, 0, 0]]
    assert modalities.edges(grey(step)).images[0, 0].tolist() == expected
    upright = torch.tensor(step).T.tolist()
    assert modalities.edges(grey(upright)).images[0, 0].tolist() == torch.tensor(expected).T.tolist()
    # One bright pixel: 2 h / 4 beside it, h / 4 * sqrt(2) at its corners, nothing in it.
    dot = [[0, 0, 0], [0, 200, 0], [0, 0, 0]]
    corner = round(200 / 4 * math.sqrt(2))
    assert modalities.edges(grey(dot)).images[0, 0].tolist() == [
        [corner, 100, corner], [100, 0, 100], [corner, 100, corner]
    ]  # fmt: skip


def test_edges_are_those_of_scipy_cut_at_255(fashion):
    diagonal = grey((255 * torch.ones(9, 9).tril()).tolist())
    for split in (fashion.test.take(5), noise_items(size=(9, 9)), diagonal):
        pixels = split.images[:, 0].double().numpy()
        across, down = (np.stack([ndimage.sobel(p, axis, mode="nearest") / 4 for p in pixels]) for axis in (0, 1))
        expected = np.hypot(across, down)
        found = modalities.edges(split).images[:, 0].double().numpy()
        assert abs(found - expected.clip(0, 255)).max() < 0.501
    assert expected.max() > 255


def test_thumbnails_by_hand():
    small = modalities.thumbnails(grey([[1, 3, 200, 200, 9], [5, 7, 200, 203, 9], [9, 9, 9, 9, 9]]))
    assert small.images[0, 0].tolist() == [[4, 201]]  # 4 and 200.75; the last row and column are left out
    assert modalities.thumbnails(grey([[0, 1], [1, 0]])).images.tolist() == [[[[0]]]]  # 0.5, rounded to even
    with pytest.raises(ValueError, match=r"split must hold images of at least 2 x 2 pixels, got \(3, 1\)"):
        modalities.thumbnails(grey([[1], [2], [3]]))


def test_silhouettes_by_hand():
    found = modalities.silhouettes(grey([[0, 25, 26], [255, 100, 1]])).images
    assert found[0, 0].tolist() == [[0, 0, 255], [255, 255, 0]]


def test_sensors_keep_order_labels_and_indices_and_pixels_are_untouched():
    items = noise_items(size=(8, 8))
    mixed = items.subset(torch.randperm(40, generator=torch.Generator().manual_seed(1)))
    assert modalities.pixels(mixed) is mixed
    for sensor in SENSORS:
        seen = sensor(mixed)
        assert torch.equal(seen.labels, mixed.labels) and torch.equal(seen.indices, mixed.indices)
        alone = torch.cat([sensor(mixed.subset([n])).images for n in range(len(mixed))])
        assert torch.equal(seen.images, alone), "an image depends on the others"
        assert torch.allclose(seen.mean.double(), seen.images.double().mean(dim=(0, 2, 3)) / 255)
        with pytest.raises(ValueError, match="split must hold grey images of one channel, got 3 channels"):
            sensor(noise_items(channels=3))


def test_a_data_set_seen_by_a_sensor_is_normalised_by_its_training_images():
    whole = ImageDataset(*(noise_items(seed=seed, size=(8, 8)) for seed in range(3)), list("abcdefghij"))
    for sensor in (modalities.pixels, *SENSORS):
        seen, train = seen_by_sensor(sensor, whole), sensor(whole.train)
        for name in ("train", "validation", "test"):
            found, expected = getattr(seen, name), sensor(getattr(whole, name))
            assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)
            assert torch.equal(found.mean, train.mean) and torch.equal(found.std, train.std)
        assert seen.classes == whole.classes
    with pytest.raises(TypeError, match="dataset must be a kdlib.data.ImageDataset, got ImageSplit"):
        seen_by_sensor(modalities.edges, whole.train)


# ------------------------------------------------------------------ material


@pytest.fixture(scope="module")
def own_items():
    """Items that tell where they come from: 60 in each split, all of other brightness."""
    parts = []
    for start in (1, 61, 121):
        images = (torch.arange(start, start + 60, dtype=torch.uint8).view(60, 1, 1, 1)).expand(60, 1, 4, 4)
        parts.append(ImageSplit(images.contiguous(), torch.arange(60) % 10))
    return ImageDataset(*parts, list("abcdefghij"))


def brightnesses(split):
    return set(split.images.flatten().tolist()) - {0}


def test_judges_are_the_same_for_every_seed_and_what_is_learned_from_is_not(own_items):
    one, other = (material(collages, own_items, 50, items=20, judges=40, seed=seed) for seed in (0, 1))
    for name in ("validation", "test"):
        first, second = getattr(one, name), getattr(other, name)
        assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
        assert len(first) == 40
    assert not torch.equal(one.train.images, other.train.images)
    assert one.classes == own_items.classes


def test_each_part_is_made_of_its_own_items_and_few_of_the_training_images(own_items):
    for seed in range(3):
        made = material(collages, own_items, 400, items=20, judges=300, seed=seed)
        assert brightnesses(made.train) == brightnesses(own_items.train.take(20, seed=seed))
        assert brightnesses(made.validation) == set(range(61, 121))
        assert brightnesses(made.test) == set(range(121, 181))


def test_all_is_normalised_by_the_images_to_learn_from(own_items):
    made = material(collages, own_items, 50, items=20, judges=40, seed=4)
    mean = made.train.images.double().mean() / 255
    assert made.train.mean.item() == pytest.approx(mean.item())
    for split in (made.validation, made.test):
        assert torch.equal(split.mean, made.train.mean) and torch.equal(split.std, made.train.std)
        assert split.mean.item() != pytest.approx(split.images.double().mean().item() / 255)


def test_no_seed_to_learn_from_meets_that_of_the_judges_or_of_a_teacher(own_items):
    seeds = []

    def make(split, n, *, seed):
        seeds.append((split, seed))
        return collages(split, n, seed=seed)

    for seed in (0, 1, 29, 102):
        material(make, own_items, 5, items=20, judges=6, seed=seed)
    judged = [seed for split, seed in seeds if split in (own_items.validation, own_items.test)]
    learned = [seed for split, seed in seeds if split not in (own_items.validation, own_items.test)]
    assert judged == [0, 0], "judges are made once"
    assert len(set(learned)) == 4 and min(learned) >= materials._OTHER_SEED


def test_bad_arguments_of_material_are_named(own_items):
    for options, words in [
        ({"items": 61}, "items must be at most the 60 training images, got 61"),
        ({"items": 0}, "items must be at least 1"),
        ({"judges": 0}, "judges must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            material(collages, own_items, 5, **{"items": 10, "judges": 5} | options)
    with pytest.raises(TypeError, match="dataset must be a kdlib.data.ImageDataset, got ImageSplit"):
        material(collages, own_items.train, 5, items=10)
    with pytest.raises(TypeError, match="make must be a function, got str 'collages'"):
        material("collages", own_items, 5, items=10)
    with pytest.raises(TypeError, match="sensor must be a function, got str 'edges'"):
        seen_by_sensor("edges", own_items)


def test_statistics_are_taken_over_and_nothing_else_is():
    one, other = noise_items(seed=1), noise_items(seed=2)
    found = normalised_like(one, other)
    assert torch.equal(found.mean, other.mean) and torch.equal(found.std, other.std)
    assert torch.equal(found.images, one.images) and torch.equal(found.labels, one.labels)
    with pytest.raises(TypeError, match="other must be a kdlib.data.ImageSplit"):
        normalised_like(one, None)
