"""Start a real `kdlib serve` process, for the tests over HTTP, in the browser, and for the benchmark."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "kdlib.cli", "serve", *map(str, arguments)]


@contextlib.contextmanager
def serving(
    models: Sequence[Path], *options: str, before: Callable[[], None] | None = None
) -> Iterator[Served]:
    """Serve these models on a free port until the block ends; `before` is called in the new process."""
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT))
    process = subprocess.Popen(
        command(*models, "--port", 0, *options),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://([\d.]+):(\d+)/", line)
        assert found, f"the server ended with status {process.wait()} and said {line!r}"
        yield Served(process, found[1], int(found[2]))
    finally:
        process.terminate()
        process.communicate()
