"""What tests/test_devices.py compares: trainings that one process runs by itself, or two together.

python tests/two_processes.py FOLDER runs them in two processes, by Lightning Fabric, and writes what each process
found to FOLDER/0.pt and FOLDER/1.pt.
"""

import os
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from kdlib import data, training
from kdlib.features import FeatureTerm

IMAGES = data.load("digits").train


class Small(nn.Module):
    """A network without batch norm and dropout, of two stages, so that hints for the first leave the second alone."""

    def __init__(self, seed: int, width: int = 6, norm: bool = False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(1, width, 3, padding=1)
            self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
            self.head = nn.Linear(width * 16, 10)

    def forward(self, images):
        return self.head(F.max_pool2d(self.norm(self.first(images)).relu(), 2).flatten(1))


class Stopped:
    """Cross-entropy that raises at one of its calls; the first call is made before training."""

    def __init__(self, at: int | None, error: BaseException):
        self.at, self.error, self.calls = at, error, -1

    def __call__(self, logits, labels):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return F.cross_entropy(logits, labels)


def found(model, history) -> dict:
    """What is compared of a training: the records but for the seconds, weights and last gradients."""
    return {
        "records": [
            {name: value for name, value in record.items() if name != "seconds"} for record in history.records
        ],
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "gradients": {
            name: None if weight.grad is None else weight.grad.clone()
            for name, weight in model.named_parameters()
        },
    }


def train_seven(fabric=None, **arguments) -> dict:
    """Seven images in batches of five: batches of 4 and 3, of which two processes get 2 and 2, and 2 and 1."""
    model = Small(1)
    history = training.train(
        model, IMAGES.take(7), epochs=3, batch_size=5, progress=False, fabric=fabric, **arguments
    )
    return found(model, history)


def distil(fabric=None, **arguments) -> dict:
    """From the logits of a teacher, scored by a validation split after each epoch."""
    model = Small(1)
    arguments = {
        "epochs": 2,
        "batch_size": 9,
        "progress": False,
        "validation": IMAGES.subset(slice(100, 130)),
    } | (arguments)
    history = training.distill(model, Small(2, width=8).eval(), IMAGES.take(43), fabric=fabric, **arguments)
    return found(model, history)


def match(fabric=None) -> dict:
    """One hint, carried to the teacher's width by a regressor: the head gets no gradient."""
    model = Small(1)
    term = FeatureTerm(F.mse_loss, "first", "first", regressor=True)
    history = training.match_features(
        model, Small(2, width=8).eval(), IMAGES.take(11), features=[term], epochs=2, batch_size=5, progress=False,
        weight_decay=0.1, fabric=fabric,
    )  # fmt: skip
    return found(model, history)


ALIKE = {
    "train": train_seven,
    "distill": distil,
    "match_features": match,
    "in parts, clipped": lambda fabric=None: distil(fabric, accumulate=2, clip_norm=0.3),
}


def resumed(fabric, path: Path) -> dict:
    """Stopped in the second of three epochs, and continued."""
    for at in (4, None):
        model = Small(1)
        history = training.train(
            model, IMAGES.take(7), epochs=3, batch_size=5, progress=False, fabric=fabric, checkpoint=path,
            task_loss=Stopped(at, KeyboardInterrupt()),
        )  # fmt: skip
    return found(model, history)


def failing(fabric) -> str:
    """The second process fails in its third step."""
    loss = Stopped(3 if fabric.global_rank == 1 else None, ValueError("the second has had enough"))
    return message(lambda: train_seven(fabric, task_loss=loss))


def message(function) -> str:
    try:
        function()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def with_norm(fabric) -> dict:
    """Batch norm, and other initial weights in each process."""
    model = Small(1 + fabric.global_rank, norm=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        history = training.train(
            model, IMAGES.take(20), epochs=2, batch_size=8, progress=False, fabric=fabric
        )
    warned = [str(warning.message) for warning in said if "batch norm" in str(warning.message)]
    return found(model, history) | {"warned": warned}


def drawn(fabric) -> dict:
    """What augmentation draws, and what is reported."""
    draws, reports = [], []

    def augment(image):
        draws.append(torch.rand(()).item())
        return image

    training.train(
        Small(1),
        IMAGES.take(8),
        epochs=1,
        batch_size=8,
        augment=augment,
        progress=reports.append,
        fabric=fabric,
    )
    return {"draws": draws[-4:], "reports": len(reports)}


def main(folder: Path) -> None:
    imported = [name for name in sys.modules if name.partition(".")[0] in ("lightning", "lightning_fabric")]
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    unlaunched = message(lambda: train_seven(fabric))
    fabric.launch()
    torch.set_num_threads(1)
    rank = fabric.global_rank
    results = {name: run(fabric) for name, run in ALIKE.items()}
    results["resumed"] = resumed(fabric, folder / "training.pt")
    results["failing"] = failing(fabric)
    results["after the failure"] = train_seven(fabric)
    results["another training"] = message(
        lambda: train_seven(fabric, seed=5, checkpoint=folder / "training.pt")
    )
    results["too many parts"] = message(lambda: train_seven(fabric, accumulate=2))
    results |= {"unlaunched": unlaunched, "imported by kdlib": imported}
    results["norm"] = with_norm(fabric)
    results["drawn"] = drawn(fabric)
    torch.save(results, folder / f"{rank}.pt")
    fabric.barrier()


if __name__ == "__main__":
    main(Path(os.fspath(sys.argv[1])))
