"""The flawed study: its program, its faults one by one, its recorded form, and the exercises about it."""

import inspect
import itertools
import random
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from kdlib import data, losses, metrics, models, teachers
from kdlib.clinic import study
from kdlib.experiments import lesson10_study
from kdlib.lesson import exercises, results
from kdlib.lesson.laboratory import Laboratory
from kdlib.metrics import paired_interval

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"images": 20, "epochs": 2, "judges": 40}


@pytest.fixture(scope="module")
def fashion():
    return data.load("fashion-mnist")


@pytest.fixture(scope="module")
def recorded_small():
    """What the experiment returns, very small."""
    threads = torch.get_num_threads()
    table = lesson10_study.published_and_repaired(seeds=(0, 1), **SMALL)
    torch.set_num_threads(threads)
    return table


def line_of(words):
    """The number of the only line of the program that contains the words."""
    [number] = [number for number, line in enumerate(study.LINES, start=1) if words in line]
    return number


# ------------------------------------------------------------------ the program


def test_the_listing_numbers_every_line_of_the_program_that_runs():
    shown = repr(study.listing()).splitlines()
    assert 25 <= len(shown) <= 32 and max(map(len, shown)) <= 100
    assert [int(line[:2]) for line in shown] == [*range(1, len(shown) + 1)]
    source = "".join(inspect.getsource(part) for part in (study.fit, study.study))
    assert "".join(line[4:] for line in shown) == source.replace("\n", "")
    page = study.listing()._repr_html_()
    assert page.startswith("<pre") and "&lt;" not in page and " 1  def fit(" in page


def test_there_are_eight_faults_on_lines_of_their_own_and_no_false_alarm_is_one_of_them():
    assert len(study.FAULTS) == 8 and not set(study.FAULTS) & set(study.ALARMS)
    assert len({fault.words for fault in study.FAULTS.values()}) == 8
    for number, fault in study.FAULTS.items():
        assert fault.mended != study.LINES[number - 1].strip()
        assert re.fullmatch(r"\d\d", fault.lesson)


def test_every_single_line_can_be_mended_alone_and_none_leaves_the_program_broken(fashion):
    for number in study.FAULTS:
        report = study.program([number])(fashion, images=10, epochs=1, judges=10, seeds=(0, 1))
        assert 0 <= report.base <= 1 and 0 <= report.ours <= 1 and np.isfinite(report.half), number


def test_only_lines_with_a_fault_can_be_mended():
    with pytest.raises(ValueError, match=r"mended must be lines with a fault \(4, .*\), got 3, 99"):
        study.program([4, 99, 3])


def test_mending_leaves_the_program_as_published_alone(fashion):
    before = study.study(fashion, **SMALL)
    study.program(study.FAULTS)(fashion, **SMALL)
    assert study.study(fashion, **SMALL) == before == study.program()(fashion, **SMALL)


# ------------------------------------------------------------------ what the faults do, and that they are mended


def looked_at(monkeypatch, mended, fashion, scores=None, seeds=(0, 1)):
    """The names of the splits on which accuracy was asked for, and the report; the accuracies may be made up."""
    asked, real = [], metrics.accuracy
    splits = {"validation": fashion.validation.images, "test": fashion.test.take(SMALL["judges"]).images}

    def accuracy(model, split):
        [name] = [name for name, images in splits.items() if torch.equal(images, split.images)]
        asked.append(name)
        return real(model, split) if scores is None else next(scores)

    monkeypatch.setattr(metrics, "accuracy", accuracy)
    return asked, study.program(mended)(fashion, **SMALL, seeds=seeds)


def test_as_published_everything_is_looked_at_on_test_and_mended_the_temperature_is_not(fashion, monkeypatch):
    asked, _ = looked_at(monkeypatch, (), fashion, itertools.repeat(0.5))
    # Three temperatures and two seeds of two epochs, and two students of half as many.
    assert asked == ["test"] * (3 * 2 + 2 * 2 + 2 * 1)
    asked, _ = looked_at(monkeypatch, [line_of("T = max(")], fashion, itertools.repeat(0.5))
    assert asked == ["validation"] * 6 + ["test"] * 6
    asked, _ = looked_at(monkeypatch, [line_of("epochs // 2")], fashion, itertools.repeat(0.5))
    assert asked == ["test"] * (3 * 2 + 2 * 2 + 2 * 2)


