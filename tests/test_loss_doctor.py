"""The doctor for losses: it finds the defects of public code without being told, and has no complaint about good ones.

Every defect is written out in a few lines, with the topics that must name it: no more, and no fewer.
"""

import functools
import html
import warnings

import pytest
import torch
from test_loss_door import logit_losses
from torch import nn
from torch.nn import functional as F

from kdlib import losses
from kdlib.loss_doctor import TOPICS, Examination, examine

pytestmark = pytest.mark.usefixtures("one_thread")


def log_q(logits, temperature=1.0):
    return (logits / temperature).log_softmax(dim=1)


def p(logits, temperature=1.0):
    return (logits.detach() / temperature).softmax(dim=1)


def kl(z, v, temperature=1.0, reduction="batchmean"):
    """Without T^2."""
    return F.kl_div(log_q(z, temperature), p(v, temperature), reduction=reduction)


@functools.cache
def examined(loss) -> Examination:
    """By the defaults, once for all tests."""
    return examine(loss)


# --- defects of public code


def averaged_over_classes(z, v, temperature):
    with warnings.catch_warnings(action="ignore"):
        return temperature**2 * nn.KLDivLoss()(log_q(z, temperature), p(v, temperature))


def without_t_squared(z, v, temperature):
    return kl(z, v, temperature)


def without_t_squared_at_a_fixed_t(z, v):
    return kl(z, v, 4.0)


def restarts(z, v):
    with warnings.catch_warnings(action="ignore"):
        return nn.KLDivLoss()(log_q(z, 20.0), p(v, 20.0))


def logarithm_of_an_underflowed_target(z, v, temperature):
    return (
        temperature**2 * (p(v, temperature) * (p(v, temperature).log() - log_q(z, temperature))).sum(1).mean()
    )


def logarithm_of_a_softmax(z, v, labels, temperature):
    def label_or_not(logits):
        share = (logits / temperature).softmax(dim=1).gather(1, labels[:, None])
        return torch.cat([share, 1 - share], dim=1)

    target = F.kl_div(label_or_not(z).log(), label_or_not(v.detach()), reduction="batchmean")
    return temperature**2 * (target + kl(z, v, temperature))


def correlation_with_a_wrong_sign(z, v):
    def correlation(first, second, dim):
        first, second = (x - x.mean(dim=dim, keepdim=True) for x in (first, second))
        return F.cosine_similarity(first, second, dim=dim, eps=1e-6).mean()

    q = z.softmax(dim=1)
    return 1 - correlation(q, p(v), 1) + 1 + correlation(q, p(v), 0)


def weights_exchanged(z, v, labels, temperature):
    alpha = 0.9
    return (1 - alpha) * losses.soft_target_loss(z, v, temperature) + alpha * F.cross_entropy(z, labels)


def weights_exchanged_by_name(z, v, labels, temperature, alpha):
    return (1 - alpha) * losses.soft_target_loss(z, v, temperature) + alpha * F.cross_entropy(z, labels)


def teacher_twice(z, v, temperature):
    return losses.soft_target_loss(v, v, temperature)


def student_twice(z, v):
    return losses.soft_target_loss(z, z, 1.0)


def sigmoids_as_one_distribution(z, v):
    return F.kl_div(F.logsigmoid(z), v.detach().sigmoid(), reduction="batchmean")


def clamp_that_is_one(z, v):
    q, target = z.sigmoid().clamp(1e-8, 1 - 1e-8), v.detach().sigmoid()
    return -(target * q.log() + (1 - target) * (1 - q).log()).sum(dim=1).mean()


def arguments_exchanged(z, v, temperature):
    return losses.soft_target_loss(v, z, temperature)


def sides_exchanged(z, v):
    return (log_q(z).exp() * (log_q(z) - log_q(v.detach()))).sum(dim=1).mean()


def teacher_not_detached(z, v):
    return F.kl_div(log_q(z), v.softmax(dim=1), reduction="batchmean")


def summed_over_the_batch(z, v):
    return kl(z, v, reduction="sum")


def nan_at_equal_logits(z, v):
    return (z - v.detach()).square().sum(dim=1).sqrt().mean()


def standardised_without_a_floor(z, v):
    z, v = ((x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True) for x in (z, v))
    return 4 * kl(z, v, 2.0)


def renormalised(z, v):
    kept, where = p(v).topk(3)
    return -(kept / kept.sum(dim=1, keepdim=True) * log_q(z).gather(1, where)).sum(dim=1).mean()


def filled_with_zeros(z, v):
    kept, where = v.detach().topk(3)
    return kl(z, torch.zeros_like(v).scatter(1, where, kept))


def only_the_teacher_softened(z, v, temperature):
    return temperature**2 * F.kl_div(log_q(z), p(v, temperature), reduction="batchmean")


def softmax_twice(z, v):
    return F.cross_entropy(z.softmax(dim=1), p(v))


def no_logarithm(z, v):
    return F.kl_div(z.softmax(dim=1), p(v), reduction="batchmean")


def maximised(z, v):
    return -kl(z, v)


def first_choice(z, v):
    return F.cross_entropy(z, v.argmax(dim=1))


def labels_alone(z, v, labels):
    return F.cross_entropy(z, labels)


def rows_shifted(z, v):
    return kl(z, v.roll(1, 0))


def argmax_between(z, v):
    return F.mse_loss(z.argmax(dim=1).double(), v.argmax(dim=1).double())


def a_value_for_each_image(z, v):
    return F.kl_div(log_q(z), p(v), reduction="none").sum(dim=1)


def in_place(z, v, temperature):
    z /= temperature
    return temperature**2 * kl(z, v / temperature)


def random_numbers(z, v):
    return kl(F.dropout(z), v)


def temperature_ignored(z, v, temperature):
    return kl(z, v)


# The complaints, and what the findings of some of them say.
DEFECTS = [
    (averaged_over_classes, {"classes": "divided by the number of classes"}),
    (without_t_squared, {"temperature": "the factor T^2 is left out"}),
    (without_t_squared_at_a_fixed_t, {"temperature": "at T = 4: the factor T^2 is left out"}),
    (restarts, {"classes": "0.00025 x", "temperature": "at T = 20: the factor T^2 is left out"}),
    (logarithm_of_an_underflowed_target, {"finite": "in float32 the value is NaN at logits of 100 of the teacher"}),
    (logarithm_of_a_softmax, {"finite": "infinite at logits of 20 of the student"}),
    (correlation_with_a_wrong_sign, {"minimum": "an answer that differs"}),
    (weights_exchanged, {"minimum": "between the teacher and the label", "labels": "alpha is 0.1"}),
    (weights_exchanged_by_name, {"minimum": "between", "labels": "alpha weighs the labels"}),
    (teacher_twice, {"minimum": "no start is led anywhere", "sides": "does not depend on the student", "pull": "",
                     "gradients": "the student gets none, but the teacher does"}),
    (sigmoids_as_one_distribution, {"minimum": "all sigmoids saturate at 1"}),
    (clamp_that_is_one, {"finite": "infinite at logits of 20 of the student", "pull": "exactly 0"}),
    (arguments_exchanged, {"minimum": "", "sides": "the sides are exchanged", "pull": "as everywhere",
                           "gradients": "the student gets none, but the teacher does"}),
    (sides_exchanged, {"sides": "KL(student || teacher)"}),
    (summed_over_the_batch, {"batch": "2 times the value and 2 times the gradient"}),
    (nan_at_equal_logits, {"finite": "the gradient is NaN where student and teacher agree"}),
    (standardised_without_a_floor, {"finite": "NaN where the student's logits are all equal"}),
    (renormalised, {"minimum": "3 likeliest classes alone, renormalised"}),
    (filled_with_zeros, {"minimum": "3 likeliest classes with logits of 0 for the others"}),
    (only_the_teacher_softened, {"minimum": "its logits times 0.25, as if softened at T = 4", "temperature": "grows"}),
    (softmax_twice, {"minimum": "first choice alone, as if it were certain"}),
    (no_logarithm, {"minimum": "first choice alone, as if it were certain"}),
    (maximised, {"minimum": "falls without a bound"}),
    (first_choice, {"minimum": "first choice alone, as if it were certain"}),
    (labels_alone, {"minimum": "the label's, whatever the teacher says", "sides": "not depend on the teacher"}),
    (rows_shifted, {"minimum": "the teacher's for another image"}),
    (argmax_between, {"minimum": "no gradient reaches", "sides": "not depend on the student", "pull": "as everywhere",
                      "gradients": "the student gets none"}),
    (a_value_for_each_image, {"batch": "it returns shape (16,)"}),
    (in_place, {"inputs": "changes the student's logits in place"}),
    (temperature_ignored, {"temperature": "it takes a temperature and does not use it"}),
]  # fmt: skip


def told(examination: Examination, topics: dict[str, str], name: str) -> None:
    """The complaints are these and no others, and each finding has its words."""
    assert set(examination.complaints) == set(topics), f"{name}: {examination}"
    for topic, words in topics.items():
        assert words in examination[topic].finding, f"{name}: {examination[topic]}"
        assert examination[topic].advice, name


def test_each_defect_of_public_code_is_named_by_its_line_and_by_no_other():
    for loss, topics in DEFECTS:
        told(examined(loss), topics, loss.__name__)


