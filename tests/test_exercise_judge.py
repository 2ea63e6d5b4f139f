"""The judge on answers of any kind: it says what is wrong in words, and never raises."""

import math
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from kdlib.lesson import exercises
from kdlib.lesson.exercises import _core, _observe, _source


def double(x):
    """Twice x."""
    # --- your code
    return 2 * x
    # --- end


def add_one(x):
    # --- your code
    return x + 1
    # --- end


def area():
    """How many squares has a chess board?"""
    # --- your code
    return 8 * 8
    # --- end


CASES = [(torch.tensor([1.0, -2.0]),), (torch.tensor([3.0, 5.0]),)]
DOUBLE = _core.Exercise(
    solve=double,
    cases=lambda: CASES,
    hints=["Twice.", "Times two.", "2 * x"],
    mistakes={"squared, not doubled": lambda x: x**2},
)


@pytest.fixture
def small_exercises(monkeypatch):
    repair = _core.Exercise(add_one, DOUBLE.cases, DOUBLE.hints, {}, start=double)
    value = _core.Exercise(area, lambda: [()], DOUBLE.hints, {"one side only": lambda: 8})
    monkeypatch.setattr(exercises, "get", {"double": DOUBLE, "add_one": repair, "area": value}.__getitem__)


def forever(x):
    return forever(x)


def in_place(x):
    x *= 2
    return x


def unfinished_line(x):
    loss = ...
    return 2 * loss


def not_implemented(x):
    raise NotImplementedError


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


def raises(error):
    def answer(x):
        raise error

    return answer


# What an answer is, the verdict on it, and words of that verdict.
ANSWERS = [
    (lambda x: x + x, "correct", "all 2 inputs"),
    (lambda x: (2 * x).double().numpy(), "correct", ""),
    (lambda x, factor=2: factor * x, "correct", ""),
    (lambda x: print("noise") or 2 * x, "correct", ""),
    (lambda x: None, "not done yet", "return"),
    (lambda x: ..., "not done yet", "return"),
    (unfinished_line, "not done yet", "..."),
    (not_implemented, "not done yet", ""),
    (None, "not done yet", "Replace"),
    (..., "not done yet", "Replace"),
    (lambda x: x**2, "not yet right", "Squared, not doubled"),
    (lambda x: 6 * x, "not yet right", "3 times the right result"),
    (lambda x: x, "not yet right", "0.5 times"),
    (lambda x: 2 * x + torch.tensor([0.0, 1.0]), "not yet right", "contains -3 where -4 should be"),
    (lambda x: 2 * x * torch.nan, "not yet right", "nan"),
    (lambda x: 2 * x[:1], "not yet right", "of shape (1,); it should be of shape (2,)"),
    (lambda x: 2.0, "not yet right", "a single number; it should be of shape (2,)"),
    (lambda x: (x, x), "not yet right", "2 values where one value"),
    (lambda x: "text", "not yet right", "is a str"),
    (lambda x: {1, 2}, "not yet right", "is a set"),
    (lambda x: x if x[0] > 2 else None, "not yet right", "It returns nothing for x of shape (2,)"),
    (lambda x: 1 / 0, "not yet right", "ZeroDivisionError: division by zero"),
    (lambda x: undefined, "not yet right", "NameError"),
    (raises(SystemExit(1)), "not yet right", "SystemExit"),
    (raises(Unprintable()), "not yet right", "Unprintable"),
    (lambda x: 10**400, "not yet right", "OverflowError"),
    (lambda: 1, "not yet right", "called as double(x), but yours takes ()"),
    (lambda x, y: 1, "not yet right", "yours takes (x, y)"),
    (forever, "not yet right", "calls itself without end"),
    (in_place, "not yet right", "changes its inputs in place"),
    (torch.tensor(4.0), "not yet right", 'check("double", double)'),
]


def test_verdict_on_answers_of_any_kind(small_exercises, capsys, recwarn):
    for number, (answer, status, words) in enumerate(ANSWERS):
        verdict = exercises.check("double", answer)
        assert verdict.status == status and words in verdict.message, (number, verdict)
        assert verdict.passed == bool(verdict) == (status == "correct"), number
        assert capsys.readouterr() == ("", "") and not recwarn.list, number
        assert torch.equal(CASES[0][0], torch.tensor([1.0, -2.0])), number


