"""Timings on a made-up clock, and ratios against scipy."""

import time

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from kdlib import models
from kdlib.deploy import runtime
from kdlib.deploy.benchmark import Latencies, latency, ratio, throughput
from kdlib.deploy.export import export_program, export_torchscript

SHAPE = (1, 28, 28)


class Machine:
    """A clock that only the calls of models move, and a record of who was called when."""

    def __init__(self, slow_from: float = float("inf"), drift: float = 0.0):
        self.now, self.calls, self.reads, self.threads = 0, [], [], []
        self.slow_from, self.drift = slow_from, drift

    def clock(self) -> int:
        self.reads.append(len(self.calls))
        return self.now

    def model(self, name: str, milliseconds: float, cold: float = 0.0):
        def run(images):
            past = self.calls.count(name)
            factor = (3 if len(self.calls) >= self.slow_from else 1) + self.drift * len(self.calls)
            self.calls.append(name)
            self.threads.append(torch.get_num_threads())
            self.now += round(1e6 * (factor * milliseconds + (cold if past == 0 else 0)))

        return run


def measured(**columns: list[float]) -> Latencies:
    return Latencies(pd.DataFrame(columns), SHAPE, 1, 1, "perf_counter_ns")


# ------------------------------------------------------------------------------------ latency


def test_models_take_turns_backwards_in_every_second_round_and_the_first_call_of_a_turn_is_not_timed():
    machine = Machine()
    runs = {"a": machine.model("a", 2), "b": machine.model("b", 1)}
    latency(runs, SHAPE, warm_up=3, repeats=3, turn=0, clock=machine.clock)
    assert "".join(machine.calls) == "aaa" + "bbb" + "aabb" + "bbaa" + "aabb"
    assert machine.reads[12:] == [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]


def test_a_turn_is_filled_with_calls_by_the_fastest_of_the_warm_up_and_its_median_counts():
    machine, times = Machine(), iter([50, 3, 2, 9] + [100, 7, 5, 1, 2, 80] * 2)

    def run(images):
        machine.calls.append("a")
        machine.now += 1_000_000 * next(times)

    result = latency({"a": run}, SHAPE, warm_up=4, repeats=2, turn=9.9, clock=machine.clock)
    assert len(machine.calls) == 4 + 2 * (1 + 5)
    assert result.milliseconds["a"].tolist() == [5, 5]


def test_a_call_that_the_clock_does_not_notice_fills_no_endless_turn():
    machine = Machine()
    latency({"a": machine.model("a", 0)}, SHAPE, warm_up=1, repeats=1, clock=machine.clock)
    assert len(machine.calls) == 1 + 1 + 1000


def test_a_slow_first_call_and_a_slow_moment_of_the_machine_change_neither_medians_nor_ratio():
    machine = Machine(slow_from=60)  # of 2 * (5 + 2 * 20) = 90 calls
    runs = {"a": machine.model("a", 6, cold=500), "b": machine.model("b", 2, cold=900)}
    result = latency(runs, SHAPE, repeats=20, turn=0, clock=machine.clock)
    table = result.table()
    assert table["median"].tolist() == [6, 2] and table["fastest"].tolist() == [6, 2]
    assert table["upper_quartile"].tolist() == [18, 6]  # the spread tells of the moment
    assert ratio(result, "a", "b")[:5] == (3, 3, 3, 3, 3)


def test_a_machine_that_gets_steadily_slower_favours_neither_of_two_equal_models():
    machine = Machine(drift=0.01)
    runs = {name: machine.model(name, 1) for name in "ab"}
    milliseconds = latency(runs, SHAPE, repeats=40, turn=0, clock=machine.clock).milliseconds
    assert (
        (milliseconds["a"] < milliseconds["b"]).sum() == (milliseconds["a"] > milliseconds["b"]).sum() == 20
    )
    assert milliseconds["b"].sum() == pytest.approx(milliseconds["a"].sum(), rel=1e-6)


