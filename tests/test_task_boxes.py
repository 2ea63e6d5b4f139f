"""What a detector found, and its average precision: by hand, and against a loop that follows the definition."""

import math

import numpy as np
import pytest
import torch
from task_items import log_softmax, overlap, sigmoid

from kdlib import data
from kdlib.data import ImageSplit
from kdlib.tasks.boxes import box_average_precision, found, true_items
from kdlib.tasks.detection import GridDetector, canvases, grid

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made() -> ImageSplit:
    return canvases(data.load().test, 40, seed=5)


def logit(p):
    return math.log(p / (1 - p))


def certain(labels):
    """The logits of a detector that knows the labels."""
    parts = grid(labels)
    boxes = parts.boxes.double().clamp(1e-7, 1 - 1e-7).logit()
    numbers = [80 * parts.objects[:, None].double() - 40, 40 * parts.classes.double(), boxes]
    return torch.cat(numbers, dim=1).flatten(1).float()


def answers(*images):
    """Logits: for each image boxes (row, column, class, score), or with x, y and side; nothing elsewhere."""
    logits = torch.zeros(len(images), 15, 8, 8)
    logits[:, 0] = -40
    for n, boxes in enumerate(images):
        for row, column, of_class, score, *place in boxes:
            x, y, side = place or (0.5, 0.5, 0.25)
            logits[n, 0, row, column] = logit(score)
            logits[n, 1 + of_class, row, column] = 60
            logits[n, 11:, row, column] = torch.tensor([logit(min(max(v, 1e-7), 1 - 1e-7)) for v in (x, y, side, side)])
    return logits.flatten(1)


def truth(*images):
    """Canvases whose labels name items (row, column, class) of 16 pixels in the middle of their cells."""
    labels = torch.zeros(len(images), 15, 8, 8)
    for n, items in enumerate(images):
        for row, column, of_class in items:
            labels[n, 0, row, column] = labels[n, 1 + of_class, row, column] = 1
            labels[n, 11:, row, column] = torch.tensor([0.5, 0.5, 0.25, 0.25])
    return ImageSplit(torch.zeros(len(images), 1, 64, 64, dtype=torch.uint8), labels.flatten(1))


# ------------------------------------------------------------------ boxes


def test_what_is_found_are_boxes_by_falling_score():
    (items,) = found(answers([(1, 2, 4, 0.5), (6, 5, 0, 0.75, 0.25, 0.5, 0.125)]))
    assert items.classes.tolist() == [0, 4]
    assert items.scores.tolist() == pytest.approx([0.75, 0.5])
    # Centres at (5.25, 6.5) and (2.5, 1.5) cells of 8 pixels; 8 and 16 pixels wide.
    assert torch.allclose(items.boxes, torch.tensor([[38.0, 48, 46, 56], [12, 4, 28, 20]]), atol=1e-3)


def test_of_boxes_of_one_class_that_overlap_by_more_than_a_half_the_best_is_left():
    """A chain of boxes of 32 pixels, 8 pixels apart: neighbours overlap by 0.6, every other by a third."""
    chain = [(3, 3, 1, 0.9, 0.5, 0.5, 0.5), (3, 4, 1, 0.8, 0.5, 0.5, 0.5), (3, 5, 1, 0.7, 0.5, 0.5, 0.5)]
    (items,) = found(answers(chain))
    assert items.scores.tolist() == pytest.approx([0.9, 0.7]), "the middle one is gone, and takes nothing with it"
    (mixed,) = found(answers([chain[0], (3, 4, 2, 0.8, 0.5, 0.5, 0.5), chain[2]]))
    assert mixed.classes.tolist() == [1, 2, 1], "another class is another item"
    images = found(answers(chain[:1], chain[1:2]))
    assert [len(items.boxes) for items in images] == [1, 1], "images do not suppress each other"


def test_a_cell_may_say_several_classes_and_low_scores_are_left_out():
    logits = answers([(2, 2, 7, 0.9)]).view(1, 15, 8, 8)
    logits[0, 1 + 3, 2, 2] = 60 + math.log(0.5)  # half as likely as class 7
    (items,) = found(logits.flatten(1))
    assert items.classes.tolist() == [7, 3] and items.scores.tolist() == pytest.approx([0.6, 0.3], abs=1e-4)
    for score, count in ((0.021, 1), (0.019, 0)):
        (items,) = found(answers([(0, 0, 0, score)]))
        assert len(items.boxes) == len(items.classes) == len(items.scores) == count
        assert items.boxes.shape == (count, 4)


