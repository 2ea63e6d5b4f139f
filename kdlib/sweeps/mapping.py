"""A function over many cells: on all cores, cell by cell as they finish, with a file that survives a stop."""

import functools
import itertools
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from torch import Tensor

from kdlib.sweeps import backends
from kdlib.sweeps.backends import Cell, Failure, Group, Outcome
from kdlib.sweeps.journal import Journal, Row, describe
from kdlib.training.progress import progress_rule

CellProgress = Callable[[int, int], None]
_PLAIN = bool | int | float | str | None


def map_cells(function: Callable[..., Mapping], cells: Iterable[Mapping], **options: Any) -> pandas.DataFrame:
    """A table with a row for each cell: its settings and what `function(**cell)` returned.

    The rows are in the order of `cells`, however they finish. Arguments are those of `iterate_cells`.

    A cell that fails does not stop the others: a warning shows its settings and the traceback, and its row
    has no results but the `error`, a column that is there only where something failed.

    Raises:
        RuntimeError: every cell failed.
        and as `iterate_cells`.
    """
    cells = _plain_cells(cells)
    return table(iterate_cells(function, cells, **options), cells)


def iterate_cells(
    function: Callable[..., Mapping],
    cells: Iterable[Mapping],
    *,
    shared: Mapping[str, Any] | None = None,
    workers: int | None = None,
    client: Any = None,
    results: str | Path | None = None,
    progress: bool | CellProgress = True,
) -> Iterator[Row]:
    """The rows of `map_cells` one by one, as cells finish.

    Closing the iterator, or a KeyboardInterrupt, ends the sweep at once: cells that run are dropped, no
    worker stays busy.

    Args:
        function: called as function(**shared, **cell); returns a dict of plain values. It may be defined in a
            notebook.
        cells: dicts of plain values (numbers, strings, True, False, None), no two alike.
        shared: further arguments, the same for all cells: images, logits, networks. They travel to each
            worker once, where an argument in a cell would travel with every cell.
        workers: processes, of one thread each; by default one for each physical core. They stay for the next
            sweep for some minutes. 0 computes in this process, also on one thread.
        client: a `dask.distributed.Client`, to compute on its workers instead. A cluster that has lost them all
            is waited for, unless Dask's setting `distributed.scheduler.no-workers-timeout` sets an end to that.
        results: a file of JSON lines to which rows are appended as they come. Where it exists, cells that
            have a row there are not computed again; their rows come first. So a sweep that was stopped or
            killed goes on with the cells it had not finished. Cells that failed are tried again.
        progress: True for a bar on a terminal and one closing line elsewhere, False for silence, or a
            callable that takes (cells done, cells in all).

    Yields:
        {**cell, **result}; for a cell that failed {**cell, "error": "ValueError: ..."}.

    Raises:
        ValueError: no cells, cells alike or not plain; a number of workers below 0, or with a client;
            `results` belongs to another sweep: other function, shared arguments or versions.
    """
    shared = dict(shared or {})
    settings = {"function": describe(function), "shared": describe(shared)} if results is not None else {}
    return iterate_groups(
        functools.partial(_one_by_one, function, shared), [[cell] for cell in _plain_cells(cells)],
        settings=settings, workers=workers, client=client, results=results, progress=progress,
    )  # fmt: skip


def iterate_groups(
    compute: backends.Compute,
    groups: Sequence[Group],
    *,
    settings: Row,
    workers: int | None,
    client: Any,
    results: str | Path | None,
    progress: bool | CellProgress,
    stop: threading.Event | None = None,
) -> Iterator[Row]:
    """As `iterate_cells`, for cells that are computed several together: compute(group) gives a list with a
    result or a `kdlib.sweeps.backends.Failure` for each cell of the group. `settings` decide whether `results` fit.

    Setting `stop`, from another thread, ends the rows as closing the iterator does: worker processes within
    a second, this process or a cluster once a group has finished.

    A group of which some cells have a row is computed whole, so that a cell's companions, on which its last
    digits may depend, are always the same.
    """
    where = _backend(workers, client)
    journal = Journal(results, settings)
    return _rows(where, compute, groups, journal, _reporter(progress), stop or threading.Event())


def table(rows: Iterable[Row], cells: Sequence[Cell]) -> pandas.DataFrame:
    """The rows as a table in the order of the cells; RuntimeError where all of them failed."""
    found = {_key(row, cells[0]): row for row in rows}
    frame = pandas.DataFrame([found[_key(cell, cells[0])] for cell in cells])
    if "error" in frame:
        if frame["error"].notna().all():
            raise RuntimeError(f"all {len(frame)} cells failed, the first with {frame['error'][0]}")
        frame["error"] = frame.pop("error")  # behind the results, also where the first cell failed
    return frame


