"""The experiments of lesson 10, run very small: what each arm is, by references of its own; and what they tell."""

import builtins
import itertools
import json
import math

import experiment_tables
import numpy as np
import pandas
import pytest
import torch
from experiment_tables import alike, copied, in_place_of_recorded, in_place_of_trainings
from PIL import Image
from scipy import special, stats
from torch import nn

from kdlib import clinic, data, losses, metrics, models, teachers, training
from kdlib.clinic import losses as found_losses
from kdlib.data import ImageSplit
from kdlib.experiments import choosing, lesson10_classic, lesson10_clinic, lesson10_gains, lesson10_selection
from kdlib.experiments.lesson10_clinic import CASES, FOUND, LABELS, MENDED
from kdlib.inference import predict_logits
from kdlib.lesson import results
from kdlib.sweeps import map_cells

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"images": 40, "epochs": 1}
COLUMNS = ["accuracy", "reported", "finite", "teacher", "temperature"]
ARMS = [(case, arm) for case, arms in CASES.items() for arm in arms]


class Few(ImageSplit):
    """A split that gives what it has where more is asked for."""

    def take(self, n, *, seed=0):
        return super().take(min(n, len(self)), seed=seed)


def few_of(split, n):
    part = split.take(n, seed=0)
    return Few(part.images, part.labels, part.indices, part.mean, part.std)


@pytest.fixture(scope="module")
def few():
    whole = data.load("fashion-mnist")
    parts = (few_of(whole.train, 100), few_of(whole.validation, 40), few_of(whole.test, 60))
    return data.ImageDataset(*parts, whole.classes)


@pytest.fixture(scope="module")
def sure():
    """In place of the course's teacher a small network, as sure of its answers."""
    network = models.build("tiny-cnn", seed=99)
    with torch.no_grad():
        [*(one for one in network.modules() if isinstance(one, nn.Linear))][-1].weight.mul_(300)
    return teachers.freeze(network)


@pytest.fixture(autouse=True)
def small(monkeypatch, few, sure):
    for module in (lesson10_clinic, lesson10_selection):
        monkeypatch.setattr(module, "fashion", lambda: few)
    monkeypatch.setattr(teachers, "load", lambda name: sure)
    forget()
    yield
    forget()


CACHES = (
    lesson10_selection._halves, lesson10_selection._answers, lesson10_classic._material, lesson10_gains._rows,
)  # fmt: skip


def forget():
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def trainings(monkeypatch):
    """What every training by the library was asked for, none of which trains."""
    asked = []

    def train(student, split, **options):
        asked.append({"student": copied(student), "split": split} | options)

    def distill(student, teacher, split, **options):
        asked.append({"student": copied(student), "split": split, "teacher": teacher} | options)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "distill", distill)
    return asked


@pytest.fixture
def built(monkeypatch):
    """Every student of the clinic: its first weights, and the images of each batch that it saw in train mode."""
    made, build = [], models.build

    def watched(*given, **options):
        network = build(*given, **options)
        seen = []
        made.append({"first": copied(network), "network": network, "seen": seen})
        network.register_forward_pre_hook(
            lambda one, images: seen.append(images[0].detach().clone()) if one.training else None
        )
        return network

    monkeypatch.setattr(models, "build", watched)
    return made


def share_right(logits, labels):
    return float(np.mean(np.asarray(logits).argmax(axis=1) == np.asarray(labels)))


def run(seed=3, **other):
    return lesson10_clinic.Run(seed, *(SMALL | other).values())


# ------------------------------------------------------------------ the clinic


def test_every_arm_of_every_case_trains_and_gives_its_numbers():
    for case, arm in ARMS:
        row = lesson10_clinic.on_split(case, arm, 3, "test", **SMALL)
        assert list(row) == COLUMNS and all(type(value) is float for value in row.values()), (case, arm)
        assert 0 <= row["accuracy"] <= 1 and 0 <= row["reported"] <= 1, (case, arm)
        assert row["finite"] == 1, (case, arm)
        asked = case in ("cache", "mode") and arm != LABELS
        assert (0 <= row["teacher"] <= 1) if asked else row["teacher"] == -1, (case, arm)
        learned = 1 < row["temperature"] < 21
        assert learned if case == "false alarm" else row["temperature"] == -1, (case, arm)
        beside = case in ("best", "training on validation")
        assert beside or row["reported"] == row["accuracy"], (case, arm)
    again = lesson10_clinic.on_split(case, arm, 3, "test", **SMALL)
    assert again == row, "the last arm again"


