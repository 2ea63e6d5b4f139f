"""`kdlib lab` in a process of its own, on a small course of its own, with a Jupyter that knows no user's settings."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

CHECKOUT = Path(__file__).parents[1]
PATIENCE = 300  # seconds: how long a very busy machine may take for one step
LAB = [sys.executable, "-m", "kdlib.cli", "lab"]
# A test suite under `nohup` or in the background ignores them, and so would what it starts.
HEARD = [signal.SIGINT, signal.SIGTERM] + [signal.SIGHUP] * hasattr(signal, "SIGHUP")


def write_lesson(path: Path, *cells: str) -> Path:
    """A lesson of Markdown cells and one code cell that was run."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        cells=[nbformat.v4.new_markdown_cell(source) for source in cells],
    )
    output = nbformat.v4.new_output("stream", name="stdout", text="an output of the course\n")
    notebook.cells.append(
        nbformat.v4.new_code_cell(
            "print(1)", outputs=[output], execution_count=7, metadata={"tags": ["check"]}
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_course(folder: Path, names: tuple[str, ...] = ("00_start_here", "01_principle")) -> Path:
    """A repository of the course with these lessons."""
    for name in names:
        write_lesson(folder / "notebooks" / f"{name}.ipynb", f"# {name}")
    (folder / "kdlib").mkdir()
    (folder / "kdlib" / "__init__.py").touch()
    return folder


@dataclass
class Running:
    """A JupyterLab that answers."""

    process: subprocess.Popen
    port: int
    token: str

    def ask(self, path: str, *, content: dict | None = None) -> dict:
        """What its server answers; with content, to a POST."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def start_kernel(self) -> list[int]:
        """Start a kernel; return the processes that the server has started (Linux)."""
        self.ask("api/kernels", content={"name": "python3"})
        return descendants(self.process.pid)


def descendants(pid: int) -> list[int]:
    """The processes that a process, and those that it has started, have started."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for text in lists for child in text.split()]
    return [process for child in children for process in (child, *descendants(child))]


@contextlib.contextmanager
def running(folder: Path, private: Path, command: list[str] = LAB, **options) -> Iterator[Running]:
    """`kdlib lab` in `folder`; what Jupyter keeps for its user is in `private`."""
    port = free_port()
    token = secrets.token_hex(16)
    environment = surroundings(private, port=port, token=token)
    log = private / "log"
    handlers = [(number, signal.signal(number, signal.default_int_handler)) for number in HEARD]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            **options,
        )
    for number, handler in handlers:
        signal.signal(number, handler)
    lab = Running(process, port, token)
    try:
        wait_until(lambda: answers(port), process, log)
        yield lab
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=PATIENCE)


def surroundings(private: Path, **server: object) -> dict[str, str]:
    """Of a user without any settings, whose server opens no browser."""
    config = private / "config"
    config.mkdir(parents=True, exist_ok=True)
    settings = {"ServerApp": {"allow_root": True, "open_browser": False, "port_retries": 0}}
    if server:
        settings["ServerApp"]["port"] = server["port"]
        settings["IdentityProvider"] = {"token": server["token"]}
    (config / "jupyter_server_config.json").write_text(json.dumps(settings))
    mine = {"JUPYTER_CONFIG_DIR": str(config), "JUPYTER_RUNTIME_DIR": str(private / "runtime")}
    mine |= {"JUPYTER_DATA_DIR": str(private / "data"), "IPYTHONDIR": str(private / "ipython")}
    mine |= {"PYTHONPATH": str(CHECKOUT), "KDLIB_PROFILE": "ci"}
    others = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "MAKE"))}
    return {**others, **mine}


def wait_until(condition, process: subprocess.Popen, log: Path) -> None:
    """Poll until the condition holds; fail as soon as the process has ended without it."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    """Whether anything listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def runs(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
