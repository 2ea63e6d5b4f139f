"""From the arguments of a training to its parts: the recipe, the batches, the teacher, the features in view."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from kdlib.data import ImageSplit
from kdlib.features import FeatureTerm
from kdlib.inference import on_device, preprocessing_of
from kdlib.training import checks
from kdlib.training.augmentation import checked_augment
from kdlib.training.batches import Batches
from kdlib.training.devices import Devices, refuse_small_parts
from kdlib.training.feature_objective import FeatureObjective, WatchedStudent, given_features, gradient_layers
from kdlib.training.objectives import Objective
from kdlib.training.precision import bfloat16_helps
from kdlib.training.step import Recipe
from kdlib.training.teacher import Teacher


def prepare(
    student: nn.Module,
    split: ImageSplit,
    devices: Devices,
    *,
    bfloat16: bool | None,
    augment: Any,
    **recipe: Any,
) -> tuple[Recipe, Batches, Tensor]:
    """The recipe, its batches, and the student's logits of two images, after everything has been checked."""
    device = devices.device
    logits = checks.check_student(student, split, device)
    made = Recipe(
        bfloat16=bfloat16_helps(student, device) if bfloat16 is None else bfloat16,
        augment=None if augment is None else checked_augment(augment, split),
        **recipe,
    )
    batches = made.batches(split, device, preprocessing=preprocessing_of(student))
    refuse_small_parts(batches.images_per_epoch, batches.steps, made.accumulate, devices.world)
    batches.part = devices.rank, devices.world
    return made, batches, logits


def placed(teacher: nn.Module | Tensor, device: torch.device) -> AbstractContextManager:
    """The teacher on the device for the time of a training; logits are moved where they are used."""
    return nullcontext() if isinstance(teacher, Tensor) else on_device(teacher, device)


def answering(teacher: nn.Module | Tensor, batches: Batches, features: Sequence[FeatureTerm]) -> Teacher:
    """The teacher as the training asks it."""
    return Teacher(
        teacher, batches, layers=[layer for term in features for layer in term.teacher_layers],
        gradient_layers=gradient_layers(features), given=given_features(features),
    )  # fmt: skip


def with_features(
    base: Objective | None,
    terms: Sequence[FeatureTerm],
    student: nn.Module,
    teacher: Teacher,
    batches: Batches,
    seed: int,
) -> tuple[WatchedStudent, FeatureObjective]:
    """What to train, and on what: the student with its features in view, and `base` plus the feature losses."""
    watched = WatchedStudent(student, terms).to(batches.device)
    with torch.random.fork_rng(devices=[]):
        probe = batches.batch(torch.arange(2) * batches.views, 0.0)
    return watched, FeatureObjective(base, terms, watched, teacher, probe, seed)