def test_every_case_of_the_experiment_is_one_of_the_clinic_and_the_others_stand_in_other_tables():
    names = {case.name for case in clinic.cases()}
    assert set(CASES) <= names and names - set(CASES) == {"sigmoids", "schedule"}
    assert set(lesson10_gains.PAIRS) == set(CASES)
    for case, pairs in lesson10_gains.PAIRS.items():
        assert {arm for pair in pairs for arm in pair} == set(CASES[case]), case


def test_arms_of_a_case_begin_alike_and_see_the_same_images_in_the_same_order(built):
    """But for those that see images of another kind, or moved, or of the other split."""
    other = {"training on validation": {FOUND}, "adversary": {MENDED, "moved at random"}}
    for case, arms in CASES.items():
        first = {}
        for arm in arms:
            built.clear()
            lesson10_clinic.on_split(case, arm, 5, "test", **SMALL)
            first[arm] = built[0]["first"], built[0]["seen"][0]
        plain = [arm for arm in arms if "another kind" not in arm and arm not in other.get(case, ())]
        for arm in arms:
            assert alike(first[arm][0], first[MENDED if MENDED in arms else plain[0]][0]), (case, arm)
            if arm in plain:
                assert torch.equal(first[arm][1], first[plain[0]][1]), (case, arm)
        if case == "mode":
            moved = [first[f"{state}, images of another kind"][1] for state in (FOUND, MENDED)]
            assert torch.equal(*moved) and not torch.equal(moved[0], first[FOUND][1])


def test_other_seeds_have_other_images_and_weights(built):
    for seed in (0, 1):
        lesson10_clinic.on_split("cache", MENDED, seed, "test", **SMALL)
    assert not alike(built[0]["first"], built[1]["first"])
    assert not torch.equal(run(0).split.indices, run(1).split.indices)


def test_a_student_of_nan_answers_with_the_first_class(few):
    network = models.build("tiny-cnn", seed=0)
    with torch.no_grad():
        for one in network.parameters():
            one.fill_(math.nan)
    share = (few.test.labels == 0).float().mean().item()
    expected = {"accuracy": pytest.approx(share), "reported": pytest.approx(share), "finite": 0.0}
    assert lesson10_clinic.on_test(network) == expected
    values = itertools.chain([1.0, 1.0], itertools.repeat(math.nan))
    row = lesson10_clinic.by_loss(run(epochs=2), lambda z, v: next(values) * (z - v).square().mean())
    assert row == expected, "and so does one whose training stopped"
    right = models.build("tiny-cnn", seed=1).eval()
    said = share_right(predict_logits(right, few.test), few.test.labels)
    assert lesson10_clinic.on_test(right, more=0.5) == {
        "accuracy": pytest.approx(said), "reported": pytest.approx(said), "finite": 1.0, "more": 0.5,
    }  # fmt: skip


def test_a_loss_that_is_no_number_has_the_gradient_of_the_mended_one(built, sure):
    """So that a plain loop gives the same student, and only who prints the loss sees it."""
    answers = predict_logits(sure, run().split)
    assert found_losses.logarithm_as_found(torch.zeros(40, 10), answers).isnan()
    assert found_losses.logarithm_mended(torch.zeros(40, 10), answers).isfinite()
    rows = [lesson10_clinic.on_split("logarithm", arm, 3, "test", **SMALL) for arm in (FOUND, MENDED)]
    assert rows[0] == rows[1] and alike(*(copied(one["network"]) for one in built))
    assert not alike(copied(built[0]["network"]), built[0]["first"]), "it learned"


