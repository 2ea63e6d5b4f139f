"""Lesson 07, capacity: students of four sizes under teachers of three, an assistant in between, and batch norms.

Every seed has teachers of its own, taught on 9,000 images. Two cores take about twenty minutes.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import pandas
import torch
from torch import Tensor, nn

from kdlib import metrics, models, training
from kdlib.deploy import footprint
from kdlib.experiments.lesson01 import fashion
from kdlib.inference import predict_logits
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.sweeps import mapping
from kdlib.sweeps.backends import Group

SHAPE, BATCH_SIZE, RATE = (1, 28, 28), 32, 0.03
MANY, TEACHER_PASSES = 9000, 6
PASSES = {1000: 20, 9000: 3}  # of a student, over so many images
TEMPERATURE = {1000: 4.0, 9000: 2.0}
STUDENTS, TEACHERS, ASSISTANT = (4, 8, 16, 36), (16, 36, 72), 16
ASSISTED = (4, 8)
LONGER = "labels, four times as long"
RATES = (0.007, 0.02, 0.06, 0.18, 0.54)
TUNING_SEEDS, SEEDS, AGAIN = range(100, 103), range(10), range(20, 30)
NORMS = ("own", "the teacher's, frozen", "own, frozen", "the teacher's to begin with")


def network(width: int, seed: int) -> nn.Module:
    """Three strided convolutions of width, 2 * width and 4 * width channels; 16 is the tiny-cnn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.TinyCNN(widths=(width, 2 * width, 4 * width))


def size(width: int) -> dict[str, int]:
    built = network(width, 0)
    return {"parameters": footprint.parameters(built), "multiply_adds": footprint.multiply_adds(built, SHAPE)}


def _common(seed: int) -> dict:
    return {"batch_size": BATCH_SIZE, "learning_rate": RATE, "seed": seed, "progress": False}


@functools.lru_cache(maxsize=4)
def schooled(width: int, seed: int, images: int) -> nn.Module:
    """A teacher that learned from the labels of the first `images` training images."""
    split = fashion()[0].train.subset(torch.arange(images))
    teacher = network(width, 1000 + seed)
    training.train(teacher, split, epochs=TEACHER_PASSES, **_common(seed))
    return teacher


@functools.lru_cache(maxsize=4)
def taught(width: int, seed: int, images: int) -> Tensor:
    """Its logits on these images."""
    return predict_logits(schooled(width, seed, images), fashion()[0].train.subset(torch.arange(images)))


@functools.lru_cache(maxsize=2)
def assistant(seed: int, images: int) -> Tensor:
    """Those of an assistant that learned from the largest teacher."""
    split = fashion()[0].train.subset(torch.arange(images))
    middle = network(ASSISTANT, 2000 + seed)
    training.distill(
        middle,
        taught(TEACHERS[-1], seed, images),
        split,
        epochs=TEACHER_PASSES,
        temperature=2.0,
        alpha=0.9,
        **_common(seed),
    )
    return predict_logits(middle, split)


def ensemble(seed: int, images: int) -> Tensor:
    """The logarithm of the mean probability of the largest teacher and one of the assistant's size, of labels."""
    both = [taught(width, seed, images).softmax(dim=1) for width in (TEACHERS[-1], ASSISTANT)]
    return torch.stack(both).mean(dim=0).clamp(min=1e-30).log()


def answers(source: str, seed: int, images: int) -> Tensor:
    """The teacher's logits by the name of a source: "assistant", "ensemble", or the width of a teacher."""
    if source in ("assistant", "ensemble"):
        return {"assistant": assistant, "ensemble": ensemble}[source](seed, images)
    return taught(int(source), seed, images)


def _passes(source: str, passes: int) -> int:
    return 4 * passes if source == LONGER else passes


def effort(width: int, source: str, images: int, many: int = MANY) -> int:
    """The multiply-adds of a student, and of its teachers: their training, and their answers on all images."""
    shared = source in ("assistant", "ensemble")
    widths = [TEACHERS[-1], ASSISTANT] if shared else [int(source)] if source.isdigit() else []
    own = footprint.training_multiply_adds(size(width)["multiply_adds"], images, _passes(source, PASSES[images]))
    each = [size(width)["multiply_adds"] for width in widths]
    return own + sum(footprint.training_multiply_adds(work, many, TEACHER_PASSES) + work * many for work in each)


