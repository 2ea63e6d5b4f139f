"""The solutions of lesson 11 do what other means do: loops, torchvision's transforms, a formula of batch norm."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from kdlib.data import ImageSplit
from kdlib.data.disputes import disputed
from kdlib.data.likeness import alike, difference_hash
from kdlib.inference import Preprocessing
from kdlib.lesson import exercises
from kdlib.lesson.exercises import lesson11, lesson11_choice
from kdlib.teachers import cached_logits, freeze

pytestmark = pytest.mark.usefixtures("one_thread")

near_duplicates = exercises.solution("near_duplicates")
centre_square = exercises.solution("centre_square")
repair_teacher_answers = exercises.solution("repair_teacher_answers")
disputed_labels = exercises.solution("disputed_labels")

# ------------------------------------------------------------------ near_duplicates


def test_near_duplicates_are_those_of_the_library_for_images_that_are_small_already():
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (12, 8, 9), dtype=np.uint8)
    small[6:] = small[:6] + random.integers(0, 9, (6, 8, 9), dtype=np.uint8)
    hashes = np.array([difference_hash(image) for image in small])
    for most in (0, 5, 12, 30, 64):
        pairs = {(i, j) for i, j, _ in alike(hashes, most)}
        assert set(near_duplicates(torch.from_numpy(small), most)) == pairs


def test_the_cases_of_near_duplicates_hold_no_equal_neighbours_and_pairs_on_the_border():
    cases = exercises.get("near_duplicates").cases()
    for small, _ in cases:
        assert (small[:, :, 1:] != small[:, :, :-1]).all()
    (images, most), (same, fewer), *_ = cases
    assert torch.equal(images, same) and fewer == most - 1
    assert len(near_duplicates(images, most)) > len(near_duplicates(images, fewer))


# ------------------------------------------------------------------ centre_square


def test_the_square_is_that_of_torchvision_where_its_roundings_agree():
    random = torch.Generator().manual_seed(0)
    for height, width, size in ((40, 80, 20), (90, 30, 30), (64, 64, 16), (50, 70, 25), (24, 36, 48)):
        image = torch.randint(0, 256, (3, height, width), generator=random).to(torch.uint8)
        transform = v2.Compose(
            [v2.ToDtype(torch.float32), v2.Resize(size, antialias=True), v2.CenterCrop(size)]
        )
        assert torch.allclose(centre_square(image, size), transform(image), atol=0.01), (height, width, size)


def test_where_the_square_comes_from_is_read_off_its_pixels():
    """A photograph of 100 columns becomes one of 50, of which the middle 20 are kept: 40 columns around 49.5."""
    image = lesson11._ruled(40, 100)
    seen = lesson11._where_from(lambda photograph, size: photograph[:, ::2, ::2][:, :, 15:35], image, 20)
    assert seen["step from column to column"] == pytest.approx(2)
    assert seen["column of the photograph in the middle"] == pytest.approx(10 + 49)
    right = lesson11._where_from(centre_square, image, 20)
    assert right["column of the photograph in the middle"] == pytest.approx(10 + 49.5, abs=0.1)


# ------------------------------------------------------------------ repair_teacher_answers


class Tiny(nn.Module):
    """Means of normalised channels, and batch norm whose statistics are known."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.norm.running_mean, self.norm.running_var = (
            torch.tensor([0.1, -0.2, 0.3]),
            torch.tensor([1.0, 4.0, 0.25]),
        )

    def forward(self, images):
        return self.norm(images.mean((2, 3)))


def channels(*numbers):
    return torch.tensor(numbers).view(3, 1, 1)


