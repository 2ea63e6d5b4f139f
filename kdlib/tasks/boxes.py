"""What a grid detector found, as boxes, and how good that is: average precision at an overlap of a half."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kdlib import _checks as rules
from kdlib._checks import checked, open_fraction
from kdlib.data import ImageSplit
from kdlib.data.splits import is_split
from kdlib.metrics import ModelOrLogits, logits_on, network_or_logits
from kdlib.tasks.detection import CANVAS, CELLS, CLASSES, Grid, grid

LOWEST_SCORE, SAME_ITEM = 0.02, 0.5


class Found(NamedTuple):
    """The items of one image: boxes by their left, upper, right and lower edges in pixels."""

    boxes: Float[Tensor, "items 4"]
    classes: Int64[Tensor, " items"]
    scores: Float[Tensor, " items"]


@checked(logits=rules.logits)
def found(logits: Float[Tensor, "n numbers"]) -> list[Found]:
    """What a detector's logits say of each image: boxes by falling score, of those of one class that overlap by more
    than a half the best alone (non-maximum suppression, `torchvision.ops.batched_nms`).

    The score of a class in a cell is sigmoid(o) * softmax(c); those below 0.02 are left out.

    Raises:
        ValueError: another number of columns than 15 * 8 * 8, or numbers that are not finite.
    """
    parts = grid(logits.float())
    scores = parts.objects.sigmoid()[:, None] * parts.classes.softmax(dim=1)
    return [_best(*one) for one in zip(_corners(parts.boxes.sigmoid()), scores, strict=True)]


def true_items(split: ImageSplit) -> list[Found]:
    """The items that the labels of `canvases` name, each with score 1."""
    parts: Grid = grid(split.labels)
    corners = _corners(parts.boxes)
    return [
        Found(corners[n][:, there].T, parts.classes[n][:, there].argmax(dim=0), torch.ones(int(there.sum())))
        for n, there in enumerate(parts.objects > 0)
    ]


def _corners(boxes: Tensor) -> Tensor:
    """(n, 4, rows, columns) of centre in the cell, width and height -> edges in pixels."""
    places = torch.arange(CELLS, dtype=boxes.dtype, device=boxes.device)
    x = (boxes[:, 0] + places) * CANVAS / CELLS
    y = (boxes[:, 1] + places[:, None]) * CANVAS / CELLS
    half_width, half_height = boxes[:, 2] * CANVAS / 2, boxes[:, 3] * CANVAS / 2
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=1)


def _best(corners: Tensor, scores: Tensor) -> Found:
    from torchvision.ops import batched_nms

    classes, rows, columns = (scores >= LOWEST_SCORE).nonzero(as_tuple=True)
    boxes, scores = corners[:, rows, columns].T, scores[classes, rows, columns]
    kept = batched_nms(boxes, scores, classes, SAME_ITEM)
    return Found(boxes[kept], classes[kept], scores[kept])


@checked(model=network_or_logits, split=is_split, overlap=open_fraction)
def box_average_precision(model: ModelOrLogits, split: ImageSplit, *, overlap: float = 0.5) -> float:
    """Average precision of boxes, averaged over the classes (AP at .5).

    By falling score each box takes the item of its class and image with which it overlaps most, if that is at least
    `overlap` (intersection over union) and no earlier box took it; otherwise it is false.

        AP = sum over boxes by falling score of (recall - recall before) * precision

    Boxes of equal score count at once. A class without items is left out. Ranked at random, a detector has about 0.

    Common implementations differ: COCO interpolates the precision (the largest at any higher recall, at 101 recalls),
    which is higher, and averages over overlaps from .5 to .95; an earlier box that took the item lets a later one
    take its second best there, and not here, as in PASCAL VOC (Everingham et al. 2010).

    Args:
        model: a detector, or its logits on this split, row by row.
        split: canvases.
        overlap: what counts as found.

    Raises:
        ValueError: another number of rows than images, of columns than 15 * 8 * 8; logits that are not finite; no item
            on any of the images.
    """
    answers, items = found(logits_on(model, split, "model")), true_items(split)
    precisions = [_of_class(number, answers, items, overlap) for number in range(CLASSES)]
    known = [precision for precision in precisions if precision is not None]
    if not known:
        raise ValueError(f"split must hold at least one item, got {len(split)} images without any")
    return sum(known) / len(known)


def _of_class(number: int, answers: Sequence[Found], items: Sequence[Found], overlap: float) -> float | None:
    """The average precision of one class; None where there is no such item."""
    from torchvision.ops import box_iou

    scores, right, total = [], [], 0
    for answer, item in zip(answers, items, strict=True):
        boxes, truth = answer.boxes[answer.classes == number], item.boxes[item.classes == number]
        total += len(truth)
        taken: set[int] = set()
        for overlaps in box_iou(boxes, truth):
            best = int(overlaps.argmax()) if len(truth) else -1
            hit = best >= 0 and best not in taken and bool(overlaps[best] >= overlap)
            taken |= {best} if hit else set()
            right.append(hit)
        scores += answer.scores[answer.classes == number].tolist()
    return _area(torch.tensor(scores), torch.tensor(right, dtype=torch.float64), total) if total else None


def _area(scores: Tensor, right: Tensor, total: int) -> float:
    """The sum of precisions times steps of recall; equal scores are one threshold."""
    if not len(scores):
        return 0.0
    order = scores.argsort(descending=True)
    hits = right[order].cumsum(dim=0)
    last = torch.cat([scores[order].diff() != 0, torch.tensor([True])])  # the last box of each score
    hits, boxes = hits[last], torch.arange(1, len(scores) + 1, dtype=torch.float64)[last]
    steps = hits.diff(prepend=torch.zeros(1, dtype=torch.float64)) / total
    return float((steps * hits / boxes).sum())
