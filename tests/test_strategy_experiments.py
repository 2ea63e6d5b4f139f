"""The experiments of lesson 07, run very small: their losses, stages, views, targets and norms are what they say."""

import functools
import itertools
import math
from collections import Counter

import numpy as np
import pandas
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from kdlib import data, losses, metrics, models, training
from kdlib.data import ImageSplit
from kdlib.experiments import (
    lesson01,
    lesson07,
    lesson07_advice,
    lesson07_augmentation,
    lesson07_capacity,
    lesson07_stages,
    lesson07_targets,
)
from kdlib.inference import predict_logits
from kdlib.lesson import results
from kdlib.sweeps import mapping
from kdlib.training import loop
from kdlib.training.batches import steps_per_epoch
from kdlib.training.schedules import constant, cosine, linear

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES, CLASSES = 64, 10
MODULES = (lesson01, lesson07, lesson07_augmentation, lesson07_capacity, lesson07_stages, lesson07_targets)
CACHES = (lesson07_capacity.schooled, lesson07_capacity.taught, lesson07_capacity.assistant)


@pytest.fixture
def small(monkeypatch):
    """Few images to learn from and to be judged by, short trainings, and every cell in this process."""
    images, teacher = lesson01.fashion()
    few = data.ImageDataset(images.train.take(96), images.validation.take(30), images.test.take(40), images.classes)
    for module in MODULES:
        monkeypatch.setattr(module, "fashion", lambda: (few, teacher))
    usual = mapping.iterate_groups

    def in_this_process(compute, groups, **options):
        return usual(compute, groups, **options | {"workers": 0, "progress": False})

    monkeypatch.setattr(mapping, "iterate_groups", in_this_process)
    monkeypatch.setattr(lesson07_capacity, "PASSES", {48: 2, 96: 1})
    monkeypatch.setattr(lesson07_capacity, "TEMPERATURE", {48: 4.0, 96: 2.0})
    monkeypatch.setattr(lesson07_capacity, "TEACHER_PASSES", 1)
    for cache in CACHES:
        cache.cache_clear()
    yield few
    for cache in CACHES:
        cache.cache_clear()


def random_logits(*shape, seed=0, dtype=torch.float32):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    """The names of what is not the same any more."""
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


# ------------------------------------------------------------------ schedules


def test_each_phase_begins_where_the_one_before_ends():
    found = lesson07.phases((8, 2, 1), lesson07.THREE_PHASES)
    for progress, value in [(0, 8), (0.4999, 8), (0.5, 2), (0.7999, 2), (0.8, 1), (0.9999, 1), (1, 1)]:
        assert found(progress) == value, progress
    assert [lesson07.STEPS(n / 6) for n in range(7)] == [10, 10, 5.5, 5.5, 1, 1, 1]


def test_without_the_square_a_schedule_of_t_is_the_gradient_of_a_schedule_of_alpha():
    """alpha * KL + (1 - alpha) * CE has the direction of our loss with the hidden alpha, at the T of that moment."""
    teacher, labels = random_logits(12, CLASSES, seed=1, dtype=torch.float64), torch.arange(12) % CLASSES
    for schedule, alpha, progress in itertools.product(
        (linear(10, 1), cosine(1, 8), lesson07.STEPS, constant(4.0)), (0.9, 0.5, 0.1), (0.0, 0.3, 1.0)
    ):
        temperature, hidden = schedule(progress), lesson07.hidden(schedule, alpha)(progress)
        assert hidden == pytest.approx(alpha / (alpha + (1 - alpha) * temperature**2))
        student = random_logits(12, CLASSES, dtype=torch.float64).requires_grad_()
        log_q, p = (student / temperature).log_softmax(dim=1), (teacher / temperature).softmax(dim=1)
        divergence = (p * (p.log() - log_q)).sum(dim=1).mean()
        bare = alpha * divergence + (1 - alpha) * F.cross_entropy(student, labels)
        ours = losses.distillation_loss(student, teacher, labels, temperature=temperature, alpha=hidden).total
        first, second = (torch.autograd.grad(loss, student)[0].flatten() for loss in (bare, ours))
        assert F.cosine_similarity(first, second, dim=0).item() == pytest.approx(1, abs=1e-12)
        assert (first.norm() / second.norm()).item() == pytest.approx(alpha / temperature**2 + 1 - alpha)


def test_a_rival_has_the_mean_temperature_and_alpha_of_its_schedule():
    steps = lesson07.EPOCHS * steps_per_epoch(lesson07.IMAGES, lesson07.BATCH_SIZE)
    moments = np.arange(steps) / steps
    pairs = {**lesson07.RIVALS, **{f"alpha of {name}": name for name in lesson07.WITHOUT_SQUARE}}
    assert set(pairs) == {*lesson07.RIVALS, *lesson07.ITS_ALPHA}
    for name, rival in pairs.items():
        means = [
            np.mean([getattr(lesson07.PLANS[plan], which)(moment) for moment in moments])
            for plan in (name, rival)
            for which in ("temperature", "alpha")
        ]
        assert means[0] == pytest.approx(means[2], abs=0.01), name
        if name in lesson07.RIVALS:  # the others change alpha in place of the temperature
            assert means[1] == pytest.approx(means[3], abs=0.001), name
    for name, plan in lesson07.CONSTANTS.items():
        words = dict(part.split(" = ") for part in name.split(", "))
        assert plan == lesson07.at(float(words["T"]), float(words.get("alpha", 0.9))), name


