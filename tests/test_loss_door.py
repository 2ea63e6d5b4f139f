"""One door for losses: every loss of the library and any of the user's own trains, and what cannot is refused."""

import functools
import importlib.util
import inspect
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib import data, features, losses, metrics, models, sweeps, teachers, training
from kdlib.data import ImageSplit
from kdlib.features import FeatureTerm

pytestmark = pytest.mark.usefixtures("one_thread")

CHANCE = 0.1


@pytest.fixture(scope="module")
def split() -> ImageSplit:
    return data.load().train.take(300)


@pytest.fixture(scope="module")
def small() -> ImageSplit:
    return data.load().train.take(60)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return teachers.load()


@pytest.fixture(scope="module")
def twin(split) -> nn.Module:
    """A trained teacher with the student's layers."""
    trained = models.build("tiny-cnn", seed=7)
    training.train(trained, split, epochs=6, progress=False)
    return trained


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def student(seed: int = 0) -> nn.Module:
    return models.build("tiny-cnn", seed=seed)


def public(module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


# --- every loss of the library


def logit_losses(module=losses) -> dict[str, object]:
    """The functions of student and teacher logits that return one number."""
    found = {}
    for name, value in public(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name.endswith("_loss"):
            signature = inspect.signature(value)
            # distillation_loss is the whole, of which `loss=` is a term.
            if "teacher_logits" in signature.parameters and "LossTerms" not in str(
                signature.return_annotation
            ):
                found[name] = value
    return found


def test_the_losses_of_the_library_are_found():
    assert {
        "soft_target_loss", "logit_mse_loss", "cosine_logit_loss", "decoupled_loss", "correlation_loss",
        "multilabel_distillation_loss", "standardised_loss", "tail_bucket_loss",
    } <= set(logit_losses())  # fmt: skip
    assert {
        "hint_loss", "attention_transfer_loss", "gradcam_transfer_loss", "mmd_loss", "flow_loss",
        "similarity_loss", "relational_loss", "probabilistic_transfer_loss", "correlation_congruence_loss",
        "variational_information_loss", "VariationalInformationLoss", "contrastive_loss", "ContrastiveLoss",
        "score_weighted_loss",
    } <= set(feature_losses())  # fmt: skip


def test_every_logit_loss_trains_a_student_that_beats_chance(split, teacher):
    for name, loss in logit_losses().items():
        for alpha in (0.5, 1.0):
            pupil = student()
            history = training.distill(
                pupil, teacher, split, epochs=4, alpha=alpha, loss=loss, progress=False
            )
            assert all(math.isfinite(record["loss"]) for record in history.records), name
            assert history.records[-1]["distill"] < history.records[0]["distill"], name
            found = metrics.accuracy(pupil, split)
            assert found > 2 * CHANCE, f"{name} at alpha={alpha}: {found}"


def feature_losses() -> dict[str, object]:
    """The public functions and modules of `kdlib.features` that compare student and teacher."""
    return {name: value for name, value in public(features).items() if name.lower().endswith("loss")}


LAYER, CHANNELS = "stages.1", 32
# Where a loss wants another layer than a map, or settings that nothing else can know.
LAYERS = {"flow_loss": ("stages.0", "stages.1"), "contrastive_loss": "head"}
SETTINGS = {
    "variational_information_loss": {"variance": torch.ones(CHANNELS)},
    "score_weighted_loss": {
        "scores": lambda logits: logits.softmax(dim=1).amax(dim=1)[:, None, None].expand(-1, 7, 7)
    },
}


def term(name: str, loss, weight: float) -> FeatureTerm:
    if inspect.isclass(loss):
        torch.manual_seed(0)
        loss = loss(CHANNELS, CHANNELS)
    loss = functools.partial(loss, **SETTINGS[name]) if name in SETTINGS else loss
    layers = LAYERS.get(name, LAYER)
    return FeatureTerm(loss, layers, layers, weight=weight)


def test_every_feature_loss_brings_the_features_closer_and_trains_beside_the_logits(split, twin):
    split = split.take(200)
    for name, loss in feature_losses().items():
        matched = training.match_features(
            student(),
            twin,
            split,
            features=[term(name, loss, 1)],
            epochs=3,
            learning_rate=3e-3,
            progress=False,
        )
        values = [record["features"] for record in matched.records]
        assert all(math.isfinite(value) for value in values), f"{name}: {values}"
        assert values[-1] < values[0], f"{name}: {values}"
        pupil = student()
        history = training.distill(
            pupil, twin, split, features=[term(name, loss, 0.1)], epochs=3, progress=False
        )
        last = history.records[-1]
        assert math.isfinite(last["loss"]) and last["features"] != 0, f"{name}: {last}"
        found = metrics.accuracy(pupil, split)
        assert found > 2 * CHANCE, f"{name}: {found}"


NEW_LOSS = '''

def absolute_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Mean absolute difference of the softened logits."""
    return torch.nn.functional.l1_loss(student_logits / temperature, teacher_logits / temperature)
'''


def test_a_new_logit_loss_is_one_function_in_one_file(split, teacher, tmp_path, monkeypatch):
    """Added to a copy of losses.py, and nothing else touched: it is found, trained and swept by its name."""
    file = tmp_path / "losses.py"
    file.write_text(Path(inspect.getsourcefile(losses)).read_text() + NEW_LOSS)
    spec = importlib.util.spec_from_file_location("kdlib.losses", file)
    with_new = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(with_new)
    name = "absolute_loss"
    assert set(logit_losses(with_new)) - set(logit_losses()) == {name}
    monkeypatch.setattr(losses, name, getattr(with_new, name), raising=False)
    pupil = student()
    training.distill(pupil, teacher, split, epochs=4, loss=getattr(losses, name), progress=False)
    assert metrics.accuracy(pupil, split) > 2 * CHANCE
    test = data.load().validation.take(200)
    table = sweeps.run(
        "tiny-cnn", teacher, split, test, temperatures=[2.0], alphas=[0.9], seeds=[0], epochs=4,
        loss=getattr(losses, name), workers=0, progress=False,
    )  # fmt: skip
    assert table["accuracy"][0] > 2 * CHANCE


# --- what the signature names is passed


class Told:
    """Remembers the keyword arguments of its last call, as losses of every form."""

    def __init__(self):
        self.said = {}

    def _note(self, student_logits, teacher_logits, **told):
        self.said = told
        return F.mse_loss(student_logits, teacher_logits)

    def method(self, z, v, temperature):
        return self._note(z, v, temperature=temperature)

    def __call__(self, z, v, labels):
        return self._note(z, v, labels=labels)

    def forms(self) -> dict[str, tuple[object, set[str]]]:
        note = self._note

        def nothing(z, v):
            return note(z, v)

        def both(z, v, temperature, labels):
            return note(z, v, temperature=temperature, labels=labels)

        def other_order(z, v, labels, temperature):
            return note(z, v, temperature=temperature, labels=labels)

        def by_keyword(z, v, *, labels, temperature):
            return note(z, v, temperature=temperature, labels=labels)

        def with_default(z, v, temperature=1.0, margin=0.5):
            return note(z, v, temperature=temperature)

        def open_ended(z, v, *args, **kwargs):
            assert not args
            return note(z, v, **kwargs)

        def all_open(*args, **kwargs):
            return note(*args, **kwargs)

        @functools.wraps(both)
        def wrapped(*args, **kwargs):
            return both(*args, **kwargs)

        class Module(nn.Module):
            def forward(self, z, v, temperature, labels):
                return note(z, v, temperature=temperature, labels=labels)

        return {
            "nothing": (nothing, set()),
            "lambda": (lambda z, v, temperature: note(z, v, temperature=temperature), {"temperature"}),
            "both": (both, {"temperature", "labels"}),
            "other order": (other_order, {"temperature", "labels"}),
            "by keyword": (by_keyword, {"temperature", "labels"}),
            "with default": (with_default, {"temperature"}),
            "open ended": (open_ended, set()),
            "all open": (all_open, set()),
            "wrapped": (wrapped, {"temperature", "labels"}),
            "module": (Module(), {"temperature", "labels"}),
            "bound method": (self.method, {"temperature"}),
            "callable object": (self, {"labels"}),
            "partial of labels' sibling": (functools.partial(both, temperature=7.0), {"temperature", "labels"}),
            "partial of a partial": (
                functools.partial(functools.partial(with_default, margin=2.0), temperature=7.0), {"temperature"},
            ),
        }  # fmt: skip


def test_what_a_loss_names_is_what_it_is_passed(small):
    logits = torch.randn(len(small), 10, generator=torch.Generator().manual_seed(0))
    told = Told()
    for form, (loss, wanted) in told.forms().items():
        told.said = {}
        training.distill(student(), logits, small, epochs=1, loss=loss, temperature=3.0, progress=False)
        assert set(told.said) == wanted, form
        if "temperature" in wanted:
            assert told.said["temperature"] == (7.0 if "partial" in form else 3.0), form
        if "labels" in wanted:
            assert told.said["labels"].dtype == torch.int64 and told.said["labels"].shape == (30,), form


def test_labels_and_logits_of_a_call_belong_together(small):
    """The logits name the row of their image, and the labels come in the same order."""
    rows = F.one_hot(torch.arange(len(small)) % 10, 10).float() + 20 * F.one_hot(small.labels, 10)
    seen = []

    def loss(z, v, labels):
        assert torch.equal(v.argmax(dim=1), labels)
        seen.append(len(labels))
        return F.mse_loss(z, v)

    training.distill(student(), rows, small, epochs=2, loss=loss, progress=False)
    assert seen[-4:] == [30] * 4


class Scaled(nn.Module):
    """A loss that trains something itself."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, student_logits, target):
        if not target.is_floating_point():
            target = F.one_hot(target, student_logits.shape[1]).float()
        return F.mse_loss(self.scale * student_logits, target)


def test_a_loss_with_parameters_has_them_trained_through_every_door(small, teacher):
    doors = {
        "loss": lambda loss: training.distill(
            student(), teacher, small, epochs=1, loss=loss, progress=False
        ),
        "task_loss": lambda loss: training.distill(
            student(), teacher, small, epochs=1, task_loss=loss, progress=False
        ),
        "task_loss of train": lambda loss: training.train(
            student(), small, epochs=1, task_loss=loss, progress=False
        ),
        "features": lambda loss: training.match_features(
            student(), student(1), small, epochs=1, features=[FeatureTerm(loss, "head", "head")], progress=False
        ),
    }  # fmt: skip
    for door, train in doors.items():
        for form in (lambda loss: loss, functools.partial):
            scaled = Scaled()
            train(form(scaled))
            assert scaled.scale.item() != 0.5, f"{door}: {form}"


def test_such_parameters_are_in_the_checkpoint(small, teacher, tmp_path):
    for train in (
        lambda loss, **more: training.train(student(), small, epochs=3, task_loss=loss, **more),
        lambda loss, **more: training.distill(student(), teacher, small, epochs=3, loss=loss, **more),
    ):
        whole, parts, path = Scaled(), Scaled(), tmp_path / "checkpoint"
        path.unlink(missing_ok=True)
        train(whole, progress=False)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr("kdlib.training.loop.REPORT_INTERVAL", 0)
            train(parts, progress=lambda record: 1 / (3 - record["epoch"]), checkpoint=path)
        resumed = Scaled()
        train(resumed, progress=False, checkpoint=path)
        assert torch.equal(whole.scale, resumed.scale)


# --- the same numbers, alone and in a sweep


def own_loss(student_logits, teacher_logits, temperature, labels):
    right = teacher_logits.argmax(dim=1) == labels
    error = F.huber_loss(student_logits / temperature, teacher_logits / temperature, reduction="none")
    return (error.mean(dim=1) * (1 + right)).mean()


def own_task_loss(student_logits, labels):
    return F.multi_margin_loss(student_logits, labels)


def test_a_loss_of_ones_own_gives_the_same_numbers_alone_and_in_a_sweep(small, teacher):
    test = data.load().validation.take(100)
    for own in ({"loss": own_loss}, {"loss": own_loss, "task_loss": own_task_loss}):
        table = sweeps.run(
            "tiny-cnn", teacher, small, test, temperatures=[1.0, 3.0], alphas=[0.0, 0.4], seeds=[0, 5],
            epochs=2, workers=0, bfloat16=False, progress=False, **own,
        )  # fmt: skip
        for row in table.to_dict("records"):
            seed = int(row["seed"])
            alone = models.build("tiny-cnn", seed=seed)
            training.distill(
                alone, teacher, small, epochs=2, temperature=row["temperature"], alpha=row["alpha"], seed=seed,
                bfloat16=False, device="cpu", progress=False, **own,
            )  # fmt: skip
            assert row["accuracy"] == metrics.accuracy(alone, test), row
            assert row["ece"] == metrics.calibration_error(alone, test), row
            assert row["agreement"] == metrics.agreement(alone, teacher, test), row
        assert table["ece"].nunique() == 6


def test_alpha_weighs_the_two_terms_of_ones_own(small):
    logits = torch.randn(len(small), 10, generator=torch.Generator().manual_seed(0))
    history = training.distill(
        student(), logits, small, epochs=2, alpha=0.3, loss=lambda z, v: (z - v).abs().mean(),
        task_loss=own_task_loss, progress=False,
    )  # fmt: skip
    for record in history.records:
        assert record["loss"] == pytest.approx(0.3 * record["distill"] + 0.7 * record["task"], rel=1e-5)


def test_a_task_loss_of_ones_own_replaces_cross_entropy(small):
    ours, reference = student(), student()
    training.train(ours, small, epochs=2, task_loss=nn.CrossEntropyLoss(), progress=False)
    training.train(reference, small, epochs=2, progress=False)
    assert torch.equal(weights(ours), weights(reference))
    history = training.train(student(), small, epochs=3, task_loss=own_task_loss, progress=False)
    assert history.records[-1]["task"] < history.records[0]["task"]