def test_losses_are_asked_for_with_the_settings_that_their_names_say(trainings, sure):
    asked = {}
    for case in ("reduction", "weights", "clamp"):
        for arm in CASES[case]:
            trainings.clear()
            lesson10_clinic.on_split(case, arm, 3, "test", **SMALL)
            (asked[case, arm],) = trainings
    alphas = {(case, arm): one["alpha"] for (case, arm), one in asked.items()}
    corrected = "found, its alpha corrected"
    assert {case for case, alpha in alphas.items() if alpha == 1} == {
        key for key in asked if key[0] != "reduction"
    }
    assert {arm: alphas["reduction", arm] for arm in (FOUND, MENDED)} == {FOUND: 0.9, MENDED: 0.9}
    rates = {(case, arm): one["learning_rate"] for (case, arm), one in asked.items()}
    assert {key for key, rate in rates.items() if rate != 0.02} == {
        ("clamp", "found, a higher rate"), ("clamp", "mended, a higher rate"),
    }  # fmt: skip
    assert all(one["temperature"] == 4 and one["seed"] == 3 and one["epochs"] == 1 for one in asked.values())

    student, teacher = 3 * torch.randn(
        2, 16, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    labels = torch.arange(16) % 10
    own = {
        alpha: losses.distillation_loss(student, teacher, labels, temperature=4, alpha=alpha).total
        for alpha in (0.1, 0.9)
    }
    for arm, alpha in ((FOUND, 0.1), (MENDED, 0.9)):
        torch.testing.assert_close(asked["weights", arm]["loss"](student, teacher, labels, 4.0), own[alpha])
    # The corrected alpha gives both terms the balance that was meant, and the whole loss another size.
    alpha, soft = alphas["reduction", corrected], losses.soft_target_loss(student, teacher, 4) / 10
    hard = nn.functional.cross_entropy(student, labels)
    torch.testing.assert_close(91 / 10 * ((1 - alpha) * hard + alpha * soft), own[0.9])

    split = run().split
    probabilities = special.softmax(predict_logits(sure, split).double().numpy(), axis=1)
    for (case, arm), one in asked.items():
        expected = predict_logits(sure, split)
        if case != "clamp":
            assert torch.equal(one["teacher"], expected), (case, arm)
        else:
            said = special.expit(one["teacher"].double().numpy())
            np.testing.assert_allclose(said, probabilities, atol=1e-6)
            assert one["teacher"].abs().max() <= 30 and one["teacher"].isfinite().all()


def test_students_of_labels_and_squares_learn_by_these_losses(built, sure):
    """One batch of 20 images, one step: the weights are those of a step with the loss written out."""

    def plain(logits, images, labels):
        return nn.functional.cross_entropy(logits, labels)

    def squares(logits, images, labels):
        return plain(logits, images, labels) + 0.1 * (logits - sure(images)).square().sum()

    for arm, loss in ((lesson10_clinic.by_labels, plain), (lesson10_clinic.by_squares, squares)):
        one = run(images=20)
        built.clear()
        arm(one)
        student = models.build("tiny-cnn", seed=3)
        optimizer = torch.optim.Adam(student.parameters(), 0.003)
        order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
        images = one.split.normalized()[order]
        loss(student(images), images, one.split.labels[order]).backward()
        optimizer.step()
        expected, found = copied(student), copied(built[0]["network"])
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], msg=lambda words, name=name: f"{name}: {words}")


def test_the_code_that_keeps_the_best_learns_wrong_labels_longer_and_is_judged_by_right_ones(
    built, few, monkeypatch
):
    judged, targets = [], []
    accuracy, cross_entropy = metrics.accuracy, nn.functional.cross_entropy
    monkeypatch.setattr(metrics, "accuracy", lambda one, split: judged.append(split) or accuracy(one, split))
    monkeypatch.setattr(
        nn.functional,
        "cross_entropy",
        lambda logits, labels: targets.append(labels) or cross_entropy(logits, labels),
    )
    lesson10_clinic.on_split("best", MENDED, 3, "test", **SMALL)
    assert len(built[0]["seen"]) == 3 * 2, "three epochs of two batches"
    split, images, labels = run().split, torch.cat(built[0]["seen"][:2]), torch.cat(targets[:2])
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(images, split.normalized()[order])
    assert (labels != split.labels[order]).sum() == 16, "four in ten"
    assert [len(one) for one in judged] == [40, 40, 40, 60]
    assert all(torch.equal(one.images, few.validation.images) for one in judged[:3])
    assert all(torch.equal(one.labels, few.validation.labels) for one in judged[:3])
    assert torch.equal(judged[3].labels, few.test.labels)


def test_the_mended_best_has_the_accuracy_that_it_reports_on_validation(built, few):
    for state in (FOUND, MENDED):
        built.clear()
        row = lesson10_clinic.on_split("best", state, 3, "test", **SMALL)
        said = share_right(predict_logits(built[0]["network"].eval(), few.validation), few.validation.labels)
        assert said <= row["reported"] + 1e-9
        assert state == FOUND or said == pytest.approx(row["reported"])


def test_images_of_another_kind_are_glyphs_normalised_as_garments(built, few):
    lesson10_clinic.on_split("adversary", "moved at random", 3, "test", **SMALL)
    glyphs = lesson10_clinic._glyphs(run())
    assert glyphs.shape == (40, 1, 28, 28)
    low = (0 - few.train.mean) / few.train.std
    assert glyphs.amin() == pytest.approx(low.item()), "black"
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:32]
    moved = built[0]["seen"][0] - glyphs[order]
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.1), atol=1e-5, rtol=0)
    assert 0.45 < (moved > 0).float().mean() < 0.55