def _rows(
    where: Callable,
    compute: backends.Compute,
    groups: Sequence[Group],
    journal: Journal,
    report: CellProgress,
    stop: threading.Event,
) -> Iterator[Row]:
    key = functools.partial(_key, names=groups[0][0])
    every = [cell for group in groups for cell in group]
    known = {key(row): row for row in journal.rows}
    found = [known[key(cell)] for cell in every if key(cell) in known]
    todo = [group for group in groups if any(key(cell) not in known for cell in group)]

    def computed() -> Iterator[Row]:
        for finished in where(compute, todo):
            if finished is not None:
                new = [pair for pair in zip(*finished, strict=True) if key(pair[0]) not in known]
                journal.append(cell | result for cell, result in new if not isinstance(result, Failure))
                for cell, result in new:
                    yield _failed(cell, result) if isinstance(result, Failure) else cell | result
            if stop.is_set():
                return

    with journal:
        for done, row in enumerate(itertools.chain(found, computed()), start=1):
            report(done, len(every))
            yield row


def _failed(cell: Cell, failure: Failure) -> Row:
    warnings.warn(f"the cell {cell} failed:\n{failure.trace}", RuntimeWarning, stacklevel=3)
    return cell | {"error": failure.error}


def _one_by_one(function: Callable[..., Mapping], shared: Mapping[str, Any], group: Group) -> Outcome:
    [cell] = group
    result = function(**shared, **cell)
    if not isinstance(result, Mapping):
        raise TypeError(f"the function must return a dict of plain values, got {type(result).__name__}")
    if not cell.keys().isdisjoint(result):
        raise ValueError(f"the function must not return the names of settings, got {list(result)}")
    return [{name: _plain("the result", name, value) for name, value in result.items()}]


def workers_rule(name: str, value: Any) -> int | None:
    """A rule for `kdlib._checks.checked`: a number of processes, 0 for this one, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")
    return int(value)


def processes(workers: int | None, client: Any) -> int:
    """How many processes these arguments of `iterate_cells` give, at least 1; ValueError where they do not fit."""
    if client is None:
        workers = workers_rule("workers", workers)
        return max(1, backends.physical_cores() if workers is None else workers)
    if workers is not None:
        raise ValueError(f"workers={workers} has no meaning with a client, which has its own workers")
    return max(1, len(client.nthreads()))


def _backend(workers: int | None, client: Any) -> Callable:
    count = processes(workers, client)
    if client is not None:
        from kdlib.sweeps.cluster import on_cluster

        return functools.partial(on_cluster, client=client)
    return (
        backends.in_this_process if workers == 0 else functools.partial(backends.on_processes, workers=count)
    )


def _key(row: Row, names: Iterable[str]) -> tuple:
    """What tells cells apart; 1 and 1.0 are one setting, also after a round through JSON."""
    return tuple(row[name] for name in names)


def _plain_cells(cells: Iterable[Mapping]) -> list[Cell]:
    plain = [{name: _plain("a cell", name, value) for name, value in cell.items()} for cell in cells]
    if not plain:
        raise ValueError("cells must not be empty")
    for cell in plain:
        if set(cell) != set(plain[0]):
            raise ValueError(f"cells must have the same settings, got {plain[0]} and {cell}")
    seen = set()
    for cell in plain:
        if _key(cell, plain[0]) in seen:
            raise ValueError(f"cells must differ, got {cell} twice")
        seen.add(_key(cell, plain[0]))
    return plain


def _plain(owner: str, name: str, value: Any) -> _PLAIN:
    """A number, string or None, also out of a NumPy or PyTorch scalar."""
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        value = value.item()
    if not isinstance(name, str) or not isinstance(value, _PLAIN):
        kind = type(value).__name__
        raise ValueError(f"{owner} must hold plain values by name, got {name}={value!r} of type {kind}")
    return value


def _reporter(progress: bool | CellProgress) -> CellProgress:
    progress = progress_rule("progress", progress)
    if callable(progress):
        return progress
    if not progress:
        return _silent
    return _bar() if sys.stdout.isatty() else _closing_line


def _silent(done: int, total: int) -> None:
    """The progress of `progress=False`."""


def _bar() -> CellProgress:
    from tqdm import tqdm

    bar = tqdm(file=sys.stdout, unit="cell", dynamic_ncols=True)

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return report


def _closing_line(done: int, total: int) -> None:
    if done == total:
        print(f"{total} cells done")
