"""Every test runs with the shape annotations of kdlib checked by beartype, and with its share of the cores."""

import os

import pytest
from jaxtyping import install_import_hook

# Before torch is imported: test processes that run side by side would otherwise fight for the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

install_import_hook("kdlib", "beartype.beartype")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _required((yield), item)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _required((yield), collector)


def _required(report, node):
    """With KDLIB_REQUIRE_BROWSER=1, as in CI, a browser test that would be skipped fails instead."""
    if report.skipped and "browser" in node.path.parts and os.environ.get("KDLIB_REQUIRE_BROWSER") == "1":
        report.outcome = "failed"
        report.longrepr = f"KDLIB_REQUIRE_BROWSER=1 allows no skip: {report.longrepr}"
    return report