def test_an_input_that_contains_nan_is_not_taken_for_changed_unless_it_is(small_exercises):
    def replaced(x):
        x[1] = 0.0
        return x.isnan()

    given = torch.tensor([1.0, float("nan")])
    for function, changed in [(torch.isnan, False), (replaced, True), (torch.Tensor.clone, False)]:
        assert _observe.observe(_core.call, function, (given,)).changed_input == changed
    assert _observe.observe(_core.call, lambda x: x.resize_(1).sum(), (given,)).changed_input


def endless(x):
    while True:
        try:
            x = x + 1
        except Exception:
            continue


@pytest.mark.skipif(not hasattr(signal, "SIGVTALRM"), reason="this system has no timer of computing time")
def test_endless_loop_gets_a_verdict_and_leaves_no_timer_behind(small_exercises, monkeypatch):
    monkeypatch.setattr(_observe, "SECONDS", 0.2)
    verdict = exercises.check("double", endless)
    assert verdict.status == "not yet right" and "no end" in verdict.message
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGVTALRM"), reason="this system has no timer of computing time")
def test_an_import_is_neither_counted_nor_cut_off(small_exercises, monkeypatch, tmp_path):
    """The first optimizer of a process imports torch._dynamo, which takes seconds: half of it would stay behind."""
    slow = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end:\n    pass\ncomplete = True\n"
    (tmp_path / "slow_to_load.py").write_text(slow, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_observe, "SECONDS", 0.5)

    def importing(x):
        import slow_to_load

        assert slow_to_load.complete
        return double(x)

    def importing_and_endless(x):
        importing(x)
        return endless(x)

    assert exercises.check("double", importing).passed
    sys.modules.pop("slow_to_load")
    assert "no end" in exercises.check("double", importing_and_endless).message
    assert sys.modules.pop("slow_to_load").complete


def test_outside_the_main_thread_answers_are_judged_as_well(small_exercises):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(exercises.check, "double", double).result().passed


def test_answer_cannot_disturb_the_notebooks_random_numbers_or_gradients():
    def meddler(logits, temperature):
        torch.manual_seed(7)
        torch.set_grad_enabled(False)
        return torch.softmax(logits / temperature, -1)

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert exercises.check("soften", meddler).passed
    assert torch.equal(torch.rand(3), expected) and torch.is_grad_enabled()


def test_code_to_repair_is_not_done_yet_until_it_behaves_differently(small_exercises):
    assert exercises.check("add_one", lambda x: x + x).status == "not done yet"
    assert exercises.check("add_one", lambda x: x + 2).status == "not yet right"
    assert exercises.check("add_one", lambda x: 1 + x).passed


def test_value_exercise_takes_a_value(small_exercises):
    for status, answers in {
        "correct": [64, 64.0, np.int64(64), torch.tensor(64), lambda: 64],
        "not done yet": [..., None],
        "not yet right": [8, 65, "64", math.nan],
    }.items():
        for answer in answers:
            assert exercises.check("area", answer).status == status, answer


def test_value_exercise_is_an_assignment_under_its_question():
    question = "# How many squares has a chess board?\n"
    assert _source.stub(area) == question + "area = ...  # your answer"
    assert _source.solution(area) == question + "area = 8 * 8"


def test_a_stub_keeps_what_is_given_around_the_regions_and_returns_where_they_do():
    def counter(start):
        """Counts on."""

        class Counter:
            def __init__(self):
                # --- your code
                self.number = start
                # --- end

            def __call__(self, step):
                # --- your code
                self.number += step
                return self.number
                # --- end

        return Counter()

    stub, solved = _source.stub(counter), _source.solution(counter)
    given = [line for line in stub.splitlines() if "..." not in line]
    assert [line.strip() for line in stub.splitlines() if "..." in line] == [
        "...  # your code here",
        "return ...  # your code here",
    ]
    assert set(given) < set(solved.splitlines()) and given[0] == "def counter(start):"
    assert given[-1] == "    return Counter()"
    namespace = {}
    exec(solved, namespace)  # noqa: S102 - the text under test is code
    assert namespace["counter"](3)(4) == 7


def test_a_function_without_a_whole_region_is_refused():
    def unmarked(x):
        return x

    def half_marked(x):
        # --- your code
        return x

    def marked_and_half(x):
        # --- your code
        x = 2 * x
        # --- end
        # --- your code
        return x

    for function in (unmarked, half_marked, marked_and_half):
        with pytest.raises(
            ValueError, match=f"{function.__name__}: there must be a region from '# --- your code' to"
        ):
            _source.stub(function)


