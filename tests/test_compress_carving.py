"""Students carved out of teachers: which channels they keep, and that all layers keep the same ones."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models as zoo

from kdlib import models
from kdlib.deploy.compress import carve, prune_channels
from kdlib.teachers import freeze

SHAPE = (1, 8, 8)


def images() -> torch.Tensor:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))


def lived_in(name: str) -> nn.Module:
    """A network in eval mode with random batch norm."""
    model, generator = models.build(name, image_size=8, seed=0), torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return model.eval()


def test_with_the_widths_of_the_teacher_its_logits_are_kept():
    for name in ("tiny-cnn", "student-net", "resnet8x2", "resnet14"):
        teacher, student = lived_in(name), models.build(name, image_size=8, seed=5)
        before = copy.deepcopy((teacher.state_dict(), student.state_dict()))
        carved = carve(freeze(teacher), student, SHAPE)
        assert torch.equal(carved(images()), teacher(images())), name
        for model, state in zip((teacher, student), before, strict=True):
            assert all(torch.equal(tensor, state[path]) for path, tensor in model.state_dict().items()), name
        assert not carved.training and all(parameter.requires_grad for parameter in carved.parameters()), name


# Layers of resnet8 whose outputs are added to each other, and so must lose the same channels.
JOINED = [
    ["stem.1", "stages.0.0.second.1"], ["stages.0.0.first.1"],
    ["stages.1.0.first.1"], ["stages.1.0.second.1", "stages.1.0.shortcut.1"],
    ["stages.2.0.first.1"], ["stages.2.0.second.1", "stages.2.0.shortcut.1"],
]  # fmt: skip


def test_dead_channels_are_the_ones_that_go_and_residual_sums_lose_the_same():
    teacher, generator = lived_in("resnet8x2"), torch.Generator().manual_seed(2)
    for paths in JOINED:
        width = len(teacher.get_submodule(paths[0]).weight)
        dead = torch.randperm(width, generator=generator)[: width // 2]
        for path in paths:
            norm = teacher.get_submodule(path)
            norm.weight.data[dead] = norm.bias.data[dead] = 0
    carved = carve(teacher, models.build("resnet8"), SHAPE)
    # Nothing but zeros was taken away: half the widths, the same logits.
    torch.testing.assert_close(carved(images()), teacher(images()), atol=1e-5, rtol=1e-5)
    state = {path: tensor.shape for path, tensor in carved.state_dict().items()}
    assert state == {path: tensor.shape for path, tensor in models.build("resnet8").state_dict().items()}


def test_the_channels_of_a_plain_network_are_those_of_the_largest_filters_with_their_norm():
    teacher, student = lived_in("tiny-cnn"), models.TinyCNN(10, 1, widths=(5, 9, 64))
    carved = carve(teacher, student, SHAPE)
    kept = []
    for stage, width in zip(teacher.stages, (5, 9, 64), strict=True):
        convolution, norm, _ = stage
        folded = nn.utils.fuse_conv_bn_eval(convolution, norm)
        kept.append(folded.weight.detach().square().sum((1, 2, 3)).topk(width).indices.sort().values)
    inputs = torch.arange(1)
    for old, new, outputs in zip(teacher.stages, carved.stages, kept, strict=True):
        assert torch.equal(new[0].weight, old[0].weight[outputs][:, inputs])
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(getattr(new[1], tensor), getattr(old[1], tensor)[outputs])
        inputs = outputs
    assert torch.equal(carved.head.weight, teacher.head.weight[:, inputs])


def test_channels_are_followed_into_the_places_of_a_linear_layer():
    teacher = lived_in("teacher-net")
    with torch.no_grad():
        for layer in (teacher.features[0], teacher.features[3], teacher.classifier[1]):
            layer.weight[1::2] *= 1e-3
            layer.bias[1::2] = -1  # below 0 without the filter: nothing comes out
        teacher.classifier[1].weight[384::2] = teacher.classifier[1].bias[384::2] = 0
        teacher.classifier[1].weight[128:384:2] = teacher.classifier[1].bias[128:384:2] = 0
    carved = carve(teacher, models.build("student-net", image_size=8), SHAPE)
    torch.testing.assert_close(carved(images()), teacher(images()), atol=1e-3, rtol=1e-3)


def test_depthwise_convolutions_follow_their_inputs():
    teacher, student = (zoo.mobilenet_v2(num_classes=10, width_mult=width).eval() for width in (1.0, 0.5))
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    carved = carve(teacher, student, (3, 32, 32))
    assert carved(pictures).shape == (2, 10)
    # The stem has one reader, a depthwise convolution, whose filters count with those of the stem.
    stem, depthwise = teacher.features[0][0].weight, teacher.features[1].conv[0][0].weight
    norms = [weight.detach().flatten(1).norm(dim=1) for weight in (stem, depthwise)]
    kept = sum(norm / norm.mean() for norm in norms).topk(16).indices.sort().values
    assert torch.equal(carved.features[0][0].weight, stem[kept])
    assert torch.equal(carved.features[1].conv[0][0].weight, depthwise[kept])


def test_a_pruned_network_is_a_form_to_carve():
    teacher = lived_in("resnet8")
    carved = carve(teacher, prune_channels(teacher, 0.5, SHAPE), SHAPE)
    assert carved(images()).shape == (6, 10) and len(carved.stem[0].weight) == 8


def test_networks_that_do_not_correspond_are_refused():
    for teacher, student, message in (
        ("resnet8", "resnet8x2", "must not be wider than teacher: stem.0 has 32 outputs, the teacher's 16"),
        ("resnet8x4", "resnet8", "same layers .* differ at 'stages.0.0.shortcut.0': Conv2d"),
        ("resnet14", "resnet8", "differ at 'stages.0.1.first.0'"),
        ("resnet8", "tiny-cnn", "differ at 'stem.0'"),
    ):
        with pytest.raises(ValueError, match=message):
            carve(models.build(teacher), models.build(student), SHAPE)


def test_students_of_other_tasks_are_refused():
    plan = ((8, 3, 1), (8, 3, 1))
    for options, shape, message in (
        ({"num_classes": 7}, SHAPE, "same classes, got 10 and 7"),
        ({"in_channels": 3}, SHAPE, "student cannot process images"),
        ({}, (3, 8, 8), "teacher cannot process images"),
        ({"plan": ((8, 3, 1), (8, 5, 1))}, SHAPE, "differ at 'stages.1.0'.*kernel_size=.3, 3"),
    ):
        with pytest.raises(ValueError, match=message):
            carve(models.PocketCNN(10, 1, plan), models.PocketCNN(**({"plan": plan} | options)), shape)
