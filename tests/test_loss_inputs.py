"""Losses on logits under bad input, and at the two ends of alpha."""

import inspect
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdlib import losses

torch.set_num_threads(1)

TWO_LOGITS = {
    "soft_target_loss": lambda z, v: losses.soft_target_loss(z, v, 4.0),
    "distillation_loss": lambda z, v: losses.distillation_loss(z, v, LABELS, temperature=4.0, alpha=0.9),
    "logit_mse_loss": losses.logit_mse_loss,
    "cosine_logit_loss": losses.cosine_logit_loss,
    "decoupled_loss": lambda z, v: losses.decoupled_loss(z, v, LABELS),
    "correlation_loss": losses.correlation_loss,
    "multilabel_distillation_loss": losses.multilabel_distillation_loss,
    "standardised_loss": losses.standardised_loss,
    "tail_bucket_loss": losses.tail_bucket_loss,
}

LABELS = torch.tensor([0, 1, 2, 2])
STUDENT = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
TEACHER = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def test_different_shapes_are_refused_showing_both():
    for loss in TWO_LOGITS.values():
        with pytest.raises(ValueError, match=r"student_logits and teacher_logits .*\(4, 3\) and \(4, 5\)"):
            loss(STUDENT, torch.randn(4, 5))
        with pytest.raises(ValueError, match=r"\(4, 3\) and \(1, 3\)"):  # no silent broadcasting
            loss(STUDENT, TEACHER[:1])


def test_anything_but_batch_by_classes_is_refused():
    for loss in TWO_LOGITS.values():
        for shape in ((), (3,), (4, 3, 1), (0, 3), (4, 0)):
            with pytest.raises(ValueError, match="student_logits must have shape"):
                loss(torch.zeros(shape), TEACHER)
            with pytest.raises(ValueError, match="teacher_logits must have shape"):
                loss(STUDENT, torch.zeros(shape))


def test_what_is_no_dense_floating_point_tensor_is_refused():
    for loss in TWO_LOGITS.values():
        for odd in (TEACHER.long(), TEACHER.cfloat(), TEACHER > 0, TEACHER.to(torch.float8_e5m2)):
            with pytest.raises(
                ValueError, match=f"teacher_logits must be floating-point logits, got {odd.dtype}"
            ):
                loss(STUDENT, odd)
        with pytest.raises(ValueError, match="student_logits must be floating-point logits.*dense"):
            loss(STUDENT.to_sparse(), TEACHER)
        with pytest.raises(ValueError, match="student_logits must have shape .* got a nested tensor"):
            loss(torch.nested.nested_tensor(list(STUDENT), layout=torch.jagged), TEACHER)
        with pytest.raises(TypeError, match="student_logits must be a torch.Tensor, got ndarray"):
            loss(STUDENT.numpy(), TEACHER)


def test_non_finite_logits_are_named_with_their_position():
    for loss in TWO_LOGITS.values():
        for bad in (float("nan"), float("inf"), -float("inf")):
            spoiled = TEACHER.clone()
            spoiled[2, 1] = bad
            message = rf"student_logits must be finite, got {bad} at position \(2, 1\)"
            with pytest.raises(ValueError, match=message):
                loss(spoiled, TEACHER)
            with pytest.raises(ValueError, match=r"teacher_logits must be finite"):
                loss(STUDENT, spoiled)


def test_large_float16_logits_whose_sum_overflows_are_not_taken_for_infinite():
    large = torch.full((4, 3), 6e4, dtype=torch.float16)
    assert losses.soft_target_loss(large, large, 4).item() == 0


TEMPERATURES = {
    "soft_target_loss": lambda T: losses.soft_target_loss(STUDENT, TEACHER, T),
    "distillation_loss": lambda T: losses.distillation_loss(
        STUDENT, TEACHER, LABELS, temperature=T, alpha=0.5
    ),
    "decoupled_loss": lambda T: losses.decoupled_loss(STUDENT, TEACHER, LABELS, temperature=T),
    "correlation_loss": lambda T: losses.correlation_loss(STUDENT, TEACHER, temperature=T),
    "multilabel_distillation_loss": lambda T: losses.multilabel_distillation_loss(
        STUDENT, TEACHER, temperature=T
    ),
    "standardised_loss": lambda T: losses.standardised_loss(STUDENT, TEACHER, temperature=T),
    "tail_bucket_loss": lambda T: losses.tail_bucket_loss(STUDENT, TEACHER, temperature=T, k=1),
}


def test_temperature_must_be_a_finite_number_above_zero():
    for loss in TEMPERATURES.values():
        for bad in (0, -1.0, float("nan"), float("inf"), 1e-300, 1e300):
            with pytest.raises(ValueError, match=f"temperature must be .* got {re.escape(str(bad))}"):
                loss(bad)
        with pytest.raises(ValueError, match="temperature must be a finite number"):
            loss(10**400)
        for bad in ("4", None, True, np.bool_(True), 4j, [4], torch.tensor(4.0)):
            with pytest.raises(TypeError, match="temperature must be a number"):
                loss(bad)
        for good in (4, np.int64(4), np.float32(4), Fraction(4)):
            torch.testing.assert_close(loss(good), loss(4.0))


