"""Notebooks in a real JupyterLab in a real browser: run, drag, press keys, look.

Each test takes more than five seconds, because a kernel, and once a server and a browser, must start.
"""

import pytest
import sliders
from driver import Notebook
from lab import ROOT

LESSONS = ["01_principle.ipynb"]

PICTURE = """
import numpy as np
from kdlib.lesson import live, widgets

classes = ["ant", "bee", "cat", "dog", "eel"]
logits = np.random.default_rng(0).normal(scale=4, size=(3, 5))
images = np.random.default_rng(0).integers(0, 255, (3, 28, 28), dtype=np.uint8)
labels = [0, 1, 2]
calls = []

def draw(figure):
    axes = figure.subplots()
    axes.set(xlim=(0, 9), ylim=(0, 1))
    (marker,) = axes.plot([], [], "o", markersize=20)

    def update(*, place, height=0.5):
        calls.append(place)
        marker.set_data([place], [height])
        return [marker]

    return update
"""
HERO = 'widgets.temperature_hero(images, logits, labels, classes, caption="Drag T.")'
LOSS = """
loss_hero = widgets.temperature_hero(
    images, logits, labels, classes, student_logits=logits[::-1], alpha=0.5, caption="Drag T and alpha."
)
loss_hero
"""
GRADIENTS = 'widgets.gradient_hero(images, logits[::-1], logits, labels, classes, caption="Drag alpha.")'
THE_LIBRARYS_LOSS = """
import torch
from kdlib import losses

row, T, alpha = loss_hero.selected, loss_hero.temperature, loss_hero.alpha
student, teacher = torch.tensor(logits[::-1].copy()[[row]]), torch.tensor(logits[[row]])
terms = losses.distillation_loss(student, teacher, torch.tensor([labels[row]]), temperature=T, alpha=alpha)
print(*(f"{100 * float(p):.1f}" for pair in zip(*((z[0] / T).softmax(0) for z in (teacher, student))) for p in pair))
print(*(f"{float(v):.2f}" for v in ((1 - alpha) * terms.task, alpha * terms.distill, terms.total)))
"""
EXPLORER = """
long = widgets.slider(0.1, 1, value=0.5, log=True, label="height of the marker above the axis of places")
explorer = widgets.explorer(draw, caption="A marker.", place=widgets.slider(0, 9, value=3), height=long)
explorer
"""
STRIP = 'widgets.strip(draw, caption="A marker.", place=range(10), height=[0.2, 0.8])'
EVERY_WIDGET = [PICTURE, HERO, LOSS, GRADIENTS, EXPLORER, STRIP]
SLOW = """
import time

def slow(figure):
    update_marker = draw(figure)

    def update(*, place):
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            pass  # a drawing that takes longer than the mouse needs from one place to the next
        return update_marker(place=place)

    return update

explorer = widgets.explorer(slow, caption="A slow marker.", place=widgets.slider(0.0, 9.0, value=3))
explorer
"""
TRAINING = """
curve = live.Curve(3)
for step in range(1, 4):
    curve.update(step, loss=1 / step)
curve.close()
"""


def run(notebook: Notebook) -> Notebook:
    notebook.run_all()
    assert notebook.cell_errors() == []
    return notebook


def assert_sound(notebook: Notebook) -> None:
    assert notebook.cell_errors() == []
    assert notebook.collapsed_outputs() == []
    assert notebook.complaints == []


def assert_moves_its_picture(notebook: Notebook, slider) -> None:
    """By mouse and by keyboard, without the output changing its height."""
    name, picture = sliders.label_of(slider), notebook.picture_of(slider)
    assert picture.count() == 1, f"the slider {name!r} stands beside no picture"
    slider.scroll_into_view_if_needed()
    notebook.watch_heights(slider)
    for by, move in {
        "mouse": lambda: sliders.drag(slider, *sliders.far_end(slider)),
        "keyboard": lambda: sliders.press(slider, "ArrowLeft", "ArrowRight", sliders.key_to_far_end(slider)),
    }.items():
        notebook.settle()
        value, before = sliders.value_of(slider), sliders.signature(picture)
        move()
        assert sliders.value_of(slider) != value, f"the {by} does not move the slider {name!r}"
        assert sliders.wait_for_change(picture, before), f"the {by} moves {name!r}, but its picture stays"
    assert len(notebook.heights()) == 1, f"the output of {name!r} changes its height: {notebook.heights()}"


