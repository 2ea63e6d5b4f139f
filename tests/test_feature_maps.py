"""Attention and Grad-CAM maps by hand, regressors, and the layouts of transformers."""

import itertools

import pytest
import torch

from kdlib import features

pytestmark = pytest.mark.usefixtures("one_thread")


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_map_by_hand():
    maps = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]]])
    assert torch.equal(features.attention_map(maps), torch.tensor([[[10.0, 4.0]]]))
    assert torch.equal(features.attention_map(maps, power=1), torch.tensor([[[4.0, 2.0]]]))


def test_class_gradients_of_a_linear_head_are_its_weights():
    maps = torch.randn(3, 2, 2, 2, requires_grad=True)
    head = torch.randn(5, 8)
    classes = torch.tensor([4, 0, 4])
    gradients = features.class_gradients(maps.flatten(1) @ head.T, maps, classes)
    assert torch.allclose(gradients.flatten(1), head[classes])


def test_gradcam_reaches_the_weights_of_the_student():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(1, 3, 3)
    head = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 2))
    images, classes = torch.randn(4, 1, 6, 6), torch.tensor([0, 1, 0, 1])
    maps = layer(images)
    gradients = features.class_gradients(head(maps), maps, classes, create_graph=True)
    teacher, teacher_gradients = torch.randn(2, 4, 5, 4, 4).unbind()
    features.gradcam_transfer_loss(maps, teacher, gradients, teacher_gradients).backward()
    assert layer.weight.grad.abs().sum() > 0
    assert head[2].weight.grad.abs().sum() > 0  # through the gradients alone


def test_to_map_undoes_the_layouts_of_transformers():
    maps = torch.randn(2, 5, 3, 3)
    tokens = maps.flatten(2).transpose(1, 2)
    assert torch.equal(features.to_map(tokens, extra_tokens=0), maps)
    with_class_token = torch.cat([torch.zeros(2, 1, 5), tokens], dim=1)
    assert torch.equal(features.to_map(with_class_token), maps)
    assert torch.equal(features.to_map(maps.permute(0, 2, 3, 1), channels_last=True), maps)
    with pytest.raises(ValueError, match=r"tokens \(batch, extra_tokens \+ side\^2, channels\).*\(2, 9, 5\)"):
        features.to_map(tokens)
    with pytest.raises(ValueError, match=r"with channels_last maps .*\(2, 5, 3, 3\)"):
        features.to_map(maps)
    for extra_tokens in (-1, 1.0, True):
        with pytest.raises(ValueError, match="extra_tokens must be an integer of at least 0, got"):
            features.to_map(tokens, extra_tokens=extra_tokens)
    with pytest.raises(TypeError, match="features must be a torch.Tensor, got list"):
        features.to_map([0.0])


def test_regressor_between_brings_the_student_to_the_teachers_shape():
    pairs = [((4, 3, 8, 8), (4, 5, 4, 4)), ((4, 3, 4, 4), (4, 5, 7, 7)), ((4, 3), (4, 9))]
    for shapes, batch_norm in itertools.product(pairs, (False, True)):
        student, teacher = maps(*shapes[0]), maps(*shapes[1], seed=1)
        regressor = features.Regressor.between(student, teacher, batch_norm=batch_norm)
        assert regressor(student).shape == teacher.shape, shapes
        features.hint_loss(regressor(student), teacher).backward()
        assert all(parameter.grad is not None for parameter in regressor.parameters()), shapes
        assert regressor(student.bfloat16()).shape == teacher.shape, shapes


def test_regressor_learns_a_linear_map():
    torch.manual_seed(0)
    student = maps(32, 3, 4, 4)
    teacher = torch.einsum("tc,bchw->bthw", maps(5, 3, seed=1), student)
    regressor = features.Regressor.between(student, teacher)
    optimizer = torch.optim.Adam(regressor.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = features.hint_loss(regressor(student), teacher)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01 * teacher.square().mean().item()