def test_in_place_change_of_the_students_logits_is_seen():
    def answer(student, teacher, labels, T, alpha):
        return exercises.get("kd_loss").solve(student.mul_(1.5), teacher, labels, T, alpha)

    assert "in place" in exercises.check("kd_loss", answer).message


def test_not_a_number_and_infinity_count_as_the_same_overflow():
    nan, infinite = (
        _observe.Outcome({"result": torch.tensor([1.0, value])}) for value in (math.nan, math.inf)
    )
    assert _observe.agree(nan, infinite, 1e-4)
    assert not _observe.agree(nan, _observe.Outcome({"result": torch.tensor([1.0, 2.0])}), 1e-4)


def test_a_search_that_is_too_coarse_is_told_how_far_it_is_off_and_not_that_a_factor_is_missing(monkeypatch):
    coarse = _core.Exercise(double, DOUBLE.cases, DOUBLE.hints, {}, tolerance=0.01)
    monkeypatch.setattr(exercises, "get", {"double": coarse}.__getitem__)
    assert exercises.check("double", lambda x: 2.01 * x).passed
    message = exercises.check("double", lambda x: 2.058 * x).message
    assert "-4.116 where -4 should be, which is 2.9 % off (allowed: 1 %)" in message
    assert exercises.check("double", lambda x: 6 * x).message.startswith("It is 3 times the right result")
    assert "off" not in exercises.check("double", lambda x: 2 * x + torch.tensor([0.0, 5.0])).message


def test_a_missing_property_is_named_and_the_input_with_it_where_only_some_miss_it(monkeypatch):
    def what_it_lacks(function, x):
        result = function(x)
        if (result * x < 0).any():
            raise _observe.Complaint("the sign is lost")
        if (result.abs() < x.abs()).any():
            raise _observe.Complaint("it shrinks")
        return len(result)

    mistakes = {"the sign is lost": lambda x: -x, "it shrinks": lambda x: x / 2}
    grow = _core.Exercise(double, DOUBLE.cases, DOUBLE.hints, mistakes, probe=what_it_lacks)
    monkeypatch.setattr(exercises, "get", {"double": grow}.__getitem__)
    answers = {
        (lambda x: 5 * x): "Right on all 2 inputs.",
        (lambda x: x / 3): "It shrinks.",
        (lambda x: -3 * x): "The sign is lost.",
        (lambda x: x if x[0] > 2 else -x): "The sign is lost. That was seen for x of shape (2,).",
        (lambda x: x / 0 if x[0] > 2 else x[3]): "It stops with 'IndexError",
    }
    for answer, message in answers.items():
        verdict = exercises.check("double", answer)
        assert verdict.message.startswith(message) and verdict.passed == message.startswith("Right"), verdict
        assert (verdict.diagnosis is None) == (verdict.message[:-1] not in ("It shrinks", "The sign is lost"))


def test_a_stub_imports_nothing_under_the_name_of_a_parameter():
    """`logits` is a parameter of `soften` and a helper in its module: the stub must leave the notebook's own alone."""
    for name in exercises.names():
        for source in (exercises.get(name).stub_source(), exercises.get(name).solution_source()):
            assert "_inputs import" not in source, name


def test_a_missing_kernel_of_torch_is_a_mistake_and_not_unfinished_work():
    verdict = exercises.check("share_correct", lambda logits, labels: (logits.argmax(dim=1) == labels).mean())
    assert verdict.status == "not yet right"


def test_mine_gives_the_learners_function_where_it_is_right_and_says_so(small_exercises, capsys):
    def own(x):
        return x + x

    assert exercises.mine("double", own) is own
    assert capsys.readouterr().out == "From here on: your double.\n"
    assert exercises.mine("area", 64) == 64
    assert capsys.readouterr().out == "From here on: your area.\n"


def test_mine_gives_the_solution_where_the_answer_is_not_right_and_says_why(small_exercises, capsys):
    said = "From here on: the solution's {}, because yours is {}.\n"
    for answer, status in [
        (lambda x: ..., "not done yet"),
        (..., "not done yet"),
        (lambda x: 3 * x, "not yet right"),
        (7, "not yet right"),
        (lambda x: 1 / 0, "not yet right"),
    ]:
        assert exercises.mine("double", answer) is double
        assert capsys.readouterr().out == said.format("double", status)
    assert exercises.mine("area", 8) == 64
    assert capsys.readouterr().out == said.format("area", "not yet right")


def test_mine_refuses_the_name_of_no_exercise():
    with pytest.raises(ValueError, match="unknown exercise 'sotfen'"):
        exercises.mine("sotfen", double)