def test_every_slider_moves_its_picture(open_notebook):
    notebook = run(open_notebook(EVERY_WIDGET))
    assert len(notebook.sliders()) == 9
    for slider in notebook.sliders():
        assert_moves_its_picture(notebook, slider)
    assert_sound(notebook)


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_and_its_sliders_move_its_pictures(open_notebook, lesson):
    path = ROOT / "notebooks" / lesson
    if not path.exists():
        pytest.skip(f"{lesson} is not built (tools/build_notebooks.py)")
    notebook = run(open_notebook(path))
    assert notebook.sliders(), "the lesson shows no slider"
    for slider in notebook.sliders():
        assert_moves_its_picture(notebook, slider)
    assert_sound(notebook)


def test_the_loss_in_the_page_is_the_librarys(open_notebook):
    notebook = run(open_notebook([PICTURE, LOSS]))
    hero = notebook.page.locator(".kd-hero")
    notebook.watch_heights(hero)
    for picked, temperature, alpha in ((0, "Home", "End"), (1, "End", "Home"), (2, "PageUp", "ArrowRight")):
        hero.locator(".kd-picker input").nth(picked).check(force=True)
        for slider, key in zip(notebook.sliders(), (temperature, alpha), strict=True):
            sliders.press(slider, key)
        notebook.settle()
        expected = notebook.ask(THE_LIBRARYS_LOSS)
        texts = hero.locator("text").all_text_contents()
        shown = [text.strip("= %") for text in texts if text.endswith(" %") or text.startswith("= ")]
        assert shown == expected.split(), (picked, temperature, alpha)
    assert len(notebook.heights()) == 1
    assert_sound(notebook)


def test_the_kernel_ends_where_the_slider_ends(open_notebook):
    notebook = run(open_notebook([PICTURE, SLOW]))
    (slider,) = notebook.sliders()
    notebook.ask("calls.clear()")
    sliders.drag(slider, 0.33, 0.9, moves=60)
    final = float(sliders.value_of(slider))
    for _ in range(600):  # the last picture may still be on its way
        last = float(notebook.ask("print(calls[-1] if calls else -1)"))
        if last == pytest.approx(final):
            break
        notebook.page.wait_for_timeout(100)
    assert last == pytest.approx(final)
    assert int(notebook.ask("print(len(calls))")) < 30  # what the kernel has no time for is never drawn


def test_an_explorer_tells_the_reader_what_went_wrong(open_notebook):
    failing = 'explorer.image.value = b""\ndef fail(*args): raise ArithmeticError("no such place")\n'
    notebook = run(open_notebook([PICTURE, EXPLORER]))
    notebook.ask(failing + "explorer._figure.png = fail")
    sliders.press(notebook.sliders()[0], "ArrowRight")
    notebook.page.get_by_role("alert").get_by_text("ArithmeticError: no such place").wait_for()


def test_nothing_is_cut_off_at_double_zoom(open_notebook):
    zoomed = {"viewport": {"width": 700, "height": 500}, "device_scale_factor": 2}
    notebook = run(open_notebook(EVERY_WIDGET, **zoomed))
    assert notebook.cut_off() == []
    assert notebook.overlaps() == []
    assert_sound(notebook)


def test_a_live_curve_leaves_one_still_figure(open_notebook):
    notebook = run(open_notebook([PICTURE, "print(live.somebody_watches())", TRAINING]))
    watched, curve = notebook.outputs()[1:]
    assert watched == [["text"]]
    assert notebook.ask("print(live.somebody_watches())") == "False\n"  # the test's own request names no cell
    html, line = ["text/html", "text/plain"], ["text/markdown", "text/plain"]
    assert curve == [html, line, html]  # the picture in HTML, which keeps its alternative text in JupyterLab
    assert_sound(notebook)


def test_an_error_of_a_cell_or_of_the_page_is_seen(open_notebook):
    notebook = open_notebook(["print('hello')", "1 / 0"])
    notebook.run_all()
    assert notebook.collapsed_outputs() == []
    notebook.page.add_style_tag(content=".jp-OutputArea-output { display: none }")
    notebook.page.evaluate("() => console.error('a complaint')")
    assert notebook.cell_errors() == ["cell 1: ZeroDivisionError: division by zero"]
    assert notebook.collapsed_outputs() == [
        "cell 0: an output of no height",
        "cell 1: an output of no height",
    ]
    assert [complaint.split(" (")[0] for complaint in notebook.complaints] == ["console: a complaint"]
