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
    """With KDLIB_REQUIRE_BROWSER=1, as in CI, a browser test that would be skipped fails instead."""
    report = yield
    if report.skipped and "browser" in item.path.parts and os.environ.get("KDLIB_REQUIRE_BROWSER") == "1":
        report.outcome = "failed"
        report.longrepr = f"KDLIB_REQUIRE_BROWSER=1 does not allow this test to be skipped: {report.longrepr}"
    return report