def test_of_the_epochs_the_best_is_taken_and_mended_the_last(fashion, monkeypatch):
    scores = [0.5, 0.1, 0.4, 0.2, 0.3, 0.2, 0.9, 0.6, 0.8, 0.7, 0.4, 0.4]
    _, report = looked_at(monkeypatch, (), fashion, iter(scores))
    assert (report.temperature, report.distilled, report.ours) == (2, [0.9, 0.8], 0.9)
    _, report = looked_at(monkeypatch, [line_of("score = max(")], fashion, iter(scores))
    assert (report.temperature, report.distilled, report.ours) == (4, [0.6, 0.7], 0.7)
    _, report = looked_at(monkeypatch, [line_of("ours = max(")], fashion, iter(scores))
    assert (report.ours, report.base) == (pytest.approx(0.85), pytest.approx(0.4))


def test_the_control_has_other_seeds_and_mended_the_same(fashion):
    published, mended = (study.program(lines)(fashion, **SMALL, seeds=(5, 8)) for lines in ((), study.FAULTS))
    assert [*published.seeds] == [*mended.seeds] == [*mended.other_seeds] == [5, 8]
    assert not set(published.seeds) & set(published.other_seeds)


def test_as_published_the_interval_is_one_networks_and_mended_that_of_the_pairs(fashion):
    published, mended = (
        study.program(lines)(fashion, **SMALL, seeds=(0, 1, 2)) for lines in ((), study.FAULTS)
    )
    of_network = stats.norm.isf(0.025) * np.sqrt(published.ours * (1 - published.ours) / SMALL["judges"])
    assert published.half == pytest.approx(of_network, rel=1e-3)
    interval = stats.ttest_rel(mended.distilled, mended.labels).confidence_interval()
    assert mended.half == pytest.approx((interval.high - interval.low) / 2)
    assert mended.ours - mended.base == pytest.approx((interval.high + interval.low) / 2)


def spied(monkeypatch, mended, fashion):
    """The teacher's logits of the first student's images, and the softened targets and KL of its first batch."""
    seen, divergence, cat = {}, F.kl_div, torch.cat

    def kl_div(log_q, p, reduction):
        value = divergence(log_q, p, reduction=reduction)
        seen.setdefault("kl", ((value.mean() if reduction == "none" else value).item(), log_q.detach(), p))
        return value

    def concatenated(parts, *rest, **more):
        whole = cat(parts, *rest, **more)
        seen.setdefault("answers", whole)
        return whole

    monkeypatch.setattr(study.F, "kl_div", kl_div)
    monkeypatch.setattr(study.torch, "cat", concatenated)
    study.program(mended)(fashion, images=60, epochs=1, judges=40, seeds=(0, 1))
    return seen


def test_the_kl_is_ten_times_too_small_and_mended_a_sum_over_the_classes(fashion, monkeypatch):
    for mended, classes in (((), 10), ([line_of("kl = ")], 1)):
        with monkeypatch.context() as patch:
            value, log_q, p = spied(patch, mended, fashion)["kl"]
        of_images = stats.entropy(p.double().numpy(), log_q.double().exp().numpy(), axis=1)
        assert value == pytest.approx(of_images.mean() / classes, rel=1e-4)


def test_the_teacher_answers_by_its_batch_and_mended_by_the_image(fashion, monkeypatch):
    split = fashion.train.take(60, seed=100)
    expected = teachers.cached_logits(teachers.load("fashion-mnist"), split)
    for mended, alike in (((), False), ([line_of("teacher = ")], True)):
        with monkeypatch.context() as patch:
            answers = spied(patch, mended, fashion)["answers"]
        assert torch.allclose(answers, expected, atol=1e-3) == alike
        assert not answers.requires_grad


