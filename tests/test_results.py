"""Recorded results: written whole or not at all, read back exactly, refused where they are damaged."""

import json
import re

import numpy
import pandas
import pytest

from kdlib import cli
from kdlib.lesson import results


@pytest.fixture(autouse=True)
def empty_house(tmp_path, monkeypatch):
    """A folder and a registry of the test's own."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "_registry", {})
    monkeypatch.setattr(results.experiments, "__path__", [])
    return tmp_path / "results"


@pytest.fixture
def table() -> pandas.DataFrame:
    random = numpy.random.default_rng(0)
    return pandas.DataFrame(
        {
            "method": ["labels", "none", 'nan, "quoted"'],
            "seed": [0, 1, 2],
            "accuracy": random.random(3) / 3,
            "gap": [numpy.inf, numpy.nan, -1e-300],
            "kept": [True, False, True],
        }
    )


@pytest.fixture
def gain(table):
    @results.experiment("lesson99-gain")
    def gain(seeds=range(3)):
        """What a teacher adds.

        More about it.
        """
        return table[table.seed.isin(seeds)]

    return gain


def test_a_table_is_read_back_exactly_with_its_manifest(gain, table):
    [manifest] = results.record("lesson99-gain")
    frame = results.read("lesson99-gain")
    pandas.testing.assert_frame_equal(frame, table, check_exact=True)
    assert frame.attrs == manifest
    assert manifest["command"] == "kdlib record lesson99-gain"
    assert manifest["rows"] == 3
    assert manifest["columns"] == list(table.columns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", manifest["date"])
    assert set(manifest["versions"]) == {"kdlib", "python", "torch"}
    assert manifest["machine"]["cores"] >= 1


def test_the_decorator_hands_the_function_back(gain):
    assert len(gain(seeds=[1])) == 1
    assert results.registered() == {"lesson99-gain": gain}


def test_provenance_is_one_readable_line(gain):
    results.record(["lesson99-gain"])
    path = results.FOLDER / "lesson99-gain.json"
    facts = json.loads(path.read_text())
    facts |= {"date": "2026-11-05", "seconds": 754.2, "rows": 1300}
    facts["machine"]["cores"] = 2
    path.write_text(json.dumps(facts))
    expected = "Recorded on 2026-11-05 with `kdlib record lesson99-gain` (1,300 rows, 13 minutes on 2 cores)"
    assert results.provenance("lesson99-gain") == expected


def test_duration_has_a_fitting_unit():
    for seconds, words in {1.4: "1 seconds", 89: "89 seconds", 120: "2 minutes", 7200: "2.0 hours"}.items():
        assert results._duration(seconds) == words


def test_line_ends_of_windows_do_not_count_as_damage(gain, table):
    results.record("lesson99-gain")
    path = results.FOLDER / "lesson99-gain.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    pandas.testing.assert_frame_equal(results.read("lesson99-gain"), table)


def test_a_changed_or_missing_table_is_refused(gain):
    results.record("lesson99-gain")
    path = results.FOLDER / "lesson99-gain.csv"
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole.replace(b"labels", b"Labels"), None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(ValueError, match="'lesson99-gain' is damaged.*kdlib record lesson99-gain"):
            results.read("lesson99-gain")
            pytest.fail(f"accepted: {damaged}")
        path.write_bytes(whole)
    assert len(results.read("lesson99-gain")) == 3


def test_unknown_names_are_answered_with_the_known_ones(gain):
    with pytest.raises(ValueError, match="'absent'; the names are: lesson99-gain"):
        results.record(["lesson99-gain", "absent"])
    assert results.recorded() == []  # refused before anything ran
    results.record("lesson99-gain")
    for call in (results.read, results.provenance, results.manifest):
        with pytest.raises(ValueError, match="'absent'; the names are: lesson99-gain"):
            call("absent")


def test_a_failing_experiment_leaves_the_old_record(gain, table, monkeypatch):
    results.record("lesson99-gain")
    monkeypatch.setitem(results._registry, "lesson99-gain", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        results.record("lesson99-gain")
    pandas.testing.assert_frame_equal(results.read("lesson99-gain"), table)


def test_what_a_csv_cannot_hold_is_refused():
    for frame, message in (
        (pandas.DataFrame({"a": []}), "must return a table with rows"),
        ({"a": [1]}, "must return a table with rows, got dict"),
        (pandas.DataFrame({"a": [1, 2]}, index=[5, 6]), "does not survive as CSV"),
        (pandas.DataFrame({"a": [(1, 2)]}), "does not survive as CSV"),
    ):
        results.experiment("lesson99-odd")(lambda frame=frame: frame)
        with pytest.raises(ValueError, match=message):
            results.record("lesson99-odd")
            pytest.fail(f"accepted: {frame}")
        assert list(results.FOLDER.iterdir()) == []


def test_names_that_are_no_file_names_are_refused():
    for name in ("", "Lesson 1", "../escape", "a--b", "a.b"):
        with pytest.raises(ValueError, match="small letters, digits and hyphens"):
            results.experiment(name)
            pytest.fail(f"accepted: {name!r}")


def test_two_functions_cannot_share_a_name_but_one_may_be_defined_again(gain):
    results.experiment("lesson99-gain")(gain)  # a module that is reloaded
    with pytest.raises(ValueError, match="two experiments are called 'lesson99-gain'"):
        results.experiment("lesson99-gain")(lambda: None)


def test_an_experiment_runs_without_arguments():
    with pytest.raises(ValueError, match="'seeds' has no default"):
        results.experiment("lesson99-needy")(lambda seeds: None)


def test_experiments_are_found_in_the_modules_of_the_lessons(tmp_path, monkeypatch):
    (tmp_path / "lesson98.py").write_text(
        "import pandas\n"
        "from kdlib.lesson.results import experiment\n"
        "@experiment('lesson98-found')\n"
        "def found():\n"
        "    return pandas.DataFrame({'a': [1]})\n"
    )
    monkeypatch.setattr(results.experiments, "__path__", [str(tmp_path)])
    assert list(results.registered()) == ["lesson98-found"]


def test_the_command_records_and_lists(gain, capsys):
    assert cli.main(["record", "lesson99-gain"]) == 0
    assert "with `kdlib record lesson99-gain` (3 rows" in capsys.readouterr().out
    assert cli.main(["record", "--list"]) == 0
    assert re.search(
        r"lesson99-gain +recorded \d{4}-\d\d-\d\d +What a teacher adds\.$", capsys.readouterr().out
    )


def test_the_command_refuses_an_unknown_or_missing_name(gain, capsys):
    assert cli.main(["record", "absent"]) == 2
    assert "the names are: lesson99-gain" in capsys.readouterr().err
    assert cli.main(["record"]) == 2
    assert "kdlib record --list" in capsys.readouterr().err
