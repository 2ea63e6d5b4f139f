"""A process that has everything imported, and forks a child for each notebook and for each answer.

It never runs what a learner wrote, and computes nothing: only so can it be forked. Requests come in on its standard
input and replies go out on what was its standard output, each a length and JSON.
"""

import gc
import json
import os
import secrets
import selectors
import shutil
import stat
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from kdlib.grading import processes, protection

MOST_NOTEBOOK_BYTES = 32 << 20
MOST_BYTES = 8 << 20  # of a reply; the largest are the weights of small networks
_MOST_PROCESSES = 16  # of one answer
_TICK = 0.2  # seconds between two looks at a child
_MOST_OF_A_TICK = 0.5  # what a tick may count where this process was stopped for a while


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    content = json.dumps(message).encode()
    stream.write(struct.pack("!Q", len(content)) + content)
    stream.flush()


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message; None where the other side has ended."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = struct.unpack("!Q", head)[0]
    content = stream.read(size)
    return json.loads(content) if len(content) == size else None


@dataclass
class Child:
    """One process tree that is under way."""

    ticket: int
    pid: int
    pipe: int
    token: bytes
    folder: Path
    seconds: float | int
    memory: int
    content: bytearray = field(default_factory=bytearray)
    computed: float = 0.0
    idle: float = 0.0
    looked: float = field(default_factory=time.monotonic)
    stopped: str | None = None

    @property
    def used(self) -> float:
        """Seconds of computing; time in which nothing happens counts half, for one that only sleeps."""
        return self.computed + self.idle / 2


def main() -> None:
    """Serve requests until the standard input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed by an import must not come between the replies
    _import_all()
    protection.adopt_orphans()
    walls = protection.find()
    gc.collect()
    gc.freeze()  # the children share all this memory as long as nobody writes there
    send(replies, {"walls": [walls.namespaces, walls.other_user]})
    _Nursery(walls, replies).serve()


def _import_all() -> None:
    """What lessons import, so that no child has to."""
    import kdlib.data
    import kdlib.inference
    import kdlib.lesson.figures
    import kdlib.lesson.laboratory
    import kdlib.lesson.plots
    import kdlib.lesson.predictions
    import kdlib.lesson.results
    import kdlib.lesson.widgets
    import kdlib.losses
    import kdlib.metrics
    import kdlib.models
    import kdlib.sweeps
    import kdlib.teachers
    import kdlib.training
    from kdlib.grading import learner

    del kdlib, learner


class _Nursery:
    def __init__(self, walls: Any, replies: BinaryIO) -> None:
        self.walls, self.replies = walls, replies
        self.children: dict[int, Child] = {}
        self.selector = selectors.DefaultSelector()
        self.scratch = Path(tempfile.mkdtemp(prefix="kdlib-grade-"))

    def serve(self) -> None:
        requests = os.fdopen(os.dup(0), "rb", buffering=0)
        self.selector.register(requests, selectors.EVENT_READ, None)
        looked = time.monotonic()
        try:
            while True:
                for key, _ in self.selector.select(_TICK):
                    if key.data is not None:
                        if not self._read(key.data):
                            self._finish(key.data)
                    elif (request := receive(_Whole(requests))) is None:
                        return
                    else:
                        self._start(request)
                if time.monotonic() - looked >= _TICK:
                    for child in list(self.children.values()):
                        self._look(child)
                    _collect_orphans(but=self._own())  # which are in no tree that is measured
                    looked = time.monotonic()
        finally:
            for child in list(self.children.values()):
                child.stopped = "It was stopped."
                self._finish(child, tell=False)
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self, request: dict[str, Any]) -> None:
        try:
            work = _work(request)
        except OSError as error:
            send(self.replies, {"ticket": request["ticket"], "ended": str(error), "used": 0})
            return
        token = secrets.token_hex(16).encode()
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        near, far = os.pipe()
        limits = {"seconds": request["seconds"], "memory": request["memory"]}
        pid = os.fork()
        if pid == 0:
            protection.enter(self.walls, lambda: _report(work, far, token), folder, keep=(far,), **limits)
        os.close(far)
        os.set_blocking(near, False)
        child = Child(request["ticket"], pid, near, token, folder, **limits)
        self.children[near] = child
        self.selector.register(near, selectors.EVENT_READ, child)

    def _read(self, child: Child) -> bool:
        """Take what the child has sent; whether there may be more."""
        try:
            content = os.read(child.pipe, 1 << 20)
        except BlockingIOError:
            return False
        child.content += content
        if len(child.content) > MOST_BYTES:
            child.stopped = f"It sent back more than {MOST_BYTES >> 20} MB."
        return bool(content) and not child.stopped

    def _look(self, child: Child) -> None:
        """End the child where it is over one of its limits."""
        now = time.monotonic()
        tree = list(processes.tree(child.pid))
        computed, memory = (0, 0) if len(tree) > _MOST_PROCESSES else _measure(tree, child.memory)
        if computed <= child.computed:  # on a busy machine all get a little
            child.idle += min(now - child.looked, _MOST_OF_A_TICK)
        child.computed = max(child.computed, computed)
        child.looked = now
        if len(tree) > _MOST_PROCESSES:
            child.stopped = f"It was stopped: it started more than {_MOST_PROCESSES} processes."
        elif memory > child.memory:
            child.stopped = f"It was stopped: it took more than {child.memory} MB of memory."
        elif child.used > child.seconds:
            child.stopped = f"It was stopped after {child.seconds:.0f} seconds of computing."
        if child.stopped:
            self._finish(child)
        elif processes.has_ended(child.pid):  # though a grandchild may hold the pipe
            while self._read(child):
                continue
            self._finish(child)

    def _finish(self, child: Child, tell: bool = True) -> None:
        if self.children.pop(child.pipe, None) is None:
            return
        self.selector.unregister(child.pipe)
        ended = not child.stopped and _ends_alone(child.pid)
        processes.end(child.pid)
        code = os.waitstatus_to_exitcode(
            os.waitpid(child.pid, 0)[1]
        )  # not before, lest its number has a new bearer
        os.close(child.pipe)
        _collect_orphans(but=self._own())
        shutil.rmtree(child.folder, ignore_errors=True)
        if tell:
            used = round(child.used, 2)
            send(self.replies, {"ticket": child.ticket, "used": used, **_reply(child, code if ended else 0)})

    def _own(self) -> set[int]:
        return {child.pid for child in self.children.values()}


class _Whole:
    """Reads as much as is asked for from a stream that gives what it has."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def read(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size and (part := self.stream.read(size - len(parts))):
            parts += part
        return bytes(parts)