def test_table_holds_numpys_quartiles_and_the_milliseconds_of_one_image():
    times = [5.0, 1.0, 2.0, 8.0, 3.0, 13.0]
    result = Latencies(pd.DataFrame({"a": times}), (3, 32, 16), 4, 2, "thread_time_ns")
    row = result.table().loc["a"]
    assert (
        row[["lower_quartile", "median", "upper_quartile"]].tolist()
        == np.percentile(times, [25, 50, 75]).tolist()
    )
    assert row["median_per_image"] == 1.0 and row["fastest"] == 1.0  # the median of a batch of 4 is 4.0
    assert result.conditions() == "4 images of 3x32x16, 2 threads, 6 rounds in turn, thread_time_ns"


def test_threads_of_torch_are_set_while_it_measures_and_restored_afterwards():
    def fail(images):
        raise RuntimeError("no")

    machine, before = Machine(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        latency({"a": machine.model("a", 1)}, SHAPE, threads=2, repeats=1, clock=machine.clock)
        assert set(machine.threads) == {2} and torch.get_num_threads() == 1
        said = r"models\['a'\] cannot process images of this image_shape and number: no"
        with pytest.raises(ValueError, match=said):
            latency({"a": fail}, SHAPE, threads=2)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


class Observer(nn.Module):
    """Notes how it is called."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.head, self.seen = nn.Linear(2, 2, dtype=dtype), []

    def forward(self, images):
        self.seen.append(
            (self.training, torch.is_inference_mode_enabled(), tuple(images.shape), images.dtype)
        )


def test_a_network_runs_in_eval_and_inference_mode_in_its_own_type_and_gets_its_mode_back():
    for dtype in (torch.float32, torch.bfloat16):
        observer = Observer(dtype)
        latency({"a": observer}, (3, 4, 5), batch_size=7, warm_up=1, repeats=1, turn=0)
        assert observer.seen == [(False, True, (7, 3, 4, 5), dtype)] * 3
        assert observer.training and observer.head.training, dtype


def test_files_of_every_kind_and_networks_are_measured_side_by_side(exported, tmp_path):
    student = models.build("tiny-cnn", seed=0)
    program = export_program(student, tmp_path / "a.pt2", image_shape=SHAPE)
    script = export_torchscript(student, tmp_path / "a.pt", image_shape=SHAPE)
    runs = {"onnx": str(exported[0]), "program": program, "script": script, "eager": student}
    result = latency(runs, SHAPE, batch_size=2, repeats=2, warm_up=1, turn=0, clock=time.thread_time_ns)
    assert list(result.table().index) == list(runs) and result.milliseconds.shape == (2, 4)
    assert (result.milliseconds > 0).all(axis=None) and result.clock == "thread_time_ns"


def test_onnx_files_run_on_the_threads_asked_for_which_do_not_spin(exported, monkeypatch):
    sessions, original = [], runtime.session
    monkeypatch.setattr(
        runtime, "session", lambda *args, **kwargs: sessions.append(original(*args, **kwargs)) or sessions[-1]
    )
    latency({"a": exported[0]}, SHAPE, threads=2, repeats=1, warm_up=1, turn=0)
    options = sessions[0].get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        original(exported[0].read_bytes(), threads=0)


def test_what_cannot_be_measured_is_refused_with_its_reason(exported, tmp_path):
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    weights = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(2)}, weights)
    (tmp_path / "a.h5").write_text("another kind")
    for refused, message in [
        ({}, "models must name at least one"),
        ({"a": text}, r"models\['a'\]: path='text.onnx' cannot be loaded"),
        ({"a": weights}, "path='weights.pt' cannot be loaded; it must be .* a TorchScript file"),
        ({"a": tmp_path / "a.h5"}, r"path='a.h5' must be an ONNX file \(.onnx\)"),
        ({"a": nn.Linear(2, 2, device="meta")}, r"models\['a'\] lies on meta"),
        ({"a": nn.Linear(3, 2)}, r"models\['a'\] cannot process images"),
    ]:
        with pytest.raises(ValueError, match=message):
            latency(refused, SHAPE)
    with pytest.raises(FileNotFoundError, match="absent.onnx"):
        latency({"a": tmp_path / "absent.onnx"}, SHAPE)
    with pytest.raises(ValueError, match="cannot process images"):
        latency({"a": exported[0]}, (3, 28, 28))
    for option in ("batch_size", "threads", "repeats", "warm_up"):
        with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
            latency({"a": exported[0]}, SHAPE, **{option: 0})
    with pytest.raises(ValueError, match="counts the work of one thread, and threads=2"):
        latency({"a": exported[0]}, SHAPE, threads=2, clock=time.thread_time_ns)
    with pytest.raises(ValueError, match="counts the work of one thread, and threads=2"):
        throughput(exported[0], SHAPE, threads=2, clock=time.thread_time_ns)
    with pytest.raises(ValueError, match="turn must be at least 0, got -1"):
        latency({"a": exported[0]}, SHAPE, turn=-1)
    with pytest.raises(ValueError, match=r"image_shape must be \(channels, height, width\)"):
        latency({"a": exported[0]}, (28, 28))


# ------------------------------------------------------------------------------------ ratio


def test_ratio_is_the_median_of_paired_ratios_with_the_interval_of_the_sign_test():
    for rounds, confidence in ((6, 0.95), (11, 0.9), (50, 0.95), (37, 0.99)):
        generator = np.random.default_rng(rounds)
        moment = generator.uniform(1, 10, rounds)  # what both models of a round share
        slow, fast = (moment * generator.normal(level, 0.03 * level, rounds) for level in (3, 1))
        found = ratio(measured(a=slow.tolist(), b=fast.tolist()), "a", "b", confidence=confidence)
        ratios = slow / fast
        interval = stats.quantile_test(ratios, q=3, p=0.5).confidence_interval(confidence)
        assert found[:3] == pytest.approx((np.median(ratios), interval.low, interval.high)), rounds
        assert found[3:] == pytest.approx((*np.percentile(ratios, [25, 75]), rounds)), rounds


def test_the_interval_covers_the_true_ratio_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        slow = generator.lognormal(np.log(2), 0.05, 20)  # median 2
        found = ratio(measured(a=slow.tolist(), b=[1.0] * 20), "a", "b")
        hits += found.low <= 2 <= found.high
    assert 0.93 <= hits / 400 <= 0.99  # 0.9586 by the binomial distribution


def test_a_ratio_that_scatters_is_refused_and_says_what_to_do():
    result = measured(a=[1.0, 2.0] * 10, b=[1.0] * 20)
    with pytest.raises(
        ValueError, match=r"between 1 and 2, 67% of the median where widest=20%.*thread_time_ns"
    ):
        ratio(result, "a", "b")
    assert ratio(result, "a", "b", widest=0.7).median == 1.5
    assert ratio(measured(a=[1.0, 1.2] * 10, b=[1.0] * 20), "a", "b").median == pytest.approx(1.1)


def test_too_few_rounds_a_coarse_clock_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="5 rounds are too few .* repeats=6 or more"):
        ratio(measured(a=[1.0] * 5, b=[1.0] * 5), "a", "b")
    with pytest.raises(ValueError, match="0 ms on perf_counter_ns.* too coarse"):
        ratio(measured(a=[1.0] * 9, b=[0.0] + [1.0] * 8), "a", "b")
    for names, message in ((("a", "c"), "fast='c' was not measured.*'a', 'b'"), (("c", "a"), "slow='c'")):
        with pytest.raises(ValueError, match=message):
            ratio(measured(a=[1.0] * 9, b=[1.0] * 9), *names)


# ------------------------------------------------------------------------------------ throughput


def test_throughput_is_images_per_second_of_batches_that_take_turns():
    elapsed, sizes = [0], []

    def model(images):
        sizes.append(len(images))
        elapsed[0] += 1_000_000 * (3 + len(images))  # 3 ms and 1 ms an image

    table = throughput(model, SHAPE, (1, 5), repeats=4, turn=0, clock=lambda: elapsed[0])
    assert sizes == [1, 5] + [1, 1, 5, 5, 5, 5, 1, 1] * 2
    assert table["images_per_second"].tolist() == pytest.approx([1000 / 4, 5000 / 8])
    assert table["milliseconds"].tolist() == [4, 8] and table.index.tolist() == [1, 5]
    assert (table["lower_quartile"] == table["upper_quartile"]).all()


def test_batch_sizes_that_make_no_table_are_refused():
    for sizes, message in (
        ([], "at least one"), ([2, 2], "distinct"), ([0], "at least 1"), ("12", "a list of whole numbers"),
        ([1.5], "an integer"),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=f"batch_sizes must be .*{message}"):
            throughput(nn.Flatten(), SHAPE, sizes)
