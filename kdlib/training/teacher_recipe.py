"""`kdlib train-teacher`: the recipe behind the teachers that ship, for any data set."""

import hashlib
import json
import platform
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdlib import _files, data, metrics, models, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.training.progress import Reporter

ARCHITECTURE = "resnet8x2"
RECIPE = {"epochs": 30, "batch_size": 128, "learning_rate": 4e-3, "weight_decay": 0.05}
# A mirrored digit is another digit, or none.
NOT_MIRRORED = ("mnist", "digits")


def train_teacher(
    dataset: str,
    *,
    root: str | Path | None = None,
    out: str | Path | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: bool | Reporter = True,
) -> Path:
    """Train a teacher on all training images of `dataset` and write its weights and manifest.

    The accuracy in the manifest is that of the rounded weights, as written, on the test split, which the
    training does not look at. A stopped training continues where it was when it is called again.

    Args:
        dataset: a name of `kdlib.data.load`.
        root: where the images are, as in `kdlib.data.load`.
        out: folder for `DATASET.safetensors` (weights in float16) and `DATASET.json` (the manifest); by default
            the user's data folder, where `kdlib.teachers.load` finds it.
        epochs: passes over the training images; the recipe's where None.
        seed: fixes initial weights, order and augmentation.

    Returns:
        The path of the manifest.

    Raises:
        ValueError: as `kdlib.data.load` and `kdlib.training.train`; several labels an image; no `out` and no home
            folder.
        OSError: the folder cannot be written, before anything is trained.
    """
    images = data.load(dataset, root=root, full=True)
    _refuse_several_labels(dataset, images)
    everything = _all_training_images(images)
    folder = _folder(out)
    architecture = _architecture(images)
    recipe = RECIPE | ({"epochs": epochs} if epochs is not None else {})
    network = models.build(**architecture, seed=seed)
    checkpoint = folder / f"{teachers.file_name(dataset)}.checkpoint"
    mirror = dataset not in NOT_MIRRORED
    history = training.train(
        network, everything, **recipe, seed=seed, progress=progress, checkpoint=checkpoint,
        augment=random_crop_flip(padding=2, flip=mirror),
    )  # fmt: skip
    if history.interrupted:
        raise KeyboardInterrupt(f"stopped; call again to continue from {checkpoint.name}")
    round_to_half(network)
    manifest = {
        "dataset": teachers.recorded_name(dataset),
        "classes": list(images.classes),
        "mean": images.mean.tolist(),
        "std": images.std.tolist(),
        "architecture": architecture,
        "training_images": len(everything),
        "recipe": recipe | {"optimizer": "AdamW, one-cycle", "augmentation": _augmentation(mirror)},
        "seed": seed,
        "test_accuracy": metrics.accuracy(network, images.test),
        "test_images": len(images.test),
        "seconds": round(sum(record["seconds"] for record in history.records)),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("torch", "torchvision", "safetensors")},
        "date": date.today().isoformat(),
        "command": _command(dataset, epochs, seed),
    }
    path = write(folder, teachers.file_name(dataset), network, manifest)
    checkpoint.unlink()
    return path


def _refuse_several_labels(dataset: str, images: ImageDataset) -> None:
    """The recipe's cross-entropy and the manifest's accuracy are of one class an image."""
    if not images.train.has_classes:
        raise ValueError(
            f"dataset={dataset!r} has a number for each image and class, and this recipe is for one class an image: "
            "train by kdlib.training.train with task_loss=torch.nn.functional.binary_cross_entropy_with_logits"
        )


def _folder(out: str | Path | None) -> Path:
    folder = Path(out) if out is not None else teachers.user_folder()
    if folder is None:
        raise ValueError("out must name a folder for the teacher: this user has no home folder to keep it in")
    return _files.writable_folder(folder)


def _all_training_images(images: ImageDataset) -> ImageSplit:
    """Training and validation images together: what is reported is the test split."""
    parts = (images.train, images.validation)
    return ImageSplit(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.indices for part in parts]),
        mean=images.mean,
        std=images.std,
    )


def _architecture(images: ImageDataset) -> dict[str, Any]:
    _, channels, height, _ = images.train.images.shape
    return {
        "name": ARCHITECTURE,
        "num_classes": len(images.classes),
        "in_channels": channels,
        "image_size": height,
    }


def _augmentation(mirror: bool) -> str:
    return "shift by up to 2 pixels" + (", mirror" if mirror else "")


def round_to_half(network: nn.Module) -> None:
    """Round the weights to float16 in place: half the bytes on disk, and what is measured is what is written."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())


def _command(dataset: str, epochs: int | None, seed: int) -> str:
    command = f"kdlib train-teacher {dataset}"
    if epochs is not None:
        command += f" --epochs {epochs}"
    return command + (f" --seed {seed}" if seed else "")


def write(folder: Path, stem: str, network: nn.Module, manifest: dict[str, Any]) -> Path:
    """Weights first, manifest last: without a manifest there is no teacher. Size and sha256 are added to it."""
    from safetensors.torch import save

    weights = save({name: _half(tensor).contiguous() for name, tensor in network.state_dict().items()})
    manifest |= {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    text = json.dumps(manifest, indent=2) + "\n"
    _files.write(folder / f"{stem}.safetensors", weights)
    path = folder / f"{stem}.json"
    _files.write(path, text.encode())
    return path


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor
