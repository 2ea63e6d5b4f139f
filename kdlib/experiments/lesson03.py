"""The experiments of lesson 03. The lesson runs them small; `kdlib record` runs them in full."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import pandas
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import metrics, models
from kdlib.data import ImageSplit
from kdlib.data.noise import with_wrong_labels
from kdlib.experiments.lesson01 import fashion, known_logits
from kdlib.inference import predict_logits
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.losses import soft_target_by_image
from kdlib.sweeps import mapping
from kdlib.sweeps.backends import Cell, Group
from kdlib.sweeps.grouped import fit_together
from kdlib.sweeps.trainer import MOST_TOGETHER, even_groups
from kdlib.training import LEARNING_RATE, WEIGHT_DECAY
from kdlib.training.loop import Recipe

IMAGES = 1000
EPOCHS = 20
BATCH_SIZE = 32
LABELLED = 100
NO_LABEL = 10  # one more than the highest class; F.cross_entropy is told to leave it out
FOLDS = 20
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
ALPHAS = (0.25, 0.5, 0.75, 0.9, 1.0)
SEEDS = range(10)


class BalancedLosses:
    """Of several students: label_weight * CE + distill_weight * T^2 * KL, a number of each for every student.

    `shares` notes for every step and student which share of the gradient on the logits is the teacher's:
    a / (a + b) with the norms a and b of the two weighted gradients over the batch. Images with the label
    NO_LABEL have no CE; that of the others is scaled up to the mean over them, `labelled` being their share.
    """

    def __init__(self, temperatures, label_weights, distill_weights, labelled=1.0):
        numbers = (torch.as_tensor(values) for values in (temperatures, label_weights, distill_weights))
        self.temperatures, self.label_weights, self.distill_weights = numbers
        self.labelled = labelled
        self.shares = []

    def __call__(self, student_logits, labels, teacher_logits):
        T = self.temperatures.view(-1, 1)
        each = F.cross_entropy(student_logits.mT, labels, reduction="none", ignore_index=NO_LABEL)
        task = each.mean(dim=0) / self.labelled
        distill = soft_target_by_image(student_logits, teacher_logits, self.temperatures).mean(dim=0)
        with torch.no_grad():
            onehot = F.one_hot(labels, NO_LABEL + 1)[..., :NO_LABEL]
            known = (labels != NO_LABEL).unsqueeze(2) / self.labelled
            b = self.label_weights * (known * (student_logits.softmax(dim=2) - onehot)).norm(dim=(0, 2))
            q, p = ((logits / T).softmax(dim=2) for logits in (student_logits, teacher_logits))
            a = self.distill_weights * (T * (q - p)).norm(dim=(0, 2))
            self.shares.append(a / (a + b))
        return self.label_weights * task + self.distill_weights * distill


def train_students(
    transfer_set: ImageSplit, losses: BalancedLosses, seed: int, epochs: int = EPOCHS, *, logits: Tensor | None = None
) -> list[nn.Module]:
    """One student for each of the losses, trained as one grouped network: all of one seed, so they begin with
    the same weights and see the same images in the same order. `logits` are a teacher's on the transfer set, by
    default those of the course's."""
    count = len(losses.temperatures)
    students = [models.build("tiny-cnn", seed=seed) for _ in range(count)]
    recipe = Recipe(epochs, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, seed, bfloat16=False, augment=None)
    teacher_logits = known_logits(fashion()[1], transfer_set) if logits is None else logits
    fit_together(students, teacher_logits, transfer_set, losses=losses, seeds=[seed] * count, recipe=recipe)
    return students


def with_alphas(group: Group) -> BalancedLosses:
    """The losses of cells with a temperature and an alpha."""
    alphas = torch.tensor([cell["alpha"] for cell in group])
    return BalancedLosses([cell["temperature"] for cell in group], 1 - alphas, alphas)


def over_groups(
    compute: Callable[[Group], list[Mapping]],
    grid: Sequence[Cell],
    shared: Sequence[str],
    workers: int | None = None,
) -> pandas.DataFrame:
    """A table with a row for each cell of the grid; a group holds cells that agree in the settings `shared`."""

    def key(cell: Cell) -> tuple:
        return tuple(cell[name] for name in shared)

    groups = [
        part for _, same in itertools.groupby(grid, key) for part in even_groups(list(same), 1, MOST_TOGETHER)
    ]
    options = {"workers": workers, "client": None, "results": None, "progress": True}
    return mapping.table(mapping.iterate_groups(compute, groups, settings={}, **options), grid)


# ------------------------------------------------------------------ temperature and alpha


def on_surface(group: Group) -> list[dict[str, float]]:
    """Students of the transfer set of their seed. `validation` and `test` are accuracies, `fold 0` to `fold 19`
    those on twentieths of the test images; `share 1` to `share 20` are the teacher's share in each epoch."""
    [seed] = {cell["seed"] for cell in group}
    dataset, _ = fashion()
    losses = with_alphas(group)
    students = train_students(dataset.train.take(IMAGES, seed=seed), losses, seed)
    shares = torch.stack(losses.shares).unflatten(0, (EPOCHS, -1)).mean(dim=1)
    order = torch.randperm(len(dataset.test), generator=torch.Generator().manual_seed(0))
    rows = []
    for number, student in enumerate(students):
        right = (predict_logits(student, dataset.test).argmax(dim=1) == dataset.test.labels).double()
        folds = right[order].view(FOLDS, -1).mean(dim=1)
        row = {"validation": metrics.accuracy(student, dataset.validation), "test": right.mean().item()}
        row |= {f"fold {fold}": round(value, 4) for fold, value in enumerate(folds.tolist())}
        row |= {f"share {e}": round(s, 4) for e, s in enumerate(shares[:, number].tolist(), start=1)}
        rows.append(row)
    return rows


