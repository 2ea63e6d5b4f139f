"""Defects of public distillation code, each beside a test that fails where it creeps in.

Every test writes out the faulty formula, shows that it goes wrong, and that the loss here does not.
"""

import pytest
import torch
import torch.nn.functional as F

from kdlib import losses

torch.set_num_threads(1)


@pytest.fixture
def batch():
    """Student logits with a gradient, teacher logits and labels: 16 images of 10 classes, float64."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 16, 10, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher, torch.randint(0, 10, (16,), generator=generator)


def slope(loss, student):
    return torch.autograd.grad(loss, student)[0]


def pad_with_impossible_classes(logits, classes):
    return F.pad(logits, (0, classes - logits.shape[1]), value=-1e4)


def test_kl_is_not_averaged_over_classes(batch):
    """nn.KLDivLoss() by default divides by the number of classes: a hidden alpha of 1 / N."""
    student, teacher, _ = batch

    def averaged_over_classes(z, v):
        return 16 * torch.nn.KLDivLoss()((z / 4).log_softmax(1), (v / 4).softmax(1))

    with pytest.warns(UserWarning, match="batchmean"):
        faulty = averaged_over_classes(student, teacher)
        wider_faulty = averaged_over_classes(
            *(pad_with_impossible_classes(x, 100) for x in (student, teacher))
        )
    ours = losses.soft_target_loss(student, teacher, 4)
    wider = losses.soft_target_loss(*(pad_with_impossible_classes(x, 100) for x in (student, teacher)), 4)

    torch.testing.assert_close(faulty, ours / 10)
    torch.testing.assert_close(wider_faulty, faulty / 10)
    torch.testing.assert_close(wider, ours)  # classes that cannot occur change nothing
    batchmean = F.kl_div((student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean")
    torch.testing.assert_close(ours, 16 * batchmean)


def test_kl_is_not_summed_over_the_batch(batch):
    student, teacher, _ = batch
    faulty = [
        F.kl_div(z.log_softmax(1), v.softmax(1), reduction="sum")
        for z, v in ((student, teacher), (student.repeat(2, 1), teacher.repeat(2, 1)))
    ]
    ours = [
        losses.soft_target_loss(z, v, 1)
        for z, v in ((student, teacher), (student.repeat(2, 1), teacher.repeat(2, 1)))
    ]
    torch.testing.assert_close(faulty[1], 2 * faulty[0])
    torch.testing.assert_close(ours[1], ours[0])


def test_t_squared_is_not_forgotten(batch):
    """Without T^2 the teacher's gradient fades as 1 / T^2, and alpha means less and less."""
    student, teacher, labels = batch
    hard = slope(F.cross_entropy(student, labels), student).norm()

    def faulty(temperature):
        log_p, log_q = ((x / temperature).log_softmax(1) for x in (teacher, student))
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)

    forgotten, ours = (
        [(slope(loss(T), student).norm() / hard).item() for T in (1, 2, 4, 8)]
        for loss in (faulty, lambda T: losses.soft_target_loss(student, teacher, T))
    )
    assert forgotten[3] < 0.05 * forgotten[0]
    assert min(ours) > 0.5 and max(ours) < 5
    assert ours[3] == pytest.approx(64 * forgotten[3])


def test_t_squared_stays_where_alpha_is_zero(batch):
    """`if alpha: loss *= T ** 2` drops the scale from the reported teacher term."""
    student, teacher, labels = batch
    at_zero, at_half = (
        losses.distillation_loss(student, teacher, labels, temperature=4, alpha=alpha) for alpha in (0, 0.5)
    )
    alpha = 0
    faulty = losses.soft_target_loss(student / 4, teacher / 4, 1) * (16 if alpha else 1)
    assert not torch.isclose(faulty, at_half.distill)
    torch.testing.assert_close(at_zero.distill, at_half.distill)


