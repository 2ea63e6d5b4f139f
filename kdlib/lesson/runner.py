"""Notebooks without a browser: papermill, one process a notebook, a page of HTML each and a summary.

`run` is what `kdlib run` calls and what the tests call, so that a lesson is executed in one way only. Every
notebook gets the interpreter that runs this module, whatever kernel is installed for the user under the name
`python3`, and this copy of kdlib.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import nbformat.reader
from ipykernel.kernelspec import write_kernel_spec

from kdlib import _files
from kdlib.lesson import course, page, profiles

_STOP_SECONDS = 10
# What a shell starts in the background ignores SIGINT and hands that on; papermill ends its kernel on SIGINT. What is
# set to None is not imported: jsonschema would spend 2 s on a grammar of internationalised addresses, which no
# notebook is checked by, and does without where it is not installed. And the notebook is written when it ends, however
# it ends, instead of before and after each cell, which takes a tenth of the time of a short lesson.
_PAPERMILL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules["rfc3987_syntax"] = None
from papermill.cli import papermill
from papermill.engines import NBClientEngine, papermill_engines

class WrittenAtTheEnd(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, execution, *arguments, **options):
        path, execution.output_path = execution.output_path, None
        try:
            super().execute_managed_notebook(execution, *arguments, **options)
        finally:
            execution.output_path = path

papermill_engines.register("at-the-end", WrittenAtTheEnd)
papermill()
"""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Result:
    """What became of one notebook: `status` is passed, failed or interrupted; `seconds` are of execution."""

    notebook: str
    status: str
    seconds: float
    error: str | None = None


def run(
    notebooks: Sequence[str | Path],
    *,
    out: str | Path,
    profile: str | None = None,
    jobs: int | None = None,
    report: Callable[[str], None] = print,
) -> list[Result]:
    """Execute notebooks and write, below `out`, each executed notebook, its HTML page and `summary.json`.

    A notebook that fails stops no other. `summary.json` is a list of {notebook, status, seconds, error} in
    the order given and is rewritten whole whenever a notebook ends, so that it is true at any moment.

    Args:
        notebooks: paths of .ipynb files; one that occurs twice is run once.
        out: the folder of what is written.
        profile: ci, lesson or full; given to the notebook as the parameter `profile` and as KDLIB_PROFILE.
        jobs: how many at a time (default: one per core); with more than one, each kernel has one thread.
        report: receives a line for each notebook that ends.

    Returns:
        What became of each notebook, in the order given.

    Raises:
        FileNotFoundError: a notebook does not exist; nothing has run.
        ValueError: no notebooks, jobs < 1, an unknown profile, or an `out` whose files would replace the notebooks
            themselves; nothing has run.
        OSError: `out` cannot be written; nothing has run.
        KeyboardInterrupt: after the summary was written and every kernel ended.
    """
    sources = _checked(notebooks)
    name = profiles.get(profile).name
    jobs = min(cores() if jobs is None else jobs, len(sources))
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    out = Path(out).resolve()
    targets = _targets(sources, out)
    _require_room(out)
    with tempfile.TemporaryDirectory(prefix=".running-", dir=out) as scratch:
        batch = _Batch(name, Path(scratch), _environment(name, Path(scratch), jobs))
        return _run_all(batch, sources, targets, jobs, out / "summary.json", report)


def table(results: Sequence[Result]) -> str:
    """A line for each notebook: status, seconds, name, and the first line of its error."""
    lines = [f"{'status':<12}{'seconds':>8}  notebook"]
    for result in results:
        lines.append(f"{result.status:<12}{result.seconds:>8.1f}  {result.notebook}")
        if result.error:
            lines.append(f"{'':<22}{result.error.splitlines()[0]}")
    return "\n".join(lines)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _checked(notebooks: Sequence[str | Path]) -> dict[str, Path]:
    """Name as given -> absolute path, each file once."""
    sources = {path.resolve(): str(path) for path in map(Path, reversed(list(notebooks)))}
    if not sources:
        raise ValueError("notebooks is empty: there is nothing to run")
    absent = [name for path, name in reversed(sources.items()) if not path.is_file()]
    if absent:
        raise FileNotFoundError(f"no such notebook: {', '.join(absent)}")
    return {name: path for path, name in reversed(sources.items())}


def _targets(sources: dict[str, Path], out: Path) -> dict[str, Path]:
    """Where each notebook goes: side by side, or in its folder where two names are the same."""
    paths = list(sources.values())
    parent = Path(os.path.commonpath([path.parent for path in paths]))
    alone = len({path.name.casefold() for path in paths}) == len(paths)
    targets = {
        name: out / (path.name if alone else path.relative_to(parent)) for name, path in sources.items()
    }
    overwritten = [name for name, target in targets.items() if target in paths]
    if overwritten:
        raise ValueError(f"out={str(out)!r} would replace {', '.join(overwritten)}: choose another folder")
    return targets


