"""Groups of a sweep on a Dask cluster; `kdlib.sweeps.backends` says what a group is.

Needs dask.distributed on this side and kdlib on the workers. A worker that is lost is the cluster's business:
what it ran and what it held is computed again elsewhere, until a group has lost several workers and is given
up. Where the cluster has no worker left, a sweep waits until it has one: a LocalCluster gives up for good what is
not back after `distributed.deploy.lost-worker-timeout`, 15 s.
"""

import functools
import threading
import uuid
from collections.abc import Iterator, Sequence

import cloudpickle
import torch
from distributed import Client, Future, KilledWorker, as_completed

from kdlib.sweeps.backends import Compute, Failure, Group, Outcome, attempt

PART = 4 * 2**20  # bytes; Dask warns of tasks that hold more than 10 MiB


def on_cluster(compute: Compute, groups: Sequence[Group], client: Client) -> Iterator[tuple[Group, Outcome]]:
    """On the cluster's workers, one group at a time in each process, whatever its number of threads.

    `compute` travels to each worker once. It is held by tasks rather than scattered, because the scheduler
    can run a task again where scattered data is lost with its workers.

    What the cluster gives up because several workers died with it is tried again, a group at a time: beside a
    group that kills its worker, another that waited there is given up too.
    """
    payload = cloudpickle.dumps(compute)
    name = uuid.uuid4().hex
    parts = [
        client.submit(_hold, payload[start : start + PART], pure=False)
        for start in range(0, len(payload), PART)
    ]
    submit = functools.partial(client.submit, _compute, name, parts, pure=False)
    futures = {submit(group): group for group in groups}
    suspects = []
    try:
        for future in as_completed(list(futures)):
            if isinstance(future.exception(), KilledWorker):
                suspects.append(futures[future])
            else:
                yield futures[future], _outcome(future, futures[future])
        for group in suspects:
            future = submit(group)
            futures[future] = group
            yield group, _outcome(future, group)
    finally:
        client.cancel([*futures, *parts])


def _outcome(future: Future, group: Group) -> Outcome:
    error = future.exception()
    return future.result() if error is None else [Failure.of(error)] * len(group)


def _hold(part: bytes) -> bytes:
    return part


_current: tuple[str, Compute] | None = None
_one_at_a_time = (
    threading.Lock()
)  # students draw from the process's random numbers, which threads would share


def _compute(name: str, parts: list[bytes], group: Group) -> Outcome:
    """In a worker: compute a group of the sweep of this name."""
    global _current
    with _one_at_a_time:
        torch.set_num_threads(1)
        if _current is None or _current[0] != name:
            _current = None  # let go of the last sweep before the next is loaded
            _current = name, cloudpickle.loads(b"".join(parts))
        return attempt(_current[1], group)
