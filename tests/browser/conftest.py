"""A JupyterLab and a chromium for the tests of this folder, started once."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

try:
    import lab
    from driver import Notebook
    from playwright.sync_api import Browser, sync_playwright
except ModuleNotFoundError as error:
    pytest.skip(f"{error.name} is not installed: no browser can be driven", allow_module_level=True)

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[lab.Lab]:
    """A JupyterLab that serves an empty folder."""
    with lab.jupyter_lab(tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("private")) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium."""
    if lab.CHROMIUM is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        launched = lab.launch(playwright)
        yield launched
        launched.close()


@pytest.fixture
def open_notebook(server, browser, request):
    """Open a notebook, given as a path or as the sources of its code cells, in a window of its own."""
    opened = []

    def open_one(notebook: Path | list[str], **context) -> Notebook:
        name = f"{request.node.name.replace('/', '-')}-{len(opened)}.ipynb"
        if isinstance(notebook, list):
            cells = [nbformat.v4.new_code_cell(source) for source in notebook]
            content = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)
        else:
            content = nbformat.read(notebook, as_version=4)
        nbformat.write(content, server.folder / name)
        opened.append(Notebook.open(browser, server, name, **context))
        return opened[-1]

    yield open_one
    for notebook in opened:
        notebook.close()
