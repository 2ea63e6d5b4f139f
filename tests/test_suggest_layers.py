"""Layer pairs of two networks, by resolution and depth."""

import numpy as np
import pytest
import torch
import torchvision.models
from torch import nn

from kdlib import features
from kdlib.features import suggest_layers

pytestmark = pytest.mark.usefixtures("one_thread")


def convolutions(*strides, channels=4, in_channels=1):
    """One Sequential of convolution, normalisation and ReLU for each stride, then a classifier."""
    blocks = []
    for stride in strides:
        convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1)
        blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)))
        in_channels = channels
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Sequential(*blocks), pool, nn.Linear(channels, 3))


class Tokens(nn.Module):
    """A plain transformer of eight blocks on 4x4 patches, with a class token."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(8))
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return self.head(tokens[:, 0])


def test_equal_networks_pair_each_stage_with_itself():
    pairs = suggest_layers(convolutions(2, 2, 2), convolutions(2, 2, 2, channels=9), (1, 32, 32))
    assert pairs == [("0.0", "0.0"), ("0.1", "0.1"), ("0", "0")]


def test_resolution_goes_before_rank():
    student, teacher = convolutions(2, 2, 2), convolutions(1, 1, 2, 1, 2, 1)
    # student maps 14, 7, 4; teacher maps 28, 14, 7
    assert suggest_layers(student, teacher, (1, 28, 28)) == [("0.0", "0.3"), ("0.1", "0")]


def test_resnets_pair_stage_by_stage_at_any_size():
    student, teacher = torchvision.models.resnet18(num_classes=5), torchvision.models.resnet34(num_classes=5)
    for side in (64, 96):
        assert suggest_layers(student, teacher, (3, side, side)) == [(f"layer{i}",) * 2 for i in (1, 2, 3, 4)]


def test_the_last_stage_is_the_last_features_and_no_map_of_logits():
    headless = torchvision.models.resnet18(num_classes=5)
    headless.fc = nn.Identity()  # as many logits as channels of layer4, which are features all the same
    assert suggest_layers(headless, headless, (3, 64, 64))[-1] == ("layer4", "layer4")
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    convolutional = nn.Sequential(*convolutions(2, 2)[0], nn.Conv2d(4, 3, 1), pool)
    assert suggest_layers(convolutional, convolutional, (1, 16, 16))[-1] == ("1", "1")


def test_other_architectures_pair_by_resolution():
    student = torchvision.models.shufflenet_v2_x0_5(num_classes=5)
    teacher = torchvision.models.resnet18(num_classes=5)
    expected = [("stage2", "layer2"), ("stage3", "layer3"), ("conv5", "layer4")]
    assert suggest_layers(student, teacher, (3, 64, 64)) == expected
    assert suggest_layers(teacher, student, (3, 64, 64)) == [pair[::-1] for pair in expected]


def test_a_transformer_is_read_at_several_depths():
    pairs = suggest_layers(Tokens(), Tokens(), (1, 16, 16))
    assert pairs == [(f"blocks.{i}",) * 2 for i in (1, 3, 5, 7)]
    pairs = suggest_layers(convolutions(2, 2, 2), Tokens(), (1, 16, 16))
    assert len(pairs) >= 2 and pairs[-1] == ("0", "blocks.7")
    assert [teacher for _, teacher in pairs] == sorted(teacher for _, teacher in pairs)


def test_perceptrons_pair_hidden_vectors_and_not_logits():
    def perceptron(*widths):
        layers = [
            layer for a, b in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(a, b), nn.ReLU())
        ]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], 3))

    pairs = suggest_layers(perceptron(16, 8, 8), perceptron(16, 32, 32), (1, 4, 4))
    assert pairs == [("2", "2"), ("4", "4")]
    pairs = suggest_layers(perceptron(16, 8), convolutions(2, 2), (1, 4, 4))
    assert len(pairs) == 1 and pairs[0][0] == "2"


def test_pairs_suit_capture_and_non_square_images():
    student, teacher = (
        convolutions(2, 2, 2, in_channels=3),
        convolutions(1, 2, 2, 2, channels=7, in_channels=3),
    )
    pairs = suggest_layers(student, teacher, (3, 24, 40))
    assert len(pairs) == 3
    images = torch.randn(2, 3, 24, 40)
    _, ours = features.capture(student, [pair[0] for pair in pairs])(images)
    _, theirs = features.capture(teacher, [pair[1] for pair in pairs])(images)
    for mine, other in pairs:
        assert ours[mine].shape[2:] == theirs[other].shape[2:]


def test_networks_are_left_as_they_were():
    student, teacher = convolutions(2, 2).train(), convolutions(2, 2).eval()
    student[0][0][1].eval()
    statistics = student[0][1][1].running_mean.clone()
    suggest_layers(student, teacher, (1, 8, 8))
    assert student.training and not student[0][0][1].training and not teacher.training
    assert torch.equal(student[0][1][1].running_mean, statistics)
    assert not any(module._forward_hooks for module in student.modules())


class Pair(nn.Module):
    """Two tensors in place of logits."""

    def forward(self, images):
        return images.mean(dim=(1, 2)), images


def test_bad_input_is_named():
    net = convolutions(2, 2)
    with pytest.raises(ValueError, match=r"image_shape must be \(channels, height, width\), got \(28, 28\)"):
        suggest_layers(net, net, (28, 28))
    for image_shape in (28, None, (1, 8, 8.0), (1, 8, True), (0, 8, 8)):
        with pytest.raises(ValueError, match=r"image_shape must be \(channels, height, width\), got "):
            suggest_layers(net, net, image_shape)
    assert suggest_layers(net, net, np.array([1, 8, 8])) == suggest_layers(net, net, (1, 8, 8))
    with pytest.raises(ValueError, match=r"teacher does not run on an image of shape \(1, 8, 8\)"):
        suggest_layers(net, convolutions(2, in_channels=3), (1, 8, 8))
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="teacher has layers without a size yet.*run it on a batch"):
        suggest_layers(net, lazy, (1, 8, 8))
    with pytest.raises(ValueError, match="the model must return .*logits.*tuple"):
        suggest_layers(Pair(), net, (1, 8, 8))
    with pytest.raises(ValueError, match="student has no layers"):
        suggest_layers(nn.Identity(), net, (1, 8, 8))
    with pytest.raises(TypeError, match="student must be a torch.nn.Module, got str"):
        suggest_layers("resnet18", net, (1, 8, 8))
