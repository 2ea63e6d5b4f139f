"""Detection in small: one to three items on a canvas, and a grid of cells that answers which item is where.

The canvas of 64 x 64 pixels is cut into 8 x 8 cells. For each cell a detector gives 15 numbers: whether the centre of
an item lies in it, a logit for each of ten classes, and the box. So a detector here is a network from images to
(batch, 15 * 8 * 8) numbers, and its labels have the same shape: the anchor-free form of YOLO's first version (Redmon
et al. 2016, arXiv 1506.02640) and of FCOS (Tian et al. 2019, arXiv 1904.01355), with one level and one box a cell.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import _checks as rules
from kdlib._checks import checked, positive_integer, same_shape
from kdlib.data import ImageSplit
from kdlib.models import PocketCNN
from kdlib.tasks import _checks

CANVAS, CELLS, CLASSES, MOST = 64, 8, 10, 3
OUTPUTS = 1 + CLASSES + 4
SMALLEST = 0.6  # items have from 0.6 times to the whole of their size
BOX_WEIGHT = 5.0  # of a box beside its class, as in YOLO
_OVERLAP, _TRIES, _VISIBLE = 0.1, 30, 26


class Grid(NamedTuple):
    """The parts of a detector's answer, or of its labels, for each cell."""

    objects: Float[Tensor, "batch rows columns"]
    classes: Float[Tensor, "batch classes rows columns"]
    boxes: Float[Tensor, "batch 4 rows columns"]


@checked(values=_checks.numbers)
def grid(values: Float[Tensor, "batch numbers"]) -> Grid:
    """The 15 * 8 * 8 numbers of each image by what they mean, in float32 at least.

    boxes: the place of the centre in the cell (from its left and upper edge, in cells), then width and height (in
    canvases): in [0, 1]; of logits, before the sigmoid.

    Raises:
        TypeError: no tensor.
        ValueError: another shape than (batch, 15 * 8 * 8), whole numbers, or numbers that are not finite.
    """
    if values.shape[1] != OUTPUTS * CELLS**2:
        raise ValueError(f"values must have shape (batch, {OUTPUTS * CELLS**2}), got {tuple(values.shape)}")
    precise = values.to(torch.promote_types(values.dtype, torch.float32))
    parts = precise.unflatten(1, (OUTPUTS, CELLS, CELLS))
    return Grid(parts[:, 0], parts[:, 1 : 1 + CLASSES], parts[:, 1 + CLASSES :])


class GridDetector(PocketCNN):
    """Convolutions with batch norm and ReLU, the first three of stride 2, and a 1x1 convolution as its head.

    The last stage is the *neck*: what the head reads, and what feature losses compare.

    Args:
        widths: channels of each stage, at least three. The standard ones have 23,903 parameters.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 32, 32)):
        if len(widths) < 3:
            raise ValueError(f"widths must hold at least three numbers, got {widths!r}")
        plan = [(width, 3, 2 if stage < 3 else 1) for stage, width in enumerate(widths)]
        super().__init__(plan=plan)
        self.head = nn.Conv2d(widths[-1], OUTPUTS, 1)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch numbers"]:
        features = images
        for stage in self.stages:
            features = stage(features)
        return self.head(features).flatten(1)


@checked(split=_checks.items, n=positive_integer, seed=_checks.seed)
def canvases(split: ImageSplit, n: int, *, seed: int = 0) -> ImageSplit:
    """`n` canvases with one to three items drawn from `split`, scaled, and hardly overlapping.

    Args:
        split: grey images of at most 64 pixels and ten classes.
        n: how many.
        seed: chooses items, sizes and places.

    Returns:
        Images uint8 (n, 1, 64, 64); labels float32 (n, 15 * 8 * 8), see `grid`: 1 for each cell with the centre of an
        item, its class as 0 and 1, its box; 0 elsewhere. A box is the smallest that holds all pixels of the scaled
        item of at least a tenth of full brightness, before they are rounded.

    Raises:
        ValueError: images of several channels or labels, larger ones, or a label above 9.
    """
    if (largest := int(split.labels.max())) >= CLASSES:
        raise ValueError(f"split must hold items of {CLASSES} classes, 0 to {CLASSES - 1}, got the label {largest}")
    if max(split.images.shape[2:]) > CANVAS:
        raise ValueError(f"split must hold images of at most {CANVAS} pixels, got {tuple(split.images.shape[2:])}")
    random = torch.Generator().manual_seed(seed)
    images, labels = torch.zeros(n, 1, CANVAS, CANVAS), torch.zeros(n, OUTPUTS, CELLS, CELLS)
    for canvas, label in zip(images[:, 0], labels, strict=True):
        wanted = int(torch.randint(1, MOST + 1, (), generator=random))
        placed: list[Tensor] = []
        for row in torch.randint(len(split), (wanted,), generator=random).tolist():
            _place(canvas, label, split.images[row, 0], int(split.labels[row]), placed, random)
    return ImageSplit(images.round().to(torch.uint8), labels.flatten(1))


def _place(
    canvas: Tensor, label: Tensor, image: Tensor, of_class: int, placed: list[Tensor], random: torch.Generator
) -> None:
    """Put an item where it hardly overlaps with those that are there; leave it out where no such place is found."""
    scale = SMALLEST + (1 - SMALLEST) * float(torch.rand((), generator=random))
    size = [max(1, round(scale * side)) for side in image.shape]
    item = F.interpolate(image[None, None].float(), size=size, mode="bilinear", antialias=True)[0, 0].clamp(0, 255)
    own = _box_of(item)
    for _ in range(_TRIES):
        top, left = (int(torch.randint(CANVAS - side + 1, (), generator=random)) for side in size)
        box = own + torch.tensor([left, top, left, top])
        if all(_overlap(box, other) < _OVERLAP for other in placed) and _write_label(label, box, of_class):
            placed.append(box)
            part = canvas[top : top + size[0], left : left + size[1]]
            torch.maximum(part, item, out=part)
            return


def _box_of(item: Tensor) -> Tensor:
    """Left, upper, right and lower edge of what is visible; of all where nothing is."""
    visible = item >= _VISIBLE
    rows, columns = (visible.any(dim=d).nonzero() for d in (1, 0))
    if not len(rows):
        return torch.tensor([0, 0, item.shape[1], item.shape[0]])
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def _overlap(box: Tensor, other: Tensor) -> float:
    """Intersection over union."""
    both = (torch.minimum(box[2:], other[2:]) - torch.maximum(box[:2], other[:2])).clamp(min=0).prod()
    return float(both / ((box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - both))


def _write_label(label: Tensor, box: Tensor, of_class: int) -> bool:
    """Write the item into the cell of its centre; False where another item's centre lies in it."""
    centre = (box[:2] + box[2:]) / 2 * CELLS / CANVAS
    column, row = (min(int(place), CELLS - 1) for place in centre)
    if label[0, row, column]:
        return False
    label[0, row, column] = label[1 + of_class, row, column] = 1
    label[1 + CLASSES : 3 + CLASSES, row, column] = centre - torch.tensor([column, row])
    label[3 + CLASSES :, row, column] = (box[2:] - box[:2]) / CANVAS
    return True


