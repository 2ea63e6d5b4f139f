"""Answers to the exercises of lesson 11."""

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from answers import Answers
from answers.lesson11_repair import REPAIR_TEACHER_ANSWERS

# ------------------------------------------------------------------ near_duplicates


def with_loops(small, most):
    numbers, found = small.tolist(), []
    for i, one in enumerate(numbers):
        for j in range(i + 1, len(numbers)):
            differ = 0
            for mine, others in zip(one, numbers[j], strict=True):
                for column in range(8):
                    differ += (mine[column] < mine[column + 1]) != (others[column] < others[column + 1])
            if differ <= most:
                found.append([i, j])
    return found


def with_a_table_of_all(small, most):
    bits = (small[:, :, :-1] < small[:, :, 1:]).flatten(1).float()
    differ = torch.cdist(bits, bits, p=1)
    return torch.nonzero(torch.triu(differ <= most + 0.5, diagonal=1))


def with_numpy(small, most):
    packed = np.packbits(np.diff(small.numpy().astype(int), axis=2) > 0, axis=-1)[:, :, 0]
    differ = np.unpackbits(packed[:, None] ^ packed[None], axis=-1).sum(-1)
    return {(int(i), int(j)) for i, j in zip(*np.nonzero(differ <= most), strict=True) if i < j}


def finds(bits=None, near=lambda differ, most: differ <= most, start=1):
    """start: how far the second image stands behind the first, at least."""

    def find(small, most):
        hashes = small[:, :, 1:] > small[:, :, :-1] if bits is None else bits(small)
        rows = hashes.flatten(1).long()
        return [
            (i, j) for i in range(len(rows)) for j in range(i + start, len(rows))
            if near((rows[i] - rows[j]).abs().sum().item(), most)
        ]  # fmt: skip

    return find


NEAR_DUPLICATES = Answers(
    wrong={
        "only images that differ in fewer bits": finds(near=lambda differ, most: differ < most),
        "only images with the same bits": finds(near=lambda differ, most: not differ),
        "differ in more bits than `most`": finds(near=lambda differ, most: differ >= most),
        "with the one above it": finds(bits=lambda small: small[:, 1:].int() - small[:, :-1].int() > 0),
        "with the mean of its image": finds(bits=lambda small: small > small.float().flatten(1).mean(1)[:, None, None]),
        "is compared with the last one of the row above": finds(bits=lambda small: small.view(-1, 72).int().diff() > 0),
        "begin again at 255": finds(bits=lambda small: small.diff(dim=2) > 0),
        "only images that stand side by side": lambda small, most: [
            pair for pair in with_loops(small, most) if pair[1] - pair[0] == 1],
        "a pair names one image twice": finds(start=0),
        "or both ways round": lambda small, most: [
            pair for i, j in with_loops(small, most) for pair in ((i, j), (j, i))],
        "the smaller number comes first": lambda small, most: [(j, i) for i, j in with_loops(small, most)],
        "names an image that is not there": lambda small, most: [
            (i, j + len(small)) for i, j in with_loops(small, most)],
        "a list of pairs of whole numbers": lambda small, most: len(with_loops(small, most)),
    },
    right=[with_loops, with_a_table_of_all, with_numpy],
)  # fmt: skip

# ------------------------------------------------------------------ centre_square


def with_torchvision(image, size):
    return transforms.center_crop(transforms.resize(image, [size], antialias=True), [size, size])


def cuts_first(image, size):
    channels, height, width = image.shape
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    square = image[:, top : top + shorter, left : left + shorter]
    return torch.nn.functional.interpolate(square[None] / 1.0, (size, size), mode="bicubic", antialias=True)[
        0
    ]


def with_pillow(image, size):
    channels = []
    for channel in image.numpy():
        picture = Image.fromarray(channel)
        shorter = min(picture.size)
        edges = [(side - shorter) / 2 for side in picture.size]
        box = (*edges, *(edge + shorter for edge in edges))
        channels.append(
            torch.tensor(np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box)))
        )
    return torch.stack(channels)


def as_a_fraction(image, size):
    return with_torchvision(image, size) / 255


def slides(image, size):
    """Cut at the right or lower end."""
    pixels = transforms.resize(image, [size], antialias=True)
    return pixels[:, -size:, -size:]


CENTRE_SQUARE = Answers(
    wrong={
        "so that the photograph is squashed": lambda image, size: (
            transforms.resize(image, [size, size], antialias=True)),
        "and nothing is scaled": lambda image, size: transforms.center_crop(image, [size, size])
        if min(image.shape[1:]) >= size else torch.nn.functional.pad(
            image, (0, max(0, size - image.shape[2]), 0, max(0, size - image.shape[1])))[:, :size, :size],
        "at the upper left corner": lambda image, size: (
            transforms.resize(image, [size], antialias=True)[:, :size, :size]),
        "contains": slides,
        "rows and columns are exchanged": lambda image, size: with_torchvision(image, size).mT,
        "is not (channels, size, size)": lambda image, size: transforms.resize(image, [size], antialias=True),
        "a tensor is asked for": lambda image, size: with_torchvision(image, size).tolist(),
        "the numbers go from 0 to 1": as_a_fraction,
    },
    right=[with_torchvision, cuts_first, with_pillow],
)  # fmt: skip

