"""Labels that are wrong on purpose: how many, which, and that no training sees them in an order of their own."""

import numpy as np
import pytest
import torch
from scipy import stats
from task_items import noise_items, same

from kdlib.data import ImageDataset, ImageSplit
from kdlib.data.noise import with_wrong_labels
from kdlib.experiments import lesson09_self
from kdlib.lesson import laboratory_training
from kdlib.training.batches import Batches

SHARE = 0.4


def test_exactly_the_share_of_labels_is_wrong():
    for n in (1, 7, 40, 1000):
        split = noise_items(n, classes=3)
        for share in (0, 0.1, 0.25, 0.4, 0.999, 1):
            wrong = with_wrong_labels(split, share, seed=3, classes=10).labels != split.labels
            assert int(wrong.sum()) == round(share * n)


def test_all_but_the_labels_stays_and_the_split_that_is_given_is_not_changed():
    split = noise_items()
    labels, given = split.labels.clone(), with_wrong_labels(split, 0.5)
    assert torch.equal(split.labels, labels) and not torch.equal(given.labels, labels)
    assert same(given, ImageSplit(split.images, given.labels, split.indices, split.mean, split.std))
    odd = ImageSplit(split.images, split.labels, split.indices + 7, [0.2], [0.9])
    given = with_wrong_labels(odd, 1)
    assert torch.equal(given.indices, odd.indices) and given.mean.item() == odd.mean.item()
    assert given.std.item() == odd.std.item() and given.labels.dtype == torch.int64


def test_wrong_labels_are_any_other_class_equally_likely():
    for classes in (2, 3, 10):
        split = noise_items(6000, classes, size=(1, 1))
        given = with_wrong_labels(split, 1, seed=1, classes=classes)
        table = np.zeros((classes, classes))
        np.add.at(table, (split.labels.numpy(), given.labels.numpy()), 1)
        assert (table.diagonal() == 0).all()
        others = table[~np.eye(classes, dtype=bool)].reshape(classes, classes - 1)
        assert classes == 2 or stats.chisquare(others, axis=1).pvalue.min() > 1e-3


def test_without_their_number_the_classes_are_those_up_to_the_largest_label():
    for classes in (2, 5, 13):
        split = noise_items(600, classes, size=(1, 1))
        found = with_wrong_labels(split, 1).labels
        assert found.unique().tolist() == list(range(classes))
        assert torch.equal(found, with_wrong_labels(split, 1, classes=classes).labels)


def test_which_images_get_them_is_chance():
    split = noise_items(200)
    often = torch.stack([with_wrong_labels(split, SHARE, seed=seed).labels != split.labels for seed in range(200)])
    # Each of 200 images is chosen by 80 of 200 seeds, up to five deviations of such a count.
    assert (often.sum(dim=0) - 80).abs().max() < 5 * (200 * SHARE * (1 - SHARE)) ** 0.5


def test_a_seed_repeats_them_and_another_one_chooses_others():
    split = noise_items()
    first, again, other = (with_wrong_labels(split, 0.5, seed=seed).labels for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(with_wrong_labels(split, 0.5).labels, with_wrong_labels(split, 0.5, seed=0).labels)


def first_of_an_epoch(split, seed, epoch):
    """Which images a training sees first, as many as have wrong labels."""
    batches = Batches(split, torch.device("cpu"), seeds=[seed], batch_size=20, epochs=epoch + 1)
    rows = torch.cat([batch.rows for batch in batches.epoch(epoch)])
    return set(rows[: round(SHARE * len(split))].tolist())


def test_no_student_of_the_course_sees_the_wrong_labels_first():
    split = noise_items(200)

    def shared(seed, of_labels, epoch):
        wrong = (with_wrong_labels(split, SHARE, seed=of_labels).labels != split.labels).nonzero().flatten().tolist()
        return len(first_of_an_epoch(split, seed, epoch) & set(wrong))

    assert shared(0, 0, epoch=0) == 80, "the docstring warns of what is not so"
    for other in (lesson09_self._ANOTHER_STREAM, laboratory_training.OF_WRONG_LABELS):
        for seed in range(12):
            for epoch in (0, 1, 5):
                # By chance 32 of 80, give or take 3.4.
                assert shared(seed, other + seed, epoch) < 52


def test_bad_arguments_are_named():
    split = noise_items()
    several = ImageSplit(split.images, torch.zeros(len(split), 4))
    for error, words, arguments, settings in [
        (TypeError, "split must be one split, got an ImageDataset", (ImageDataset(split, split, split, []), 0.1), {}),
        (TypeError, "split must be a kdlib.data.ImageSplit, got list", ([], 0.1), {}),
        (ValueError, r"split must hold images of one class each, got labels \(40, 4\)", (several, 0.1), {}),
        (ValueError, r"share must be in \[0, 1\], got 1.1", (split, 1.1), {}),
        (ValueError, r"share must be in \[0, 1\], got -0.1", (split, -0.1), {}),
        (TypeError, "share must be a number, got str '0.1'", (split, "0.1"), {}),
        (ValueError, "seed must be at least 0, got -1", (split, 0.1, -1), {}),
        (ValueError, r"seed must be below 2\*\*63, got 18446744073709551616", (split, 0.1, 2**64), {}),
        (ValueError, "classes must be at least 2 and above .*, got 9 and the label 9", (split, 0.1), {"classes": 9}),
        (ValueError, "classes must be at least 2 and above .*, got 1", (noise_items(3, 1), 0.1), {"classes": 1}),
        (ValueError, "classes must be at least 2 and above .*, got 1", (noise_items(3, 1), 0.1), {}),
        (TypeError, "classes must be an integer, got float 10.0", (split, 0.1), {"classes": 10.0}),
    ]:
        with pytest.raises(error, match=words):
            with_wrong_labels(*arguments, **settings)
