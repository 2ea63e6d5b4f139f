"""The teacher and the student of a distillation: built by name, trained, kept in files, read again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdlib import _files, models, teachers, training
from kdlib.data.augment import random_crop_flip
from kdlib.deploy.distillation.pictures import Pictures
from kdlib.deploy.distillation.settings import EPOCHS, Settings
from kdlib.inference import preprocessing_of
from kdlib.training.loop import History
from kdlib.training.teacher_recipe import NOT_MIRRORED

METADATA = "kdlib"


def student(settings: Settings, pictures: Pictures, seed: int) -> nn.Module:
    """An untrained student.

    Raises:
        ValueError: as `kdlib.models.build`.
    """
    return _built(settings.student, pictures, seed)


def teacher(settings: Settings, pictures: Pictures) -> nn.Module:
    """The teacher as it is before this command trains it; one that is finished comes frozen.

    Raises:
        ValueError, OSError: there is no such network, no such weights, or they do not fit.
    """
    classes = len(pictures.dataset.classes)
    if settings.teacher_kind == "shipped":
        return teachers.load(settings.data)
    if settings.teacher_kind == "pretrained":
        return teachers.pretrained(
            settings.teacher_name, classes=classes, weights=settings.teacher_weights, size=settings.teacher_size,
            seed=settings.seed,
        )  # fmt: skip
    network = _built(settings.teacher_name, pictures, settings.seed)
    if settings.teacher_kind == "trained":
        return network
    return read(Path(settings.teacher_weights), network)


def _built(name: str, pictures: Pictures, seed: int) -> nn.Module:
    channels, height, _ = pictures.shape
    return models.build(
        name, num_classes=len(pictures.dataset.classes), in_channels=channels, image_size=height, seed=seed
    )


def teacher_epochs(settings: Settings) -> int:
    """How often the teacher sees the images, as asked for; 0 of a finished one."""
    if settings.teacher_kind not in EPOCHS:
        return 0
    return settings.teacher_epochs or EPOCHS[settings.teacher_kind]


def train_teacher(
    network: nn.Module, settings: Settings, pictures: Pictures, *, epochs: int, **options: Any
) -> History:
    """Train a teacher in place: from labels alone, or what is pretrained by fine-tuning."""
    recipe = {
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "augment": augmentation(settings, pictures),
        "validation": pictures.dataset.validation,
        **options,
    }
    rate = settings.teacher_learning_rate
    if settings.teacher_kind == "trained":
        return training.train(
            network,
            pictures.dataset.train,
            epochs=epochs,
            learning_rate=rate or settings.learning_rate,
            **recipe,
        )
    from kdlib.training.fine_tuning import fine_tune

    rates = {} if rate is None else {"learning_rate": rate}
    return fine_tune(network, pictures.dataset.train, epochs=epochs, **rates, **recipe)


def augmentation(settings: Settings, pictures: Pictures) -> Callable | None:
    """Shifts by up to an eighth of the image, and a mirror where that shows the same thing."""
    if settings.views == 0:
        return None
    mirrored = not settings.no_flip and settings.data not in NOT_MIRRORED
    return random_crop_flip(padding=max(1, min(pictures.shape[1:]) // 8), flip=mirrored)


def write(path: Path, network: nn.Module, **says: Any) -> Path:
    """The weights as a file that runs no code; the same bytes for the same weights.

    Args:
        path: of the file.
        network: its preprocessing, where it carries one, is written too.
        says: what else the file tells of itself.
    """
    from safetensors.torch import save

    own = preprocessing_of(network)
    if own is not None:
        says |= {"mean": own.mean.tolist(), "std": own.std.tolist(), "size": own.size}
    inner = network.network if isinstance(network, teachers.FrozenTeacher) else network
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in inner.state_dict().items()}
    # One entry: the order in which several are written is not always the same.
    return _files.write(path, save(tensors, metadata={METADATA: json.dumps(says, sort_keys=True)}))


def read(path: Path, network: nn.Module) -> nn.Module:
    """`network` with the weights of a file, frozen as a teacher, with the preprocessing that the file names.

    Raises:
        ValueError: the file holds no weights, or those of another network or of other classes.
    """
    from safetensors import SafetensorError, safe_open

    inner = network.network if isinstance(network, teachers.FrozenTeacher) else network
    own = preprocessing_of(network)
    says: dict[str, Any] = {}
    if own is not None:
        says = {"mean": own.mean.tolist(), "std": own.std.tolist(), "size": own.size}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                says |= json.loads((file.metadata() or {}).get(METADATA, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        inner.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, OSError, TypeError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path.name} holds no weights of this network for these classes: {' '.join(str(error).split())[:300]}"
        ) from error
    return teachers.freeze(inner, mean=says.get("mean"), std=says.get("std"), size=says.get("size"))
