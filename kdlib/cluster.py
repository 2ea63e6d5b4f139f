"""Groups of a sweep on a Dask cluster; `kdlib.pool` says what a group is.

Needs dask.distributed on this side and kdlib on the workers. A worker that is lost is the cluster's business:
what it ran and what it held is computed again elsewhere, until a group has lost several workers and is given
up.
"""

import threading
import uuid
from collections.abc import Iterator, Sequence

import cloudpickle
import torch
from distributed import Client, as_completed

from kdlib.pool import Compute, Failure, Group, Outcome, attempt

PART = 4 * 2**20  # bytes; Dask warns of tasks that hold more than 10 MiB


def on_cluster(compute: Compute, groups: Sequence[Group], client: Client) -> Iterator[tuple[Group, Outcome]]:
    """On the cluster's workers, one group at a time in each process, whatever its number of threads.

    `compute` travels to each worker once. It is held by tasks rather than scattered, because the scheduler
    can run a task again where scattered data is lost with its workers.
    """
    payload = cloudpickle.dumps(compute)
    name = uuid.uuid4().hex
    parts = [
        client.submit(_hold, payload[start : start + PART], pure=False)
        for start in range(0, len(payload), PART)
    ]
    groups_of = {client.submit(_compute, name, parts, group, pure=False): group for group in groups}
    try:
        for future in as_completed(groups_of):
            group, error = groups_of[future], future.exception()
            yield group, future.result() if error is None else [Failure.of(error)] * len(group)
    finally:
        client.cancel([*groups_of, *parts])


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
