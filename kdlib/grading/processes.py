"""Process trees from outside: how they are started, watched and ended."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

import kdlib


def tree(pid: int) -> Iterator[psutil.Process]:
    """The process and all that come from it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        yield from [first, *first.children(recursive=True)]


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(pid: int) -> None:
    """Kill a process that leads its group, and all that come from it; collecting it is left to its parent."""
    for _ in range(50):  # somebody may be forking faster than this
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        alive = [one for one in tree(pid) if not has_ended(one.pid)]
        for one in alive:
            with contextlib.suppress(psutil.Error):
                one.kill()
        if not alive:
            return


def clean_environment() -> dict[str, str]:
    """What a process may know from which learners' processes are forked: none of the teacher's own variables."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH") if name in os.environ}
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    return kept | threads | {"KDLIB_PROFILE": "ci", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}


def start(module: str) -> subprocess.Popen:
    """A Python process that runs a module of kdlib, in a session of its own."""
    environment = clean_environment()
    checkout = str(Path(kdlib.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [checkout, environment.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", module], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
