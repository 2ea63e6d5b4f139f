"""Networks that are compiled, scripted, traced, exported, quantised or spread: captured, or refused with a sentence."""

import copy
import subprocess
import sys

import pytest
import torch
from architectures import SMALL, Halvings, pooling_network
from torch import nn

from kdlib import features


class Holder(nn.Module):
    """A network of Python around a part."""

    def __init__(self, part):
        super().__init__()
        self.part, self.head = part, nn.Linear(5, 3)

    def forward(self, images):
        return self.head(self.part(images))


def test_scripted_traced_and_exported_models_are_refused_with_a_sentence():
    images = torch.randn(2, 1, 16, 16)
    model = pooling_network().eval()
    scripted, traced = torch.jit.script(model), torch.jit.trace(model, images)
    exported = torch.export.export(model, (images,))
    for graph, layer in [
        (scripted, "0.0"),
        (traced, "0.0"),
        (Holder(scripted), "part.0"),
        (Holder(traced), "part"),
    ]:
        with pytest.raises(
            ValueError, match=f"layer '{layer}' is part of a TorchScript model.*capture the module"
        ):
            features.capture(graph, [layer])
    for graph in (exported.module(), torch.fx.symbolic_trace(model)):
        with pytest.raises(
            ValueError, match="layer '0.0' is part of a traced or exported graph.*capture the module"
        ):
            features.capture(graph, ["0.0"])
    with pytest.raises(TypeError, match="must be a torch.nn.Module, got ExportedProgram; give the module"):
        features.capture(exported, ["0.0"])
    for graph in (scripted, traced, exported.module()):
        with pytest.raises(
            ValueError, match="teacher is a scripted, traced or exported graph.*give the module"
        ):
            features.suggest_layers(model, graph, SMALL)
    with pytest.raises(
        TypeError, match="teacher must be a torch.nn.Module, got ExportedProgram; give the module"
    ):
        features.suggest_layers(model, exported, SMALL)


def test_what_runs_modules_inside_or_around_a_graph_is_captured():
    images = torch.randn(2, 1, 16, 16)
    model = pooling_network().eval()
    _, expected = features.capture(model, ["0.0.0"])(images)
    _, found = features.capture(torch.fx.symbolic_trace(model), ["0.0.0"])(images)
    assert torch.equal(found["0.0.0"], expected["0.0.0"])
    holder = Holder(torch.jit.script(model))
    logits, found = features.capture(holder, ["head"])(images)
    assert torch.equal(found["head"], logits)
    with pytest.raises(ValueError, match="student has no layers inside whose features could be paired"):
        features.suggest_layers(holder, model, SMALL)


def test_compiled_models_run_as_they_are():
    model, images = pooling_network().eval(), torch.randn(2, 1, 16, 16)
    logits, expected = features.capture(model, ["0.1"])(images)
    compiled = torch.compile(model)
    assert features.suggest_layers(compiled, model, SMALL)[0] == ("_orig_mod.0.0", "0.0")
    found_logits, found = features.capture(compiled, ["_orig_mod.0.1", "0.1"])(images)
    assert torch.equal(found_logits, logits)
    assert torch.equal(found["0.1"], expected["0.1"]) and torch.equal(found["_orig_mod.0.1"], expected["0.1"])
    in_place = copy.deepcopy(model)
    in_place.compile()
    assert torch.equal(features.capture(in_place, ["0.1"])(images)[1]["0.1"], expected["0.1"])


def test_captured_models_can_be_compiled():
    # In a process of its own: the compiler does not follow the checks of annotations that tests run under.
    code = """
import torch
from torch import nn
from kdlib import features

model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True)), nn.Flatten(), nn.Linear(64, 3))
captured, images = features.capture(model, ["0"]), torch.randn(2, 1, 6, 6)
expected, compiled = captured(images), torch.compile(captured, backend="eager")
for _ in range(2):
    logits, found = compiled(images)
    assert torch.equal(logits, expected[0]) and torch.equal(found["0"], expected[1]["0"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised_models_give_numbers_as_features():
    images = torch.randn(2, 1, 16, 16)
    perceptron = nn.Sequential(
        nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5)
    )
    dynamic = torch.ao.quantization.quantize_dynamic(perceptron, {nn.Linear})
    _, found = features.capture(dynamic, ["1", "4"])(images)
    assert torch.equal(found["1"], dynamic[1](images.flatten(1))) and found["4"].shape == (2, 8)
    assert features.suggest_layers(dynamic, perceptron, SMALL) == [("2", "2"), ("4", "4")]
    static = torch.ao.quantization.QuantWrapper(Halvings(lambda maps: maps)).eval()
    static.qconfig = torch.ao.quantization.default_qconfig
    prepared = torch.ao.quantization.prepare(static)
    prepared(images)
    static = torch.ao.quantization.convert(prepared)
    logits, found = features.capture(static, ["module.blocks.0"])(images)
    maps = found["module.blocks.0"]
    assert maps.dtype == torch.float32 and maps.shape == (2, 4, 8, 8) and torch.equal(logits, static(images))
    pairs = features.suggest_layers(static, Halvings(lambda maps: maps), SMALL)
    assert pairs == [(f"module.blocks.{i}", f"blocks.{i}") for i in range(3)]


def test_a_replica_on_each_device_is_refused():
    model = nn.DataParallel(pooling_network())
    model.device_ids = [0, 1]
    with pytest.raises(
        ValueError, match=r"layer '0\.0' runs on 2 devices.*nn\.DataParallel\(capture\(model\.module"
    ):
        features.capture(model, ["0.0"])
