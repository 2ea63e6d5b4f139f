"""Answers to the exercises of lesson 04."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from answers import Answers

# ------------------------------------------------------------------ attention_rows


def place_by_place(features):
    rows = []
    for image in features:
        row = [sum(value**2 for value in place) for place in image.flatten(1).T]
        rows.append(torch.stack(row) / torch.stack(row).square().sum().sqrt())
    return torch.stack(rows)


def by_einsum(features):
    energy = torch.einsum("nchw,nchw->nhw", features, features).reshape(len(features), -1)
    return energy / torch.linalg.vector_norm(energy, dim=1, keepdim=True)


ATTENTION_ROWS = Answers(
    wrong={
        "the maps are not normalised": lambda f: f.pow(2).sum(1).flatten(1),
        "the absolute value instead of the square": lambda f: F.normalize(f.abs().sum(1).flatten(1), dim=1),
        "the features are summed before they are squared": lambda f: F.normalize((f.sum(1) ** 2).flatten(1), dim=1),
        "its second argument is p, not dim": lambda f: F.normalize(f.pow(2).sum(1).flatten(1), 1),
        "each image has a norm of its own": lambda f: f.pow(2).sum(1).flatten(1) / f.pow(2).sum(1).norm(),
        "is of shape (3, 5, 5)": lambda f: f.pow(2).sum(1) / f.pow(2).sum(1).flatten(1).norm(dim=1)[:, None, None],
        "is of shape (3, 4)": lambda f: F.normalize(f.pow(2).sum((2, 3)), dim=1),
        "the result contains": lambda f: F.normalize(f.pow(4).sum(1).flatten(1), dim=1),
    },
    right=[place_by_place, by_einsum],
)

# ------------------------------------------------------------------ hint_with_regressor


def by_a_class(loss, layer=nn.Conv2d, **convolution):
    """An answer in the form of the stub: `loss` of the regressor and of both maps."""

    def build(student_channels, teacher_channels):
        class Hint(nn.Module):
            def __init__(self):
                super().__init__()
                settings = {"kernel_size": 1, **convolution}
                self.regressor = layer(student_channels, teacher_channels, **settings)

            def forward(self, student_maps, teacher_maps):
                return loss(self.regressor, student_maps, teacher_maps)

        return Hint()

    return build


def squares(regressor, student, teacher):
    return (regressor(student) - teacher.detach()) ** 2


def right_loss(regressor, student, teacher):
    return squares(regressor, student, teacher).mean()


def two_convolutions(student_channels, teacher_channels, kernel_size):
    channels = [student_channels, teacher_channels, teacher_channels]
    return nn.Sequential(*(nn.Conv2d(a, b, kernel_size) for a, b in itertools.pairwise(channels)))


class Averaged(nn.Module):
    """A layer without weights, after which the channels fit by broadcasting."""

    def __init__(self, *_, **__):
        super().__init__()

    def forward(self, maps):
        return maps.mean(dim=1, keepdim=True)


def a_convolution_itself(student_channels, teacher_channels):
    class Hint(nn.Conv2d):
        def forward(self, student_maps, teacher_maps):
            with torch.no_grad():
                target = teacher_maps.clone()
            return (super().forward(student_maps) - target).pow(2).mean()

    return Hint(student_channels, teacher_channels, 1)


class LinearAtEachPlace(nn.Module):
    """A 1x1 convolution is the same linear layer at each position."""

    def __init__(self, student_channels, teacher_channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(teacher_channels, student_channels) / student_channels)
        self.bias = nn.Parameter(torch.zeros(teacher_channels))
        self.compare = nn.MSELoss()

    def forward(self, student_maps, teacher_maps):
        rows = F.linear(student_maps.movedim(1, -1), self.weight, self.bias)
        return self.compare(rows, teacher_maps.detach().movedim(1, -1))


def a_module_by_hand(student_channels, teacher_channels):
    module = nn.Module()
    module.add_module("one by one", nn.Sequential(nn.Conv2d(student_channels, teacher_channels, (1, 1))))
    module.forward = lambda student, teacher: (
        squares(module.get_submodule("one by one"), student, teacher).flatten(1).mean(1).mean()
    )
    return module


def a_function(student_channels, teacher_channels):
    regressor = nn.Conv2d(student_channels, teacher_channels, 1)
    return lambda student_maps, teacher_maps: squares(regressor, student_maps, teacher_maps).mean()


def the_class_and_not_an_object(student_channels, teacher_channels):
    return type(by_a_class(squares)(student_channels, teacher_channels))


def made_in_forward(student_channels, teacher_channels):
    class Hint(nn.Module):
        def forward(self, student_maps, teacher_maps):
            self.regressor = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)
            return squares(self.regressor, student_maps, teacher_maps).mean()

    return Hint()


def without_a_regressor(student_channels, teacher_channels):
    class Hint(nn.Module):
        def forward(self, student_maps, teacher_maps):
            return F.mse_loss(self.regressor(student_maps), teacher_maps.detach())

    return Hint()


def the_other_way(student_channels, teacher_channels):
    return by_a_class(lambda r, s, t: F.mse_loss(r(t.detach()), s))(teacher_channels, student_channels)


HINT_WITH_REGRESSOR = Answers(
    wrong={
        "It returns no module": a_function,
        "an object of a class made from nn.Module": the_class_and_not_an_object,
        "It has no weights that are trained": made_in_forward,
        "a regressor made in forward is a new one": by_a_class(right_loss, Averaged),
        "object has no attribute 'regressor'": without_a_regressor,
        "the gradient reaches the teacher": by_a_class(lambda r, s, t: F.mse_loss(r(s), t)),
        "no gradient reaches the student": by_a_class(lambda r, s, t: right_loss(r, s.detach(), t)),
        "the loss has no gradient": by_a_class(lambda r, s, t: squares(r, s, t).mean().item()),
        "cuts off the student and the regressor": by_a_class(lambda r, s, t: squares(r, s, t).mean().detach()),
        "the teacher's maps go through the regressor": the_other_way,
        "nine times the weights": by_a_class(right_loss, kernel_size=3, padding=1),
        "the convolution has no bias": by_a_class(right_loss, bias=False),
        "a ReLU behind the regressor": by_a_class(lambda r, s, t: F.mse_loss(r(s).clamp(min=0), t.detach())),
        "the absolute error": by_a_class(lambda r, s, t: (r(s) - t.detach()).abs().mean()),
        "their mean is asked for": by_a_class(lambda r, s, t: F.mse_loss(r(s), t.detach(), reduction="sum")),
        "averaged over the batch": by_a_class(lambda r, s, t: squares(r, s, t).flatten(1).sum(1).mean()),
        "divide by the channels too": by_a_class(lambda r, s, t: squares(r, s, t).sum(dim=1).mean()),
        "without a factor 1/2": by_a_class(lambda r, s, t: 0.5 * squares(r, s, t).mean()),
        "the mean of the squares itself": by_a_class(lambda r, s, t: F.mse_loss(r(s), t.detach()) ** 0.5),
        "each number has its own target": by_a_class(lambda r, s, t: (r(s).mean() - t.detach().mean()) ** 2),
        "it should be a single number": by_a_class(squares),
        "The number of weights that are trained contains": by_a_class(right_loss, two_convolutions),
        "changes its inputs in place": by_a_class(lambda r, s, t: squares(r, s.mul_(2), t).mean()),
    },
    right=[by_a_class(right_loss), a_convolution_itself, LinearAtEachPlace, a_module_by_hand],
)  # fmt: skip

# ------------------------------------------------------------------ repair_similarity


def similarity(student, teacher, norm=lambda gram: gram.norm(dim=1, keepdim=True)):
    grams = [torch.einsum("i...,j...->ij", features, features) for features in (student, teacher)]
    one, other = (gram / norm(gram) for gram in grams)
    return (one - other).pow(2)


def pair_by_pair(student, teacher):
    total = 0
    for i in range(len(student)):
        rows = []
        for features in (student, teacher):
            row = torch.stack([(features[i] * other).sum() for other in features])
            rows.append(row / row.square().sum() ** 0.5)
        total = total + ((rows[0] - rows[1]) ** 2).mean()
    return total / len(student)


REPAIR_SIMILARITY = Answers(
    wrong={
        "It still does what it did": lambda s, t: similarity(s, t, lambda g: g.abs().sum(1, keepdim=True)).mean(),
        "no row is divided by anything now": lambda s, t: similarity(s, t, lambda gram: 1).mean(),
        "the whole matrix is divided by its norm": lambda s, t: similarity(s, t, torch.norm).mean(),
        "by the squared batch got lost": lambda s, t: similarity(s, t).sum(),
        "by the batch, not by its square": lambda s, t: similarity(s, t).sum(1).mean(),
        "It is 2 times the right result": lambda s, t: 2 * similarity(s, t).mean(),
        "the loss contains": lambda s, t: similarity(s, t).sqrt().mean(),
        "it should be a single number": similarity,
    },
    right=[lambda s, t: similarity(s, t).mean(), pair_by_pair],
)

# ------------------------------------------------------------------ recall_at_one


def image_by_image(embeddings, labels):
    hits = 0
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        cosines = [F.cosine_similarity(embeddings[i], embeddings[j], dim=0) for j in others]
        hits += int(labels[others[int(np.argmax(cosines))]] == labels[i])
    return hits / len(labels)


def by_distances_on_the_sphere(embeddings, labels):
    rows = embeddings / embeddings.norm(dim=1, keepdim=True)
    distances = torch.cdist(rows, rows) + 9 * torch.eye(len(rows))
    return (labels[distances.argmin(dim=1)] == labels).double().mean()


def in_numpy(embeddings, labels):
    rows = embeddings.numpy() / np.linalg.norm(embeddings.numpy(), axis=1)[:, None]
    second = np.argsort(-rows @ rows.T, axis=1)[:, 1]
    return np.mean(labels.numpy()[second] == labels.numpy())


def nearest(similarity, diagonal=-9e9):
    outside = ~torch.eye(len(similarity), dtype=torch.bool)
    return torch.where(outside, similarity, torch.tensor(float(diagonal))).topk(1).indices[:, 0]


def cosines(embeddings):
    return F.cosine_similarity(embeddings[:, None], embeddings[None], dim=2)


def hits(found, labels):
    return (labels == labels[found]).float()


RECALL_AT_ONE = Answers(
    wrong={
        "every image finds itself": lambda e, y: hits(cosines(e).max(dim=1).indices, y).mean(),
        "above every cosine of an image that all others point away from": lambda e, y: hits(
            nearest(cosines(e), 0), y).mean(),
        "a long embedding is near to everything": lambda e, y: hits(nearest(e @ e.T), y).mean(),
        "the dot product, and 0 on its diagonal": lambda e, y: hits(nearest(e @ e.T, 0), y).mean(),
        "the cosine does not know how long they are": lambda e, y: hits(
            nearest(-(e[:, None] - e[None]).norm(dim=2)), y).mean(),
        "is p, not dim": lambda e, y: hits(nearest(F.normalize(e, 1) @ F.normalize(e, 1).T), y).mean(),
        "each image, a row, has a length": lambda e, y: hits(
            nearest((e / e.norm(dim=0)) @ (e / e.norm(dim=0)).T), y).mean(),
        "the farthest image": lambda e, y: hits(cosines(e).min(dim=1).indices, y).mean(),
        "the number of hits": lambda e, y: hits(nearest(cosines(e)), y).sum(),
        "in percent": lambda e, y: 100 * image_by_image(e, y),
        "the images that miss": lambda e, y: 1 - image_by_image(e, y),
        "is compared with a label": lambda e, y: (nearest(cosines(e)) == y).float().mean(),
        "with the image's own number": lambda e, y: (nearest(cosines(e)) == torch.arange(len(y))).float().mean(),
        "the answer for each image": lambda e, y: hits(nearest(cosines(e)), y),
        "the result contains": lambda e, y: hits(nearest(cosines(e).abs()), y).mean(),
        "is a list": lambda e, y: (image_by_image(e, y), [1]),
    },
    right=[image_by_image, by_distances_on_the_sphere, in_numpy],
)  # fmt: skip

ANSWERS = {
    "attention_rows": ATTENTION_ROWS,
    "hint_with_regressor": HINT_WITH_REGRESSOR,
    "repair_similarity": REPAIR_SIMILARITY,
    "recall_at_one": RECALL_AT_ONE,
}