def test_a_detector_that_answers_the_labels_finds_the_true_items(made):
    for answer, items in zip(found(certain(made.labels)), true_items(made), strict=True):
        keys = [sorted(zip(one.classes.tolist(), one.boxes.round().tolist(), strict=True)) for one in (answer, items)]
        assert keys[0] == keys[1]
        assert torch.allclose(answer.scores, torch.ones(len(items.boxes)))


# ------------------------------------------------------------------ average precision by hand


HIT, ELSEWHERE = (2, 2, 0), (6, 6, 0)


def test_certain_and_right_is_1_and_nothing_found_is_0(made):
    assert box_average_precision(certain(made.labels), made) == 1
    assert box_average_precision(answers(*[[]] * len(made)), made) == 0


def test_misses_and_false_boxes_by_hand():
    both = truth([HIT, ELSEWHERE])
    wrong = (2, 6, 0)
    for boxes, expected in [
        ([(*HIT, 0.9)], 1 / 2),
        ([(*HIT, 0.9), (*ELSEWHERE, 0.3)], 1),
        ([(*wrong, 0.95), (*HIT, 0.9), (*ELSEWHERE, 0.8)], 1 / 2 * 1 / 2 + 1 / 2 * 2 / 3),
        ([(*HIT, 0.9), (*wrong, 0.85), (*ELSEWHERE, 0.8)], 1 / 2 + 1 / 2 * 2 / 3),
        ([(*HIT, 0.9), (*ELSEWHERE, 0.8), (*wrong, 0.7)], 1),
        ([(*wrong, 0.9)], 0),
    ]:
        assert box_average_precision(answers(boxes), both) == pytest.approx(expected), boxes


def test_a_second_box_of_one_item_is_false():
    """4 pixels to either side of an item of 16: each overlaps with it by 0.6, and with the other by a third."""
    left, right = (2, 2, 0, 0.9, 0.0, 0.5, 0.25), (2, 3, 0, 0.8, 0.0, 0.5, 0.25)
    (items,) = found(answers([left, right]))
    assert len(items.boxes) == 2
    assert box_average_precision(answers([left, right]), truth([HIT])) == 1
    later = answers([left, right, (*ELSEWHERE, 0.7)])
    assert box_average_precision(later, truth([HIT, ELSEWHERE])) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    for overlap_, expected in ((0.55, 1), (0.65, 0)):
        assert box_average_precision(answers([left]), truth([HIT]), overlap=overlap_) == expected


def test_a_wrong_class_is_false_for_its_class_and_a_miss_for_the_other():
    items = truth([(2, 2, 1), (6, 6, 2)])
    boxes = [(2, 2, 2, 0.9), (6, 6, 2, 0.5)]
    assert box_average_precision(answers(boxes), items) == pytest.approx((0 + 1 / 2) / 2)
    # A class without items is left out, and so are its false boxes.
    assert box_average_precision(answers([(2, 2, 1, 0.9), (6, 6, 2, 0.9), (4, 4, 5, 0.95)]), items) == 1


def test_boxes_of_equal_score_count_at_once_in_either_order():
    for boxes in ([(*HIT, 0.9), (6, 1, 0, 0.9)], [(0, 5, 0, 0.9), (*HIT, 0.9)]):
        assert box_average_precision(answers(boxes), truth([HIT])) == pytest.approx(1 / 2)
    images = answers([(*HIT, 0.9)], [(*HIT, 0.9)])
    for items in (truth([HIT], []), truth([], [HIT])):
        assert box_average_precision(images, items) == pytest.approx(1 / 2)


def test_a_box_counts_for_its_own_image_alone():
    assert box_average_precision(answers([], [(*HIT, 0.9)]), truth([HIT], [])) == 0
    ranked = answers([(*HIT, 0.4)], [(*HIT, 0.9)], [(*HIT, 0.2)])
    assert box_average_precision(ranked, truth([HIT], [], [HIT])) == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 3)


# ------------------------------------------------------------------ average precision by a loop


