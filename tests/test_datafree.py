"""Images from a teacher alone: the terms by hand, what inversion makes, and what it leaves as it was."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from kdlib import training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.datafree import effective_classes, unlabelled
from kdlib.datafree.inversion import invert, smoothness, statistics_loss, statistics_of
from kdlib.inference import predict_logits
from kdlib.models import TinyCNN
from kdlib.teachers import freeze

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES, SIDE = 3, 12
FEW = {"steps": 60, "learning_rate": 0.2, "statistics": 1.0, "smooth": 0.1}


def stripes(n=120, seed=0):
    """Noise with stripes down, stripes across or none: that is the class, wherever the image is shifted."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 90, (n, 1, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(n) % CLASSES
    for image, label in zip(images, labels, strict=True):
        bright = (np.arange(SIDE) + random.integers(4)) // 2 % 2 == 0
        if label == 0:
            image[0, :, bright] += 150
        elif label == 1:
            image[0, bright] += 150
    return ImageSplit(images, labels)


def dataset_of(split):
    return ImageDataset(split, split, split, [*"abc"])


LIKE = dataset_of(stripes())
LABELS = torch.arange(30) % CLASSES


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    network = TinyCNN(CLASSES, 1, (6, 8))
    training.train(network, LIKE.train, epochs=8, batch_size=15, learning_rate=0.02, progress=False, bfloat16=False)
    assert (predict_logits(network, LIKE.train).argmax(dim=1) == LIKE.train.labels).float().mean() > 0.95
    return network


def state_of(network):
    return {name: values.clone() for name, values in network.state_dict().items()}


def hooks_of(network):
    return [hook for module in network.modules() for hook in module._forward_pre_hooks.values()]


# ------------------------------------------------------------------ how many classes a set reaches


def test_the_number_of_classes_is_counted_where_it_is_known():
    sure = 60 * torch.eye(10)
    for classes in (1, 2, 7, 10):
        assert effective_classes(sure[:classes].repeat(3, 1)) == pytest.approx(classes, rel=1e-6)
    assert effective_classes(torch.zeros(4, 6)) == pytest.approx(6)
    # Shares of a half, a quarter and a quarter have an entropy of one and a half bits.
    assert effective_classes(sure[[0, 0, 1, 2]]) == pytest.approx(2**1.5, rel=1e-6)
    # The mean is taken before the entropy: two images that are sure count as two that are not.
    unsure = torch.tensor([[5.0, 5.0, -60.0]] * 2)
    assert effective_classes(sure[:2]) == pytest.approx(effective_classes(unsure), rel=1e-6)


def test_logits_of_any_size_and_precision_are_counted():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert effective_classes((1e4 * torch.eye(4)).to(dtype)) == pytest.approx(4)
    random = np.random.default_rng(0).normal(size=(20, 5))
    shares = np.exp(random) / np.exp(random).sum(axis=1, keepdims=True)
    mean = shares.mean(axis=0)
    assert effective_classes(torch.from_numpy(random)) == pytest.approx(math.exp(-(mean * np.log(mean)).sum()))


