"""Inverted images and a generator for the teacher of Fashion-MNIST, as they ship, and how they were made.

    shelf.inverted()                               # a thousand images, a hundred a class
    shelf.generated(1000, seed=0)                  # as many as are asked for
    python -m kdlib.datafree.shelf                 # makes both again, into the folder that ships
"""

import argparse
import functools
import hashlib
import io
import json
import platform
import time
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from kdlib import _files, data, teachers, training
from kdlib._checks import checked
from kdlib.data import ImageDataset
from kdlib.datafree import effective_classes, unlabelled
from kdlib.datafree import generator as generators
from kdlib.datafree.inversion import invert
from kdlib.inference import pick_device

FOLDER = Path(__file__).parents[1] / "assets" / "datafree"
INVERTED, GENERATOR = "inverted", "generator"
BATCHES, BATCH = 5, 200  # of inverted images, of which each batch is compared with the teacher's statistics
INVERSION = {"steps": 1000, "learning_rate": 0.1, "statistics": 300.0, "smooth": 1.0}
LOSS = {"sure": 1.0, "balance": 5.0, "statistics": 5.0}
RECIPE = {"epochs": 1, "batch_size": 100, "learning_rate": 3e-3}
NOISE, SEED = 200_000, 1


def _known(name: str, value: Any) -> str:
    if value not in (INVERTED, GENERATOR):
        raise ValueError(f"{name} must be {INVERTED!r} or {GENERATOR!r}, got {value!r}")
    return str(value)


@checked(name=_known)
def manifest(name: str) -> dict[str, Any]:
    """How the inverted images or the generator were made: settings, seed, device, versions, sha256, command.

    Args:
        name: "inverted" or "generator".

    Raises:
        ValueError: there is no such thing.
    """
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@functools.cache
def inverted() -> UInt8[Tensor, "n 1 28 28"]:
    """The thousand inverted images that ship, a hundred a class: image i is of class i % 10.

    Raises:
        ValueError: the file is not the one that its manifest names.
    """
    content = _files.read_weights(FOLDER / f"{INVERTED}.npz", manifest(INVERTED), "the inverted images")
    with np.load(io.BytesIO(content)) as file:
        return torch.from_numpy(file["images"])


def generator() -> generators.Generator:
    """The generator that ships, in eval mode.

    Raises:
        ValueError: its weights are not those that its manifest names.
    """
    from safetensors.torch import load

    path = FOLDER / f"{GENERATOR}.safetensors"
    weights = _files.read_weights(path, manifest(GENERATOR), "the generator")
    network = generators.Generator(0, 1)  # the file holds its mean and std
    network.load_state_dict(load(weights))  # float16 on disk, float32 in the network
    return network.eval()


def generated(n: int, *, seed: int = 0) -> UInt8[Tensor, "n 1 28 28"]:
    """Images of the generator that ships, from noise that it was not trained with unless `seed` is that of its
    training."""
    return generators.generated(_shipped(), n, seed=seed)


@functools.cache
def _shipped() -> generators.Generator:
    return generator()


def make_inverted(dataset: ImageDataset, *, device: str | torch.device | None = None, out: Path = FOLDER) -> dict:
    """Invert a thousand images and write them and their manifest, which is returned."""
    began, teacher = time.perf_counter(), teachers.load("fashion-mnist")
    _files.writable_folder(out)
    labels, device = torch.arange(BATCH) % 10, pick_device(device)
    images = torch.cat([
        invert(teacher, labels, like=dataset, seed=SEED + batch, device=device, **INVERSION) for batch in range(BATCHES)
    ])  # fmt: skip
    file = io.BytesIO()
    np.savez_compressed(file, images=images.numpy())
    _files.write(out / f"{INVERTED}.npz", content := file.getvalue())
    settings = INVERSION | {"batches": BATCHES, "batch": BATCH}
    description = _description(INVERTED, images, dataset, settings, began, device)
    description |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _files.write(out / f"{INVERTED}.json", (json.dumps(description, indent=2) + "\n").encode())
    return description


def make_generator(dataset: ImageDataset, *, device: str | torch.device | None = None, out: Path = FOLDER) -> dict:
    """Train a generator against the teacher and write its weights and its manifest, which is returned."""
    from kdlib.training.teacher_recipe import round_to_half, write

    began, teacher, device = time.perf_counter(), teachers.load("fashion-mnist"), pick_device(device)
    _files.writable_folder(out)
    torch.manual_seed(SEED)
    network = generators.Generator(float(dataset.mean), float(dataset.std))
    with generators.DataFreeLoss(teacher, **LOSS) as loss:
        training.train(
            generators.AgainstTeacher(network, teacher), generators.latent(NOISE, seed=SEED), task_loss=loss,
            seed=SEED, bfloat16=False, progress=False, device=device, **RECIPE,
        )  # fmt: skip
    round_to_half(network.cpu())
    images = generators.generated(network, 1000, seed=0)
    settings = RECIPE | LOSS | {"noise": NOISE}
    description = _description(GENERATOR, images, dataset, settings, began, device)
    return json.loads(write(out, GENERATOR, network, description).read_text(encoding="utf-8"))


def _description(
    name: str, images: Tensor, dataset: ImageDataset, settings: dict, began: float, device: torch.device
) -> dict[str, Any]:
    """What a manifest says before the file is written: how it was made, and what the teacher sees in it."""
    logits = teachers.cached_logits(teachers.load("fashion-mnist"), unlabelled(images, dataset))
    return {
        "teacher": teachers.manifest("fashion-mnist")["sha256"],
        "settings": settings,
        "seed": SEED,
        "effective_classes": round(effective_classes(logits), 3),
        "mean_largest_probability": round(float(logits.softmax(dim=1).amax(dim=1).mean()), 3),
        "device": "cuda" if device.type == "cuda" else "cpu",
        "seconds": round(time.perf_counter() - began),
        "versions": {"python": platform.python_version(), "torch": metadata.version("torch")},
        "date": date.today().isoformat(),
        "command": f"python -m kdlib.datafree.shelf {name}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is named, both where nothing is."""
    makers = {INVERTED: make_inverted, GENERATOR: make_generator}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*makers, []], metavar="NAME", help=", ".join(makers))
    for name in parser.parse_args(arguments).names or makers:
        print(json.dumps(makers[name](data.load("fashion-mnist")), indent=2))


if __name__ == "__main__":
    main()
