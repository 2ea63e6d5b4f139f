"""Odd arguments of what measures, describes and serves: a right answer, or an error that names them.

As `test_odd_arguments_deploy.py`, for the rest of kdlib.deploy.
"""

import math
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd import (
    HUGE,
    NETWORKS,
    NUMBERS,
    SHAPE,
    SHAPES,
    SPLIT,
    TEXTS,
    THINGS,
    few,
    itself,
    network,
    or_none,
    paths,
    place,
    positive,
    same_network,
    shape,
    share,
    text,
    texts,
    tried,
    unchecked,
    whole,
)
from torch import nn

from kdlib import data
from kdlib.deploy import benchmark, export, footprint, loading, model_card, runtime, shelf, shelf_recipes
from kdlib.deploy.webapp import background, classifier, server

background, benchmark, classifier, export, footprint, loading, model_card, runtime, server, shelf, shelf_recipes = (
    map(
        unchecked,
        (
            background,
            benchmark,
            classifier,
            export,
            footprint,
            loading,
            model_card,
            runtime,
            server,
            shelf,
            shelf_recipes,
        ),
    )
)
pytestmark = pytest.mark.filterwarnings("ignore")
DATASET = data.ImageDataset(SPLIT, SPLIT, SPLIT, list("abc"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "text.onnx").write_text("no model")
    described = {"image_shape": SHAPE, "classes": list("abc"), "mean": [0.3], "std": [0.25]}
    export.export_onnx(network(), folder / "model.onnx", **described)
    return folder


def only(odd: dict, *names: str) -> dict:
    return {name: odd[name] for name in names}


@settings(few, max_examples=80)
@given(draws=st.data())
def test_footprint(draws, folder):
    call, plain = draws.draw(
        st.sampled_from(
            [
                (footprint.file_size, {"path": folder / "model.onnx"}),
                (footprint.parameters, {"model": network()}),
                (footprint.multiply_adds, {"model": network(), "image_shape": SHAPE}),
            ]
        )
    )
    odd = {"path": (paths(folder, "model.onnx"), place), "model": (NETWORKS, same_network)}
    tried(draws.draw, call, plain, odd | {"image_shape": (SHAPES, shape)})


@settings(few, max_examples=30)
@given(draws=st.data())
def test_peak_memory_starts_no_process_for_nonsense(draws, folder):
    name = draws.draw(st.sampled_from(["path", "image_shape", "batch_size", "threads"]))
    nonsense = [0, -1, 0.5, True, HUGE, 2**63, math.nan]
    plain = {"path": folder / "model.onnx", "image_shape": SHAPE, "batch_size": 1, "threads": 1}
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as error:
        footprint.peak_memory(**plain | {name: draws.draw(st.sampled_from(THINGS + nonsense))})
    assert name in str(error.value) and "could not be measured" not in str(error.value)


@settings(few, max_examples=80)
@given(draws=st.data())
def test_latency_and_throughput(draws, folder):
    ticks = iter(range(0, 10**12, 1000))
    functions = [
        network(),
        network().half(),
        len,
        lambda images: images[0, 0, 0, 0],
        nn.Identity(),
        lambda: 1,
        int,
    ]
    functions += paths(folder, "model.onnx")
    models = [{"a": one} for one in functions] + [functions, {}, {1: len}, {"a": None}, {"a": 3}]
    small = ([], lambda value: whole(value) if value < 100 else 1 / 0)
    plain = {
        "image_shape": SHAPE, "threads": 1, "repeats": 2, "warm_up": 1, "turn": 0, "clock": lambda: next(ticks),
        "models": {"a": network()}, "model": network(), "batch_sizes": (1, 2), "batch_size": 1,
    }  # fmt: skip
    odd = {
        "image_shape": (SHAPES, shape), "threads": ([], whole), "clock": ([], itself), "model": (functions, itself),
        "models": (models, itself), "batch_size": small, "batch_sizes": ([[1, 2], (1,), [1, 1], [0], "12"], itself),
    }  # fmt: skip
    shared = ("image_shape", "threads", "repeats", "warm_up", "turn", "clock")
    if draws.draw(st.booleans()):
        call, names = (
            lambda **options: benchmark.latency(**options).table().shape,
            ("models", "batch_size", *shared),
        )
    else:
        call, names = (
            lambda **options: benchmark.throughput(**options).shape,
            ("model", "batch_sizes", *shared),
        )
    tried(draws.draw, call, only(plain, *names), odd)


@settings(few, max_examples=60)
@given(draws=st.data())
def test_numbers_of_rounds_and_of_milliseconds(draws):
    """Large numbers of rounds are right, and would take years."""
    name = draws.draw(st.sampled_from(["repeats", "warm_up", "turn"]))
    value = draws.draw(
        st.sampled_from([*THINGS, *(number for number in NUMBERS if not is_right(number, name))])
    )
    with pytest.raises((ValueError, TypeError), match=name):
        benchmark.latency({"a": len}, SHAPE, **{name: value})
    with pytest.raises((ValueError, TypeError), match=name):
        benchmark.throughput(len, SHAPE, **{name: value})


def is_right(number: Any, name: str) -> bool:
    if name == "turn":
        return isinstance(number, Real) and not isinstance(number, bool) and 0 <= number <= 1e300
    return isinstance(number, Integral) and not isinstance(number, bool) and number >= 1


@settings(few, max_examples=60)
@given(draws=st.data())
def test_ratio(draws):
    times = pd.DataFrame({"a": np.linspace(2, 2.2, 9), "b": np.ones(9)})
    result = benchmark.Latencies(times, SHAPE, 1, 1, "clock")
    plain = {"result": result, "slow": "a", "fast": "b", "widest": 0.5, "confidence": 0.9}
    odd = {"result": ([times], itself), "slow": (["b", "c"], text), "fast": (["a", "c"], text)}
    odd |= {"widest": ([], positive), "confidence": ([], share)}
    tried(draws.draw, lambda **options: tuple(benchmark.ratio(**options)), plain, odd)


CARD = {
    "summary": "a", "intended_use": ["a"], "limits": ["a"], "training_data": "a", "data_licence": "a",
    "evaluation_data": "a", "teacher": "a", "command": "a", "versions": {"torch": "2"},
}  # fmt: skip


@settings(few, max_examples=100)
@given(draws=st.data())
def test_model_card(draws, folder):
    measure = model_card.Measure("a", 1)
    odd = {name: ([], text) for name, value in CARD.items() if isinstance(value, str)}
    odd |= dict.fromkeys(("intended_use", "limits"), (TEXTS, texts)) | {"teacher": ([], or_none(text))}
    odd |= {
        "path": (paths(folder, "model.onnx"), place),
        "versions": ([{"a": 1}, {1: "a"}, {"a": ""}], itself),
    }
    odd |= {"measures": ([(measure,), measure, [1], [measure, None]], itself)}
    tried(
        draws.draw, model_card.model_card, CARD | {"path": folder / "model.onnx", "measures": [measure]}, odd
    )


@settings(few, max_examples=80)
@given(draws=st.data())
def test_measure(draws):
    odd = dict.fromkeys(("name", "interval", "unit", "how"), ([], text))
    odd |= {"value": ([], itself), "low": ([], itself), "high": ([], itself)}
    plain = {"name": "a", "value": 1, "low": 0, "high": 2, "interval": "range", "unit": "", "how": ""}

    def rows(**options):
        measure = model_card.Measure(**options)
        return measure.value, measure.low, measure.high

    tried(draws.draw, rows, plain, odd)


@settings(few, max_examples=60)
@given(draws=st.data())
def test_intervals_and_views_of_the_shelf(draws):
    right = torch.arange(20) % 3 > 0
    odd_answers = [
        right,
        right.tolist(),
        right.numpy(),
        right.float(),
        right[None],
        right[:0],
        right[:1],
        right.to("meta"),
    ]
    call, plain = draws.draw(
        st.sampled_from(
            [
                (shelf.accuracy_interval, {"right": right, "confidence": 0.9}),
                (shelf.paired_difference, {"right": right, "other": ~right, "confidence": 0.9}),
                (lambda split: len(shelf_recipes.views(split)), {"split": SPLIT}),
            ]
        )
    )
    odd = dict.fromkeys(("right", "other"), (odd_answers, itself)) | {"confidence": ([], share)}
    tried(draws.draw, call, plain, odd | {"split": ([SPLIT.images, DATASET], itself)})


def test_names_and_folders_of_the_shelf(folder):
    for value in (*NUMBERS, *THINGS, "Distilled", "distilled.onnx", "../distilled"):
        for function in (shelf.path, shelf.manifest, shelf.right_answers, shelf.passes, shelf.effort, shelf.build):
            with pytest.raises((ValueError, TypeError), match="unknown model"):
                function(value)
    for value in (folder, folder / "absent", 3, None, b"a", ""):
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match="folder"):
            shelf.manifest("distilled", folder=value)
    for value in (folder / "text.onnx", 3, None, b"a", ""):
        with pytest.raises((ValueError, TypeError), match="folder"):
            shelf.build("distilled", folder=value)


