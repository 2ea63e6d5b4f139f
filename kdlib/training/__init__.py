"""Training from labels and training from a teacher: the same loop, the same defaults, another objective."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.features.terms import AskedTeacher, FeatureTerm, check_terms, with_features
from kdlib.inference import pick_device, predict_logits
from kdlib.teachers import cached_logits
from kdlib.training.loop import History, Objective, Recipe, fit
from kdlib.training.objectives import CachedTeacher, DistillationObjective, LabelObjective, LiveTeacher
from kdlib.training.progress import Reporter
from kdlib.training.schedules import Schedule, as_schedule

# Suits small networks with batch norm; transformers want a tenth of it and less.
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2


def train(
    model: nn.Module,
    split: ImageSplit,
    *,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float | int = LEARNING_RATE,
    weight_decay: float | int = WEIGHT_DECAY,
    label_smoothing: float | int = 0.0,
    seed: int = 0,
    augment: Callable[[Tensor], Tensor] | None = None,
    validation: ImageSplit | None = None,
    progress: bool | Reporter = True,
    checkpoint: str | Path | None = None,
    log_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    bfloat16: bool | None = None,
) -> History:
    """Train `model` in place on the labels of `split`: the control of every distillation.

    Minimises the cross-entropy with the labels. With `label_smoothing` s the target of a class is
    (1 - s) * [it is the label] + s / classes (Szegedy et al. 2015, arXiv 1512.00567).

    Args:
        model: any module from normalised images (batch, channels, height, width) to logits (batch, classes).
            It is left in eval mode.
        split: the training images.
        epochs: passes over `split`.
        batch_size: images a step, at most; an epoch is cut into batches of nearly equal size.
        learning_rate: the peak of a one-cycle schedule (Smith & Topin 2017, arXiv 1708.07120) for AdamW
            (Loshchilov & Hutter 2017, arXiv 1711.05101).
        weight_decay: AdamW's decoupled weight decay.
        label_smoothing: s above, in [0, 1].
        seed: fixes the order of the images, dropout and augmentation. Two runs from the same initial weights
            with the same number of threads are bit-identical. The initial weights are the caller's:
            `models.build(name, seed=seed)`.
        augment: a callable from a uint8 batch to a uint8 batch, drawn anew in every step
            (`kdlib.data.augment`, or a transform of torchvision v2).
        validation: its accuracy is recorded after every epoch.
        progress: True for a progress display, False for silence, or a callable that takes records
            (`kdlib.training.progress`).
        checkpoint: a file, rewritten after every epoch. Where it exists, training continues from it and ends
            with the weights of an uninterrupted run.
        log_dir: a folder for TensorBoard.
        device: where to compute; by default CUDA, MPS or the CPU, in this order.
        bfloat16: compute the forward pass in bfloat16; by default only where that is faster
            (`bfloat16_helps`).

    Returns:
        The `History`. Stopping (KeyboardInterrupt) ends the training and returns it with `interrupted=True`.

    Raises:
        ValueError: an argument out of its range; labels or images that the model cannot process (both shapes
            are shown); a checkpoint of another training.
        FloatingPointError: the loss is not finite.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    device = pick_device(device)
    _check_student(model, split, device)
    bfloat16 = bfloat16_helps(model, device) if bfloat16 is None else bfloat16
    recipe = Recipe(epochs, batch_size, learning_rate, weight_decay, seed, bfloat16, augment)
    return fit(
        model, split, LabelObjective(label_smoothing), recipe, device=device,
        validation=validation, progress=progress, checkpoint=checkpoint, log_dir=log_dir,
    )  # fmt: skip


