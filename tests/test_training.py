"""The training loop: determinism, resumption, the teacher's state, agreement with a loop written by hand."""

import copy
import functools
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib import data, features, losses, metrics, models, teachers, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.features import FeatureTerm
from kdlib.training import objectives
from kdlib.training.batches import Batches
from kdlib.training.teacher import Teacher

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def split() -> ImageSplit:
    return data.load().train.take(70)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


class Linear(nn.Module):
    """A network without batch norm, dropout or convolution, so that a loop by hand stays short."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.head = nn.Linear(784, classes)

    def forward(self, images):
        return self.head(images.flatten(1))


class Interrupted(nn.Module):
    """Raises KeyboardInterrupt, as the stop button does, at a given training step."""

    def __init__(self, network: nn.Module, at_step: int):
        super().__init__()
        self.network, self.at_step, self.step = network, at_step, 0

    def forward(self, images):
        if self.training:
            self.step += 1
            if self.step == self.at_step:
                raise KeyboardInterrupt
        return self.network(images)


# --- against loops written by hand


def reference_loop(model, split, loss_of, *, epochs, seed, learning_rate):
    """Plain PyTorch, with the documented optimiser and order of images."""
    steps = -(-len(split) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps + 1)
    for epoch in range(epochs):
        torch.manual_seed(seed * 1_000_003 + epoch)
        for rows in torch.randperm(len(split)).tensor_split(steps):
            optimizer.zero_grad()
            loss_of(model(split.normalized(rows)), rows).backward()
            optimizer.step()
            scheduler.step()


def test_train_does_what_a_plain_loop_does(split):
    ours, reference = Linear(), Linear()
    reference.load_state_dict(ours.state_dict())
    training.train(ours, split, epochs=3, learning_rate=1e-3, seed=5, label_smoothing=0.1, progress=False)
    reference_loop(
        reference, split, lambda z, rows: F.cross_entropy(z, split.labels[rows], label_smoothing=0.1),
        epochs=3, seed=5, learning_rate=1e-3,
    )  # fmt: skip
    torch.testing.assert_close(weights(ours), weights(reference), rtol=1e-4, atol=1e-6)


def test_distill_does_what_a_plain_loop_with_a_live_teacher_does(split):
    ours, reference, teacher = Linear(), Linear(), Linear()
    reference.load_state_dict(ours.state_dict())
    training.distill(
        ours, teacher, split, epochs=3, temperature=2.0, alpha=0.7, learning_rate=1e-3, seed=5, progress=False
    )

    def loss_of(z, rows):
        with torch.no_grad():
            p = F.softmax(teacher(split.normalized(rows)) / 2, dim=1)
        q = F.log_softmax(z / 2, dim=1)
        divergence = (p * (p.log() - q)).sum(dim=1).mean()
        return 0.7 * 4 * divergence + 0.3 * F.cross_entropy(z, split.labels[rows])

    reference_loop(reference, split, loss_of, epochs=3, seed=5, learning_rate=1e-3)
    torch.testing.assert_close(weights(ours), weights(reference), rtol=1e-4, atol=1e-6)


def test_alpha_zero_is_training_on_labels_to_the_bit(split):
    labels_only, control = models.build("tiny-cnn", seed=1), models.build("tiny-cnn", seed=1)
    training.train(labels_only, split, epochs=2, progress=False)
    training.distill(control, models.build("tiny-cnn", seed=9), split, epochs=2, alpha=0, progress=False)
    assert torch.equal(weights(labels_only), weights(control))


def test_records_hold_the_terms_and_the_validation_accuracy(split):
    student = models.build("tiny-cnn", seed=1)
    history = training.distill(
        student,
        models.build("tiny-cnn", seed=9),
        split,
        epochs=2,
        alpha=0.25,
        validation=split,
        progress=False,
    )
    last = history.frame().iloc[-1]
    assert last["loss"] == pytest.approx(0.25 * last["distill"] + 0.75 * last["task"], rel=1e-5)
    assert last["validation_accuracy"] == pytest.approx(metrics.accuracy(student, split))
    assert list(history.frame()["epoch"]) == [1, 2]


def test_a_schedule_reaches_the_loss(split, monkeypatch):
    temperatures, alphas = [], []

    def loss(student_logits, teacher_logits, temperature):
        temperatures.append(temperature)
        return losses.soft_target_loss(student_logits, teacher_logits, temperature)

    weighted = objectives.weighted_terms
    monkeypatch.setattr(
        objectives, "weighted_terms", lambda *terms: alphas.append(terms[2]) or weighted(*terms)
    )
    training.distill(
        Linear(), Linear(), split, epochs=2, loss=loss, progress=False,
        temperature=lambda progress: 8 - 4 * progress, alpha=lambda progress: progress,
    )  # fmt: skip
    steps = [step / 6 for step in range(6)]
    assert temperatures[-6:] == [
        pytest.approx(8 - 4 * step) for step in steps
    ]  # the loss is tried out before
    assert alphas == [pytest.approx(step) for step in steps]


# --- one seed, one result

SCRIPT = """
import hashlib, sys, torch
from kdlib import data, models, training
torch.set_num_threads(1)
split = data.load().train.take(100)
student = models.build("tiny-cnn", seed=0)
training.distill(student, models.build("resnet8", seed=7), split, epochs=2, seed=11, progress=False)
print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in student.state_dict().values())).hexdigest())
"""


def test_two_processes_with_one_seed_end_with_identical_weights():
    runs = [subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    assert len(runs[0].stdout.strip()) == 64
    assert runs[0].stdout == runs[1].stdout


def test_another_seed_gives_another_order(split):
    students = [Linear() for _ in range(2)]
    students[1].load_state_dict(students[0].state_dict())
    for seed, student in enumerate(students):
        training.train(student, split, epochs=1, seed=seed, progress=False)
    assert not torch.equal(weights(students[0]), weights(students[1]))


def test_the_global_generator_is_left_as_it_was(split):
    model = Linear()
    before = torch.random.get_rng_state()
    training.train(model, split, epochs=1, augment=random_crop_flip(), progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- interruption and resumption


def test_resuming_after_a_stop_gives_the_weights_of_an_uninterrupted_run(split, tmp_path):
    """Stop in every epoch's middle; dropout and augmentation must continue as if nothing had happened."""

    def student():
        return nn.Sequential(models.build("tiny-cnn", seed=2), nn.Dropout(0.2), nn.Linear(10, 10))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        initial = student()
    arguments = dict(epochs=4, seed=3, augment=random_crop_flip(), progress=False)
    teacher = models.build("tiny-cnn", seed=9)
    uninterrupted = copy.deepcopy(initial)
    expected = training.distill(uninterrupted, teacher, split, **arguments)

    checkpoint = tmp_path / "folder" / "student.checkpoint"
    for completed in (0, 1, 2):
        stopped = Interrupted(copy.deepcopy(initial), at_step=5)
        history = training.distill(stopped, teacher, split, **arguments, checkpoint=checkpoint)
        assert history.interrupted
        assert len(history.records) == completed + 1
    resumed = Interrupted(copy.deepcopy(initial), at_step=-1)
    history = training.distill(resumed, teacher, split, **arguments, checkpoint=checkpoint)
    assert not history.interrupted
    assert torch.equal(weights(resumed.network), weights(uninterrupted))
    assert [r["loss"] for r in history.records] == [r["loss"] for r in expected.records]


