"""The package behind the Distillation Workbook.

Submodules are imported on first use, so that `import kdlib` and `kdlib --help` stay light.
"""

import importlib

__version__ = "0.1.0"

_SUBMODULES = (
    "clinic",
    "data",
    "datafree",
    "features",
    "inference",
    "loss_doctor",
    "losses",
    "metrics",
    "models",
    "peers",
    "sweeps",
    "teachers",
    "training",
)


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"kdlib.{name}")
    raise AttributeError(f"module 'kdlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
