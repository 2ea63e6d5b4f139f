"""Answers to the exercise of lesson 09 about the statistics that a batch norm remembers."""

import torch
import torch.nn.functional as F

from answers import Answers


def rows(maps):
    """(channels, values)"""
    return maps.transpose(0, 1).flatten(1)


def by_rows(maps, running_mean, running_var):
    var, mean = torch.var_mean(rows(maps), dim=1, correction=0)
    return torch.linalg.vector_norm(mean - running_mean) + torch.linalg.vector_norm(running_var - var)


def by_hand(maps, running_mean, running_var):
    mean = maps.double().mean((0, 2, 3), keepdim=True)
    var = ((maps - mean) ** 2).mean((0, 2, 3))
    return ((mean.squeeze() - running_mean) ** 2).sum() ** 0.5 + ((var - running_var) ** 2).sum() ** 0.5


def by_moments(maps, running_mean, running_var):
    n = maps.numel() / maps.shape[1]
    mean = maps.double().sum((0, 2, 3)) / n
    var = maps.double().pow(2).sum((0, 2, 3)) / n - mean**2
    return torch.dist(mean, running_mean.double()) + torch.dist(var, running_var.double())


def by_a_loop(maps, running_mean, running_var):
    means = torch.stack([maps[:, channel].mean() for channel in range(maps.shape[1])])
    variances = torch.stack([maps[:, channel].var(unbiased=False) for channel in range(maps.shape[1])])
    return torch.norm(means - running_mean, 2) + torch.norm(variances - running_var, p=2)


def statistics(maps):
    table = rows(maps)
    return table.mean(1), table.std(1, unbiased=False) ** 2


def compared(measure, of=statistics):
    """An answer that measures the differences of the statistics of its own."""

    def answer(maps, running_mean, running_var):
        mean, var = of(maps)
        return measure(mean, running_mean) + measure(var, running_var)

    return answer


def length(a, b):
    return (a - b).square().sum().sqrt()


def over(dims, **how):
    return lambda maps: (maps.mean(dims, **how), maps.var(dims, unbiased=False, **how))


def positions_of(maps, mean, var):
    shape = (1, -1, 1, 1)
    return compared(length, over(0, keepdim=True))(maps, mean.view(shape), var.view(shape))


def images_apart(maps, mean, var):
    return sum(by_rows(one[None], mean, var) for one in maps) / len(maps)


def together(maps, mean, var):
    mine, variance = statistics(maps)
    return torch.sqrt((mine - mean).square().sum() + (variance - var).square().sum())


def around_what_is_remembered(maps, mean, var):
    variance = (rows(maps) - mean[:, None]).square().mean(1)
    return length(rows(maps).mean(1), mean) + length(variance, var)


STATISTICS_LOSS = Answers(
    wrong={
        "the number of values less one": compared(length, lambda x: (x.mean((0, 2, 3)), x.var((0, 2, 3)))),
        "the lengths are squared": compared(lambda a, b: F.mse_loss(a, b, reduction="sum")),
        "the mean of the squared differences": compared(F.mse_loss),
        "the root is taken of the mean": compared(lambda a, b: F.mse_loss(a, b).sqrt()),
        "the mean of the absolute differences": compared(F.l1_loss),
        "the sum of the absolute differences": compared(lambda a, b: torch.dist(a, b, p=1)),
        "the largest difference of a channel": compared(lambda a, b: (a - b).abs().max()),
        "and cancel; their length is asked for": compared(lambda a, b: (a - b).sum()),
        "a number for each channel": compared(lambda a, b: (a - b).square().sqrt()),
        "have one length together": together,
        "the lengths are subtracted": compared(lambda a, b: torch.abs(a.norm() - b.norm())),
        "standard deviations are compared": lambda x, mean, var: compared(
            length, lambda x: (x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)))(x, mean, var**0.5),
        "compared with running_var, which is a variance": compared(
            length, lambda x: (x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0))),
        "the variance is missing": lambda x, mean, var: length(rows(x).mean(1), mean),
        "the mean is missing": lambda x, mean, var: length(rows(x).var(1, unbiased=False), var),
        "the mean of the squares is no variance": compared(
            length, lambda x: (x.mean((0, 2, 3)), (x * x).mean((0, 2, 3)))),
        "the variance goes around running_mean": around_what_is_remembered,
        "over the batch only": positions_of,
        "over the positions only": compared(length, over((2, 3))),
        "each image has statistics and a loss of its own": images_apart,
        "over the channels, image by image": compared(length, over((1, 2, 3))),
        "one mean and one variance for all channels": compared(length, over((0, 1, 2, 3))),
        "running_mean and running_var are exchanged": lambda x, mean, var: by_rows(x, var, mean),
        "the loss has no gradient": lambda x, mean, var: by_hand(x, mean, var).item(),
        "cuts the maps off": lambda x, mean, var: by_moments(x.detach(), mean, var),
        "It is 0.5 times the right result": lambda x, mean, var: by_a_loop(x, mean, var) / 2,
        "It changes its inputs in place": lambda x, mean, var: by_rows(x.sub_(1), mean - 1, var),
    },
    right=[by_rows, by_hand, by_moments, by_a_loop],
)  # fmt: skip