def test_a_plan_weighs_its_terms_as_written():
    student, teacher, labels = random_logits(8, CLASSES), random_logits(8, CLASSES, seed=1), torch.arange(8)
    plans = [lesson07.PLANS[name] for name in ("T = 4", "three phases", "T 1 to 8, without T^2", "T 10 to 1, linear")]
    planned = lesson07.PlannedLosses(plans, steps=4)
    for step in range(4):
        found = planned(
            student.unsqueeze(1).expand(-1, 4, -1).clone().requires_grad_(),
            labels.repeat(4, 1).T, teacher.unsqueeze(1).expand(-1, 4, -1),
        )  # fmt: skip
        for number, plan in enumerate(plans):
            temperature, alpha = plan.temperature(step / 4), plan.alpha(step / 4)
            expected = losses.distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
            distill = expected.distill / (1 if plan.square else temperature**2)
            assert found[number].item() == pytest.approx((alpha * distill + (1 - alpha) * expected.task).item(), 1e-5)


def test_a_student_of_a_constant_plan_is_that_of_distill(small):
    settings = [(4.0, 0.9), (2.0, 0.5)]
    students, _ = lesson07.train_planned([lesson07.at(*one) for one in settings], 0, 0.01, epochs=2, images=IMAGES)
    split = small.train.take(IMAGES, seed=0)
    for student, (temperature, alpha) in zip(students, settings, strict=True):
        alone, untrained = models.build("tiny-cnn", seed=0), models.build("tiny-cnn", seed=0)
        training.distill(
            alone, lesson01.fashion()[1], split, epochs=2, batch_size=lesson07.BATCH_SIZE, learning_rate=0.01,
            temperature=temperature, alpha=alpha, seed=0, bfloat16=False, progress=False,
        )  # fmt: skip
        together, expected, before = (predict_logits(model, small.test) for model in (student, alone, untrained))
        assert torch.allclose(together, expected, atol=2e-3)
        assert (expected - before).abs().mean() > 0.05, "four steps did nothing"


def test_a_learned_temperature_climbs_the_loss():
    """Its step has the sign of the slope of the teacher's term, here by a finite difference."""
    labels, moves = torch.arange(8).repeat(1, 1).T, []
    teacher = random_logits(8, CLASSES, seed=1)
    for student in (random_logits(8, CLASSES), 40 * random_logits(8, CLASSES, seed=1), 0.01 * teacher):
        planned = lesson07.PlannedLosses([lesson07.PLANS["learned T"]], steps=48)
        planned.step = 24  # at full strength
        raw, now = planned.raw.item(), 1 + 20 / (1 + math.exp(-1))
        planned(student.unsqueeze(1).requires_grad_(), labels, teacher.unsqueeze(1))
        assert planned.used[0].item() == pytest.approx(now, rel=1e-6), "a step uses the temperature from before it"
        above, below = (
            losses.soft_target_loss(student.double(), teacher.double(), now + e).item() for e in (1e-3, -1e-3)
        )
        moves.append(np.sign(planned.raw.item() - raw))
        assert moves[-1] == np.sign(above - below) != 0
    assert set(moves) == {-1, 1}


def test_a_learned_temperature_stays_in_its_range_and_begins_to_move_gently():
    names = (21.0, 2.0)
    for scale in (1, 100):
        planned = lesson07.PlannedLosses([lesson07.Plan(constant(1), constant(0.9), learned=top) for top in names], 60)
        for step in range(60):
            student, teacher = (scale * random_logits(8, 2, CLASSES, seed=seed) for seed in (step, 1000))
            planned(student.requires_grad_(), torch.arange(8).repeat(2, 1).T, teacher)
            if step == 0:
                assert (planned.raw == 1).all(), "the strength of the first step is 0"
        used = torch.stack(planned.used)
        assert (used >= 1).all() and (used <= torch.tensor(names)).all()
        assert (used.amax(dim=0) - used.amin(dim=0) > 0.01).all()