def test_alpha_none_is_named_in_the_error(batch):
    student, teacher, labels = batch
    with pytest.raises(TypeError, match="unsupported operand"):
        (1 - None) * F.cross_entropy(student, labels)
    with pytest.raises(TypeError, match="alpha must be a number, got NoneType None"):
        losses.distillation_loss(student, teacher, labels, temperature=4, alpha=None)


def test_no_logarithm_of_an_underflowed_probability():
    """sum p * (p.log() - log q) is 0 * -inf = NaN once a target underflows."""
    for dtype, gap in ((torch.float32, 220.0), (torch.float16, 40.0)):
        student = torch.zeros(1, 2, dtype=dtype, requires_grad=True)
        teacher = torch.tensor([[gap, 0.0]], dtype=dtype)
        p = teacher.softmax(dim=1)
        faulty = (p * (p.log() - student.log_softmax(dim=1))).sum()
        assert faulty.isnan(), dtype
        ours = losses.soft_target_loss(student, teacher, 1)
        assert ours.item() == pytest.approx(0.6931472), dtype
        assert slope(ours, student).tolist() == [[-0.5, 0.5]], dtype


def test_decoupled_loss_takes_no_logarithm_of_a_softmax():
    """log(1 - p_label) through the probabilities breaks: first the gradient, then the value."""

    def two_outcomes(logits):
        p = logits.softmax(dim=1)
        return torch.stack([p[:, 0], p[:, 1:].sum(dim=1)], dim=1)

    teacher, label = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([0])
    p_label = teacher.softmax(dim=1)[0, 0].item()
    for gap, value_breaks in ((100.0, False), (120.0, True), (1e4, True)):
        student = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
        faulty = F.kl_div(two_outcomes(student).log(), two_outcomes(teacher), reduction="batchmean")
        assert not slope(faulty, student).isfinite().all(), gap
        assert faulty.isinf().item() == value_breaks, gap

        ours = losses.decoupled_loss(student, teacher, label, temperature=1, alpha=1, beta=1)
        assert ours.isfinite(), gap
        assert slope(ours, student)[0, 0].item() == pytest.approx(1 - p_label), gap  # q_label - p_label


def test_decoupled_loss_is_defined_for_two_classes():
    """Masking the label with a large number leaves a softmax over one real class and rounding noise."""
    student, teacher = torch.tensor([[3e5, 0.0]], requires_grad=True), torch.tensor([[0.0, 1.0]])
    label = torch.tensor([0])
    masked = [logits - 1000 * F.one_hot(label, 2) for logits in (student, teacher)]
    faulty = F.kl_div(masked[0].log_softmax(1), masked[1].softmax(1), reduction="batchmean")
    assert faulty.item() > 1e5  # the label's own logit is back among "the rest"
    without_label_term = losses.decoupled_loss(student, teacher, label, temperature=1, alpha=0, beta=8)
    assert without_label_term.item() == 0
    assert slope(without_label_term, student).tolist() == [[0, 0]]


def test_alpha_weighs_the_teacher_and_not_the_labels(batch):
    """Swapped weights go unseen while alpha is 0.5."""
    student, teacher, labels = batch

    def swapped(alpha):
        soft = losses.soft_target_loss(student, teacher, 4)
        return alpha * F.cross_entropy(student, labels) + (1 - alpha) * soft

    def ours(alpha):
        return losses.distillation_loss(student, teacher, labels, temperature=4, alpha=alpha).total

    torch.testing.assert_close(swapped(0.5), ours(0.5))
    assert not torch.isclose(swapped(0.9), ours(0.9), rtol=0.1)
    torch.testing.assert_close(ours(1), losses.soft_target_loss(student, teacher, 4))


