"""Every feature loss against its definition, written again in NumPy with loops, and finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch

from kdlib import features

SHAPES = [(2, 1, 1, 2), (3, 2, 3, 2), (5, 4, 3, 3), (8, 3, 4, 2)]


pytestmark = pytest.mark.usefixtures("one_thread")


def random_maps(shape, seed):
    """Maps as a layer before its ReLU gives them: of both signs, with one zero channel."""
    maps = np.random.default_rng(seed).normal(size=shape)
    if shape[1] > 1:
        maps[0, 0] = 0
    return maps


def unit(vector):
    length = math.sqrt(float((vector**2).sum()))
    return vector / length if length else vector


def rows(maps):
    return maps.reshape(len(maps), -1)


def hint(s, t):
    return ((s - t) ** 2).sum() / s.size


def attention(s, t, power=2):
    distances = [
        math.sqrt(((unit((abs(a) ** power).sum(0)) - unit((abs(b) ** power).sum(0))) ** 2).sum())
        for a, b in zip(s, t, strict=True)
    ]
    return sum(distances) / len(distances)


def mmd(s, t, kernel):
    total = 0.0
    for image_s, image_t in zip(s, t, strict=True):
        ys = [unit(channel.ravel()) for channel in image_s]
        xs = [unit(channel.ravel()) for channel in image_t]
        variance = np.mean([((x - y) ** 2).sum() for x in xs for y in ys])
        functions = {
            "linear": lambda a, b: a @ b,
            "polynomial": lambda a, b: (a @ b) ** 2,
            "gaussian": lambda a, b, v=variance: math.exp(-((a - b) ** 2).sum() / (2 * v)),
        }
        k = functions[kernel]
        total += np.mean([k(a, b) for a in xs for b in xs]) + np.mean([k(a, b) for a in ys for b in ys])
        total -= 2 * np.mean([k(a, b) for a in xs for b in ys])
    return total / len(s)


def similarity(s, t):
    total = 0.0
    for row_s, row_t in zip(rows(s) @ rows(s).T, rows(t) @ rows(t).T, strict=True):
        total += ((unit(row_s) - unit(row_t)) ** 2).sum()
    return total / len(s) ** 2


def huber(difference):
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def relational(s, t, distance_weight, angle_weight):
    s, t, n = rows(s), rows(t), len(s)

    def distances(x):
        matrix = np.array([[math.sqrt(((x[i] - x[j]) ** 2).sum()) for j in range(n)] for i in range(n)])
        return matrix / (matrix.sum() / (n * (n - 1)))

    def cosine(x, i, j, k):
        return unit(x[i] - x[j]) @ unit(x[k] - x[j])

    ds, dt = distances(s), distances(t)
    distance = sum(huber(ds[i, j] - dt[i, j]) for i in range(n) for j in range(n) if i != j)
    triples = [(i, j, k) for i in range(n) for j in range(n) for k in range(n) if len({i, j, k}) == 3]
    angle = sum(huber(cosine(s, *triple) - cosine(t, *triple)) for triple in triples)
    return distance_weight * distance / n**2 + angle_weight * angle / n**3


def probabilistic(s, t, include_self):
    s, t, n = rows(s), rows(t), len(s)
    total = 0.0
    for i in range(n):
        others = [j for j in range(n) if include_self or j != i]
        p = np.array([(unit(t[i]) @ unit(t[j]) + 1) / 2 for j in others])
        q = np.array([(unit(s[i]) @ unit(s[j]) + 1) / 2 for j in others])
        p, q = p / p.sum(), q / q.sum()
        total += (p * np.log(p / q)).sum()
    return total / n


def congruence(s, t, gamma, order):
    def kernel(a, b):
        c = unit(a) @ unit(b)
        return math.exp(-2 * gamma) * sum((2 * gamma * c) ** n / math.factorial(n) for n in range(order + 1))

    s, t, n = rows(s), rows(t), len(s)
    return sum((kernel(s[i], s[j]) - kernel(t[i], t[j])) ** 2 for i in range(n) for j in range(n)) / n**2


def variational(prediction, t, variance):
    v = variance[None, :, None, None] * np.ones_like(t)
    return (np.log(np.sqrt(v)) + (t - prediction) ** 2 / (2 * v)).sum() / t.size


def contrastive(s, t, temperature, dataset_size, labels):
    s, t, n = rows(s), rows(t), len(s)
    total = 0.0
    for i in range(n):
        negatives = [j for j in range(n) if labels[j] != labels[i]]
        e = [math.exp(unit(t[i]) @ unit(s[j]) / temperature) for j in range(n)]
        h = [odds / (odds + len(negatives) / dataset_size) for odds in e]
        total -= math.log(h[i]) + sum(math.log(1 - h[j]) for j in negatives)
    return total / n


def flow(s, t):
    total, count = 0.0, 0
    for image in range(len(s[0])):
        for i in range(s[0].shape[1]):
            for j in range(s[1].shape[1]):
                g_s, g_t = ((a[image, i] * b[image, j]).mean() for a, b in (s, t))
                total, count = total + (g_s - g_t) ** 2, count + 1
    return total / count


# name: (loss of kdlib, the same by hand, may the channels differ, may everything but the batch differ)
PAIRS = {
    "hint": (features.hint_loss, hint, "same"),
    "attention": (features.attention_transfer_loss, attention, "channels"),
    "attention, power 1": (
        lambda s, t: features.attention_transfer_loss(s, t, power=1),
        lambda s, t: attention(s, t, 1),
        "channels",
    ),
    "mmd polynomial": (features.mmd_loss, lambda s, t: mmd(s, t, "polynomial"), "channels"),
    "mmd linear": (
        lambda s, t: features.mmd_loss(s, t, kernel="linear"),
        lambda s, t: mmd(s, t, "linear"),
        "channels",
    ),
    "mmd gaussian": (
        lambda s, t: features.mmd_loss(s, t, kernel="gaussian"),
        lambda s, t: mmd(s, t, "gaussian"),
        "channels",
    ),
    "similarity": (features.similarity_loss, similarity, "free"),
    "relational": (features.relational_loss, lambda s, t: relational(s, t, 25, 50), "free"),
    "relational distance": (
        lambda s, t: features.relational_loss(s, t, distance_weight=1, angle_weight=0),
        lambda s, t: relational(s, t, 1, 0),
        "free",
    ),
    "relational angle": (
        lambda s, t: features.relational_loss(s, t, distance_weight=0, angle_weight=1),
        lambda s, t: relational(s, t, 0, 1),
        "free",
    ),
    "probabilistic": (
        features.probabilistic_transfer_loss,
        lambda s, t: probabilistic(s, t, False),
        "free",
    ),
    "probabilistic with self": (
        lambda s, t: features.probabilistic_transfer_loss(s, t, include_self=True),
        lambda s, t: probabilistic(s, t, True),
        "free",
    ),
    "congruence": (features.correlation_congruence_loss, lambda s, t: congruence(s, t, 0.4, 2), "free"),
    "congruence, order 4": (
        lambda s, t: features.correlation_congruence_loss(s, t, gamma=1.5, order=4),
        lambda s, t: congruence(s, t, 1.5, 4),
        "free",
    ),
}


def pair_of(shape, freedom, seed=0):
    batch, channels, height, width = shape
    teacher_shape = {
        "same": shape,
        "channels": (batch, channels + 2, height, width),
        "free": (batch, channels + 2, height + 1, width),
    }[freedom]
    return random_maps(shape, seed), random_maps(teacher_shape, seed + 1)


def tensors(*arrays, dtype=torch.float64):
    return [torch.from_numpy(array).to(dtype) for array in arrays]


@pytest.mark.parametrize("name", PAIRS)
def test_equals_the_definition(name):
    loss, reference, freedom = PAIRS[name]
    for shape in SHAPES:
        s, t = pair_of(shape, freedom)
        assert loss(*tensors(s, t)).item() == pytest.approx(reference(s, t), rel=1e-6, abs=1e-12), shape
    # In float32 of the last shape:
    value = loss(*tensors(s, t, dtype=torch.float32))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(reference(s, t), rel=2e-4)


def test_gradient_equals_finite_differences():
    for name, (loss, _, freedom) in PAIRS.items():
        s, t = tensors(*pair_of((4, 2, 2, 2), freedom, seed=3))
        s = s + 0.05  # no exactly zero channel: there the definition has no gradient
        assert torch.autograd.gradcheck(lambda x, loss=loss, t=t: loss(x, t), s.requires_grad_()), name


def test_equal_features_give_zero_and_no_gradient():
    for name, (loss, _, _) in PAIRS.items():
        for dtype in (torch.float32, torch.float64):
            (s,) = tensors(random_maps((4, 3, 3, 3), 5), dtype=dtype)
            value = loss(s.requires_grad_(), s.detach().clone())
            value.backward()
            assert abs(value.item()) < 1e-6, (name, dtype)
            assert s.grad.abs().max() < 1e-5, (name, dtype)


def heat(maps, gradients):
    total = sum(gradient.mean() * channel for channel, gradient in zip(maps, gradients, strict=True))
    return np.maximum(total, 0)


def test_gradcam_transfer_equals_the_definition():
    for shape in SHAPES:
        s, t = pair_of(shape, "channels")
        gs, gt = pair_of(shape, "channels", seed=7)
        heats = [(heat(*image[:2]), heat(*image[2:])) for image in zip(s, gs, t, gt, strict=True)]
        expected = np.mean([math.sqrt(((unit(a) - unit(b)) ** 2).sum()) for a, b in heats])
        value = features.gradcam_transfer_loss(*tensors(s, t, gs, gt))
        assert value.item() == pytest.approx(expected, rel=1e-6), shape


def test_gradcam_gradient_equals_finite_differences():
    # Positive, so that every position of the map is; a map of one position has length 1 and no gradient.
    s, t = (x.abs() + 0.1 for x in tensors(*pair_of((3, 2, 2, 2), "channels")))
    gs, gt = (x.abs() + 0.1 for x in tensors(*pair_of((3, 2, 2, 2), "channels", seed=7)))
    inputs = s.requires_grad_(), gs.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, g: features.gradcam_transfer_loss(x, t, g, gt), inputs)


def test_variational_information_equals_the_definition():
    for shape in SHAPES:
        prediction, t = pair_of(shape, "same")
        variance = np.random.default_rng(2).uniform(0.1, 3, size=shape[1])
        value = features.variational_information_loss(*tensors(prediction, t, variance))
        assert value.item() == pytest.approx(variational(prediction, t, variance), rel=1e-6), shape


def test_variational_information_gradient_equals_finite_differences():
    prediction, t = tensors(*pair_of((2, 3, 2, 2), "same"))
    variance = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m, v: features.variational_information_loss(m, t, v), (prediction.requires_grad_(), variance)
    )


def test_contrastive_equals_the_definition():
    for batch, dataset_size, with_labels in itertools.product((2, 5, 9), (None, 500), (False, True)):
        s, t = pair_of((batch, 7, 1, 1), "same")
        labels = np.arange(batch) % 3 if with_labels else np.arange(batch)
        value = features.contrastive_loss(
            *(x.flatten(1) for x in tensors(s, t)),
            labels=torch.from_numpy(labels) if with_labels else None,
            temperature=0.2,
            dataset_size=dataset_size,
        )
        expected = contrastive(s, t, 0.2, dataset_size or batch, labels)
        assert value.item() == pytest.approx(expected, rel=1e-6), (batch, dataset_size, with_labels)


def test_contrastive_gradient_equals_finite_differences():
    s, t = (x.flatten(1) for x in tensors(*pair_of((4, 3, 1, 1), "same", seed=4)))
    s = s.detach() + 0.1
    assert torch.autograd.gradcheck(lambda x: features.contrastive_loss(x, t), s.requires_grad_())


def test_flow_equals_the_definition():
    for shape in SHAPES:
        first_s, first_t = pair_of(shape, "same")
        wider = (shape[0], shape[1] + 1, *shape[2:])
        second_s, second_t = pair_of(wider, "same", seed=3)
        student, teacher = tuple(tensors(first_s, second_s)), tuple(tensors(first_t, second_t))
        expected = flow((first_s, second_s), (first_t, second_t))
        assert features.flow_loss(student, teacher).item() == pytest.approx(expected, rel=1e-6), shape
        assert features.flow_loss(student, student).item() == 0, shape


def test_flow_counts_errors_above_what_a_float32_can_square_linearly():
    # One channel and position: the matrix is the product of the two layers.
    student, teacher = torch.tensor([[[[4e9]]]]).requires_grad_(), torch.zeros(1, 1, 1, 1)
    value = features.flow_loss((student, torch.ones(1, 1, 1, 1)), (teacher, teacher))
    value.backward()
    assert value.item() == pytest.approx(2 * 1e7 * 4e9 - 1e14, rel=1e-6)
    assert student.grad.item() == pytest.approx(2e7, rel=1e-6)


def test_flow_pools_the_larger_map_by_its_maximum():
    large = torch.tensor([[[[1.0, 5.0], [2.0, 3.0]]]])
    small = torch.tensor([[[[4.0]]]])
    assert features.flow_matrix(large, small).item() == 20
    assert features.flow_matrix(small, large).item() == 20


def test_flow_gradient_equals_finite_differences():
    first, second = tensors(random_maps((2, 2, 4, 4), 0), random_maps((2, 3, 2, 2), 1))
    teacher = tuple(tensors(random_maps((2, 2, 4, 4), 2), random_maps((2, 3, 2, 2), 3)))
    first[0, 0] = torch.arange(16.0).view(4, 4)  # no ties in the maximum
    inputs = first.requires_grad_(), second.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: features.flow_loss((a, b), teacher), inputs)
