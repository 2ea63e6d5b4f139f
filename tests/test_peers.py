"""Networks and exits that learn together: the losses by hand, and what reaches whom."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from task_items import noise_items
from torch import nn

from kdlib import models, training
from kdlib.inference import predict_logits
from kdlib.models import TinyCNN
from kdlib.peers import ExitCNN, SideBySide, alone_loss, apart, exits_loss, mutual_loss

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, CLASSES = 5, 4
LABELS = torch.tensor([0, 3, 1, 1, 2])
SETTINGS = [(members, temperature, weight) for members in (2, 3) for temperature in (1, 3.0) for weight in (0, 0.5, 2)]


def drawn(members, scale=2.0):
    random = torch.Generator().manual_seed(members)
    return (scale * torch.randn(BATCH, members * CLASSES, generator=random, dtype=torch.float64)).requires_grad_()


# ------------------------------------------------------------------ in plain numbers


def each_of(logits, members):
    return np.split(logits.detach().numpy(), members, axis=1)


def softmax(rows):
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(own):
    return -np.log(softmax(own)[np.arange(BATCH), LABELS.numpy()]).mean()


def divergence(own, peer, temperature):
    """T^2 * KL(peer || own)"""
    said, answer = softmax(own / temperature), softmax(peer / temperature)
    return temperature**2 * (answer * np.log(answer / said)).sum(axis=1).mean()


def slope_of_labels(own):
    return (softmax(own) - np.eye(CLASSES)[LABELS.numpy()]) / BATCH


def slope_of_answer(own, peer, temperature):
    """Where the peer's answer is a constant."""
    return temperature * (softmax(own / temperature) - softmax(peer / temperature)) / BATCH


# ------------------------------------------------------------------ mutual learning


def test_mutual_loss_is_cross_entropies_and_divergences_from_the_peers():
    for members, temperature, weight in SETTINGS:
        logits = drawn(members)
        each = each_of(logits, members)
        expected = sum(map(cross_entropy, each))
        for own in each:
            said = [divergence(own, peer, temperature) for peer in each if peer is not own]
            expected += weight * np.mean(said)
        found = mutual_loss(logits, LABELS, members=members, temperature=temperature, weight=weight)
        assert found.item() == pytest.approx(expected, rel=1e-10)


def test_no_gradient_reaches_a_peer_through_its_answer():
    for members, temperature, weight in SETTINGS:
        logits = drawn(members)
        mutual_loss(logits, LABELS, members=members, temperature=temperature, weight=weight).backward()
        each, expected = each_of(logits, members), []
        for own in each:
            said = [slope_of_answer(own, peer, temperature) for peer in each if peer is not own]
            expected.append(slope_of_labels(own) + weight * np.mean(said, axis=0))
        np.testing.assert_allclose(logits.grad.numpy(), np.hstack(expected), atol=1e-12)


def test_by_default_it_is_the_loss_of_the_paper():
    logits = drawn(2)
    first, second = each_of(logits, 2)
    expected = cross_entropy(first) + cross_entropy(second)
    expected += divergence(first, second, 1) + divergence(second, first, 1)
    assert mutual_loss(logits, LABELS, members=2).item() == pytest.approx(expected, rel=1e-10)


def test_peers_of_one_opinion_have_nothing_to_teach_each_other():
    logits = drawn(1).repeat(1, 3)
    found = mutual_loss(logits, LABELS, members=3, temperature=2.0, weight=5.0)
    assert found.item() == pytest.approx(alone_loss(logits, LABELS, members=3).item(), abs=1e-12)


def test_it_is_the_same_in_whatever_order_the_peers_stand():
    logits = drawn(3)
    turned = torch.cat(apart(logits, 3)[::-1], dim=1)
    one, other = (mutual_loss(values, LABELS, members=3, temperature=2.0) for values in (logits, turned))
    assert one.item() == pytest.approx(other.item(), rel=1e-12)


# ------------------------------------------------------------------ exits


def test_exits_loss_mixes_labels_and_the_last_exit_for_the_earlier_ones_alone():
    for exits in (2, 3):
        for temperature in (1, 4.0):
            for alpha in (0, 0.3, 1):
                logits = drawn(exits)
                *early, last = each_of(logits, exits)
                expected = cross_entropy(last)
                for own in early:
                    expected += (1 - alpha) * cross_entropy(own) + alpha * divergence(own, last, temperature)
                found = exits_loss(logits, LABELS, exits=exits, alpha=alpha, temperature=temperature)
                assert found.item() == pytest.approx(expected, rel=1e-10)


