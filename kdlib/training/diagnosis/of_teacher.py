"""Two questions about the teacher: does it see what it knows, and does it know more than the baseline?"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.metrics import paired_interval
from kdlib.training.checks import teacher_rule
from kdlib.training.diagnosis.answers import Answer, percent, points
from kdlib.training.diagnosis.inputs import (
    FEWEST_IMAGES,
    ROUNDING,
    hits,
    logits_on,
    one_class_an_image,
    optional_share,
    same_classes,
)
from kdlib.training.diagnosis.trials import Trial, best_other_normalisation, swing

# Another normalisation must be better by more than this: a wrong one costs tens of points, a nearly right one nothing.
CLEARLY = 0.02
# A student takes over a part of its teacher's lead, and another seed moves it by half a point and more.
SMALLEST_LEAD = 0.01

_FREEZE = (
    "Call teacher.eval() where it is asked, or kdlib.teachers.freeze(teacher), which keeps it in eval mode inside any "
    "wrapper."
)
_DEAF = (
    "Make its dropout and batch norm listen to eval mode: it may have been exported or traced in training mode, or "
    "call them without training=self.training."
)
_OTHER_IMAGES = (
    "Look for what differs from the images of which that accuracy was stated: size, channels, the classes and their "
    "order, or the file of the weights."
)
_LOGITS_ALONE = "Give the network itself, or the expected accuracy: logits do not show how they came about."
_BY_CHANCE = (
    "Give the accuracy that is expected of it, or other images: who calls every image what most of these are called is "
    "right as often, so this shows nothing of how it sees them."
)
_LITTLE_TO_GIVE = (
    "Find or train a better teacher, or combine several (kdlib.teachers.combine): this one has little to give that the "
    "labels do not."
)
_TOO_FEW_IMAGES = "Measure on more images: so few do not tell teacher and baseline apart."


@checked(teacher=teacher_rule, split=one_class_an_image, expected=optional_share)
def does_the_teacher_see_what_it_knows(
    teacher: nn.Module | Tensor, split: ImageSplit, expected: float | None = None
) -> Answer:
    """Is the teacher in eval mode, and are the images normalised as it learned them?

    Three measurements. In the mode in which it is given, 32 images are asked about in pairs and all at once: a network
    in eval mode says the same. Its accuracy with the images that it gets now (by its own preprocessing, or else as the
    split normalises them) is compared with that on raw pixels, on pixels in [-1, 1], normalised by the images' own
    statistics or by ImageNet's, and normalised twice, on up to 200 images. It is compared with what was `expected`;
    where nothing was, an accuracy that is not surely above the share of the commonest label cannot be told.

    kdlib itself asks every teacher in eval mode. A loop of one's own that calls `teacher(images)` does not.

    Args:
        teacher: the network as it is used; of its logits on `split` only the accuracy can be judged.
        split: images with labels that it was not trained on, such as a validation split.
        expected: the accuracy in [0, 1] that its maker states for such images.

    Raises:
        ValueError: images or labels that do not fit; a split of several labels an image.
    """
    return judged_by_its_hits(teacher, hits("teacher", teacher, split), split, expected)


def judged_by_its_hits(
    teacher: nn.Module | Tensor, right: Float[Tensor, " n"], split: ImageSplit, expected: float | None
) -> Answer:
    """The answer to the first question, where it is known which images the teacher is right about."""
    accuracy = paired_interval(right, torch.zeros_like(right))
    good, finding, advice = True, f"right about {percent(accuracy.mean)} of {len(split)} images", ""
    if isinstance(teacher, nn.Module):
        moved = swing(teacher, split)
        other = best_other_normalisation(teacher, split, right)
        finding += (
            f"; in other batches its logits move by {percent(moved)} of the largest"
            if math.isfinite(moved)
            else "; in the mode in which it is given it returns no finite logits"
        )
        finding += f"; the best of the other normalisations, {other.name}, reaches {percent(other.accuracy)}"
        advice = _of_mode(teacher, moved) or _of_normalisation(other)
        good = not advice
    if expected is not None:
        finding += f"; {percent(expected)} was expected"
        if good and accuracy.high < expected:
            good, advice = False, _OTHER_IMAGES
    elif not isinstance(teacher, nn.Module):
        good, advice = None, _LOGITS_ALONE
    elif good and accuracy.low <= split.labels.bincount().max().item() / len(split):
        good, advice = None, _BY_CHANCE
    return Answer("Does the teacher see what it knows?", good, finding + ".", advice)


def _of_mode(teacher: nn.Module, moved: float) -> str:
    if moved <= ROUNDING:
        return ""
    return _FREEZE if any(module.training for module in teacher.modules()) else _DEAF


def _of_normalisation(other: Trial) -> str:
    if other.gain.low <= 0 or other.gain.mean <= CLEARLY:
        return ""
    used = other.preprocessing
    mean, std = ([round(number, 4) for number in numbers.tolist()] for numbers in (used.mean, used.std))
    size = f", size={used.size}" if used.size else ""
    return (
        f"Give it {other.name}, by kdlib.teachers.freeze(teacher, mean={mean}, std={std}{size}): that is better by "
        f"{points(other.gain)}."
    )


@checked(teacher=teacher_rule, baseline=teacher_rule, split=one_class_an_image)
def is_the_teacher_ahead(
    teacher: nn.Module | Tensor, baseline: nn.Module | Tensor, split: ImageSplit
) -> Answer:
    """Is the teacher more often right than the baseline, a student trained on the labels alone?

    The difference of accuracies with its 95 % interval over the images: the mean of (teacher right) - (baseline right),
    which is -1, 0 or 1 for each image, by `kdlib.metrics.paired_interval`. The interval says what other images
    would change, not what other seeds would. A lead that is surely below one point counts as none; fewer than 20 images
    do not tell.

    Args:
        teacher, baseline: networks, or their logits on `split`.
        split: images that neither was trained on, such as a validation split.

    Raises:
        ValueError: as `does_the_teacher_see_what_it_knows`; different classes.
    """
    logits = {
        name: logits_on(name, each, split)
        for name, each in {"teacher": teacher, "baseline": baseline}.items()
    }
    same_classes(**logits)
    right, baseline_right = (hits(name, each, split) for name, each in logits.items())
    lead = paired_interval(right, baseline_right)
    finding = (
        f"the teacher is right about {percent(right.mean().item())} of {len(split)} images, the baseline about "
        f"{percent(baseline_right.mean().item())}: {points(lead)}."
    )
    if len(split) >= FEWEST_IMAGES and lead.high < SMALLEST_LEAD:
        good, advice = False, _LITTLE_TO_GIVE
    elif len(split) < FEWEST_IMAGES or lead.low <= 0:
        good, advice = None, _TOO_FEW_IMAGES
    else:
        good, advice = True, ""
    return Answer("Is the teacher ahead of the baseline?", good, finding, advice)
