"""The audit: every claim is complete, its verdict follows from its numbers, and its row can be made again."""

import functools
import html
import re
from pathlib import Path

import ipywidgets
import numpy as np
import pandas
import pytest
import torch
from torchvision import models as zoo

from kdlib import audit, cli
from kdlib.audit import _core, accuracy, code, settings, size, speed, tasks, training
from kdlib.lesson import results
from kdlib.metrics import Interval

CHECKOUT = Path(__file__).parents[1]
NUMBERS = [claim.number for claim in audit.claims()]
COLUMNS = ["tutorial", "topic", "claim", "needs", "measured", "verdict", "by"]


@pytest.fixture(scope="module")
def whole() -> pandas.DataFrame:
    return audit.table()


@pytest.fixture
def invented(monkeypatch):
    """Call it with name=table: claims read these instead of what is recorded; others stay as they are."""
    tables, read = {}, results.read
    monkeypatch.setattr(results, "read", lambda name: tables[name] if name in tables else read(name))
    return lambda name, table: tables.update({name: table})


def found(number: str) -> audit.Finding:
    """Measured now, and not kept."""
    return _core.find(number).measure()


# --- the table


def test_at_least_forty_claims_of_four_tutorials_each_in_words(whole):
    assert len(whole) >= 40 and whole.index.is_unique and list(whole.index) == NUMBERS
    assert list(whole.columns) == COLUMNS and set(whole["tutorial"]) == set("ABCD")
    for column in COLUMNS:
        assert whole[column].str.strip().str.len().min() > 0, column
    for column in ("claim", "needs", "measured"):
        assert whole[column].str.contains(" ").all(), column
    assert whole["claim"].str.endswith(".").all() and whole["measured"].str.endswith(".").all()
    assert whole["claim"].is_unique
    assert set(whole["verdict"]) == set(audit.VERDICTS) and set(whole["topic"]) == set(audit.TOPICS)
    assert whole["verdict"].isin([audit.HOLDS, audit.IN_PART]).sum() >= 8
    assert whole[whole["topic"] != "code"]["measured"].str.contains("[0-9]").all()


def test_numbers_go_on_without_a_gap():
    for letter in "ABCD":
        of_letter = [int(number[1:]) for number in NUMBERS if number[0] == letter]
        assert of_letter == list(range(1, len(of_letter) + 1))


def test_a_row_names_what_makes_it_again(whole):
    """A recorded table that is registered, a model of the shelf, or the audit itself; and a section that exists."""
    from kdlib.deploy import shelf

    known = results.registered()
    for number, by in whole["by"].items():
        commands = re.findall(r"kdlib (audit|record|build-model)((?: [A-Za-z0-9-]+)+)", by)
        assert commands, number
        for command, names in commands:
            allowed = {"audit": [number], "record": known, "build-model": shelf.names()}[command]
            assert set(names.split()) <= set(allowed), (number, command, names)
        for lesson, section in re.findall(r"lesson (0\d), (?:section (\d))?", by):
            (source,) = (CHECKOUT / "lessons").glob(f"{lesson}_*.py")
            heading = f"# ## {section}. " if section else "# ## Further"
            assert f"\n{heading}" in source.read_text(encoding="utf-8"), (number, lesson, section)
    assert (CHECKOUT / "examples" / "distill_imagenet.py").is_file()


