"""Schedules of temperature and alpha."""

import functools
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib import data, models, training
from kdlib.data import ImageSplit
from kdlib.training import schedules
from kdlib.training.schedules import as_schedule, constant, cosine, linear, on_plateau, warmup

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


def test_ends_are_met_exactly():
    for make in (linear, cosine):
        for start, end in ((0.1, 0.7), (20, 1.3), (1e-3, 1e3)):
            schedule = make(start, end)
            assert schedule(0.0) == start, schedule
            assert schedule(1.0) == end, schedule
            low, high = sorted((start, end))
            assert all(low <= schedule(p) <= high for p in GRID), schedule


SCHEDULES = [constant(2), linear(8, 2), cosine(8, 2), warmup(4.0, start=1)]


def test_schedules_are_values():
    """They compare, print and survive the trip to another process."""
    for schedule in SCHEDULES:
        copy = pickle.loads(pickle.dumps(as_schedule(schedule, name="temperature")))
        assert copy == as_schedule(schedule, name="temperature"), schedule
        assert [copy(p) for p in GRID] == [schedule(p) for p in GRID], schedule
        assert type(schedule).__name__ in repr(schedule)


def test_progress_outside_zero_to_one_is_refused():
    for schedule in SCHEDULES:
        for progress in (-0.01, 1.01, float("nan")):
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


def test_a_number_becomes_a_constant():
    for number in (4, 4.0, np.float64(4), np.int64(4)):
        assert as_schedule(number, name="temperature") == constant(4.0), type(number)


def test_any_callable_of_progress_will_do():
    schedule = as_schedule(lambda progress: 1 - progress, name="alpha")
    assert [schedule(p) for p in (0, 0.25, 1)] == [1, 0.75, 0]


def test_a_number_out_of_range_is_named():
    for bad in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"temperature must be .* got {bad}"):
            as_schedule(bad, name="temperature")
    for bad in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"alpha must be in \[0, 1\], got {bad}"):
            as_schedule(bad, name="alpha")


def test_what_is_neither_number_nor_schedule_is_refused():
    for bad in ("4", None, [1, 2]):
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


# ---- schedules that listen


def stalls(accuracies: list[float], patience: int) -> int:
    """Written from the sentence: so many epochs in a row that do not exceed the best, then counting begins anew."""
    found, since = 0, 0
    for epoch in range(len(accuracies)):
        better = epoch == 0 or accuracies[epoch] > max(accuracies[:epoch])
        since = 0 if better else since + 1
        if since == patience:
            found, since = found + 1, 0
    return found


def test_a_plateau_moves_the_value_a_step_in_either_direction():
    accuracies = [0.5, 0.5, 0.5, 0.6, 0.55, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7, 0.8]
    rising, falling = on_plateau(0.5, 0.9, step=0.1, patience=2), on_plateau(8, 2, step=2.5, patience=2)
    # After 0.5, 0.5 and 0.55, 0.6 and 0.7, 0.7 and once more 0.7, 0.7; the last step ends at `stop`.
    moves = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    for known, moved in enumerate(moves):
        heard = tuple(accuracies[:known])
        assert rising(0.3, heard) == pytest.approx(0.5 + 0.1 * moved), known
        assert falling(0.3, heard) == max(8 - 2.5 * moved, 2), known


def test_a_plateau_is_what_its_sentence_says():
    random = np.random.default_rng(0)
    for patience in (1, 2, 3, 5):
        for _ in range(20):
            accuracies = random.integers(0, 12, size=30).cumsum() % 17 / 17  # rises, falls and ties
            for known in range(len(accuracies) + 1):
                heard = accuracies[:known].tolist()
                expected = min(0.2 + 0.07 * stalls(heard, patience), 1.0)
                found = on_plateau(0.2, 1.0, step=0.07, patience=patience)(known / 30, heard)
                assert found == pytest.approx(expected), (patience, heard)


def test_a_plateau_ends_at_stop_exactly_and_stays_there():
    bored = [0.5] * 100
    for start, stop, step in ((0.1, 0.7, 0.25), (0.0, 1.0, 0.1), (20, 1.3, 7), (0.5, 0.5, 0.1), (0, 1, 50)):
        values = [on_plateau(start, stop, step=step, patience=1)(1.0, bored[:known]) for known in range(100)]
        assert values[0] == start and values[-1] == stop
        differences = np.diff(values)
        assert (differences >= 0).all() if start <= stop else (differences <= 0).all()
        assert all(type(value) is float for value in values)