def by_the_library(fashion, seed, judges, images, epochs, T=None):
    """A student, by the losses of the library and a loop of its own."""
    split = fashion.train.take(images, seed=seed)
    wanted = teachers.cached_logits(teachers.load("fashion-mnist"), split)
    student = models.build("tiny-cnn", seed=seed).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.01, weight_decay=0.05)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(images, generator=order).split(50):
            logits, labels = student(split.normalized()[rows]), split.labels[rows]
            if T is None:
                loss = F.cross_entropy(logits, labels)
            else:
                loss = losses.distillation_loss(logits, wanted[rows], labels, temperature=T, alpha=0.9).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return metrics.accuracy(student, judges)


def test_with_all_faults_mended_it_is_the_librarys_distillation(fashion):
    sizes = {"images": 100, "epochs": 2}
    report = study.program(study.FAULTS)(fashion, **sizes, judges=400, seeds=(0, 1))
    judges = fashion.test.take(400)
    for accuracies, T in ((report.distilled, report.temperature), (report.labels, None)):
        expected = [by_the_library(fashion, seed, judges, **sizes, T=T) for seed in (0, 1)]
        assert accuracies == pytest.approx(expected, abs=0.011)


# ------------------------------------------------------------------ what is shown and recorded


def invented():
    return study.Report(4, (0, 1, 2), [0.75, 0.8, 0.79], [3, 4, 5], [0.7, 0.6, 0.65], 0.8, 0.65, 0.0248)


def test_a_report_says_what_it_was_given():
    text = repr(invented())
    labels, distilled = re.findall(r"(\S.*?) +(\d+) +(\S+) %", text)
    assert labels == ("labels", "3", "65.0") and distilled == ("distilled (alpha = 0.9, T = 4)", "3", "80.0")
    assert text.endswith("distillation makes small networks 15.0 ± 2.5 points better.")
    page = invented()._repr_html_()
    assert page.count("<tr>") == 3 and "80.0 %" in page and "15.0 ± 2.5" in page


def test_published_is_read_back_from_its_rows_beside_others():
    rows = [*invented().rows(study.AS_PUBLISHED), *invented().rows("repaired")]
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)
    table.loc[table["kind"] == "repaired", ["accuracy", "reported", "half"]] = 0.1
    assert repr(study.published(table)) == repr(invented())


def test_published_refuses_tables_that_are_not_of_the_study():
    table = pd.DataFrame(invented().rows(study.AS_PUBLISHED))
    with pytest.raises(ValueError, match="table must have the columns kind, .*; missing: reported, half"):
        study.published(table.drop(columns=["half", "reported"]))
    for wrong in (table.assign(kind="repaired"), table[table["arm"] == "labels"]):
        with pytest.raises(ValueError, match="table must have rows of the kind 'as published' for both arms"):
            study.published(wrong)


def test_the_explanation_has_every_fault_with_its_line_and_its_mending():
    text, page = repr(study.explained()), study.explained()._repr_html_()
    assert page.count("<tr>") == 1 + len(study.FAULTS)
    for number, fault in study.FAULTS.items():
        assert f"{number:2}  {study.LINES[number - 1].strip()}\n" in text
        assert fault.mended in text and fault.words in text and f"lesson {fault.lesson}" in text


def test_the_experiment_has_both_forms_and_reads_back_as_it_was_published(fashion, recorded_small, tmp_path):
    table = recorded_small
    assert repr(study.published(table)) == repr(study.study(fashion, **SMALL))
    repaired = table[table["kind"] == lesson10_study.REPAIRED].pivot(
        index="seed", columns="arm", values="accuracy"
    )
    assert [*repaired.index] == [0, 1] and repaired.notna().all(axis=None)
    assert set(table["split"]) == {"test"} and "error" not in table.columns
    assert not table.duplicated(subset=["kind", "arm", "seed", "split", "temperature"]).any()
    table.to_csv(tmp_path / "table.csv", index=False)
    content = (tmp_path / "table.csv").read_bytes()
    pd.testing.assert_frame_equal(results._parse(content), table, check_dtype=False, check_exact=True)
    default = inspect.signature(lesson10_study.published_and_repaired).parameters["seeds"].default
    assert len(set(default)) == 10


# ------------------------------------------------------------------ the exercises


def test_the_solution_names_the_lines_that_are_at_fault():
    assert exercises.solution("flawed_study")() == set(study.FAULTS)


