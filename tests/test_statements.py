"""Ratios in words, and batch norm folded into convolutions."""

import pandas
import pytest
import torch
from torch import nn

from kdlib.deploy import benchmark
from kdlib.deploy.compress import fold_norms
from kdlib.deploy.statements import stated


def measured(slow, fast):
    rounds = pandas.DataFrame({"slow": slow, "fast": fast})
    return benchmark.Latencies(rounds, batch_size=1, image_shape=(1, 28, 28), threads=1, clock="perf_counter_ns")


def test_a_ratio_is_told_with_its_interval():
    found = stated(measured([6.0] * 9, [2.0] * 9), "slow", "fast")
    assert found.words == "3.00 [3.00, 3.00]" and found.ends == (3.0, 3.0, 3.0) and found.ratio.median == 3


def test_a_ratio_that_scatters_is_not_told_but_why():
    found = stated(measured([1.0, 9.0] * 6, [1.0] * 12), "slow", "fast")
    assert found.ratio is None and found.words.startswith("not stated: the ratio of 'slow' to 'fast' scatters too much")
    assert "Measure again" not in found.words
    with pytest.raises(ValueError, match="scatters too much"):
        found.ends  # noqa: B018 - asked for, to be refused
    assert stated(measured([1.0, 9.0] * 6, [1.0] * 12), "slow", "fast", widest=10).ratio is not None


def test_the_verdict_is_that_of_the_whole_interval():
    rounds = [1.0 + 0.001 * number for number in range(9)]
    for factor, verdict in ((3.0, "faster"), (0.5, "slower"), (1.0, "as fast"), (1.05, "not told apart")):
        assert stated(measured([factor * one for one in rounds], [1.0] * 9), "slow", "fast").verdict == verdict, factor
    assert stated(measured([1.0, 9.0] * 6, [1.0] * 12), "slow", "fast").verdict == "not told apart"


def test_what_was_not_measured_is_an_error_and_no_statement():
    with pytest.raises(ValueError, match="fast='quick' was not measured"):
        stated(measured([6.0] * 9, [2.0] * 9), "slow", "quick")


def test_a_folded_network_answers_as_before_and_its_weights_are_those_of_the_formula():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    network = nn.Sequential(inner, nn.BatchNorm2d(2)).double()
    for norm in (inner[1], network[1]):
        for numbers in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(numbers, 0.3, 2)
    before = inner[0].weight.clone()
    images = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    folded, wanted = fold_norms(network), network.eval()(images)
    torch.testing.assert_close(folded(images), wanted)
    norm = inner[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(folded[0][0].weight, before * scale[:, None, None, None])
    assert isinstance(folded[0][1], nn.Identity) and torch.equal(inner[0].weight, before)
    # The second norm stands behind a sequence, not behind a convolution.
    assert isinstance(folded[1], nn.BatchNorm2d)


def test_a_norm_without_statistics_is_left_alone():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    assert isinstance(fold_norms(network)[1], nn.BatchNorm2d)
    with pytest.raises(TypeError):
        fold_norms("network")
