"""Every exercise of lessons 00 to 10 with answers that learners might give: wrong ones are told what they are."""

import importlib

import pytest
from answers import Answers, designs

from kdlib.lesson import exercises

pytestmark = pytest.mark.usefixtures("one_thread")
LESSONS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11")


def answers_of(lesson: str) -> dict[str, Answers]:
    """Those of its file, and for its open experiments the designs that are wrong or right for all of these."""
    answers = importlib.import_module(f"answers.lesson{lesson}").ANSWERS
    asked = [name for name in exercises.names() if exercises.get(name).lesson == lesson]
    assert set(answers) == {name for name in asked if not exercises.get(name).is_open}, (
        f"answers/lesson{lesson}.py"
    )
    return {name: answers.get(name, Answers(designs.WRONG, designs.RIGHT)) for name in asked}


def test_each_exercise_has_five_wrong_and_two_right_answers_and_each_lesson_an_open_experiment():
    for lesson in LESSONS:
        assert any(exercises.get(name).is_open for name in answers_of(lesson)), lesson
        for name, (wrong, right) in answers_of(lesson).items():
            assert len(wrong) >= 5 and len(set(wrong.values())) == len(wrong), name
            assert len(right) >= 2 and len(set(right)) == len(right), name


def test_each_wrong_answer_is_told_what_is_wrong_with_it():
    for lesson in LESSONS:
        for name, answers in answers_of(lesson).items():
            for words, answer in answers.wrong.items():
                verdict = exercises.check(name, answer)
                assert not verdict.passed and words.lower() in verdict.message.lower(), (name, words, verdict)


def test_each_right_answer_is_correct_however_it_is_written():
    for lesson in LESSONS:
        for name, answers in answers_of(lesson).items():
            for number, answer in enumerate(answers.right):
                verdict = exercises.check(name, answer)
                assert verdict.passed, (name, number, verdict)
