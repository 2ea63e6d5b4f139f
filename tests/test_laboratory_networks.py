"""The laboratory rounds trained weights to few bits without training again, and trains networks that it is handed."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kdlib import data, metrics, models, training
from kdlib.deploy import compress
from kdlib.lesson import exercises
from kdlib.lesson.laboratory import Laboratory, Rehearsal
from kdlib.lesson.laboratory_networks import quantised, with_fresh_weights

pytestmark = pytest.mark.usefixtures("one_thread")
BITS = (2, 3, 4, 5, 6, 7, 8, 32)


@pytest.fixture
def trainings(monkeypatch):
    """The networks that were trained, as they were before."""
    starts = []

    def recorded(function):
        def train(student, *rest, **settings):
            starts.append(copy.deepcopy(student))
            return function(student, *rest, **settings)

        return train

    monkeypatch.setattr(training, "train", recorded(training.train))
    monkeypatch.setattr(training, "distill", recorded(training.distill))
    return starts


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same_state(one, other):
    one, other = state(one), state(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def read_back(weight, bits, by_channel):
    """The closed form in float64, a weight at a time."""
    weight = weight.detach().numpy().astype(np.float64)
    rounded = np.empty_like(weight)
    for channel, row in enumerate(weight):
        step = np.abs(row if by_channel else weight).max() / (2 ** (bits - 1) - 1)
        rounded[channel] = np.rint(row / step) * step if step else 0
    return rounded


# ------------------------------------------------------------------ few bits


def test_rounded_weights_are_those_of_the_closed_form_and_nothing_else_changes():
    torch.manual_seed(0)
    networks = [models.build("tiny-cnn", seed=1), models.build("resnet8", seed=2), nn.Conv1d(3, 5, 2)]
    networks.append(nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(4, 3)))
    with torch.no_grad():
        networks[-1][0].weight[1] = 0  # a channel that is dead
    for network in networks:
        before = state(network)
        for bits in (2, 3, 5, 8):
            for scales in ("a channel", "a layer"):
                after = state(quantised(network, bits, scales))
                for name, tensor in after.items():
                    rounds = name.endswith("weight") and before[name].ndim > 1
                    expected = read_back(before[name], bits, scales == "a channel") if rounds else before[name].numpy()
                    np.testing.assert_array_equal(tensor.numpy(), expected.astype(tensor.numpy().dtype), name)
        assert all(torch.equal(before[name], tensor) for name, tensor in state(network).items())


def test_a_weight_of_b_bits_takes_no_more_than_its_levels_and_is_off_by_half_a_step_at_most():
    layer = nn.Conv2d(40, 6, 3)
    for bits in range(2, 9):
        rounded = quantised(layer, bits, "a channel").weight.detach()
        for row, old in zip(rounded, layer.weight.detach(), strict=True):
            largest = old.abs().max().item()
            assert len(row.unique()) <= 2**bits - 1
            assert (row - old).abs().max().item() <= 0.5001 * largest / (2 ** (bits - 1) - 1)
            assert row.abs().max().item() == pytest.approx(largest)


def test_the_accuracy_of_few_bits_is_that_of_the_trained_student_with_rounded_weights():
    lab = Laboratory("lesson", images=200, epochs=2, quantised=True)
    dataset = data.load("fashion-mnist")
    trained = models.build("tiny-cnn", seed=3)
    training.train(trained, dataset.train.take(200, seed=3), epochs=2, seed=3, progress=False)
    as_trained = metrics.accuracy(trained, dataset.test)
    found = {}
    for bits, scales in ((2, "a channel"), (3, "a channel"), (3, "a layer")):
        expected = copy.deepcopy(trained)
        for layer in (*(stage[0] for stage in expected.stages), expected.head):
            by_channel = scales == "a channel"
            layer.weight.data = torch.from_numpy(read_back(layer.weight, bits, by_channel)).float()
        student = lab.student(3, bits=bits, scales=scales)
        for split in ("validation", "test"):
            assert student.accuracy(split) == metrics.accuracy(expected, getattr(dataset, split)), (bits, scales)
        found[bits, scales] = student.accuracy("test")
    assert lab.student(3, bits=32).accuracy("test") == lab.student(3).accuracy("test") == as_trained
    assert len({*found.values(), as_trained}) == 4


def test_a_student_is_trained_once_for_all_numbers_of_bits(trainings):
    lab = Laboratory("ci", quantised=True)
    accuracies = {bits: lab.student(0, bits=bits).accuracy("test") for bits in BITS}
    lab.student(0, bits=3, scales="a layer").accuracy("validation")
    assert len(trainings) == 1 and len(set(accuracies.values())) > 2
    lab.student(0, bits=3, images=500).accuracy("test")
    lab.student(1, bits=3).accuracy("test")
    lab.student(0, bits=3, method="distillation").accuracy("test")
    assert len(trainings) == 4
    assert lab.student(0, bits=32).accuracy("test") == accuracies[32]  # rounding left the trained student as it was
    assert repr(lab).startswith("12 students in the laboratory")


def test_scales_have_no_effect_on_weights_that_are_not_rounded():
    for lab in (Laboratory("ci", quantised=True), Rehearsal(quantised=True)):
        plain = lab.student(0).settings
        assert plain == lab.student(0, bits=32).settings == lab.student(0, bits=32, scales="a layer").settings
        assert ("bits", 32) in plain and "scales" not in dict(plain)
        assert dict(lab.student(0, bits=4).settings)["scales"] == "a channel"
        assert len({lab.student(0, bits=4, scales=scales).settings for scales in ("a channel", "a layer")}) == 2


def test_unless_they_are_asked_for_there_are_no_settings_of_bits_or_networks():
    known = ["method", "temperature", "alpha", "images", "epochs", "learning_rate", "label_smoothing"]
    alone = {"cut": lambda seed: models.build("tiny-cnn")}
    for lab in (Laboratory("ci"), Rehearsal(), Laboratory("ci", networks=alone), Rehearsal(networks=["cut"])):
        assert list(lab.settings) == known
        assert not {"bits", "scales", "network"} & {name for name, _ in lab.student(0).settings}
        for name, value in (("bits", 4), ("scales", "a layer"), ("network", "cut")):
            with pytest.raises(ValueError, match=f"unknown setting '{name}'; this laboratory has method, temperature"):
                lab.student(0, **{name: value})


def test_what_is_not_allowed_of_bits_and_networks_is_refused_with_what_is():
    networks = {"pruned": lambda seed: models.build("tiny-cnn"), "random start": lambda seed: models.build("tiny-cnn")}
    lab = Laboratory("ci", networks=networks, quantised=True)
    assert repr(lab.settings["bits"]) == "2 or 3 or 4 or 5 or 6 or 7 or 8 or 32 (where nothing is said: 32)"
    assert repr(lab.settings["scales"]) == "a channel or a layer (where nothing is said: a channel)"
    assert repr(lab.settings["network"]) == "pruned or random start (where nothing is said: pruned)"
    for settings, error, words in [
        ({"bits": 1}, ValueError, "bits must be one of 2, 3, 4, 5, 6, 7, 8, 32; got 1"),
        ({"bits": 16}, ValueError, "bits must be one of 2, 3, 4, 5, 6, 7, 8, 32; got 16"),
        ({"bits": 4.0}, TypeError, "bits must be an integer"),
        ({"bits": "4"}, TypeError, "bits must be an integer"),
        ({"bits": 4, "scales": "channel"}, ValueError, "scales must be one of a channel, a layer; got 'channel'"),
        ({"scales": "a layer"}, ValueError, r"scales is for students whose weights are rounded: say bits=\.\.\. as"),
        ({"network": "carved"}, ValueError, "network must be one of pruned, random start; got 'carved'"),
    ]:
        with pytest.raises(error, match=words):
            lab.student(0, **settings)
    with pytest.raises(ValueError, match="networks={}: there must be one at least"):
        Laboratory("ci", networks={})
    assert not lab.looks


# ------------------------------------------------------------------ networks that are handed in


def test_the_student_is_a_copy_of_the_network_that_is_handed_in_and_the_first_where_nothing_is_said(trainings):
    once, seeds = models.build("pocket-cnn", seed=5), []
    before = state(once)

    def fresh(seed):
        seeds.append(seed)
        return models.build("tiny-cnn", seed=100 + seed)

    lab = Laboratory("ci", networks={"the same": lambda seed: once, "fresh": fresh})
    for seed in (0, 1):
        lab.student(seed).accuracy("test")
        lab.student(seed, network="fresh", method="distillation").accuracy("test")
    assert seeds == [0, 1] and all(torch.equal(before[name], tensor) for name, tensor in once.state_dict().items())
    expected = [once, models.build("tiny-cnn", seed=100), once, models.build("tiny-cnn", seed=101)]
    assert len(trainings) == 4
    assert all(same_state(start, network) for start, network in zip(trainings, expected, strict=True))


def test_a_student_from_a_network_is_the_one_that_kdlib_trains():
    start = models.build("pocket-cnn", seed=9)
    lab = Laboratory("lesson", images=100, epochs=1, networks={"pocket": lambda seed: start})
    dataset = data.load("fashion-mnist")
    trained = copy.deepcopy(start)
    training.train(trained, dataset.train.take(100, seed=2), epochs=1, seed=2, progress=False)
    student = lab.student(2)
    for split in ("validation", "test"):
        assert student.accuracy(split) == metrics.accuracy(trained, getattr(dataset, split))


def test_what_is_handed_in_and_is_no_network_is_refused_before_it_is_trained():
    lab = Laboratory("ci", networks={"words": lambda seed: "tiny-cnn"})
    with pytest.raises(TypeError, match="tiny-cnn"):
        lab.student(0).accuracy("test")
    assert not lab.looks


def test_fresh_weights_are_those_that_a_network_of_that_form_is_built_with():
    for name in ("tiny-cnn", "pocket-cnn", "student-net", "resnet8x2"):
        trained = models.build(name, seed=1)
        with torch.no_grad():
            for tensor in (*trained.parameters(), *trained.buffers()):
                tensor += 1
        before, random_state = state(trained), torch.random.get_rng_state()
        for seed in (0, 7):
            assert same_state(with_fresh_weights(trained, seed), models.build(name, seed=seed)), name
        assert all(torch.equal(before[key], tensor) for key, tensor in trained.state_dict().items())
        assert torch.equal(torch.random.get_rng_state(), random_state)


def test_a_layer_that_cannot_draw_its_weights_again_is_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))

    network = nn.Sequential(nn.Linear(2, 3), Scale())
    with pytest.raises(ValueError, match="network: '1', a Scale, cannot draw its weights again"):
        with_fresh_weights(network, 0)


def test_a_rehearsal_has_the_networks_and_bits_by_name_and_the_images_and_epochs_of_its_laboratory():
    lab = Rehearsal(images=300, epochs=5, networks=("pruned", "random start"), quantised=True)
    assert lab.settings["network"].allowed == ("pruned", "random start") and lab.settings["bits"].allowed == BITS
    assert (lab.settings["images"].default, lab.settings["epochs"].default) == (300, 5)
    alike = [{}, {"network": "pruned"}, {"epochs": 5, "images": 300}, {"bits": 32}]
    assert len({lab.student(0, **settings).accuracy("test") for settings in alike}) == 1
    different = [{}, {"network": "random start"}, {"bits": 4}, {"bits": 4, "scales": "a layer"}, {"epochs": 20}]
    assert len({lab.student(0, **settings).accuracy("test") for settings in different}) == len(different)
    assert repr(lab).splitlines()[1:3] == [
        "  network='pruned', method='labels': seeds 0, measured on test",
        "  network='random start', method='labels': seeds 0, measured on test",
    ]


def test_weights_that_are_computed_anew_and_other_words_are_refused():
    sparse = compress.sparsify(models.build("tiny-cnn", seed=0), 0.5)
    with pytest.raises(ValueError, match="is computed anew each time; make it plain before"):
        quantised(sparse, 4, "a channel")
    with pytest.raises(ValueError, match="scales must be 'a channel' or 'a layer', got 'channel'"):
        quantised(compress.finish(sparse), 4, "channel")


def test_the_rounding_of_the_laboratory_is_the_one_that_the_exercise_asks_for():
    by_hand = exercises.solution("quantise_per_channel")
    for weight, bits in exercises.get("quantise_per_channel").cases():
        layer = nn.Linear(*weight.flatten(1).shape[::-1]) if weight.ndim == 2 else nn.Conv2d(*weight.shape[1::-1], 1)
        layer.weight = nn.Parameter(weight.clone())
        rounded = quantised(layer, bits, "a channel").weight.detach()
        torch.testing.assert_close(rounded, by_hand(weight, bits), rtol=1e-5, atol=1e-7)
