"""Predictions run headless, follow a click and read well on paper."""

import pytest

from kdlib.lesson.predictions import predict


def test_the_default_stands_until_somebody_chooses():
    prediction = predict("Does it help?", "yes", "no", default="no")
    assert prediction.choice == "no"
    prediction.children[1].value = "yes"
    assert prediction.choice == "yes"
    assert repr(prediction.compare("it does")) == "You predicted: yes\nMeasured:      it does"


def test_a_page_without_a_kernel_shows_question_and_answers():
    assert repr(predict("Does it help?", "yes", "no")) == "Predict. Does it help?\n  ( ) yes\n  ( ) no"


def test_a_long_question_is_shown_whole():
    prediction = predict("Why? " * 40, "yes", "no")
    assert prediction._repr_mimebundle_()["text/plain"] == repr(prediction)


def test_a_question_needs_different_answers():
    for options in (["only"], ["same", "same"]):
        with pytest.raises(ValueError, match="at least two different"):
            predict("Why?", *options)
            pytest.fail(f"accepted: {options}")


def test_a_default_is_one_of_the_answers():
    with pytest.raises(ValueError, match="'maybe' is not one of"):
        predict("Why?", "yes", "no", default="maybe")
