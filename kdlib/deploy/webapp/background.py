"""The web page in a process of its own, for a notebook or a test: start it, ask it, stop it."""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import weakref
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from PIL import Image

from kdlib.deploy import arguments

PACKAGE = Path(__file__).resolve().parents[3]


class Server:
    """`kdlib serve` with one or two exported models, on a free port of this machine alone.

    It runs in a fresh process, as it would elsewhere: without torch, and not slowed by what this one does. It
    ends with `stop()`, and at the latest with this object or this process, even if that is killed. Interrupting
    this process does not end it.

    Attributes:
        address: of the page, such as "http://127.0.0.1:8123/".
        host, port: the two parts of it.
        process: the running one.

    Args:
        paths: of the models' files.
        options: further ones of `kdlib serve`.

    Raises:
        ValueError: it did not start, as for a file that is no model; the message holds its last words.
        TypeError: `paths` is no list of paths.
    """

    def __init__(self, paths: Sequence[str | PathLike], *options: str):
        paths = arguments.paths("paths", paths)
        search = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "kdlib.cli", "serve", *map(str, paths), "--port", "0", *options]
        with tempfile.TemporaryFile("w+") as errors:  # not a pipe, which would fill up with nobody reading it
            self.process = subprocess.Popen(
                [*command, "--until-input-ends"],
                env=os.environ | {"PYTHONPATH": search},
                stdin=subprocess.PIPE,  # which the system closes when this process ends, however it ends
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Jupyter interrupts a kernel together with the processes of its group
            )
            self._end = weakref.finalize(self, _end, self.process)
            found = re.search(r"http://(\S+):(\d+)/", self.process.stdout.readline())
            if found is None:
                status = self.process.wait()
                errors.seek(0)
                last = errors.read().strip().splitlines()[-1:]
                raise ValueError(f"the server ended with status {status}: {' '.join(last)}")
        self.address, self.host, self.port = found[0], found[1], int(found[2])

    @property
    def status(self) -> int | None:
        """None while it runs, afterwards the exit status of its process."""
        return self.process.poll()

    def ask(self, picture: Image.Image) -> list[dict]:
        """What each model says of a picture, as a program anywhere in the world would ask: the answer of /predict.

        Returns:
            For each model its name, milliseconds, and predictions, each with label and probability, the likeliest
            first.

        Raises:
            TypeError: no picture.
            OSError: the server has ended, or refuses the picture; the message says why.
        """
        if not isinstance(picture, Image.Image):
            raise TypeError(f"picture must be a PIL.Image.Image, got {type(picture).__name__}")
        file = io.BytesIO()
        (picture if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else picture.convert("RGB")).save(file, "png")
        form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n%s\r\n--x--\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{self.address}predict", form % file.getvalue(), headers)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is behind no proxy
        try:
            with direct.open(request, timeout=60) as response:
                return json.load(response)["models"]
        except urllib.error.HTTPError as refusal:
            raise OSError(f"the server refuses the picture: {json.load(refusal)['error']}") from refusal

    def stop(self) -> None:
        """End the process and wait for that. Stopping twice does no harm."""
        self._end()


_serving: Server | None = None


def serve(paths: Sequence[str | PathLike], *options: str) -> Server:
    """The one server of this process, for a cell of a notebook, which may run again.

    The server of an earlier call is stopped as soon as the new one answers; if that does not start, it lives on.

    Args:
        paths: as for `Server`.
        options: as for `Server`.

    Raises:
        ValueError, TypeError: as for `Server`.
    """
    global _serving
    before, _serving = _serving, Server(paths, *options)
    if before is not None:
        before.stop()
    return _serving


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    process.communicate()
