"""Losses on logits against closed forms, finite differences and limits."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cosine as cosine_distance
from scipy.special import expit, log_softmax, rel_entr, softmax
from scipy.stats import pearsonr

from kdlib import losses

torch.set_num_threads(1)


def some_labels(logits):
    return torch.arange(len(logits)) % logits.shape[1]


LOSSES = {
    "soft_target": lambda z, v: losses.soft_target_loss(z, v, 4.0),
    "soft_target_sharp": lambda z, v: losses.soft_target_loss(z, v, 0.5),
    "distillation": lambda z, v: (
        losses.distillation_loss(z, v, some_labels(z), temperature=2, alpha=0.7).total
    ),
    "logit_mse": losses.logit_mse_loss,
    "cosine_logit": losses.cosine_logit_loss,
    "decoupled": lambda z, v: losses.decoupled_loss(z, v, some_labels(z)),
    "decoupled_sharp": lambda z, v: losses.decoupled_loss(z, v, some_labels(z), temperature=1),
    "correlation": losses.correlation_loss,
    "multilabel_distillation": lambda z, v: losses.multilabel_distillation_loss(z, v, 3.0),
    "standardised": losses.standardised_loss,
    "standardised_sharp": lambda z, v: losses.standardised_loss(z, v, 0.5),
    "tail_bucket": losses.tail_bucket_loss,
    "tail_bucket_sharp": lambda z, v: losses.tail_bucket_loss(z, v, 0.5, k=1),
}
# Zero where student and teacher agree, and never negative.
DIVERGENCES = {name: loss for name, loss in LOSSES.items() if name != "distillation"}


def logits(batch=6, classes=5, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def gradient(loss, student):
    return torch.autograd.grad(loss, student)[0]


def of(name):
    """A message of assert_close that says which loss failed."""
    return lambda text: f"{name}: {text}"


def kl(teacher_logits, student_logits):
    """KL(teacher || student) of each row, by scipy."""
    return rel_entr(softmax(teacher_logits, axis=-1), np.exp(log_softmax(student_logits, axis=-1))).sum(
        axis=-1
    )


# ---- closed forms


def test_soft_target_loss_is_t_squared_kl():
    for temperature, (batch, classes) in product([0.5, 1, 4.0, 20.0], [(1, 2), (6, 5), (3, 100)]):
        student, teacher = logits(batch, classes)
        z, v = student.detach().numpy(), teacher.numpy()
        expected = temperature**2 * kl(v / temperature, z / temperature).mean()
        value = losses.soft_target_loss(student, teacher, temperature)
        assert value.item() == pytest.approx(expected, rel=1e-10), (temperature, batch, classes)

        q, p = softmax(z / temperature, axis=1), softmax(v / temperature, axis=1)
        np.testing.assert_allclose(gradient(value, student), temperature * (q - p) / batch, atol=1e-12)


def test_soft_target_loss_equals_torch_distributions_and_kl_div():
    student, teacher = logits()
    categorical = torch.distributions.Categorical
    divergence = torch.distributions.kl_divergence(
        categorical(logits=teacher / 3), categorical(logits=student / 3)
    )
    value = losses.soft_target_loss(student, teacher, 3)
    torch.testing.assert_close(value, 9 * divergence.mean())
    by_rows = F.kl_div(
        (student / 3).log_softmax(1), (teacher / 3).log_softmax(1), reduction="none", log_target=True
    )
    torch.testing.assert_close(value, 9 * by_rows.sum(dim=1).mean())


def test_distillation_loss_is_the_weighted_sum_of_its_terms():
    student, teacher = logits()
    labels = some_labels(student)
    z, v = student.detach().numpy(), teacher.numpy()
    task = -log_softmax(z, axis=1)[np.arange(len(z)), labels.numpy()].mean()
    distill = 16 * kl(v / 4, z / 4).mean()
    for alpha in (0.1, 0.5, 0.9):
        terms = losses.distillation_loss(student, teacher, labels, temperature=4.0, alpha=alpha)
        assert terms.task.item() == pytest.approx(task)
        assert terms.distill.item() == pytest.approx(distill)
        assert terms.total.item() == pytest.approx(alpha * distill + (1 - alpha) * task), alpha


def test_logit_mse_loss_averages_over_batch_and_classes():
    student, teacher = logits()
    expected = np.mean((student.detach().numpy() - teacher.numpy()) ** 2)
    assert losses.logit_mse_loss(student, teacher).item() == pytest.approx(expected)


def test_cosine_logit_loss_is_scipys_cosine_distance():
    student, teacher = logits()
    expected = np.mean(
        [cosine_distance(z, v) for z, v in zip(student.detach().numpy(), teacher.numpy(), strict=True)]
    )
    assert losses.cosine_logit_loss(student, teacher).item() == pytest.approx(expected)


def test_decoupled_loss_follows_the_papers_definitions():
    for classes in (2, 3, 10):
        student, teacher = logits(batch=7, classes=classes)
        labels = some_labels(student)
        target_terms, rest_terms = [], []
        for z, v, label in zip(student.detach().numpy(), teacher.numpy(), labels.tolist(), strict=True):
            q, p = softmax(z / 2), softmax(v / 2)
            target_terms.append(rel_entr([p[label], 1 - p[label]], [q[label], 1 - q[label]]).sum())
            q_rest, p_rest = np.delete(q, label) / (1 - q[label]), np.delete(p, label) / (1 - p[label])
            rest_terms.append(rel_entr(p_rest, q_rest).sum())
        expected = 4 * (1.5 * np.mean(target_terms) + 6 * np.mean(rest_terms))
        value = losses.decoupled_loss(student, teacher, labels, temperature=2, alpha=1.5, beta=6)
        assert value.item() == pytest.approx(expected), classes


def test_decoupled_loss_splits_the_soft_target_loss():
    """KL = TCKD + (1 - p_label) NCKD, image by image."""
    student, teacher = logits()
    for image in range(len(student)):
        z, v, label = student[image : image + 1], teacher[image : image + 1], torch.tensor([2])
        rest = 1 - (v / 3).softmax(1)[0, 2].item()
        torch.testing.assert_close(
            losses.decoupled_loss(z, v, label, temperature=3, alpha=1, beta=rest),
            losses.soft_target_loss(z, v, 3),
        )


def test_correlation_loss_is_pearsons_over_rows_and_columns():
    student, teacher = logits(batch=8)
    q, p = softmax(student.detach().numpy() / 2, axis=1), softmax(teacher.numpy() / 2, axis=1)
    inter = 1 - np.mean([pearsonr(a, b).statistic for a, b in zip(q, p, strict=True)])
    intra = 1 - np.mean([pearsonr(a, b).statistic for a, b in zip(q.T, p.T, strict=True)])
    value = losses.correlation_loss(student, teacher, temperature=2, inter=2, intra=0.5)
    assert value.item() == pytest.approx(2 * inter + 0.5 * intra)


def test_multilabel_distillation_loss_sums_bernoulli_divergences():
    student, teacher = logits()
    q, p = expit(student.detach().numpy() / 3), expit(teacher.numpy() / 3)
    expected = 9 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).sum(axis=1).mean()
    assert losses.multilabel_distillation_loss(student, teacher, 3.0).item() == pytest.approx(expected)


# ---- gradients


def test_gradient_matches_finite_differences():
    student, teacher = logits()
    for name, loss in LOSSES.items():
        assert torch.autograd.gradcheck(lambda z, loss=loss: loss(z, teacher), (student,)), name


def test_only_the_student_gets_a_gradient():
    for name, loss in LOSSES.items():
        student, teacher = logits()
        teacher.requires_grad_()
        before = student.detach().clone(), teacher.detach().clone()
        loss(student, teacher).backward()
        assert teacher.grad is None, name
        assert student.grad.abs().sum() > 0, name
        assert torch.equal(student, before[0]) and torch.equal(teacher, before[1]), name


# ---- limits


def test_high_temperature_matches_centred_logits():
    """T -> infinity: with d = z - v, centred in its row, L = |d|^2 / 2N and its gradient d / N, per image."""
    student, teacher = logits(batch=4, classes=7)
    difference = (student - teacher).detach()
    centred = difference - difference.mean(dim=1, keepdim=True)
    errors = []
    for temperature in (1e3, 1e4):
        value = losses.soft_target_loss(student, teacher, temperature)
        limit = centred.square().sum(dim=1).mean() / (2 * 7)
        torch.testing.assert_close(gradient(value, student), centred / 7 / 4, atol=20 / temperature, rtol=0)
        errors.append(abs(value - limit).item())
    assert errors[1] < 0.2 * errors[0] < 0.02  # the error falls as 1 / T


def test_high_temperature_is_half_the_mse_of_centred_logits():
    student, teacher = (x - x.mean(dim=1, keepdim=True) for x in logits())
    limit = losses.soft_target_loss(student, teacher, 1e4)
    torch.testing.assert_close(limit, losses.logit_mse_loss(student, teacher) / 2, rtol=1e-2, atol=0)


def test_low_temperature_leaves_only_the_teachers_first_choice():
    """T -> 0: L / T -> mean over batch of max(z) - z[argmax v]."""
    student, teacher = logits()
    first_choice = student.gather(1, teacher.argmax(dim=1, keepdim=True))[:, 0]
    limit = (student.max(dim=1).values - first_choice).mean()
    value = losses.soft_target_loss(student, teacher, 1e-3)
    torch.testing.assert_close(value / 1e-3, limit, rtol=1e-6, atol=0)


def test_t_squared_keeps_the_gradient_at_one_size():
    student, teacher = logits(batch=64, classes=10)
    sizes = {
        T: gradient(losses.soft_target_loss(student, teacher, T), student).norm().item()
        for T in (4, 8, 16, 32)
    }
    assert max(sizes.values()) < 1.35 * min(sizes.values())
    without = {T: size / T**2 for T, size in sizes.items()}
    assert without[32] < without[4] / 40


# ---- invariants


def test_zero_value_and_gradient_where_student_and_teacher_agree():
    student, _ = logits()
    for name, loss in DIVERGENCES.items():
        value = loss(student, student.detach())
        assert value.item() == pytest.approx(0, abs=1e-12), name
        slope = gradient(value, student)
        torch.testing.assert_close(slope, torch.zeros_like(student), atol=1e-9, rtol=0, msg=of(name))


same_shape_logits = st.tuples(st.integers(1, 5), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(*[arrays(np.float64, shape, elements=st.floats(-50, 50))] * 2)
)


@settings(deadline=None, max_examples=60 * len(DIVERGENCES))
@given(pair=same_shape_logits, name=st.sampled_from(list(DIVERGENCES)))
def test_never_negative(pair, name):
    assume(pair[0].shape[1] > 2 or not name.startswith("standardised"))  # which refuses two classes
    assert DIVERGENCES[name](*map(torch.from_numpy, pair)).item() >= -1e-9


def test_a_constant_added_to_a_row_changes_nothing():
    student, teacher = logits()
    shift = torch.linspace(-30, 30, len(student), dtype=torch.float64)[:, None]
    for name in ("soft_target", "distillation", "decoupled", "correlation", "standardised", "tail_bucket"):
        expected = LOSSES[name](student, teacher)
        shifted = LOSSES[name](student + shift, teacher - 2 * shift)
        torch.testing.assert_close(shifted, expected, msg=of(name))


def test_logit_mse_does_see_a_constant_added_to_a_row():
    student, teacher = logits()
    assert losses.logit_mse_loss(student + 1, student).item() == pytest.approx(1)


def test_repeating_the_batch_changes_nothing():
    student, teacher = logits(batch=5, classes=5)  # with labels 0 to 4 in each copy
    for name, loss in LOSSES.items():
        repeated = loss(student.repeat(3, 1), teacher.repeat(3, 1))
        torch.testing.assert_close(repeated, loss(student, teacher), msg=of(name))


def test_correlation_loss_ignores_the_spread_of_probabilities():
    _, teacher = logits()
    p = teacher.softmax(dim=1)
    flatter = (0.3 * p + 0.7 / p.shape[1]).log()
    assert losses.correlation_loss(flatter, teacher).item() == pytest.approx(0, abs=1e-9)


def test_two_classes_leave_only_the_label_term_of_decoupled_loss():
    student, teacher = logits(classes=2)
    value = losses.decoupled_loss(student, teacher, some_labels(student), temperature=3, alpha=2, beta=8)
    torch.testing.assert_close(value, 2 * losses.soft_target_loss(student, teacher, 3))
    assert gradient(value, student).isfinite().all()


# ---- extreme logits and number formats

EXTREMES = {
    "opposed": lambda gap, x: (gap / 2 * x.sign(), -gap / 2 * x.sign()),
    "flat student": lambda gap, x: (0 * x, gap / 2 * x.sign()),
    "flat teacher": lambda gap, x: (gap / 2 * x.sign(), 0 * x),
    "agreeing": lambda gap, x: (gap / 2 * x.sign(), gap / 2 * x.sign()),
    "spread": lambda gap, x: (gap * x.sigmoid(), gap * x.flip(1).sigmoid()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_finite_value_and_gradient_for_any_finite_logits(dtype):
    x, _ = logits(batch=8, classes=10, seed=3)
    for name, case, gap in product(LOSSES, EXTREMES, [0, 1e2, 1e4]):
        student, teacher = (y.detach().to(dtype) for y in EXTREMES[case](gap, x))
        student.requires_grad_()
        value = LOSSES[name](student, teacher)
        assert value.dtype == torch.float32 and value.isfinite(), (name, case, gap)
        slope = gradient(value, student)
        assert slope.dtype == dtype and slope.isfinite().all(), (name, case, gap)


def test_finite_up_to_the_documented_size():
    student, teacher = logits(dtype=torch.float32)
    for (name, loss), size in product(LOSSES.items(), [1e8, 1e15]):
        value = loss(size * student, size * teacher)
        assert value.isfinite() and gradient(value, student).isfinite().all(), (name, size)


def test_the_value_at_a_gap_is_right_and_not_just_finite():
    for gap in (100.0, 1e4):
        student, teacher = torch.tensor([[0.0, gap]]), torch.tensor([[gap, 0.0]])
        decoupled = losses.decoupled_loss(student, teacher, torch.tensor([0]), temperature=1)
        assert losses.soft_target_loss(student, teacher, 1).item() == pytest.approx(gap)
        assert losses.multilabel_distillation_loss(student, teacher).item() == pytest.approx(gap / 2)
        assert decoupled.item() == pytest.approx(gap)


def test_half_precision_is_computed_in_float32():
    student, teacher = logits(batch=8, classes=5, dtype=torch.bfloat16)
    for name, loss in LOSSES.items():
        found, expected = loss(student, teacher), loss(student.float(), teacher.float())
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7, msg=of(name))


def test_float64_stays_float64():
    for name, loss in LOSSES.items():
        assert loss(*logits()).dtype == torch.float64, name


def test_correlation_of_constant_rows_and_columns_is_zero_with_a_finite_gradient():
    for batch in (1, 4):
        student, teacher = torch.zeros(batch, 5, requires_grad=True), torch.randn(batch, 5)
        value = losses.correlation_loss(student, teacher)
        assert value.item() == pytest.approx(2, abs=0.1)
        assert gradient(value, student).isfinite().all()
