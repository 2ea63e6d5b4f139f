"""`kdlib lab` as a learner sees it: the copy is open, nothing pops up, links lead on, answers stay."""

import json
from pathlib import Path

import open_lab
import pytest
from playwright.sync_api import Page

LINKS = "[next](01_principle.ipynb), [solved](solutions/01_principle.ipynb)"
COMMAND = [*open_lab.LAB, "--", "--LabApp.expose_app_in_browser=True"]
SHOWN = "(path) => window.jupyterapp?.shell.currentWidget?.context?.path === path"
NEWS = "@jupyterlab/apputils-extension:announcements"


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = open_lab.write_course(tmp_path / "course")
    open_lab.write_lesson(folder / "notebooks" / "00_start_here.ipynb", "# Start", LINKS)
    open_lab.write_lesson(folder / "notebooks" / "solutions" / "01_principle.ipynb", "# Solved")
    return folder


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(open_lab.PATIENCE * 1000)
    yield page
    page.close()


def open_first(page: Page, lab: open_lab.Running) -> None:
    """Open the first copy, and wait until JupyterLab is settled and its kernel has begun."""
    page.goto(f"http://127.0.0.1:{lab.port}/lab/tree/my_notebooks/00_start_here.ipynb?token={lab.token}")
    page.wait_for_function(SHOWN, arg="my_notebooks/00_start_here.ipynb")
    page.wait_for_function(
        "() => jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'"
    )
    page.evaluate("() => jupyterapp.restored")
    page.wait_for_load_state("networkidle")


def test_no_news_pop_up_and_every_link_leads_on(page, repository, tmp_path):
    with open_lab.running(repository / "notebooks", tmp_path / "private", COMMAND) as lab:
        open_first(page, lab)
        assert page.evaluate(f"() => jupyterapp.isPluginActivated({NEWS!r})")  # it could have asked by now
        assert page.locator(".Toastify__toast").count() == 0
        for link, path in {"solved": "notebooks/solutions", "next": "my_notebooks"}.items():
            page.locator(".jp-RenderedMarkdown a", has_text=link).click()
            page.wait_for_function(SHOWN, arg=f"{path}/01_principle.ipynb")
            page.evaluate("() => jupyterapp.commands.execute('application:activate-previous-tab')")
            page.wait_for_function(SHOWN, arg="my_notebooks/00_start_here.ipynb")


def test_what_is_typed_and_saved_is_in_the_copy_which_still_knows_its_lesson(page, repository, tmp_path):
    lesson, copy = (repository / folder / "00_start_here.ipynb" for folder in ("notebooks", "my_notebooks"))
    before = lesson.read_bytes()
    with open_lab.running(repository / "notebooks", tmp_path / "private", COMMAND) as lab:
        open_first(page, lab)
        origin = json.loads(copy.read_text())["metadata"]["kdlib"]
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("ControlOrMeta+End")
        page.keyboard.type("; print('my answer')")
        page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty")
    saved = json.loads(copy.read_text())
    assert "print(1); print('my answer')" in "".join(saved["cells"][-1]["source"])
    assert saved["metadata"]["kdlib"] == origin
    assert lesson.read_bytes() == before
