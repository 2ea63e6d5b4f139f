"""Feature losses in the training loop: against a loop by hand, cached and asked, in two stages, resumed."""

import copy
import functools

import pytest
import torch
from torch import nn

from kdlib import data, features, losses, models, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.features import FeatureTerm
from kdlib.training import teacher as teacher_module

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def split() -> ImageSplit:
    return data.load().train.take(70)


class TwoLayers(nn.Module):
    def __init__(self, hidden: int = 12, classes: int = 10, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Linear(784, hidden)
            self.head = nn.Linear(hidden, classes)

    def forward(self, images):
        return self.head(self.body(images.flatten(1)).relu())


class Counted(TwoLayers):
    """Counts the images that it is asked about."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.asked = 0

    def forward(self, images):
        self.asked += len(images)
        return super().forward(images)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def hint(**options) -> FeatureTerm:
    return FeatureTerm(features.hint_loss, "body", "body", **options)


def test_joint_training_does_what_a_plain_loop_does(split):
    ours, reference, teacher = TwoLayers(seed=1), TwoLayers(seed=1), TwoLayers(seed=2)
    history = training.distill(
        ours, teacher, split, epochs=3, temperature=3.0, alpha=0.6, features=[hint(weight=0.7)],
        learning_rate=1e-3, seed=4, progress=False,
    )  # fmt: skip
    steps = -(-len(split) // 32)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=3 * steps + 1)
    for epoch in range(3):
        torch.manual_seed(4 * 1_000_003 + epoch)
        total = 0.0
        for rows in torch.randperm(len(split)).tensor_split(steps):
            images = split.normalized(rows).flatten(1)
            with torch.no_grad():
                taught = teacher.body(images)
            hidden = reference.body(images)
            logits = reference.head(hidden.relu())
            kd = losses.distillation_loss(
                logits, teacher.head(taught.relu()).detach(), split.labels[rows], temperature=3.0, alpha=0.6
            )
            feature_loss = 0.7 * ((hidden - taught) ** 2).mean()
            optimizer.zero_grad()
            (kd.total + feature_loss).backward()
            optimizer.step()
            scheduler.step()
            total += feature_loss.item() * len(rows)
        assert history.records[epoch]["features"] == pytest.approx(total / len(split), rel=1e-4)
    torch.testing.assert_close(weights(ours), weights(reference), rtol=1e-4, atol=1e-6)


def test_a_weight_of_zero_changes_nothing(split):
    with_term, without = TwoLayers(seed=1), TwoLayers(seed=1)
    teacher = TwoLayers(seed=2)
    training.distill(with_term, teacher, split, epochs=2, features=[hint(weight=0)], progress=False)
    training.distill(without, teacher, split, epochs=2, progress=False)
    assert torch.equal(weights(with_term), weights(without))


def test_several_terms_are_added(split):
    teacher = TwoLayers(seed=2)
    twice, double = TwoLayers(seed=1), TwoLayers(seed=1)
    training.distill(
        twice, teacher, split, epochs=1, features=[hint(weight=1), hint(weight=2)], progress=False
    )
    training.distill(double, teacher, split, epochs=1, features=[hint(weight=3)], progress=False)
    torch.testing.assert_close(weights(twice), weights(double), rtol=1e-4, atol=1e-6)


def test_the_regressor_is_trained_and_stays_outside_the_student(split):
    student, teacher = TwoLayers(hidden=6), TwoLayers(hidden=9, seed=2)
    names = list(student.state_dict())
    regressor = features.Regressor(6, 9)
    before = weights(regressor)
    training.distill(student, teacher, split, epochs=2, features=[hint(regressor=regressor)], progress=False)
    assert not torch.equal(before, weights(regressor))
    assert list(student.state_dict()) == names and not student._forward_hooks
    assert student(split.normalized(slice(3))).shape == (3, 10)


def test_a_regressor_is_made_on_request_and_fixed_by_the_seed(split):
    students = [models.build("tiny-cnn", seed=0) for _ in range(3)]
    teacher = models.build("resnet8", seed=1)
    term = FeatureTerm(features.hint_loss, "stages.1", "stages.1", regressor=True)
    for student, seed in zip(students, (0, 0, 1), strict=True):
        torch.rand(seed + len(split))  # the state of the global generator must not matter
        training.distill(student, teacher, split, epochs=1, features=[term], seed=seed, progress=False)
    assert torch.equal(weights(students[0]), weights(students[1]))
    assert not torch.equal(weights(students[0]), weights(students[2]))


def test_a_loss_with_parameters_has_them_trained(split):
    loss = features.VariationalInformationLoss(12, 12)
    before = loss.raw_variance.detach().clone()
    term = FeatureTerm(loss, "body", "body")
    training.distill(TwoLayers(), TwoLayers(seed=2), split, epochs=1, features=[term], progress=False)
    assert not torch.equal(before, loss.raw_variance)


@pytest.mark.parametrize("source", ["asked in every step", "given as a tensor"])
def test_cached_asked_and_given_features_teach_alike(split, monkeypatch, source):
    teacher, cached, other = (models.build(name, seed=1) for name in ("resnet8", "tiny-cnn", "tiny-cnn"))
    term = functools.partial(FeatureTerm, features.similarity_loss, "stages.2", weight=100)
    training.distill(cached, teacher, split, epochs=2, features=[term("stages.2")], progress=False)
    if source == "asked in every step":
        monkeypatch.setattr(teacher_module, "LARGEST_CACHE", 0)
        layer = "stages.2"
    else:
        layer = features.teacher_features(teacher, split, ["stages.2"])["stages.2"]
    training.distill(other, teacher, split, epochs=2, features=[term(layer)], progress=False)
    torch.testing.assert_close(weights(cached), weights(other), rtol=1e-3, atol=1e-4)


def test_known_features_are_asked_for_once(split):
    teacher = Counted()
    training.distill(TwoLayers(seed=1), teacher, split, epochs=4, features=[hint()], progress=False)
    # once for the logits (with a probe of a few images), once for the features
    assert teacher.asked <= 2 * len(split) + 20


def test_with_augmentation_the_teacher_is_asked_once_a_step_about_the_student_s_view(split):
    teacher, student = Counted(), Counted(seed=1)
    seen = []
    loss = lambda s, t: seen.append((s.detach().clone(), t.clone())) or features.hint_loss(s, t)  # noqa: E731
    training.distill(
        student, teacher, split, epochs=3, features=[FeatureTerm(loss, "body", "body")],
        augment=random_crop_flip(padding=2), progress=False,
    )  # fmt: skip
    assert teacher.asked <= 3 * len(split) + 20
    twin = Counted()  # the same weights as the teacher: the same view gives the same features
    same_view = Counted()
    training.distill(
        same_view, twin, split, epochs=1, alpha=1, features=[hint()], augment=random_crop_flip(padding=2),
        learning_rate=1e-12, progress=lambda record: seen.append(record),
    )  # fmt: skip
    assert seen[-1]["features"] == pytest.approx(0, abs=1e-9)


def test_without_logits_the_teacher_may_know_other_classes(split):
    student, teacher = TwoLayers(seed=1), Counted(classes=3)
    history = training.distill(student, teacher, split, epochs=1, alpha=0, features=[hint()], progress=False)
    assert history.records[0]["distill"] == 0 and history.records[0]["features"] > 0
    with pytest.raises(ValueError, match=r"teacher logits \(batch, 3\)"):
        training.distill(student, teacher, split, epochs=1, alpha=0.5, features=[hint()], progress=False)


def test_the_first_stage_leaves_the_classifier_alone_and_brings_the_features_closer(split):
    student, teacher = TwoLayers(seed=1), TwoLayers(seed=2)
    head = weights(student.head)
    history = training.match_features(student, teacher, split, features=[hint()], epochs=8, progress=False)
    assert torch.equal(weights(student.head), head)
    first, last = history.records[0], history.records[-1]
    assert last["features"] < first["features"] / 2 and last["loss"] == last["features"]
    assert last["task"] == last["distill"] == 0


def test_equal_networks_have_nothing_to_match(split):
    student, teacher = TwoLayers(), TwoLayers()
    history = training.match_features(
        student, teacher, split, features=[hint()], epochs=1, learning_rate=1e-12, progress=False
    )
    assert history.records[0]["features"] == pytest.approx(0, abs=1e-12)


class Stop(Exception):
    pass


def test_an_interrupted_training_resumes_with_its_regressor(split, tmp_path):
    def run(student, reporter=False, checkpoint=None):
        return training.distill(
            student, TwoLayers(hidden=9, seed=2), split, epochs=4, features=[hint(regressor=True)],
            progress=reporter, checkpoint=checkpoint,
        )  # fmt: skip

    def stop_in_the_third_epoch(record):
        if record["epoch"] == 3:
            raise Stop

    whole, parts = TwoLayers(), TwoLayers()
    run(whole)
    # An exception in the reporter is reported after a step of epoch 3: two epochs are in the checkpoint.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr("kdlib.training.loop.REPORT_INTERVAL", 0)
        run(parts, stop_in_the_third_epoch, tmp_path / "c.pt")
    resumed = TwoLayers()
    run(resumed, checkpoint=tmp_path / "c.pt")
    assert torch.equal(weights(whole), weights(resumed))
    with pytest.raises(ValueError, match="belongs to another training"):
        training.distill(
            TwoLayers(), TwoLayers(hidden=9, seed=2), split, epochs=4, progress=False,
            features=[hint(regressor=True, weight=2)], checkpoint=tmp_path / "c.pt",
        )  # fmt: skip


def test_teacher_features_are_those_of_eval_mode_in_the_order_of_the_images(split):
    teacher = models.build("resnet8", seed=1)
    found = features.teacher_features(teacher, split, ["stages.0", "stages.2"], batch_size=32)
    assert teacher.training
    with torch.no_grad():
        stem = teacher.eval().stages[0](teacher.stem(split.normalized(slice(None))))
    torch.testing.assert_close(found["stages.0"], stem, rtol=1e-4, atol=1e-5)
    assert found["stages.2"].shape == (len(split), 64, 7, 7)


class Recorded(TwoLayers):
    """Keeps the images that it is trained on."""

    def forward(self, images):
        if self.training:
            self.images = images.detach()
        return super().forward(images)


def test_a_loss_is_passed_the_labels_logits_and_gradients_that_it_names(split):
    """Each compared with its definition: autograd on the images of the step."""
    labels_of = {
        image.numpy().tobytes(): label for image, label in zip(split.images, split.labels, strict=True)
    }
    ways = {
        "cached": {},
        "live": {"augment": lambda image: image.flip(-1)},
        "views": {"augment": lambda image: image.flip(-1), "views": 2},
    }
    for way, options in ways.items():
        student, teacher, steps = Recorded(seed=1), TwoLayers(seed=2), []

        def loss(
            ours, theirs, student_logits, teacher_logits, labels, student_gradients, teacher_gradients,
            student=student, steps=steps,
        ):  # fmt: skip
            if student.training:
                given = (ours, theirs, student_logits, teacher_logits, student_gradients, teacher_gradients)
                state = copy.deepcopy(student).eval()
                steps.append((state, student.images, labels, [values.detach().clone() for values in given]))
            assert student_gradients.requires_grad and not teacher_gradients.requires_grad
            assert not teacher_logits.requires_grad and not theirs.requires_grad
            return features.hint_loss(ours, theirs) + student_gradients.square().mean()

        training.match_features(
            student, teacher, split, features=[FeatureTerm(loss, "body", "body")], epochs=1, progress=False,
            **options,
        )  # fmt: skip
        assert len(steps) == 3
        for state, images, labels, given in steps:
            pixels = (images * split.std[:, None, None] + split.mean[:, None, None]) * 255
            original = pixels.round().to(torch.uint8).flip(-1) if options else pixels.round().to(torch.uint8)
            assert labels.tolist() == [labels_of[image.numpy().tobytes()] for image in original], way
            expected = []
            for network in (state, teacher):
                hidden = network.body(images.flatten(1))
                logits = network.head(hidden.relu())
                own = logits[torch.arange(len(labels)), labels].sum()
                expected.append((hidden, logits, torch.autograd.grad(own, hidden)[0]))
            (s, z, g), (t, v, h) = expected
            for found, reference in zip(given, (s, t, z, v, g, h), strict=True):
                torch.testing.assert_close(found, reference.detach(), rtol=1e-3, atol=1e-4)


# --- bad input


def refused(split, message, *, teacher=None, **options):
    student, before = TwoLayers(), weights(TwoLayers())
    teacher = TwoLayers(seed=2) if teacher is None else teacher
    with pytest.raises(ValueError, match=message):
        training.distill(student, teacher, split, epochs=1, progress=False, **options)
    assert torch.equal(weights(student), before)


def test_terms_that_cannot_be_computed_are_refused_before_training(split):
    refused(split, "near names: body", features=[FeatureTerm(features.hint_loss, "bodi", "body")])
    refused(split, r"\(2, 12\) and \(2, 9\).*Regressor", teacher=TwoLayers(hidden=9), features=[hint()])
    refused(
        split,
        r"features\[1\].*FeatureTerm, got tuple",
        features=[hint(), (features.hint_loss, "body", "body")],
    )
    known = torch.zeros(len(split) - 1, 12)
    refused(
        split, r"each of the 70 images.*\(69, 12\)", features=[FeatureTerm(features.hint_loss, "body", known)]
    )
    known = torch.zeros(len(split), 12)
    refused(
        split, "belong to the images as they are", augment=random_crop_flip(padding=2),
        features=[FeatureTerm(features.hint_loss, "body", known)],
    )  # fmt: skip
    refused(split, "need the teacher module", teacher=torch.zeros(len(split), 10), features=[hint()])
    known[50, 3] = float("nan")
    refused(
        split, r"features\[0\]: teacher features must be finite, got nan at position \(50, 3\)",
        features=[FeatureTerm(features.hint_loss, "body", known)],
    )  # fmt: skip
    for single in (hint(), None, 3):
        with pytest.raises(TypeError, match="features must be a list of FeatureTerm, got"):
            training.distill(TwoLayers(), TwoLayers(seed=2), split, epochs=1, features=single, progress=False)
    with pytest.raises(ValueError, match="at least one FeatureTerm"):
        training.match_features(TwoLayers(), TwoLayers(), split, features=[], epochs=1)
    with pytest.raises(ValueError, match="weight must be at least 0"):
        hint(weight=-1)
    for layers in (("body",), ()):
        with pytest.raises(ValueError, match="student_layer must be the name of a layer, or two names"):
            FeatureTerm(features.hint_loss, layers, layers)
        with pytest.raises(ValueError, match="teacher_layer must be the name of a layer, or two names"):
            FeatureTerm(features.hint_loss, "body", layers)


def test_a_checkpoint_knows_a_loss_by_name_and_options():
    loss = functools.partial(features.mmd_loss, kernel="linear")
    described = FeatureTerm(loss, "body", "body").describe()["loss"]
    assert described == "mmd_loss(){'kernel': 'linear'}"


def test_logits_as_teacher_suffice_where_the_features_are_given(split):
    teacher, by_module, by_tensors = TwoLayers(seed=2), TwoLayers(), TwoLayers()
    known = features.teacher_features(teacher, split, ["body"])["body"]
    with torch.no_grad():
        logits = teacher(split.normalized(slice(None)))
    training.distill(by_module, teacher, split, epochs=1, features=[hint()], progress=False)
    training.distill(
        by_tensors,
        logits,
        split,
        epochs=1,
        progress=False,
        features=[FeatureTerm(features.hint_loss, "body", known)],
    )
    torch.testing.assert_close(weights(by_module), weights(by_tensors), rtol=1e-4, atol=1e-6)