def test_a_report_trains_on_the_split_that_it_says(trainings, few, monkeypatch):
    judged, accuracy = [], metrics.accuracy
    monkeypatch.setattr(metrics, "accuracy", lambda one, split: judged.append(split) or accuracy(one, split))
    learned = {FOUND: few.validation.take(40, seed=3), MENDED: few.train.take(40, seed=3)}
    for arm, split in learned.items():
        trainings.clear()
        judged.clear()
        row = lesson10_clinic.on_split("training on validation", arm, 3, "test", **SMALL)
        (one,) = trainings
        assert torch.equal(one["split"].images, split.images) and one["epochs"] == 1, arm
        assert torch.equal(judged[0].images, learned[FOUND].images), "what is reported"
        untrained = models.build("tiny-cnn", seed=3)
        for column, of in (("reported", learned[FOUND]), ("accuracy", few.test)):
            assert row[column] == pytest.approx(share_right(predict_logits(untrained, of), of.labels)), (
                arm,
                column,
            )


def test_a_teacher_in_train_mode_is_judged_as_it_was_left(sure, few):
    """And the next arm gets it as it was."""
    before = copied(sure)
    rows = {arm: lesson10_clinic.on_split("mode", arm, 3, "test", **SMALL) for arm in CASES["mode"]}
    own = share_right(predict_logits(sure, few.test), few.test.labels)
    assert alike(copied(sure), before)
    mended = [rows[arm]["teacher"] for arm in rows if arm.startswith(MENDED)]
    assert mended == pytest.approx([own, own])
    assert rows["found, images of another kind"]["teacher"] != mended[0]


def test_cases_with_a_large_network_in_each_step_are_shorter(built):
    epochs = {}
    for case in CASES:
        built.clear()
        arm = MENDED if MENDED in CASES[case] else "as it stands"
        lesson10_clinic.on_split(case, arm, 3, "test", images=20, epochs=4)
        epochs[case] = len(built[0]["seen"])
    expected = dict.fromkeys(CASES, 4) | {"best": 12} | dict.fromkeys(lesson10_clinic.SHORTER, 1)
    assert epochs == expected


def test_the_table_has_each_arm_of_each_case_once_with_each_seed(monkeypatch):
    in_place_of_trainings(monkeypatch, lambda function, cells: pandas.DataFrame(cells))
    table = lesson10_clinic.compared()
    assert sorted(table.drop(columns="split").itertuples(index=False, name=None)) == sorted(
        (case, arm, seed) for case, arm in ARMS for seed in range(10)
    )
    assert set(table["split"]) == {"test"}


def test_the_table_is_made_by_trainings_of_the_cells(monkeypatch):
    def in_turn(function, cells):
        return map_cells(
            function, [one for one in cells if one["case"] == "weights"], workers=0, progress=False
        )

    monkeypatch.setattr(choosing, "map_cells", in_turn)
    table = lesson10_clinic.compared([7], **SMALL)
    assert list(table) == ["case", "arm", "seed", "split", *COLUMNS] and len(table) == 2
    expected = lesson10_clinic.on_split("weights", FOUND, 7, "test", **SMALL)
    assert table.loc[0, COLUMNS].tolist() == [round(expected[name], 6) for name in COLUMNS]


# ------------------------------------------------------------------ selection


def test_the_test_images_are_halved_by_class_and_no_image_is_in_both(few):
    halves = lesson10_selection._halves()
    assert torch.equal(halves["validation"].images, few.validation.images)
    looked_at, fresh = (halves[name].indices.tolist() for name in ("test", "fresh"))
    assert len(looked_at) == len(fresh) == 30 and set(looked_at).isdisjoint(fresh)
    assert sorted(looked_at + fresh) == sorted(few.test.indices.tolist())
    for name in ("test", "fresh"):
        assert halves[name].labels.bincount().tolist() == [3] * 10, name


def test_an_image_that_occurs_twice_is_left_as_often_as_it_was_not_taken():
    images = torch.arange(3, dtype=torch.uint8)[torch.tensor([0, 1, 0, 2, 0])].view(5, 1, 1, 1)
    split = ImageSplit(images, torch.zeros(5, dtype=torch.int64))
    rest = lesson10_selection._rest(split, split.subset([2, 3]))
    assert sorted(rest.images.flatten().tolist()) == [0, 0, 1]


