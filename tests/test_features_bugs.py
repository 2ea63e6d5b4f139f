"""Defects of public implementations of feature losses, one test each."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdlib import features

pytestmark = pytest.mark.usefixtures("one_thread")


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_similarity_rows_have_l2_norm_not_l1():
    # F.normalize(G, 1) sets p=1 in place of dim=1.
    student, teacher = maps(64, 32, seed=1), maps(64, 48, seed=2)

    def with_norm(**norm):
        difference = F.normalize(student @ student.T, **norm) - F.normalize(teacher @ teacher.T, **norm)
        return difference.square().sum().item() / 64**2

    value = features.similarity_loss(student, teacher).item()
    assert value == pytest.approx(with_norm(p=2, dim=1), rel=1e-5)
    assert value > 10 * with_norm(p=1)


def test_attention_is_the_norm_of_equation_2_and_not_its_mean_square():
    student, teacher = maps(16, 8, 8, 8, seed=1).relu(), maps(16, 8, 8, 8, seed=2).relu()
    q_student, q_teacher = (F.normalize(f.square().mean(1).flatten(1)) for f in (student, teacher))
    coded = (q_student - q_teacher).square().mean().item()
    squared = features.attention_transfer_loss(student, teacher, squared=True).item()
    norm = features.attention_transfer_loss(student, teacher).item()
    assert squared / 64 == pytest.approx(coded, rel=1e-5)
    assert norm == pytest.approx((q_student - q_teacher).norm(dim=1).mean().item(), rel=1e-5)
    assert 50 < norm / coded < 500


def test_gradcam_weighs_activations_and_not_gradients():
    # Behind global average pooling the gradient is the same everywhere: a map made of it is constant.
    activations = maps(2, 3, 4, 4).relu().requires_grad_()
    head = nn.Linear(3, 5)
    nn.init.uniform_(head.weight, 0.1, 1)
    logits = head(activations.mean(dim=(2, 3)))
    gradients = features.class_gradients(logits, activations, torch.tensor([1, 3]))
    heat = features.gradcam_map(activations.detach(), gradients)
    expected = (head.weight[[1, 3]][:, :, None, None] * activations).sum(1) / 16
    assert torch.allclose(heat, expected, atol=1e-6)
    assert heat.flatten(1).std(dim=1).min() > 0


def test_congruence_cannot_be_met_by_collapsing():
    # With two trained embeddings and a loss of their difference, both become constant: no loss is left.
    images = maps(32, 10)
    teacher = nn.Linear(10, 6)
    student = nn.Parameter(torch.ones(32, 6) + 1e-3 * maps(32, 6, seed=3))
    collapsed = features.correlation_congruence_loss(student, teacher(images))
    collapsed.backward()
    assert teacher.weight.grad is None
    assert collapsed.item() > 0.05
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = features.correlation_congruence_loss(student, teacher(images))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * collapsed.item()
    assert F.normalize(student.detach()).std(dim=0).mean() > 0.1


def test_variances_of_vid_are_trained():
    # A plain list of parameters is invisible to model.parameters().
    torch.manual_seed(0)
    loss = features.VariationalInformationLoss(4, 3, initial_variance=5)
    assert torch.allclose(loss.variance, torch.full((3,), 5.0))
    assert "raw_variance" in loss.state_dict()
    noise = torch.tensor([0.2, 1.0, 3.0])
    teacher = maps(256, 3) * noise
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss(torch.zeros(256, 4), teacher).backward()
        optimizer.step()
    # The student says nothing, so the best variance is the teacher's own.
    assert torch.allclose(loss.variance, teacher.var(dim=0, unbiased=False), rtol=0.1)


def test_zero_row_has_a_finite_gradient_in_probabilistic_transfer():
    # sqrt(sum of squares) has an infinite derivative at 0, which the eps behind it does not mend.
    student = maps(4, 5)
    student[2] = 0
    student.requires_grad_()
    features.probabilistic_transfer_loss(student, maps(4, 5, seed=1)).backward()
    assert torch.isfinite(student.grad).all()
    assert student.grad[[0, 1, 3]].abs().min() > 0


def test_authors_reduction_of_probabilistic_transfer():
    student, teacher = maps(16, 8, seed=1).double(), maps(16, 12, seed=2).double()

    def neighbours(rows):
        cosine = F.normalize(rows) @ F.normalize(rows).T
        return F.normalize((cosine + 1) / 2, p=1, dim=1)

    p, q = neighbours(teacher), neighbours(student)
    coded = (p * (p / q).log()).mean().item()
    value = features.probabilistic_transfer_loss(student, teacher, include_self=True).item()
    assert value / 16 == pytest.approx(coded, rel=1e-9)


def test_authors_reductions_of_hint_and_variational_information():
    student, teacher = maps(4, 6, 3, 3, seed=1), maps(4, 6, 3, 3, seed=2)
    paper = 0.5 * (student - teacher).square().sum(dim=(1, 2, 3)).mean()
    assert features.hint_loss(student, teacher).item() * 6 * 9 / 2 == pytest.approx(paper.item(), rel=1e-5)
    variance = torch.linspace(0.5, 2, 6)
    normal = torch.distributions.Normal(student, variance.sqrt()[:, None, None])
    likelihood = -normal.log_prob(teacher).mean() - 0.5 * math.log(2 * math.pi)
    value = features.variational_information_loss(student, teacher, variance)
    assert value.item() == pytest.approx(likelihood.item(), rel=1e-5)