def test_the_answers_are_those_of_a_formula_and_of_the_library():
    mean, std = channels(0.5, 0.4, 0.3), channels(0.2, 0.25, 0.5)
    images = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    network = Tiny().train()
    answers = repair_teacher_answers(
        network, images, 4, mean, std, channels(0.0, 0.1, 0.9), channels(1.0, 2.0, 3.0)
    )
    means = (images.double().mean((2, 3)) / 255 - mean[:, 0, 0]) / std[:, 0, 0]
    expected = (means - network.norm.running_mean) / (network.norm.running_var + network.norm.eps).sqrt()
    assert torch.allclose(
        answers.double(), expected, atol=0.05
    )  # scaling weighs the pixels at the edges otherwise
    assert not answers.requires_grad and network.norm.num_batches_tracked == 0
    split = ImageSplit(images, torch.zeros(6, dtype=torch.int64), mean=[0.0, 0.1, 0.9], std=[1.0, 0.5, 0.3])
    teacher = freeze(network, mean=mean.flatten(), std=std.flatten(), size=4)
    assert isinstance(teacher.preprocessing, Preprocessing)
    assert torch.allclose(cached_logits(teacher, split), answers, atol=1e-5)


def test_as_found_the_answers_depend_on_the_others_and_asking_changes_the_network():
    found, network = exercises.get("repair_teacher_answers").start, Tiny().train()
    images = torch.randint(0, 256, (6, 3, 4, 4), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    numbers = [channels(0.5, 0.5, 0.5)] * 4
    alone, beside = found(network, images[:2], 4, *numbers)[0], found(network, images, 4, *numbers)[0]
    assert not torch.allclose(alone, beside) and network.norm.num_batches_tracked == 2
    alone, beside = (repair_teacher_answers(network, some, 4, *numbers)[0] for some in (images[:1], images))
    assert torch.allclose(alone, beside, atol=1e-6)


# ------------------------------------------------------------------ disputed_labels


def test_disputed_labels_are_those_of_the_library():
    for seed in range(5):
        random = torch.Generator().manual_seed(seed)
        labels = torch.arange(50) % 4
        logits = 2 * torch.randn(50, 4, generator=random)
        logits[torch.arange(50), labels] += 1.0
        split = ImageSplit(torch.zeros(50, 1, 1, 1, dtype=torch.uint8), labels)
        found = disputed_labels(logits.double().softmax(1), labels)
        assert found and found == disputed(logits, split)["row"].tolist()


def test_the_cases_of_disputed_labels_tell_the_likeliest_class_from_the_likeliest_that_passes():
    """Else whoever asks about the likeliest class of all would be right."""
    apart, nothing_said = 0, 0
    for probabilities, labels in exercises.get("disputed_labels").cases():
        thresholds = torch.stack(
            [probabilities[labels == c, c].mean() for c in range(probabilities.shape[1])]
        )
        passing = probabilities >= thresholds
        likeliest = probabilities.argmax(1)
        nothing_said += int((~passing.any(1)).sum())
        apart += int((passing.any(1) & ~passing.gather(1, likeliest[:, None])[:, 0]).sum())
        assert len({*labels.tolist()}) == probabilities.shape[1]
    assert apart >= 2 and nothing_said >= 2


# ------------------------------------------------------------------ what_to_ship


def test_each_way_to_choose_from_the_table_leads_to_another_file():
    table = lesson11_choice.students_table()
    within = table[(table["kB"] <= lesson11_choice.MOST_KB) & (table["ms"] <= lesson11_choice.MOST_MS)]
    against = table.columns[2]
    ends = within[against].str.extract(r"\[(-?[\d.]+), (-?[\d.]+)\]").astype(float)
    alike_to_best = within[(ends[1] >= 0) | ends[1].isna()]
    chosen = {
        "right": alike_to_best["kB"].idxmin(), "best of all": table["validation (%)"].idxmax(),
        "best on validation": within["validation (%)"].idxmax(), "best on test": within["test (%)"].idxmax(),
    }  # fmt: skip
    assert chosen["right"] == lesson11_choice.RIGHT[0] == "D"
    assert table.loc["D", "test (%)"] == lesson11_choice.RIGHT[1]
    assert len(set(chosen.values())) == 4 and within["kB"].idxmin() == chosen["best on test"]
    for one, other in itertools.combinations(table.index, 2):
        assert table.loc[one, "test (%)"] != table.loc[other, "test (%)"]
    assert not set(table["test (%)"]) & set(table["validation (%)"])
