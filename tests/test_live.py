"""Live curves: how often a picture is made, and what is left at the end."""

import math

import pytest

from kdlib.lesson import live


@pytest.fixture
def shown(monkeypatch):
    """What is displayed in a notebook, as the keyword arguments of display with its data."""
    outputs = []

    def display(data, **rest):
        outputs.append({"data": data, **rest})
        return type("Handle", (), {"display_id": "place"})()

    for module in (live, live.figures):
        monkeypatch.setattr(module, "display", display)
    monkeypatch.setattr(live, "get_ipython", lambda: object())
    return outputs


def pictures_of(seconds: list[float]) -> list[bytes]:
    """The pictures on the page after an update at each of these times."""
    times = iter(seconds)
    curve = live.Curve(len(seconds), watched=True, clock=lambda: next(times))
    pictures = []
    for step in range(1, len(seconds) + 1):
        curve.update(step, loss=1 / step)
        pictures.append(curve.image.value)
    return pictures


def test_pictures_are_made_four_times_a_second_at_most(shown):
    pictures = pictures_of([0, 0.1, 0.2, 0.26, 0.3, 0.55])
    assert pictures[0] == pictures[1] == pictures[2] != pictures[3] == pictures[4] != pictures[5]
    assert len(shown) == 1  # the picture is replaced in place, not displayed anew


def test_the_still_figure_takes_the_place_of_the_live_one(shown):
    curve = live.Curve(10, "Student", watched=True)
    curve.update(1, loss=2.5, task=2.0)
    curve.update(10, loss=0.5, task=0.25)
    curve.close()
    curve.close()
    live_picture, still, caption, data = shown
    assert live_picture["display_id"] is True
    assert still["display_id"] == "place" and still["update"] and "image/png" in still["data"]
    summary = "Student: 10 of 10 steps, loss 2.500 to 0.500, task 2.000 to 0.250"
    assert caption["data"]["text/markdown"] == f"*Figure: {summary}*"
    assert '<th scope="row">10<td>0.5<td>0.25' in data["data"]["text/html"]


def test_where_nobody_watches_there_is_only_the_still_figure(shown):
    curve = live.Curve(10)
    for step in range(1, 11):
        curve.update(step, loss=1 / step)
    assert not shown and curve.image is None
    curve.close()
    assert [next(iter(output["data"])) for output in shown] == ["image/png", "text/markdown", "text/html"]


def test_a_terminal_gets_one_line(capsys):
    curve = live.Curve(10)
    curve.update(3, loss=1.0)
    curve.close()
    assert capsys.readouterr().out == "Training: 3 of 10 steps, loss 1.000 to 1.000\n"


def test_any_values_can_be_drawn(shown):
    for values in ([], [math.nan], [math.inf, 1.0], [0.0], [5.0, 1.0] * 1000):
        shown.clear()
        curve = live.Curve(max(1, len(values)), watched=True)
        for step, value in enumerate(values, start=1):
            curve.update(step, loss=value)
        curve.close()
        pictures = [output["data"] for output in shown if isinstance(output["data"], dict)]
        assert any("image/png" in data for data in pictures), values[:2]


def test_a_curve_refuses_what_cannot_work(capsys):
    with pytest.raises(ValueError, match="total_steps=0"):
        live.Curve(0)
    curve = live.Curve(10)
    with pytest.raises(ValueError, match="step=11 lies outside 0 to total_steps=10"):
        curve.update(11, loss=1.0)
    curve.close()
    with pytest.raises(ValueError, match="after close"):
        curve.update(5, loss=1.0)


def test_progress_draws_records_and_closes_itself(capsys):
    report = live.progress("Student")
    for step in range(1, 5):
        report({"epoch": 1, "step": step, "steps": 4, "loss": 1 / step, "task": 0.5, "distill": None})
    assert capsys.readouterr().out == "Student: 4 of 4 steps, loss 1.000 to 0.250, task 0.500 to 0.500\n"
    report({"epoch": 1, "step": 1, "steps": 9, "loss": 3.0, "task": 3.0, "distill": None})
    report.close()
    assert capsys.readouterr().out == "Student: 1 of 9 steps, loss 3.000 to 3.000, task 3.000 to 3.000\n"
