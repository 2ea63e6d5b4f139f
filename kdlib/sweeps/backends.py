"""Where the groups of a sweep are computed: in this process, or on worker processes of one thread each.

A group is a list of cells, computed together; its outcome is a list with a result or a `Failure` for each.
Both ways of computing are generators of (group, outcome) in the order in which groups finish. Closing one
drops what has not finished. Worker processes also give None a few times a second while nothing finishes,
so that whoever iterates can close them then.
"""

import os
import signal
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from loky import cpu_count, get_reusable_executor, process_executor

Cell = dict[str, Any]
Group = Sequence[Cell]
Outcome = Sequence[Any]
Compute = Callable[[Group], Outcome]

SLICE_SECONDS = 0.25  # a wait without an end could not be stopped, on Windows not even interrupted
IDLE_SECONDS = 300  # how long workers wait for the next sweep; starting them takes seconds
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # glibc gives the memory of large tensors back and asks for it again in every step. Keeping it, in large
    # pages, makes a step of training 1.1 to 1.3 times as fast. Other systems ignore this.
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296:"
    "glibc.malloc.top_pad=67108864:glibc.malloc.hugetlb=1",
}


@dataclass(frozen=True)
class Failure:
    """What went wrong in a cell."""

    error: str
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        trace = "".join(traceback.format_exception(error))
        return cls(f"{type(error).__name__}: {error}", trace)


def physical_cores() -> int:
    """Cores that this process may use, a core with two hardware threads counted once."""
    return cpu_count(only_physical_cores=True)


def attempt(compute: Compute, group: Group) -> Outcome:
    """The outcome of a group; an exception becomes the failure of each of its cells."""
    try:
        return compute(group)
    except Exception as error:
        return [Failure.of(error)] * len(group)


def in_this_process(compute: Compute, groups: Sequence[Group]) -> Iterator[tuple[Group, Outcome]]:
    """One group after the other, on one thread, which gives the very numbers that a worker gives."""
    for group in groups:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            outcome = attempt(compute, group)
        finally:
            torch.set_num_threads(threads)
        yield group, outcome


def on_processes(
    compute: Compute, groups: Sequence[Group], workers: int
) -> Iterator[tuple[Group, Outcome] | None]:
    """On `workers` processes, which stay for the next sweep unless this one is ended before its time.

    `compute` and all it holds is written to a file once and read once by each worker. Functions and classes
    of a notebook or a script travel by value, so that no worker imports the script again.

    A worker that dies (out of memory, a crash in compiled code) takes the others down with it. What was
    running is then tried again, a group at a time, so that only the one that kills its worker fails.
    """
    with tempfile.TemporaryDirectory(prefix="kdlib-") as folder:
        payload = Path(folder) / "sweep.pickle"
        payload.write_bytes(cloudpickle.dumps(compute))
        pending, suspects, running, alone = deque(groups), deque(), {}, False
        try:
            while pending or suspects or running:
                if not running:
                    alone = bool(suspects)
                queue = suspects if alone else pending
                while queue and len(running) < (1 if alone else workers):
                    group = queue.popleft()
                    running[_executor(workers).submit(_compute, str(payload), group)] = group
                finished, _ = wait(running, timeout=SLICE_SECONDS, return_when=FIRST_COMPLETED)
                if not finished:
                    yield None
                for future in finished:
                    group = running.pop(future)
                    error = future.exception()
                    if isinstance(error, BrokenExecutor) and not alone:
                        suspects.append(group)
                    else:
                        yield group, future.result() if error is None else [Failure.of(error)] * len(group)
        except BaseException:  # an interrupt, or the iterator was closed: nobody waits for what is running
            _executor(workers).shutdown(wait=True, kill_workers=True)
            raise


def _executor(workers: int):
    """The living pool, or a new one where it was never started, has broken or was shut down."""
    return get_reusable_executor(
        max_workers=workers, timeout=IDLE_SECONDS, initializer=_start_worker, env=ENVIRONMENT
    )


def _start_worker() -> None:
    torch.set_num_threads(1)
    # loky takes the images that a worker keeps for a leak, restarts it and warns; it has no setting for this.
    process_executor._MAX_MEMORY_LEAK_SIZE = 2**32
    # Stopping is the parent's business; a worker would only print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()


def _die_with(parent: int) -> None:
    """End this worker soon after its parent was killed: an orphan has another parent."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


_current: tuple[str, Compute] | None = None


def _compute(payload: str, group: Group) -> Outcome:
    """In a worker: compute a group of the sweep whose payload lies in this file."""
    global _current
    if _current is None or _current[0] != payload:
        _current = None  # let go of the last sweep before the next is loaded
        _current = payload, cloudpickle.loads(Path(payload).read_bytes())
    return attempt(_current[1], group)