def test_no_gradient_reaches_the_last_exit_through_its_answer():
    for alpha in (0, 0.3, 1):
        logits = drawn(3)
        exits_loss(logits, LABELS, exits=3, alpha=alpha, temperature=2.0).backward()
        *early, last = each_of(logits, 3)
        expected = [(1 - alpha) * slope_of_labels(own) + alpha * slope_of_answer(own, last, 2.0) for own in early]
        np.testing.assert_allclose(logits.grad.numpy(), np.hstack([*expected, slope_of_labels(last)]), atol=1e-12)


def test_without_the_teacher_both_losses_are_the_sum_of_cross_entropies():
    logits = drawn(3)
    expected = sum(map(cross_entropy, each_of(logits, 3)))
    for found in (
        alone_loss(logits, LABELS, members=3),
        mutual_loss(logits, LABELS, members=3, weight=0),
        exits_loss(logits, LABELS, exits=3, alpha=0),
    ):
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_losses_are_finite_where_members_are_sure_of_different_classes():
    for dtype in (torch.float32, torch.bfloat16):
        logits = (1e4 * torch.eye(2 * CLASSES)[:BATCH]).to(dtype).requires_grad_()
        for loss in (mutual_loss(logits, LABELS, members=2), exits_loss(logits, LABELS, exits=2, alpha=0.5)):
            (slope,) = torch.autograd.grad(loss, logits)
            assert loss.isfinite() and slope.isfinite().all()


# ------------------------------------------------------------------ networks


def small(seed, classes=CLASSES, kind=TinyCNN):
    torch.manual_seed(seed)
    return kind(classes, 1, (4, 6))


def test_the_logits_of_members_stand_in_their_order_and_come_apart_again():
    split = noise_items(30, CLASSES)
    members = [small(seed) for seed in range(3)]
    together = predict_logits(SideBySide(members), split)
    assert together.shape == (30, 3 * CLASSES)
    for own, member in zip(apart(together, 3), members, strict=True):
        torch.testing.assert_close(own, predict_logits(member, split))
    assert torch.equal(torch.cat(apart(together, 4), dim=1), together)


def test_members_may_return_an_object_that_holds_the_logits():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small(0)

        def forward(self, images):
            return SimpleNamespace(logits=self.inner(images))

    assert SideBySide([Wrapped(), small(1)])(torch.zeros(2, 1, 6, 8)).shape == (2, 2 * CLASSES)


def test_two_peers_of_weight_0_are_the_two_networks_trained_alone():
    split = noise_items(48, CLASSES)
    recipe = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "seed": 5, "progress": False, "bfloat16": False}
    lone = [small(seed) for seed in (0, 1)]
    for network in lone:
        training.train(network, split, **recipe)
    alone = [predict_logits(network, split) for network in lone]
    for weight, equal in ((0.0, True), (1.0, False)):
        pair = SideBySide([small(seed) for seed in (0, 1)])
        training.train(pair, split, task_loss=functools.partial(mutual_loss, members=2, weight=weight), **recipe)
        for own, expected in zip(apart(predict_logits(pair, split), 2), alone, strict=True):
            assert torch.allclose(own, expected, rtol=1e-3, atol=1e-4) == equal


def test_without_its_exits_an_exit_network_is_the_student_of_the_lessons():
    for build, seed in ((ExitCNN, 3), (functools.partial(ExitCNN, 7, 3, (4, 8)), 4)):
        torch.manual_seed(seed)
        network = build()
        torch.manual_seed(seed)
        plain = TinyCNN(*getattr(build, "args", ()))
        mine, its = network.state_dict(), plain.state_dict()
        assert all(torch.equal(mine[name], values) for name, values in its.items())
        assert {name.split(".")[0] for name in mine.keys() - its.keys()} == {"exits"}
        images = torch.rand(3, plain.stages[0][0].in_channels, 28, 28)
        exits = len(plain.stages)
        torch.testing.assert_close(apart(network.eval()(images), exits)[-1], plain.eval()(images))
    torch.testing.assert_close(models.build("tiny-cnn", seed=3).state_dict(), _last_exit_alone(seed=3))