@settings(few, max_examples=120)
@given(draws=st.data())
def test_what_opens_files_and_makes_images(draws, folder):
    model = folder / "model.onnx"
    call, plain = draws.draw(
        st.sampled_from(
            [
                (
                    lambda **options: loading.noise_images(**options).shape,
                    {"image_shape": SHAPE, "batch_size": 2},
                ),
                (
                    lambda **options: len(loading.open_file(**options)(images)()),
                    {"path": model, "threads": 1},
                ),
                (
                    lambda **options: type(runtime.session(**options)),
                    {"model": model.read_bytes(), "threads": 1},
                ),
                (lambda **options: export.pictures(**options).shape, {"count": 2, "shape": SHAPE}),
                (export.logit_difference, {"logits": torch.eye(3), "expected": torch.ones(3, 3)}),
            ]
        )
    )
    images = loading.noise_images(SHAPE)
    matrices = [torch.eye(2), torch.eye(3).long(), torch.eye(3)[0], torch.eye(3).tolist(), torch.zeros(0, 3)]
    odd = dict.fromkeys(("image_shape", "shape"), (SHAPES, shape)) | {
        "path": (paths(folder, "model.onnx"), place)
    }
    odd |= dict.fromkeys(("batch_size", "count", "threads"), ([], whole))
    odd |= dict.fromkeys(("logits", "expected"), (matrices, itself)) | {"model": ([], itself)}
    tried(draws.draw, call, plain, odd)


def test_what_is_served(folder):
    good = folder / "model.onnx"
    lists = [good, str(good), None, 3, [3], [None], [folder], [folder / "absent.onnx"], b"a", {good: 1}, [""]]
    for value in [*lists, [folder / "text.onnx"]]:
        for call in (classifier.load, partial(server.serve, host="127.0.0.1", port=0)):
            with pytest.raises(
                (ValueError, TypeError, FileNotFoundError), match="path|text.onnx: onnxruntime"
            ):
                call(value)
    for value in (good, None, 3, [3], b"a", {good: 1}):
        with pytest.raises(TypeError, match="paths must be a list of paths|each of paths must be a path"):
            background.Server(value)
    for port in (-1, 65536, HUGE, 0.5, "80", None, True):
        with pytest.raises((ValueError, TypeError), match="port must be"):
            server.serve([good], port=port)
    for host in (None, 3, b"127.0.0.1", "nowhere.invalid", "\0", "a b", "x" * 300):
        with pytest.raises((ValueError, TypeError), match="host"):
            server.serve([good], host=host, port=0)
