"""Odd values for arguments, and what they mean in plain ones: for the property tests of deploy and models."""

import importlib.util
import math
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import nn

from kdlib import data
from kdlib.teachers import freeze

few = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SHAPE = (1, 6, 6)
SPLIT = data.ImageSplit(
    torch.randint(0, 256, (12, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    torch.arange(12) % 3,
)


def unchecked(module: ModuleType) -> ModuleType:
    """The module as a user has it: without the type checker that the tests put around kdlib."""
    name = f"unchecked_{module.__name__.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    copy = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
    spec.loader.exec_module(copy)
    return copy


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
    return nn.Sequential(*layers).eval()


class Returning(nn.Module):
    """A network that returns something else than logits, or nothing for some images."""

    def __init__(self, function: Callable):
        super().__init__()
        self.inner, self.function = network(), function

    def forward(self, images):
        return self.function(self.inner(images))


# ---- odd values

HUGE = 10**400  # no float
NUMBERS = [
    0, 1, -1, 2, 3, 7, 2**31, 2**63, HUGE, 0.0, -0.0, 0.3, 0.5, 4.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, True,
    False, Fraction(1, 3), Decimal("0.5"), 1j, np.int64(3), np.uint8(2), np.float32(0.5), np.float64(4), np.bool_(True),
]  # fmt: skip
THINGS = [
    None, "", "4", "a", b"4", [], [4.0], (), {}, {1}, {"a": 1}, object(), int, len, Path("4"), slice(2), np.array(4.0),
    np.array([4.0]), np.array("4"), torch.tensor(4.0), torch.tensor([4, 4]), torch.float32, ..., "a\0b", " ", range(3),
]  # fmt: skip
SHAPES = [
    (1, 6, 6), [1, 6, 6], np.array([1, 6, 6]), torch.Size(SHAPE), torch.tensor(SHAPE), (1, 6), (2, 1, 6, 6), (0, 6, 6),
    (1, -6, 6), (1.0, 6, 6), ("1", "6", "6"), "166", (True, 6, 6), (1, 2**31, 2**31), (1, HUGE, 6), (3, 6, 6),
    (1, 1, 1), (1, 7, 7), (1, math.nan, 6), [[1, 6, 6]],
]  # fmt: skip
TEXTS = [
    list("abc"), tuple("abc"), np.array(list("abc")), pd.Index(list("abc")), "abc", set("abc"), dict.fromkeys("abc"),
    [1, 2, 3], ["a", "a", "b"], ["a", "b"], ["a", "b", ""], ["a", "b", None], ["a"], list("abcd"), [b"a", b"b", b"c"],
]  # fmt: skip
LISTS = [
    (0.3,), np.array([0.3]), torch.tensor([0.3], dtype=torch.float64), torch.tensor([[[0.3]]], dtype=torch.float64),
    ["0.3"], [None], [math.nan], [math.inf], [0], [-0.5], [HUGE], [1e300], [0.3, 0.3], [[0.3], [0.3, 0.3]], [True],
    [1j], np.array([0.3], dtype=object), torch.tensor([0.3], device="meta"),
]  # fmt: skip
NETWORKS = [
    lambda: freeze(network()), lambda: torch.compile(network()), lambda: nn.DataParallel(network()),
    lambda: network().double(), lambda: network().half(), lambda: network().train(), lambda: network().to("meta"),
    lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), nn.Identity, nn.Flatten, lambda: nn.Conv2d(1, 3, 3),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), lambda: Returning(lambda logits: (logits,)),
    lambda: Returning(lambda logits: None), lambda: Returning(lambda logits: logits.argmax(1)),
    lambda: Returning(lambda logits: {}["a"]), lambda: Returning(lambda logits: logits.view(2, -1)),
    lambda: Returning(lambda logits: logits * math.nan), lambda: torch.jit.trace(network(), torch.zeros(2, *SHAPE)),
    lambda: torch.export.export(network(), (torch.zeros(2, *SHAPE),)),
    lambda: torch.export.export(network(), (torch.zeros(2, *SHAPE),)).module(),
    lambda: network().state_dict(), lambda: network, lambda: type(network()),
]  # fmt: skip


