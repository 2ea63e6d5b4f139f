"""Schedules of temperature and alpha."""

import pickle

import numpy as np
import pytest

from kdlib.training.schedules import as_schedule, constant, cosine, linear, warmup

GRID = np.linspace(0, 1, 101)


def test_constant():
    assert [constant(4)(p) for p in (0, 0.3, 1)] == [4, 4, 4]


def test_linear_runs_straight_from_start_to_end():
    np.testing.assert_allclose([linear(8, 2)(p) for p in GRID], 8 - 6 * GRID)


def test_cosine_is_half_a_wave_that_is_flat_at_both_ends():
    values = np.array([cosine(8, 2)(p) for p in GRID])
    np.testing.assert_allclose(values, 5 + 3 * np.cos(np.pi * GRID))
    assert (np.diff(values) < 0).all()
    assert abs(values[1] - values[0]) < 0.05 * abs(values[51] - values[50])


def test_warmup_rises_over_its_share_and_then_stays():
    schedule = warmup(0.9, share=0.25, start=0.1)
    assert [schedule(p) for p in (0, 0.125, 0.25, 0.6, 1)] == pytest.approx([0.1, 0.5, 0.9, 0.9, 0.9])
    assert warmup(0.9)(0) == 0


@pytest.mark.parametrize("make", [linear, cosine])
@pytest.mark.parametrize("start, end", [(0.1, 0.7), (20, 1.3), (1e-3, 1e3)])
def test_ends_are_met_exactly(make, start, end):
    assert make(start, end)(0.0) == start
    assert make(start, end)(1.0) == end
    low, high = sorted((start, end))
    assert all(low <= make(start, end)(p) <= high for p in GRID)


SCHEDULES = [constant(2), linear(8, 2), cosine(8, 2), warmup(4.0, start=1)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_are_values(schedule):
    """They compare, print and survive the trip to another process."""
    copy = pickle.loads(pickle.dumps(as_schedule(schedule, name="temperature")))
    assert copy == as_schedule(schedule, name="temperature")
    assert [copy(p) for p in GRID] == [schedule(p) for p in GRID]
    assert type(schedule).__name__ in repr(schedule)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_outside_zero_to_one_is_refused(schedule, progress):
    with pytest.raises(ValueError, match=f"progress must be .* got {progress}"):
        schedule(progress)


def test_schedules_refuse_numbers_that_are_not_finite():
    with pytest.raises(ValueError, match="value must be a finite number, got nan"):
        constant(float("nan"))
    for make in (linear, cosine):
        with pytest.raises(ValueError, match="start must be a finite number, got inf"):
            make(float("inf"), 1.0)
        with pytest.raises(ValueError, match="end must be a finite number, got nan"):
            make(1.0, float("nan"))
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="share must be strictly between 0 and 1"):
            warmup(1.0, share=share)


# ---- as_schedule


@pytest.mark.parametrize("number", [4, 4.0, np.float64(4), np.int64(4)], ids=lambda n: type(n).__name__)
def test_a_number_becomes_a_constant(number):
    assert as_schedule(number, name="temperature") == constant(4.0)


def test_any_callable_of_progress_will_do():
    schedule = as_schedule(lambda progress: 1 - progress, name="alpha")
    assert [schedule(p) for p in (0, 0.25, 1)] == [1, 0.75, 0]


@pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan")])
def test_a_temperature_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match=f"temperature must be .* got {bad}"):
        as_schedule(bad, name="temperature")


@pytest.mark.parametrize("bad", [-0.1, 1.5])
def test_an_alpha_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match=rf"alpha must be in \[0, 1\], got {bad}"):
        as_schedule(bad, name="alpha")


@pytest.mark.parametrize("bad", ["4", None, [1, 2]])
def test_what_is_neither_number_nor_schedule_is_refused(bad):
    with pytest.raises(TypeError, match="temperature must be a number"):
        as_schedule(bad, name="temperature")


def test_a_schedule_that_ends_out_of_range_fails_before_training():
    with pytest.raises(ValueError, match="temperature at progress 1 must be above 0, got 0"):
        as_schedule(linear(4.0, 0.0), name="temperature")
    with pytest.raises(ValueError, match=r"alpha at progress 0 must be in \[0, 1\], got 2"):
        as_schedule(cosine(2, 0), name="alpha")


def test_a_schedule_that_leaves_the_range_on_the_way_says_where():
    schedule = as_schedule(lambda progress: 4 - 20 * progress * (1 - progress), name="temperature")
    assert schedule(0.1) == pytest.approx(2.2)
    with pytest.raises(ValueError, match="temperature at progress 0.5 must be above 0, got -1.0"):
        schedule(0.5)


def test_a_schedule_that_gives_no_number_is_refused():
    with pytest.raises(TypeError, match="alpha at progress 0 must be a number, got str"):
        as_schedule(lambda progress: "half", name="alpha")


def test_only_quantities_with_a_known_range_have_schedules():
    with pytest.raises(ValueError, match=r"\['alpha', 'temperature'\], got 'beta'"):
        as_schedule(1.0, name="beta")
