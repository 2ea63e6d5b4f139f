"""Exercise of lesson 07: an augmentation of the learner's own, judged by what every augmentation has to have.

The function carries no annotations, because its text is the stub that a learner reads: shapes stand in the docstring.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from kdlib import data
from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import ChangedInput, Complaint, is_unfinished

MANY = 30  # so many images are judged by what chance does to them; fewer say nothing about it


@functools.cache
def _real_images():
    return data.load("fashion-mnist").train.take(MANY, seed=0).images


def _batches():
    in_colour = F.pad(_real_images()[:7], (2, 2, 2, 2)).repeat(1, 3, 1, 1) // torch.tensor([1, 2, 3]).view(3, 1, 1)
    return [(_real_images(),), (in_colour.to(torch.uint8),), (_real_images()[-1:],)]


@dataclass
class _Trial:
    """What the function makes of a batch of real images, in several calls."""

    images: torch.Tensor
    views: torch.Tensor
    next_views: torch.Tensor  # by the next call
    repeated: torch.Tensor  # after the seed of the first call
    of_equal_images: torch.Tensor
    in_other_company: torch.Tensor  # the first image among others, after the seed of the first call
    of_the_board: torch.Tensor

    @classmethod
    def of(cls, function, images):
        torch.manual_seed(0)
        first, second = _views(function, images), _views(function, images)
        torch.manual_seed(0)
        repeated = _views(function, images)
        torch.manual_seed(0)
        company = _views(function, torch.cat([images[:1], 255 - images[1:]]))
        equal, board = images[:1].repeat(MANY, 1, 1, 1), _board(images).repeat(MANY, 1, 1, 1)
        return cls(images, first, second, repeated, _views(function, equal), company, _views(function, board))


def _views(function, images):
    given = images.clone()
    views = function(given)
    if not torch.equal(given, images):
        raise ChangedInput
    return views


def _board(images):
    """Left 0 and 55, right 200 and 255, in turn from pixel to pixel: no equalisation pulls these further apart."""
    _, channels, height, width = images.shape
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    board = 200 * (columns >= width // 2) + 55 * ((rows + columns) % 2)
    return board.to(torch.uint8).expand(1, channels, -1, -1)


def _wraps(trial):
    """Whether in a fifth of the boards many neighbours are far apart: they have come to both sides of 255, or of 0."""
    far = trial.of_the_board.float().diff(dim=-1).abs() > 150
    return bool((far.float().mean(dim=(1, 2, 3)) > 0.3).float().mean() > 0.2)


def _is_flat(trial):
    return bool(trial.views.float().flatten(1).std(dim=1).mean() < 5)


def _is_lost(trial):
    """Whether a view is about as far from its own image as from the others; an image's negative counts as the image.

    Measured on these images, own distance over that from the others: 0.8 for shifts by up to 8 pixels, 0.7 for turns
    by any angle, at least 0.9 for images that changed places, 1 for noise.
    """
    distances = torch.stack([_distances(views, trial.images) for views in (trial.views, trial.next_views)]).mean(dim=0)
    own = distances.diag().mean()
    others = (distances.sum() - distances.diag().sum()) / (MANY * (MANY - 1))
    return bool(own > 0.86 * others)


def _distances(views, images):
    """(views, images): the mean distance of their pixels."""
    views, images = views[:, None].float(), images.float()
    return torch.minimum(*((views - one).abs().mean(dim=(2, 3, 4)) for one in (images, 255 - images)))


def _are_equal(trial):
    return torch.equal(trial.of_equal_images, trial.of_equal_images[:1].expand_as(trial.of_equal_images))


def _are_mixed(trial):
    """Whether equal images give equal views although there is more than one draw: what is drawn is other images."""
    return _are_equal(trial) and not torch.equal(trial.in_other_company[0], trial.views[0])


def _mixture(images):
    return (0.7 * images + 0.3 * images[torch.randperm(len(images))]).to(torch.uint8)


def _one_shift(images):
    down, right = torch.randint(-3, 4, (2,)).tolist()
    return images.roll((down, right), dims=(2, 3))


def _noise(images):
    return torch.randint(0, 256, images.shape, dtype=torch.uint8)


def _brighter_beyond_the_end(images):
    return (images.int() + torch.randint(-40, 41, (len(images), 1, 1, 1))).to(torch.uint8)


def _zeros_and_ones(images):
    return (images / 255 * torch.rand(len(images), 1, 1, 1)).round().to(torch.uint8)


def _by_numpy(images):
    return images.clone().mul_(torch.from_numpy(np.random.default_rng().integers(0, 2, (len(images), 1, 1, 1))))


# What is said of views that lack something, how that is found, and a function that lacks just this.
_LACKS_FORM = {
    "the views are no tensor of uint8: clamp them to 0 ... 255 and end with .to(torch.uint8)":
        (lambda views, images: not (isinstance(views, torch.Tensor) and views.dtype == torch.uint8),
         lambda images: images / 255),
    "the views have not the shape of the images":
        (lambda views, images: views.shape != images.shape, lambda images: images[..., 1:]),
}  # fmt: skip
_LACKS = {
    "the images come back as they were":
        (lambda trial: torch.equal(trial.views, trial.images), torch.clone),
    "hardly anything but one grey is left of each image, as where numbers from 0 to 1 are made uint8, which is 0 or 1":
        (_is_flat, _zeros_and_ones),
    "the views are no nearer to their images than to other ones: no picture is left, or the images changed places":
        (_is_lost, _noise),
    "values beyond the ends wrap round: in uint8 255 + 1 is 0; compute in float, and clamp to 0 ... 255":
        (_wraps, _brighter_beyond_the_end),
    "two calls give the same views: draw anew in each call, and set no seed in it":
        (lambda trial: torch.equal(trial.views, trial.next_views), lambda images: images.flip(-1)),
    "a view shows other images of the batch as well, as MixUp does: its label would be wrong in part":
        (_are_mixed, _mixture),
    "equal images of a batch get equal views: draw for each image, not once for the batch":
        (_are_equal, _one_shift),
    "the same torch.manual_seed gives other views: take PyTorch's random numbers, not those of numpy or random":
        (lambda trial: not torch.equal(trial.views, trial.repeated), _by_numpy),
}  # fmt: skip


def _what_views_lack(function, images):
    """Probe: complains of the first thing that the views lack."""
    if isinstance(function, type):
        raise Complaint(f"{function.__name__} is a class: make one of it, {function.__name__}(...), and hand that over")
    views = _views(function, images)
    if is_unfinished(views):
        return views
    for sentence, (lacking, _) in _LACKS_FORM.items():
        if lacking(views, images):
            raise Complaint(sentence)
    if len(images) >= MANY:
        trial = _Trial.of(function, images)
        for sentence, (lacking, _) in _LACKS.items():
            if lacking(trial):
                raise Complaint(sentence)
    return {"number of views": len(views)}


@exercise(
    cases=_batches,
    probe=_what_views_lack,
    hints=[
        """What may happen to a photograph of a shirt that leaves it a photograph of a shirt? Choose one change, and ask
        what has to be drawn for it: how far, how much, where.""",
        """Draw as many numbers as there are images, `len(images)`. Where they multiply or add, give them the shape
        (batch, 1, 1, 1); where they say which pixels, a loop over the images does it, and `torch.stack` after it.""",
        """Brightness alone: `factor = 0.6 + 0.8 * torch.rand(len(images), 1, 1, 1)`, and then
        `(images * factor).clamp(0, 255).to(torch.uint8)`.""",
    ],
    mistakes={sentence: example for sentence, (_, example) in (_LACKS_FORM | _LACKS).items()},
)
def my_augmentation(images):
    """An augmentation of your own: a view of each image, which still shows what the image shows.

    Each image of a batch gets a draw of its own, by PyTorch's random numbers, so that torch.manual_seed repeats the
    views. A view is, on average, nearer to its own image than to others. The images that are given stay as they are.

    images: uint8 (batch, channels, height, width), of any size. Returns the views in the order of the images:
    uint8, of the same shape; what falls below 0 or above 255 is clamped.
    """
    # --- your code
    batch, _, height, width = images.shape
    padded = F.pad(images, (3, 3, 3, 3))
    tops, lefts = torch.randint(0, 7, (2, batch)).tolist()
    places = zip(padded, tops, lefts, strict=True)
    shifted = torch.stack([image[:, top : top + height, left : left + width] for image, top, left in places])
    brightness = 0.6 + 0.8 * torch.rand(batch, 1, 1, 1)
    return (shifted * brightness).clamp(0, 255).to(torch.uint8)
    # --- end