def test_choosing_rows(whole):
    for verdict in audit.VERDICTS:
        assert set(audit.table(verdict=verdict)["verdict"]) == {verdict}
    for topic in audit.TOPICS:
        assert set(audit.table(topic=topic)["topic"]) == {topic}
    chosen = audit.table(verdict=audit.FAILS, topic="size")
    assert list(chosen.index) == list(whole.query("verdict == @audit.FAILS and topic == 'size'").index)
    for arguments in ({"verdict": "true"}, {"topic": "sizes"}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            audit.table(**arguments)


def test_counts_add_up(whole):
    counts = audit.counts()
    assert list(counts.columns) == list(audit.VERDICTS) and list(counts.index) == [*audit.TOPICS, "all"]
    assert counts.loc["all"].sum() == len(whole)
    assert counts.loc["size", audit.FAILS] == len(audit.table(topic="size", verdict=audit.FAILS))


def test_a_claim_is_measured_once(monkeypatch):
    findings = iter([audit.Finding(audit.HOLDS, "1"), audit.Finding(audit.FAILS, "2")])
    monkeypatch.setattr(_core, "_measured", functools.cache(_core._measured.__wrapped__))
    monkeypatch.setitem(
        _core._claims, "D99", _core.Claim("D99", "code", "a", "b", "c", lambda: next(findings))
    )
    assert audit.measure("D99") == audit.measure("d99") == (audit.HOLDS, "1")


def test_an_unknown_number_names_those_near_it():
    with pytest.raises(ValueError, match=r"number must be one of .*A1 to A9.*'B99'; near it: .*B9"):
        audit.measure("B99")
    with pytest.raises(ValueError, match="got ''$"):
        audit.measure("")


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": "A1"},
        {"number": "E1"},
        {"number": "D0"},
        {"topic": "sizes"},
        {"says": " "},
        {"needs": ""},
    ],
)
def test_an_incomplete_claim_is_refused(wrong):
    number = wrong.pop("number", "D98")
    with pytest.raises(ValueError):
        _core.claim(number, **{"topic": "size", "says": "it is", "needs": "nothing"} | wrong)
    assert "D98" not in _core._claims


# --- counts against numbers that were counted before


def test_counts_are_those_of_the_published_networks(whole):
    for number, count in {
        "A1": "4,275,594", "A2": "545,098", "B1": "60,192,808", "B2": "480,309,308", "B3": "7,978,856 over 5,288,548",
        "D1": "11,689,512", "D2": "44.6 MiB", "D3": "1,677,128 parameters with the 1,000", "D4": "6.7 MB", "D5": "7.0",
    }.items():  # fmt: skip
        assert count in whole["measured"][number], number
    assert "408,938" in whole["measured"]["D3"] and "87.3%" in whole["measured"]["A3"]
    assert "1.51 times" in whole["measured"]["B3"] and "11.7 MB" in whole["measured"]["D12"]


def test_networks_without_memory_have_the_parameters_of_those_with():
    from kdlib import models
    from kdlib.audit import _counts

    real = zoo.mobilenet_v2(weights=None, width_mult=0.35)
    assert _counts.small() == sum(one.numel() for one in real.parameters())
    classic = models.build("student-net", num_classes=10, in_channels=3, image_size=32)
    assert _counts.parameters("student-net") == sum(one.numel() for one in classic.parameters())
    assert _counts.small_work() == pytest.approx(0.059, abs=0.001)


@pytest.mark.parametrize(
    ("number", "verdict"),
    {
        "A1": audit.FAILS, "A2": audit.FAILS, "A3": audit.FAILS, "A8": audit.IN_PART, "B1": audit.FAILS,
        "B3": audit.FAILS, "B6": audit.HOLDS, "B16": audit.FAILS, "B27": audit.FAILS, "B28": audit.FAILS,
        "B29": audit.IN_PART, "C1": audit.FAILS, "C2": audit.FAILS, "C3": audit.FAILS, "C4": audit.IN_PART,
        "C5": audit.FAILS, "C6": audit.IN_PART, "D1": audit.FAILS, "D2": audit.HOLDS, "D6": audit.HOLDS,
        "D7": audit.UNTESTED, "D19": audit.HOLDS, "D21": audit.FAILS, "D24": audit.HOLDS,
    }.items(),
)  # fmt: skip
def test_what_does_not_depend_on_the_machine(whole, number, verdict):
    assert whole["verdict"][number] == verdict


# --- a verdict follows its numbers


