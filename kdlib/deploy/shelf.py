"""The models that lesson 05 chooses from, ready to run: each an ONNX file with a manifest that says how it was made.

They learned from all of Fashion-MNIST but a validation split, which takes minutes to an hour each; so they ship.
`kdlib build-model NAME ...` makes them again.
"""

import json
import math
import platform
import time
from collections.abc import Callable
from datetime import date
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import _checks, _files, data, models, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.deploy import arguments, compress, footprint
from kdlib.deploy.export import export_onnx

FOLDER = Path(__file__).parents[1] / "assets" / "models"
DATASET = "fashion-mnist"
# The views of an image: as it is or mirrored, and moved by one pixel in no direction or in one of four.
MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
# Epochs over ten views of every image: all but the two students that are trained for longer get ten passes.
FULL_TRAINING = {"epochs": 8, "batch_size": 128, "learning_rate": 6e-3}
TEN_PASSES = {**FULL_TRAINING, "epochs": 1}
FINE_TUNING = {**TEN_PASSES, "learning_rate": 2e-3}
CHANNELS_TAKEN_OUT = 0.75  # leaves the multiply-adds of the pocket-cnn
TEMPERATURE, ALPHA = 2.0, 0.9
CALIBRATION_IMAGES = 1000

Trained = tuple[nn.Module, dict[str, Any]]