def test_a_teacher_that_is_not_cut_off_is_said_and_is_no_complaint_since_the_loop_may_cut_it_off():
    examination = examined(teacher_not_detached)
    assert examination["gradients"].good is None and not examination.complaints
    assert "the teacher gets one, too" in examination["gradients"].finding
    assert "no_grad" in examination["gradients"].advice and examination.first is examination["gradients"]


def test_where_the_minimum_is_not_the_teacher_the_examination_says_so():
    for loss in (renormalised, maximised):
        assert examined(loss).minimum_is_teacher is False, loss.__name__
    for loss in (sides_exchanged, nan_at_equal_logits):
        assert examined(loss).minimum_is_teacher is True, loss.__name__


def test_a_loss_of_the_student_alone_is_named_although_rounding_leaves_it_a_gradient():
    examination = examine(student_twice)
    assert {"minimum", "sides"} <= set(examination.complaints) and examination.minimum_is_teacher is False
    assert "not depend on" in examination["sides"].finding and "the teacher" in examination["sides"].finding


def test_a_loss_of_random_numbers_has_no_minimum_that_could_be_told():
    examination = examine(random_numbers)
    assert examination.minimum_is_teacher is None and "inputs" in examination.complaints
    assert "two calls with the same logits have different values" in examination["inputs"].finding


def test_what_is_as_content_with_the_answer_of_other_classes_is_named():
    """Sorted probabilities do not say which class is which, and no ordinary start shows it."""

    def sorted_probabilities(z, v):
        return (z.softmax(dim=1).sort(dim=1).values - p(v).sort(dim=1).values).abs().sum(dim=1).mean()

    examination = examine(sorted_probabilities)
    assert examination.minimum_is_teacher is False, examination
    assert "as low as the teacher's answer lies" in examination["minimum"].finding


def test_equal_weights_are_no_complaint_at_any_temperature():
    for temperature in (1.0, 4.0, 10.0):
        half = functools.partial(losses.distillation_loss, temperature=temperature, alpha=0.5)
        assert not examine(half).complaints, temperature


def test_labels_that_only_change_the_value_are_named():
    def labels_of_the_teacher(z, v, labels):
        return kl(z, v) + F.cross_entropy(v.detach(), labels)

    examination = examine(labels_of_the_teacher)
    assert examination.complaints == ("labels",) and "teach the student nothing" in examination["labels"].finding


def test_what_fails_in_float16_alone_is_said_and_is_no_complaint():
    def small_epsilon(z, v):
        q = (z.softmax(dim=1) + 1e-8).log()
        return (p(v) * (p(v).clamp_min(1e-8).log() - q)).sum(dim=1).mean()

    answer = examine(small_epsilon)["finite"]
    assert answer.good is None and "float16" in answer.finding and "finite in float32" in answer.finding


# --- what is right


def test_no_loss_of_the_library_gets_a_complaint():
    for name, loss in logit_losses().items():
        examination = examined(loss)
        assert all(answer.good is True for answer in examination.answers), f"{name}: {examination}"


def test_a_minimum_that_is_only_up_to_scale_is_no_fault_and_is_said():
    said = {
        losses.cosine_logit_loss: "rescaled and shifted",
        losses.standardised_loss: "rescaled and shifted",
        losses.correlation_loss: "mixture of the teacher's probabilities with equal ones",
        losses.tail_bucket_loss: "only the teacher's 3 likeliest classes are told apart",
    }
    for loss, words in said.items():
        answer = examined(loss)["minimum"]
        assert answer.good is True and "but not alone" in answer.finding and words in answer.finding, answer
    for loss in (losses.soft_target_loss, losses.decoupled_loss, losses.logit_mse_loss):
        assert "not alone" not in examined(loss)["minimum"].finding


def test_a_whole_loss_is_told_by_its_alpha():
    whole = functools.partial(losses.distillation_loss, temperature=4.0)
    examination = examine(whole)  # alpha has no default: the doctor chooses it
    assert "alpha is 0.9 where 0.9 is asked for, and 0.1 where 0.1 is" in examination["labels"].finding
    assert not examination.complaints and examination.minimum_is_teacher is None