def test_weights_add_to_one(batch):
    """Un-normalised weights change the learning rate along with the balance."""
    student, _, labels = batch
    teacher = 50.0 * F.one_hot(labels, 10).double()  # a teacher that says what the labels say
    expected = F.cross_entropy(student, labels)
    faulty = expected + 0.9 * losses.soft_target_loss(student, teacher, 1)
    assert faulty > 1.5 * expected
    for alpha in (0.1, 0.5, 0.9):
        ours = losses.distillation_loss(student, teacher, labels, temperature=1, alpha=alpha).total
        torch.testing.assert_close(ours, expected)


def test_temperature_does_not_soften_the_label_term(batch):
    student, teacher, labels = batch
    faulty = F.cross_entropy(student / 4, labels)
    ours = losses.distillation_loss(student, teacher, labels, temperature=4, alpha=0.5).task
    assert not torch.isclose(faulty, ours, rtol=0.1)
    torch.testing.assert_close(ours, F.cross_entropy(student, labels))


def test_the_teacher_is_not_passed_as_the_student(batch):
    """With teacher logits on both sides the term is 0 and distillation is silently off."""
    student, teacher, labels = batch
    faulty = losses.soft_target_loss(teacher, teacher, 4)
    assert faulty.item() == 0 and not faulty.requires_grad
    terms = losses.distillation_loss(student, teacher, labels, temperature=4, alpha=0.9)
    assert terms.distill > 0.1
    step = (student - slope(terms.distill, student)).detach()
    assert losses.soft_target_loss(step, teacher, 4) < terms.distill


def test_kl_goes_from_the_teacher_to_the_student(batch):
    """F.kl_div takes its target second; swapped, the student may ignore what the teacher finds likely."""
    student, teacher, _ = batch
    log_q, log_p = student.log_softmax(1), teacher.log_softmax(1)
    faulty = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    ours = losses.soft_target_loss(student, teacher, 1)
    assert not torch.isclose(faulty, ours, rtol=0.02)
    torch.testing.assert_close(ours, (log_p.exp() * (log_p - log_q)).sum(1).mean())


def test_softmax_runs_over_classes_and_not_over_the_batch(batch):
    student, teacher, _ = batch
    faulty = F.kl_div(student.log_softmax(0), teacher.log_softmax(0), reduction="batchmean", log_target=True)
    ours = losses.soft_target_loss(student, teacher, 1)
    assert not torch.isclose(faulty, ours, rtol=0.05)
    image_by_image = [losses.soft_target_loss(student[i : i + 1], teacher[i : i + 1], 1) for i in range(16)]
    torch.testing.assert_close(ours, torch.stack(image_by_image).mean())


def test_differently_laid_out_vectors_are_not_compared(batch):
    """Flattening makes any two tensors of one size comparable, though their entries mean different things."""
    student, teacher, _ = batch
    faulty = 1 - F.cosine_similarity(student.flatten(), teacher.T.flatten(), dim=0)
    assert faulty.isfinite()
    with pytest.raises(ValueError, match=r"\(16, 10\) and \(10, 16\)"):
        losses.cosine_logit_loss(student, teacher.T)


def test_correlation_loss_pulls_columns_together(batch):
    """With the class term's sign turned, descent drives student and teacher columns apart."""
    student, teacher, _ = batch

    def column_correlation(logits):
        columns = torch.stack([logits.softmax(1), teacher.softmax(1)]).permute(2, 0, 1)
        return torch.stack([torch.corrcoef(pair)[0, 1] for pair in columns]).mean().item()

    def after_descent(loss):
        logits = student.detach().clone().requires_grad_()
        optimizer = torch.optim.SGD([logits], lr=5.0)
        for _ in range(20):
            optimizer.zero_grad()
            loss(logits).backward()
            optimizer.step()
        return column_correlation(logits)

    start = column_correlation(student)
    assert after_descent(lambda z: -losses.correlation_loss(z, teacher, inter=0)) < start - 0.05
    assert after_descent(lambda z: losses.correlation_loss(z, teacher, inter=0)) > start + 0.05
    assert after_descent(lambda z: losses.correlation_loss(z, teacher, intra=0)) > start + 0.05