def test_unlabelled_images_are_normalised_as_those_of_the_teacher():
    images = torch.arange(3 * SIDE**2).remainder(256).byte().view(3, 1, SIDE, SIDE)
    split = unlabelled(images, LIKE)
    assert torch.equal(split.images, images) and split.labels.tolist() == [0, 0, 0]
    expected = (images.double() / 255 - LIKE.mean.item()) / LIKE.std.item()
    torch.testing.assert_close(split.normalized().double(), expected, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ the terms


def statistics_by_hand(maps, mean, var):
    values = np.moveaxis(maps, 1, 0).reshape(maps.shape[1], -1)
    return np.linalg.norm(values.mean(axis=1) - mean) + np.linalg.norm(values.var(axis=1) - var)


def test_statistics_loss_is_two_lengths_of_differences():
    random = np.random.default_rng(1)
    maps, mean, var = random.normal(1, 2, (4, 3, 5, 6)), random.normal(size=3), random.uniform(0.5, 2, 3)
    found = statistics_loss(*map(torch.from_numpy, (maps, mean, var)))
    assert found.item() == pytest.approx(statistics_by_hand(maps, mean, var), rel=1e-12)


def test_statistics_loss_is_0_at_the_batch_whose_statistics_they_are():
    maps = torch.randn(6, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    own = maps.detach().transpose(0, 1).flatten(1)
    loss = statistics_loss(maps, own.mean(dim=1), own.var(dim=1, correction=0))
    (slope,) = torch.autograd.grad(loss, maps)
    assert loss.item() < 1e-14 and slope.isfinite().all()


def test_the_gradient_of_statistics_loss_is_that_of_finite_differences():
    random = np.random.default_rng(2)
    maps, mean, var = random.normal(size=(2, 2, 2, 3)), np.array([0.5, -1.0]), np.array([2.0, 0.1])
    tensor = torch.from_numpy(maps).requires_grad_()
    statistics_loss(tensor, torch.from_numpy(mean), torch.from_numpy(var)).backward()
    for place in np.ndindex(maps.shape):
        step = np.zeros(maps.shape)
        step[place] = 1e-6
        ends = [statistics_by_hand(maps + sign * step, mean, var) for sign in (1, -1)]
        assert tensor.grad[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_smoothness_is_the_mean_difference_of_neighbours():
    images = np.random.default_rng(3).random((2, 1, 4, 5))
    down = np.mean([abs(images[:, :, row + 1] - images[:, :, row]) for row in range(3)])
    across = np.mean([abs(images[..., column + 1] - images[..., column]) for column in range(4)])
    assert smoothness(torch.from_numpy(images)).item() == pytest.approx(down + across, rel=1e-12)
    assert smoothness(torch.full((2, 1, 4, 4), 0.7)) == 0


class Backwards(nn.Module):
    """Its batch norms are not run in the order in which they were made."""

    def __init__(self):
        super().__init__()
        self.late, self.early = nn.BatchNorm2d(3), nn.BatchNorm2d(2)
        self.without = nn.BatchNorm2d(3, track_running_stats=False)
        self.between = nn.Conv2d(2, 3, 1)

    def forward(self, images):
        return self.without(self.late(self.between(self.early(images))))


def test_each_batch_norm_that_keeps_statistics_is_compared_in_each_pass():
    torch.manual_seed(0)
    network = Backwards().eval()
    for norm in (network.early, network.late):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    with statistics_of(network) as terms, torch.no_grad():
        assert terms == []
        for _ in range(3):
            images = torch.randn(4, 2, 5, 5)
            network(images)
            maps = images, network.between(nn.functional.batch_norm(
                images, network.early.running_mean, network.early.running_var, eps=network.early.eps
            ))  # fmt: skip
            expected = [
                statistics_by_hand(seen.numpy(), norm.running_mean.numpy(), norm.running_var.numpy())
                for seen, norm in zip(maps, (network.early, network.late), strict=True)
            ]
            assert [term.item() for term in terms] == pytest.approx(expected, rel=1e-4)
    assert not hooks_of(network)


def test_a_network_is_listened_to_in_the_block_only_also_where_that_fails():
    network = Backwards()
    with pytest.raises(ZeroDivisionError), statistics_of(network):
        assert len(hooks_of(network)) == 2
        raise ZeroDivisionError
    assert not hooks_of(network)
    for without in (nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False))):
        with pytest.raises(ValueError, match=r"network must have batch norms \(BatchNorm2d\) with running statistics"):
            statistics_of(without).__enter__()


# ------------------------------------------------------------------ inversion


def test_the_teacher_takes_inverted_images_for_their_class(teacher):
    images = invert(teacher, LABELS, like=LIKE, **FEW)
    assert images.shape == (30, 1, SIDE, SIDE) and images.dtype == torch.uint8
    logits = predict_logits(teacher, unlabelled(images, LIKE))
    assert (logits.argmax(dim=1) == LABELS).float().mean() > 0.9
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=random)
    by_chance = predict_logits(teacher, unlabelled(noise, LIKE)).argmax(dim=1) == LABELS
    assert by_chance.float().mean() < 0.7


def test_a_seed_repeats_inverted_images_and_another_one_makes_others(teacher):
    few = FEW | {"steps": 3}
    first, again, other = (invert(teacher, LABELS, like=LIKE, seed=seed, **few) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(invert(teacher, LABELS, like=LIKE, **few), invert(teacher, LABELS, like=LIKE, seed=0, **few))


def test_inversion_leaves_the_teacher_as_it_was(teacher):
    before = state_of(teacher)
    for parameter in teacher.parameters():
        parameter.grad = None
    teacher.train()
    invert(teacher, LABELS, like=LIKE, **FEW | {"steps": 2})
    assert all(torch.equal(before[name], values) for name, values in teacher.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.training and not hooks_of(teacher)


def test_inversion_looks_at_no_real_image(teacher):
    dark = ImageSplit(torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8), [0, 1], mean=LIKE.mean, std=LIKE.std)
    few = FEW | {"steps": 2}
    made = [invert(teacher, LABELS, like=like, **few) for like in (LIKE, dataset_of(dark))]
    assert torch.equal(*made)


def test_each_term_lowers_what_it_weighs(teacher):
    def made(**weights):
        return invert(teacher, LABELS, like=LIKE, **FEW | weights)

    def statistics(images):
        with statistics_of(teacher) as terms, torch.no_grad():
            teacher(unlabelled(images, LIKE).normalized())
        return float(torch.stack(terms).mean())

    plain = made(statistics=0, smooth=0)
    assert statistics(made(statistics=10, smooth=0)) < 0.8 * statistics(plain)
    assert smoothness(made(statistics=0, smooth=30) / 255) < 0.8 * smoothness(plain / 255)


def test_without_the_statistics_a_teacher_needs_no_batch_norm():
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, CLASSES))
    images = invert(plain, LABELS, like=LIKE, **FEW | {"statistics": 0, "steps": 20})
    assert torch.equal(predict_logits(plain, unlabelled(images, LIKE)).argmax(dim=1), LABELS)


