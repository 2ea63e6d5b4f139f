"""Networks by name: shapes, published sizes, seeds and errors."""

import pytest
import torch

from kdlib import models


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", models.names())
def test_every_name_builds_a_network_of_the_asked_shape(name):
    model = models.build(name, num_classes=7, in_channels=3, image_size=32).eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("teacher-net", 4_275_594),
        ("student-net", 545_098),
        ("resnet8x4", 1_233_540),
        ("resnet32x4", 7_433_860),
    ],
)
def test_published_parameter_counts(name, parameters):
    classes = 100 if name.startswith("resnet") else 10
    assert size(models.build(name, num_classes=classes, in_channels=3, image_size=32)) == parameters


def test_tiny_cnn_has_the_size_that_its_docstring_states():
    assert size(models.build("tiny-cnn")) == 24_058


def test_a_multiplied_resnet_of_any_valid_depth_is_a_name():
    assert models.build("resnet26x3")(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, second = models.build("tiny-cnn", seed=3), models.build("tiny-cnn", seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = models.build("tiny-cnn", seed=4)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "vit_b_32"])
def test_torchvision_names_take_grey_images_and_other_class_counts(name):
    model = models.build(name, num_classes=5, in_channels=1, image_size=64).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 5)


def test_images_too_small_for_a_torchvision_model_are_refused_by_name_and_size():
    with pytest.raises(ValueError, match="alexnet.*image_size=28"):
        models.build("alexnet")


def test_an_unknown_name_is_answered_with_a_close_one():
    with pytest.raises(ValueError, match="'tiny-cn'.*Did you mean 'tiny-cnn'"):
        models.build("tiny-cn")


@pytest.mark.parametrize("name", ["resnet9x2", "resnet2x2", "resnet8x0"])
def test_impossible_resnets_are_refused(name):
    with pytest.raises(ValueError, match="depth must be 6n|width must be"):
        models.build(name)


@pytest.mark.parametrize("argument", ["num_classes", "in_channels", "image_size"])
def test_sizes_below_one_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        models.build("tiny-cnn", **{argument: 0})
