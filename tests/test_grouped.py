"""Students trained together against the same students trained alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib import data, metrics, models
from kdlib.inference import predict_logits
from kdlib.sweeps.grouped import GroupedLinear, GroupedNetwork, distill_together
from kdlib.training import distill
from kdlib.training.loop import Recipe

TEMPERATURES, ALPHAS, SEEDS = [1.0, 4.0, 20.0, 4.0], [0.5, 0.9, 1.0, 0.0], [0, 1, 1, 2]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def split() -> data.ImageSplit:
    return data.load().train.take(100)


@pytest.fixture(scope="module")
def teacher_logits(split):
    return 5 * torch.randn(100, 10, generator=torch.Generator().manual_seed(0))


def recipe(**changes) -> Recipe:
    settings = {"epochs": 1, "batch_size": 10, "learning_rate": 6e-3, "weight_decay": 1e-2, "seed": 0}
    return Recipe(**{"bfloat16": False, "augment": None} | settings | changes)


def students(name: str) -> list[nn.Module]:
    return [models.build(name, seed=seed) for seed in SEEDS]


def together(networks, teacher_logits, split, recipe, seeds=SEEDS):
    return distill_together(
        networks, teacher_logits, split, temperatures=TEMPERATURES, alphas=ALPHAS, seeds=seeds, recipe=recipe
    )


def alone(networks, teacher_logits, split, recipe):
    histories = []
    for network, temperature, alpha, seed in zip(networks, TEMPERATURES, ALPHAS, SEEDS, strict=True):
        settings = vars(recipe) | {"seed": seed, "temperature": temperature, "alpha": alpha}
        del settings["rates"]  # which is no argument of distill
        histories.append(distill(network, teacher_logits, split, progress=False, device="cpu", **settings))
    return histories


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


# --- members equal lone students


@pytest.mark.parametrize(("name", "tolerance"), [("tiny-cnn", 1e-5), ("student-net", 1e-4)])
def test_ten_steps_together_are_ten_steps_alone(name, tolerance, split, teacher_logits):
    ours, reference = students(name), students(name)
    losses = together(ours, teacher_logits, split, recipe())
    histories = alone(reference, teacher_logits, split, recipe())
    for mine, lone, loss, history in zip(ours, reference, losses, histories, strict=True):
        torch.testing.assert_close(weights(mine), weights(lone), rtol=1e-5, atol=tolerance)
        assert loss == pytest.approx(history.records[-1]["loss"], rel=1e-5)
        assert not mine.training


def test_gradients_are_those_of_lone_students(split):
    """In float64, because AdamW's first steps turn the rounding of a gradient near 0 into a step of full size."""
    members = [network.double() for network in students("resnet8")]
    images = split.normalized(slice(16)).double()
    network = GroupedNetwork(members, images)
    network(images.repeat(1, len(members), 1, 1)).square().sum().backward()
    for name, parameter in network.network.named_parameters():
        for member, gradient in zip(members, parameter.grad.chunk(len(members)), strict=True):
            member.zero_grad()
            member(images).square().sum().backward()
            torch.testing.assert_close(gradient, member.get_parameter(name).grad, rtol=1e-8, atol=1e-8)