def test_a_teacher_is_shown_images_that_are_normalised_by_what_it_carries(teacher):
    other = ImageSplit(LIKE.train.images, LIKE.train.labels, mean=[0.9], std=[0.05])
    carries = freeze(copy.deepcopy(teacher), mean=LIKE.mean, std=LIKE.std)
    few = FEW | {"steps": 3}
    expected = invert(teacher, LABELS, like=LIKE, **few)
    assert torch.equal(invert(carries, LABELS, like=dataset_of(other), **few), expected)
    assert not torch.equal(invert(teacher, LABELS, like=dataset_of(other), **few), expected)


def test_another_term_may_stand_for_the_statistics(teacher):
    seen = []

    def term(maps, running_mean, running_var):
        seen.append((maps.shape, running_mean.shape, running_var.shape))
        return maps.mean()

    invert(teacher, LABELS[:5], like=LIKE, statistics_term=term, steps=2)
    assert seen == 2 * [((5, width, side, side), (width,), (width,)) for width, side in ((6, 6), (8, 3))]


def test_a_loss_that_is_no_number_ends_the_inversion_and_the_listening(teacher):
    def endless(maps, running_mean, running_var):
        return maps.square().sum() / 0

    with pytest.raises(FloatingPointError, match="the loss is inf: lower learning_rate=0.5"):
        invert(teacher, LABELS, like=LIKE, learning_rate=0.5, statistics_term=endless)
    assert not hooks_of(teacher)


# ------------------------------------------------------------------ what is refused


def test_bad_arguments_are_named(teacher):
    maps = torch.zeros(2, 3, 4, 4)
    three = torch.zeros(3)
    for error, words, call in [
        (ValueError, "maps must have the shape", lambda: statistics_loss(maps[0], three, three)),
        (ValueError, "running_mean must .* the 3 channels", lambda: statistics_loss(maps, maps[0, 0, 0], three)),
        (ValueError, r"running_var must .* got the shape \(1,\)", lambda: statistics_loss(maps, three, three[:1])),
        (TypeError, "like must be .*ImageDataset, got ImageSplit", lambda: unlabelled(maps.byte(), LIKE.train)),
        (ValueError, "images must be .*uint8", lambda: unlabelled(maps, LIKE)),
        (ValueError, r"images must .* of like, \(1, 12, 12\), got \(3, 4, 4\)", lambda: unlabelled(maps.byte(), LIKE)),
        (ValueError, r"logits must have shape \(batch, classes\)", lambda: effective_classes(three)),
        (ValueError, "logits must be finite, got nan", lambda: effective_classes(torch.full((2, 2), math.nan))),
    ]:
        with pytest.raises(error, match=words):
            call()
    for error, words, changes in [
        (ValueError, r"labels must be in \[0, 2\] for 3 classes, got 3", {"labels": torch.tensor([0, 3])}),
        (ValueError, r"labels must be in \[0, 2\] for 3 classes, got -100", {"labels": torch.tensor([0, -100])}),
        (ValueError, r"labels must be an int64 tensor \(n,\)", {"labels": [0, 1]}),
        (ValueError, r"labels must be an int64 tensor \(n,\)", {"labels": torch.zeros(0, dtype=torch.int64)}),
        (TypeError, "teacher must be a torch.nn.Module, got str", {"teacher": "resnet8"}),
        (ValueError, "network must have batch norms", {"teacher": nn.Flatten()}),
        (TypeError, "like must be a kdlib.data.ImageDataset, got ImageSplit", {"like": LIKE.train}),
        (ValueError, "steps must be at least 1, got 0", {"steps": 0}),
        (ValueError, "learning_rate must be above 0, got 0", {"learning_rate": 0}),
        (ValueError, "statistics must be at least 0, got -1", {"statistics": -1}),
        (ValueError, "smooth must be a finite number, got nan", {"smooth": math.nan}),
        (TypeError, "statistics_term must be a function, got NoneType", {"statistics_term": None}),
        (ValueError, r"seed must be below 2\*\*63", {"seed": 2**63}),
        (ValueError, "device='abacus' cannot compute here", {"device": "abacus"}),
    ]:
        arguments = {"teacher": teacher, "labels": LABELS, "like": LIKE, "steps": 1} | changes
        with pytest.raises(error, match=words):
            invert(**arguments)
    assert not hooks_of(teacher)
