"""The printed page: all numbers come from tables, verdicts are worded right, and the committed page is up to date."""

import functools
import importlib.util
import inspect
import re
from pathlib import Path

import numpy as np
import pandas
import pytest

from kdlib.experiments import (
    lesson07,
    lesson07_advice,
    lesson07_augmentation,
    lesson07_capacity,
    lesson07_page,
    lesson07_stages,
    lesson07_steps,
    lesson07_targets,
)
from kdlib.lesson import results
from kdlib.training import diagnosis

CHECKOUT = Path(__file__).parents[1]
SEEDS = range(5)
SCORES = ("accuracy", "test", "moved", "still")


def tool():
    spec = importlib.util.spec_from_file_location("printed_page", CHECKOUT / "tools" / "printed_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(cells, score="accuracy"):
    """One row for each cell and seed, with an invented score: every arm has the same mean, within the noise."""
    rows = pandas.DataFrame([{**cell, "seed": seed} for seed in SEEDS for cell in cells])
    return rows.assign(**{score: 0.8 + np.random.default_rng(len(rows)).normal(0, 0.005, len(rows))})


def move(tables, name, by, **key):
    """Add to the score of one arm; the noise of five seeds is a twentieth of a point of accuracy."""
    rows = tables[name]
    where = np.logical_and.reduce([rows[column] == value for column, value in key.items()])
    assert where.any()
    score = next(score for score in SCORES if score in rows)
    tables[name] = rows.assign(**{score: rows[score] + by * where})


@pytest.fixture
def tables(monkeypatch):
    """Recorded tables of earlier lessons, and small invented ones of lesson 07, by name."""
    own = {name: results.read(name) for name in lesson07_page.TABLES if not name.startswith("lesson07")}
    own["lesson07-schedules"] = table([{"plan": name} for name in lesson07.PLANS], "test")
    own["lesson07-schedules-tuned"] = table([{"family": name} for name in lesson07.TUNED])
    nothing = dict.fromkeys(lesson07_stages.SETTINGS, 0.0)
    own["lesson07-stages-tuning"] = table(
        [{"arm": arm, **nothing, **own} for arm, own in lesson07_stages.grids()]
    )
    own["lesson07-stages-edge-tuning"] = table(
        [{"arm": arm, **nothing, **own} for arm, own in lesson07_stages.beyond()]
    )
    views = [{"name": name, "target": target} for name, target in lesson07_augmentation.arms()]
    own["lesson07-augmentation"] = table(views)
    own["lesson07-augmentation-tuning"] = table(
        [{**arm, "rate": rate} for arm in views for rate in (0.01, 0.02)]
    )
    own["lesson07-targets"] = table([{"views": v, "form": f, "k": k} for v, f, k in lesson07_targets.arms()])
    sizes = [{key: one[key] for key in ("width", "source", "images")} for one in lesson07_capacity.grid([0])]
    own["lesson07-capacity"] = table(sizes)
    own["lesson07-norms"] = table([{"kind": kind} for kind in lesson07_capacity.NORMS])
    monkeypatch.setattr(results, "read", own.__getitem__)
    monkeypatch.setattr(results, "recorded", lambda: sorted(own))
    monkeypatch.setattr(
        results, "manifest", lambda name: {"date": "2031-02-03" if "07" in name else "2031-01-02"}
    )
    monkeypatch.setattr(lesson07_capacity, "size", functools.cache(lesson07_capacity.size))
    own["lesson07-stages"] = table(
        [
            {"arm": arm, **nothing, **settings, "mean alpha": 0.6}
            for arm, settings in lesson07_stages.compared()
        ]
    )
    return own


def section(page, title):
    """What stands below a heading."""
    return page.partition(f"## {title}")[2].partition("\n## ")[0]


def test_every_gain_on_the_page_comes_from_a_table(tables):
    for name, rows in tables.items():
        if not name.endswith("-tuning"):  # those choose an arm, and give no gain
            tables[name] = rows.assign(**{score: 0.5 for score in SCORES if score in rows})
    page = lesson07_page.markdown()
    gains = re.findall(r"[+-]\d+\.\d", page)
    assert len(gains) > 3 * len(lesson07_page.steps()) + 30 and {*gains} == {"+0.0"}


def test_a_change_of_any_table_changes_the_page(tables):
    before = lesson07_page.markdown()
    for name in lesson07_page.TABLES:
        if "stages" in name and name.endswith("tuning"):  # whose winners are the arms of lesson07-stages
            continue
        kept = tables[name]
        noise = np.random.default_rng(1).normal(0, 0.05, len(kept))
        scores = [score for score in (*SCORES, "validation_accuracy") if score in kept]
        tables[name] = kept.assign(**{score: kept[score] + noise for score in scores})
        assert lesson07_page.markdown() != before, name
        tables[name] = kept


def test_the_page_reads_no_table_but_those_that_it_names(tables, monkeypatch):
    read = set()
    monkeypatch.setattr(results, "read", lambda name: read.add(name) or tables[name])
    page = lesson07_page.markdown()
    assert read == {*lesson07_page.TABLES}
    old, new = re.search(
        r"on 2031-01-02 by `kdlib record (.*)`; on 2031-02-03 by `kdlib record (.*)`", page
    ).groups()
    assert old.split() + new.split() == [*lesson07_page.TABLES]


def test_missing_tables_are_all_named_before_anything_is_computed(tables):
    for name in ("lesson07-norms", "lesson02-temperatures"):
        del tables[name]
    with pytest.raises(ValueError, match="kdlib record lesson02-temperatures lesson07-norms"):
        lesson07_page.markdown()


def test_two_arms_of_different_seeds_or_an_arm_of_two_rows_a_seed_are_refused(tables):
    rows = tables["lesson07-targets"]
    live = (rows["views"] == "live") & (rows["seed"] == 0)
    tables["lesson07-targets"] = rows[~live]
    with pytest.raises(ValueError, match=r"lesson07-targets must have the same seeds, got \[0, 1"):
        lesson07_page.steps()
    tables["lesson07-targets"] = pandas.concat([rows, rows[live]])
    with pytest.raises(ValueError, match="one row a seed where .*live.* got 6 rows"):
        lesson07_page.steps()
    tables["lesson07-targets"] = rows[rows["views"] != "live"]
    with pytest.raises(ValueError, match="one row a seed where .*live.* got 0 rows"):
        lesson07_page.steps()


def test_a_step_says_its_gain_in_points_with_its_interval_and_what_it_means(tables, monkeypatch):
    for by, words in ((0.1, ""), (-0.1, ", hurts"), (0.0, ", not told apart")):
        changed = dict(tables)
        move(changed, "lesson07-targets", by, views="8", form="32 bits", k=0)
        monkeypatch.setattr(results, "read", changed.__getitem__)
        gain = lesson07_page.steps()[-2].gain
        stated = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(round(100 * value, 1) + 0.0 for value in gain))
        assert f"| {stated}{words} | {len(SEEDS)} | 07 |" in lesson07_page.markdown(), words


