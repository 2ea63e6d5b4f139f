"""The feature loss in which the teacher's answers say which positions count."""

import functools
import math

import pytest
import torch
from task_items import log_softmax, sigmoid
from torch.nn import functional as F

from kdlib import data, features, training
from kdlib.features import FeatureTerm, hint_loss, score_weighted_loss
from kdlib.tasks.detection import GridDetector, canvases, detection_loss, score_map

pytestmark = pytest.mark.usefixtures("one_thread")


def maps(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def weights_of(logits):
    """Any weights of at least 0 for 2 x 3 positions."""
    return logits.square().view(-1, 2, 3)


def given(weights):
    """The loss of a pair of maps with these weights."""
    return lambda s, t: score_weighted_loss(s, t, torch.zeros(len(s), 1), scores=lambda logits: weights)


def test_equals_a_loop_over_batch_and_positions():
    for batch, channels, seed in ((1, 1, 0), (3, 4, 1), (5, 3, 2)):
        student, teacher = maps(batch, channels, 2, 3, seed=seed), maps(batch, channels, 2, 3, seed=seed + 10)
        logits = maps(batch, 6, seed=seed + 20)
        top, below = 0.0, 0.0
        for n in range(batch):
            for row in range(2):
                for column in range(3):
                    weight = logits[n, 3 * row + column].item() ** 2
                    apart = sum(
                        (student[n, c, row, column].item() - teacher[n, c, row, column].item()) ** 2
                        for c in range(channels)
                    )
                    top, below = top + weight * apart, below + channels * weight
        value = score_weighted_loss(student, teacher, logits, scores=weights_of)
        assert value.item() == pytest.approx(top / below, rel=1e-12)


def test_is_the_hint_loss_where_every_position_counts_the_same():
    for dtype in (torch.float32, torch.float64):
        student, teacher = maps(4, 3, 2, 5, dtype=dtype), maps(4, 3, 2, 5, seed=1, dtype=dtype)
        for size in (1.0, 0.01, 1e-20, 1e20):
            value = given(torch.full((4, 2, 5), size))(student, teacher)
            assert value.item() == pytest.approx(hint_loss(student, teacher).item(), rel=1e-5), size


def test_positions_without_weight_do_not_count():
    student, teacher = maps(2, 3, 2, 3).requires_grad_(), maps(2, 3, 2, 3, seed=1)
    weights = torch.zeros(2, 2, 3)
    weights[1, 0, 2] = 0.3
    value = given(weights)(student, teacher)
    value.backward()
    expected = (student - teacher)[1, :, 0, 2].square().mean()
    assert value.item() == pytest.approx(expected.item())
    assert student.grad[1, :, 0, 2].all() and student.grad.count_nonzero() == 3


def test_weights_may_be_a_mask_or_whole_numbers():
    student, teacher = maps(2, 3, 2, 3), maps(2, 3, 2, 3, seed=1)
    mask = torch.arange(12).view(2, 2, 3) % 3 > 0
    expected = (student - teacher).square().mean(dim=1)[mask].mean()
    for weights in (mask, mask.long(), 2.0 * mask):
        assert given(weights)(student, teacher).item() == pytest.approx(expected.item())


def test_a_batch_without_any_weight_gives_zero_and_no_gradient():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        student, teacher = maps(2, 3, 2, 3).to(dtype).requires_grad_(), maps(2, 3, 2, 3, seed=1).to(dtype)
        value = given(torch.zeros(2, 2, 3))(student, teacher)
        value.backward()
        assert value.item() == 0 and not student.grad.any()


def test_gradient_is_finite_differences_and_none_reaches_the_teacher():
    student, logits = maps(2, 3, 2, 3).requires_grad_(), maps(2, 6, seed=2).requires_grad_()
    teacher = maps(2, 3, 2, 3, seed=1).requires_grad_()
    call = functools.partial(score_weighted_loss, scores=weights_of)
    assert torch.autograd.gradcheck(lambda s: call(s, teacher.detach(), logits.detach()), student)
    call(student, teacher, logits).backward()
    assert teacher.grad is None and logits.grad is None and student.grad.any()


def test_the_scores_are_asked_about_the_teachers_logits():
    asked, logits = [], maps(2, 6)

    def scores(given_logits):
        asked.append(given_logits)
        return weights_of(given_logits)

    score_weighted_loss(maps(2, 3, 2, 3), maps(2, 3, 2, 3), logits, scores=scores)
    assert len(asked) == 1 and torch.equal(asked[0], logits)


def test_a_detectors_scores_weigh_its_cells():
    logits = 3 * maps(2, 960)
    student, teacher = maps(2, 4, 8, 8, seed=1), maps(2, 4, 8, 8, seed=2)
    cells = logits.numpy().reshape(2, 15, 64)
    weights = [[sigmoid(z[0]) * math.exp(log_softmax(z[1:11]).max()) for z in image.T] for image in cells]
    weights = torch.tensor(weights, dtype=torch.float64).view(2, 8, 8)
    expected = (weights * (student - teacher).square().mean(dim=1)).sum() / weights.sum()
    value = score_weighted_loss(student, teacher, logits, scores=score_map)
    assert value.item() == pytest.approx(expected.item())


def test_weights_of_another_shape_are_refused_with_both_shapes():
    for shape in ((2, 3, 2), (2, 6), (2, 1, 2, 3), (1, 2, 3)):
        words = rf"scores must give weights of shape \(2, 2, 3\), .*got \({', '.join(map(str, shape))}\)"
        with pytest.raises(ValueError, match=words):
            given(torch.ones(shape))(maps(2, 4, 2, 3), maps(2, 4, 2, 3))


def test_scores_that_are_no_weights_are_refused():
    pair = maps(2, 4, 2, 3), maps(2, 4, 2, 3)
    weights = torch.ones(2, 2, 3)
    for number, words in [
        (-0.5, "scores must give weights of at least 0, got -0.5"),
        (math.nan, r"what scores gives must be finite, got nan at position \(1, 0, 2\)"),
        (math.inf, "what scores gives must be finite, got inf"),
    ]:
        weights[1, 0, 2] = number
        with pytest.raises(ValueError, match=words):
            given(weights)(*pair)
    for scores, words in [
        (None, "scores must be a function, got NoneType None"),
        (lambda logits: 1.0, "scores must give a torch.Tensor, got float"),
    ]:
        with pytest.raises(TypeError, match=words):
            score_weighted_loss(*pair, torch.zeros(2, 1), scores=scores)


def test_maps_of_two_shapes_are_refused_with_both_and_the_remedy():
    with pytest.raises(ValueError, match=r"got shapes \(2, 4, 2, 3\) and \(2, 5, 2, 3\); .*Regressor"):
        given(torch.ones(2, 2, 3))(maps(2, 4, 2, 3), maps(2, 5, 2, 3))


# ------------------------------------------------------------------ in a training


@pytest.fixture(scope="module")
def few():
    return canvases(data.load().test, 24, seed=0)


def detector(seed, widths=(8, 8, 8, 8)):
    torch.manual_seed(seed)
    return GridDetector(widths)


weighted = functools.partial(score_weighted_loss, scores=score_map)
SETTINGS = {"batch_size": 8, "seed": 0, "progress": False, "task_loss": detection_loss, "alpha": 0}


def test_a_training_compares_the_maps_and_asks_the_teachers_logits_of_each_image(few):
    """With a layer of the teacher and with its maps as given, which are the same training."""
    teacher = detector(9, (6, 6, 12, 12))
    maps_ = features.teacher_features(teacher, few, ["stages.3"])["stages.3"]
    found = []
    for source in ("stages.3", maps_):
        student = detector(0)
        term = FeatureTerm(weighted, "stages.3", source, weight=3.0, regressor=True)
        history = training.distill(student, teacher, few, features=[term], epochs=6, **SETTINGS)
        values = [record["features"] for record in history.records]
        assert all(math.isfinite(value) for value in values) and values[-1] < 0.9 * values[0]
        found.append(torch.cat([value.flatten().double() for value in student.state_dict().values()]))
    assert torch.allclose(found[0], found[1], atol=1e-3)
    alone = detector(0)
    training.distill(alone, teacher, few, epochs=6, **SETTINGS)
    other = torch.cat([value.flatten().double() for value in alone.state_dict().values()])
    assert not torch.allclose(found[0], other, atol=1e-3), "the term did nothing"


def test_the_weights_of_a_training_are_those_of_the_batch(few):
    """Also where the images are shuffled: beside the maps of an image stand the answers to it."""
    teacher, pairs = detector(9), []
    maps_ = features.teacher_features(teacher, few, ["stages.3"])["stages.3"]
    with torch.no_grad():
        logits = teacher.eval()(few.normalized(slice(None)))

    def noted(student_features, teacher_features, teacher_logits):
        pairs.extend(zip(teacher_features, teacher_logits, strict=True))
        return F.mse_loss(student_features, teacher_features)

    term = FeatureTerm(noted, "stages.3", maps_)
    training.distill(detector(0), teacher, few, features=[term], epochs=2, **SETTINGS)
    rows = []
    for features_, answer in pairs:
        rows.append(row := int((maps_ - features_).flatten(1).abs().amax(dim=1).argmin()))
        assert torch.equal(maps_[row], features_) and torch.allclose(logits[row], answer, atol=1e-4)
    # Two epochs, in another order each; before them a loss is tried on two images.
    first, second = rows[-2 * len(few) : -len(few)], rows[-len(few) :]
    assert sorted(first) == sorted(second) == [*range(len(few))] and first != second
