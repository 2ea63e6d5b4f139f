"""The models that lesson 05 chooses from, ready to run: each an ONNX file with a manifest that says how it was made.

They learned from all of Fashion-MNIST but a validation split, which takes minutes to an hour each; so they ship.
`kdlib build-model NAME ...` makes them again.
"""

import json
import math
import platform
import time
from datetime import date
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor

from kdlib import _checks, _files, data
from kdlib.data import ImageSplit
from kdlib.deploy import arguments, compress, footprint
from kdlib.deploy.export import export_onnx
from kdlib.deploy.shelf_recipes import DATASET, TRAINED

FOLDER = Path(__file__).parents[1] / "assets" / "models"
CALIBRATION_IMAGES = 1000
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


def passes(name: str) -> int:
    """How often the training of a model saw each of its images; 0 for the teacher, which was trained before.

    Args:
        name: one of `names()`; a quantised model was trained as its original.

    Raises:
        ValueError: an unknown name.
    """
    _check_name(name)
    recipe = manifest(QUANTISED.get(name, name))["recipe"]
    return recipe["epochs"] * recipe["views"] if recipe else 0


def effort(name: str) -> int:
    """The multiply-adds of a model's training, counted: 3 M_student N P + M_teacher N V.

    For an image forwards once and backwards about twice as much, of N images in P passes; and the teacher asked once
    for each of V views, where alpha is above 0. Its own training is not in it, nor the trials of a search.

    Args:
        name: as in `passes`.

    Raises:
        ValueError: an unknown name.
    """
    _check_name(name)
    facts = manifest(QUANTISED.get(name, name))
    recipe = facts["recipe"]
    if not recipe:
        return 0
    asked = manifest("teacher")["multiply_adds"] * recipe["images"] * recipe["views"] if recipe["alpha"] > 0 else 0
    return footprint.training_multiply_adds(facts["multiply_adds"], recipe["images"], passes(name)) + asked


def table() -> pandas.DataFrame:
    """A row for each model: accuracy on the test images, parameters, multiply_adds, bytes, passes, effort.

    What it takes on this machine is measured, and not in the table (`kdlib.deploy.benchmark.latency`).
    """
    rows = {
        name: {
            "accuracy": right_answers(name).double().mean().item(),
            **{key: manifest(name)[key] for key in ("parameters", "multiply_adds", "bytes")},
            "passes": passes(name),
            "effort": effort(name),
        }
        for name in names()
    }
    return pandas.DataFrame.from_dict(rows, orient="index")


def alike() -> pandas.DataFrame:
    """Of each two models, whether the test images do not tell them apart: their `paired_difference` contains 0."""
    right = {name: right_answers(name) for name in names()}

    def not_apart(a: str, b: str) -> bool:
        _, low, high = paired_difference(right[a], right[b])
        return low <= 0 <= high

    return pandas.DataFrame({a: {b: not_apart(a, b) for b in right} for a in right})


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