def classic_table(
    data: str, teacher: float, labels: float, distilled: float, seeds=range(4)
) -> pandas.DataFrame:
    rows = []
    for seed in seeds:
        noise = 0.001 * seed
        arms = {("teacher-net", "labels"): teacher, ("student-net", "labels"): labels}
        for (network, arm), value in (arms | {("student-net", "distilled"): distilled}).items():
            accuracy = value + noise + 0.0003 * (arm == "distilled") * (-1) ** seed
            rows.append((data, network, arm, seed, 50, accuracy))
    return pandas.DataFrame(rows, columns=["data", "network", "arm", "seed", "epochs", "accuracy"])


def test_the_classic_pair_is_judged_by_the_table(invented):
    jpeg = classic_table("CIFAR-10 as JPEG", 0.70, 0.66, 0.69)
    invented("lesson10-classic", jpeg)
    teacher = found("A4")
    assert (
        teacher.verdict == audit.UNTESTED
        and "70.1%" in teacher.measured
        and "were not tried" in teacher.measured
    )
    assert found("A5").verdict == audit.UNTESTED and found("A6").verdict == audit.HOLDS
    invented("lesson10-classic", classic_table("CIFAR-10", 0.80, 0.70, 0.72))
    assert found("A4").verdict == found("A5").verdict == audit.FAILS
    original = classic_table("CIFAR-10", 0.93, 0.88, 0.875)
    invented("lesson10-classic", pandas.concat([jpeg, original]))
    assert found("A4").verdict == found("A5").verdict == audit.HOLDS
    assert "JPEG" not in found("A4").measured
    assert found("A6").verdict == audit.FAILS
    invented("lesson10-classic", classic_table("CIFAR-10", 0.93, 0.88, 0.88))
    assert found("A6").verdict == audit.IN_PART  # as good as the labels, without them
    invented("lesson10-classic", classic_table("CIFAR-10", 0.93, 0.88, 0.89, seeds=[0]))
    assert found("A6").verdict == audit.UNTESTED and "+1.0 points" in found("A6").measured


def test_the_classic_pair_is_compared_with_labels_that_stop_early_too(invented):
    table = classic_table("CIFAR-10", 0.93, 0.80, 0.88)
    shorter = table.query("network == 'student-net' and arm == 'labels'").assign(arm=training.SHORTER)
    invented("lesson10-classic", pandas.concat([table, shorter]))
    assert found("A6").verdict == audit.HOLDS
    invented("lesson10-classic", pandas.concat([table, shorter.assign(accuracy=shorter["accuracy"] + 0.1)]))
    assert found("A6").verdict == audit.IN_PART and "a third as long" in found("A6").measured


def test_a_claim_that_cannot_be_measured_says_why_and_leaves_the_others(invented):
    invented("lesson10-classic", classic_table("CIFAR-10", 0.93, 0.88, 0.9).query("network == 'teacher-net'"))
    finding = _core._measured.__wrapped__("A5")  # as audit.measure has it, and not kept
    assert finding.verdict == audit.UNTESTED and "could not be measured: ValueError" in finding.measured
    assert "no rows of 'student-net'" in finding.measured and found("A4").verdict == audit.HOLDS


def test_nothing_that_is_recorded_fails_to_be_measured(whole):
    assert not whole["measured"].str.contains("could not be measured|not recorded yet").any()


def test_times_are_judged_by_their_ratio(invented):
    for student, verdict in ((1.0, audit.HOLDS), (2.0, audit.FAILS), (0.3, audit.FAILS)):
        times = {"teacher-net": [3.0, 3.0, 90.0], "student-net": [student] * 3}
        rows = [(name, 1, 4, repeat, value) for name, of in times.items() for repeat, value in enumerate(of)]
        columns = ["network", "parameters", "bytes", "repeat", "milliseconds"]
        invented("lesson10-cost", pandas.DataFrame(rows, columns=columns))
        assert found("A7").verdict == verdict


