"""What is installed, what would fail, and how to mend it: the findings that `kdlib doctor` prints."""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdlib import _files
from kdlib.lesson import course

FINE, OPTIONAL, BROKEN = "ok", "note", "FAIL"

_LESSON_MODULES = ("matplotlib", "ipywidgets", "anywidget", "jupyterlab", "papermill", "nbconvert")
_FRONT_ENDS = ("@jupyter-widgets/jupyterlab-manager", "anywidget")
# Colab brings a Jupyter of its own, whose parts must not be replaced: see docs/starts.md.
_NOT_ON_COLAB = ("jupyter", "kernel", "chromium", "node")


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `state` is FINE, OPTIONAL (the course runs without it) or BROKEN (it does not)."""

    subject: str
    state: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything the course needs. Nothing is fetched; at most the empty cache folder is made."""
    left_out = _NOT_ON_COLAB if _on_colab() else ()
    return [_guarded(subject, check) for subject, check in _CHECKS.items() if subject not in left_out]


def report(findings: list[Finding], *, details: bool = True) -> str:
    """The findings as a table, each remedy below what it mends, and one closing sentence.

    Args:
        findings: of `examine`.
        details: versions and places on the disk, too; where False, only what is said of something broken.
    """
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        detail = finding.detail if details or finding.state == BROKEN else ""
        lines.append(f"{finding.state:<5} {finding.subject:<{width}}  {detail}".rstrip())
        if finding.remedy:
            lines.append(f"{'':<5} {'':<{width}}  -> {finding.remedy}")
    broken = sum(finding.state == BROKEN for finding in findings)
    lines.append(f"\n{broken} of {len(findings)} need mending." if broken else "\nThe course can run here.")
    return "\n".join(lines)


def _on_colab() -> bool:
    return "google.colab" in sys.modules


def _install() -> str:
    """How this kdlib is installed again, with all that the lessons need."""
    if _on_colab():
        return "pip install 'kdlib[colab,deploy]'"
    if course.packaged():
        return "pip install 'kdlib[lab,deploy]'"
    return "make install   (or: pip install -e '.[all]' in the repository)"


def _guarded(subject: str, check: Callable[[str], Finding]) -> Finding:
    """A check that raises is a finding too: whatever broke would break in a lesson as well."""
    try:
        return check(subject)
    except ValueError as error:  # kdlib's own, such as damaged weights: the message says what to do
        return Finding(subject, BROKEN, str(error))
    except Exception as error:  # noqa: BLE001 - any defect of an installation is reported, none ends the report
        return Finding(subject, BROKEN, f"{type(error).__name__}: {error}", _install())


def _python(subject: str) -> Finding:
    return Finding(subject, FINE, f"{platform.python_version()} at {sys.executable}")


