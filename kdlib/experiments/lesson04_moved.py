"""Lesson 04: embeddings of moved images of classes that nobody labelled, with every dull explanation beside them.

The teacher knows five classes. The student gets unlabelled images of the other five, and its embedding is searched and
probed there. All images are moved: turned, shifted and rescaled, by a draw for each.
"""

import functools
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import features, inference, losses, models, training
from kdlib.data import ImageSplit
from kdlib.experiments.lesson01 import fashion
from kdlib.experiments.lesson04 import Pooled
from kdlib.features import FeatureTerm
from kdlib.training.augmentation import views_of

KNOWN_CLASSES = 5  # the teacher knows the first five classes; the others are searched
WIDTH = 64  # of the student's embedding
POOL = 3000  # unlabelled images
VIEWS = 4  # each is moved so many times
TEACHER_EPOCHS = 12


def move(
    images: UInt8[Tensor, "batch channels height width"],
    *, degrees: float | int = 25, pixels: float | int = 4, scale: tuple[float | int, float | int] = (0.8, 1.2),
) -> UInt8[Tensor, "batch channels height width"]:  # fmt: skip
    """Turn, rescale and shift each image by a draw of its own, on a black ground."""
    turn, zoom, x, y = torch.rand(4, len(images))
    angle = torch.deg2rad((2 * turn - 1) * degrees)
    zoom = scale[0] + (scale[1] - scale[0]) * zoom
    shift = torch.stack([2 * x - 1, 2 * y - 1], dim=1) * 2 * pixels / images.shape[-1]
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    grid = F.affine_grid(
        torch.cat([rotation / zoom[:, None, None], shift[:, :, None]], dim=2),
        list(images.shape),
        align_corners=False,
    )
    return F.grid_sample(images.float(), grid, align_corners=False).round().to(torch.uint8)


def half_of(split: ImageSplit, *, known: bool) -> ImageSplit:
    """The images of the teacher's classes, or those of the others, whose labels then count from 0."""
    half = split.subset((split.labels < KNOWN_CLASSES) == known)
    labels = half.labels if known else half.labels - KNOWN_CLASSES
    return ImageSplit(half.images, labels, half.indices, half.mean, half.std)


def moved(split: ImageSplit, seed: int, views: int = 1) -> ImageSplit:
    """`views` moved views of each image, view v of image i in row i * views + v."""
    return views_of(split, move, views, seed)


def embed(network: nn.Module, split: ImageSplit) -> Float[Tensor, "n width"]:
    """What a search compares: the last features of the network, averaged over positions."""
    return Pooled()(features.teacher_features(network, split, ["stages.2"])["stages.2"])


# ------------------------------------------------------------------ what the embedding is to say of an image


@functools.lru_cache(maxsize=4)
def teacher_of(kind: str, seed: int) -> nn.Module:
    """A ResNet-8: "trained" on the moved images of the known classes, "all classes" on those of every class, or
    "untrained", with the weights it was built with. The two that learn see as many images."""
    teacher = models.build(
        "resnet8", num_classes=10 if kind == "all classes" else KNOWN_CLASSES, seed=1000 + seed
    )
    if kind != "untrained":
        known = half_of(fashion()[0].train, known=True)
        images = known if kind == "trained" else fashion()[0].train.take(len(known), seed=seed)
        training.train(teacher, images, epochs=TEACHER_EPOCHS, seed=seed, augment=move, progress=False)
    return teacher.eval()


@functools.lru_cache(maxsize=1)
def answers(source: str, seed: int, images: int = POOL) -> tuple[Tensor, Tensor]:
    """What a teacher says of the moved pool: its logits, and its last map in 4 x 4 cells, a row an image.

    Of "pixels": those of the image, in place of both.
    """
    pool = moved_pool(seed, images)
    if source == "pixels":
        rows = pool.normalized(slice(None)).flatten(1)
        return rows, rows
    teacher = teacher_of(source, seed)
    return inference.predict_logits(teacher, pool), last_map(teacher, pool)


def last_map(network: nn.Module, split: ImageSplit) -> Float[Tensor, "n cells"]:
    """The last map of a ResNet-8 in 4 x 4 cells, as one row an image."""
    maps = features.teacher_features(network, split, ["stages.2"])["stages.2"]
    return F.adaptive_avg_pool2d(maps, 4).flatten(1)


def head_of(width: int) -> nn.Module:
    """From the student's embedding to `width` numbers; thrown away afterwards."""
    return nn.Sequential(Pooled(), nn.Linear(WIDTH, width))


def term(loss: str, logits: Tensor | None, wanted: Tensor, temperature: float = 0.2) -> FeatureTerm:
    """What is asked of the student's last layer, for images without labels. `temperature` is that of the loss."""
    if loss == "logits":
        soft_targets = partial(losses.soft_target_loss, temperature=temperature)
        return FeatureTerm(soft_targets, "stages.2", logits, regressor=head_of(logits.shape[1]))
    if loss == "contrastive":
        contrast = features.ContrastiveLoss(WIDTH, wanted.shape[1], temperature=temperature)
        return FeatureTerm(contrast, "stages.2", wanted, regressor=Pooled())
    if loss == "hint":
        return FeatureTerm(features.hint_loss, "stages.2", wanted, regressor=head_of(wanted.shape[1]))
    # Relations need no regressor: 64 numbers of the student against as many as are wanted.
    return FeatureTerm(features.relational_loss, "stages.2", wanted, regressor=Pooled())