@checked(logits=rules.logits)
def score_map(logits: Float[Tensor, "batch numbers"]) -> Float[Tensor, "batch rows columns"]:
    """How sure a detector is, for each cell, that an item of some class is there: sigmoid(o) * largest softmax(c)."""
    parts = grid(logits)
    return parts.objects.sigmoid() * parts.classes.softmax(dim=1).amax(dim=1)


@checked(same_shape("student_logits", "labels"), student_logits=rules.logits, labels=_checks.fractions)
def detection_loss(
    student_logits: Float[Tensor, "batch numbers"], labels: Float[Tensor, "batch numbers"]
) -> Float[Tensor, ""]:
    """The task's loss: is an item there; and where one is, which and in what box.

        L = mean over batch of sum over cells of BCE(o, y) + y * (CE(c, class) + 5 * |sigmoid(b) - box|_1)

    Common implementations differ: they divide by the number of items in the batch, weigh the few cells with an item
    higher (RetinaNet's focal loss), and compare boxes by their overlap (GIoU).

    Raises:
        ValueError: another number of columns than 15 * 8 * 8; shapes that differ; labels that are not in [0, 1].
    """
    answer, asked = grid(student_logits), grid(labels)
    objects = F.binary_cross_entropy_with_logits(answer.objects, asked.objects, reduction="none")
    classes = -(asked.classes * answer.classes.log_softmax(dim=1)).sum(dim=1)
    boxes = (answer.boxes.sigmoid() - asked.boxes).abs().sum(dim=1)
    cells = objects + asked.objects * (classes + BOX_WEIGHT * boxes)
    return cells.sum(dim=(1, 2)).mean()


@checked(same_shape("student_logits", "teacher_logits"), student_logits=rules.logits, teacher_logits=rules.logits)
def detection_distillation_loss(
    student_logits: Float[Tensor, "batch numbers"], teacher_logits: Float[Tensor, "batch numbers"]
) -> Float[Tensor, ""]:
    """The same with the teacher's soft answers, weighed by how sure the teacher is that an item is there.

        L = mean over batch of sum over cells of
            KL(p || q) + p * (KL(softmax(c_t) || softmax(c_s)) + 5 * |sigmoid(b_s) - sigmoid(b_t)|_1)

    with p = sigmoid(o_t), q = sigmoid(o_s), and the first KL between (p, 1 - p) and (q, 1 - q). It is 0 where the
    student is the teacher, and nowhere below.

    Common implementations differ: many distil classes in the cells with an item alone, which are those of the
    *labels*, or leave the boxes out.

    Source: the form of Hinton, Vinyals & Dean 2015, arXiv 1503.02531, for each answer of a cell.

    Raises:
        ValueError: another number of columns than 15 * 8 * 8; shapes that differ.
    """
    student, teacher = grid(student_logits), grid(teacher_logits.detach())
    there = teacher.objects.sigmoid()
    gain = F.logsigmoid(teacher.objects) - F.logsigmoid(student.objects)
    loss_of_none = F.logsigmoid(-teacher.objects) - F.logsigmoid(-student.objects)
    objects = there * gain + (1 - there) * loss_of_none
    log_p, log_q = teacher.classes.log_softmax(dim=1), student.classes.log_softmax(dim=1)
    classes = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    boxes = (student.boxes.sigmoid() - teacher.boxes.sigmoid()).abs().sum(dim=1)
    return (objects + there * (classes + BOX_WEIGHT * boxes)).sum(dim=(1, 2)).mean()