def test_the_search_has_every_weight_temperature_and_seed_and_as_many_students_of_labels_beside_it(
    monkeypatch,
):
    in_place_of_trainings(monkeypatch, lambda function, cells: pandas.DataFrame(cells))
    for table in (lesson10_selection.replayed(), results.read("lesson10-selection")):
        found, alone = (table[table["arm"] == arm] for arm in ("distilled", "labels"))
        assert len(table) == 720 and not table.duplicated(["arm", "temperature", "alpha", "seed"]).any()
        expected = {
            (5 * alpha, temperature, seed)
            for alpha in range(1, 21) for temperature in (1, 2, 5, 10, 15, 20) for seed in (20, 31, 55)
        }  # fmt: skip
        settings = found[["alpha", "temperature", "seed"]].itertuples(index=False, name=None)
        assert {(round(100 * alpha), *others) for alpha, *others in settings} == expected
        assert alone["seed"].nunique() == 360 and set(alone["seed"]).isdisjoint(found["seed"])
        assert alone["temperature"].nunique() == alone["alpha"].nunique() == 1


def test_all_students_of_the_search_see_the_same_images_and_those_of_labels_differ_by_their_seeds_alone(
    trainings, few, sure
):
    taught = ("distilled", 2.0, 0.05, 20), ("distilled", 8.0, 0.9, 31)
    for settings in (*taught, ("labels", 1.0, 0.0, 5000), ("labels", 1.0, 0.0, 5001)):
        lesson10_selection.on_splits(*settings, **SMALL)
    images = few.train.take(40, seed=0)
    for one, seed in zip(trainings, (20, 31, 5000, 5001), strict=True):
        assert torch.equal(one["split"].indices, images.indices) and one["seed"] == seed
        assert alike(one["student"], copied(models.build("tiny-cnn", seed=seed)))
    given = [(one["temperature"], one["alpha"]) for one in trainings[:2]]
    assert given == [(2.0, 0.05), (8.0, 0.9)]
    assert all(torch.equal(one["teacher"], predict_logits(sure, images)) for one in trainings[:2])
    of_arm = {"student", "seed", "split", "teacher", "temperature", "alpha"}
    plain = [{name: one[name] for name in one.keys() - of_arm} for one in trainings]
    assert "temperature" not in trainings[2] and plain == 4 * [plain[0]]
    assert plain[0] == {"epochs": 1, "learning_rate": 0.02, "progress": False}


def test_a_student_of_the_search_is_judged_on_validation_and_on_both_halves(few):
    for arm in ("distilled", "labels"):
        row = lesson10_selection.on_splits(arm, 4.0, 0.9, 20, **SMALL)
        assert list(row) == ["validation", "test", "fresh"]
        assert all(30 * row[name] == pytest.approx(round(30 * row[name])) for name in ("test", "fresh")), arm
        assert row == lesson10_selection.on_splits(arm, 4.0, 0.9, 20, **SMALL)


def test_the_gain_of_a_search_is_the_mean_over_all_sets_of_so_many_runs():
    """Counted set by set; of equal scores the later run wins."""
    draw = np.random.default_rng(0)
    chosen_by, judged_by = draw.permutation(8) / 8, draw.random(8)
    equal = chosen_by.round(0)
    for scores in (chosen_by, equal):
        for size in range(1, 9):
            sets = itertools.combinations(range(8), size)
            winners = [max(one, key=lambda run, scores=scores: (scores[run], run)) for one in sets]
            expected = judged_by[winners].mean() - judged_by.mean()
            gain = lesson10_selection.expected_gain(scores, judged_by, size)
            assert gain == pytest.approx(expected, abs=1e-12), size
    assert lesson10_selection.expected_gain(chosen_by, chosen_by, 8) == pytest.approx(7 / 8 - 7 / 16)
    for given, error, words in (
        ((chosen_by, judged_by * np.nan, 2), ValueError, "must be finite"),
        ((chosen_by, judged_by, 9), ValueError, "size must be from 1 to 8, the number of runs, got 9"),
        ((chosen_by, judged_by, 0), ValueError, "size must be"),
        ((chosen_by, judged_by, 1.5), TypeError, "size"),
    ):
        with pytest.raises(error, match=words):
            lesson10_selection.expected_gain(*given)