def _require_room(out: Path) -> None:
    try:
        _files.writable_folder(out)
    except OSError as error:
        raise OSError(
            f"nothing ran: out={str(out)!r} cannot be written ({error.strerror}); choose another folder"
        ) from error


def _environment(profile: str, scratch: Path, jobs: int) -> dict[str, str]:
    """The kernel environment: its profile, this interpreter as `python3`, this kdlib, its share of cores."""
    write_kernel_spec(scratch / "jupyter" / "kernels" / "python3")
    environment = course.environment(KDLIB_PROFILE=profile)
    course.prepend(environment, "JUPYTER_PATH", scratch / "jupyter")
    if jobs > 1:
        for variable in _THREAD_VARIABLES:
            environment.setdefault(variable, "1")
    return environment


class _Batch:
    """What the notebooks of one run share, and the processes to end when it is interrupted."""

    def __init__(self, profile: str, scratch: Path, environment: dict[str, str]):
        self.profile = profile
        self.scratch = scratch
        self.environment = environment
        self.processes: list[subprocess.Popen] = []
        self.stopped = False
        self._lock = threading.Lock()

    def execute(self, name: str, source: Path, target: Path) -> Result:
        """Run one notebook in a process of its own and put what it left in place."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        executed, complaints = folder / target.name, folder / "stderr.txt"
        start = time.monotonic()
        process = self._start(source, executed, complaints)
        status = process.wait() if process else None
        seconds = round(time.monotonic() - start, 2)
        _remove(target)
        if status == 0:
            return _deliver(Result(name, "passed", seconds), executed, target)
        if self.stopped:
            return Result(name, "interrupted", seconds)
        return _deliver(Result(name, "failed", seconds, _error(executed, complaints)), executed, target)

    def _start(self, source: Path, executed: Path, complaints: Path) -> subprocess.Popen | None:
        command = [sys.executable, "-c", _PAPERMILL, str(source), str(executed)]
        command += [
            "--kernel",
            "python3",
            "--engine",
            "at-the-end",
            "--language",
            "python",
            "--cwd",
            str(source.parent),
            "--no-progress-bar",
        ]
        command += ["--parameters_raw", "profile", self.profile]
        with self._lock, complaints.open("w") as stderr:
            if self.stopped:
                return None
            # A session of its own: the terminal's Ctrl-C must reach papermill once, from stop(), so that it
            # has the time to end its kernel.
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            self.processes.append(process)
            return process

    def stop(self) -> None:
        """End every notebook that is still running."""
        with self._lock:
            self.stopped = True
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            process.terminate() if sys.platform == "win32" else process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _run_all(
    batch: _Batch,
    sources: dict[str, Path],
    targets: dict[str, Path],
    jobs: int,
    summary: Path,
    report: Callable[[str], None],
) -> list[Result]:
    results: dict[str, Result] = {}
    _write_summary(summary, [])
    with ThreadPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(batch.execute, name, source, targets[name]) for name, source in sources.items()
        ]
        try:
            for future in as_completed(futures):
                result = future.result()
                results[result.notebook] = result
                _write_summary(summary, [results[name] for name in sources if name in results])
                report(f"{result.status} in {result.seconds:.1f} s: {result.notebook}")
        except BaseException:
            batch.stop()
            _write_summary(summary, [future.result() for future in futures])
            raise
    return [results[name] for name in sources]


def _write_summary(path: Path, results: list[Result]) -> None:
    _files.write(path, (json.dumps([asdict(result) for result in results], indent=2) + "\n").encode())


def _remove(target: Path) -> None:
    """Take away what an earlier run left, lest it be read as this one's."""
    target.unlink(missing_ok=True)
    target.with_suffix(".html").unlink(missing_ok=True)


def _deliver(result: Result, executed: Path, target: Path) -> Result:
    """Move the executed notebook to `target` and its page beside it; a page that fails fails the notebook."""
    notebook = _read(executed)
    if notebook is None:
        return result
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        html = executed.with_suffix(".html")
        html.write_text(page.render(notebook, target.stem), encoding="utf-8")
        os.replace(html, target.with_suffix(".html"))
    except Exception as error:  # noqa: BLE001 - whatever a formula or a template raises, the others go on
        result.status, result.error = "failed", result.error or f"no HTML page: {error!r}"
    os.replace(executed, target)
    return result


def _read(executed: Path) -> nbformat.NotebookNode | None:
    """The notebook that papermill left; None where it ended before it wrote a whole one."""
    try:
        return nbformat.read(executed, as_version=4)
    except (FileNotFoundError, nbformat.reader.NotJSONError):
        return None


def _error(executed: Path, complaints: Path) -> str:
    """The exception of the cell that failed, else papermill's last line (a dead kernel, no JSON)."""
    notebook = _read(executed)
    for cell in notebook.cells if notebook else ():
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return f"In [{cell.execution_count}]: {output.ename}: {output.evalue}"
    lines = complaints.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "papermill ended without a word")