def _last_exit_alone(seed):
    torch.manual_seed(seed)
    return {name: values for name, values in ExitCNN().state_dict().items() if not name.startswith("exits.")}


def test_each_exit_is_a_linear_layer_on_the_mean_of_its_stage():
    network = small(0, kind=ExitCNN).eval()
    images = torch.rand(3, 1, 12, 12)
    with torch.no_grad():
        first, last = apart(network(images), 2)
        maps = network.stages[0](images)
        means = maps.sum(dim=(2, 3)) / (maps.shape[2] * maps.shape[3])
        expected = means @ network.exits[0].weight.T + network.exits[0].bias
    torch.testing.assert_close(first, expected)
    assert not torch.allclose(first, last)


def test_every_exit_learns():
    split = noise_items(40, 2)
    network = small(0, classes=2, kind=ExitCNN)
    before = {name: values.clone() for name, values in network.named_parameters()}
    loss = functools.partial(exits_loss, exits=2, alpha=1, temperature=2.0)
    history = training.train(network, split, epochs=2, task_loss=loss, progress=False, bfloat16=False)
    assert all(not torch.equal(before[name], values) for name, values in network.named_parameters())
    assert history.records[-1]["loss"] < history.records[0]["loss"]


# ------------------------------------------------------------------ what is refused


def test_networks_that_cannot_stand_side_by_side_are_named():
    one = small(0)
    for error, words, members in [
        (TypeError, "members must be a list of networks, got TinyCNN", one),
        (TypeError, "members must be a list of networks, got str", "tiny-cnn"),
        (TypeError, "members must be a list of networks, got int", 2),
        (TypeError, r"members\[1\] must be a torch.nn.Module, got str", [one, "tiny-cnn"]),
        (TypeError, r"members\[0\] must be a network, got the class TinyCNN", [TinyCNN]),
        (ValueError, "members must hold at least one network", []),
        (ValueError, "members must be different networks: one that stands there twice", [one, small(1), one]),
    ]:
        with pytest.raises(error, match=words):
            SideBySide(members)
    with pytest.raises(ValueError, match=r"members must have the same number of classes, got \[4, 6\]"):
        SideBySide([one, small(1, classes=6)])(torch.zeros(2, 1, 6, 8))


def test_bad_arguments_of_the_losses_are_named():
    logits = drawn(3)
    for error, words, call in [
        (ValueError, "logits must be those of 5 members side by side, got 12 of them", lambda: apart(logits, 5)),
        (ValueError, "logits must be those of 5 members", lambda: alone_loss(logits, LABELS, members=5)),
        (ValueError, "logits must be those of 5 members", lambda: exits_loss(logits, LABELS, exits=5, alpha=0.5)),
        (ValueError, r"logits must have shape \(batch, classes\)", lambda: apart(logits[0], 3)),
        (ValueError, "logits must be finite, got nan", lambda: alone_loss(logits * torch.nan, LABELS, members=3)),
        (ValueError, "members must be at least 1, got 0", lambda: apart(logits, 0)),
        (TypeError, "members must be an integer, got float 3.0", lambda: apart(logits, 3.0)),
        (ValueError, r"labels must be in \[0, 3\] .*, got 4", lambda: alone_loss(logits, LABELS + 1, members=3)),
        (ValueError, r"labels must have shape \(5,\)", lambda: mutual_loss(logits, LABELS[:4], members=3)),
        (ValueError, r"labels must be in \[0, 3\]", lambda: exits_loss(logits, LABELS - 1, exits=3, alpha=0.5)),
    ]:
        with pytest.raises(error, match=words):
            call()
    for name, loss in {
        "members": functools.partial(mutual_loss, logits, LABELS),
        "exits": functools.partial(exits_loss, logits, LABELS, alpha=0.5),
    }.items():
        for few in (1, 0, -1):
            with pytest.raises(ValueError, match=f"{name} must be at least 2: one has nobody to learn from, got {few}"):
                loss(**{name: few})
        with pytest.raises(TypeError, match=f"{name} must be an integer, got str '2'"):
            loss(**{name: "2"})
        with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
            loss(**{name: 3, "temperature": 0})
    with pytest.raises(ValueError, match="weight must be at least 0, got -1"):
        mutual_loss(logits, LABELS, members=3, weight=-1)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 1.5"):
        exits_loss(logits, LABELS, exits=3, alpha=1.5)
