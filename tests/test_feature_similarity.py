"""CKA against formulas written another way, its invariances, and what unrelated features give."""

import math

import numpy as np
import pytest
import torch

from kdlib import features
from kdlib.features import alignment_map, centered_kernel_alignment


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_covariance(x, y):
    """Kornblith et al. 2019, equation 4 for linear kernels, with NumPy: ||Y'X||^2 / (||X'X|| ||Y'Y||)."""
    x, y = (np.asarray(values).reshape(len(values), -1) for values in (x, y))
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def unbiased_by_tuples(kernel, other):
    """HSIC as the mean over all ordered 4-tuples of different images: Song et al. 2012, definition."""
    n, total, count = len(kernel), 0.0, 0
    for i in range(n):
        for j in set(range(n)) - {i}:
            for q in set(range(n)) - {i, j}:
                for r in set(range(n)) - {i, j, q}:
                    total += kernel[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q])
                    count += 1
    return float(total) / count


def test_biased_cka_equals_the_formula_with_covariances():
    for shapes in (((20, 5), (20, 7)), ((6, 3, 4, 4), (6, 40))):
        x, y = random(*shapes[0]), random(*shapes[1], seed=1)
        expected = pytest.approx(by_covariance(x, y), rel=1e-9)
        assert centered_kernel_alignment(x, y, debiased=False) == expected, shapes


def test_debiased_cka_equals_the_mean_over_tuples():
    x, y = random(7, 3) + 5, random(7, 4, seed=1)
    y[:, 0] += x[:, 0]
    k, l = (values @ values.T for values in (x, y))  # noqa: E741
    expected = unbiased_by_tuples(k, l) / math.sqrt(unbiased_by_tuples(k, k) * unbiased_by_tuples(l, l))
    assert centered_kernel_alignment(x, y) == pytest.approx(expected, rel=1e-9)


def test_one_for_rotated_scaled_and_shifted_features():
    x = random(30, 6)
    rotation, _ = torch.linalg.qr(random(6, 6, seed=2))
    for debiased in (True, False):
        value = centered_kernel_alignment(x, 3 * x @ rotation + 7, debiased=debiased)
        assert value == pytest.approx(1, abs=1e-9), debiased


def test_unrelated_features_give_about_zero_only_without_the_bias():
    pairs = [(random(40, 200, seed=2 * n), random(40, 200, seed=2 * n + 1)) for n in range(20)]
    debiased = [centered_kernel_alignment(x, y) for x, y in pairs]
    assert abs(np.mean(debiased)) < 0.01
    assert min(centered_kernel_alignment(x, y, debiased=False) for x, y in pairs) > 0.7


def test_a_large_common_part_does_not_cancel_the_rest():
    x = random(20, 5)
    assert centered_kernel_alignment((x + 1e4).float(), x) == pytest.approx(1, abs=1e-2)


def test_features_that_do_not_vary_have_no_alignment():
    assert math.isnan(centered_kernel_alignment(torch.ones(5, 3), random(5, 3)))


def test_the_map_names_rows_and_columns():
    x, y = {"first": random(10, 3), "second": random(10, 4, seed=1)}, {"only": random(10, 3)}
    table = alignment_map(x, y)
    assert list(table.index) == ["first", "second"] and list(table.columns) == ["only"]
    assert table.loc["first", "only"] == pytest.approx(1)
    assert table.loc["second", "only"] == centered_kernel_alignment(x["second"], y["only"])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"same batch, got shapes \(5, 3\) and \(6, 3\)"):
        centered_kernel_alignment(random(5, 3), random(6, 3))
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        centered_kernel_alignment(random(3, 3), random(3, 3))
    with pytest.raises(ValueError, match="floating-point"):
        centered_kernel_alignment(torch.ones(5, 3, dtype=torch.int64), random(5, 3))


def test_it_is_among_the_features():
    assert features.centered_kernel_alignment is centered_kernel_alignment
