"""Ratios in words."""

import pandas
import pytest

from kdlib.deploy import benchmark
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
    for factor, verdict in ((3.0, "faster"), (0.5, "slower"), (1.0, "as fast"), (1.047, "not told apart")):
        assert stated(measured([factor * one for one in rounds], [1.0] * 9), "slow", "fast").verdict == verdict, factor
    assert stated(measured([1.0, 9.0] * 6, [1.0] * 12), "slow", "fast").verdict == "not told apart"


def test_what_was_not_measured_is_an_error_and_no_statement():
    with pytest.raises(ValueError, match="fast='quick' was not measured"):
        stated(measured([6.0] * 9, [2.0] * 9), "slow", "quick")