def test_a_report_on_training_images_is_judged_by_unseen_ones(invented):
    for unseen, verdict in ((0.80, audit.FAILS), (0.919, audit.HOLDS)):
        rows = [
            ("training on validation", arm, seed, "test", reported, accuracy)
            for seed in range(3)
            for arm, reported, accuracy in (("found", 0.92, unseen), ("mended", 0.81, 0.80))
        ]
        columns = ["case", "arm", "seed", "split", "reported", "accuracy"]
        other = [("another", "found", 0, "test", 0.1, 0.9)]
        invented("lesson10-clinic", pandas.DataFrame(rows + other, columns=columns))
        assert found("D8").verdict == verdict and "92.0%" in found("D8").measured


def test_a_table_that_is_not_there_leaves_its_claims_untested(monkeypatch):
    monkeypatch.setattr(results, "FOLDER", Path("no-such-folder"))
    monkeypatch.setattr(_core, "_measured", functools.cache(_core._measured.__wrapped__))
    finding = audit.measure("D11")
    assert finding == (
        audit.UNTESTED,
        "The table that decides is not recorded yet: kdlib record lesson06-strengths.",
    )


def test_a_damaged_table_is_an_error(monkeypatch):
    def damaged(name):
        raise ValueError("the recorded result is damaged")

    monkeypatch.setattr(results, "read", damaged)
    with pytest.raises(ValueError, match="damaged"):
        found("D11")


def shifted(name: str, score: str, rows: str, by: float) -> pandas.DataFrame:
    """A recorded table in which some rows score otherwise."""
    table = results.read(name).copy()
    table.loc[table.query(rows).index, score] += by
    return table


@pytest.mark.parametrize(
    ("number", "name", "score", "rows", "by", "verdict"),
    [
        ("B7", "lesson01-hurts", "accuracy", "method == 'T = 2, tuned'", -0.1, audit.HOLDS),
        ("B7", "lesson02-temperatures", "accuracy", "temperature == 1 and alpha == 0.9", 0.1, audit.FAILS),
        ("B8", "lesson03-teachers", "test", "alpha == 0.75", 0.3, audit.HOLDS),
        ("B8", "lesson03-teachers", "test", "alpha == 0.1", 0.5, audit.FAILS),
        ("B10", "lesson01-hurts", "accuracy", "method == 'T = 1, tuned'", -0.1, audit.HOLDS),
        ("B10", "lesson02-temperatures", "accuracy", "temperature == 1 and alpha == 0.9", 0.1, audit.FAILS),
        (
            "B11",
            "lesson02-temperatures",
            "accuracy",
            "temperature > 15 and alpha == 0.9",
            0.1,
            audit.FAILS,
        ),
        ("B13", "lesson04-methods", "accuracy", "method == 'distillation'", 0.1, audit.FAILS),
        ("B14", "lesson07-augmentation", "accuracy", "name == 'CutMix'", 0.1, audit.IN_PART),
        ("B14", "lesson07-augmentation", "accuracy", "name == 'CutMix'", -0.1, audit.FAILS),
        (
            "B21",
            "lesson08-modalities",
            "accuracy",
            "sensor == 'edges' and arm == 'pairs'",
            -0.2,
            audit.IN_PART,
        ),
        ("B23", "lesson07-capacity", "accuracy", "source == '72'", -0.1, audit.HOLDS),
        ("B24", "lesson07-norms", "accuracy", "kind == 'own'", -0.1, audit.FAILS),
        ("B33", "lesson09-exits", "exit 1", "arm == 'taught by the last exit'", 0.1, audit.FAILS),
        ("C6", "lesson07-stages", "accuracy", "arm == 'labels'", 0.1, audit.FAILS),
        ("C8", "lesson05-mobilenet", "accuracy", "method == 'labels only'", 0.1, audit.HOLDS),
        ("C9", "lesson06-methods", "accuracy", "target == 'labels'", 0.1, audit.HOLDS),
        ("D22", "lesson03-surface", "test", "alpha == 1", 0.1, audit.IN_PART),
        ("D22", "lesson03-surface", "test", "alpha == 0", 0.1, audit.FAILS),
        ("D23", "lesson05-mobilenet", "accuracy", "method == 'distillation'", 0.1, audit.HOLDS),
        ("D23", "lesson05-mobilenet", "accuracy", "method == 'distillation'", -0.1, audit.FAILS),
    ],
)
def test_other_numbers_give_another_verdict(invented, whole, number, name, score, rows, by, verdict):
    invented(name, shifted(name, score, rows, by))
    assert found(number).verdict == verdict
    assert number in ("B33",) or whole["verdict"][number] != verdict


