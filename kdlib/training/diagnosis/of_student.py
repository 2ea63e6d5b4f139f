"""Two questions about the student: does the teacher's term reach it, and does it follow?"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import _checks
from kdlib._checks import checked, fraction
from kdlib.data import ImageSplit
from kdlib.data.items import split_or_items
from kdlib.inference import network_rule
from kdlib.losses import soft_target_loss
from kdlib.metrics import agreement
from kdlib.training.calls import chosen, wanted
from kdlib.training.checks import function_rule, refuse_no_scalar, teacher_rule
from kdlib.training.diagnosis.answers import Answer, percent
from kdlib.training.diagnosis.inputs import (
    FEWEST_IMAGES,
    evenly,
    logits_on,
    network_or_pair,
    one_class_an_image,
    refuse_the_same_images,
    same_classes,
)
from kdlib.training.objectives import Loss, TaskLoss

# Up to this share of the gradient on the logits, the teacher's term turns its direction by three degrees at most.
WEAKEST_SHARE = 0.05
# From this one on, the labels turn it by one degree at most.
STRONGEST_SHARE = 0.98
# A loss that acts like T^2 * KL with less than this part of the alpha that was asked for hides a factor: the mean over
# the classes is one of 1 / classes, T^2 left out one of 1 / T^2.
HIDDEN_ALPHA = 0.5
# Images in the one batch whose gradients are compared: some losses compare each image with each other.
WEIGHED = 1_000
# Below this size the difference of the softened probabilities, times T where that is above 1, is rounding, not
# something to learn.
THERE_ALREADY = 1e-3
# A gradient that is smaller than this part of T^2 * KL's is rounding: a mean over a thousand classes is a thousandth.
LOST = 1e-6
# The cosine between the gradients of a loss and of T^2 * KL: each of the library's losses is above 0.
OPPOSED = -0.2
# Students of the course that gain by distillation agree with their teacher on more than this of what they learned from.
FOLLOWS = 0.9
# By so much agreement may fall on other images: for the course's students it falls by .14 after 1,000 images, and by
# .24 after 300.
LARGEST_GAP = 0.2

_NOT_FINITE = (
    "Take log_softmax in place of the logarithm of a softmax, and look for a division by zero: a gradient that is not "
    "finite trains nothing."
)
_CUT_OFF = (
    "Let the loss compute on the student's logits themselves: no detach, no_grad, argmax or .item() between."
)
_ASK_ANOTHER = "Ask with a student from before its training, or with the baseline."
_HIDDEN = (
    'Sum KL over the classes (reduction="batchmean", not "mean") and multiply it by T^2, or raise alpha until the term '
    "acts like the one that was asked for."
)
_AWAY = "Look for a minus that is missing or too many: each step leads away from the teacher's answers."
_UNDERFITS = (
    "Let it learn more: more epochs, a higher learning rate, a lower temperature; if that does not help, it is too "
    "small for this teacher."
)
_TOO_FEW = (
    "Give it more images: any without labels will do, which the teacher answers, and so do several augmented views of "
    "each (augment, views)."
)


@checked(
    student=teacher_rule, teacher=teacher_rule, split=one_class_an_image, temperature=_checks.temperature,
    alpha=fraction, loss=function_rule, task_loss=function_rule,
)  # fmt: skip
def does_the_term_reach_the_student(
    student: nn.Module | Tensor,
    teacher: nn.Module | Tensor,
    split: ImageSplit,
    *,
    temperature: float | int,
    alpha: float | int,
    loss: Loss = soft_target_loss,
    task_loss: TaskLoss = F.cross_entropy,
) -> Answer:
    """Which share has the teacher in what moves the student, and is it that of the alpha that was asked for?

        share = a / (a + b), a = || alpha * d loss / dz ||, b = || (1 - alpha) * d task_loss / dz ||

    z are the student's logits on up to 1,000 images of `split`, in eval mode. The labels' gradient vanishes once they
    are learned by heart, whatever the teacher's weight. So `loss` is also compared with T^2 * KL: with r, the ratio of
    the norms of the two gradients, it acts like T^2 * KL with alpha * r / (alpha * r + 1 - alpha) in place of alpha. A
    gradient that points the other way leads away from the teacher.

    A share near 1 is no fault where the teacher is good; the finding says so.

    Args:
        student: the network as it is, or its logits on `split`.
        teacher: likewise, or what is stored of it.
        split: the images that the student learns from.
        temperature, alpha: numbers; of a schedule, those of the epoch that is asked about.
        loss: the teacher's term, as in `kdlib.training.distill`; what its signature names of temperature and labels
            is passed.
        task_loss: the labels' term.

    Raises:
        ValueError: as `does_the_teacher_see_what_it_knows`; different classes; a loss that returns no scalar.
    """
    asked = wanted(loss, ("temperature", "labels"), name="loss")
    offered = {"temperature": lambda: temperature, "labels": lambda: labels}
    z, v = logits_on("student", student, split), logits_on("teacher", teacher, split)
    same_classes(student=z, teacher=v)
    rows = evenly(len(split), WEIGHED)
    z, v, labels = z[rows], v[rows], split.labels[rows]
    distill = _gradient("loss", lambda logits: loss(logits, v.clone(), **chosen(asked, offered)), z)
    task = _gradient("task_loss", lambda logits: task_loss(logits, labels.clone()), z)
    usual = _gradient("loss", lambda logits: soft_target_loss(logits, v, temperature), z)
    norms = [len(z) ** 0.5 * gradient.norm().item() for gradient in (distill, task, usual)]
    agreement_of_gradients = F.cosine_similarity(distill.flatten(), usual.flatten(), dim=0, eps=1e-30).item()
    return Answer(
        "Does the teacher's term reach the student?",
        *_weighed(*norms, alpha, agreement_of_gradients, THERE_ALREADY * min(temperature, 1)),
    )


def _gradient(name: str, term: Loss, logits: Tensor) -> Tensor:
    """The gradient of a term on the logits; 0 where it does not depend on them."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        logits = logits.clone().requires_grad_()
        value = term(logits)
        refuse_no_scalar(name, value)
        if not value.requires_grad:
            return torch.zeros_like(logits)
        (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    return torch.zeros_like(logits) if gradient is None else gradient


def _weighed(
    distill: float, task: float, usual: float, alpha: float, cosine: float, nothing: float
) -> tuple[bool | None, str, str]:
    """good, finding and advice, from the norms of the gradients of the teacher's term, the labels' and T^2 * KL, for a
    mean over images as large as an image's.

    Args:
        cosine: between the gradients of the teacher's term and of T^2 * KL.
        nothing: below this norm T^2 * KL has nothing to teach.
    """
    if not (math.isfinite(distill) and math.isfinite(task)):
        return (
            False,
            f"the gradients have the norms {distill:.3g} (teacher) and {task:.3g} (labels).",
            _NOT_FINITE,
        )
    if alpha == 0:
        return False, "alpha is 0, and with it the teacher's share of the gradient.", "Set alpha above 0."
    if usual < nothing:
        return None, "the student gives the teacher's answers already: nothing pulls at it.", _ASK_ANOTHER
    if distill < LOST * usual:
        return False, "no gradient of the teacher's term reaches the student's logits.", _CUT_OFF
    if cosine < OPPOSED:
        return False, f"the term's gradient points away from that of T^2 * KL (cosine {cosine:.2f}).", _AWAY
    share = alpha * distill / (alpha * distill + (1 - alpha) * task)
    pull = alpha * distill / usual
    acts_like = pull / (pull + 1 - alpha)
    finding = (
        f"{percent(share)} of the gradient on the student's logits is the teacher's; the term acts like T^2 * KL at "
        f"alpha = {acts_like:.3g}, asked for was {alpha:g}"
    )
    if acts_like < HIDDEN_ALPHA * alpha:
        return False, f"{finding}.", _HIDDEN
    if share < WEAKEST_SHARE:
        return False, f"{finding}.", "Raise alpha: the labels alone decide about each step."
    note = ", and the labels have next to no say" if share > STRONGEST_SHARE and alpha < 1 else ""
    return True, f"{finding}{note}.", ""


@checked(student=network_rule, teacher=network_or_pair, transfer_set=split_or_items, held_out=split_or_items)
def does_the_student_follow(
    student: nn.Module,
    teacher: nn.Module | tuple[Tensor, Tensor],
    transfer_set: ImageSplit,
    held_out: ImageSplit,
) -> Answer:
    """How often does the student choose the teacher's class, on the images it learned from and on others?

    Agreement that is low on the transfer set says that the student underfits; agreement that is high there and falls
    by more than 20 points on other images, that the images were too few. Fewer than 20 images of either kind do not
    tell. Labels play no part.

    Args:
        student: the network as it is.
        teacher: a network, or the pair of its logits on `transfer_set` and on `held_out`.
        transfer_set: the images that the student learned from.
        held_out: images that it did not see, such as a validation split.

    Raises:
        ValueError: images that do not fit, or of which more than a tenth of held_out are in transfer_set; different
            classes.
    """
    refuse_the_same_images(transfer_set, held_out)
    on_transfer, on_held_out = (teacher, teacher) if isinstance(teacher, nn.Module) else teacher
    learned, carried = (
        _followed(student, on_transfer, transfer_set),
        _followed(student, on_held_out, held_out),
    )
    finding = (
        f"the student agrees with the teacher on {percent(learned)} of the {len(transfer_set)} images it learned from, "
        f"and on {percent(carried)} of {len(held_out)} others."
    )
    if min(len(transfer_set), len(held_out)) < FEWEST_IMAGES:
        good, advice = None, f"Ask with at least {FEWEST_IMAGES} images of either kind."
    elif learned < FOLLOWS:
        good, advice = False, _UNDERFITS
    elif learned - carried > LARGEST_GAP:
        good, advice = False, _TOO_FEW
    else:
        good, advice = True, ""
    return Answer("Does the student follow the teacher?", good, finding, advice)


def _followed(student: nn.Module, teacher: nn.Module | Tensor, split: ImageSplit) -> float:
    z, v = logits_on("student", student, split), logits_on("teacher", teacher, split)
    return agreement(z, v, split)