# ------------------------------------------------------------------ the classic pair


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """The classes of CIFAR-10, each noise of its own brightness: 12 images each to train, 4 to test."""
    folder, noise = tmp_path_factory.mktemp("jpegs"), np.random.default_rng(0)
    for split, number in (("train", 12), ("test", 4)):
        for label, name in enumerate(lesson10_classic.CLASSES):
            (folder / split / name).mkdir(parents=True)
            for place in range(number):
                pixels = (noise.integers(0, 256, (32, 32, 3)) // 2 + 12 * label).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{place}.jpg")
    return folder


class InTurn:
    """In place of a pool of processes."""

    def __init__(self, count, mp_context):
        assert count >= 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    map = staticmethod(builtins.map)


@pytest.fixture
def material(jpegs):
    return lesson10_classic.Material(f"folder:{jpegs}", torch.device("cpu"))


def test_the_classic_pair_is_trained_on_the_folder_that_the_environment_names(monkeypatch, jpegs):
    monkeypatch.setattr(lesson10_classic, "ProcessPoolExecutor", InTurn)
    monkeypatch.setenv("KDLIB_CLASSIC_DATA", f"folder:{jpegs}")
    given, answers = [], []
    students, teacher = lesson10_classic._students, lesson10_classic._teacher

    def noted_teacher(*asked):
        row, own = teacher(*asked)
        answers.append(own)
        return row, own

    monkeypatch.setattr(
        lesson10_classic, "_students", lambda *asked: given.append(asked[-1]) or students(*asked)
    )
    monkeypatch.setattr(lesson10_classic, "_teacher", noted_teacher)
    table = lesson10_classic.classic(seeds=range(2), teachers=range(4, 6), epochs=3, every=2)
    assert list(table) == ["data", "network", "arm", "seed", "epochs", "accuracy"]
    assert set(table["data"]) == {"CIFAR-10 as JPEG"}
    found = [tuple(row) for row in table[["network", "arm", "seed", "epochs"]].to_numpy().tolist()]
    arms = (("labels", 3), ("labels, a third as long", 1), ("distilled", 3))
    assert found == [("teacher-net", "labels", seed, 3) for seed in (4, 5)] + [
        ("student-net", arm, seed, epochs) for seed in (0, 1) for arm, epochs in arms
    ]
    right = 20 * table["accuracy"]
    assert table["accuracy"].between(0, 1).all() and np.allclose(right, right.round()), "of 20 images"
    # Students learn from the first teacher, and from it alone.
    assert all(torch.equal(one, answers[0]) for one in given) and not torch.equal(*answers)
    assert len(given) == 2 and answers[0].shape == (60, 10)


def test_without_a_name_the_original_is_loaded(monkeypatch, jpegs):
    own, asked = data.load(f"folder:{jpegs}"), []
    monkeypatch.setattr(lesson10_classic, "ProcessPoolExecutor", InTurn)
    monkeypatch.setattr(data, "load", lambda name: asked.append(name) or own)
    for name in (None, ""):
        monkeypatch.setenv("KDLIB_CLASSIC_DATA", name or "")
        if name is None:
            monkeypatch.delenv("KDLIB_CLASSIC_DATA")
        table = lesson10_classic.classic(seeds=[], teachers=[0], epochs=1, every=4)
        assert set(asked) == {"cifar10"} and set(table["data"]) == {"CIFAR-10"}


def test_data_that_are_not_cifar_10_are_refused_before_a_training(monkeypatch, jpegs, tmp_path):
    for split in ("train", "test"):
        for name in lesson10_classic.CLASSES:
            other = "lorry" if name == "truck" else name
            (tmp_path / split / other).mkdir(parents=True)
            for path in (jpegs / split / name).iterdir():
                (tmp_path / split / other / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(lesson10_classic, "ProcessPoolExecutor", None)
    for source, words in ((f"folder:{tmp_path}", "lorry"), ("digits", r"\(1, 8, 8\)")):
        monkeypatch.setenv("KDLIB_CLASSIC_DATA", source)
        with pytest.raises(ValueError, match=f"KDLIB_CLASSIC_DATA must be cifar10, or folder:PATH .*{words}"):
            lesson10_classic.classic(seeds=[], teachers=[0], epochs=1)


def test_all_images_that_are_not_for_testing_are_learned(material, jpegs):
    own = data.load(f"folder:{jpegs}")
    assert len(material.images) == 120 and material.labels.bincount().tolist() == [12] * 10
    assert torch.equal(material.test_images, own.test.images)
    expected = own.test.normalized()
    torch.testing.assert_close(material.seen(own.test.images), expected)
    every = lesson10_classic.Material(f"folder:{jpegs}", torch.device("cpu"), 4)
    assert torch.equal(every.images, material.images[::4]) and len(every.test_labels) == 10


def test_students_of_the_teacher_see_no_label(material):
    student, teacher = 3 * torch.randn(2, 120, 10, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(119, 87, -1)
    p, q = (special.softmax(x.double().numpy()[88:][::-1] / 4, axis=1) for x in (teacher, student))
    expected = 16 * np.mean(np.sum(p * np.log(p / q), axis=1))
    loss = lesson10_classic._loss(student[positions], material.labels[positions], teacher, positions)
    assert loss.item() == pytest.approx(expected, rel=1e-4)

    after = {}
    for labels in ("right", "shifted"):
        if labels == "shifted":
            material.labels = (material.labels + 1) % 10
        for answers in (None, teacher):
            network = lesson10_classic._built("student-net", 0, material)
            lesson10_classic.learn(network, material, 1, 0, answers)
            after[labels, answers is None] = copied(network)
    assert alike(after["right", False], after["shifted", False])
    assert not alike(after["right", True], after["shifted", True])
    assert not alike(after["right", True], after["right", False])


def test_arms_of_one_seed_of_the_classic_pair_begin_alike_and_go_in_the_same_order(material, monkeypatch):
    begun, learn = [], lesson10_classic.learn

    def noted(network, material, epochs, seed, teacher_logits=None):
        begun.append((copied(network), epochs, seed, teacher_logits))
        learn(network, material, epochs, seed, teacher_logits)

    monkeypatch.setattr(lesson10_classic, "learn", noted)
    monkeypatch.setattr(lesson10_classic, "_material", lambda source, every: material)
    answers = torch.zeros(120, 10)
    rows = lesson10_classic._students(7, "", 1, 1, answers)
    assert [row["epochs"] for row in rows] == [1, 1, 1] and [one[2] for one in begun] == [7, 7, 7]
    assert all(alike(one[0], begun[0][0]) for one in begun)
    assert [one[3] is None for one in begun] == [True, True, False] and torch.equal(begun[2][3], answers)
    assert rows[0]["accuracy"] == rows[1]["accuracy"], "as long, the same student"


def test_the_cost_of_both_networks_is_counted_and_measured_in_turn():
    table = lesson10_classic.cost(repeats=2)
    assert list(table) == ["network", "parameters", "bytes", "repeat", "milliseconds"]
    own = table.groupby("network")[["parameters", "bytes"]].agg(set).to_dict("index")
    assert own == {
        "teacher-net": {"parameters": {4_275_594}, "bytes": {17_102_376}},
        "student-net": {"parameters": {545_098}, "bytes": {2_180_392}},
    }
    assert (table["milliseconds"] > 0).all() and not table.duplicated(["network", "repeat"]).any()
    assert sorted(table["repeat"]) == [0, 0, 1, 1]


def test_the_recorded_classic_pair_is_the_whole_recipe():
    table = results.read("lesson10-classic")
    students = table[table["network"] == "student-net"]
    assert students.groupby("arm")["seed"].agg(set).to_dict() == {
        arm: set(range(10)) for arm in ("labels", "labels, a third as long", "distilled")
    }
    assert students.groupby("arm")["epochs"].agg(set).to_dict() == {
        "labels": {50}, "labels, a third as long": {16}, "distilled": {50},
    }  # fmt: skip
    assert table[table["network"] == "teacher-net"]["seed"].tolist() == [0, 1, 2] and len(table) == 33
    assert table["data"].nunique() == 1


# ------------------------------------------------------------------ gains


@pytest.fixture
def invented(monkeypatch):
    """A table of the clinic with invented results beside the recorded ones of other lessons."""
    draw = np.random.default_rng(0)

    def table(function, cells):
        return pandas.DataFrame([one | {name: draw.random() for name in COLUMNS} for one in cells])

    in_place_of_trainings(monkeypatch, table)
    own = lesson10_clinic.compared()
    others = {name: experiment_tables.read(name) for name in ("lesson08-collages", "lesson07-schedules")}
    tables = {"lesson10-clinic": own, **others}
    in_place_of_recorded(monkeypatch, tables)
    return tables


def set_arm(tables, case, arm, values, column="accuracy"):
    table = tables["lesson10-clinic"]
    table.loc[(table["case"] == case) & (table["arm"] == arm), column] = values


def by_hand(table, arm, over, column, name="arm"):
    own, other = (table[table[name] == one].set_index("seed")[column] for one in (arm, over))
    gaps = np.array([own[seed] - other[seed] for seed in sorted(own.index)])
    assert len(gaps) == 10
    return gaps.mean(), *stats.t.interval(0.95, 9, loc=gaps.mean(), scale=gaps.std(ddof=1) / 10**0.5)


def test_every_gain_is_the_paired_t_interval_of_its_arms_in_its_case(invented):
    rows = lesson10_gains.rows()
    assert not rows.duplicated(["case", "arm", "over"]).any()
    assert set(rows["case"]) == {case.name for case in clinic.cases()}
    for row in rows.to_dict("records"):
        table, name, column = invented[row["table"]], "arm", "accuracy"
        if row["table"] == "lesson10-clinic":
            table = table[table["case"] == row["case"]]
        elif row["case"] == "sigmoids":
            column = "map"
        else:
            name, column = "plan", "test"
        expected = by_hand(table, row["arm"], row["over"], column, name)
        gain = row["gain"]
        assert (gain.mean, gain.low, gain.high) == pytest.approx(expected), row
        said = "helps" if gain.low > 0 else "hurts" if gain.high < 0 else "not told apart"
        assert row["verdict"] == said, row
        assert lesson10_gains.gain(row["case"], row["arm"], row["over"]) == gain
    assert lesson10_gains.gain("cache") == lesson10_gains.gain("cache", MENDED, FOUND)


def test_the_verdict_follows_the_table(invented):
    scatter = np.linspace(-0.01, 0.01, 10)
    set_arm(invented, "cache", FOUND, 0.5)
    for shift, words in ((0.1, "helps"), (-0.1, "hurts"), (0.0, "not told apart")):
        set_arm(invented, "cache", MENDED, 0.5 + shift + scatter)
        lesson10_gains._rows.cache_clear()
        row = lesson10_gains.rows().query("case == 'cache' and arm == 'mended' and over == 'found'").iloc[0]
        assert row["verdict"] == words and row["gain"].mean == pytest.approx(shift)
        effect = lesson10_gains.effect("cache")
        assert (
            effect.startswith("mended over found: ")
            and words in effect.split(";")[0]
            and effect.endswith(".")
        )
        assert len(effect.split(";")) == 2 and "mended over labels" in effect.split(";")[1]


def test_what_a_code_prints_or_spoils_stands_beside_its_effect(invented):
    set_arm(invented, "training on validation", FOUND, 0.987, "reported")
    set_arm(invented, "training on validation", MENDED, 0.5, "reported")
    effect = lesson10_gains.effect("training on validation")
    assert "the code reports (found): 98.7%" in effect and "the code reports (mended): 50.0%" in effect
    set_arm(invented, "mode", "found, images of another kind", 0.123, "teacher")
    assert "afterwards (found, images of another kind): 12.3%" in lesson10_gains.effect("mode")


def test_a_comparison_or_case_that_there_is_not_is_an_error_that_names_it(invented):
    with pytest.raises(KeyError, match="no case 'caches'"):
        lesson10_gains.effect("caches")
    with pytest.raises(KeyError, match="no comparison of 'mended' over 'nothing' in 'cache'"):
        lesson10_gains.gain("cache", over="nothing")


def test_a_table_of_gains_for_a_notebook_is_in_points(invented):
    set_arm(invented, "cache", FOUND, 0.5)
    set_arm(invented, "cache", MENDED, 0.625)
    shown = lesson10_gains.shown(lesson10_gains.rows())
    assert shown.index.name == "case" and "+12.5" in shown.loc["cache"].iloc[0]["gain"]


# ------------------------------------------------------------------ what is recorded


def test_the_recorded_clinic_has_every_cell_and_its_numbers_are_those_of_its_arms():
    table = results.read("lesson10-clinic")
    assert sorted(table[["case", "arm", "seed"]].itertuples(index=False, name=None)) == sorted(
        (case, arm, seed) for case, arm in ARMS for seed in range(10)
    )
    of_logarithm = table.query("case == 'logarithm'").pivot(index="seed", columns="arm", values="accuracy")
    assert (of_logarithm[FOUND] == of_logarithm[MENDED]).all()
    assert (table[table["finite"] == 0]["accuracy"] == 0.1).all(), "always the first class"
    assert (table.query("arm == 'mended'")["finite"] == 1).all()
    assert table.query("case == 'false alarm'")["temperature"].between(1, 21).all()
    constant = table.query("case == 'false alarm' and arm == 'a constant temperature'")
    assert (constant["temperature"] == 11).all()
    mended = table.query("case == 'mode'")
    assert mended[mended["arm"].str.startswith("mended")]["teacher"].nunique() == 1
    found = table.query("case == 'training on validation'").groupby("arm")[["reported", "accuracy"]].mean()
    assert found.loc["found", "reported"] > found.loc["found", "accuracy"]


def test_the_records_name_their_columns():
    for name in results.recorded():
        if name.startswith("lesson10"):
            record = json.loads((results.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            assert record["columns"] == list(results.read(name).columns), name
