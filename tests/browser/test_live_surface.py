"""The live surface of lesson 03 in a real JupyterLab: its buttons work while the students are trained."""

import sliders

SWEEP = """
import functools
from pathlib import Path
from kdlib import data, sweeps
from kdlib.lesson import surface

split = data.load().train.take(100)
logits = 8.0 * split.labels.new_ones(100, 10).float().scatter(1, split.labels[:, None], 2.0)
pauses = [6]  # after this row, the last of the first group, the sweep waits for Stop, once


def pausing(*arguments, stop, **options):
    pause = pauses.pop() if pauses else None
    for number, row in enumerate(sweeps.iterate(*arguments, stop=stop, workers=1, **options)):
        yield row
        if number == pause:
            stop.wait()


rows = functools.partial(
    pausing, "tiny-cnn", logits, split, split, temperatures=[2.0, 8.0], alphas=[0.0, 0.5, 1.0], seeds=[0, 1],
    epochs=1,
)
"""
SHOW = """
live_surface = surface.LiveSurface(rows, caption="A surface.", results=Path("rows.jsonl"))
live_surface.show()
"""


def test_start_stop_and_resume_fill_the_surface(open_notebook):
    notebook = open_notebook([SWEEP, SHOW, "print('not blocked')"])
    notebook.run_all()
    page = notebook.page
    picture = page.locator(".kd-explorer img")
    picture.wait_for()
    empty, size = sliders.signature(picture), picture.bounding_box()
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text("of 10 students", exact=False).wait_for()
    assert sliders.wait_for_change(picture, empty)
    assert notebook.ask("print(live_surface.running)") == "True\n"  # the kernel answers while it runs
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped after").wait_for()
    part = sliders.signature(picture)
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("10 of 10 students, done").wait_for()
    assert sliders.wait_for_change(picture, part)
    assert picture.bounding_box() == size
    assert notebook.ask("print(live_surface.complete, len(live_surface.table()))") == "True 10\n"
    assert notebook.cut_off() == notebook.cell_errors() == notebook.complaints == []
