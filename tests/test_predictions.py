"""Predictions are open when asked, follow a click, and are judged by what was measured."""

import numpy as np
import pytest

from kdlib.lesson.predictions import UNDECIDED, predict
from kdlib.metrics import Interval

GAIN = {
    "it gets worse": (None, 0),
    "up to one point": (0, 1),
    "one to three points": (1, 3),
    "more": (3, None),
}


def gain(choice=None):
    prediction = predict("What does it add?", GAIN)
    prediction.choice = choice
    return prediction


def test_nothing_is_chosen_until_somebody_chooses():
    prediction = predict("What does it add?", GAIN)
    buttons = prediction.children[1]
    assert prediction.choice is None and buttons.index is None and list(buttons.options) == list(GAIN)
    buttons.value = "more"
    assert prediction.choice == "more"
    prediction.choice = None
    assert buttons.value is None


def test_a_choice_that_is_no_option_is_refused_and_changes_nothing():
    prediction = gain("more")
    with pytest.raises(ValueError, match="choice='less' is not one of \"it gets worse\""):
        prediction.choice = "less"
    assert prediction.choice == "more"


def test_a_page_without_a_kernel_shows_question_and_answers_whole():
    long = "Why? " * 40
    prediction = predict(long, {"yes": (None, 0), "no": (0, None)})
    assert prediction._repr_mimebundle_()["text/plain"] == f"Predict. {long}\n  ( ) yes\n  ( ) no"


def test_without_a_choice_the_comparison_says_what_was_measured_and_judges_nothing():
    comparison = gain().compare(Interval(0.016, 0.013, 0.019))
    assert comparison.decided and comparison.verdict is None
    assert repr(comparison) == (
        "You predicted: nothing\n"
        "Measured:      +1.6 points [+1.3, +1.9]\n"
        "Answer:        one to three points (1 to below 3 points)"
    )


def test_the_verdict_is_right_near_or_wrong_by_the_distance_of_the_options():
    verdicts = {
        "it gets worse": (
            "wrong",
            "Wrong:         your answer is below 0 points, and it lies above that, further",
        ),
        "up to one point": (
            "near",
            "Near:          your answer is 0 to below 1 points, and it lies above that, in the",
        ),
        "one to three points": (
            "right",
            "Right:         your answer is 1 to below 3 points, and there it lies.",
        ),
        "more": (
            "near",
            "Near:          your answer is 3 points or more, and it lies below that, in the option",
        ),
    }
    for choice, (verdict, reason) in verdicts.items():
        comparison = gain(choice).compare((0.016, 0.013, 0.019))
        assert comparison.verdict == verdict, choice
        first, *_, last = repr(comparison).splitlines()
        assert first == f"You predicted: {choice}" and last.startswith(reason), repr(comparison)


def test_an_interval_across_a_border_is_undecided_and_both_sides_are_right():
    measured = (0.009, 0.002, 0.016)
    expected = {
        "it gets worse": "near",
        "up to one point": "right",
        "one to three points": "right",
        "more": "near",
    }
    for choice, verdict in expected.items():
        comparison = gain(choice).compare(measured)
        assert not comparison.decided and comparison.verdict == verdict, choice
        between = 'the interval lies between "up to one point" and "one to three points"; both count as right'
        assert f"{UNDECIDED}: {between}" in repr(comparison)
    assert "the interval reaches there" in repr(gain("up to one point").compare(measured))


def test_an_interval_across_three_options_names_all_of_them():
    comparison = gain("it gets worse").compare((0.005, -0.01, 0.02))
    assert comparison.verdict == "right"
    assert '"it gets worse", "up to one point" and "one to three points"; all of them' in repr(comparison)


def test_a_comparison_keeps_the_choice_that_stood_when_it_was_made():
    prediction = gain("more")
    comparison = prediction.compare(0.04)
    prediction.choice = "up to one point"
    assert comparison.predicted == "more" and comparison.verdict == "right"


def test_a_value_on_a_border_belongs_to_the_option_above_it_and_the_last_end_to_the_last_option():
    counts = {"none": (0, 1), "a few": (1, 5), "most": (5, 9)}
    for measured, answer in {0: "none", 1: "a few", 4: "a few", 5: "most", 9: "most"}.items():
        comparison = predict("How many?", counts, unit="of 9").compare(measured)
        assert comparison.answers == [answer] and comparison.decided, measured
    assert gain().compare(0.01).answers == ["one to three points"]
    assert "(1 to below 5 of 9)" in repr(predict("How many?", counts, unit="of 9").compare(4))
    assert "(5 to 9 of 9)" in repr(predict("How many?", counts, unit="of 9").compare(9))
    halves = predict("Which share?", {"less": (0, 29), "more": (29, 100)}, unit="%")
    assert 100 * 0.29 < 29 and halves.compare(0.29).answers == ["more"]  # not decided by a rounding error