def test_advice_is_listed_by_its_verdict_and_not_at_all_where_it_helps(tables):
    for kind, by in (("own, frozen", -0.1), ("the teacher's, frozen", 0.1)):
        move(tables, "lesson07-norms", by, kind=kind)
    listed = section(lesson07_page.markdown(), "What was not worth it here")
    [line] = [line for line in listed.splitlines() if line.startswith("- **batch norm**")]
    found = re.fullmatch(
        r"- \*\*batch norm\*\*, 3 measured\. \*not told apart\*: (.*)\. \*hurts\*: (.*)\.", line
    )
    none, hurts = found.groups()
    assert re.fullmatch(r"over own statistics \[-\S+, \+\S+\]: the teacher's norms to begin with", none)
    assert re.fullmatch(r"over own statistics -\S+ \[-\S+, -\S+\]: own norms, frozen before training", hurts)
    assert "the teacher's norms, frozen" not in line


def test_every_piece_of_advice_that_does_not_help_stands_there_once_with_an_interval_around_its_own(tables):
    page = lesson07_page.markdown()
    lists = page.partition("## What was")[2]
    groups = re.findall(r"over ([^/]*?) (?:[+-]\S+ )?\[(\S+), (\S+)\]: (.*?)(?= / over|\. \*|\.\n)", lists)
    listed = [(over, words, low, high) for over, low, high, group in groups for words in group.split("; ")]
    advice = pandas.concat([lesson07_steps.earlier(), lesson07_advice.rows()])
    advice["verdict"] = advice["gain"].map(lesson07_advice.verdict)
    expected = advice[advice["verdict"] != "helps"]
    assert sorted(zip(expected["over"], expected["advice"], strict=True)) == sorted(
        entry[:2] for entry in listed
    )
    for over, words, low, high in listed:
        gains = expected[(expected["over"] == over) & (expected["advice"] == words)]["gain"]
        assert any(
            float(low) <= 100 * one.low + 0.05 and float(high) >= 100 * one.high - 0.05 for one in gains
        )
    counts = [(advice["verdict"] == name).sum() for name in ("helps", "not told apart", "hurts")]
    stated = "Of {} pieces of advice {} help, {} are not told apart from their control, and {} hurt."
    assert stated.format(len(advice), *counts) in page


