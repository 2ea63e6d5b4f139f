"""The interactive figures of a lesson alone, in large type, for a projector (`kdlib lab --demo 02`).

From the lesson's committed notebook a smaller one is made: the cells tagged `projector`, which are those that show an
interactive figure and those that they need, and above each figure the heading of its section. Voila runs it in a
kernel of its own and shows nothing but these headings and figures.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import nbformat
from ipykernel.kernelspec import write_kernel_spec
from IPython import get_ipython
from IPython.utils.capture import capture_output
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kdlib.lesson import canvas, course, figures, page, watching

_TAG = "projector"
_TEMPLATE = "classroom"
_DPI = 140  # pictures are drawn larger than in a lesson, as sharp as a projector of 1280 pixels shows them
# What else is installed for JupyterLab is left out: it need not fit the JupyterLab inside Voila.
_EXTENSIONS = ("anywidget", "@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8")
_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_LIVE = "LiveSurface("  # the committed notebook has its last picture, and no trace of its buttons
_STOP_SECONDS = 10


def build(path: Path) -> NotebookNode:
    """The notebook of a lesson's interactive figures.

    Args:
        path: the lesson's notebook, with its outputs.

    Raises:
        ValueError: no cell tagged `projector` shows an interactive figure.
    """
    cells = _tagged(path)
    count = sum(figure for _, _, figure in cells)
    if not count:
        raise ValueError(f"{path.stem} has no interactive figure in a cell tagged `{_TAG}`: nothing to show")
    built = [new_code_cell(f"from kdlib.lesson import classroom\nclassroom.prepare({str(path.parent)!r})")]
    number = 0
    for heading, source, figure in cells:
        if figure:
            number += 1
            built.append(new_markdown_cell(_header(heading, number, count)))
        built.append(new_code_cell(f"classroom.run({source!r})"))
    return new_notebook(cells=built, metadata={"kernelspec": _KERNEL, "title": path.stem})


def _tagged(path: Path) -> list[tuple[str, str, bool]]:
    """Of each cell for the projector: the heading above it, its source, whether it shows an interactive figure."""
    heading, tagged = path.stem, []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            heading = ([heading] + re.findall(r"^#{1,2} (.*)", cell.source, re.MULTILINE))[-1]
        elif _TAG in cell.metadata.get("tags", ()):
            left = any(_is_figure(output.get("data", {})) for output in cell.outputs)
            tagged.append((heading, cell.source, left or _LIVE in cell.source))
    return tagged


def _is_figure(data: dict) -> bool:
    return data.get("text/plain", "").startswith(figures.INTERACTIVE)


def _header(heading: str, number: int, count: int) -> str:
    """The heading of a figure, with links to the figures before and after it."""
    links = [
        f'<a href="#figure-{other}">{word}</a>' if 1 <= other <= count else ""
        for word, other in (("previous", number - 1), ("next", number + 1))
    ]
    return (
        f'<header class="kd-slide" id="figure-{number}">{page.render_markdown(f"## {heading}")}'
        f"<nav>{links[0]}<span>{number} of {count}</span>{links[1]}</nav></header>"
    )


def prepare(folder: str) -> None:
    """In the kernel: run where the lesson runs, draw larger pictures, let what is live wait for its button."""
    os.chdir(folder)
    canvas.DPI = _DPI
    watching.in_class = True


def run(source: str) -> None:
    """In the kernel: run a cell of the lesson; of its outputs, display the interactive figures, or the error."""
    with capture_output() as captured:
        get_ipython().run_cell(source)  # which shows an error by itself, past the capture
    for output in captured.outputs:
        if _is_figure(output.data):
            output.display()


def show(name: str) -> None:
    """Open the interactive figures of a lesson in the browser, until Ctrl-C.

    Raises:
        ValueError: no such lesson, or one without interactive figures.
        FileNotFoundError: the current folder is not inside a copy of the repository, and kdlib came without notebooks.
        OSError: Voila ended by itself.
    """
    path = course.find(name, course.lessons(course.require_repository()))
    notebook = build(path)
    with _requests_to_end() as requests, tempfile.TemporaryDirectory(prefix="kdlib-classroom-") as folder:
        with _voila(notebook, Path(folder)) as (process, port):
            opened = False
            while process.poll() is None and not requests:
                if not opened and _answers(port):
                    opened = True
                    url = f"http://127.0.0.1:{port}/"
                    print(f"{path.stem} for the classroom: {url}\nCtrl-C ends it.", flush=True)
                    webbrowser.open(url)
                time.sleep(0.1)
            if not requests:
                log = Path(folder, "voila.log").read_text(encoding="utf-8", errors="replace")
                raise OSError(f"Voila ended by itself, with status {process.returncode}:\n{log}")


@contextlib.contextmanager
def _requests_to_end() -> Iterator[list[int]]:
    """The signals to end that have arrived. They interrupt nothing, so that the end is always in order."""
    arrived: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # the last, where it exists, when the terminal is closed
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {
        number: signal.signal(number, lambda number, frame: arrived.append(number)) for number in numbers
    }
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _voila(notebook: NotebookNode, folder: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """Voila on a free port of this computer alone, with everything that it writes in `folder`."""
    nbformat.write(notebook, folder / "classroom.ipynb")
    write_kernel_spec(folder / "jupyter" / "kernels" / "python3")
    with as_file(files("kdlib.lesson") / "static" / _TEMPLATE) as template:
        shutil.copytree(template, folder / "jupyter" / "voila" / "templates" / _TEMPLATE)
    environment = course.environment(TMPDIR=str(folder), JUPYTER_NO_CONFIG="1")
    environment.setdefault("HOME", str(folder))  # Voila asks for a home folder, whatever else is named to it
    course.prepend(environment, "JUPYTER_PATH", folder / "jupyter")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "voila.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "voila", "classroom.ipynb", *_options(port)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C must not reach Voila and its kernels: they are told to end, in order
        )
    try:
        yield process, port
    finally:
        process.terminate()  # upon which Voila ends its kernels
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _options(port: int) -> list[str]:
    options = {
        "Voila.ip": "127.0.0.1",
        "Voila.port": port,
        "Voila.port_retries": 0,
        "Voila.open_browser": False,
        "Voila.kernel_websocket_connection_class": course.CONNECTION,
        "VoilaConfiguration.template": _TEMPLATE,
        "VoilaConfiguration.show_tracebacks": True,
    }
    extensions = [f"--VoilaConfiguration.extension_allowlist={name}" for name in _EXTENSIONS]
    return [f"--{name}={value}" for name, value in options.items()] + extensions


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