def views(split: ImageSplit) -> ImageSplit:
    """Ten views of every image, one block of all images for each view.

    A teacher is asked once for each view, and its answers are kept: augmentation without asking in every step.

    Args:
        split: n images.

    Returns:
        10 n images with their labels and the same normalisation.

    Raises:
        TypeError: `split` is none.
    """
    if not isinstance(split, ImageSplit):
        raise TypeError(f"split must be an ImageSplit, got {type(split).__name__}")
    blocks = []
    for images in (split.images, split.images.flip(-1)):
        padded = F.pad(images, (1, 1, 1, 1))
        height, width = images.shape[-2:]
        blocks += [padded[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in MOVES]
    return ImageSplit(torch.cat(blocks), split.labels.repeat(len(blocks)), None, split.mean, split.std)


def _teacher(images: ImageDataset) -> Trained:
    return teachers.load(DATASET), {}


def _labels_only(images: ImageDataset) -> Trained:
    return _student(images, alpha=0.0)


def _distilled(images: ImageDataset) -> Trained:
    return _student(images, alpha=ALPHA)


def _distilled_briefly(images: ImageDataset) -> Trained:
    return _student(images, ALPHA, TEN_PASSES)


def _student(images: ImageDataset, alpha: float, schedule: dict = FULL_TRAINING) -> Trained:
    student, recipe = _taught(images, models.build("pocket-cnn", seed=0), alpha, schedule)
    return student, {"network": "pocket-cnn", **recipe}


def _taught(images: ImageDataset, network: nn.Module, alpha: float, schedule: dict) -> Trained:
    pool = views(images.train)
    logits = teachers.cached_logits(teachers.load(DATASET), pool)
    recipe = {"temperature": TEMPERATURE, "alpha": alpha, **schedule, "seed": 0}
    training.distill(network, logits, pool, **recipe)
    return network, {"images": len(images.train), "views": 2 * len(MOVES), **recipe}


def _sparse(images: ImageDataset) -> Trained:
    network, recipe = _taught(images, compress.sparsify(_network(), 0.8), ALPHA, FINE_TUNING)
    return compress.finish(network), {"zeros": 0.8, **recipe}


def _pruned(images: ImageDataset) -> Trained:
    network, recipe = _taught(images, _narrowed(), ALPHA, FINE_TUNING)
    return network, {"channels taken out": CHANNELS_TAKEN_OUT, **recipe}


def _low_rank(images: ImageDataset) -> Trained:
    network, recipe = _taught(images, compress.factorize(_network(), 0.8), ALPHA, FINE_TUNING)
    return network, {"energy kept": 0.8, **recipe}


def _carved(images: ImageDataset) -> Trained:
    network, recipe = _taught(images, compress.carve(_network(), _narrowed(), (1, 28, 28)), ALPHA, FINE_TUNING)
    return network, {"widths": "those of the pruned network", **recipe}


def _narrowed() -> nn.Module:
    return compress.prune_channels(_network(), CHANNELS_TAKEN_OUT, (1, 28, 28))


def _searched(images: ImageDataset) -> Trained:
    """Twelve plans as fast as the pocket-cnn, tried on few images; the best one is trained on all of them."""
    clock = compress.onnx_latency((1, 28, 28))
    allowed = {"multiply_adds": 2_500_000, "latency_budget": 1.2 * clock(models.build("pocket-cnn", seed=0))}
    few, judges = images.train.take(3000, seed=0), images.validation.take(2000, seed=0)
    trial = {"students": 12, "epochs": 4, "temperature": TEMPERATURE, "alpha": ALPHA, "seed": 0}
    found = compress.search_student(
        teachers.cached_logits(teachers.load(DATASET), few), few, judges, latency=clock, **allowed, **trial
    )
    torch.manual_seed(0)
    network, recipe = _taught(images, models.PocketCNN(plan=found.plan), ALPHA, TEN_PASSES)
    return network, {"plan": found.plan, "plans looked at": len(found.trials), "trial": trial, **recipe}


def _network() -> nn.Module:
    return teachers.load(DATASET).network


TRAINED: dict[str, Callable[[ImageDataset], Trained]] = {
    "teacher": _teacher,
    "labels-only": _labels_only,
    "distilled": _distilled,
    "distilled-briefly": _distilled_briefly,
    "sparse": _sparse,
    "pruned": _pruned,
    "low-rank": _low_rank,
    "carved": _carved,
    "searched": _searched,
}
QUANTISED = {"teacher-int8": "teacher", "labels-only-int8": "labels-only", "distilled-int8": "distilled"}


def names() -> list[str]:
    """The models on the shelf, those in 8 bits behind those they were made from."""
    return [*TRAINED, *QUANTISED]


def build(name: str, *, root: str | Path | None = None, folder: str | Path = FOLDER) -> Path:
    """Make a model again: train it (minutes to an hour), export it, measure it; or quantise an older file.

    Args:
        name: one of `names()`.
        root: where the 60,000 images of Fashion-MNIST are, as in `kdlib.data.load`.
        folder: for NAME.onnx and NAME.json, its manifest.

    Returns:
        The path of the manifest.

    Raises:
        ValueError: an unknown name, or as `kdlib.data.load`.
        FileNotFoundError: a quantised model whose original is not in `folder`.
    """
    _check_name(name)
    folder = arguments.path("folder", folder)
    arguments.file_to_write("folder", folder / f"{name}.onnx")  # before minutes are spent
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.onnx"
    images = data.load(DATASET, root=root, full=True)
    started = time.perf_counter()
    if name in QUANTISED:
        original = folder / f"{QUANTISED[name]}.onnx"
        compress.quantize(original, file, images.train.take(CALIBRATION_IMAGES, seed=0), name=name)
        source = manifest(QUANTISED[name], folder=folder)
        size = {key: source[key] for key in ("parameters", "multiply_adds")}
        started -= source["seconds"]  # it had to be trained first
        recipe = {"quantised from": QUANTISED[name], "calibration images": CALIBRATION_IMAGES}
    else:
        network, recipe = TRAINED[name](images)
        size = {
            "parameters": footprint.parameters(network),
            "multiply_adds": footprint.multiply_adds(network, (1, 28, 28)),
        }
        export_onnx(
            network,
            file,
            name=name,
            image_shape=(1, 28, 28),
            classes=images.classes,
            mean=images.mean,
            std=images.std,
        )
    seconds = time.perf_counter() - started
    return _describe(name, file, images.test, size | {"seconds": round(seconds), "recipe": recipe})


def path(name: str) -> Path:
    """The ONNX file of a model on the shelf.

    Args:
        name: one of `names()`.

    Raises:
        ValueError: an unknown name.
    """
    _check_name(name)
    return FOLDER / f"{name}.onnx"


def manifest(name: str, *, folder: str | Path = FOLDER) -> dict[str, Any]:
    """How a model was made and measured.

    Args:
        name: one of `names()`.
        folder: where NAME.json is.

    Returns:
        Its recipe, seconds, versions, command, bytes and sha256, and `wrong`, the positions of the test images (of
        10,000, in their order) that it does not recognise.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: it has not been built in this folder.
    """
    _check_name(name)
    file = arguments.file_to_read("folder", arguments.path("folder", folder) / f"{name}.json")
    return json.loads(file.read_text(encoding="utf-8"))


def right_answers(name: str) -> Tensor:
    """Of each of the 10,000 test images whether the model recognised it when it was made: bool (10000,).

    Args:
        name: one of `names()`.

    Raises:
        ValueError: an unknown name.
    """
    facts = manifest(name)
    right = torch.ones(facts["test_images"], dtype=torch.bool)
    right[facts["wrong"]] = False
    return right


def _answers(name: str, value: Any) -> Tensor:
    """A rule for arguments: for each of several images whether it was recognised."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor of True and False, got {type(value).__name__}")
    if value.dtype != torch.bool or value.ndim != 1 or len(value) == 0 or value.is_meta:
        raise ValueError(
            f"{name} must be bool (n,), n at least 1, got {value.dtype}, {tuple(value.shape)} on {value.device}"
        )
    return value.cpu()


@_checks.checked(right=_answers, confidence=_checks.open_fraction)
def accuracy_interval(right: Tensor, confidence: float | int = 0.95) -> tuple[float, float, float]:
    """Accuracy on n test images and its interval over such images, Wilson 1927.

    It covers the choice of test images, not that of seeds: each model was trained once.

    Args:
        right: bool (n,), which of them were recognised.
        confidence: strictly between 0 and 1.

    Returns:
        (share, low, high)

    Raises:
        TypeError, ValueError: other answers or confidences.
    """
    from scipy.stats import binomtest

    result = binomtest(int(right.sum()), len(right)).proportion_ci(confidence, method="wilson")
    return right.double().mean().item(), float(result.low), float(result.high)


@_checks.checked(right=_answers, other=_answers, confidence=_checks.open_fraction)
def paired_difference(
    right: Tensor, other: Tensor, confidence: float | int = 0.95
) -> tuple[float, float, float]:
    """Accuracy of one model minus that of another on the same n images, with its interval over such images.

    mean d +- z sqrt(var(d) / n) with d in {-1, 0, 1} for each image.

    Args:
        right, other: bool (n,), which of them each recognised; n at least 2.
        confidence: strictly between 0 and 1.

    Returns:
        (mean, low, high)

    Raises:
        TypeError, ValueError: other answers or confidences; different or too few images.
    """
    if right.shape != other.shape or len(right) < 2:
        raise ValueError(
            f"right and other must be of the same images, at least 2, got {len(right)} and {len(other)}"
        )
    from scipy.stats import norm

    difference = right.double() - other.double()
    half = float(norm.ppf((1 + confidence) / 2)) * difference.std().item() / math.sqrt(len(difference))
    mean = difference.mean().item()
    return mean, mean - half, mean + half


def _describe(name: str, file: Path, test: ImageSplit, facts: dict[str, Any]) -> Path:
    content = file.read_bytes()
    answers = compress.onnx_logits(file, test).argmax(dim=1)
    wrong = (answers != test.labels).nonzero().flatten().tolist()
    facts = {"name": name, **facts} | {
        "test_accuracy": 1 - len(wrong) / len(test),
        "test_images": len(test),
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        "date": date.today().isoformat(),
        "command": f"kdlib build-model {name}",
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in ("torch", "onnx", "onnxruntime")},
        "wrong": wrong,
    }
    target = file.with_suffix(".json")
    return _files.write(target, (json.dumps(facts) + "\n").encode())


def _check_name(name: str) -> None:
    if name not in names():
        raise ValueError(f"unknown model {name!r}; the shelf has {', '.join(names())}")