def test_a_plateau_compares_prints_and_pickles():
    schedule = on_plateau(0.5, 0.9, step=0.2, patience=4)
    assert pickle.loads(pickle.dumps(schedule)) == schedule != on_plateau(0.5, 0.9, step=0.2, patience=3)
    assert repr(schedule) == "on_plateau(start=0.5, stop=0.9, step=0.2, patience=4)"
    kept = pickle.loads(pickle.dumps(as_schedule(schedule, name="alpha")))
    assert schedules.listens(kept) and schedules.value(kept, 0.5, (0.3,) * 5) == pytest.approx(0.7)


def test_a_plateau_refuses_settings_that_make_no_sense():
    for arguments, error, message in (
        ({"step": 0.0}, ValueError, "step must be above 0"),
        ({"step": -0.1}, ValueError, "step must be above 0"),
        ({"patience": 0}, ValueError, "patience must be at least 1"),
        ({"start": float("nan")}, ValueError, "start must be a finite number"),
        ({"stop": float("inf")}, ValueError, "stop must be a finite number"),
    ):
        with pytest.raises(error, match=message):
            on_plateau(**({"start": 0.5, "stop": 0.9} | arguments))
    for progress in (-0.1, 1.1):
        with pytest.raises(ValueError, match="progress must be"):
            on_plateau(0.5, 0.9)(progress, (0.5,))
    for name, start, stop in (("alpha", 0.5, 1.5), ("alpha", 0.5, -0.1), ("temperature", 4.0, 0.0)):
        with pytest.raises(ValueError, match=f"{name}'s stop must be"):
            as_schedule(on_plateau(start, stop), name=name)
    with pytest.raises(ValueError, match="alpha at progress 0 must be"):
        as_schedule(on_plateau(2.0, 0.5), name="alpha")


@pytest.fixture(scope="module")
def split() -> ImageSplit:
    return data.load().train.take(60)


class Heard:
    """A loss that keeps the temperature of each epoch."""

    def __init__(self):
        self.temperatures: list[float] = []

    def __call__(self, student_logits, teacher_logits, temperature):
        self.temperatures.append(temperature)
        return F.mse_loss(student_logits / temperature, teacher_logits / temperature)

    def by_epoch(self, epochs: int) -> list[float]:
        steps = self.temperatures[-2 * epochs :]  # two batches an epoch
        assert steps[::2] == steps[1::2], "it changed within an epoch"
        return steps[::2]


def student(seed: int = 0) -> nn.Module:
    return models.build("tiny-cnn", seed=seed)


def distilled(split: ImageSplit, heard: Heard, model: nn.Module | None = None, **options):
    options = {"validation": split, "progress": False} | options
    model = student() if model is None else model
    return training.distill(model, torch.eye(10)[split.labels], split, loss=heard, **options)


def test_the_temperature_follows_the_validation_accuracy(split, one_thread):
    """At a learning rate of nothing the accuracy stays, so every epoch after the first is a stall."""
    for start, stop in ((4.0, 1.0), (1.0, 4.0)):
        heard = Heard()
        distilled(
            split, heard, nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), epochs=7, learning_rate=1e-30,
            weight_decay=0, temperature=on_plateau(start, stop, step=2, patience=2),
        )  # fmt: skip
        step = 2 if stop > start else -2
        assert heard.by_epoch(7) == [start] * 3 + [start + step] * 2 + [stop] * 2


def test_alpha_is_what_the_recorded_accuracies_call_for(split, one_thread):
    """Solved for in each record: loss = alpha * distill + (1 - alpha) * task."""
    schedule, held_out = on_plateau(0.2, 0.8, step=0.3, patience=1), data.load().validation.take(30)
    history = distilled(split, Heard(), epochs=8, alpha=schedule, temperature=2.0, validation=held_out)
    scores = [record["validation_accuracy"] for record in history.records]
    assert tuple(scores) == history.validation_scores()
    alphas = [(r["loss"] - r["task"]) / (r["distill"] - r["task"]) for r in history.records]
    expected = [min(0.2 + 0.3 * stalls(scores[:epoch], 1), 0.8) for epoch in range(8)]
    assert alphas == pytest.approx(expected, abs=1e-3)
    assert len(set(expected)) > 1, "nothing ever stalled"