def test_storing_less_without_a_difference_is_called_a_saving_and_not_a_failure(tables):
    move(tables, "lesson07-targets", -0.1, views="0", form="zero-filled", k=3)
    page = lesson07_page.markdown()
    saved, wasted = section(page, "What may be saved"), section(page, "What was not worth it here")
    assert re.search(
        r"\*no cost that shows\*: .*keep 8 bits / .*\*hurts\*: .*the top 3, zero-filled\.", saved
    )
    assert "stored targets" in saved and "stored targets" not in wasted


def test_an_asterisk_marks_what_other_seeds_judge_otherwise(tables):
    tables["lesson07-norms-again"] = tables["lesson07-norms"]
    assert r"\*" not in lesson07_page.markdown()
    move(tables, "lesson07-norms-again", -0.1, kind="own, frozen")
    page = lesson07_page.markdown()
    assert page.count(r"\*") == 1 and re.search(r"own norms, frozen before training\\\*", page)
    assert page.count(" lesson07-norms-again") == 1


def test_the_six_questions_stand_in_the_order_of_the_diagnosis_each_with_a_call_that_can_be_made(tables):
    tree = section(lesson07_page.markdown(), "My student is no better than its baseline: why?")
    asked = re.findall(r"(?m)^\d\. \*\*([A-Z].+\?)\*\* `diagnosis\.(\w+)\(([^)]*)\)`\. If not: \S", tree)
    assert [name for _, name, _ in asked] == re.findall(
        r"^\d\. `(\w+)`", diagnosis.__doc__, flags=re.MULTILINE
    )
    assert len(asked) == 6
    assert [question.lower().split() for question, *_ in asked] == [
        f"{name}?".split("_") for _, name, _ in asked
    ]
    for _, name, arguments in [*asked, ("", *re.search(r"diagnosis\.(examine)\(([^)]*)\)", tree).groups())]:
        function = getattr(diagnosis, name)
        given = [argument.partition("=") for argument in arguments.split(", ")]
        inspect.signature(function).bind(
            *(name for name, named, _ in given if not named), **{name: 0 for name, named, _ in given if named}
        )


def test_the_range_of_temperatures_ends_where_one_is_told_apart():
    noise = np.random.default_rng(0).normal(0, 0.001, (4, 8))
    gaps = {1.0: -0.1, 2.0: 0.0, 3.0: -0.1, 4.0: 0.0, 6.0: 0.0, 8.0: 0.1, 16.0: 0.0}
    cells = [
        {"temperature": t, "alpha": 0.9, "seed": seed, "accuracy": 0.8 + gap + noise[row % 4, seed]}
        for row, (t, gap) in enumerate(gaps.items())
        for seed in range(8)
    ]
    assert lesson07_steps.plateau(pandas.DataFrame(cells)) == (4.0, 6.0)


def test_the_page_is_short_and_links_to_nothing_that_a_notebook_cannot_find(tables):
    page = lesson07_page.markdown()
    assert not re.search(r"\]\((?!https?://)|<img|src=|href=", page)
    assert not re.search(r"\bnan\b|None", page)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {7} and len(rows) == 2 + len(lesson07_page.steps())
    assert len(page.partition("<sub>")[0].split()) < 1900


def test_the_tool_writes_the_page_and_notices_one_that_is_old(tables, tmp_path, monkeypatch, capsys):
    page, printed = tmp_path / "docs" / "page.md", tool()
    monkeypatch.setattr(printed, "PAGE", page)
    assert printed.main(["--check"]) == 1 and not page.exists()
    assert printed.main([]) == 0 and page.read_text(encoding="utf-8") == lesson07_page.markdown()
    assert printed.main(["--check"]) == 0
    move(tables, "lesson07-norms", -0.1, kind="own, frozen")
    old = page.read_bytes()
    assert printed.main(["--check"]) == 1 and page.read_bytes() == old
    assert "python tools/printed_page.py" in capsys.readouterr().err
    del tables["lesson07-norms"]
    assert printed.main([]) == 1 and page.read_bytes() == old
    assert "kdlib record lesson07-norms" in capsys.readouterr().err


def test_the_committed_page_is_what_the_recorded_results_give(capsys):
    assert tool().main(["--check"]) == 0, capsys.readouterr().err


def test_every_recorded_step_helps_but_the_one_that_saves_and_none_is_worth_more_than_images_without_labels():
    steps = lesson07_page.steps()
    assert [step.words for step in steps if step.gain.low <= 0 and not step.why.startswith("A saving")] == []
    assert max(steps, key=lambda step: step.gain.mean).source == "lesson01-unlabelled"
    assert min(step.seeds for step in steps) >= 10
