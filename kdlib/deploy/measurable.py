"""What `kdlib.deploy.benchmark` measures, and rules for the arguments that name it (as in `kdlib.deploy.arguments`)."""

from collections.abc import Callable, Mapping
from numbers import Integral
from os import PathLike
from typing import Any

from torch import nn

from kdlib._checks import positive_integer
from kdlib.deploy import arguments, networks

Model = str | PathLike | nn.Module | Callable
Clock = Callable[[], int]


def model(name: str, value: Any) -> Model:
    """The path of a file, a network of torch, or any function of a batch of images.

    Raises:
        TypeError, ValueError: it is none.
        FileNotFoundError: the path of a file that is not there.
    """
    if isinstance(value, str | PathLike):
        return arguments.file_to_read(name, value)
    if not callable(value):
        raise TypeError(
            f"{name} must be a path, a network or a function of images, got {type(value).__name__}"
        )
    return networks.network(name, value) if isinstance(value, nn.Module) else value


def models(name: str, value: Any) -> dict[str, Model]:
    """A name for each of several models.

    Raises:
        TypeError, ValueError: it is none, or names none.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must name each model, as in {{'student': path}}, got {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} must name at least one model, got none")
    return {
        arguments.text(f"each name in {name}", key): model(f"{name}[{key!r}]", one)
        for key, one in value.items()
    }


def batch_sizes(name: str, value: Any) -> tuple[int, ...]:
    """Distinct numbers of images, or one of them.

    Raises:
        TypeError, ValueError: they are none.
    """
    found = (
        [value] if isinstance(value, Integral) else arguments.listed(name, value, "a list of whole numbers")
    )
    sizes = [positive_integer(name, size) for size in found]
    if not sizes or len(set(sizes)) != len(sizes):
        raise ValueError(f"{name} must be distinct numbers, at least one, got {sizes}")
    return tuple(sizes)


def clock(name: str, value: Any) -> Clock:
    """A function without arguments that counts nanoseconds.

    Raises:
        TypeError: it is none.
    """
    if not callable(value):
        raise TypeError(
            f"{name} must be a function such as time.perf_counter_ns, got {arguments.short(value)}"
        )
    return value