def paths(folder: Path, name: str) -> list[Any]:
    """Where something is, cannot be, or may be; `name` is that of a file of the right kind."""
    inside = ["", "text.onnx", "absent.onnx", "text.onnx/a", "new/a", "a" * 300, name]
    odd = [str(folder / name), str(folder / name).encode(), f"{folder}/", "\0", 3]
    return [folder / place for place in inside] + odd


# ---- what an accepted value means; an AssertionError where it should have been refused


def whole(value: Any) -> int:
    assert isinstance(value, Integral) and not isinstance(value, bool) and value >= 1, "accepted"
    return int(value)


def real(value: Any) -> float:
    assert isinstance(value, Real) and not isinstance(value, bool), "accepted"
    return float(value)


def positive(value: Any) -> float:
    assert 0 < real(value) < math.inf, "accepted"
    return float(value)


def share(value: Any) -> float:
    assert 0 <= real(value) <= 1, "accepted"
    return float(value)


def shape(value: Any) -> tuple[int, ...]:
    assert not isinstance(value, str) and len(value) == 3, "accepted"
    return tuple(map(whole, (value.tolist() if hasattr(value, "tolist") else value)))


def texts(value: Any) -> list[str]:
    assert not isinstance(value, str | set | dict) and all(isinstance(one, str) for one in value), "accepted"
    return list(map(str, value))


def numbers(value: Any) -> list[float]:
    found = np.asarray(value.tolist() if hasattr(value, "tolist") else value)
    assert found.dtype.kind in "iuf" and np.isfinite(found).all(), "accepted"
    return [float(number) for number in found.flatten()]


def text(value: Any) -> str:
    assert isinstance(value, str), "accepted"
    return value


def flag(value: Any) -> bool:
    assert isinstance(value, bool | np.bool_), "accepted"
    return bool(value)


def place(value: Any) -> Path:
    assert isinstance(value, str | Path), "accepted"
    return Path(value)


def same_network(value: Any) -> nn.Module:
    """What has as many parameters as `network` is it, in a wrapper, in another mode or precision."""
    assert isinstance(value, nn.Module), "accepted"
    counts = [sum(parameter.numel() for parameter in each.parameters()) for each in (value, network())]
    return network() if counts[0] == counts[1] and not isinstance(value, Returning) else value


def itself(value: Any) -> Any:
    return value


def or_none(meaning: Callable) -> Callable:
    return lambda value: None if value is None else meaning(value)


# ---- one odd argument in a call


def tried(
    draw: Callable, call: Callable, plain: dict[str, Any], odd: dict[str, tuple[list, Callable]]
) -> None:
    """Replace one argument; compare what comes back, if anything does, with what its plain form gives.

    Args:
        draw: of hypothesis.
        call: the function.
        plain: arguments with which it works.
        odd: argument -> odd values for it, beside numbers and things of all kinds, and what such a value means.
    """
    name = draw(st.sampled_from(sorted(set(odd) & set(plain))), label="argument")
    values, meaning = odd[name]
    value = draw(st.sampled_from([*values, *values, *NUMBERS, *THINGS]), label="value")
    if values is NETWORKS and any(value is build for build in NETWORKS):
        value = value()
    try:
        found = call(**(plain | {name: value}))
    except (ValueError, TypeError, FileNotFoundError) as error:
        names = (
            [name, Path(value).name] if isinstance(value, str | Path) else [name]
        )  # of an argument, or of its file
        assert any(one and one in str(error) for one in names), f"{name} is not named in: {error!r}"
        assert "Type-check error" not in str(error), f"only the tests' type checker refuses this: {error}"
    else:
        equal(found, call(**(plain | {name: meaning(value)})))


def equal(found: Any, expected: Any) -> None:
    if isinstance(expected, nn.Module):
        found, expected = (
            torch.cat([torch.ones(1), *(parameter.flatten().float() for parameter in each.parameters())])
            for each in (found, expected)
        )
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    else:
        assert found == (pytest.approx(expected, nan_ok=True) if isinstance(expected, float) else expected)
