"""A limit on the computing time of a learner's function, so that an endless loop does not hang the kernel."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_TICK = 0.05  # seconds of computing between two looks at the clock
_IMPORTING = "<frozen importlib"  # where the frames of Python's import system come from


class EndlessLoop(BaseException):
    """Not an Exception, so that an `except Exception` inside the endless loop cannot hold it up."""


@contextlib.contextmanager
def cpu_limit(seconds: float | int) -> Iterator[None]:
    """Raise EndlessLoop after so many seconds of computing (not of waiting, which a busy machine makes long).

    Imports do not count and are never cut off: the first optimizer of a process loads a part of torch that takes
    seconds, and a module that is left half loaded stays so.

    Where there is no such signal (on Windows, outside the main thread) nothing limits the time: the learner
    interrupts the kernel.
    """
    if not hasattr(signal, "SIGVTALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.signal(signal.SIGVTALRM, _stop_after(seconds))
    signal.setitimer(signal.ITIMER_VIRTUAL, _TICK, _TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop_after(seconds: float | int) -> Callable[[int, FrameType | None], None]:
    spent, seen = 0.0, time.process_time()

    def tick(number: int, frame: FrameType | None) -> None:
        nonlocal spent, seen
        now = time.process_time()
        if not _imports(frame):
            spent += now - seen
        seen = now
        if spent >= seconds:
            spent = 0.0  # where it is swallowed it comes again, but not while the timer is being put away
            raise EndlessLoop

    return tick


def _imports(frame: FrameType | None) -> bool:
    """Whether an import is under way in this frame or in one that called it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING):
            return True
        frame = frame.f_back
    return False