KILLED = """
import os, signal, sys, torch
from kdlib import _files, data, models, training
from kdlib.training import checkpoints
torch.set_num_threads(1)
place = sys.argv[1]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if place == "before the rename":
    _files.os.replace = die
elif place == "half-written":
    checkpoints.torch.save = lambda state, file: (file.write(b"half"), file.flush(), die())

def report(record):
    if place == "mid-epoch" and record["epoch"] == 2:
        die()

split = data.load().train.take(64)
student = models.build("tiny-cnn", seed=0)
training.train(student, split, epochs=3, checkpoint=sys.argv[2], progress=report)
torch.save(student.state_dict(), sys.argv[3])
"""


def test_kill_9_at_the_worst_moments_loses_nothing(tmp_path, monkeypatch):
    checkpoint, result = tmp_path / "checkpoint", tmp_path / "result"
    # A report at every step, so that the one that kills comes for certain.
    script = "import kdlib.training.loop; kdlib.training.loop.REPORT_INTERVAL = 0\n" + KILLED

    def run(place):
        return subprocess.run([sys.executable, "-c", script, place, str(checkpoint), str(result)]).returncode

    assert run("half-written") == -9
    assert not checkpoint.exists()
    assert run("mid-epoch") == -9
    assert checkpoint.exists()
    assert run("before the rename") == -9
    assert run("half-written") == -9
    assert run("nowhere") == 0

    uninterrupted = models.build("tiny-cnn", seed=0)
    training.train(uninterrupted, data.load().train.take(64), epochs=3, progress=False)
    for name, tensor in torch.load(result, weights_only=True).items():
        assert torch.equal(tensor, uninterrupted.state_dict()[name]), name


