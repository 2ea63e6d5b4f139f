"""Answers to the exercises of lesson 07."""

import random

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from answers import Answers
from answers.lesson07_targets import STORED_TARGET_LOSS
from kdlib.data.augment import random_crop_flip
from kdlib.training import schedules

# ------------------------------------------------------------------ repair_annealing


def by_steps(start, end, epochs):
    temperatures = [start]
    while len(temperatures) < epochs:
        temperatures.append(temperatures[-1] + (end - start) / (epochs - 1))
    return temperatures


def by_the_schedule(start, end, epochs):
    line = schedules.linear(start, end)
    return tuple(line(0.0 if epochs == 1 else epoch / (epochs - 1)) for epoch in range(epochs))


def annealing(last=None, progress=None, hold=None, epochs_of=range):
    """The class of the exercise, which stores what `last` makes of start and end."""

    class Annealing:
        def __init__(self, start, end, epochs):
            self.start, self.epochs = start, epochs
            self.end = end if last is None else last(start, end)

        def temperature(self, epoch):
            share = epoch / self.epochs if progress is None else progress(epoch, self.epochs)
            value = self.start + (self.end - self.start) * share
            return value if hold is None else hold(self.end, value)

    def answer(start, end, epochs):
        mine = Annealing(start, end, epochs)
        return [mine.temperature(epoch) for epoch in epochs_of(epochs)]

    return answer


def another_attribute_missing(start, end, epochs):
    class Annealing:
        def __init__(self):
            self.final = end

        def temperature(self, epoch):
            return start + (self.end - start) * epoch / epochs

    return [Annealing().temperature(epoch) for epoch in range(epochs)]


def with_the_end_put_in(start, end, epochs):
    temperatures = annealing()(start, end, epochs)
    temperatures[-1] = end
    return temperatures


def to_the_end_at_once(start, end, epochs):
    return [end] if epochs == 1 else by_steps(start, end, epochs)


def all_but_one(epoch, epochs):
    return epoch / max(epochs - 1, 1)