def test_multilabel_targets_do_not_compete():
    """A softmax over labels that may occur together cannot say yes twice: to it these two are equal."""
    two_yes = torch.tensor([[4.0, 4.0, -4.0]])
    two_unsure = two_yes - 4
    assert losses.soft_target_loss(two_unsure, two_yes, 1).item() == pytest.approx(0, abs=1e-6)
    assert losses.multilabel_distillation_loss(two_unsure, two_yes).item() > 1


def test_standardising_equal_logits_divides_by_no_zero():
    """A square root of the variance has an infinite slope at 0, which an epsilon behind it does not mend."""
    student, teacher = torch.zeros(2, 10, requires_grad=True), torch.arange(20.0).reshape(2, 10)
    centred = student - student.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    faulty = (centred / (deviation + 1e-7)).log_softmax(dim=1)[:, 0].sum()
    assert faulty.isfinite() and slope(faulty, student).isnan().all()
    ours = slope(losses.standardised_loss(student, teacher), student)
    assert ours.isfinite().all() and (ours[:, 0] > 0).all() and (ours[:, 9] < 0).all()


def kept_by_the_teacher(logits, teacher, k):
    return logits.gather(1, teacher.topk(k).indices)


def test_renormalised_targets_deny_the_classes_that_are_not_kept(batch):
    """A student that equals the teacher is pushed away from it; a tail bucket leaves it where it is."""
    _, teacher, _ = batch
    student = teacher.clone().requires_grad_()
    targets = kept_by_the_teacher(teacher, teacher, 3).softmax(dim=1)
    faulty = -(targets * kept_by_the_teacher(student.log_softmax(dim=1), teacher, 3)).sum(dim=1).mean()
    others = teacher < kept_by_the_teacher(teacher, teacher, 3).min(dim=1, keepdim=True).values
    assert (slope(faulty, student)[others] > 0).all()  # descent makes each of them less likely
    ours = losses.tail_bucket_loss(student, teacher, 1, k=3)
    torch.testing.assert_close(slope(ours, student), torch.zeros_like(student), atol=1e-12, rtol=0)


def test_zero_filled_logits_make_the_classes_that_are_not_kept_likely(batch):
    """A logit of 0 is no probability of 0; and where the row is shifted, the same teacher says something else."""
    _, teacher, _ = batch
    shifted = teacher - teacher.max(dim=1, keepdim=True).values  # the same probabilities, logits of at most 0
    top = shifted.topk(3)
    filled = torch.zeros_like(shifted).scatter(1, top.indices, top.values)
    in_filled, in_truth = (1 - x.softmax(1).gather(1, top.indices).sum(1) for x in (filled, shifted))
    assert (in_filled > 0.7).all() and (in_truth < 0.3).all()
    faulty = losses.soft_target_loss(teacher, filled, 1)  # what a student that equals the teacher is charged
    assert faulty > 1
    assert losses.tail_bucket_loss(teacher, shifted, 1, k=3).item() == pytest.approx(0, abs=1e-12)


def test_the_tail_bucket_is_not_one_less_the_kept():
    """log(1 - sum of the kept), held above 1e-7, tells a student whose bucket is emptier nothing about it."""
    teacher = torch.zeros(1, 4)
    student = torch.tensor([[30.0, 30.0, 0.0, 0.0]], requires_grad=True)
    kept = student.log_softmax(dim=1)[:, :2]
    bucket = torch.log(-torch.expm1(kept.logsumexp(dim=1).clamp(max=-1e-7)))
    assert bucket.item() > -17 and slope(bucket, student).abs().max() == 0  # it is -30
    ours = losses.tail_bucket_loss(student, teacher, 1, k=2)
    assert ours.item() == pytest.approx(0.5 * 30 - 0.6931472)
    assert slope(ours, student)[0].tolist() == pytest.approx([0.25, 0.25, -0.25, -0.25])
