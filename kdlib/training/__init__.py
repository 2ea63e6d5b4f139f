"""Training from labels and training from a teacher: the same loop, the same defaults, another objective.

The files, in the order in which things happen: `checks` (what is asked for), `teacher` (who answers), `batches` and
`augmentation` (what a step sees), `objectives` and `feature_objective` (what it minimises), `devices` (where it is
computed), `step` and `loop` (the steps), `checkpoints`, `progress` and `tensorboard` (what is kept and shown). Where a
student ends no better than its baseline, `diagnosis` asks why.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib._checks import checked, fraction
from kdlib.data import ImageSplit
from kdlib.features import FeatureTerm
from kdlib.features.terms import check_terms
from kdlib.losses import soft_target_loss
from kdlib.training import checks, devices
from kdlib.training.loop import History, fit
from kdlib.training.objectives import (
    DistillationObjective,
    LabelObjective,
    Loss,
    Objective,
    TaskLoss,
    smoothed,
)
from kdlib.training.precision import bfloat16_helps
from kdlib.training.preparation import answering, placed, prepare, with_features
from kdlib.training.progress import Reporter
from kdlib.training.schedules import Schedule, as_schedule

__all__ = ["LEARNING_RATE", "WEIGHT_DECAY", "History", "bfloat16_helps", "distill", "match_features", "train"]

# Suits small networks with batch norm; transformers want a tenth of it and less.
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2

Augmentation = Callable[[Tensor], Tensor] | None
Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None


@checked(
    model=checks.network_rule,
    split=checks.split_rule,
    validation=checks.optional_split_rule,
    label_smoothing=fraction,
    task_loss=checks.function_rule,
    **checks.training_rules,
    **devices.rules,
)
def train(
    model: nn.Module,
    split: ImageSplit,
    *,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float | int = LEARNING_RATE,
    weight_decay: float | int = WEIGHT_DECAY,
    label_smoothing: float | int = 0.0,
    task_loss: TaskLoss = F.cross_entropy,
    seed: int = 0,
    augment: Augmentation = None,
    mix: Mixing = None,
    views: int | None = None,
    validation: ImageSplit | None = None,
    progress: bool | Reporter = True,
    checkpoint: str | Path | None = None,
    log_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    bfloat16: bool | None = None,
    fabric: Any = None,
    accumulate: int = 1,
    clip_norm: float | int | None = None,
) -> History:
    """Train `model` in place on the labels of `split`: the control of every distillation.

    Minimises the cross-entropy with the labels. With `label_smoothing` s the target of a class is
    (1 - s) * [it is the label] + s / classes (Szegedy et al. 2015, arXiv 1512.00567).

    Args:
        model: any module from normalised images (batch, channels, height, width) to logits (batch, classes).
            It is left in eval mode. Batch norm that was frozen (eval mode, no gradient) stays so.
        split: the training images. Labels may be classes, several labels an image, or soft labels.
        epochs: passes over `split`.
        batch_size: images a step, at most; an epoch is cut into batches of nearly equal size. One image that would
            be left over, on which batch norm fails, joins another batch.
        learning_rate: the peak of a one-cycle schedule (Smith & Topin 2017, arXiv 1708.07120) for AdamW
            (Loshchilov & Hutter 2017, arXiv 1711.05101).
        weight_decay: AdamW's decoupled weight decay.
        label_smoothing: s above, in [0, 1].
        task_loss: (student_logits, labels) -> scalar, in place of cross-entropy; for several labels an image
            `torch.nn.functional.binary_cross_entropy_with_logits`. The parameters of a module are trained as well.
        seed: fixes the order of the images, dropout and augmentation. Two runs from the same initial weights
            with the same number of threads are bit-identical. The initial weights are the caller's:
            `models.build(name, seed=seed)`.
        augment: a function of one uint8 image (channels, height, width), such as a transform of torchvision v2,
            or of a batch of them (`kdlib.data.augment`); every image of a batch gets a draw of its own, in every
            step. It returns uint8, or floating-point numbers in [0, 1], of the same shape.
        mix: a function (images in [0, 1], labels) -> (images, soft labels (batch, classes)) of an augmented batch,
            such as `MixUp` and `CutMix` of torchvision v2 (Zhang et al. 2018, arXiv 1710.09412; Yun et al. 2019,
            arXiv 1905.04899).
        views: so many fixed views an image, drawn once by `augment`, in place of new ones in every step; they
            are used equally often.
        validation: its accuracy is recorded after every epoch; its mean average precision where images have
            several labels.
        progress: True for a progress display, False for silence, or a callable that takes records
            (`kdlib.training.progress`).
        checkpoint: a file, rewritten after every epoch. Where it exists, training continues from it and ends
            with the weights of an uninterrupted run.
        log_dir: a folder for TensorBoard.
        device: where to compute; by default CUDA, MPS or the CPU, in this order.
        bfloat16: compute the forward pass in bfloat16; by default only where that is faster
            (`bfloat16_helps`).
        fabric: a `Fabric` of Lightning, launched, that chooses devices and precision in place of `device` and
            `bfloat16` (`kdlib.training.devices`). Of several processes each takes its share of every batch; weights
            and records are those of one process up to rounding, in a network without batch norm. Batch norm
            normalises each share by itself, and the statistics of the first process are kept; on CUDA,
            `torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)` normalises whole batches. `augment`, `mix` and
            dropout draw anew in each process, and losses that compare images with each other see a share.
        accumulate: cut every batch into so many parts, of which one at a time is computed and takes memory. The
            step is that of the whole batch up to rounding, with the same two exceptions: batch norm, and losses
            that compare images with each other, see the parts.
        clip_norm: largest Euclidean norm of the gradient of all weights together; a larger one is scaled down to it
            (Pascanu et al. 2012, arXiv 1211.5063). None leaves it as it is.

    Returns:
        The `History`. Stopping (KeyboardInterrupt) ends the training and returns it with `interrupted=True`.

    Raises:
        ValueError: an argument out of its range; labels or images that the model cannot process (both shapes
            are shown); a checkpoint of another training.
        FloatingPointError: the loss is not finite.
    """
    if label_smoothing and task_loss is not F.cross_entropy:
        raise ValueError(
            f"label_smoothing={label_smoothing} is for cross-entropy; task_loss must do it itself"
        )
    task_loss = task_loss if task_loss is not F.cross_entropy else smoothed(label_smoothing)
    on, bfloat16 = devices.choose(fabric, device, bfloat16)
    checks.check_task_loss(task_loss, split)
    recipe, batches, logits = prepare(
        model, split, on, bfloat16=bfloat16, augment=augment, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate, weight_decay=weight_decay, seed=seed, mix=mix, views=views, accumulate=accumulate,
        clip_norm=clip_norm,
    )  # fmt: skip
    checks.check_task(task_loss, batches, logits)
    checks.check_validation(model, validation, on.device)
    return fit(
        model, batches, LabelObjective(task_loss), recipe,
        validation=validation, progress=progress, checkpoint=checkpoint, log_dir=log_dir, devices=on,
    )  # fmt: skip


@checked(
    student=checks.network_rule, teacher=checks.teacher_rule, split=checks.split_rule,
    validation=checks.optional_split_rule, features=check_terms, loss=checks.function_rule,
    task_loss=checks.function_rule, temperature=checks.schedule_rule, alpha=checks.schedule_rule,
    **checks.training_rules,
    **devices.rules,
)  # fmt: skip
def distill(
    student: nn.Module,
    teacher: nn.Module | Float[Tensor, "_n _classes"],
    split: ImageSplit,
    *,
    epochs: int,
    temperature: float | int | Schedule = 4.0,
    alpha: float | int | Schedule = 0.9,
    loss: Loss = soft_target_loss,
    task_loss: TaskLoss = F.cross_entropy,
    features: Sequence[FeatureTerm] = (),
    batch_size: int = 32,
    learning_rate: float | int = LEARNING_RATE,
    weight_decay: float | int = WEIGHT_DECAY,
    seed: int = 0,
    augment: Augmentation = None,
    mix: Mixing = None,
    views: int | None = None,
    validation: ImageSplit | None = None,
    progress: bool | Reporter = True,
    checkpoint: str | Path | None = None,
    log_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    bfloat16: bool | None = None,
    fabric: Any = None,
    accumulate: int = 1,
    clip_norm: float | int | None = None,
) -> History:
    """Train `student` in place on the soft targets of `teacher` and the labels of `split`.

    Minimises alpha * loss(student, teacher) + (1 - alpha) * task_loss(student, labels), by default
    alpha * T^2 * KL(p_teacher^T || p_student^T) + (1 - alpha) * CE(labels)
    (Hinton, Vinyals & Dean 2015, arXiv 1503.02531; `kdlib.losses.distillation_loss`), plus weight * loss of
    each of the `features`.

    The teacher's logits are computed once and looked up by the row of the image, so an epoch costs what an
    epoch on labels costs. With `augment` the teacher sees the same augmented view as the student, in every
    step, because a cached logit belongs to the view it was computed from; with `views` in addition the views are
    drawn once, and the teacher's answers are looked up by image and view. With `mix` it looks at the mixed
    images. Common implementations run the teacher in every step, and those that cache often do so by batch
    number, which is wrong once the images are reshuffled.

    Args:
        student, split, and all not named here: as `model` and the like of `train`.
        teacher: a module, which is run in eval mode without gradients and given back as it was; it gets its own
            preprocessing where it carries one (`kdlib.teachers.freeze`). Or its logits, a row for each image
            of `split` (`kdlib.teachers.cached_logits`). Several teachers are one by `kdlib.teachers.combine`.
        temperature: T > 0, a number or a schedule (`kdlib.training.schedules`).
        alpha: weight of the teacher's term, in [0, 1], a number or a schedule. With alpha = 0 and `features`
            the teacher's logits are not asked for, and its classes may be others than the student's.
        loss: the teacher's term, any function (student_logits, teacher_logits) -> scalar, such as those of
            `kdlib.losses`. `temperature` and `labels` are passed where its signature names them; other settings
            are made by functools.partial. The parameters of a module are trained as well.
        features: feature losses (`kdlib.features.FeatureTerm`). The teacher's features are computed once, as
            its logits are, unless the images change in every step or they would take more than 1 GiB. For the
            two stages of FitNets, call `match_features` first.

    Returns:
        The `History`, as `train`; with `features` their weighted sum is in its records too.

    Raises:
        ValueError: as `train`; also where student and teacher are one object, differ in the number of
            classes, or cached logits come with `augment` or `mix` or with another number of rows than `split`;
            where a loss returns no finite scalar, or demands what training does not know; where a layer does not
            exist or features do not fit each other.
    """
    on, bfloat16 = devices.choose(fabric, device, bfloat16)
    temperature, alpha_schedule = (
        as_schedule(temperature, name="temperature"),
        as_schedule(alpha, name="alpha"),
    )
    checks.check_listening(validation, temperature=temperature, alpha=alpha_schedule)
    by_labels = callable(alpha) or alpha < 1
    if by_labels:
        checks.check_task_loss(task_loss, split)
    elif not split.has_classes and task_loss is F.cross_entropy:
        task_loss = None  # nothing is weighed by it, and it would say nothing of several labels
    checks.refuse_same(student, teacher)
    recipe, batches, logits = prepare(
        student, split, on, bfloat16=bfloat16, augment=augment, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate, weight_decay=weight_decay, seed=seed, mix=mix, views=views, accumulate=accumulate,
        clip_norm=clip_norm,
    )  # fmt: skip
    checks.check_validation(student, validation, on.device)
    with placed(teacher, on.device):
        answers = answering(teacher, batches, features)
        objective: Objective
        if not features or callable(alpha) or alpha > 0:
            objective = DistillationObjective(answers, temperature, alpha_schedule, loss, task_loss)
            checks.check_losses(objective, batches, logits)
        else:
            checks.check_task(task_loss, batches, logits)
            objective = LabelObjective(task_loss)
        model = student
        if features:
            model, objective = with_features(objective, features, student, answers, batches, seed)
        return fit(
            model, batches, objective, recipe,
            validation=validation, progress=progress, checkpoint=checkpoint, log_dir=log_dir, devices=on,
        )  # fmt: skip


@checked(
    student=checks.network_rule, teacher=checks.teacher_rule, split=checks.split_rule, features=check_terms,
    **checks.training_rules,
    **devices.rules,
)  # fmt: skip
def match_features(
    student: nn.Module,
    teacher: nn.Module | Float[Tensor, "_n _classes"],
    split: ImageSplit,
    *,
    features: Sequence[FeatureTerm],
    epochs: int,
    batch_size: int = 32,
    learning_rate: float | int = LEARNING_RATE,
    weight_decay: float | int = WEIGHT_DECAY,
    seed: int = 0,
    augment: Augmentation = None,
    mix: Mixing = None,
    views: int | None = None,
    progress: bool | Reporter = True,
    checkpoint: str | Path | None = None,
    log_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    bfloat16: bool | None = None,
    fabric: Any = None,
    accumulate: int = 1,
    clip_norm: float | int | None = None,
) -> History:
    """Train `student` in place on feature losses alone: the first of FitNets' two stages, or all there is
    where nothing has a label. The second stage is `distill` or `train`, called afterwards.

    Minimises the sum of weight * loss over `features`. Layers behind the last one named get no gradient and
    stay as they are, but for the running statistics of batch norm.
    Romero et al. 2015 (FitNets, arXiv 1412.6550) train up to one hint layer so, then the whole network.

    Args:
        all: as `distill`.

    Raises:
        ValueError: as `distill`, and where there are no features.
    """
    on, bfloat16 = devices.choose(fabric, device, bfloat16)
    if not features:
        raise ValueError("features must hold at least one FeatureTerm: there is nothing else to train on")
    checks.refuse_same(student, teacher)
    recipe, batches, _ = prepare(
        student, split, on, bfloat16=bfloat16, augment=augment, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate, weight_decay=weight_decay, seed=seed, mix=mix, views=views, accumulate=accumulate,
        clip_norm=clip_norm,
    )  # fmt: skip
    with placed(teacher, on.device):
        answers = answering(teacher, batches, features)
        model, objective = with_features(None, features, student, answers, batches, seed)
        return fit(
            model, batches, objective, recipe,
            validation=None, progress=progress, checkpoint=checkpoint, log_dir=log_dir, devices=on,
        )  # fmt: skip