@checked(features=check_terms)
def distill(
    student: nn.Module,
    teacher: nn.Module | Float[Tensor, "n classes"],
    split: ImageSplit,
    *,
    epochs: int,
    temperature: float | int | Schedule = 4.0,
    alpha: float | int | Schedule = 0.9,
    features: Sequence[FeatureTerm] = (),
    batch_size: int = 32,
    learning_rate: float | int = LEARNING_RATE,
    weight_decay: float | int = WEIGHT_DECAY,
    seed: int = 0,
    augment: Callable[[Tensor], Tensor] | None = None,
    validation: ImageSplit | None = None,
    progress: bool | Reporter = True,
    checkpoint: str | Path | None = None,
    log_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    bfloat16: bool | None = None,
) -> History:
    """Train `student` in place on the soft targets of `teacher` and the labels of `split`.

    Minimises alpha * T^2 * KL(p_teacher^T || p_student^T) + (1 - alpha) * CE(labels)
    (Hinton, Vinyals & Dean 2015, arXiv 1503.02531; `kdlib.losses.distillation_loss`), plus weight * loss of
    each of the `features`.

    The teacher's logits are computed once and looked up by the row of the image, so an epoch costs what an
    epoch on labels costs. With `augment` the teacher sees the same augmented view as the student, in every
    step, because a cached logit belongs to the view it was computed from. Common implementations run the
    teacher in every step, and those that cache often do so by batch number, which is wrong once the images
    are reshuffled.

    Args:
        student, split, and all not named here: as `model` and the like of `train`.
        teacher: a module, which stays in eval mode and gets no gradient; or its logits, a row for each image
            of `split` (`kdlib.teachers.cached_logits`).
        temperature: T > 0, a number or a schedule (`kdlib.training.schedules`).
        alpha: weight of the teacher's term, in [0, 1], a number or a schedule. With alpha = 0 and `features`
            the teacher's logits are not asked for, and its classes may be others than the student's.
        features: feature losses (`kdlib.features.FeatureTerm`). The teacher's features are computed once, as
            its logits are, unless there is `augment` or they would take more than 1 GiB. For the two stages
            of FitNets, call `match_features` first.

    Returns:
        The `History`, as `train`; with `features` their weighted sum is in its records too.

    Raises:
        ValueError: as `train`; also where student and teacher are one object, differ in the number of
            classes, or cached logits come with `augment` or with another number of rows than `split`; where
            a layer does not exist or features do not fit each other.
    """
    device = pick_device(device)
    _refuse_teacher(teacher, student, augment)
    student_classes = _check_student(student, split, device)
    bfloat16 = bfloat16_helps(student, device) if bfloat16 is None else bfloat16
    recipe = Recipe(epochs, batch_size, learning_rate, weight_decay, seed, bfloat16, augment)
    temperature, alpha_schedule = as_schedule(temperature, name="temperature"), as_schedule(alpha, name="alpha")
    layers = [term.teacher_layer for term in features if isinstance(term.teacher_layer, str)]
    if augment is not None and layers:
        teacher = AskedTeacher(teacher, layers).to(device)
    objective: Objective = LabelObjective(0.0)
    if not features or callable(alpha) or alpha > 0:
        source = _teacher_source(teacher, split, augment, device)
        if source.classes != student_classes:
            raise ValueError(
                f"student and teacher must have the same classes: student logits have shape "
                f"(batch, {student_classes}), teacher logits (batch, {source.classes})"
            )
        objective = DistillationObjective(source, temperature, alpha_schedule)
    model = student
    if features:
        model, objective = with_features(
            objective, features, student, teacher, split, augmented=augment is not None, device=device, seed=seed
        )
    return fit(
        model, split, objective, recipe, device=device,
        validation=validation, progress=progress, checkpoint=checkpoint, log_dir=log_dir,
    )  # fmt: skip


@checked(features=check_terms)
def match_features(
    student: nn.Module,
    teacher: nn.Module | Float[Tensor, "n classes"],
    split: ImageSplit,
    *,
    features: Sequence[FeatureTerm],
    epochs: int,
    batch_size: int = 32,
    learning_rate: float | int = LEARNING_RATE,
    weight_decay: float | int = WEIGHT_DECAY,
    seed: int = 0,
    augment: Callable[[Tensor], Tensor] | None = None,
    progress: bool | Reporter = True,
    checkpoint: str | Path | None = None,
    log_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    bfloat16: bool | None = None,
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
    device = pick_device(device)
    if not features:
        raise ValueError("features must hold at least one FeatureTerm: there is nothing else to train on")
    _refuse_teacher(teacher, student, augment)
    _check_student(student, split, device)
    bfloat16 = bfloat16_helps(student, device) if bfloat16 is None else bfloat16
    recipe = Recipe(epochs, batch_size, learning_rate, weight_decay, seed, bfloat16, augment)
    model, objective = with_features(
        None, features, student, teacher, split, augmented=augment is not None, device=device, seed=seed
    )
    return fit(
        model, split, objective, recipe, device=device,
        validation=None, progress=progress, checkpoint=checkpoint, log_dir=log_dir,
    )  # fmt: skip


def bfloat16_helps(model: nn.Module, device: torch.device) -> bool:
    """Whether a bfloat16 forward pass is expected to be faster.

    On CUDA where the chip has it. On a CPU only with its own bfloat16 instructions, for networks that are
    large enough to gain and have no grouped convolutions, whose backward pass is several times slower then.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.cpu.get_capabilities().get("avx512_bf16", False):
        return False
    grouped = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules())
    return not grouped and sum(p.numel() for p in model.parameters()) >= 100_000


def _refuse_teacher(teacher: nn.Module | Tensor, student: nn.Module, augment: Callable | None) -> None:
    if student is teacher:
        raise ValueError("student and teacher are the same object; a network cannot teach itself while it changes")
    if augment is not None and isinstance(teacher, Tensor):
        raise ValueError("augment needs the teacher module: cached logits belong to the images as they are")


def _check_student(student: nn.Module, split: ImageSplit, device: torch.device) -> int:
    """The student's number of classes, after it has processed two images of the split."""
    if len(split) < 2:
        raise ValueError(f"split must hold at least 2 images to train on, got {len(split)}")
    classes = predict_logits(student, split.subset(torch.arange(2)), device=device).shape[1]
    highest = int(split.labels.max())
    if highest >= classes:
        raise ValueError(
            f"the model's logits have shape (batch, {classes}), but split has labels up to {highest}: "
            f"it needs at least {highest + 1} classes"
        )
    return classes


def _teacher_source(
    teacher: nn.Module | Tensor,
    split: ImageSplit,
    augment: Callable[[Tensor], Tensor] | None,
    device: torch.device,
) -> CachedTeacher | LiveTeacher:
    if augment is None:
        logits = teacher if isinstance(teacher, Tensor) else cached_logits(teacher, split, device=device)
        if len(logits) != len(split):
            raise ValueError(
                f"teacher logits need one row for each of the {len(split)} images of split, "
                f"got shape {tuple(logits.shape)}"
            )
        return CachedTeacher(logits, device)
    probe = predict_logits(teacher, split.subset(torch.arange(2)), device=device)
    digest = hashlib.sha256(probe.numpy().tobytes()).hexdigest()
    return LiveTeacher(teacher, probe.shape[1], digest, bfloat16_helps(teacher, device))