def test_several_labels_an_image_are_listened_to_as_well(split, one_thread):
    several = ImageSplit(split.images, F.one_hot(split.labels, 10).float(), mean=split.mean, std=split.std)
    heard, told = Heard(), []

    def schedule(progress, scores):
        told.append(tuple(scores))
        return 1.0 + len(scores)

    schedule.listens = True
    history = training.distill(
        student(), torch.eye(10)[split.labels], several, epochs=3, loss=heard, temperature=schedule,
        task_loss=F.binary_cross_entropy_with_logits, validation=several, progress=False,
    )  # fmt: skip
    scores = [record["validation_mean_average_precision"] for record in history.records]
    assert told[-1] == tuple(scores[:2]) and heard.by_epoch(3) == [1.0, 2.0, 3.0]


class Patient:
    """A listening schedule of one's own."""

    listens = True

    def __init__(self, bound: float = 0.3):
        self.bound, self.told = bound, []

    def __call__(self, progress, accuracies):
        self.told.append((progress, tuple(accuracies)))
        return 4.0 if len(accuracies) < 2 or accuracies[-1] < self.bound else 2.0


def test_a_schedule_of_ones_own_is_told_all_accuracies_so_far(split, one_thread):
    schedule, heard = Patient(0.0), Heard()
    history = distilled(split, heard, epochs=4, temperature=schedule)
    scores = [record["validation_accuracy"] for record in history.records]
    assert heard.by_epoch(4) == [4.0, 4.0, 2.0, 2.0]
    in_steps = schedule.told[-8:]
    assert [progress for progress, _ in in_steps] == pytest.approx([step / 8 for step in range(8)])
    assert [known for _, known in in_steps] == [tuple(scores[: step // 2]) for step in range(8)]
    with pytest.raises(ValueError, match="temperature at progress 0 must be above 0, got -1"):
        bad = Patient()
        bad.__class__ = type("Bad", (Patient,), {"__call__": lambda self, progress, accuracies: -1.0})
        distilled(split, heard, epochs=1, temperature=bad)


def test_a_schedule_that_listens_needs_a_validation_split(split):
    for name, schedule in (("alpha", on_plateau(0.5, 0.9)), ("temperature", Patient())):
        with pytest.raises(ValueError, match=f"{name} listens to the validation accuracy: give validation"):
            training.distill(
                student(), torch.zeros(60, 10), split, epochs=1, progress=False, **{name: schedule}
            )


class Interrupted(nn.Module):
    def __init__(self, at_step: int):
        super().__init__()
        self.network, self.at_step, self.step = student(), at_step, 0

    def forward(self, images):
        if self.training:
            self.step += 1
            if self.step == self.at_step:
                raise KeyboardInterrupt
        return self.network(images)


def counting_schedule(first: float):
    """A listening schedule as a function, made anew as in another process."""

    def schedule(progress, accuracies):
        return first + len(accuracies)

    schedule.listens = True
    return schedule


def test_a_resumed_training_hears_what_the_uninterrupted_one_heard(split, tmp_path, one_thread):
    kinds = {
        "plateau": functools.partial(on_plateau, 4.0, 1.0, step=1, patience=1),
        "function": functools.partial(counting_schedule, 2.0),
        "object": Patient,
    }
    for kind, make in kinds.items():
        heard, whole = Heard(), Interrupted(-1)
        expected = distilled(split, heard, whole, epochs=5, temperature=make())
        path = tmp_path / kind
        for completed in (1, 2, 3):
            stopped = distilled(split, Heard(), Interrupted(4), epochs=5, temperature=make(), checkpoint=path)
            assert stopped.interrupted and len(stopped.records) == completed, kind
        again, resumed = Heard(), Interrupted(-1)
        history = distilled(split, again, resumed, epochs=5, temperature=make(), checkpoint=path)
        assert again.by_epoch(2) == heard.by_epoch(5)[3:], kind
        for ours, reference in zip(resumed.parameters(), whole.parameters(), strict=True):
            assert torch.equal(ours, reference), kind
        assert [r["loss"] for r in history.records] == [r["loss"] for r in expected.records], kind


def test_a_checkpoint_tells_listening_schedules_apart(split, tmp_path, one_thread):
    pairs = {
        "plateau": (on_plateau(4.0, 1.0, patience=1), on_plateau(4.0, 1.0, patience=2)),
        "function": (counting_schedule(2.0), counting_schedule(3.0)),
    }
    for kind, (first, second) in pairs.items():
        distilled(split, Heard(), epochs=1, temperature=first, checkpoint=tmp_path / kind)
        with pytest.raises(ValueError, match="belongs to another training: it has temperature="):
            distilled(split, Heard(), epochs=1, temperature=second, checkpoint=tmp_path / kind)
    assert "0x" not in str(schedules.describe(as_schedule(counting_schedule(2.0), name="temperature")))
