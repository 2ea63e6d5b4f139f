"""Start `kdlib distill` in processes that can be killed: real ones, and ones whose libraries are imported already."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
# Forked from a server that has imported these: a start takes a tenth of the time of a new interpreter.
PRELOADED = [
    "torch._dynamo",
    "kdlib.deploy.distillation.stages",
    "kdlib.lesson.profiles",
    "kdlib.cli",
    "distilling",
]


def environment(cache: Path) -> dict[str, str]:
    """One thread, and a cache of its own."""
    search = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])
    return {"PYTHONPATH": search, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}


def start(arguments: list[str], cache: Path) -> subprocess.Popen:
    """`kdlib distill` as from a shell."""
    return subprocess.Popen(
        [sys.executable, "-m", "kdlib.cli", "distill", *arguments],
        env=os.environ | environment(cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_at(arguments: list[str], cache: Path, is_it: Callable[[str], bool]) -> int:
    """Kill such a process by SIGKILL as soon as it prints a line that `is_it`; its exit status."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(arguments, writing))
    process.start()
    writing.close()
    with os.fdopen(os.dup(reading.fileno())) as printed:
        for line in printed:
            if is_it(line):
                os.kill(process.pid, signal.SIGKILL)
                break
    process.join()
    return process.exitcode


def _run(arguments: list[str], writing: Connection) -> None:
    os.dup2(writing.fileno(), 1)
    sys.stdout = open(1, "w", closefd=False)
    from kdlib import cli

    sys.exit(cli.main(["distill", *arguments]))