@experiment("lesson03-surface")
def surface(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """Every temperature with every alpha, and the label-only control (alpha = 0, its temperature without effect)."""
    settings = [(1.0, 0.0), *itertools.product(TEMPERATURES, ALPHAS)]
    grid = [{"temperature": t, "alpha": a, "seed": seed} for seed in seeds for t, a in settings]
    return over_groups(on_surface, grid, ["seed"])


# ------------------------------------------------------------------ defects that act as another alpha


def hidden_alpha(alpha: float, factor: float) -> float:
    """The alpha of our loss that has the balance of one whose distillation term is `factor` times too small."""
    return alpha * factor / (alpha * factor + 1 - alpha)


DEFECTS = {"mean over classes": 1 / 10, "T^2 left out": 1 / 16, "both": 1 / 160}
"""How many times too small the term is, on ten classes at T = 4."""


def on_test(group: Group) -> list[dict[str, float]]:
    """Test accuracies of students of one seed."""
    [seed] = {cell["seed"] for cell in group}
    dataset, _ = fashion()
    students = train_students(dataset.train.take(IMAGES, seed=seed), with_alphas(group), seed)
    return [{"test": metrics.accuracy(student, dataset.test)} for student in students]


@experiment("lesson03-hidden")
def hidden(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """Students with the alpha that a defect leaves of alpha = 0.9 at T = 4; pairs with those of the surface."""
    alphas = [hidden_alpha(0.9, factor) for factor in DEFECTS.values()]
    grid = [{"temperature": 4.0, "alpha": alpha, "seed": seed} for seed in seeds for alpha in alphas]
    return over_groups(on_test, grid, ["seed"])


# ------------------------------------------------------------------ wrong labels


def on_wrong_labels(group: Group) -> list[dict[str, float]]:
    """Students at T = 4 whose labels are wrong in part. Their teacher is as ever, and so is what measures them."""
    [(seed, share)] = {(cell["seed"], cell["wrong"]) for cell in group}
    dataset, _ = fashion()
    transfer_set = with_wrong_labels(dataset.train.take(IMAGES, seed=seed), share, seed)
    students = train_students(
        transfer_set, with_alphas([cell | {"temperature": 4.0} for cell in group]), seed
    )
    splits = {"validation": dataset.validation, "test": dataset.test}
    return [
        {name: metrics.accuracy(student, split) for name, split in splits.items()} for student in students
    ]


@experiment("lesson03-noise")
def noise(
    shares: Sequence[float] = (0.2, 0.4, 0.6),
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.9),
    seeds: Sequence[int] = SEEDS,
) -> pandas.DataFrame:
    """Accuracy over alpha at T = 4, with wrong labels in the student's transfer set. The students of right labels,
    and those that look at none (alpha = 1), are those of the surface."""
    grid = [{"seed": seed, "wrong": w, "alpha": a} for seed in seeds for w in shares for a in alphas]
    return over_groups(on_wrong_labels, grid, ["seed", "wrong"])


def known_noise() -> pandas.DataFrame:
    """The recorded students of wrong labels, with those that they share with the surface."""
    table = results.read("lesson03-noise")
    surface = results.read("lesson03-surface")
    right = surface[(surface["temperature"] == 4) | (surface["alpha"] == 0)].assign(wrong=0.0)
    unmoved = [right[right["alpha"] == 1].assign(wrong=share) for share in table["wrong"].unique()]
    return pandas.concat([right, table, *unmoved])[table.columns].sort_values(
        ["wrong", "alpha", "seed"], ignore_index=True
    )


# ------------------------------------------------------------------ labels for some images only


def some_labelled(images: int, seed: int) -> ImageSplit:
    """100 labelled images, and `images` - 100 from which the label is taken away."""
    train = fashion()[0].train
    labelled = train.take(LABELLED, seed=seed)
    has_label = torch.isin(train.indices, labelled.indices)
    others = (~has_label).nonzero().flatten()
    others = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))]
    chosen = train.subset(torch.cat([has_label.nonzero().flatten(), others[: images - LABELLED]]))
    labels = torch.where(torch.arange(images) < LABELLED, chosen.labels, NO_LABEL)
    return ImageSplit(chosen.images, labels, chosen.indices, chosen.mean, chosen.std)


def on_few_labels(group: Group) -> list[dict[str, float]]:
    """Students at T = 4 with 100 labels, of 100 images or of more. All take the same number of steps."""
    [(seed, images)] = {(cell["seed"], cell["images"]) for cell in group}
    dataset, _ = fashion()
    losses = with_alphas([cell | {"temperature": 4.0} for cell in group])
    losses.labelled = LABELLED / images
    epochs = round(EPOCHS * -(-IMAGES // BATCH_SIZE) / -(-images // BATCH_SIZE))
    students = train_students(some_labelled(images, seed), losses, seed, epochs)
    return [{"test": metrics.accuracy(student, dataset.test)} for student in students]


@experiment("lesson03-scarce")
def scarce(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """100 labels: alpha with the labelled images alone, and with 900 further images that have no label."""
    settings = [(LABELLED, 0.0), *itertools.product((LABELLED, IMAGES), (0.25, 0.5, 0.75, 0.9, 1.0))]
    grid = [{"images": n, "alpha": a, "seed": seed} for seed in seeds for n, a in settings]
    return over_groups(on_few_labels, grid, ["seed", "images"])