def test_a_checkpoint_of_another_training_is_refused(split, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    training.train(Linear(), split, epochs=1, checkpoint=checkpoint, progress=False)
    with pytest.raises(ValueError, match="learning_rate=0.01, this call has learning_rate=0.5"):
        training.train(Linear(), split, epochs=1, learning_rate=0.5, checkpoint=checkpoint, progress=False)
    with pytest.raises(ValueError, match="belongs to another network"):
        training.train(Linear(11), split, epochs=1, checkpoint=checkpoint, progress=False)


def test_a_file_that_is_no_checkpoint_is_refused_and_kept(split, tmp_path):
    checkpoint = tmp_path / "notes.txt"
    checkpoint.write_text("precious")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        training.train(Linear(), split, epochs=1, checkpoint=checkpoint, progress=False)
    assert checkpoint.read_text() == "precious"


def test_a_checkpoint_that_cannot_be_written_is_refused_before_training(split, tmp_path):
    (tmp_path / "file").write_text("precious")
    model = Linear()
    before = weights(model)
    for train in (training.train, functools.partial(training.distill, teacher=torch.zeros(70, 10))):
        for options, error, message in (
            ({"checkpoint": tmp_path}, ValueError, "checkpoint must be a file.*name a file in it"),
            ({"checkpoint": tmp_path / "file" / "x"}, ValueError, "checkpoint=.*cannot be written"),
            ({"checkpoint": 3}, TypeError, "checkpoint must be a path, got int 3"),
            ({"log_dir": tmp_path / "file"}, ValueError, "log_dir must be a folder, got the file"),
        ):
            with pytest.raises(error, match=message):
                train(model, split=split, epochs=1, progress=False, **options)
    assert torch.equal(weights(model), before) and (tmp_path / "file").read_text() == "precious"


def test_a_finished_checkpoint_gives_the_trained_model_at_once(split, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    trained, again = Linear(), Linear()
    training.train(trained, split, epochs=2, checkpoint=checkpoint, progress=False)
    history = training.train(again, split, epochs=2, checkpoint=checkpoint, progress=False)
    assert len(history.records) == 2
    assert torch.equal(weights(trained), weights(again))


# --- the teacher


@pytest.mark.parametrize("augment", [None, random_crop_flip()])
def test_the_teacher_stays_in_eval_whatever_the_caller_does(split, augment):
    teacher = models.build("tiny-cnn", seed=9)
    teacher.train()
    before = weights(teacher)
    training.distill(
        models.build("tiny-cnn", seed=0), teacher, split, epochs=2, augment=augment,
        progress=lambda record: teacher.train(),
    )  # fmt: skip
    assert torch.equal(weights(teacher), before), "batch norm statistics drifted"


def test_a_wrapper_cannot_switch_a_frozen_teacher_to_training():
    teacher = teachers.freeze(models.build("tiny-cnn", seed=9))
    wrapper = nn.ModuleDict({"student": models.build("tiny-cnn"), "teacher": teacher})
    wrapper.train()
    assert wrapper["student"].training
    assert not any(module.training for module in teacher.modules())
    before = weights(teacher)
    teacher.network.train()
    teacher(torch.randn(8, 1, 28, 28))
    assert torch.equal(weights(teacher), before)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


class Views(nn.Module):
    def __init__(self):
        super().__init__()
        self.network, self.views = Linear(), []

    def forward(self, images):
        self.views.append(images.detach().clone())
        return self.network(images)


def test_student_and_teacher_see_the_same_augmented_view(split):
    student, teacher = Views(), Views()
    training.distill(student, teacher, split, epochs=2, augment=random_crop_flip(), progress=False)
    # What comes before the six steps are checks on a few images.
    assert sum(len(view) for view in teacher.views[:-6]) <= 20
    pairs = list(zip(student.views[-6:], teacher.views[-6:], strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(pairs[0][0].sum(), pairs[3][0].sum())


def test_without_augmentation_the_teacher_is_asked_once_about_each_image(split):
    teacher = Views()
    training.distill(Linear(), teacher, split, epochs=5, progress=False)
    assert sum(len(view) for view in teacher.views) <= len(split) + 8


def test_cached_logits_follow_the_image_through_the_shuffle(split):
    """Each image's logits name its row; the batches of every epoch must find their own."""
    rows = F.one_hot(torch.arange(len(split)) % 10, 10).float() * 50
    batches = Batches(split, torch.device("cpu"), seeds=[0], batch_size=16, epochs=2)
    teacher = Teacher(rows, batches)
    for batch in (*batches.epoch(0), *batches.epoch(1)):
        assert torch.equal(teacher.logits(batch).argmax(dim=1), batch.rows % 10)
        assert torch.equal(batch.labels, split.labels[batch.rows])


def test_a_tensor_of_logits_teaches_as_its_module_does(split):
    teacher = models.build("resnet8", seed=9)
    students = [models.build("tiny-cnn", seed=0) for _ in range(2)]
    training.distill(students[0], teacher, split, epochs=2, progress=False)
    training.distill(students[1], teachers.cached_logits(teacher, split), split, epochs=2, progress=False)
    assert torch.equal(weights(students[0]), weights(students[1]))


# --- any module, any front end


class WithAuxiliaryHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = Linear()

    def forward(self, images):
        from collections import namedtuple

        logits = self.network(images)
        return namedtuple("Outputs", "logits aux")(logits, logits) if self.training else logits


def test_a_model_that_returns_an_object_with_logits_can_be_trained(split):
    history = training.train(WithAuxiliaryHead(), split, epochs=3, learning_rate=1e-3, progress=False)
    assert history.records[-1]["loss"] < history.records[0]["loss"]


def test_a_reporter_is_told_of_the_last_step(split):
    records = []
    training.train(Linear(), split, epochs=2, progress=records.append)
    assert records[-1]["step"] == records[-1]["steps"] == 6
    assert set(records[-1]) == {"epoch", "step", "steps", "loss", "task", "distill"}


def test_headless_training_says_one_line(split, capsys):
    training.train(Linear(), split, epochs=2)
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert "2 epochs, 6 steps" in captured.out
    assert captured.err == ""


def test_tensorboard_log_holds_losses_accuracy_and_soft_targets(split, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = training.distill(
        Linear(), Linear(), split, epochs=2, validation=split, log_dir=tmp_path, progress=False
    )
    log = accumulators.EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "task", "distill", "validation_accuracy"} <= set(log.Tags()["scalars"])
    losses_logged = [event.value for event in log.Scalars("loss")]
    assert losses_logged == pytest.approx([record["loss"] for record in history.records])
    assert log.Tags()["histograms"] == ["soft_targets"]


# --- errors


def test_a_class_count_mismatch_shows_both_shapes(split):
    with pytest.raises(ValueError, match=r"\(batch, 12\).*\(batch, 10\)"):
        training.distill(Linear(12), Linear(10), split, epochs=1, progress=False)


def test_labels_beyond_the_classes_are_refused(split):
    with pytest.raises(ValueError, match=r"\(batch, 4\).*labels up to 9"):
        training.train(Linear(4), split, epochs=1, progress=False)


def test_images_of_another_shape_are_refused_with_the_shape(split):
    with pytest.raises(ValueError, match=r"images of shape \(2, 1, 28, 28\)"):
        training.train(models.build("tiny-cnn", in_channels=3), split, epochs=1, progress=False)


def test_cached_logits_of_another_length_are_refused(split):
    with pytest.raises(ValueError, match=r"70 images.*\(69, 10\)"):
        training.distill(Linear(), torch.zeros(69, 10), split, epochs=1, progress=False)


def test_cached_logits_and_augmentation_do_not_go_together(split):
    with pytest.raises(ValueError, match="augment needs the teacher module"):
        training.distill(
            Linear(), torch.zeros(70, 10), split, epochs=1, augment=random_crop_flip(), progress=False
        )


def test_a_network_cannot_be_its_own_teacher(split):
    student = Linear()
    with pytest.raises(ValueError, match="same object"):
        training.distill(student, student, split, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0, got -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"temperature": 0.0}, "temperature.*above 0"),
        ({"alpha": 1.5}, r"alpha.*\[0, 1\]"),
        ({"temperature": lambda progress: 4 - 8 * progress}, "temperature at progress"),
    ],
)
def test_arguments_out_of_range_are_named(split, arguments, message):
    with pytest.raises(ValueError, match=message):
        training.distill(Linear(), Linear(), split, **({"epochs": 1, "progress": False} | arguments))


def test_a_loss_that_overflows_is_an_error_and_not_a_nan_network(split):
    """One message, whatever is minimised and whoever notices first: a loss, its check, or the end of the epoch."""
    teacher, term = Linear(), FeatureTerm(features.hint_loss, "head", "head")
    squares = lambda z, v: (z - v).square().mean()  # noqa: E731
    ways = {
        "labels": training.train,
        "labels, augmented": functools.partial(training.train, augment=random_crop_flip()),
        "teacher": functools.partial(training.distill, teacher=teacher),
        "teacher's tensor": functools.partial(training.distill, teacher=torch.zeros(70, 10)),
        "live teacher": functools.partial(training.distill, teacher=teacher, augment=random_crop_flip()),
        "views": functools.partial(training.distill, teacher=teacher, augment=random_crop_flip(), views=2),
        "own loss": functools.partial(training.distill, teacher=teacher, loss=squares),
        "teacher alone": functools.partial(training.distill, teacher=teacher, alpha=1),
        "features": functools.partial(training.distill, teacher=teacher, features=[term]),
        "features alone": functools.partial(training.match_features, teacher=teacher, features=[term]),
    }
    for way, diverging in ways.items():
        with pytest.raises(FloatingPointError) as caught:
            diverging(Linear(), split=split, epochs=3, learning_rate=1e38, progress=False)
        pattern = r"the loss is \S+ in epoch \d; learning_rate=1e\+38 may be too high"
        assert re.fullmatch(pattern, str(caught.value)), f"{way}: {caught.value}"


def test_a_network_that_is_not_finite_to_begin_with_is_refused(split):
    model = Linear()
    nn.init.constant_(model.head.weight, float("inf"))
    with pytest.raises(ValueError, match="logits are not finite before training"):
        training.train(model, split, epochs=1, progress=False)


def test_one_image_is_not_enough(split):
    with pytest.raises(ValueError, match="at least 2 images"):
        training.train(Linear(), split.subset(torch.arange(1)), epochs=1, progress=False)


def test_a_data_set_is_no_split(split):
    dataset, pupil, term = data.load(), Linear(), FeatureTerm(features.hint_loss, "head", "head")
    before = weights(pupil)
    for call in (
        functools.partial(training.train, pupil, dataset),
        functools.partial(training.distill, pupil, Linear(), dataset),
        functools.partial(training.match_features, pupil, Linear(), dataset, features=[term]),
    ):
        with pytest.raises(
            (TypeError, ValueError), match="split.*ImageDataset.*its .train, .validation or .test"
        ):
            call(epochs=1, progress=False)
    for call in (training.train, functools.partial(training.distill, teacher=Linear())):
        with pytest.raises((TypeError, ValueError), match="validation.*ImageDataset"):
            call(pupil, split=split, validation=dataset, epochs=1, progress=False)
    assert torch.equal(weights(pupil), before)


def test_training_where_gradients_are_switched_off_is_refused(split):
    for context in (torch.no_grad, torch.inference_mode):
        for call in (training.train, functools.partial(training.distill, teacher=torch.zeros(70, 10))):
            with context(), pytest.raises(ValueError, match="needs gradients"):
                call(Linear(), split=split, epochs=1, progress=False)


# --- odd sizes and numbers


class Normed(nn.Module):
    """Batch norm of vectors, which has nothing to say of a single image."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)
        self.sizes = []

    def forward(self, images):
        if self.training:
            self.sizes.append(len(images))
        return self.head(self.norm(self.body(images.flatten(1))).relu())


def test_no_image_is_left_over_for_a_batch_of_its_own(split):
    for images, batch_size, sizes in (
        (3, 2, [3]), (5, 2, [3, 2]), (7, 3, [3, 2, 2]), (33, 32, [17, 16]), (64, 32, [32, 32]), (2, 32, [2]),
    ):  # fmt: skip
        for train in (training.train, functools.partial(training.distill, teacher=Linear())):
            pupil = Normed()
            few = split.subset(slice(images))
            history = train(pupil, split=few, epochs=2, batch_size=batch_size, progress=False)
            assert pupil.sizes == 2 * sizes, f"{images} images in batches of {batch_size}: {pupil.sizes}"
            assert torch.isfinite(torch.tensor(history.records[-1]["loss"]))


def test_batches_of_one_image_are_steps_of_one_image(split):
    few = split.subset(slice(5))
    ours, reference = Linear(), Linear()
    reference.load_state_dict(ours.state_dict())
    training.train(ours, few, epochs=2, batch_size=1, learning_rate=1e-3, progress=False)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=11)
    for epoch in range(2):
        torch.manual_seed(epoch)
        for row in torch.randperm(5):
            optimizer.zero_grad()
            F.cross_entropy(reference(few.normalized([row])), few.labels[row][None]).backward()
            optimizer.step()
            scheduler.step()
    torch.testing.assert_close(weights(ours), weights(reference), rtol=1e-4, atol=1e-6)


def test_numbers_of_numpy_are_numbers_and_go_into_a_checkpoint(split, tmp_path):
    plain = {"epochs": 3, "batch_size": 16, "seed": 2**40 + 5, "learning_rate": 0.25, "weight_decay": 0.5}
    numpy = {
        "epochs": np.int64(3), "batch_size": np.int16(16), "seed": np.int64(2**40 + 5),
        "learning_rate": np.float32(0.25), "weight_decay": np.float64(0.5),
    }  # fmt: skip
    reference, interrupted, resumed = (models.build("tiny-cnn", seed=1) for _ in range(3))
    training.train(reference, split, progress=False, **plain)
    checkpoint = tmp_path / "checkpoint"
    training.train(Interrupted(interrupted, at_step=8), split, progress=False, checkpoint=checkpoint, **numpy)
    wrapped = Interrupted(resumed, at_step=-1)
    history = training.train(wrapped, split, progress=False, checkpoint=checkpoint, **numpy)
    assert len(history.records) == 3 and not history.interrupted
    assert torch.equal(weights(resumed), weights(reference))


# --- what the caller froze


def frozen_parts(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and not module.training
        for key, value in module.state_dict().items()
    }


def test_batch_norm_that_was_frozen_stays_frozen(split):
    """Its statistics, its weights and its mode; all else is trained."""
    teacher = models.build("tiny-cnn", seed=9)
    term = FeatureTerm(features.hint_loss, "stages.1", "stages.1")
    ways = {
        "labels": training.train,
        "augmented": functools.partial(training.train, augment=random_crop_flip()),
        "teacher": functools.partial(training.distill, teacher=teacher),
        "live teacher": functools.partial(training.distill, teacher=teacher, augment=random_crop_flip()),
        "features": functools.partial(training.distill, teacher=teacher, features=[term]),
        "features alone": functools.partial(training.match_features, teacher=teacher, features=[term]),
    }
    for way, train in ways.items():
        pupil = models.build("tiny-cnn", seed=1)
        norms = [module for module in pupil.modules() if isinstance(module, nn.BatchNorm2d)]
        norms[0].eval().requires_grad_(False)
        norms[0].running_mean.fill_(0.5)
        frozen, others = frozen_parts(pupil), copy.deepcopy(pupil.state_dict())
        assert len(frozen) == 5
        train(pupil, split=split, epochs=2, progress=False)
        after = pupil.state_dict()
        assert all(torch.equal(after[name], value) for name, value in frozen.items()), way
        assert not norms[0].training and not norms[0].weight.requires_grad
        moved = [name for name in others if name not in frozen and not torch.equal(after[name], others[name])]
        assert any("running_mean" in name for name in moved), way
        assert any(name.endswith("weight") for name in moved), way


def test_half_frozen_batch_norm_is_trained_as_its_two_switches_say(split):
    """Without gradients alone, the statistics move; in eval mode alone, everything is trained as always."""
    for switch, weight_moves in (("requires_grad", False), ("eval", True)):
        pupil = models.build("tiny-cnn", seed=1)
        norm = next(module for module in pupil.modules() if isinstance(module, nn.BatchNorm2d))
        norm.requires_grad_(False) if switch == "requires_grad" else norm.eval()
        before = copy.deepcopy(norm.state_dict())
        training.train(pupil, split, epochs=1, progress=False)
        assert not torch.equal(norm.running_mean, before["running_mean"]), switch
        assert torch.equal(norm.weight, before["weight"]) is not weight_moves, switch


def test_weights_that_were_frozen_stay_as_they_were(split):
    pupil = models.build("tiny-cnn", seed=1)
    pupil.head.requires_grad_(False)
    before = weights(pupil.head)
    history = training.train(pupil, split, epochs=2, progress=False)
    assert torch.equal(weights(pupil.head), before)
    assert history.records[-1]["loss"] < history.records[0]["loss"]
    with pytest.raises(ValueError, match="no weights that take a gradient"):
        training.train(Linear().requires_grad_(False), split, epochs=1, progress=False)
