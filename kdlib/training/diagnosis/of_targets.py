"""A question about stored targets: are they answers about these images?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.training.diagnosis.answers import Answer, percent
from kdlib.training.diagnosis.inputs import (
    ROUNDING,
    evenly,
    logits_on,
    one_class_an_image,
    optional_network,
    same_classes,
    stored_logits,
)

# Beyond so many standard deviations from chance, chance is no explanation.
DEVIATIONS = 3.0
# So many of the images that the teacher calls one class bear one other label: its classes are in another order.
MISNAMED = 2 / 3
# Rows that are computed anew: where one row in a hundred is wrong, all of 256 are right one time in thirteen.
COMPARED = 256

_ORDER = (
    "Bring the teacher's classes into the order of the labels: for instance it calls {name} what the labels call "
    "{label}."
)
_PROBABILITIES = (
    "Give logits, or the logarithm of these: the rows are at least 0 and sum to 1, as behind a softmax."
)
_LABELS = (
    "Look at labels and images side by side: the targets are the teacher's answers about these images, but its answers "
    "have nothing to do with the labels."
)
_ROWS = (
    "Compute them anew, by kdlib.teachers.cached_logits(teacher, split): row i must belong to image i, and a cache by "
    "batch number hands out other images' rows after a reshuffle."
)
_SCALED = (
    "Store the teacher's logits as they are: these are {scale:.3g} times them, and the training divides them by the "
    "temperature itself."
)
_OTHERS = (
    "Compute them anew for the images as the student sees them: these are of other images or views, of another "
    "teacher, or of one in training mode."
)


@checked(teacher_logits=stored_logits, split=one_class_an_image, teacher=optional_network)
def do_the_targets_belong_to_the_images(
    teacher_logits: Float[Tensor, "_n _classes"], split: ImageSplit, teacher: nn.Module | None = None
) -> Answer:
    """Is row i of the stored logits the teacher's answer about image i?

    Two measurements. The share of rows whose largest logit is at the image's label, against the share that would be if
    the rows were dealt out at random (the sum over classes of share of largest logits * share of labels). Where the
    teacher is given, its answers about up to 256 images are computed anew and compared with the stored ones, each row
    less its mean, which a softmax does not see.

    Without the teacher, a few wrong rows, or those of other views of the same images, are not seen.

    Args:
        teacher_logits: what is stored, a row for each image.
        split: the images, with labels.
        teacher: the network that is said to have given the logits.

    Raises:
        ValueError: another number of rows than images; labels that are none of the classes.
    """
    logits = logits_on("teacher_logits", teacher_logits, split)
    named = logits.argmax(dim=1)
    matching = (named == split.labels).double().mean().item()
    chance = (_shares(named, logits.shape[1]) @ _shares(split.labels, logits.shape[1])).item()
    beyond_chance = chance + DEVIATIONS * (chance * (1 - chance) / len(split)) ** 0.5
    finding = (
        f"the largest logit is at the label in {percent(matching)} of {len(split)} rows, at random it would be in "
        f"{percent(chance)}"
    )
    wrong = scale = None
    if teacher is not None:
        wrong, largest, scale = _compared(logits, split, teacher)
        finding += f"; computed anew, {percent(wrong)} of the rows differ, by up to {largest:.3g}"
    if (logits >= 0).all() and torch.allclose(logits.sum(dim=1), torch.ones(len(logits)), atol=1e-3):
        good, advice = False, _PROBABILITIES
    elif misnamed := _misnamed(named, split.labels, logits.shape[1]):
        good, advice = False, _ORDER.format(name=misnamed[0], label=misnamed[1])
    elif beyond_chance < 1 and matching <= beyond_chance:
        good, advice = False, _LABELS if wrong == 0 else _ROWS
    elif wrong:
        good, advice = False, _OTHERS if scale is None else _SCALED.format(scale=scale)
    elif beyond_chance >= 1 and wrong is None:
        good, advice = (
            None,
            "Give the teacher as well, or more images: these rows would match the labels by chance.",
        )
    else:
        good, advice = True, ""
    return Answer("Do the targets belong to the images?", good, finding + ".", advice)


def _shares(classes: Int[Tensor, " n"], count: int) -> Float[Tensor, " count"]:
    return classes.bincount(minlength=count).double() / len(classes)


def _misnamed(named: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int) -> tuple[int, int] | None:
    """A class of the teacher's, and the other label that most of its images bear, more of them than by chance."""
    base = _shares(labels, classes)
    for name in named.unique().tolist():
        of_name = labels[named == name]
        shares = _shares(of_name, classes)
        label = int(shares.argmax())
        rate = base[label]
        by_chance = rate + DEVIATIONS * (rate * (1 - rate) / len(of_name)) ** 0.5
        if label != name and shares[label] > max(by_chance.item(), MISNAMED):
            return name, label
    return None


def _compared(logits: Tensor, split: ImageSplit, teacher: nn.Module) -> tuple[float, float, float | None]:
    """The share of rows that differ from what the teacher says now, the largest difference, and the factor between the
    two where there is one."""
    rows = evenly(len(split), COMPARED)
    anew = logits_on("teacher", teacher, split.subset(rows))
    same_classes(teacher_logits=logits, teacher=anew)
    stored, anew = (each - each.mean(dim=1, keepdim=True) for each in (logits[rows], anew))
    difference = (stored - anew).abs().amax(dim=1)
    wrong = (difference > ROUNDING * anew.abs().max()).double().mean().item()
    factor = (stored * anew).sum() / anew.square().sum().clamp(min=1e-12)
    off = (stored - factor * anew).abs().max()
    scaled = factor > 0 and off <= ROUNDING * factor * anew.abs().max()
    return wrong, difference.max().item(), factor.item() if scaled else None
