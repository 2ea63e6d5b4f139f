"""Which profile a lesson runs in."""

import pytest

from kdlib.lesson import profiles


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("KDLIB_PROFILE", raising=False)


def test_lesson_where_nothing_is_said():
    assert profiles.get().name == "lesson"


def test_variable_where_no_argument_is_given(monkeypatch):
    monkeypatch.setenv("KDLIB_PROFILE", "ci")
    assert profiles.get().name == profiles.get(None).name == "ci"


def test_argument_before_variable(monkeypatch):
    monkeypatch.setenv("KDLIB_PROFILE", "ci")
    assert profiles.get("full").name == "full"


def test_empty_variable_counts_as_none(monkeypatch):
    monkeypatch.setenv("KDLIB_PROFILE", "")
    assert profiles.get().name == "lesson"


def test_same_cell_twice_gives_the_same_profile():
    profile = profiles.get("ci")
    assert profiles.get(profile) is profile


def test_unknown_argument_is_named_with_its_origin_and_the_allowed():
    for name in ("", "CI", "fast"):
        message = f"{name!r} from the argument `profile`; allowed: ci, lesson, full"
        with pytest.raises(ValueError, match=message):
            profiles.get(name)
            pytest.fail(f"accepted: {name!r}")


def test_unknown_variable_is_named_with_its_origin(monkeypatch):
    monkeypatch.setenv("KDLIB_PROFILE", "fast")
    with pytest.raises(
        ValueError, match="'fast' from the environment variable KDLIB_PROFILE; allowed: ci, lesson"
    ):
        profiles.get()


def test_choose_takes_the_value_of_the_profile():
    for name, chosen in {"ci": 1, "lesson": 10, "full": 30}.items():
        assert profiles.get(name).choose(ci=1, lesson=10, full=30) == chosen, name


def test_choose_wants_all_three():
    with pytest.raises(TypeError, match="full"):
        profiles.get("ci").choose(ci=1, lesson=10)
