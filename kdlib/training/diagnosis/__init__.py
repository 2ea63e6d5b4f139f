"""My student is no better than its baseline: why? Six questions, each answered by a call on one's own student.

In this order, because an answer says little before those above it are good:

1. `does_the_teacher_see_what_it_knows`: a good teacher that gets its images wrongly looks like a weak one;
2. `is_the_teacher_ahead`: one that knows no more than the baseline has little to give;
3. `do_the_targets_belong_to_the_images`: what it knows must be said of the right images,
4. `does_the_term_reach_the_student`: weigh enough in what moves the student,
5. `does_the_student_follow`: be learned, and carry over to other images,
6. `is_it_more_than_noise`: and be told apart from what another seed changes.

`examine` asks all six. Nothing that is given is changed: no mode, no weight, no statistics of batch norm. Every
threshold is a constant in the file of its question, with its reason.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import _checks
from kdlib._checks import checked, fraction
from kdlib.data import ImageSplit
from kdlib.inference import network_rule
from kdlib.losses import soft_target_loss
from kdlib.metrics import paired_interval
from kdlib.training.checks import function_rule, teacher_rule
from kdlib.training.diagnosis import inputs
from kdlib.training.diagnosis.answers import Answer, Diagnosis, percent, points
from kdlib.training.diagnosis.of_seeds import is_it_more_than_noise, of_one_seed
from kdlib.training.diagnosis.of_student import does_the_student_follow, does_the_term_reach_the_student
from kdlib.training.diagnosis.of_targets import do_the_targets_belong_to_the_images
from kdlib.training.diagnosis.of_teacher import (
    does_the_teacher_see_what_it_knows,
    is_the_teacher_ahead,
    judged_by_its_hits,
)
from kdlib.training.objectives import Loss, TaskLoss

__all__ = [
    "Answer",
    "Diagnosis",
    "do_the_targets_belong_to_the_images",
    "does_the_student_follow",
    "does_the_teacher_see_what_it_knows",
    "does_the_term_reach_the_student",
    "examine",
    "is_it_more_than_noise",
    "is_the_teacher_ahead",
]


@checked(
    student=network_rule, teacher=inputs.network_or_pair, baseline=teacher_rule,
    transfer_set=inputs.one_class_an_image, held_out=inputs.one_class_an_image, temperature=_checks.temperature,
    alpha=fraction, teacher_logits=inputs.optional_logits, expected=inputs.optional_share, loss=function_rule,
    task_loss=function_rule, seeds=inputs.pair_of_accuracies,
)  # fmt: skip
def examine(
    student: nn.Module,
    teacher: nn.Module | tuple[Tensor, Tensor],
    baseline: nn.Module | Tensor,
    transfer_set: ImageSplit,
    held_out: ImageSplit,
    *,
    temperature: float | int,
    alpha: float | int,
    teacher_logits: Float[Tensor, "_n _classes"] | None = None,
    expected: float | None = None,
    loss: Loss = soft_target_loss,
    task_loss: TaskLoss = F.cross_entropy,
    seeds: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Diagnosis:
    """Ask all six questions; `.first` of what is returned says where to start.

    Args:
        student: the distilled network as it is.
        teacher: the network as it is used, or the pair of its logits on `transfer_set` and on `held_out`, which leaves
            open whether it sees what it knows.
        baseline: the same student trained on the labels alone, or its logits on `held_out`.
        transfer_set: the images that the student learned from.
        held_out: at least 20 images that none of the three learned from, such as a validation split.
        temperature, alpha, loss, task_loss: those of the distillation, as `does_the_term_reach_the_student` takes them.
        teacher_logits: what was stored and learned from, a row for each image of `transfer_set`, where that was so.
        expected: the accuracy in [0, 1] that is known of the teacher on images like `held_out`.
        seeds: the accuracies in [0, 1] of students and of baselines, a pair of lists with one number for each seed.

    Raises:
        ValueError: as the six functions.
    """
    inputs.refuse_the_same_images(transfer_set, held_out)
    network = teacher if isinstance(teacher, nn.Module) else None
    on_transfer, on_held_out = (teacher, teacher) if network is not None else teacher
    on_transfer = inputs.logits_on("teacher", on_transfer, transfer_set)
    on_held_out = inputs.logits_on("teacher", on_held_out, held_out)
    on_baseline = inputs.logits_on("baseline", baseline, held_out)
    stored = on_transfer if teacher_logits is None else teacher_logits
    right, baseline_right = (
        inputs.hits("student", student, held_out),
        inputs.hits("baseline", on_baseline, held_out),
    )
    gain = paired_interval(right, baseline_right)
    teacher_right = inputs.hits("teacher", on_held_out, held_out)
    answers = (
        judged_by_its_hits(on_held_out if network is None else network, teacher_right, held_out, expected),
        is_the_teacher_ahead(on_held_out, on_baseline, held_out),
        do_the_targets_belong_to_the_images(
            stored, transfer_set, None if teacher_logits is None else network
        ),
        does_the_term_reach_the_student(
            student,
            stored,
            transfer_set,
            temperature=temperature,
            alpha=alpha,
            loss=loss,
            task_loss=task_loss,
        ),
        does_the_student_follow(student, (on_transfer, on_held_out), transfer_set, held_out),
        of_one_seed(gain) if seeds is None else is_it_more_than_noise(*seeds),
    )
    shares = " / ".join(percent(each.mean().item()) for each in (right, baseline_right, teacher_right))
    standing = (
        f"Student / baseline / teacher are right about {shares} of {len(held_out)} held-out images; student less "
        f"baseline: {points(gain)} over the images."
    )
    return Diagnosis(answers, standing)