def test_a_standardised_loss_does_not_see_the_scale_of_the_teachers_logits():
    student, teacher, labels = random_logits(8, 2, CLASSES), random_logits(8, 2, CLASSES, seed=1), torch.arange(8)
    plans = [lesson07.PLANS["standardised logits"], lesson07.PLANS["T = 2"]]
    found = [
        lesson07.PlannedLosses(plans, 1)(student.clone().requires_grad_(), labels.repeat(2, 1).T, scale * teacher + 5)
        for scale in (1, 0.1, 30)
    ]
    for other in found[1:]:
        assert other[0].item() == pytest.approx(found[0][0].item(), rel=1e-5)
        assert abs(other[1] - found[0][1]) > 0.1
    # N - 1 below the spread, by numpy; the labels' term is that of the logits as they are.
    ways = [logits[:, 0].double().numpy() for logits in (student, teacher)]
    z, v = ((a - a.mean(1, keepdims=True)) / a.std(1, ddof=1, keepdims=True) for a in ways)
    distill = losses.soft_target_loss(torch.tensor(z), torch.tensor(v), 2.0)
    expected = 0.9 * distill + 0.1 * F.cross_entropy(student[:, 0].double(), labels)
    assert found[0][0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_noted_share_is_that_of_the_two_gradients():
    student, teacher, labels = random_logits(8, 3, CLASSES), random_logits(8, 3, CLASSES, seed=1), torch.arange(8)
    names = ["T = 4", "T = 4, alpha = 0.25", "T 10 to 1, without T^2"]
    planned = lesson07.PlannedLosses([lesson07.PLANS[name] for name in names], 1)
    planned(student.clone().requires_grad_(), labels.repeat(3, 1).T, teacher)
    for member, (temperature, alpha, factor) in enumerate([(4, 0.9, 4), (4, 0.25, 4), (10, 0.9, 0.1)]):
        z, v = student[:, member].double(), teacher[:, member].double()
        q, p = (z / temperature).softmax(dim=1), (v / temperature).softmax(dim=1)
        a = alpha * factor * (q - p).norm() / 8  # T^2 / T with the square, 1 / T without it
        b = (1 - alpha) * (z.softmax(dim=1) - F.one_hot(labels, CLASSES)).norm() / 8
        assert planned.shares[0][member].item() == pytest.approx((a / (a + b)).item(), rel=1e-5)


def test_a_table_of_schedules_has_the_mean_temperature_and_a_share_for_every_epoch(small):
    table = lesson07.planned(seeds=[0], epochs=2, images=IMAGES).set_index("plan")
    assert "error" not in table and set(table.index) == set(lesson07.PLANS)
    assert {name for name in table if name.startswith("share")} == {"share 1", "share 2"}
    steps = np.arange(4) / 4
    for name, plan in lesson07.PLANS.items():
        assert table.loc[name, "mean alpha"] == pytest.approx(np.mean([plan.alpha(s) for s in steps]), abs=1e-4)
        if not plan.learned:
            mean = np.mean([plan.temperature(s) for s in steps])
            assert table.loc[name, "mean temperature"] == pytest.approx(mean, abs=1e-3)
    assert table.loc["T = 4, alpha = 1", "share 2"] == 1
    cells = [
        {"family": family, "top": 2.0, "alpha": 0.75, "rate": 0.01, "seed": 0, "split": "validation"}
        for family in lesson07.TUNED
    ]
    for row in lesson07.on_tuned(cells, epochs=1, images=IMAGES):
        assert (30 * row["accuracy"]) == pytest.approx(round(30 * row["accuracy"])), "of thirty validation images"


def test_the_recorded_rivals_of_schedules_are_the_constants_that_they_are_said_to_be():
    table = results.read("lesson07-schedules")
    table["share"] = table[[f"share {epoch}" for epoch in range(1, lesson07.EPOCHS + 1)]].mean(axis=1)
    means = table.groupby("plan")[["share", "mean temperature", "mean alpha"]].mean()
    at_four = means.loc[["T = 4", *(name for name in means.index if name.startswith("T = 4, "))]]
    hot = means.loc[[name for name in lesson07.CONSTANTS if "alpha" not in name]]
    for advice in lesson07_advice._schedules():
        if advice.over in ("the constant of its mean T", "the constants of its means"):
            assert lesson07.RIVALS[advice.arm["plan"]] == advice.control["plan"]
        elif advice.over == "the constant of its gradient share":
            gaps = (at_four["share"] - means.loc[advice.arm["plan"], "share"]).abs()
            assert gaps.idxmin() == advice.control["plan"], advice.words
        elif advice.over == "the constant nearest to its mean T":
            gaps = (hot["mean temperature"] - means.loc[advice.arm["plan"], "mean temperature"]).abs()
            assert gaps.idxmin() == advice.control["plan"], advice.words


# ------------------------------------------------------------------ stages

SETTINGS = {
    "labels": {}, "one stage": {}, "taught beside a teacher": {}, "that teacher, finished first": {},
    "the course's teacher, the same loss": {}, "constant alpha": {"alpha": 0.5},
    "alpha on a plateau": {"start": 0.5, "step": 0.1}, "hint, then distil": {"first": 0.5, "later_rate": 0.01},
    "teacher alone, then labels on the head": {"first": 0.5, "later_rate": 0.01},
    "distil, then labels": {"first": 0.5, "later_rate": 0.01},
}  # fmt: skip


def test_alpha_rises_at_each_tenth_pass_that_stalls_and_only_there():
    alpha = lesson07_stages.every_ten(0.5, 0.1)
    better, worse = [0.1 * n for n in range(10)], [0.2] * 10
    rises = [(n + 1) * 0.001 + 1 for n in range(10)]
    found = [alpha(0.0, [*better, *worse, *rises, *worse, *worse][:passed]) for passed in range(51)]
    expected = [0.5] * 20 + [0.6] * 20 + [0.7] * 10 + [0.8]
    assert found == pytest.approx(expected)
    assert lesson07_stages.every_ten(0.5, 0.1)(0.9) == 0.5
    equal = [0.3] * 20
    assert alpha(0.0, equal) == pytest.approx(0.6), "as good as before is no gain"


def test_alpha_on_a_plateau_goes_no_higher_than_nine_tenths_and_never_below_its_start():
    for start, step in itertools.product((0.25, 0.75, 0.95), (0.1, 0.2)):
        alpha = lesson07_stages.every_ten(start, step)
        found = [alpha(0.0, [0.5] * passed) for passed in range(100)]
        assert found == sorted(found) and found[0] == start and found[-1] == pytest.approx(max(start, 0.9))


def test_the_mean_alpha_is_that_of_the_losses_of_the_training(small, monkeypatch):
    """Each pass's alpha follows from its record: loss = alpha * distill + (1 - alpha) * task."""
    histories, distil = [], lesson07_stages.Pupil.distil

    def watched(pupil, *arguments, **settings):
        histories.append(distil(pupil, *arguments, **settings))
        return histories[-1]

    monkeypatch.setattr(lesson07_stages.Pupil, "distil", watched)
    monkeypatch.setattr(loop, "_validation_score", lambda *_: {"validation_accuracy": 0.5})  # it stalls from the start
    row = lesson07_stages.trained(
        "alpha on a plateau", 0, "validation", 32, passes=32, rate=0.08, start=0.25, step=0.2
    )
    frame = histories[0].frame()
    alphas = (frame["loss"] - frame["task"]) / (frame["distill"] - frame["task"])
    assert alphas.tolist() == pytest.approx([0.25] * 20 + [0.45] * 10 + [0.65] * 2, abs=1e-4)
    assert row["mean alpha"] == pytest.approx(alphas.mean(), abs=1e-4)


def watched_stages(arm, monkeypatch, **settings):
    """The states of a student before its second stage and after it."""
    pupil, states = lesson07_stages.Pupil(0, IMAGES, passes=4), []
    labels = pupil.labels

    def watched(epochs, rate):
        states.append(copied(pupil.student))
        assert epochs == 1 and rate == settings["later_rate"]
        labels(epochs, rate)

    pupil.labels = watched
    lesson07_stages.ARMS[arm](pupil, 0.02, **settings)
    return states[0], pupil.student.state_dict()


def test_the_second_stage_on_the_head_changes_nothing_but_the_head(small, monkeypatch):
    """Norms that are frozen with the rest stop counting: neither their statistics nor their counters move."""
    settings = {"first": 0.75, "later_rate": 0.01}
    found = changed(*watched_stages("teacher alone, then labels on the head", monkeypatch, **settings))
    assert found == {"head.weight", "head.bias"}
    before, after = watched_stages("distil, then labels", monkeypatch, **settings)
    assert changed(before, after) == set(before)


def test_the_first_stage_of_the_teacher_alone_sees_no_label(small):
    wrong = [lesson07_stages.Pupil(0, IMAGES, passes=2) for _ in range(2)]
    split = wrong[1].split
    wrong[1].split = ImageSplit(split.images, (split.labels + 1) % CLASSES, split.indices, split.mean, split.std)
    for pupil in wrong:
        pupil.labels = lambda epochs, rate: None
        lesson07_stages.then_head(pupil, 0.02, first=0.5, later_rate=0.01)
    assert not changed(*(pupil.student.state_dict() for pupil in wrong))


def test_a_teacher_beside_its_student_learns_as_it_does_alone(small, monkeypatch):
    """So no gradient of the student reaches it; and both make as many steps."""
    monkeypatch.setattr(lesson07_stages, "young_teacher", functools.cache(lesson07_stages.young_teacher))
    steps, step = Counter(), loop.Step.__call__

    def counted(self, batch):
        steps[self.model] += 1
        return step(self, batch)

    monkeypatch.setattr(loop.Step, "__call__", counted)
    pupil = lesson07_stages.Pupil(0, IMAGES, passes=3)
    lesson07_stages.beside(pupil, 0.02)
    teacher = lesson07_stages.young_teacher(0)
    assert steps == {teacher: 3 * 2, pupil.student: 3 * 2} and not pupil.student.training
    lesson07_stages.young_teacher.cache_clear()
    alone = lesson07_stages.young_teacher(0)
    untrained = copied(alone)
    pupil.student = alone
    pupil.labels(3, 0.02)
    assert not changed(teacher.state_dict(), alone.state_dict())
    assert changed(untrained, alone.state_dict()) == set(untrained)


def test_a_student_beside_its_teacher_minimises_the_labels_and_a_tenth_of_the_squared_difference(small, monkeypatch):
    monkeypatch.setattr(lesson07_stages, "young_teacher", functools.cache(lesson07_stages.young_teacher))
    pupil = lesson07_stages.Pupil(0, images=32, passes=1)  # one step
    teacher, student = lesson07_stages.young_teacher(0), models.build("tiny-cnn", seed=0).train()
    images = pupil.split.normalized(slice(None))
    with torch.no_grad():
        answers = copied(teacher), teacher.train()(images)
    teacher.load_state_dict(answers[0])
    logits = student(images)
    loss = F.cross_entropy(logits, pupil.split.labels) + 0.1 * (logits - answers[1]).square().sum()
    expected = torch.autograd.grad(loss, [*student.parameters()])
    lesson07_stages.beside(pupil, 0.02)
    cosines = [
        F.cosine_similarity(gradient.flatten(), own.grad.flatten(), dim=0).item()
        for gradient, own in zip(expected, pupil.student.parameters(), strict=True)
        if gradient.norm() > 1e-4  # a bias before a norm has none
    ]
    assert len(cosines) >= 8 and min(cosines) > 1 - 1e-5
    assert lesson07_stages.BESIDE / (1 - lesson07_stages.BESIDE) == pytest.approx(0.1)


def test_two_runs_of_every_arm_are_identical_and_no_two_arms_are(small):
    assert set(SETTINGS) == set(lesson07_stages.ARMS)
    states = {}
    for arm, settings in SETTINGS.items():
        pupils = [lesson07_stages.Pupil(3, IMAGES, passes=2) for _ in range(2)]
        for pupil in pupils:
            lesson07_stages.ARMS[arm](pupil, 0.02, **settings)
        assert not changed(*(pupil.student.state_dict() for pupil in pupils)), arm
        states[arm] = pupils[0].student.state_dict()
    for first, second in itertools.combinations(states, 2):
        # In so few passes nothing can stall, and alpha stays where it begins.
        same = {first, second} == {"constant alpha", "alpha on a plateau"}
        assert (changed(states[first], states[second]) == set()) == same, (first, second)


def test_stages_share_the_passes():
    pupil = lesson07_stages.Pupil.__new__(lesson07_stages.Pupil)
    pupil.passes = lesson07_stages.PASSES
    for firsts in lesson07_stages.FIRST.values():
        for first in firsts:
            early, late = pupil.shares(first)
            assert early + late == 40 and early == pytest.approx(40 * first) and min(early, late) > 0


# ------------------------------------------------------------------ augmentation


def test_views_have_their_images_rows_labels_and_answers(small):
    split, views = small.train.take(IMAGES, seed=0), 3
    logits = random_logits(IMAGES, CLASSES)
    for name in lesson07_augmentation.NAMES:
        found = lesson07_augmentation.draw_views(name, split, logits, seed=0, views=views)
        assert found.split.images.shape == (IMAGES * views, 1, 28, 28) and found.split.images.dtype == torch.uint8
        assert found.split.indices.tolist() == [i for i in split.indices.tolist() for _ in range(views)], name
        assert torch.equal(found.split.mean, split.mean) and torch.equal(found.split.std, split.std)
        assert torch.allclose(found.blind.exp().sum(dim=1), torch.ones(IMAGES * views), atol=1e-5), name
        if name in lesson07_augmentation.MIXES:
            assert torch.allclose(found.split.labels.sum(dim=1), torch.ones(IMAGES * views), atol=1e-6)
            continue
        for row in range(IMAGES * views):
            assert found.split.labels[row] == split.labels[row // views]
            assert torch.equal(found.blind[row], logits[row // views].log_softmax(dim=0)), name
        own = found.split.images.view(IMAGES, views, -1)
        moved = (own != split.images.view(IMAGES, 1, -1)).any(dim=2).float().mean()
        assert moved == 0 if name == "none" else moved > 0.2, name


def numbered(count=30):
    """Images of one grey each, no two alike, each of a class of its own; and logits that are sure of it."""
    images = (8 * torch.arange(count)).view(-1, 1, 1, 1).expand(-1, 1, 28, 28).to(torch.uint8)
    return ImageSplit(images, torch.arange(count)), 100 * torch.eye(count)


def test_a_mixed_view_has_the_pixels_labels_and_answers_of_its_two_images_in_one_share():
    split, logits = numbered()
    for name in lesson07_augmentation.MIXES:
        views, blind = lesson07_augmentation.draw_views(name, split, logits, seed=5, views=4)
        assert torch.allclose(blind.exp(), views.labels, atol=1e-6)
        partners = []
        for row, (image, soft) in enumerate(zip(views.images.float(), views.labels, strict=True)):
            own = row // 4
            others = [number for number in soft.nonzero().flatten().tolist() if number != own]
            partners.append(others[0] if others else own)
            assert len(others) <= 1
            share = soft[partners[-1]].item() if others else 0.0
            mean = (1 - share) * 8 * own + share * 8 * partners[-1]
            assert image.mean().item() == pytest.approx(mean, abs=0.51), (name, row)
            if name == "MixUp" and others:
                assert 0.2 <= share <= 0.4 and (image == image.flatten()[0]).all()
            elif name == "CutMix" and others:
                assert share == pytest.approx((image == 8 * partners[-1]).float().mean().item(), abs=1e-6)
        drawn = np.array(partners).reshape(len(split), 4)
        assert (np.array([len({*row}) for row in drawn]) > 1).all(), "one partner for all views of an image"
        # Where a share is 0 no partner is seen; else every image is the partner of one in each view.
        assert all(count <= 2 for column in drawn.T for count in Counter(column).values())


def test_the_shares_of_mixes_are_those_of_the_pixels():
    black, white = torch.zeros(400, 1, 28, 28), torch.full((400, 1, 28, 28), 255.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images, share = lesson07_augmentation.mix_up(black, white)
        assert torch.allclose(images.mean(dim=(1, 2, 3)) / 255, share, atol=1e-5)
        assert 0.2 <= share.min() < 0.21 and 0.39 < share.max() <= 0.4
        images, share = lesson07_augmentation.cut_mix(black, white)
    assert torch.equal(share, ((images == 255).sum(dim=(1, 2, 3)) / 784).float())
    assert ((images == 0) | (images == 255)).all() and share.min() < 0.05 and share.max() > 0.7
    for image in images[:, 0] == 255:
        rows, columns = image.any(dim=1), image.any(dim=0)
        assert torch.equal(image, rows[:, None] & columns[None, :]), "no rectangle"
        for line in (rows, columns):
            assert (line.int().diff() == 1).sum() <= 1 and (line.int().diff() == -1).sum() <= 1
    # A quarter of the area of a square of side sqrt(1 - lambda) is lost at the borders, about.
    assert 0.25 < share.mean() < 0.5


def test_the_spread_is_that_of_group_means():
    logits = random_logits(470, CLASSES)
    p = logits.double().softmax(dim=1).numpy()
    expected = np.stack([p[100 * n : 100 * n + 100].mean(axis=0) for n in range(4)]).std(axis=0, ddof=1).mean()
    assert lesson07_augmentation.spread(logits.softmax(dim=1)) == pytest.approx(expected, rel=1e-4)
    order = torch.randperm(470, generator=torch.Generator().manual_seed(7)).numpy()
    shuffled = p[order][:400].reshape(4, 100, CLASSES).mean(axis=1).std(axis=0, ddof=1).mean()
    assert lesson07_augmentation.spread_in_random_order(logits, seed=7) == pytest.approx(shuffled, rel=1e-4)


def test_views_of_one_seed_are_the_same_in_every_arm_and_others_with_another_seed(small, monkeypatch):
    drawn, draw = [], lesson07_augmentation.draw_views
    taught, distill = [], training.distill

    def noted(*arguments):
        drawn.append(draw(*arguments))
        return drawn[-1]

    def noted_logits(student, logits, split, **settings):
        taught.append(logits)
        return distill(student, logits, split, **settings)

    monkeypatch.setattr(lesson07_augmentation, "draw_views", noted)
    monkeypatch.setattr(training, "distill", noted_logits)
    teacher = lesson01.fashion()[1]
    for name in ("CutMix", "AutoAugment"):
        drawn.clear(), taught.clear()
        rows = [
            lesson07_augmentation.trained(name, target, 0.01, seed, "validation", images=32, passes=8)
            for target, seed in [*((target, 0) for target in lesson07_augmentation.TARGETS), ("labels", 1)]
        ]
        assert all(torch.equal(drawn[0].split.images, other.split.images) for other in drawn[1:3]), name
        assert not torch.equal(drawn[0].split.images, drawn[3].split.images)
        assert torch.equal(taught[0], predict_logits(teacher, drawn[0].split))
        assert torch.equal(taught[1], drawn[0].blind)
        assert [row["spread"] > 0 for row in rows] == [False, True, False, False]
        assert all(row["loss"] > 0 and 0 <= row["accuracy"] <= 1 for row in rows)


# ------------------------------------------------------------------ stored targets


def test_the_bytes_of_an_image_are_those_of_its_numbers(small):
    by_hand = {
        "32 bits": 10 * 4, "16 bits": 10 * 2, "8 bits": 10 + 2 * 2,
        **dict.fromkeys(lesson07_targets.TOP_K, 3 * (2 + 1)),
    }  # fmt: skip
    assert {form: lesson07_targets.stored(form, 3).bytes for form in by_hand} == by_hand
    arms = [("8", "8 bits", 0, 8 * 14), ("0", "tail bucket", 2, 6), ("live", "32 bits", 0, 0), ("8", "nothing", 0, 0)]
    for views, form, k, size in arms:
        assert lesson07_targets.trained(views, form, k, 0, images=32, passes=8)["bytes"] == size


def test_eight_bits_are_wrong_by_half_a_step_at_most():
    teacher = predict_logits(lesson01.fashion()[1], lesson01.fashion()[0].test.take(50))
    for logits in (random_logits(50, CLASSES), 100 * random_logits(50, CLASSES), teacher):
        found = lesson07_targets.eight_bits(logits)
        steps = (logits.amax(dim=1) - logits.amin(dim=1)) / 255
        worst = (found - logits).abs().amax(dim=1) / steps
        assert (worst <= 0.5 + 0.02).all() and worst.max() > 0.3  # the bounds are rounded to 16 bits
        assert all(len(row.unique()) <= 10 for row in found)
    flat = torch.full((2, CLASSES), 3.0)
    assert torch.allclose(lesson07_targets.eight_bits(flat), flat)


def test_what_is_kept_of_the_top_is_softmaxed_into_what_its_name_says():
    logits = random_logits(20, CLASSES)
    for k in lesson07_targets.KEPT:
        order = logits.argsort(dim=1, descending=True)
        for temperature in (1.0, lesson07_targets.TEMPERATURE):
            renormalised, filled = (
                (lesson07_targets.stored(form, k).logits(logits) / temperature).softmax(dim=1)
                for form in ("renormalised", "zero-filled")
            )
            for row, (image, classes) in enumerate(zip(logits.tolist(), order.tolist(), strict=True)):
                sizes = [math.exp(image[c] / temperature) for c in classes[:k]]
                expected = [size / sum(sizes) for size in sizes]
                assert renormalised[row, classes[:k]].tolist() == pytest.approx(expected, rel=0.01)
                assert renormalised[row, classes[k:]].sum() == 0
                of_each = 1 / (sum(sizes) + 10 - k)
                assert filled[row, classes[k:]].tolist() == pytest.approx((10 - k) * [of_each], rel=0.01)
        tail = lesson07_targets.stored("tail bucket", k)
        student = random_logits(20, CLASSES, seed=1)
        assert torch.equal(tail.loss(student, logits, 4.0), losses.tail_bucket_loss(student, logits, 4.0, k))
    halved = lesson07_targets.stored("16 bits", 0).logits(logits)
    assert torch.equal(halved, torch.tensor(logits.numpy().astype(np.float16).astype(np.float32)))


def test_every_number_of_views_makes_as_many_steps(small, monkeypatch):
    seen, step = [], loop.Step.__call__

    def counted(self, batch):
        seen.append(len(batch.rows))
        return step(self, batch)

    monkeypatch.setattr(loop.Step, "__call__", counted)
    for views in ("labels", *map(str, lesson07_targets.VIEWS), "live"):
        seen.clear()
        form = "nothing" if views == "labels" else "32 bits"
        lesson07_targets.trained(views, form, 0, seed=0, images=32, passes=8)
        assert seen == 8 * [32], views
    # 1,000 images are no whole number of batches, so the numbers of steps differ by a fortieth there.
    for views in (1, *lesson07_targets.VIEWS[1:], lesson07_augmentation.VIEWS):
        assert lesson07_targets.PASSES % views == 0
        steps = lesson07_targets.PASSES // views * steps_per_epoch(1000 * views, lesson07_targets.BATCH_SIZE)
        assert 1250 <= steps <= 1280


def test_no_two_ways_to_store_targets_are_the_same():
    assert len({*lesson07_targets.arms()}) == len(lesson07_targets.arms())
    assert lesson07_targets.BATCH_SIZE == lesson07_augmentation.BATCH_SIZE == 32


# ------------------------------------------------------------------ capacity


def multiply_adds(width):
    """Of three strided convolutions on 28x28, 14x14 and 7x7 pixels, and of the last layer."""
    convolutions = zip((1, width, 2 * width), (width, 2 * width, 4 * width), (14, 7, 4), strict=True)
    return sum(9 * given * made * size**2 for given, made, size in convolutions) + 4 * width * 10


def test_an_ensemble_is_the_mean_probability(monkeypatch):
    answers = {width: random_logits(7, CLASSES, seed=width) for width in (lesson07_capacity.TEACHERS[-1], 16)}
    monkeypatch.setattr(lesson07_capacity, "taught", lambda width, seed, images: answers[width])
    found = lesson07_capacity.answers("ensemble", 0, 7).softmax(dim=1)
    parts = [np.exp(a.double().numpy()) for a in answers.values()]
    expected = np.mean([part / part.sum(axis=1, keepdims=True) for part in parts], axis=0)
    assert np.allclose(found.numpy(), expected, atol=1e-6)
    assert torch.equal(lesson07_capacity.answers("72", 0, 7), answers[72])


def test_the_effort_counts_the_student_and_every_teacher():
    own = 3 * multiply_adds(4) * 1000 * 20
    assert lesson07_capacity.effort(4, "labels", 1000) == own
    assert lesson07_capacity.effort(4, "36", 1000) == own + (3 * 6 + 1) * multiply_adds(36) * 9000
    both = (3 * 6 + 1) * (multiply_adds(72) + multiply_adds(16)) * 9000
    assert lesson07_capacity.effort(4, "assistant", 1000) == lesson07_capacity.effort(4, "ensemble", 1000) == own + both
    assert lesson07_capacity.effort(8, "labels", 9000) == 3 * multiply_adds(8) * 9000 * 3
    assert lesson07_capacity.effort(8, lesson07_capacity.LONGER, 9000) == 3 * multiply_adds(8) * 9000 * 12


def test_no_two_cells_of_capacity_are_alike_and_every_seed_has_all():
    cells = pandas.DataFrame(lesson07_capacity.grid(range(3)))
    assert not cells.duplicated().any()
    every = cells.groupby("seed").size()
    assert (every == 2 * (4 * 4 + 3 * 2)).all()  # 1,000 and 9,000 images; four and three sources; four and two sizes
    assert cells["seed"].is_monotonic_increasing  # so that a process has all cells of a seed


def test_students_of_one_seed_share_images_and_weights_and_a_teacher_has_others(small, monkeypatch):
    assert changed(*(lesson07_capacity.network(16, seed).state_dict() for seed in (0, 0))) == set()
    for seeds in ((0, 1), (0, 1000)):
        assert changed(*(lesson07_capacity.network(16, seed).state_dict() for seed in seeds))
    reference = models.build("tiny-cnn", seed=0).state_dict()
    assert not changed(reference, lesson07_capacity.network(16, 0).state_dict())
    given, distill = [], training.distill

    def noted(student, logits, split, **settings):
        given.append((split, logits, settings["temperature"]))
        return distill(student, logits, split, **settings)

    monkeypatch.setattr(training, "distill", noted)
    for images in (48, 96):
        lesson07_capacity.trained(4, "36", images, seed=2, many=96)
    teacher, train = lesson07_capacity.schooled(36, 2, 96), small.train
    for split, logits, temperature in given:
        assert temperature == {48: 4.0, 96: 2.0}[len(split)]
        assert torch.allclose(logits, predict_logits(teacher, split), atol=1e-5), "answers on other images"
    assert sorted(given[1][0].indices.tolist()) == sorted(train.indices.tolist())


def test_a_table_of_capacity_has_an_accuracy_for_each_cell(small, monkeypatch):
    monkeypatch.setattr(lesson07_capacity, "STUDENTS", (4, 8))
    monkeypatch.setattr(lesson07_capacity, "TEACHERS", (36, 72))
    table = lesson07_capacity.capacity(seeds=[0], many=96)
    assert "error" not in table and len(table) == 2 * 6 * 2 and table["accuracy"].between(0, 1).all()
    assert table.set_index("width")["multiply_adds"].to_dict() == {4: multiply_adds(4), 8: multiply_adds(8)}


NORM_WEIGHTS, STATISTICS = ("weight", "bias"), ("running_mean", "running_var", "num_batches_tracked")


def test_norms_learn_and_count_as_their_kind_says(small, monkeypatch):
    found, distill = {}, training.distill

    def noted(student, *arguments, **settings):
        before = copied(student)
        distill(student, *arguments, **settings)
        found["student"] = before, copied(student)

    monkeypatch.setattr(training, "distill", noted)
    teacher = lesson07_capacity.schooled(16, 0, 96)
    known, untouched = copied(teacher), lesson07_capacity.network(16, 0)
    norms = [name for name, module in untouched.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    weights, statistics = ({f"{n}.{kind}" for n in norms for kind in kinds} for kinds in (NORM_WEIGHTS, STATISTICS))
    others = set(known) - weights - statistics
    assert len(norms) == 3 and others
    for kind in lesson07_capacity.NORMS:
        row = lesson07_capacity.with_norms(kind, 0.02, 0, "validation", images=48, passes=2, many=96)
        before, after = found["student"]
        frozen = kind.endswith("frozen")
        assert changed(before, after) == others | (set() if frozen else weights | statistics), kind
        first = changed(untouched.state_dict(), before)
        if kind == "own":
            assert not first
        elif kind == "own, frozen":
            assert first == statistics
        else:
            assert first == weights | statistics and not {*first} & changed(known, before)
        assert 0 <= row["accuracy"] <= 1
    assert not changed(known, teacher.state_dict()), "a student changed its teacher"


def test_own_frozen_norms_have_the_statistics_of_the_untrained_student(small):
    student, alone = lesson07_capacity.network(16, 0), lesson07_capacity.network(16, 0).train()
    images, seen = small.train.normalized(slice(None)), []
    norms = [module for module in alone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    alone(images)
    lesson07_capacity.prepare_norms(student, "own, frozen", alone, images)
    own = [module for module in student.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm, given in zip(own, seen, strict=True):
        assert torch.allclose(norm.running_mean, given.mean(dim=(0, 2, 3)), atol=1e-5)
        assert torch.allclose(norm.running_var, given.var(dim=(0, 2, 3)), rtol=1e-4)
        assert not norm.training and not norm.weight.requires_grad and not norm.bias.requires_grad


# ------------------------------------------------------------------ advice


def in_place_of_trainings(patch, table):
    """Let the experiments of the lesson make their tables by table(function, cells)."""
    for module, name in itertools.product(MODULES[1:], ("map_cells", "over_groups", "by_seed")):
        if hasattr(module, name):
            patch.setattr(module, name, table)


@pytest.fixture(scope="module")
def tables_of_grids():
    """A table of every experiment of the lesson: the cells of its own grid, with invented accuracies."""
    tables, generator = {}, np.random.default_rng(0)

    def table(function, cells, *_, **__):
        score = "test" if getattr(function, "func", function) is lesson07.on_plans else "accuracy"
        rows = [{**cell, "mean alpha": cell.get("start", 0) + 0.13, score: generator.random()} for cell in cells]
        return pandas.DataFrame(rows)

    known = {name: made for name, made in results.registered().items() if name.startswith("lesson07")}
    with pytest.MonkeyPatch.context() as patch:
        in_place_of_trainings(patch, table)
        patch.setattr(results, "read", lambda name: tables[name].copy())
        # Tunings come first: the others ask them for the best.
        for name in sorted(known, key=lambda name: (not name.endswith("tuning"), "edge" in name, name)):
            tables[name] = known[name]()
    return tables


@pytest.fixture
def invented(monkeypatch, tables_of_grids):
    """These tables in place of the recorded ones."""
    tables = {name: table.copy() for name, table in tables_of_grids.items()}
    monkeypatch.setattr(results, "read", lambda name: tables[name].copy())
    monkeypatch.setattr(results, "recorded", lambda: [*tables])
    return tables


def test_a_verdict_says_where_the_interval_lies():
    for low, high, word in [
        (0.001, 0.02, "helps"), (-0.02, -0.001, "hurts"), (-0.01, 0.01, "not told apart"),
        (0.0, 0.02, "not told apart"), (-0.02, 0.0, "not told apart"),
    ]:  # fmt: skip
        assert lesson07_advice.verdict(metrics.Interval((low + high) / 2, low, high)) == word


def test_a_gain_is_the_paired_t_interval_over_the_seeds(monkeypatch):
    generator = np.random.default_rng(0)
    table = pandas.DataFrame([{"kind": kind, "rate": rate, "seed": seed, "accuracy": generator.random()}
                              for kind in ("a", "b") for rate in (1.0, 2.0) for seed in range(6)])  # fmt: skip
    table = table.sample(frac=1, random_state=1)  # rows in any order
    monkeypatch.setattr(results, "read", lambda name: {"mine": table, "mine-again": table.assign(accuracy=0.5)}[name])
    advice = lesson07_advice.Advice("", "", "", "mine", {"kind": "a", "rate": 2.0}, {"kind": "b", "rate": 1.0}, tuple)
    of = {key: rows.sort_values("seed")["accuracy"].to_numpy() for key, rows in table.groupby(["kind", "rate"])}
    gaps = of["a", 2.0] - of["b", 1.0]
    expected = stats.t.interval(0.95, 5, loc=gaps.mean(), scale=gaps.std(ddof=1) / 6**0.5)
    found = lesson07_advice.gain(advice)
    assert (found.mean, found.low, found.high) == pytest.approx((gaps.mean(), *expected))
    assert lesson07_advice.gain(advice, "mine-again").mean == 0


def test_every_piece_of_advice_names_rows_that_its_experiment_makes(invented):
    advice = lesson07_advice.every()
    assert len({(one.words, one.over) for one in advice}) == len(advice)
    for one in advice:
        for key in (one.arm, one.control):
            assert set(key) <= set(invented[one.table]), (one.words, key)
            for table in (invented[one.table], invented.get(f"{one.table}-again")):
                if table is not None:
                    rows = lesson07_advice.arm_of(one.table, table, key)
                    assert rows.index.nunique() == len(rows) == 10, (one.words, key)
        assert one.arm != one.control
    shown = lesson07_advice.rows()
    assert len(shown) == len(advice) and (shown["work"] > 0).all()
    assert set(shown["verdict"]) <= {"helps", "hurts", "not told apart"}


def test_every_family_of_schedules_was_tuned_with_the_same_settings_and_none_twice(invented):
    tried = lesson07.tried()
    assert not tried.duplicated(["family", "top", "alpha", "rate", "seed"]).any()
    of = {family: {*zip(own["top"], own["alpha"], own["rate"], strict=True)} for family, own in tried.groupby("family")}
    assert set(of) == set(lesson07.TUNED) and all(settings == of["constant"] for settings in of.values())
    means = tried[tried["family"] == "learned T"].groupby(["top", "alpha", "rate"])["accuracy"].mean()
    assert lesson07.best_settings("learned T") == dict(zip(("top", "alpha", "rate"), means.idxmax(), strict=True))


def test_arms_have_the_settings_that_were_best_on_validation_or_other_ones_that_their_row_names(invented):
    tables = (invented["lesson07-stages-tuning"], invented["lesson07-stages-edge-tuning"])
    settings, tried = list(lesson07_stages.SETTINGS), pandas.concat(tables)
    otherwise = ("tenth epoch", "three times the rate", "half of the passes")
    for one in lesson07_advice._stages():
        if any(words in one.words for words in otherwise):
            continue
        means = tried[tried["arm"] == one.arm["arm"]].groupby(settings, as_index=False)["accuracy"].mean()
        best = means.loc[means["accuracy"].idxmax(), settings].to_dict()
        assert best == {name: one.arm[name] for name in settings}, one.words
        if "at its rate" in one.over:
            assert one.control["rate"] == best["later_rate"]


def test_the_rival_of_a_rising_alpha_is_that_of_the_tutorials_arm_alone(invented):
    """Another arm at the same rate and start, the tuned one, must not count."""
    table = invented["lesson07-stages"]
    mine = (table["arm"] == "alpha on a plateau") & (table["rate"] == 0.01) & (table["start"] == 0.5)
    table.loc[mine & (table["step"] == 0.1), "mean alpha"] = 0.58
    other = table[mine & (table["step"] == 0.1)].assign(**{"step": 0.2, "mean alpha": 0.9})
    invented["lesson07-stages"] = pandas.concat([table, other])
    assert lesson07_advice.plateau_rival() == 0.6


def test_seeds_of_tuning_choose_for_no_seed_that_is_reported(invented):
    names = [name for name in invented if name.endswith("tuning")]
    assert {name.split("-")[1] for name in names} == {"schedules", "stages", "augmentation", "norms"}
    tuned = {seed for name in names for seed in invented[name]["seed"]}
    assert all((invented[name]["split"] == "validation").all() for name in names)
    for name in set(invented) - set(names):
        assert tuned.isdisjoint(invented[name]["seed"]) and invented[name]["seed"].nunique() == 10, name
        again = name.removesuffix("-again")
        if again != name:
            assert set(invented[again]["seed"]).isdisjoint(invented[name]["seed"])


def test_the_recorded_tables_have_the_cells_of_the_grids_as_they_are_now(monkeypatch):
    """In their order, and with the settings that the recorded tunings choose."""
    in_place_of_trainings(monkeypatch, lambda function, cells, *_, **__: pandas.DataFrame(cells))
    names = [name for name in results.recorded() if name.startswith("lesson07")]
    assert names
    for name in names:
        cells, table = results.registered()[name](), results.read(name)
        pandas.testing.assert_frame_equal(table[list(cells)], cells, check_dtype=False, obj=name)
        assert "error" not in table and not table.isna().any(axis=None), name