def test_numbers_are_written_in_their_unit():
    halves = {"less": (None, 0.5), "more": (0.5, None)}
    written = {
        ("points", 0.0161): "+1.6 points", ("points", -0.02): "-2.0 points", ("%", 0.8123): "81.2 %",
        ("times", 3.14159): "3.14 times", ("of 25 cells", 17): "17 of 25 cells", ("", 0.123456): "0.123",
        ("", 12345.6): "12,346", ("nats", (0.2, 0.15, 0.25)): "0.2 nats [0.15, 0.25]",
    }  # fmt: skip
    for (unit, measured), words in written.items():
        lines = repr(predict("How much?", halves, unit=unit).compare(measured)).splitlines()
        assert lines[1] == f"Measured:      {words}", (unit, measured)


def test_numbers_of_numpy_and_torch_style_intervals_are_taken():
    for measured in (np.float32(0.02), np.array([0.02, 0.015, 0.025]), [0.02, 0.015, 0.025]):
        assert gain().compare(measured).answers == ["one to three points"], measured


def test_a_measurement_that_cannot_be_judged_is_refused():
    bounded = predict("Which share?", {"half": (0, 50), "more": (50, 100)}, unit="%")
    for measured in (-0.01, 1.01, (0.99, 0.9, 1.01)):
        with pytest.raises(ValueError, match="reaches outside of all options, which cover 0 to 100 %"):
            bounded.compare(measured)
            pytest.fail(f"accepted: {measured}")
    impossible = (
        float("nan"),
        float("inf"),
        (0.1, 0.2, 0.3),
        (0.3, 0.1, 0.2),
        (0.1, 0.2),
        "much",
        None,
        ("a", "b", "c"),
    )
    for measured in impossible:
        with pytest.raises(ValueError, match="measured="):
            bounded.compare(measured)
            pytest.fail(f"accepted: {measured}")


def test_ranges_that_do_not_join_in_ascending_order_are_refused_and_the_fault_is_named():
    faults = [
        ({"a": (None, 0), "b": (1, None)}, "'a' is .* a gap between 0 and 1"),
        ({"a": (0, 2), "b": (1, 3)}, "'b' after it .* an overlap between 2 and 1"),
        (
            {"a": (1, 2), "b": (0, 1)},
            "'a' is .1, 2. and 'b' after it .0, 1.: they must be in ascending order",
        ),
        ({"a": (0, None), "b": (None, 0)}, "'a'.*only the first low and the last high may be None"),
        ({"a": (0, 1), "b": (None, 2)}, "'b'.*only the first low and the last high may be None"),
        ({"a": (1, 1), "b": (1, 2)}, "'a'.*low must be smaller than high"),
        ({"a": (0, 1), "b": (1, 0.5)}, "'b'.*low must be smaller than high"),
        ({"a": (0, 1), "b": 2}, r"'b'\]=2 must be a range"),
        ({"a": (0, 1), "b": (1, 2, 3)}, r"'b'.*must be a range"),
        ({"a": (0, float("nan")), "b": (1, 2)}, "'a'.*nan is not a finite number"),
        ({"a": (0, "1"), "b": (1, 2)}, "'a'.*'1' is not a finite number"),
        ({"only": (None, None)}, "at least two answers"),
        ({}, "at least two answers"),
    ]
    for options, fault in faults:
        with pytest.raises(ValueError, match=fault):
            predict("Why?", options)
            pytest.fail(f"accepted: {options}")


def test_options_without_ranges_and_a_unit_that_is_no_word_are_refused():
    with pytest.raises(TypeError, match="must be a dict"):
        predict("Why?", ["yes", "no"])
    with pytest.raises(TypeError, match="unit=None must be a string"):
        predict("Why?", GAIN, unit=None)


def test_a_question_that_is_asked_again_keeps_the_choice_and_another_question_has_none():
    options = {"less": (None, 0), "more": (0, None)}
    predict("Is it kept?", options).choice = "more"
    assert predict("Is it kept?", options).choice == "more"
    assert predict("Is it kept?", {"few": (None, 0), "many": (0, None)}).choice is None
    assert predict("And here?", options).choice is None
