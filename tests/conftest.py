"""Every test runs with the shape annotations of kdlib checked by beartype, and with its share of the cores."""

import functools
import inspect
import os
import signal
import typing
from importlib import import_module
from pathlib import Path

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

# Before torch is imported: test processes that run side by side would otherwise fight for the cores, and a sweep or a
# notebook of each of them would start a process for every core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")

# A suite started in the background ignores SIGINT, and with it every process that a test means to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What is first imported by a module under the hook below is compiled from its source, as the hook looks for other .pyc
# files while it runs; so whoever imports all tests imports what they use of other packages before.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in (
        "torch._dynamo", "torchvision", "beartype.door", "pandas", "scipy.stats", "sklearn.metrics",
        "matplotlib.pyplot", "ipywidgets", "optuna",
    ):
        import_module(name)


def checked(function=None, *, typechecker, with_shapes=jaxtyping.jaxtyped):
    """What the hook puts around each function: jaxtyping, which binds the names of all shapes in each call, where the
    function names any; beartype alone where it does not, which takes a tenth of the time; nothing around no annotation.
    """
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if not inspect.isfunction(function) or any(map(names_shapes, function.__annotations__.values())):
        return with_shapes(function, typechecker=typechecker)
    refusing = BeartypeConf(violation_type=jaxtyping.TypeCheckError)
    return beartype(function, conf=refusing) if function.__annotations__ else function


def names_shapes(annotation) -> bool:
    """Is an array with a shape somewhere in it? Of a text, which only jaxtyping can look up, nobody knows."""
    if isinstance(annotation, str) or jaxtyping.AbstractArray in getattr(annotation, "__mro__", ()):
        return True
    parts = annotation if isinstance(annotation, list | tuple) else typing.get_args(annotation)
    return any(map(names_shapes, parts))


jaxtyping.jaxtyped = checked
jaxtyping.install_import_hook("kdlib", "beartype.beartype")


# As in CI: the browser tests run. Where they would be skipped, they fail.
BROWSER_REQUIRED = os.environ.get("KDLIB_REQUIRE_BROWSER") == "1"


def pytest_configure():
    if BROWSER_REQUIRED:
        import_module("playwright.sync_api")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if BROWSER_REQUIRED and report.skipped and "browser" in item.path.parts:
        report.outcome = "failed"
        report.longrepr = f"KDLIB_REQUIRE_BROWSER=1 allows no skip: {report.longrepr}"
    return report


@pytest.fixture
def one_thread():
    """One thread of PyTorch: results bit by bit, and no fight for the cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """No logits known from other tests or earlier runs."""
    from kdlib import _files, _logit_cache

    monkeypatch.setattr(_files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(_logit_cache, "_memory", {})


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> list[Path]:
    """Two untrained students, exported as ONNX files that `kdlib serve` takes: "small" and "other"."""
    from kdlib import data, models
    from kdlib.deploy.export import export_onnx

    dataset, folder = data.load(), tmp_path_factory.mktemp("exported")
    options = {"classes": dataset.classes, "mean": dataset.mean, "std": dataset.std}
    return [
        export_onnx(
            models.build("tiny-cnn", seed=seed), folder / f"{name}.onnx", image_shape=(1, 28, 28), **options
        )
        for seed, name in enumerate(["small", "other"])
    ]