class TwoViews(nn.Module):
    """A student that embeds both views of an image, which come as two channels: for the control without a teacher."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student, self.projection = features.capture(student, ["stages.2"]), nn.Linear(WIDTH, WIDTH)

    def forward(self, pairs: Float[Tensor, "batch 2 height width"]) -> Float[Tensor, "batch embeddings"]:
        _, known = self.student(pairs.flatten(0, 1)[:, None])
        return self.projection(Pooled()(known["stages.2"])).view(len(pairs), -1)


def agreement(embeddings: Float[Tensor, "batch embeddings"], labels: Tensor, *, temperature: float) -> Tensor:
    """Which view belongs to which? Cross-entropy over the batch, in both directions (Chen et al. 2020). No labels."""
    one, other = (F.normalize(rows, dim=1) for rows in embeddings.chunk(2, dim=1))
    score, same = one @ other.T / temperature, torch.arange(len(one))
    return (F.cross_entropy(score, same) + F.cross_entropy(score.T, same)) / 2


def pairs_of(pool: ImageSplit) -> ImageSplit:
    """Views 2 v and 2 v + 1 of each image, as the two channels of one."""
    pictures = pool.images.view(-1, 2, *pool.images.shape[2:])
    return ImageSplit(pictures, pool.labels[::2], None, pool.mean.repeat(2), pool.std.repeat(2))


# ------------------------------------------------------------------ students

# What a student imitates: of which source, by which loss.
METHODS = {
    f"{loss}{name}": (source, loss)
    for name, source in {"": "trained", ", untrained teacher": "untrained", ", raw pixels": "pixels"}.items()
    for loss in ("hint", "relational", "contrastive")
}
METHODS |= {"logits": ("trained", "logits")}
METHODS |= {f"{loss}, all classes": ("all classes", loss) for loss in ("hint", "contrastive", "logits")}
WITHOUT_TEACHER = ("two views, no teacher", "labels only")
# At the settings of the loss that they control: features of another image, or one map for all images.
CONTROLS = tuple(
    f"{loss}, {wrong}" for loss in ("hint", "contrastive") for wrong in ("another image", "one map")
)
WITHOUT_STUDENT = ("pixels", "pixels in 7 x 7", "teacher", "untrained teacher")


def split_pool(seed: int, images: int = POOL) -> tuple[ImageSplit, ImageSplit]:
    """The unlabelled images of the unknown classes that students get, and the 1,500 others, for choosing settings."""
    unknown = half_of(fashion()[0].train, known=False)
    order = torch.randperm(len(unknown), generator=torch.Generator().manual_seed(seed))
    return unknown.subset(order[:images]), unknown.subset(order[POOL:])


@functools.lru_cache(maxsize=1)
def moved_pool(seed: int, images: int) -> ImageSplit:
    """The pool, each image moved VIEWS times."""
    return moved(split_pool(seed, images)[0], seed, VIEWS)


def replaced(wanted: Tensor, control: str, seed: int) -> Tensor:
    """The controls: each image gets what another one should have, or all get the mean."""
    if control == "another image":
        return wanted[torch.randperm(len(wanted), generator=torch.Generator().manual_seed(seed))]
    return (
        wanted.mean(dim=0, keepdim=True).expand(len(wanted), -1).contiguous()
        if control == "one map"
        else wanted
    )


def by_two_views(
    student: nn.Module, pool: ImageSplit, *, seed: int, passes: int, temperature: float, **recipe: Any
) -> nn.Module:
    """Train a student to tell which moved views are of one image, on as many views as `passes` over the pool have."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        both = TwoViews(student)
    recipe |= {
        "task_loss": partial(agreement, temperature=temperature),
        "epochs": 2 * passes,
        "batch_size": 64,
    }
    training.train(both, pairs_of(pool), seed=seed, **recipe)
    return student


def imitating(
    student: nn.Module, pool: ImageSplit, loss: str, logits: Tensor, wanted: Tensor, *,
    seed: int, passes: int, temperature: float, **recipe: Any,
) -> nn.Module:  # fmt: skip
    """Train a student towards what a teacher says of the pool."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # losses and heads have weights
        imitated = term(loss, logits, wanted, temperature)
    training.match_features(student, logits, pool, features=[imitated], epochs=passes, seed=seed, **recipe)
    return student


def student_of(
    method: str, seed: int, rate: float, passes: int, temperature: float, images: int = POOL
) -> nn.Module:
    """A student after `passes` over the moved pool; "labels only" makes as many steps on the teacher's labels."""
    student = models.build("tiny-cnn", num_classes=KNOWN_CLASSES, seed=seed)
    recipe = {"learning_rate": rate, "seed": seed, "progress": False}
    if method == "nothing learned":
        return student.eval()
    if method == "labels only":
        known = half_of(fashion()[0].train, known=True).take(images, seed=seed)
        training.train(student, known, epochs=VIEWS * passes, augment=move, **recipe)
        return student
    recipe |= {"passes": passes, "temperature": temperature}
    pool = moved_pool(seed, images)
    if method == "two views, no teacher":
        return by_two_views(student, pool, **recipe)
    loss, _, control = method.partition(", ")
    source, loss = METHODS.get(method, ("trained", loss))
    logits, wanted = answers(source, seed, images)
    return imitating(student, pool, loss, logits, replaced(wanted, control, seed), **recipe)