def test_advice_that_helps_with_all_seeds_holds(invented):
    for again in ("", "-again"):
        for name, plan in (
            ("lesson07-schedules", "plan == 'T 10 to 1, linear'"),
            ("lesson07-schedules-tuned", FALLING),
        ):
            score = "test" if name == "lesson07-schedules" else "accuracy"
            invented(name + again, shifted(name + again, score, plan, 0.05))
    assert found("B26").verdict == audit.HOLDS


FALLING = "family == 'linear, down to 1'"


def test_gains_count_only_where_all_seeds_agree():
    up, down, unclear = Interval(0.1, 0.05, 0.2), Interval(-0.1, -0.2, -0.05), Interval(0.0, -0.1, 0.1)
    assert _core.of_gains((up, up), (up,)) == audit.HOLDS
    assert _core.of_gains((up, up), (up, unclear)) == audit.IN_PART
    assert (
        _core.of_gains((up, unclear)) == _core.of_gains((up, down)) == _core.of_gains((down,)) == audit.FAILS
    )


def test_the_time_of_float16_decides():
    assert [speed.of_ratio(ratio) for ratio in (0.5, 1.0, 8.0)] == [audit.HOLDS, audit.IN_PART, audit.FAILS]
    assert speed.half_over_full(rounds=1) > 0


# --- small computations against independent ones


def test_noise_of_rounding_against_plain_numpy():
    """A straight line of 8 bits: uniform numbers have 6.02 dB a bit, when their mean is 0."""
    values = np.random.default_rng(0).uniform(-1, 1, 100_000)
    assert 10 * np.log10(values.var() / ((2 / 255) ** 2 / 12)) == pytest.approx(48.1, abs=0.1)
    uniform = torch.distributions.Normal(0.0, 1.0)
    assert speed.noise_ratio(lambda x: 2 * uniform.cdf(x) - 1) == pytest.approx(48.1, abs=0.1)


def test_a_class_that_keeps_its_end_would_hold():
    assert code.runs(lambda: 1, "It").verdict == audit.HOLDS
    failed = code.runs(lambda: code.FallingAsFound(10, 1, 100)(0), "It")
    assert (
        failed.verdict == audit.FAILS and "AttributeError" in failed.measured and "'end'" in failed.measured
    )


def test_the_square_keeps_the_gradient_by_hand(whole):
    """The gradient of an image is T (q - p); without T^2 it is (q - p) / T."""
    numbers = [float(value) for value in re.findall(r"([0-9.]+) at T = ", whole["measured"]["A9"])]
    logits = settings._teacher_logits().double()
    for temperature, size_said in zip((1, 2, 4, 8, 16), numbers, strict=True):
        p = (logits / temperature).softmax(1)
        by_hand = (
            temperature * (p - 1 / 10).norm(dim=1).mean().item()
        )  # a student at its start says nearly 1/10
        assert size_said == pytest.approx(by_hand, rel=0.15)


def test_work_of_imagenet_is_counted():
    from kdlib.audit import _counts

    days = float(re.search(r"takes ([0-9.]+) days", _counts.days_a_pass(1.814, 0.301))[1])
    assert days == pytest.approx(1_281_167 * (1.814 + 0.903) * 1e9 / 50e9 / 86400, abs=0.05)