def _work(request: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """What the child will do; a file is read now, because from behind the walls it cannot be reached."""
    from kdlib.grading import learner

    if request["task"] == "plan":
        content = read_notebook(Path(request["path"]))
        return lambda: learner.plan(content, Path(request["path"]).name, request["lessons"])
    return lambda: learner.answer(request["exercise"], request["expression"], request["pieces"])


def read_notebook(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read, is a link, no file, or too large.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        reason = (
            "it is a link to another file" if path.is_symlink() else f"it cannot be read: {error.strerror}"
        )
        raise OSError(reason) from error
    with os.fdopen(file, "rb") as stream:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is not a file")
        if found.st_size > MOST_NOTEBOOK_BYTES:
            most = f"{MOST_NOTEBOOK_BYTES >> 20} MB"
            raise OSError(f"it is larger than {most} ({found.st_size >> 20} MB): save it without its outputs")
        return stream.read(MOST_NOTEBOOK_BYTES + 1)


def _report(work: Callable[[], dict[str, Any]], pipe: int, token: bytes) -> None:
    """In the child: do the work and send what comes of it, in one go and only once."""
    content = token + json.dumps(work()).encode()
    while content:
        content = content[os.write(pipe, content) :]
    os._exit(0)


def _measure(tree: list, most: int) -> tuple[float, float]:
    """Seconds of computing and MB of memory of a tree."""
    computed, resident = 0.0, 0.0
    for process in tree:
        try:
            times = process.cpu_times()
            computed += times.user + times.system + times.children_user + times.children_system
            resident += process.memory_info().rss / 2**20
        except psutil.Error:
            continue
    return computed, _own_memory(tree) if resident > most else resident


def _own_memory(tree: list) -> float:
    """MB, without what they share with the process that they were forked from."""
    total = 0.0
    for process in tree:
        try:
            total += process.memory_full_info().uss / 2**20
        except psutil.Error:
            continue
    return total


def _ends_alone(pid: int) -> bool:
    """Whether a process whose pipe is closed has ended, too."""
    for _ in range(20):
        if processes.has_ended(pid):
            return True
        time.sleep(0.01)
    return False


def _collect_orphans(but: set[int]) -> None:
    """End and collect what has come to this process because its parent is gone."""
    while orphans := [one for one in psutil.Process().children() if one.pid not in but]:
        for orphan in orphans:
            processes.end(orphan.pid)
            os.waitpid(orphan.pid, 0)


def _reply(child: Child, code: int) -> dict[str, str]:
    if child.stopped:
        return {"ended": child.stopped}
    if child.content.startswith(child.token):
        return {"content": child.content[len(child.token) :].decode(errors="replace")}
    if child.content:
        return {"forged": "something else than the judge's own code reported a result"}
    number = max(-code, code - 128)  # from within namespaces a signal is reported as a shell does it
    return {"ended": f"It ended the process in which it ran{f' (signal {number})' if number > 0 else ''}."}


if __name__ == "__main__":
    main()
