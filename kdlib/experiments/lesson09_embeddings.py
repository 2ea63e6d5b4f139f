"""Lesson 09, embeddings: a student learns a teacher's features of unlabelled images; few labels come afterwards.

Two cores take about half an hour for the tuning and the tables. What labels alone give is in lesson09-few.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import features, losses, models, teachers, training
from kdlib.data import ImageSplit
from kdlib.experiments.choosing import (
    AGAIN,
    RATES,
    SEEDS,
    TUNING_SEEDS,
    best_of_arms,
    every,
    fashion,
    measured,
    on_test,
    tried,
)
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment
from kdlib.models import TinyCNN
from kdlib.tasks import shelf

POOL, EPOCHS, BATCH_SIZE, WIDTH = 9000, 6, 50, 128
COUNTS = (10, 100, 1000)  # labels
LAYER = "network.stages.2"
COSINE, SQUARED, STANDARDISED, ANGLES, UNTRAINED, NOTHING, PIXELS, TEACHER = (
    "cosine", "squared error", "standardised", "standardised, teacher of angles", "standardised, untrained teacher",
    "untrained student", "raw pixels", "the teacher's own",
)  # fmt: skip
# (mean, std) of pixels in [0, 1] that the teacher gets in place of its own.
NORMALISED = {
    "pixels from 0 to 1": (0.0, 1.0),
    "pixels from -1 to 1": (0.5, 0.5),
    "ImageNet's": (0.449, 0.226),
    "pixels from 0 to 255": (0.0, 1 / 255),
}
IN_PASSING = ("pixels from 0 to 1", "pixels from -1 to 1", "pixels from 0 to 255")
TRAINED = (COSINE, SQUARED, STANDARDISED, ANGLES, UNTRAINED)
GRIDS = {arm: every(rate=RATES) for arm in TRAINED}


def pooled(teacher: nn.Module, split: ImageSplit) -> Tensor:
    """The teacher's last maps, averaged over their positions: an embedding of each image."""
    return features.teacher_features(teacher, split, [LAYER])[LAYER].mean(dim=(2, 3))


@functools.cache
def untrained_teacher() -> nn.Module:
    """The course's teacher before its first step."""
    return teachers.freeze(with_statistics(models.build("resnet8x2", seed=0)))


def with_statistics(network: nn.Module) -> nn.Module:
    """The network, whose batch norms get the statistics of a thousand images: without them it is no fair control."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # those of all that it sees, in place of a running mean
    with torch.no_grad():
        network.train()(fashion().train.normalized(slice(0, 1000)))
    return network.eval()


@functools.cache
def teacher_of(arm: str) -> nn.Module:
    """The teacher of an arm; of a normalisation that is not its own, the course's with that."""
    if arm == UNTRAINED:
        return untrained_teacher()
    if arm == ANGLES:
        return shelf.load("turned")
    course = teachers.load("fashion-mnist")
    if arm not in NORMALISED:
        return course
    mean, std = NORMALISED[arm]
    return teachers.freeze(course, mean=[mean], std=[std])


def standardised(values: Tensor) -> Tensor:
    """Each column with mean 0 and standard deviation 1; a column that is constant is 0."""
    centred = values - values.mean(dim=0)
    return centred / centred.std(dim=0, unbiased=False).clamp(min=1e-6)


@functools.cache
def targets(arm: str) -> Tensor:
    """What the teacher says of the pool, by arm as it is or standardised over the pool."""
    values = pooled(teacher_of(arm), fashion().train)
    return values if arm in (COSINE, SQUARED) else standardised(values)


def embedding_student(arm: str, rate: float, seed: int, *, pool: int = POOL, epochs: int = EPOCHS) -> nn.Module:
    """A student whose output is an embedding. It sees `pool` images and no label."""
    torch.manual_seed(seed)
    student = TinyCNN(WIDTH)
    loss = losses.cosine_logit_loss if arm == COSINE else losses.logit_mse_loss
    split = fashion().train.take(pool, seed=seed)
    rows = torch.isin(fashion().train.indices, split.indices)
    training.distill(
        student, targets(arm)[rows], split, alpha=1, loss=loss, epochs=epochs, learning_rate=rate,
        batch_size=BATCH_SIZE, seed=seed, progress=False,
    )  # fmt: skip
    return student


def embedding_of(arm: str, rate: float, seed: int, **sizes: int) -> Callable[[ImageSplit], Tensor]:
    """The function from images to rows of numbers that an arm stands for."""
    if arm == PIXELS:
        return lambda split: split.normalized().flatten(1)
    if arm == TEACHER:
        return functools.partial(pooled, teacher_of(arm))
    if arm == NOTHING:
        torch.manual_seed(seed)
        student = with_statistics(TinyCNN(WIDTH))
    else:
        student = embedding_student(arm, rate, seed, **sizes)
    return functools.partial(predict_logits, student)


def probe(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """What a linear classifier on the embeddings (logistic regression) says, learned from the known ones."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return torch.from_numpy(classifier.fit(known.numpy(), labels.numpy()).predict(asked.numpy()))


def nearest(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """The label of the known embedding at the smallest angle."""
    unit = [torch.nn.functional.normalize(values, dim=1) for values in (asked, known)]
    return labels[(unit[0] @ unit[1].T).argmax(dim=1)]


def on_split(arm: str, rate: float, seed: int, split: str, **sizes: int) -> dict[str, float]:
    """How right a linear probe and the nearest neighbour are, with each number of labels; `probe` is their mean."""
    torch.set_num_threads(1)
    of = getattr(fashion(), split)
    embed = embedding_of(arm, rate, seed, **sizes)
    asked, found = embed(of), {}
    for count in COUNTS:
        labelled = fashion().train.take(count, seed=seed)
        known = embed(labelled)
        for name, classify in {"probe": probe, "nearest": nearest}.items():
            right = classify(known, labelled.labels, asked) == of.labels
            found[f"{name} {count}"] = float(right.float().mean())
    return found | {"probe": sum(found[f"probe {count}"] for count in COUNTS) / len(COUNTS)}


@experiment("lesson09-embeddings-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every trained arm at its learning rates, on the validation images."""
    return tried(functools.partial(on_split, **sizes), GRIDS, seeds)


def cells(seeds: Sequence[int], without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every arm at its best; those of another normalisation at the rate of the standardised one."""
    chosen = {arm: best["rate"] for arm, best in best_of_arms("lesson09-embeddings", ("rate",), by="probe").items()}
    chosen |= {arm: chosen[STANDARDISED] for arm in NORMALISED} | {arm: 0.0 for arm in (NOTHING, PIXELS, TEACHER)}
    return on_test([{"arm": arm, "rate": rate} for arm, rate in chosen.items() if arm not in without], seeds)


@experiment("lesson09-embeddings")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson09-embeddings-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds, but for what needs no verdict."""
    return measured(functools.partial(on_split, **sizes), cells(seeds, (*IN_PASSING, NOTHING, TEACHER)))
