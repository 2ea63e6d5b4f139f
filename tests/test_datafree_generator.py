"""A generator that is trained against a teacher: its pixels, its loss by hand, and that only it learns."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from kdlib import training
from kdlib.datafree.generator import AgainstTeacher, DataFreeLoss, Generator, generated, latent
from kdlib.models import TinyCNN
from kdlib.teachers import freeze

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES, SMALL = 4, (2, 3, 2)


def generator(mean=0.3, std=0.35):
    torch.manual_seed(0)
    return Generator(mean, std, SMALL)


def teacher():
    torch.manual_seed(1)
    network = TinyCNN(CLASSES, 1, (3, 4)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return network


def hooks_of(network):
    return [hook for module in network.modules() for hook in module._forward_pre_hooks.values()]


def state_of(network):
    return {name: values.clone() for name, values in network.state_dict().items()}


# ------------------------------------------------------------------ noise and pixels


def test_each_number_of_the_noise_has_mean_0_and_std_1():
    noise = latent(5)
    assert noise.images.shape == (5, 1, 8, 8) and noise.labels.tolist() == [0] * 5
    # Of all 256 values that a number may have, equally likely.
    values = (np.arange(256) / 255 - noise.mean.item()) / noise.std.item()
    assert values.mean() == pytest.approx(0, abs=1e-6) and values.std() == pytest.approx(1, abs=1e-6)
    seen = latent(500).normalized().double()
    assert abs(seen.mean()) < 5 / 32_000**0.5 and abs(seen.std() - 1) < 5 / 64_000**0.5
    assert latent(500).images.unique().tolist() == list(range(256))


def test_a_seed_repeats_the_noise_and_another_one_makes_other():
    first, again, other = (latent(4, seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(latent(4).images, latent(4, seed=0).images)


def test_pixels_lie_between_0_and_1_before_they_are_normalised():
    for mean, std in ((0, 1), (0.3, 0.35), (0.5, 0.1)):
        network = generator(mean, std)
        with torch.no_grad():
            for values in network.parameters():
                values.mul_(20)  # whatever the weights are
        seen = network(latent(20).normalized())
        pixels = seen * std + mean
        assert seen.shape == (20, 1, 28, 28)
        assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6 and pixels.std() > 0.1
        plain = generator(0, 1)
        plain.load_state_dict(network.state_dict() | {"mean": torch.tensor(0.0), "std": torch.tensor(1.0)})
        torch.testing.assert_close(plain(latent(20).normalized()), pixels, rtol=1e-4, atol=1e-5)


def test_generated_images_are_the_pixels_in_256_steps():
    network = generator().train()
    images = generated(network, 7, seed=3)
    assert network.training and images.shape == (7, 1, 28, 28) and images.dtype == torch.uint8
    with torch.no_grad():
        seen = network.eval()(latent(7, seed=3).normalized())
    expected = 255 * (seen.double() * 0.35 + 0.3)
    assert (images.double() - expected).abs().max() < 0.501
    assert torch.equal(images, generated(network, 7, seed=3))
    assert not torch.equal(images, generated(network, 7, seed=4))
    assert torch.equal(generated(network, 7), generated(network, 7, seed=0))


# ------------------------------------------------------------------ the loss


def by_hand(logits, maps, norms, sure, balance, statistics):
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = shares.mean(axis=0)
    far = []
    for values, norm in zip(maps, norms, strict=True):
        rows = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
        far.append(np.linalg.norm(rows.mean(axis=1) - norm.running_mean.numpy()))
        far[-1] += np.linalg.norm(rows.var(axis=1) - norm.running_var.numpy())
    unsure, uneven = -np.log(shares.max(axis=1)).mean(), (mean * np.log(mean)).sum()
    return sure * unsure + balance * uneven + statistics * np.mean(far or 0)


def test_the_loss_is_sureness_balance_and_statistics():
    network = teacher()
    maps, norms = [], [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: maps.append(inputs[0].numpy()))
    for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1.0, 5.0, 5.0), (0.5, 2, 3)):
        settings = dict(zip(("sure", "balance", "statistics"), weights, strict=True))
        with DataFreeLoss(network, **settings) as loss, torch.no_grad():
            for _ in range(2):  # the statistics are those of the last pass
                maps.clear()
                logits = 3 * network(torch.randn(6, 1, 28, 28))
                found = loss(logits, torch.zeros(6, dtype=torch.int64))
                expected = by_hand(logits.double().numpy(), maps, norms, *weights)
                assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
                assert found.item() == loss(logits).item(), "labels are looked at"
    with DataFreeLoss(network) as loss, torch.no_grad():
        logits = network(torch.randn(6, 1, 28, 28))
        expected = by_hand(logits.double().numpy(), maps[-2:], norms, 1, 5, 5)
        assert loss(logits).item() == pytest.approx(expected, rel=1e-4), "by default"


def test_the_loss_listens_to_the_teacher_in_its_with_block_only():
    network, images = teacher(), torch.randn(3, 1, 28, 28)
    logits = network(images)
    loss = DataFreeLoss(network)
    assert not hooks_of(network)
    for _ in range(2):  # it may be used again
        with pytest.raises(RuntimeError, match="a DataFreeLoss must be used in a with block"):
            loss(logits)
        with loss as same:
            assert same is loss and len(hooks_of(network)) == 2
            with pytest.raises(RuntimeError, match="teacher has seen no images in this with block"):
                loss(logits)
            assert loss(network(images)).isfinite()
        assert not hooks_of(network)
    with pytest.raises(ZeroDivisionError), loss:
        raise ZeroDivisionError
    assert not hooks_of(network)
    with pytest.raises(RuntimeError, match="a DataFreeLoss must be used in a with block"):
        loss(logits)


def test_without_the_statistics_a_teacher_needs_no_batch_norm():
    torch.manual_seed(2)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, CLASSES))
    maker = generator()
    before = state_of(plain)
    with DataFreeLoss(plain, sure=2, balance=3, statistics=0) as loss:
        logits = plain(torch.randn(6, 1, 28, 28)).detach()
        assert loss(logits).item() == pytest.approx(by_hand(logits.double().numpy(), [], [], 2, 3, 0), rel=1e-4)
        made = state_of(maker)
        training.train(AgainstTeacher(maker, plain), latent(20), epochs=1, task_loss=loss, progress=False)
    assert not torch.equal(made["spread.weight"], maker.state_dict()["spread.weight"])
    assert all(torch.equal(before[name], values) for name, values in plain.state_dict().items())
    with pytest.raises(RuntimeError, match="a DataFreeLoss must be used in a with block"):
        loss(logits)


def test_a_teacher_that_was_trained_with_other_statistics_is_refused():
    AgainstTeacher(generator(), freeze(teacher(), mean=[0.3], std=[0.35]))
    for mean, std in (([0.3], [0.4]), ([0.2], [0.35]), ([0.3] * 3, [0.35] * 3)):
        with pytest.raises(ValueError, match="teacher must be shown what it learned from, images normalised by mean="):
            AgainstTeacher(generator(), freeze(teacher(), mean=mean, std=std))


def test_another_teacher_than_that_of_the_training_is_found_out():
    against = AgainstTeacher(generator(), teacher())
    with DataFreeLoss(teacher()) as loss, pytest.raises(RuntimeError, match="it must be the one in AgainstTeacher"):
        training.train(against, latent(8), epochs=1, task_loss=loss, progress=False)


# ------------------------------------------------------------------ training


def test_training_changes_the_generator_and_not_the_teacher():
    for wrap in (nn.Module.eval, nn.Module.train, freeze):
        network, maker = teacher(), generator()
        given = wrap(network)
        before, made = state_of(network), state_of(maker)
        with DataFreeLoss(given) as loss:
            history = training.train(
                AgainstTeacher(maker, given), latent(60), epochs=3, batch_size=20, learning_rate=0.02, task_loss=loss,
                progress=False, bfloat16=False,
            )  # fmt: skip
        assert all(torch.equal(before[name], values) for name, values in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
        now = maker.state_dict()
        assert {name for name in made if torch.equal(made[name], now[name])} == {"mean", "std"}
        assert history.records[-1]["loss"] < history.records[0]["loss"]
        assert not hooks_of(network)


def test_the_teacher_stays_in_eval_mode_whatever_surrounds_it():
    frozen = freeze(teacher())
    against = AgainstTeacher(generator(), frozen)
    assert against.teacher is frozen and not against.train().teacher.training and against.generator.training
    noise = latent(4).normalized()
    with torch.no_grad():
        torch.testing.assert_close(against.eval()(noise), frozen(against.generator(noise)))


# ------------------------------------------------------------------ what is refused


def test_bad_arguments_are_named():
    one, other = generator(), teacher()
    for error, words, call in [
        (ValueError, "std must be above 0, got 0", lambda: Generator(0.3, 0)),
        (ValueError, "mean must be a finite number, got nan", lambda: Generator(math.nan, 1)),
        (TypeError, "mean must be a number, got Tensor", lambda: Generator(torch.zeros(1), 1)),
        (TypeError, "generator must be a .*Generator, got str", lambda: AgainstTeacher("generator", other)),
        (TypeError, "teacher must be a network, got the class TinyCNN", lambda: AgainstTeacher(one, TinyCNN)),
        (TypeError, "teacher must be a torch.nn.Module, got Tensor", lambda: DataFreeLoss(torch.zeros(3, 4))),
        (ValueError, "sure must be at least 0, got -1", lambda: DataFreeLoss(other, sure=-1)),
        (ValueError, "balance must be a finite number, got inf", lambda: DataFreeLoss(other, balance=math.inf)),
        (TypeError, "statistics must be a number, got str '5'", lambda: DataFreeLoss(other, statistics="5")),
        (TypeError, "statistics_term must be a function", lambda: DataFreeLoss(other, statistics_term=1)),
        (ValueError, "must have batch norms .* running statistics", lambda: DataFreeLoss(nn.Linear(2, 2)).__enter__()),
        (ValueError, "n must be at least 1, got 0", lambda: latent(0)),
        (ValueError, r"seed must be below 2\*\*63", lambda: latent(1, seed=2**63)),
        (TypeError, "generator must be a kdlib.datafree.generator.Generator, got TinyCNN", lambda: generated(other, 3)),
        (TypeError, "n must be an integer, got float 3.0", lambda: generated(one, 3.0)),
        (ValueError, "seed must be at least 0, got -1", lambda: generated(one, 3, seed=-1)),
    ]:
        with pytest.raises(error, match=words):
            call()