def trained(width: int, source: str, images: int, seed: int, many: int = MANY, passes: int | None = None) -> Mapping:
    """One student on the test images; `source` is "labels", LONGER, or what `answers` knows."""
    dataset, _ = fashion()
    order = torch.randperm(many, generator=torch.Generator().manual_seed(seed))[:images]
    split, student = dataset.train.subset(order), network(width, seed)
    epochs = passes or PASSES[images]
    if source in ("labels", LONGER):
        training.train(student, split, epochs=_passes(source, epochs), **_common(seed))
    else:
        logits = answers(source, seed, many)[order]
        training.distill(
            student, logits, split, epochs=epochs, temperature=TEMPERATURE[images], alpha=0.9, **_common(seed)
        )
    return {"accuracy": metrics.accuracy(student, dataset.test), **size(width)}


def _of_seed(function: Callable[..., Mapping], group: Group) -> list[Mapping]:
    return [function(**cell) for cell in group]


def by_seed(function: Callable[..., Mapping], cells: Sequence[Mapping]) -> pandas.DataFrame:
    """A row for each cell; one process takes all cells of a seed, so that their teachers are taught once."""
    groups = [list(group) for _, group in itertools.groupby(cells, lambda cell: cell["seed"])]
    options = {"workers": None, "client": None, "results": None, "progress": True}
    return mapping.table(
        mapping.iterate_groups(functools.partial(_of_seed, function), groups, settings={}, **options), cells
    )


def grid(seeds: Sequence[int]) -> list[dict]:
    """Every student under every teacher, and the two smallest under an assistant and an ensemble."""
    rare = ("assistant", "ensemble", LONGER)
    return [
        {"width": width, "source": source, "images": images, "seed": seed}
        for seed in seeds
        for source in ("labels", *map(str, TEACHERS), *rare)
        for images in PASSES
        for width in (ASSISTED if source in rare else STUDENTS)
    ]


@experiment("lesson07-capacity")
def capacity(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Students of every size, on the test images."""
    return by_seed(functools.partial(trained, **sizes), grid(seeds))


# ------------------------------------------------------------------ batch norm


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def prepare_norms(student: nn.Module, kind: str, teacher: nn.Module, images: Tensor) -> None:
    """Give the norms of a student their statistics, and freeze them where the kind says so (a name of `NORMS`)."""
    if kind == "own":
        return
    if kind == "own, frozen":  # those of the images through the untrained student
        for norm in _norms(student):
            norm.momentum = None
        with torch.no_grad():
            student.train()(images)
    else:
        for own, other in zip(_norms(student), _norms(teacher), strict=True):
            own.load_state_dict(other.state_dict())
    if kind.endswith("frozen"):
        for norm in _norms(student):
            norm.eval().requires_grad_(False)


def with_norms(
    kind: str, rate: float, seed: int, split: str, images: int = 1000, passes: int = 20, many: int = MANY
) -> Mapping[str, float]:
    """A tiny-cnn under a teacher of its own form, with norms of one kind."""
    dataset, _ = fashion()
    teacher, transfer_set = schooled(16, seed, many), dataset.train.take(images, seed=seed)
    student = network(16, seed)
    prepare_norms(student, kind, teacher, transfer_set.normalized(slice(None)))
    training.distill(
        student, predict_logits(teacher, transfer_set), transfer_set, epochs=passes, temperature=4.0, alpha=0.9,
        **(_common(seed) | {"learning_rate": rate}),
    )  # fmt: skip
    return {"accuracy": metrics.accuracy(student, getattr(dataset, split))}


@experiment("lesson07-norms-tuning")
def norm_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """The learning rate of each kind, on the validation images."""
    cells = [
        {"kind": kind, "rate": rate, "seed": seed, "split": "validation"}
        for seed in seeds
        for kind in NORMS
        for rate in RATES
    ]
    return by_seed(functools.partial(with_norms, **sizes), cells)


def best_rate(kind: str) -> float:
    """The best on validation."""
    tried = results.read("lesson07-norms-tuning")
    return float(tried[tried["kind"] == kind].groupby("rate")["accuracy"].mean().idxmax())


@experiment("lesson07-norms")
def norms(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Each kind at its best rate, on the test images."""
    cells = [
        {"kind": kind, "rate": best_rate(kind), "seed": seed, "split": "test"} for seed in seeds for kind in NORMS
    ]
    return by_seed(functools.partial(with_norms, **sizes), cells)


@experiment("lesson07-norms-again")
def norms_again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return norms(seeds, **sizes)