# --- what a reader sees


def test_html_shows_every_text_and_escapes_it(whole):
    rows = whole.head(2).copy()
    rows.loc[rows.index[0], ["claim", "needs", "by"]] = ["<script>alert('1 & 2')</script>", 'a "b"', "<i>"]
    shown = audit.as_html(rows)
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&amp; 2" in shown and "<i>" not in shown
    for text in rows[["claim", "needs", "measured", "verdict", "by"]].to_numpy().flatten():
        assert html.escape(text) in shown
    assert int(re.search(r"font-size:(\d+)px", shown)[1]) >= 14
    assert shown.count('scope="row"') == 2 and shown.count('scope="col"') == 6
    with pytest.raises(ValueError, match="lack measured"):
        audit.as_html(rows.drop(columns="measured"))


def test_every_verdict_has_a_mark_and_a_line_of_its_own(whole):
    from kdlib.audit import _board

    for marks in (_board._MARKS, _board._LINES):
        assert set(marks) == set(audit.VERDICTS) and len(set(marks.values())) == len(audit.VERDICTS)
    for verdict in audit.VERDICTS:
        shown = audit.as_html(whole[whole["verdict"] == verdict])
        assert f"{_board._MARKS[verdict]}&nbsp;{verdict}" in shown


def test_the_board_filters_by_verdict_and_topic(whole):
    board = audit.board()
    (by_verdict, by_topic), (count, shown) = board.children[0].children, board.children[1:]
    assert list(by_verdict.options) == ["all", *audit.VERDICTS]
    assert list(by_topic.options) == ["all", *audit.TOPICS]
    assert all(isinstance(widget, ipywidgets.Dropdown) for widget in (by_verdict, by_topic))
    assert shown.value == audit.as_html(whole) and f"{len(whole)} of {len(whole)} claims" in count.value
    by_verdict.value = audit.HOLDS
    assert shown.value == audit.as_html(audit.table(verdict=audit.HOLDS))
    by_topic.value = "size"
    rows = audit.table(verdict=audit.HOLDS, topic="size")
    assert shown.value == audit.as_html(rows) and f"{len(rows)} of {len(whole)} claims" in count.value
    by_verdict.value = "all"
    assert shown.value == audit.as_html(audit.table(topic="size"))


def test_where_there_is_no_kernel_the_board_says_what_it_is(whole):
    words = audit.board(without=["A1"])._repr_mimebundle_()["text/plain"]
    assert words.startswith(f"{len(whole) - 1} claims behind two choices") and "JupyterLab" in words


# --- the command


def test_the_command_prints_claims(capsys, whole):
    assert cli.main(["audit", "A1", "d2"]) == 0
    said = capsys.readouterr().out
    assert "4,275,594" in said and whole["claim"]["D2"] in said and "kdlib audit A1" in said
    assert audit.FAILS in said and said.count("measured") == 2
    assert cli.main(["audit"]) == 0
    assert capsys.readouterr().out.count("\n  claim ") == len(whole)


def test_the_command_refuses_an_unknown_number(capsys):
    assert cli.main(["audit", "A1", "Z9"]) == 2
    output = capsys.readouterr()
    assert "'Z9'" in output.err and not output.out


MODULES = (accuracy, code, settings, size, speed, tasks, training)


def test_every_verdict_but_untested_is_decided_in_its_function():
    """A function that returns a verdict as a constant, other than that nothing can be tested, decides nothing."""
    for module in MODULES:
        source = Path(module.__file__).read_text(encoding="utf-8")
        constants = re.findall(r"return Finding\((HOLDS|IN_PART|FAILS),", source)
        assert not constants or module is code, (module.__name__, constants)
    assert re.findall(r"return Finding\((HOLDS|IN_PART|FAILS),", Path(code.__file__).read_text(encoding="utf-8")) == [
        "FAILS", "HOLDS",
    ]  # fmt: skip  # `runs`: an error, or none