def test_any_five_faults_with_at_most_one_innocent_line_are_enough_and_nothing_less():
    chosen, faults = random.Random(0), [*study.FAULTS]
    innocent = sorted(set(range(1, len(study.LINES) + 1)) - set(faults))
    for right, wrong in itertools.product(range(9), range(5)):
        named = chosen.sample(faults, right) + chosen.sample(innocent, wrong)
        if named:
            verdict = exercises.check("flawed_study", set(named))
            assert verdict.passed == (right >= 5 and wrong <= 1), named
            assert verdict.passed or f" {right} " in verdict.message and f" {wrong} " in verdict.message


def test_a_false_alarm_is_explained_and_no_other_line_is_spoken_of():
    chosen = random.Random(1)
    for alarm, why in study.ALARMS.items():
        named = {alarm, 1, 2, *chosen.sample([*study.FAULTS], 4)}
        message = exercises.check("flawed_study", named).message
        assert f"Line {alarm} is right: {why}." in message
        assert set(map(int, re.findall(r"[Ll]ine (\d+)", message))) == {alarm}


def test_the_conclusion_is_that_of_the_paired_interval_and_no_case_lies_where_rounding_decides():
    for (table,) in exercises.get("study_conclusion").cases():
        pairs = table.pivot(index="seed", columns="arm", values="accuracy")
        if pairs.isna().any(axis=None):
            with pytest.raises(ValueError, match="only one arm"):
                exercises.solution("study_conclusion")(table)
            continue
        interval = stats.ttest_rel(pairs["distilled"], pairs["labels"]).confidence_interval()
        mean = (pairs["distilled"] - pairs["labels"]).mean()
        numbers = [100 * number for number in (mean, interval.low, interval.high)]
        assert all(abs(10 * number % 1 - 0.5) > 0.02 for number in numbers)
        said = exercises.solution("study_conclusion")(table)
        written = [float(number) for number in re.findall(r"[-+]?\d+\.\d", said)]
        if said.startswith("behind"):
            assert numbers[2] < 0
            numbers = [-numbers[0], -numbers[2], -numbers[1]]
        else:
            assert said.startswith("ahead" if numbers[1] > 0 else "not told apart")
        assert written == pytest.approx(numbers, abs=0.051)


def test_the_conclusion_of_the_experiments_own_table_can_be_drawn(recorded_small):
    repaired = recorded_small[recorded_small["kind"] == lesson10_study.REPAIRED]
    said = exercises.solution("study_conclusion")(repaired)
    assert re.match(r"ahead by |behind by |not told apart: ", said)


def arms(one, other):
    """A plain design: five seeds of either arm, measured on test."""

    def design(lab):
        return paired_interval(
            *([lab.student(s, **arm).accuracy("test") for s in range(5)] for arm in (one, other))
        )

    return design


def test_every_claim_of_the_open_experiment_can_be_put_to_the_test():
    taught = {"method": "distillation"}
    for one, other in [
        ({**taught, "temperature": 1}, {**taught, "temperature": 4}),
        ({**taught, "alpha": 0.8}, {**taught, "alpha": 0.3}),
        ({**taught, "epochs": 20}, {"method": "labels", "epochs": 20}),
    ]:
        verdict = exercises.check("my_audit", arms(one, other))
        assert verdict.passed and "5 paired seeds" in verdict.message, verdict
    assert exercises.check("my_audit", arms({"method": "labels"}, taught)).diagnosis == "sign"
    unequal = arms({**taught, "epochs": 40}, {"method": "labels", "epochs": 20})
    assert exercises.check("my_audit", unequal).diagnosis == "several changes"


def test_the_open_experiment_is_rehearsed_in_the_laboratory_of_the_lesson():
    [(rehearsal,)] = exercises.get("my_audit").cases()
    of_lab, of_rehearsal = (
        {name: repr(one) for name, one in room.settings.items()} for room in (Laboratory("ci"), rehearsal)
    )
    assert of_lab == of_rehearsal and {"method", "temperature", "alpha", "epochs"} <= set(of_lab)
    mean, low, high = exercises.solution("my_audit")(rehearsal)
    assert low < mean < high and len(rehearsal.looks) == 10