def slow_found(logits):
    """(score, class, box) of one image, by falling score, in double precision."""
    z, everything = logits.double().numpy().reshape(15, 8, 8), []
    for row in range(8):
        for column in range(8):
            x, y, width, height = (sigmoid(value) for value in z[11:, row, column])
            x, y, width, height = 8 * (column + x), 8 * (row + y), 64 * width, 64 * height
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            shares = np.exp(log_softmax(z[1:11, row, column]))
            everything += [(sigmoid(z[0, row, column]) * shares[c], c, box) for c in range(10)]
    kept = []
    for score, of_class, box in sorted(everything, reverse=True):
        rivals = (other for _, same_class, other in kept if same_class == of_class)
        if score >= 0.02 and all(overlap(box, other) <= 0.5 for other in rivals):
            kept.append((score, of_class, box))
    return kept


def slow_average_precision(logits, split, least):
    images = [slow_found(row) for row in logits]
    items = [[*zip(one.classes.tolist(), one.boxes.tolist(), strict=True)] for one in true_items(split)]
    precisions = []
    for number in range(10):
        total = sum(of_class == number for image in items for of_class, _ in image)
        if not total:
            continue
        judged = []
        for boxes, image in zip(images, items, strict=True):
            targets, taken = [box for of_class, box in image if of_class == number], set()
            for score, of_class, box in boxes:
                if of_class == number:
                    overlaps = [overlap(box, target) for target in targets]
                    best = max(range(len(targets)), key=overlaps.__getitem__, default=None)
                    right = best is not None and best not in taken and overlaps[best] >= least
                    taken |= {best} if right else set()
                    judged.append((score, right))
        precision, before = 0.0, 0.0
        for threshold in sorted({score for score, _ in judged}, reverse=True):
            above = [right for score, right in judged if score >= threshold]
            recall = sum(above) / total
            precision, before = precision + (recall - before) * sum(above) / len(above), recall
        precisions.append(precision)
    return sum(precisions) / len(precisions)


def test_average_precision_equals_a_loop_over_the_definition(made):
    random = torch.Generator().manual_seed(0)
    values = []
    for spread, least in ((4.0, 0.5), (8.0, 0.5), (8.0, 0.3), (12.0, 0.7)):
        few = made.subset(slice(0, 12))
        noise = torch.randn(12, 960, generator=random)
        logits = (certain(few.labels) / 8).clamp(-3.5, 5) + spread / 8 * noise
        value = box_average_precision(logits, few, overlap=least)
        assert value == pytest.approx(slow_average_precision(logits, few, least), abs=1e-6), (spread, least)
        values.append(value)
    assert min(values) < 0.3 and max(values) > 0.3, "cases that are neither all right nor all wrong"


def test_a_random_detector_has_about_0_and_a_network_is_asked_for_its_answers(made):
    random = torch.randn(len(made), 960, generator=torch.Generator().manual_seed(0))
    assert box_average_precision(random, made) < 0.02
    torch.manual_seed(0)
    detector = GridDetector().eval()
    with torch.no_grad():
        logits = detector(made.normalized(slice(None)))
    network = box_average_precision(detector, made)
    assert network == pytest.approx(box_average_precision(logits, made), abs=1e-4) and network < 0.02


def test_bad_arguments_of_average_precision_are_named(made):
    for arguments, options, words in [
        ((torch.zeros(3, 960), made), {}, "model must give one row of logits for each of the 40 images, got .3, 960"),
        ((torch.full((40, 960), math.nan), made), {}, "model must be finite, got nan"),
        ((torch.zeros(40, 900), made), {}, r"values must have shape \(batch, 960\), got \(40, 900\)"),
        ((torch.zeros(40, 960), made), {"overlap": 0}, "overlap must be strictly between 0 and 1, got 0"),
        ((torch.zeros(1, 960), truth([])), {}, "split must hold at least one item, got 1 images without any"),
    ]:
        with pytest.raises(ValueError, match=words):
            box_average_precision(*arguments, **options)
    with pytest.raises(ValueError, match="logits must be finite, got nan"):
        found(torch.full((1, 960), math.nan))
    with pytest.raises(TypeError, match="split must be a kdlib.data.ImageSplit"):
        box_average_precision(torch.zeros(3, 960), None)
    with pytest.raises(TypeError, match="model must be a torch.Tensor, got ndarray"):
        box_average_precision(np.zeros((40, 960)), made)


def test_a_network_in_training_mode_is_judged_in_eval_mode_and_left_as_it_was(made):
    torch.manual_seed(0)
    detector = GridDetector().train()
    value = box_average_precision(detector, made)
    assert detector.training and not detector.stages[0][1].num_batches_tracked
    assert value == box_average_precision(detector.eval(), made)
