"""Networks by name: shapes, published sizes, seeds and errors."""

import numpy as np
import pytest
import torch

from kdlib import models


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_name_builds_a_network_of_the_asked_shape():
    for name in models.names():
        model = models.build(name, num_classes=7, in_channels=3, image_size=32)
        assert model.training and model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7), name


def test_published_parameter_counts():
    published = {
        ("teacher-net", 10): 4_275_594,
        ("student-net", 10): 545_098,
        ("resnet8x4", 100): 1_233_540,
        ("resnet32x4", 100): 7_433_860,
    }
    for (name, classes), parameters in published.items():
        assert size(models.build(name, num_classes=classes, in_channels=3, image_size=32)) == parameters, name


def test_the_small_networks_have_the_sizes_that_their_docstrings_state():
    assert size(models.build("tiny-cnn")) == 24_058
    assert size(models.build("pocket-cnn")) == 46_162


def test_a_multiplied_resnet_of_any_valid_depth_is_a_name():
    assert models.build("resnet26x3")(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, second = models.build("tiny-cnn", seed=3), models.build("tiny-cnn", seed=np.int64(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = models.build("tiny-cnn", seed=4)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_torchvision_names_take_grey_images_and_other_class_counts():
    names = ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "regnet_y_400mf", "vit_b_32"]
    for name, image_size in (*((name, 64) for name in names), ("maxvit_t", 224), ("inception_v3", 96)):
        model = models.build(name, num_classes=5, in_channels=1, image_size=image_size)
        assert all(module.training for module in model.modules()), name
        # The trial run has left no trace in the statistics of batch norm.
        norms = [module for module in model.modules() if hasattr(module, "num_batches_tracked")]
        assert all(norm.num_batches_tracked == 0 for norm in norms), name
        with torch.inference_mode():
            assert model.eval()(torch.zeros(1, 1, image_size, image_size)).shape == (1, 5), name


def test_images_of_a_size_that_a_network_does_not_take_are_refused_with_the_sizes_that_it_does():
    for name, image_size, fitting in (
        ("alexnet", 28, "64, 96, 128, 192, 224, 256, 299"),
        ("densenet121", 1, "32, 64, 96, 128, 192, 224, 256, 299"),
        ("inception_v3", 64, "96, 128, 192, 224, 256, 299"),
        ("maxvit_t", 28, "224"),
        ("maxvit_t", 256, "224"),
        ("vit_b_16", 28, "32, 64, 96, 128, 192, 224, 256"),
        ("vit_h_14", 32, "224"),
    ):
        said = f"{name} cannot process images of image_size={image_size} .*Of the usual sizes it takes {fitting}$"
        with pytest.raises(ValueError, match=said) as error:
            models.build(name, image_size=image_size)
        assert "\n" not in str(error.value), name
        if name != "vit_h_14":  # takes 2.5 GB
            models.build(name, image_size=int(fitting.split(",")[0]))


def test_whole_numbers_of_numpy_and_torch_are_sizes():
    for number in (
        np.int64(3),
        np.uint8(3),
        np.array(3),
        torch.tensor(3),
        torch.tensor([3], dtype=torch.int32),
    ):
        assert models.build("tiny-cnn", num_classes=number).head.out_features == 3, repr(number)
    for number in (np.int32(12), torch.tensor(12)):
        model = models.build("student-net", in_channels=number, image_size=number)
        assert model(torch.zeros(2, 12, 12, 12)).shape == (2, 10), repr(number)


def test_sizes_that_are_none_are_refused_by_name():
    for name in ("num_classes", "in_channels", "image_size"):
        for value, error, message in (
            (0, ValueError, "at least 1, got 0"),
            (-5, ValueError, "at least 1, got -5"),
            (np.int64(0), ValueError, "at least 1, got 0"),
            (2**40, ValueError, r"at most 2\*\*31"),
            (10**30, ValueError, r"at most 2\*\*31"),
            (True, TypeError, "an integer, got bool True"),
            (np.True_, TypeError, "an integer, got bool"),
            (torch.tensor(True), TypeError, "an integer, got Tensor"),
            (2.0, TypeError, "an integer, got float 2.0"),
            (np.float64(2), TypeError, "an integer, got float64"),
            (torch.tensor(2.0), TypeError, "an integer, got Tensor"),
            (float("nan"), TypeError, "an integer, got float nan"),
            ("10", TypeError, "an integer, got str '10'"),
            ((28, 28), TypeError, r"an integer, got tuple \(28, 28\)"),
            ([28], TypeError, r"an integer, got list \[28\]"),
            (torch.tensor([28, 28]), TypeError, "an integer, got Tensor"),
            (None, TypeError, "an integer, got NoneType"),
        ):
            for network in ("tiny-cnn", "resnet18"):
                with pytest.raises(error, match=f"{name} must be {message}"):
                    models.build(network, **{name: value})


def test_networks_too_large_for_the_machine_are_refused_by_their_sizes():
    for name, sizes in (
        ("teacher-net", {"image_size": 2**20}),
        ("resnet18", {"image_size": 2**24}),
        ("regnet_y_400mf", {"image_size": 2**24}),
        ("resnet8x99999999", {}),
    ):
        told = "num_classes=.* in_channels=.* image_size="
        with pytest.raises(ValueError, match=f"{name} is too large for this machine with {told}"):
            models.build(name, **sizes)


def test_seeds_that_are_none_are_refused():
    for seed, message in (
        (-1, "at least 0, got -1"), (2**64, r"below 2\*\*64"), (1.5, "an integer"), (True, "an integer"),
        ("1", "an integer"),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=f"seed must be {message}"):
            models.build("tiny-cnn", seed=seed)


def test_an_unknown_name_is_answered_with_a_close_one_whatever_its_case_and_its_dashes():
    for name, close in (
        ("tiny-cn", "tiny-cnn"), ("Tiny_CNN", "tiny-cnn"), ("TINYCNN", "tiny-cnn"), ("pocket cnn", "pocket-cnn"),
        ("ResNet18", "resnet18"), ("resnet-18", "resnet18"), ("mobilenetv2", "mobilenet_v2"), ("ViT-B/16", "vit_b_16"),
        ("EfficientNet-B0", "efficientnet_b0"), ("convnext tiny", "convnext_tiny"), ("Resnet8X4", "resnet8x4"),
    ):  # fmt: skip
        with pytest.raises(
            ValueError,
            match=f"unknown model '{name}': no network has this name. Did you mean '{close}'.* Allowed: tiny-cnn, ",
        ):
            models.build(name)
    with pytest.raises(ValueError, match="unknown model '': no network has this name. Allowed"):
        models.build("")


def test_torchvisions_models_for_other_tasks_and_in_8_bits_are_refused_with_what_to_take():
    for name, remedy in (
        ("quantized_mobilenet_v2", "build 'mobilenet_v2' and quantise the exported file"),
        ("Quantized_ResNet50", "build 'resnet50' and quantise the exported file"),
        ("fasterrcnn_resnet50_fpn", "take one for classification"),
        ("deeplabv3_resnet50", "take one for classification"),
        ("r3d_18", "take one for classification"),
        ("raft_small", "take one for classification"),
    ):
        with pytest.raises(
            ValueError, match=f"name='{name}' is none of torchvision's models for .*; {remedy}"
        ):
            models.build(name, in_channels=3, image_size=224)


def test_names_that_are_no_text_are_refused():
    for name in (None, 18, b"resnet18", ["resnet18"], torch.nn.Linear):
        with pytest.raises(TypeError, match="name must be the name of a network, got"):
            models.build(name)


def test_impossible_resnets_are_refused():
    for name in ("resnet9x2", "resnet2x2", "resnet8x0"):
        with pytest.raises(ValueError, match="depth must be 6n|width must be"):
            models.build(name)
    with pytest.raises(ValueError, match="image_size must be at least 4 for two max-pooling layers, got 3"):
        models.build("student-net", image_size=3)