def test_epochs_have_the_order_of_lone_students(split, teacher_logits):
    """Without batch norm nothing amplifies rounding, so that several epochs can be compared."""

    def linear(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    ours, reference = [linear(seed) for seed in SEEDS], [linear(seed) for seed in SEEDS]
    settings = recipe(epochs=3, batch_size=32, learning_rate=1e-3)  # batches of 25, from 100 images
    together(ours, teacher_logits, split, settings)
    alone(reference, teacher_logits, split, settings)
    for mine, lone in zip(ours, reference, strict=True):
        torch.testing.assert_close(weights(mine), weights(lone), rtol=1e-5, atol=1e-6)


def test_trained_students_are_as_good_as_lone_ones():
    dataset = data.load()
    split, test = dataset.train.take(500), dataset.test.take(1000)
    teacher_logits = 8.0 * F.one_hot(split.labels, 10).float()
    ours, reference = students("tiny-cnn"), students("tiny-cnn")
    settings = recipe(epochs=8, batch_size=32)
    together(ours, teacher_logits, split, settings)
    alone(reference, teacher_logits, split, settings)
    accuracies = [[metrics.accuracy(network, test) for network in networks] for networks in (ours, reference)]
    for mine, lone in zip(*accuracies, strict=True):
        assert mine > 0.6
        assert mine == pytest.approx(lone, abs=0.05)  # rounding moves single images, not the level


def test_a_student_does_not_depend_on_its_companions(split, teacher_logits):
    """Bit by bit: other weights, settings and images beside it. Another number of companions may mean another kernel
    of the processor's library, with another rounding: then it is the same student up to that."""
    groups = [students("tiny-cnn"), [models.build("tiny-cnn", seed=9) for _ in SEEDS]]
    groups[1][1] = models.build("tiny-cnn", seed=SEEDS[1])
    together(groups[0], teacher_logits, split, recipe(epochs=2))
    together(groups[1], teacher_logits, split, recipe(epochs=2), seeds=[7, SEEDS[1], 8, 9])
    assert torch.equal(weights(groups[0][1]), weights(groups[1][1]))
    [pair, companion] = [models.build("tiny-cnn", seed=seed) for seed in (SEEDS[1], 5)]
    distill_together(
        [pair, companion], teacher_logits, split, recipe=recipe(epochs=2),
        temperatures=[TEMPERATURES[1], 2.0], alphas=[ALPHAS[1], 0.3], seeds=[SEEDS[1], 5],
    )  # fmt: skip
    torch.testing.assert_close(weights(groups[0][1]), weights(pair), rtol=1e-2, atol=1e-3)


def test_a_diverging_member_leaves_the_others_as_they_are(split, teacher_logits):
    sound, spoilt = students("tiny-cnn"), students("tiny-cnn")
    with torch.no_grad():
        spoilt[2].head.weight[0, 0] = float("inf")
    together(sound, teacher_logits, split, recipe())
    losses = together(spoilt, teacher_logits, split, recipe())
    assert [loss == loss for loss in losses] == [True, True, False, True]
    for number in (0, 1, 3):
        assert torch.equal(weights(sound[number]), weights(spoilt[number]))


def test_the_random_state_of_the_caller_is_untouched(split, teacher_logits):
    networks = students("tiny-cnn")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    together(networks, teacher_logits, split, recipe())
    assert torch.equal(torch.rand(4), expected)


# --- what can be grouped


class ViewsAndPools(nn.Module):
    """The style of many public students: functional calls, a view with a size, a depthwise convolution."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding="same", padding_mode="reflect")
        self.depthwise = nn.Conv2d(4, 8, 3, groups=4)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 36, 10, bias=False)

    def forward(self, images):
        features = F.max_pool2d(F.relu(self.first(images)), 2)
        features = F.avg_pool2d(F.silu(self.norm(self.depthwise(features))), 2)
        return self.head(features.view(features.size(0), -1))


@pytest.mark.parametrize(
    "build",
    [
        ViewsAndPools,
        *(lambda name=name: models.build(name) for name in ("tiny-cnn", "teacher-net", "resnet8")),
    ],
)
def test_members_compute_what_they_compute_alone(build, split):
    members = [build() for _ in range(3)]
    before = [weights(member) for member in members]
    network = GroupedNetwork(members, split.normalized(slice(4))).eval()
    images = [split.normalized(torch.arange(5) + start) for start in (0, 5, 10)]
    together = network(torch.cat(images, dim=1))
    for number, member in enumerate(members):
        torch.testing.assert_close(together[:, number], member.eval()(images[number]), rtol=1e-4, atol=1e-5)
        assert torch.equal(weights(member), before[number])


def test_weights_survive_the_way_into_a_group_and_back(split):
    members = students("resnet8")
    network = GroupedNetwork(members, split.normalized(slice(4)))
    empty = students("resnet8")
    for member in empty:
        for parameter in member.parameters():
            nn.init.zeros_(parameter)
    network.hand_back(empty)
    for member, filled in zip(members, empty, strict=True):
        assert torch.equal(weights(member), weights(filled))


def test_a_grouped_linear_layer_is_one_layer_a_group():
    layers = [nn.Linear(6, 3) for _ in range(4)]
    wide = GroupedLinear(layers[0], 4)
    wide.load_state_dict({name: torch.cat([getattr(i, name) for i in layers]) for name in ("weight", "bias")})
    features = torch.randn(5, 24)
    expected = [layer(part) for layer, part in zip(layers, features.chunk(4, dim=1), strict=True)]
    torch.testing.assert_close(wide(features), torch.cat(expected, dim=1))


class Mixing(nn.Sequential):
    """A network whose forward does something else to its features."""

    def __init__(self, change):
        super().__init__(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
        self.change = change

    def forward(self, images):
        return self[2](self[1](self.change(self[0](images))))


class Scaled(Mixing):
    def __init__(self):
        super().__init__(lambda features: features)
        self.scale = nn.Parameter(torch.ones(1))


def tied():
    first, second = nn.Linear(784, 784), nn.Linear(784, 784)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, second)


def frozen():
    network = models.build("tiny-cnn")
    network.stages[0].requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Mixing(lambda features: features.softmax(dim=1)), "would mix"),
        (lambda: Mixing(lambda features: F.layer_norm(features, features.shape[1:])), "would mix"),
        (lambda: Mixing(F.dropout), "would mix"),
        (lambda: Mixing(lambda features: features.flip(1)), "would mix"),
        (lambda: Mixing(lambda features: features.reshape(-1, 4, 26, 26)), "cannot be grouped"),
        (lambda: Mixing(nn.LayerNorm(26)), "weights outside plain layers"),
        (Scaled, "weights outside plain layers"),
        (tied, "or shared ones"),
        (frozen, "are frozen"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(784, 10)), "weights outside plain layers"),
    ],
)
def test_networks_that_cannot_be_grouped_are_refused(build, message, split):
    members = [build() for _ in range(3)]
    before = copy.deepcopy([member.state_dict() for member in members])
    with pytest.raises(ValueError, match=message):
        GroupedNetwork(members, split.normalized(slice(4)))
    for member, state in zip(members, before, strict=True):
        for name, tensor in member.state_dict().items():
            assert torch.equal(tensor, state[name])


def test_predictions_after_training_are_those_of_the_group(split, teacher_logits):
    """The statistics of batch norm are handed back too."""
    networks = students("tiny-cnn")
    together(networks, teacher_logits, split, recipe())
    network = GroupedNetwork(networks, split.normalized(slice(4))).eval()
    wide = network(split.normalized().repeat(1, len(networks), 1, 1))
    for number, member in enumerate(networks):
        torch.testing.assert_close(
            wide[:, number], predict_logits(member, split, device="cpu"), rtol=1e-4, atol=1e-4
        )
