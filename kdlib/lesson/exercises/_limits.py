"""A limit on the computing time of a learner's function, so that an endless loop does not hang the kernel."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class EndlessLoop(BaseException):
    """Not an Exception, so that an `except Exception` inside the endless loop cannot hold it up."""


def _stop(number: int, frame: object) -> None:
    raise EndlessLoop


@contextlib.contextmanager
def cpu_limit(seconds: float | int) -> Iterator[None]:
    """Raise EndlessLoop after so many seconds of computing (not of waiting, which a busy machine makes long).

    Where there is no such signal (on Windows, outside the main thread) nothing limits the time: the learner
    interrupts the kernel.
    """
    if not hasattr(signal, "SIGVTALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
