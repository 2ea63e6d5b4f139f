"""Exercise of lesson 09: how far the statistics of a batch are from those that a batch norm remembers.

The function carries no annotations, because its text is the stub that a learner reads: shapes stand in the docstring.
"""

import torch

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import value_and_gradient


def _batches():
    """As many images as channels, rows and columns; other shapes; a single image."""
    shapes = [(4, 4, 4, 4), (3, 5, 2, 6), (1, 3, 4, 5), (6, 2, 3, 3)]
    return [_batch(seed, *shape) for seed, shape in enumerate(shapes)]


def _batch(seed, batch, channels, height, width):
    """Channels, and images, whose values lie and scatter differently."""
    random = torch.Generator().manual_seed(seed)
    centre, remembered = torch.randn(2, channels, generator=random)
    scale, variance = 0.5 + 2 * torch.rand(2, channels, generator=random)
    of_images = 0.5 * torch.randn(batch, 1, 1, 1, generator=random)
    values = torch.randn(batch, channels, height, width, generator=random)
    return centre[:, None, None] + scale[:, None, None] * values + of_images, remembered, variance


_ALL = (0, 2, 3)


def _apart(mean, variance, running_mean, running_var):
    return (mean - running_mean).norm() + (variance - running_var).norm()


def _statistics(maps, dims=_ALL):
    return maps.mean(dims), maps.var(dims, correction=0)


def _with_dims(dims, shape=(-1,)):
    """The statistics over other axes, from which those that are remembered are subtracted as they broadcast."""
    return lambda x, mean, var: _apart(*_statistics(x, dims), mean.view(shape), var.view(shape))


def _mean_of_images(x, mean, var):
    return torch.stack([_apart(*_statistics(image, (1, 2)), mean, var) for image in x]).mean()


def _measured(length):
    """With something else than the Euclidean length of the differences."""
    return lambda x, mean, var: sum(
        length(mine - remembered) for mine, remembered in zip(_statistics(x), (mean, var), strict=True)
    )


def _of_deviations(x, mean, var):
    return _apart(x.mean(_ALL), x.var(_ALL, correction=0).sqrt(), mean, var.sqrt())


def _deviation_and_variance(x, mean, var):
    return _apart(x.mean(_ALL), x.var(_ALL, correction=0).sqrt(), mean, var)


def _about_what_is_remembered(x, mean, var):
    return _apart(x.mean(_ALL), (x - mean[:, None, None]).square().mean(_ALL), mean, var)


def _of_lengths(x, mean, var):
    (mine, variance), norm = _statistics(x), torch.linalg.vector_norm
    return (norm(mine) - norm(mean)).abs() + (norm(variance) - norm(var)).abs()


def _one_length(x, mean, var):
    mine, variance = _statistics(x)
    return torch.cat([mine - mean, variance - var]).norm()


@exercise(
    cases=_batches,
    probe=value_and_gradient,
    hints=[
        """A batch norm keeps two numbers for each channel. So two tensors of shape (channels,) must come out of maps of
        shape (batch, channels, height, width): over which axes do mean and variance go?""",
        """`maps.mean(dim=(0, 2, 3))`, and the same for the variance. By default torch.var divides by the number of
        values less one; `unbiased=False` divides by their number.""",
        """`(mean - running_mean).norm()` is the length of a difference; add that of the variances.""",
    ],
    mistakes={
        "torch.var divides by the number of values less one; asked for is their number, unbiased=False":
            lambda x, mean, var: _apart(x.mean(_ALL), x.var(_ALL), mean, var),
        "the lengths are squared; their root is asked for":
            _measured(lambda apart: apart.square().sum()),
        "the mean of the squared differences; the length is the root of their sum":
            _measured(lambda apart: apart.square().mean()),
        "the root is taken of the mean over the channels; of their sum it is the length":
            _measured(lambda apart: apart.square().mean().sqrt()),
        "the mean of the absolute differences; the length is the root of the sum of their squares":
            _measured(lambda apart: apart.abs().mean()),
        "the sum of the absolute differences; the length is the root of the sum of their squares":
            _measured(lambda apart: apart.abs().sum()),
        "the largest difference of a channel; the length is the root of the sum of their squares":
            _measured(lambda apart: apart.abs().amax()),
        "the differences themselves are added up, and cancel; their length is asked for":
            _measured(torch.sum),
        "a number for each channel comes back; the length over the channels is asked for":
            _measured(torch.abs),
        "means and variances have one length together; each has its own, and these are added":
            _one_length,
        "the lengths are subtracted; the length of the difference is asked for":
            _of_lengths,
        "standard deviations are compared; variances are asked for":
            _of_deviations,
        "the standard deviation is compared with running_var, which is a variance":
            _deviation_and_variance,
        "the variance is missing: this is the term of the means alone":
            lambda x, mean, var: (x.mean(_ALL) - mean).norm(),
        "the mean is missing: this is the term of the variances alone":
            lambda x, mean, var: (x.var(_ALL, correction=0) - var).norm(),
        "the mean of the squares is no variance before the squared mean is subtracted":
            lambda x, mean, var: _apart(x.mean(_ALL), x.square().mean(_ALL), mean, var),
        "the variance goes around running_mean; it goes around the mean of the batch":
            _about_what_is_remembered,
        "the statistics go over the batch only, position by position; they go over height and width too":
            _with_dims(0, (-1, 1, 1)),
        "the statistics go over the positions only, image by image; they go over the batch too":
            _with_dims((2, 3)),
        "each image has statistics and a loss of its own, and the mean is taken; the statistics go over the batch too":
            _mean_of_images,
        "the statistics go over the channels, image by image; each channel has its own, over dim=(0, 2, 3)":
            _with_dims((1, 2, 3)),
        "one mean and one variance for all channels; each channel has its own, over dim=(0, 2, 3)":
            _with_dims((0, 1, 2, 3)),
        "running_mean and running_var are exchanged":
            lambda x, mean, var: _apart(*_statistics(x), var, mean),
        "the loss has no gradient: .item(), .detach() or .numpy() cuts the maps off":
            lambda x, mean, var: _apart(*_statistics(x), mean, var).detach(),
    },
)  # fmt: skip
def statistics_loss(maps, running_mean, running_var):
    """How far a batch is from what a batch norm remembers of the images it was trained on (Yin et al. 2020):

        ||mean - running_mean|| + ||var - running_var||,

    with the mean and the variance of each channel over batch, height and width, the variance divided by the number of
    values; ||.|| is the Euclidean length over the channels, not squared.

    maps: (batch, channels, height, width), what goes into the batch norm; running_mean, running_var: (channels,).
    Returns one number, whose gradient leads to the maps.
    """
    # --- your code
    mean = maps.mean(dim=(0, 2, 3))
    var = maps.var(dim=(0, 2, 3), unbiased=False)
    return (mean - running_mean).norm() + (var - running_var).norm()
    # --- end
