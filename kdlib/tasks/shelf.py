"""The teachers of the tasks, as they ship, and the recipe that each was trained by.

    shelf.load("collages")                    # frozen, in eval mode
    python -m kdlib.tasks.shelf collages      # trains it again, into the folder that ships
"""

import argparse
import functools
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kdlib import _files, data, metrics, teachers
from kdlib._checks import checked
from kdlib.data import ImageDataset, ImageSplit
from kdlib.models import CifarResNet, TinyCNN
from kdlib.tasks.boxes import box_average_precision
from kdlib.tasks.collages import collages
from kdlib.tasks.detection import GridDetector, canvases, detection_loss
from kdlib.tasks.regression import mean_error, turned, with_wrong_labels
from kdlib.tasks.video import DIRECTIONS, FRAMES, clips

FOLDER = Path(__file__).parents[1] / "assets" / "teachers" / "tasks"
IMAGES, TEST_IMAGES, SEED = 18_000, 4000, 1
RECIPE = {"epochs": 20, "batch_size": 64, "learning_rate": 0.01}
WRONG = 0.4


@dataclass(frozen=True)
class Task:
    """What a teacher is, what it learns from, and what it is judged by.

    make: (items, n, seed) -> images with labels; `taught` makes those to learn from, where they are others.
    """

    network: Callable[[], nn.Module]
    make: Callable[..., ImageSplit]
    task_loss: Callable
    measure: Callable[[nn.Module, ImageSplit], float]
    measured: str
    taught: Callable[..., ImageSplit] | None = None


def _wrongly_turned(items: ImageSplit, n: int, *, seed: int) -> ImageSplit:
    return with_wrong_labels(turned(items, n, seed=seed), WRONG, seed=seed)


def _labelled(items: ImageSplit, n: int, *, seed: int) -> ImageSplit:
    """The items themselves, at most n of them."""
    return items.take(min(n, len(items)), seed=seed)


def _third(number: int) -> Callable[..., ImageSplit]:
    """Every third of the items, from one of the first three on: no two teachers learn from the same image."""
    return lambda items, n, *, seed: items.subset(slice(number, None, 3))


_regressor = functools.partial(TinyCNN, 1, 1, (32, 64, 128))
_classifier = functools.partial(CifarResNet, 8, 1, 10, 1)
TASKS = {
    "collages": Task(
        functools.partial(TinyCNN, 10, 1, (32, 64, 128, 128)), collages, F.binary_cross_entropy_with_logits,
        metrics.mean_average_precision, "mean average precision",
    ),
    "canvases": Task(
        functools.partial(GridDetector, (32, 64, 96, 96)), canvases, detection_loss,
        box_average_precision, "average precision at an overlap of a half",
    ),
    "clips": Task(
        functools.partial(TinyCNN, 10 * len(DIRECTIONS), FRAMES, (32, 64, 128)), clips, F.cross_entropy,
        metrics.accuracy, "accuracy",
    ),
    "turned": Task(_regressor, turned, F.mse_loss, mean_error, "mean error in degrees"),
    "turned, wrong labels": Task(
        _regressor, turned, F.mse_loss, mean_error, "mean error in degrees", taught=_wrongly_turned
    ),
} | {
    f"third {number + 1}": Task(
        _classifier, _labelled, F.cross_entropy, metrics.accuracy, "accuracy", taught=_third(number)
    )
    for number in range(3)
}  # fmt: skip


def _known(name: str, value: Any) -> str:
    """A rule for `kdlib._checks.checked`: the name of a task."""
    if not isinstance(value, str) or value not in TASKS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, TASKS))}, got {value!r}")
    return value


@checked(name=_known)
def manifest(name: str) -> dict[str, Any]:
    """How a teacher was made: recipe, seed, images, versions, how good it is, sha256, command.

    Raises:
        ValueError: there is no such teacher.
    """
    return json.loads((FOLDER / f"{_stem(name)}.json").read_text(encoding="utf-8"))


@checked(name=_known)
def load(name: str) -> teachers.FrozenTeacher:
    """The teacher of a task, on the CPU, in eval mode, frozen.

    Args:
        name: "collages", "canvases", "clips", "turned", or "turned, wrong labels", whose teacher learned from labels of
            which four in ten were replaced by chance; "third 1", "third 2" and "third 3", each of which learned to name
            items from other 3,000 images.

    Returns:
        The network, which carries the mean and std that its images were normalised by.

    Raises:
        ValueError: there is no such teacher, or its weights are not those that its manifest names.
    """
    from safetensors.torch import load as load_tensors

    task, description = TASKS[name], manifest(name)
    weights = _files.read_weights(FOLDER / f"{_stem(name)}.safetensors", description, f"the teacher {name!r}")
    network = task.network()
    network.load_state_dict(load_tensors(weights))  # float16 on disk, float32 in the network
    return teachers.freeze(network, mean=description["mean"], std=description["std"])


@checked(name=_known)
def train(name: str, dataset: ImageDataset, *, images: int = IMAGES, out: Path = FOLDER, **recipe: Any) -> dict:
    """Train a teacher on the training images, and write its weights and its manifest, which is returned.

    What the manifest says of its quality is measured on test images, with the rounded weights, as written.
    """
    from kdlib import training
    from kdlib.training.teacher_recipe import round_to_half, write

    task, recipe = TASKS[name], RECIPE | recipe
    split = (task.taught or task.make)(dataset.train, images, seed=SEED)
    torch.manual_seed(SEED)
    network = task.network()
    history = training.train(network, split, task_loss=task.task_loss, seed=SEED, bfloat16=False, **recipe)
    round_to_half(network)
    frozen = teachers.freeze(network, mean=split.mean.tolist(), std=split.std.tolist())
    description = {
        "task": name,
        "mean": split.mean.tolist(),
        "std": split.std.tolist(),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "training_images": len(split),
        "recipe": recipe,
        "seed": SEED,
        task.measured: task.measure(frozen, task.make(dataset.test, min(TEST_IMAGES, images), seed=SEED)),
        "seconds": round(sum(record["seconds"] for record in history.records)),
        "versions": {"python": platform.python_version(), "torch": metadata.version("torch")},
        "date": date.today().isoformat(),
        "command": f"python -m kdlib.tasks.shelf {name!r}",
    }
    return json.loads(write(out, _stem(name), network, description).read_text(encoding="utf-8"))


def _stem(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the teachers that are named, all where none is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*TASKS, []], metavar="NAME", help=", ".join(TASKS))
    for name in parser.parse_args(arguments).names or TASKS:
        print(json.dumps(train(name, data.load("fashion-mnist")), indent=2))


if __name__ == "__main__":
    main()