class Distilling(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor, self.calls = factor, 0

    def forward(self, student_logits, teacher_logits, temperature=3.0):
        self.calls += 1
        return self.factor * losses.soft_target_loss(student_logits, teacher_logits, temperature)


FALSE_ALARMS = {
    "BCE on soft targets": lambda z, v: F.binary_cross_entropy_with_logits(z, v.detach().sigmoid()),
    "cross-entropy with soft targets": lambda z, v: F.cross_entropy(z, p(v)),
    "a constant factor": Distilling(factor=3.5),
    "squares of probabilities": lambda z, v: F.mse_loss(z.softmax(dim=1), p(v)),
    "half the squares, summed over classes": lambda z, v: (z - v.detach()).square().sum(dim=1).mean() / 2,
    "absolute differences": lambda z, v: F.smooth_l1_loss(z, v.detach()),
    "KL both ways": lambda z, v: (
        kl(z, v) + F.kl_div(log_q(v.detach()), log_q(z), reduction="batchmean", log_target=True)
    ),
}


def test_what_only_looks_wrong_gets_no_complaint():
    examinations = {name: examine(loss) for name, loss in FALSE_ALARMS.items()}
    for name, examination in examinations.items():
        assert examination.minimum_is_teacher is True and not examination.complaints, f"{name}: {examination}"
    bce = examinations["BCE on soft targets"]
    assert "and not 0, which is no fault" in bce["minimum"].finding and "yes or no" in bce["classes"].finding
    assert "3.5 x T^2 * KL(teacher || student)" in examinations["a constant factor"].standing


def test_several_labels_may_be_asked_for():
    assert examine(losses.multilabel_distillation_loss, several_labels=True).minimum_is_teacher is True
    assert examine(losses.logit_mse_loss, several_labels=True).minimum_is_teacher is True
    # A softmax does not see a shift of the row, which turns a no into a yes.
    assert examine(losses.soft_target_loss, several_labels=True).minimum_is_teacher is False


def test_labels_may_be_rows_of_yes_and_no():
    def both(z, v, labels):
        soft, hard = v.detach().sigmoid(), labels
        return 0.3 * sum(F.binary_cross_entropy_with_logits(z, soft, reduction="none")).mean() + 0.7 * (
            F.binary_cross_entropy_with_logits(z, hard)
        )

    answer = examine(both)["labels"]
    assert answer.good is not None and "cross-entropy" in answer.finding


# --- the examination


def test_other_numbers_of_classes_and_temperatures_are_examined():
    for classes, temperature in ((3, 1.0), (100, 20.0)):
        assert not examine(losses.soft_target_loss, classes=classes, temperature=temperature).complaints
        examination = examine(averaged_over_classes, classes=classes, temperature=temperature)
        assert examination.complaints == ("classes",)


def test_nothing_is_changed_by_an_examination():
    loss = Distilling()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():
        first, second = (repr(examine(loss)) for _ in range(2))
        assert not torch.is_grad_enabled()
    assert first == second and loss.calls == 0
    assert torch.equal(torch.rand(3), expected)


def test_it_displays_itself_as_text_and_as_an_escaped_table():
    def raises(z, v):
        raise RuntimeError("sizes <b>must</b> match")

    good, bad = examine(losses.soft_target_loss), examine(raises)
    assert repr(good).count("Measured:") == len(TOPICS) and "Nothing is wrong" in repr(good)
    for examination in (good, bad):
        table = examination._repr_html_()
        assert table.count("<tr>") == len(TOPICS) + 1
        assert all(html.escape(answer.finding) in table for answer in examination.answers)
    assert "&lt;b&gt;must&lt;/b&gt;" in bad._repr_html_() and "<b>must" not in bad._repr_html_()
    with pytest.raises(KeyError, match="'minima' is no topic of an examination: batch, minimum"):
        good["minima"]


def test_a_loss_that_raises_is_told_from_a_wrong_one():
    examination = examine(lambda z, v: z @ v)
    assert examination.complaints == ("batch",) and examination.minimum_is_teacher is None
    assert "RuntimeError" in examination.first.finding
    number = examine(lambda z, v: kl(z, v).item())
    assert "must return a tensor, got float" in number.first.finding


def test_a_loss_that_raises_for_some_logits_is_asked_the_rest():
    def only_ten_classes(z, v):
        return kl(z + torch.zeros(10, dtype=z.dtype), v)

    examination = examine(only_ten_classes)
    assert examination.minimum_is_teacher is True and not examination.complaints
    assert examination["classes"].good is None and "RuntimeError" in examination["classes"].finding


def test_what_is_no_loss_is_refused():
    def demanding(z, v, margin):
        return z

    for loss, error, message in (
        (None, TypeError, "loss must be a function, got NoneType"),
        (nn.KLDivLoss, TypeError, "got the class KLDivLoss"),
        (lambda z: z, ValueError, "loss must take two arguments"),
        (demanding, ValueError, "loss demands margin"),
    ):
        with pytest.raises(error, match=message):
            examine(loss)
    for options, error, message in (
        ({"classes": 2}, ValueError, "classes must be from 3 to 1,000, got 2"),
        ({"classes": 10.0}, TypeError, "classes must be an integer"),
        ({"temperature": 0}, ValueError, "temperature must be above 0, got 0"),
        ({"several_labels": 1}, TypeError, "several_labels must be True or False"),
    ):
        with pytest.raises(error, match=message):
            examine(losses.soft_target_loss, **options)