def _requirements(subject: str) -> Finding:
    """Compare what is installed with the ranges that kdlib asks for, optional groups included."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(line) for line in importlib.metadata.requires("kdlib") or ()]
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            subject, OPTIONAL, "kdlib runs from a folder, uninstalled: versions not compared", _install()
        )
    if _on_colab():
        required = [line for line in required if not re.search('extra == "(lab|all)"', str(line.marker))]
    wrong = {_disagreement(requirement) for requirement in required if requirement.name != "kdlib"} - {None}
    if wrong:
        return Finding(subject, BROKEN, "; ".join(sorted(wrong)), _install())
    return Finding(
        subject, FINE, f"{len(required)} requirements met by kdlib {importlib.metadata.version('kdlib')}"
    )


def _disagreement(requirement) -> str | None:
    """What is wrong with one requirement; an optional package that is absent is not."""
    optional = requirement.marker is not None and "extra" in str(requirement.marker)
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return None if optional else f"{requirement.name} is missing"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name} {version} is outside {requirement.specifier}"


def _torch(subject: str) -> Finding:
    import torch
    import torchvision

    # A torchvision built for another torch imports, and fails only when one of its own operators is called.
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    accelerator = (
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "none"
    )
    detail = f"torch {torch.__version__}, torchvision {torchvision.__version__}, accelerator: {accelerator}"
    return Finding(subject, FINE, detail)


def _cores(subject: str) -> Finding:
    from kdlib.lesson.runner import cores

    detail = f"{cores()} of {os.cpu_count()} usable, {platform.machine()}"
    if cores() < 2:
        return Finding(
            subject, OPTIONAL, detail, "the lessons' times were measured on 2 cores: expect longer ones"
        )
    return Finding(subject, FINE, detail)


def _data(subject: str) -> Finding:
    from kdlib import data

    images = data.load("fashion-mnist")
    counts = f"{len(images.train)} + {len(images.validation)} + {len(images.test)}"
    return Finding(subject, FINE, f"fashion-mnist: {counts} images, {len(images.classes)} classes")


def _teacher(subject: str) -> Finding:
    from kdlib import data, metrics, teachers

    test = data.load("fashion-mnist").test.take(500)
    accuracy = metrics.accuracy(teachers.load("fashion-mnist"), test)
    detail = f"weights match their manifest; {100 * accuracy:.1f} % on {len(test)} test images"
    if accuracy < 0.9:
        return Finding(
            subject, BROKEN, detail, "a teacher this weak means a defect in this torch: try another version"
        )
    return Finding(subject, FINE, detail)


def _cache(subject: str) -> Finding:
    remedy = "until then teacher logits are computed again in each session"
    folder = _files.cache_folder()
    if folder is None:
        return Finding(subject, OPTIONAL, "this user has no home folder", f"set XDG_CACHE_HOME; {remedy}")
    try:
        _files.writable_folder(folder)
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        return Finding(subject, OPTIONAL, detail, f"make it writable, or set XDG_CACHE_HOME; {remedy}")
    free = shutil.disk_usage(folder).free / 2**30
    return Finding(subject, FINE, f"{folder} is writable, {free:.0f} GiB free")


def _jupyter(subject: str) -> Finding:
    from jupyter_core.paths import jupyter_path

    for name in _LESSON_MODULES:
        importlib.import_module(name)
    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    absent = [name for name in _FRONT_ENDS if not any((folder / name).is_dir() for folder in folders)]
    if absent:
        return Finding(
            subject, BROKEN, f"JupyterLab would not find {', '.join(absent)}: no slider shows", _install()
        )
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _LESSON_MODULES]
    return Finding(subject, FINE, ", ".join(versions))


def _kernel(subject: str) -> Finding:
    """Start this interpreter as a kernel and let it answer: a firewall or a broken ipykernel shows here."""
    import nbformat

    from kdlib.lesson import runner

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import kdlib")])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ipynb"
        nbformat.write(notebook, path)
        (result,) = runner.run([path], out=Path(folder) / "out", report=lambda line: None)
    if result.error:
        return Finding(subject, BROKEN, result.error, _install())
    return Finding(subject, FINE, f"starts, imports kdlib and answers in {result.seconds:.1f} s")


def _notebooks(subject: str) -> Finding:
    folder = course.repository() or course.packaged()
    if folder is None:
        remedy = "change into a copy of the repository to open or run the lessons"
        return Finding(subject, OPTIONAL, f"none in {Path.cwd()} or above it", remedy)
    return Finding(subject, FINE, f"{len(course.lessons(folder))} lessons in {folder / 'notebooks'}")


def _browser(subject: str) -> Finding:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        remedy = "only the browser tests need it: apt-get install chromium"
        return Finding(subject, OPTIONAL, "no chromium found", remedy)
    return Finding(subject, FINE, found)


def _node(subject: str) -> Finding:
    found = shutil.which("node")
    if found is None:
        remedy = "only the tests of the widgets' JavaScript need it: apt-get install nodejs"
        return Finding(subject, OPTIONAL, "no node found", remedy)
    return Finding(subject, FINE, found)


_CHECKS: dict[str, Callable[[str], Finding]] = {
    "python": _python,
    "packages": _requirements,
    "torch": _torch,
    "cores": _cores,
    "data": _data,
    "teacher": _teacher,
    "cache": _cache,
    "jupyter": _jupyter,
    "kernel": _kernel,
    "notebooks": _notebooks,
    "chromium": _browser,
    "node": _node,
}