REPAIR_ANNEALING = Answers(
    wrong={
        "It still does what it did": another_attribute_missing,
        "the last epoch does not reach `end`": annealing(),
        "the first one is a step away from `start`": annealing(progress=lambda epoch, n: (epoch + 1) / n),
        "it divides by 0": annealing(progress=lambda epoch, n: epoch / (n - 1)),
        "with a single epoch it gives `end`": to_the_end_at_once,
        "but a rising one is at `end`": annealing(progress=all_but_one, hold=max),
        "and a falling one still does not reach it": annealing(hold=max),
        "but a falling one is at `end`": annealing(progress=all_but_one, hold=min),
        "epochs + 1 temperatures": annealing(epochs_of=lambda n: range(n + 1)),
        "put in by hand": with_the_end_put_in,
        "divide with / and not with //": annealing(progress=lambda epoch, n: epoch // max(n - 1, 1)),
        "`end` comes in nowhere": annealing(last=lambda start, end: start),
        "it ends at 1 whatever": annealing(last=lambda start, end: 1.0, progress=all_but_one),
        "which abs takes away": annealing(last=lambda start, end: start - abs(end - start), progress=all_but_one),
        "start and end are exchanged": lambda s, e, n: np.linspace(e, s, n) if n > 1 else [s],
        "the one before times a factor": lambda s, e, n: np.geomspace(s, e, n),
        "along a cosine": lambda s, e, n: s + (e - s) * np.sin(np.linspace(0, np.pi / 2, n)) ** 2,
        "is a single number; it should be of shape (5,)": lambda s, e, n: (s + e) / 2,
        "contains 10 where 1 should be": lambda s, e, n: np.full(n, 10.0),
        "a generator comes back; return a list": lambda s, e, n: (t for t in by_steps(s, e, n)),
        "a map comes back; return a list": lambda s, e, n: map(float, by_steps(s, e, n)),
        "a dict comes back; return a list": lambda s, e, n: dict(enumerate(by_steps(s, e, n))),
        "a function comes back; return a list": lambda s, e, n: lambda epoch: by_steps(s, e, n)[epoch],
        "the list holds a str where a number": lambda s, e, n: [str(t) for t in by_steps(s, e, n)],
        "the list holds a list where a number": lambda s, e, n: [[t] for t in by_steps(s, e, n)],
    },
    right=[
        lambda s, e, n: np.linspace(s, e, n), lambda s, e, n: torch.linspace(s, e, n), by_steps, by_the_schedule,
        lambda s, e, n: torch.linspace(s, e, n, requires_grad=True), lambda s, e, n: [*torch.linspace(s, e, n)],
        lambda s, e, n: pd.Series(by_steps(s, e, n)),
    ],
)  # fmt: skip

# ------------------------------------------------------------------ teacher_spread


def in_numpy(probabilities, group):
    rows = probabilities.double().numpy()
    means = [rows[i : i + group].mean(axis=0) for i in range(0, len(rows) - group + 1, group)]
    return np.std(means, axis=0, ddof=1).mean()


def by_pooling(probabilities, group):
    means = F.avg_pool1d(probabilities.T, group).T  # drops what is left over
    return float(means.var(0).sqrt().mean())


def by_split(probabilities, group):
    parts = [part for part in probabilities.split(group) if len(part) == group]
    means = torch.stack([part.sum(0) / group for part in parts])
    centred = means - means.mean(0)
    return (centred.square().sum(0) / (len(parts) - 1)).sqrt().mean()


def grouped(probabilities, group):
    count = probabilities.shape[0] // group
    return probabilities[: count * group].view(count, group, probabilities.shape[1])


def kept_from_the_end(probabilities, group):
    return probabilities[probabilities.shape[0] % group :].view(-1, group, probabilities.shape[1])


def into_so_many(probabilities, groups):
    size = len(probabilities) // groups
    return torch.stack([probabilities[i * size : (i + 1) * size].mean(0) for i in range(groups)])


def interleaved(probabilities, group):
    count = len(probabilities) // group
    return torch.stack([probabilities[: count * group][i::count].mean(0) for i in range(count)])


TEACHER_SPREAD = Answers(
    wrong={
        "the standard deviation over single views": lambda p, group: p.std(dim=0).mean(),
        "over the views of a group": lambda p, group: grouped(p, group).std(dim=1).mean(),
        "the standard deviation over the classes": lambda p, group: grouped(p, group).mean(1).std(dim=-1).mean(),
        "groups and classes are thrown together": lambda p, group: grouped(p, group).mean(1).std(),
        "ddof=1": lambda p, group: np.std(grouped(p, group).mean(1).numpy(), axis=0).mean(),
        "this is the variance": lambda p, group: grouped(p, group).mean(1).var(dim=0).mean(),
        "the root is taken of the mean variance": lambda p, group: grouped(p, group).mean(1).var(0).mean() ** 0.5,
        "a number for each class": lambda p, group: grouped(p, group).mean(1).std(0),
        "summed over the classes": lambda p, group: grouped(p, group).mean(1).std(0).sum(),
        "the class with the largest": lambda p, group: max(grouped(p, group).mean(1).std(0)),
        "sums of groups": lambda p, group: grouped(p, group).sum(1).std(0).mean(),
        "a group of their own": lambda p, group: np.std(
            [part.mean(0).numpy() for part in p.split(group)], axis=0, ddof=1).mean(),
        "it stops where rows are left over": lambda p, group: p.view(
            len(p) // group, group, p.shape[1]).mean(1).std(0).mean(),
        "drop those at the end": lambda p, group: kept_from_the_end(p, group).mean(1).std(0).mean(),
        "the groups are interleaved": lambda p, group: interleaved(p, group).std(0).mean(),
        "the number of rows in one": lambda p, group: into_so_many(p, group).std(0).mean(),
        "these are probabilities already": lambda p, group: in_numpy(F.softmax(p, dim=-1), group),
        "only the largest probability": lambda p, group: grouped(p, group).amax(2).mean(1).std(),
        "The result contains": lambda p, group: in_numpy(p.log(), group),
        "It is 100 times the right result": lambda p, group: 100 * in_numpy(p, group),
    },
    right=[in_numpy, by_pooling, by_split],
)  # fmt: skip

# ------------------------------------------------------------------ my_augmentation


def each(transform):
    """An answer that takes a transform of torchvision image by image."""
    return lambda images: torch.stack([transform(image) for image in images])


def as_bytes(values):
    return values.round().clamp(0, 255).to(torch.uint8)


def factors(images):
    return torch.empty(len(images), 1, 1, 1).uniform_(0.6, 1.4)


def random_shift(images):
    return torch.stack([image.roll(torch.randint(-2, 3, (2,)).tolist(), (1, 2)) for image in images])


def random_brightness(images):
    return as_bytes(images * factors(images))


def added_noise(images):
    return as_bytes(images + 20 * torch.randn(images.shape))


def shift_and_brightness(images):
    """As the solution has it, by a grid of places."""
    batch, _, height, width = images.shape
    down, right = torch.randint(-3, 4, (2, batch, 1))
    rows, columns = torch.arange(height) + down, torch.arange(width) + right
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None]
    numbers = torch.arange(batch)[:, None, None]
    places = rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    moved = images.permute(0, 2, 3, 1)[(numbers, *places)].permute(0, 3, 1, 2)
    return as_bytes(torch.where(inside, moved, 0) * factors(images))


def erased_squares(images):
    views = images.clone()
    for view in views:
        top, left = torch.randint(0, view.shape[1] - 9, (2,)).tolist()
        view[:, top : top + 10, left : left + 10] = 0
    return views


def in_the_images_themselves(images):
    for image in images:
        if torch.rand(()) < 0.5:
            image.copy_(image.flip(-1))
    return images


def mixed_up(images):
    return as_bytes(images.float().lerp(images[torch.randperm(len(images))].float(), 0.3))


def seeded(images):
    torch.manual_seed(1)
    return random_shift(images)


def by_python(images):
    return torch.stack([image.roll(random.randint(-3, 3), -1) for image in images])


def by_numpy(images):
    noise = np.random.default_rng().normal(0, 20, images.shape)
    return as_bytes(images + torch.from_numpy(noise))


def a_channel_too_few(images):
    return random_shift(images)[:, 0]


def for_grey_images_only(images):
    rows = random_shift(images).view(len(images), 28, 28)
    return rows[:, None]


def without_the_axis_of_one_image(images):
    views = random_shift(images)
    return views[0] if len(views) == 1 else views


MY_AUGMENTATION = Answers(
    wrong={
        "no tensor of uint8": lambda images: images * factors(images),
        "clamp them to 0 ... 255 and end with": lambda images: [random_shift(image[None])[0] for image in images],
        "not the shape of the images": a_channel_too_few,
        "come back as they were": lambda images: images,
        "hardly anything but one grey": lambda images: (images / 255 * factors(images)).to(torch.uint8),
        "one grey is left": torch.zeros_like,
        "values beyond the ends wrap round": lambda images: (images * factors(images)).int().to(torch.uint8),
        "in uint8 255 + 1 is 0": lambda images: images + torch.randint(0, 40, images.shape, dtype=torch.uint8),
        "no picture is left": lambda images: torch.rand(images.shape).mul(255).byte(),
        "or the images changed places": lambda images: images[torch.randperm(len(images))].flip(-1),
        "no nearer to their images than to other ones": lambda images: images.roll(1, 0),
        "two calls give the same views": lambda images: images.flip(-1),
        "set no seed in it": seeded,
        "a view shows other images of the batch as well": mixed_up,
        "RandomHorizontalFlip is a class: make one of it": v2.RandomHorizontalFlip,
        "equal images of a batch get equal views": v2.RandomErasing(p=1.0),
        "draw for each image, not once": lambda images: as_bytes(images * (0.6 + 0.8 * torch.rand(()))),
        "the same torch.manual_seed gives other views": by_numpy,
        "not those of numpy or random": by_python,
        "changes its inputs in place": in_the_images_themselves,
        "That was seen for images of shape (1, 1, 28, 28)": without_the_axis_of_one_image,
        "for images of shape (7, 3, 32, 32)": for_grey_images_only,
    },
    right=[
        random_shift, random_brightness, added_noise, shift_and_brightness, erased_squares,
        random_crop_flip(), random_crop_flip(4, False),
        each(v2.RandomErasing(p=0.5)), each(v2.RandomHorizontalFlip()), each(v2.RandomRotation(15)),
        each(v2.RandomInvert()), each(v2.ColorJitter(0.4, 0.4)), each(v2.AutoAugment()), each(v2.RandAugment()),
    ],
)  # fmt: skip

ANSWERS = {
    "repair_annealing": REPAIR_ANNEALING,
    "teacher_spread": TEACHER_SPREAD,
    "my_augmentation": MY_AUGMENTATION,
    "stored_target_loss": STORED_TARGET_LOSS,
}