# ------------------------------------------------------------------ disputed_labels


def image_by_image(probabilities, labels):
    rows, own = probabilities.tolist(), labels.tolist()
    thresholds = []
    for c in range(len(rows[0])):
        of_class = [row[c] for row, label in zip(rows, own, strict=True) if label == c]
        thresholds.append(sum(of_class) / len(of_class))
    found = []
    for place, (row, label) in enumerate(zip(rows, own, strict=True)):
        passing = [(p, c) for c, p in enumerate(row) if p >= thresholds[c]]
        if passing and max(passing)[1] != label:
            found.append((max(passing)[0] - row[label], place))
    return [place for _, place in sorted(found, reverse=True)]


def with_one_hot(probabilities, labels):
    is_label = torch.nn.functional.one_hot(labels, probabilities.shape[1]).bool()
    thresholds = (probabilities * is_label).sum(0) / is_label.sum(0)
    left = probabilities.masked_fill(probabilities < thresholds, float("nan")).nan_to_num(-torch.inf)
    margins = left.amax(1) - probabilities[is_label]
    margins[left.argmax(1) == labels] = -torch.inf
    return margins.argsort(descending=True)[: int((margins > -torch.inf).sum())]


def lists(thresholds=None, keeps=lambda passing, label: passing and max(passing)[1] != label, order=None):
    """order(p of the other class, p of the label); thresholds(probabilities, labels)"""

    def find(probabilities, labels):
        if thresholds is None:
            limits = [probabilities[labels == c, c].mean() for c in range(probabilities.shape[1])]
        else:
            limits = thresholds(probabilities, labels)
        found = []
        for place, (row, label) in enumerate(zip(probabilities.tolist(), labels.tolist(), strict=True)):
            passing = [(p, c) for c, p in enumerate(row) if p >= limits[c]]
            if keeps(passing, label):
                best = max(passing)[0] if passing else -1.0
                found.append((order(best, row[label]) if order else row[label] - best, place))
        return [place for _, place in sorted(found)]

    return find


def of_likeliest(probabilities, labels):
    limits = [float(probabilities[labels == c, c].mean()) for c in range(probabilities.shape[1])]
    found = []
    for place, row in enumerate(probabilities.tolist()):
        other = max(range(len(row)), key=row.__getitem__)
        if other != labels[place] and row[other] >= limits[other]:
            found.append((row[other] - row[labels[place]], place))
    return [place for _, place in sorted(found, reverse=True)]


def otherwise_labelled(probabilities, labels):
    best, other = probabilities.max(1)
    margins = best - probabilities[torch.arange(len(labels)), labels]
    found = torch.nonzero(other != labels).flatten()
    return found[margins[found].argsort(descending=True)].tolist()


DISPUTED_LABELS = Answers(
    wrong={
        "that the network would label otherwise": otherwise_labelled,
        "only the likeliest class of all": of_likeliest,
        "the mean of a class over all images": lists(lambda probabilities, labels: probabilities.mean(0).tolist()),
        "the threshold is one half": lists(lambda probabilities, labels: [0.5] * probabilities.shape[1]),
        "of it nothing is said": lists(keeps=lambda passing, label: not passing or max(passing)[1] != label),
        "whose label is NOT disputed": lists(keeps=lambda passing, label: passing and max(passing)[1] == label),
        "the least sure ones come first": lambda probabilities, labels: image_by_image(probabilities, labels)[::-1],
        "in the order of the images": lambda probabilities, labels: sorted(image_by_image(probabilities, labels)),
        "the probability of the other class": lists(order=lambda best, own: -best),
        "the probability of the label": lists(order=lambda best, own: own),
        "a mask comes back": lambda probabilities, labels: torch.isin(
            torch.arange(len(labels)), torch.tensor(image_by_image(probabilities, labels))),
        "a list of positions is asked for": lambda probabilities, labels: dict.fromkeys(
            image_by_image(probabilities, labels)),
        "stands there twice": lambda probabilities, labels: [
            place for place in image_by_image(probabilities, labels) for _ in range(2)],
    },
    right=[image_by_image, with_one_hot, lists()],
)  # fmt: skip

# ------------------------------------------------------------------ what_to_ship

WHAT_TO_SHIP = Answers(
    wrong={
        "does not keep within": lambda: ("A", 90.3),
        "does not keep within 1,000 kB and 10 ms": lambda: ("b", 83.8),
        "the best accuracy on test": lambda: ("F", 83.1),
        "there is a smaller file": lambda: ("E", 82.6),
        "its accuracy on validation": lambda: ("D", 83.6),
        "the number is another one's": lambda: ("D", 82.2),
        "a letter of the table": lambda: ("H", 81.9),
        "the second one is a number": lambda: ("D", "81.9"),
        "two things are asked for": lambda: ("D", 81.9, 95),
    },
    right=[lambda: ["d", 81.9], lambda: ("D", 0.819)],
)

ANSWERS = {
    "near_duplicates": NEAR_DUPLICATES,
    "centre_square": CENTRE_SQUARE,
    "repair_teacher_answers": REPAIR_TEACHER_ANSWERS,
    "disputed_labels": DISPUTED_LABELS,
    "what_to_ship": WHAT_TO_SHIP,
}