def test_weights_outside_their_range_are_refused():
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"alpha must be .* got {bad}"):
            losses.distillation_loss(STUDENT, TEACHER, LABELS, temperature=4, alpha=bad)
    for name in ("alpha", "beta"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
            losses.decoupled_loss(STUDENT, TEACHER, LABELS, **{name: -1})
    for name in ("inter", "intra"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
            losses.correlation_loss(STUDENT, TEACHER, **{name: -1})
        with pytest.raises(ValueError, match=rf"{name} must be from 0 to 1e\+09, got 1e\+300"):
            losses.correlation_loss(STUDENT, TEACHER, **{name: 1e300})


def test_the_number_of_kept_classes_must_be_an_integer_above_zero():
    for bad in (0, -1, -(10**400)):
        with pytest.raises(ValueError, match=f"k must be at least 1, got {bad}"):
            losses.tail_bucket_loss(STUDENT, TEACHER, k=bad)
    for bad in (3.0, "3", None, True, np.bool_(True), np.float32(3), Fraction(3), [3], torch.tensor(3)):
        with pytest.raises(TypeError, match="k must be an integer"):
            losses.tail_bucket_loss(STUDENT, TEACHER, k=bad)
    expected = losses.tail_bucket_loss(STUDENT, TEACHER, k=1)
    assert torch.equal(losses.tail_bucket_loss(STUDENT, TEACHER, k=np.int64(1)), expected)


WITH_LABELS = {
    "distillation_loss": lambda y: losses.distillation_loss(STUDENT, TEACHER, y, temperature=4, alpha=1),
    "decoupled_loss": lambda y: losses.decoupled_loss(STUDENT, TEACHER, y),
}


def test_labels_that_do_not_fit_are_refused():
    for loss in WITH_LABELS.values():
        with pytest.raises(ValueError, match=r"labels must be in \[0, 2\] for 3 classes, got 3"):
            loss(torch.tensor([0, 1, 3, 2]))
        with pytest.raises(ValueError, match="got -1"):
            loss(torch.tensor([0, -1, 1, 2]))
        with pytest.raises(ValueError, match=r"labels must have shape \(4,\).* \(4, 3\), got \(5,\)"):
            loss(torch.zeros(5, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"labels must have shape \(4,\)"):
            loss(F.one_hot(LABELS))
        with pytest.raises(ValueError, match="dtype torch.int64, got torch.float32"):
            loss(LABELS.float())
        with pytest.raises(TypeError, match="labels must be a torch.Tensor, got list"):
            loss([0, 1, 2, 2])
        with pytest.raises(
            ValueError, match="labels and student_logits must be on one device, got meta and cpu"
        ):
            loss(LABELS.to("meta"))


def test_a_softmax_over_one_class_is_refused():
    for name in set(TWO_LOGITS) - {"logit_mse_loss", "cosine_logit_loss", "multilabel_distillation_loss"}:
        with pytest.raises(ValueError, match="at least [23] classes"):
            TWO_LOGITS[name](STUDENT[:, :1], TEACHER[:, :1])


def test_a_wrong_call_is_a_type_error_of_python():
    with pytest.raises(TypeError, match="temperature"):
        losses.soft_target_loss(STUDENT, TEACHER)
    with pytest.raises(TypeError, match="too many positional"):
        losses.soft_target_loss(STUDENT, TEACHER, 4.0, 0.5)


def test_the_decorated_functions_keep_signature_and_documentation():
    assert list(inspect.signature(losses.soft_target_loss).parameters) == [
        "student_logits", "teacher_logits", "temperature"
    ]  # fmt: skip
    for name in TWO_LOGITS:
        assert "Source:" in getattr(losses, name).__doc__ or name == "cosine_logit_loss"


# ---- the two ends of alpha


def test_alpha_zero_is_exactly_cross_entropy_whatever_the_teacher_says():
    student = STUDENT.clone().requires_grad_()
    expected = F.cross_entropy(student, LABELS)
    (slope,) = torch.autograd.grad(expected, student)
    for teacher in (TEACHER, 1e4 * TEACHER, 3e38 * TEACHER.sign()):
        total = losses.distillation_loss(student, teacher, LABELS, temperature=0.5, alpha=0).total
        assert torch.equal(total, expected)
        assert torch.equal(torch.autograd.grad(total, student)[0], slope)


def test_alpha_one_needs_nothing_from_labels():
    student = STUDENT.clone().requires_grad_()
    expected = losses.soft_target_loss(student, TEACHER, 4)
    (slope,) = torch.autograd.grad(expected, student)
    for labels in (LABELS, LABELS.flip(0), None):
        terms = losses.distillation_loss(student, TEACHER, labels, temperature=4, alpha=1)
        assert torch.equal(terms.total, expected)
        assert torch.equal(terms.task.isnan(), torch.tensor(labels is None))
        assert torch.equal(torch.autograd.grad(terms.total, student)[0], slope)


def test_missing_labels_are_refused_where_they_count():
    with pytest.raises(ValueError, match="labels may be None only where alpha = 1, got alpha = 0.9"):
        losses.distillation_loss(STUDENT, TEACHER, None, temperature=4, alpha=0.9)
