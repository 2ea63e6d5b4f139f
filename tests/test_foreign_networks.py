"""Networks of all origins through every door that takes one: each cell works, or is refused with a sentence.

A cell that works gives the right answer, compared with one made by hand, and leaves the network as it was. A cell
that refuses raises a ValueError or a TypeError that says what helps.
"""

import math
import re
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from architectures import Attention, ChannelsLast, Patches, encoder, small_vit, swin
from jaxtyping import TypeCheckError
from torch import nn
from torchvision import models as zoo
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.googlenet import BasicConv2d, GoogLeNetOutputs
from torchvision.models.googlenet import Inception as Branches
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock

from kdlib import _files, _logit_cache, metrics, models, sweeps
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.deploy import runtime
from kdlib.deploy.compress import prune_channels
from kdlib.deploy.export import export_onnx
from kdlib.features import capture, suggest_layers
from kdlib.teachers import cached_logits, freeze
from kdlib.training import distill, train

CLASSES = list("abcde")
SMALL, COLOURED = (1, 16, 16), (3, 32, 32)


# ---- the networks


def plain(width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


class Returning(nn.Module):
    """A network that returns its logits in something."""

    def __init__(self, wrap: Callable):
        super().__init__()
        self.inner, self.wrap = plain(), wrap

    def forward(self, images):
        return self.wrap(self.inner(images))


def an_object(logits):
    return SimpleNamespace(logits=logits)


def a_tuple(logits):
    return logits, logits.mean()


def a_dictionary(logits):
    return {"logits": logits}


class BuffersOnly(nn.Module):
    """The nearest of five random prototypes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("prototypes", torch.randn(5, math.prod(SMALL)))

    def forward(self, images):
        return -torch.cdist(images.flatten(1), self.prototypes)


class Formula(nn.Module):
    """No parameters and no buffers: the brightness of five stripes."""

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, (5, 1)).flatten(1)


def frozen_in_parts():
    model = plain().train()
    model[0].requires_grad_(False)
    model[0][1].eval()
    return model


def program(dynamic: bool = True):
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    return torch.export.export(plain().eval(), (torch.randn(2, *SMALL),), dynamic_shapes=shapes)


def quantised():
    return torch.ao.quantization.quantize_dynamic(plain().eval(), {nn.Linear}, dtype=torch.qint8)


def weight_normed():
    model = plain()
    nn.utils.parametrizations.weight_norm(model[4])
    return model


def compiled_in_place():
    model = plain()
    model.compile(backend="eager")
    return model


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, 5))


def lazy_run_once():
    model = lazy()
    model(torch.randn(2, *SMALL))
    return model


def mobilenet_v3():
    blocks = [
        InvertedResidualConfig(8, 3, 16, 8, True, "RE", 2, 1, 1),
        InvertedResidualConfig(8, 5, 24, 16, True, "HS", 2, 1, 1),
    ]
    return zoo.MobileNetV3(blocks, 32, num_classes=5)


def efficientnet():
    blocks = [MBConvConfig(1, 3, 1, 8, 8, 1, 1, 1), MBConvConfig(4, 3, 2, 8, 16, 2, 1, 1)]
    return zoo.EfficientNet(blocks, 0.2, num_classes=5, last_channel=32)


def convnext():
    return zoo.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=5)


def regnet():
    return zoo.RegNet(BlockParams.from_init_params(4, 16, 8.0, 2.0, 8), num_classes=5)


def vgg():
    layers = zoo.vgg.make_layers([8, "M", 16, "M"], batch_norm=True)
    head = [
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(144, 16),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(16, 5),
    ]
    return nn.Sequential(layers, *head)


def resnet():
    model = zoo.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)
    model.layer3 = model.layer4 = nn.Identity()  # most of its weights
    model.fc = nn.Linear(128, 5)
    return model


class Inception(nn.Module):
    """Branches and, in training mode, the logits of an auxiliary head, as GoogLeNet has them."""

    def __init__(self):
        super().__init__()
        self.stem = BasicConv2d(3, 8, kernel_size=3, stride=2)
        self.mixed = Branches(8, 4, 4, 8, 2, 4, 4)
        self.auxiliary = nn.Linear(20, 5)
        self.head = nn.Linear(20, 5)

    def forward(self, images):
        pooled = self.mixed(self.stem(images)).mean(dim=(2, 3))
        if not self.training:
            return self.head(pooled)
        return GoogLeNetOutputs(self.head(pooled), self.auxiliary(pooled), None)


def one_maxvit():
    return zoo.MaxVit((32, 32), 8, 4, [8], [1], 8, 0.1, num_classes=5)


class Row(NamedTuple):
    """A network, the shape of its images, and a layer to capture."""

    build: Callable[[], object]
    image_shape: tuple[int, int, int]
    layer: str


NETWORKS = {
    "resnet": Row(resnet, COLOURED, "layer2"),
    "mobilenet v2": Row(
        partial(zoo.MobileNetV2, 5, 0.25, [[1, 16, 1, 1], [4, 24, 1, 2]]), COLOURED, "features.1"
    ),
    "mobilenet v3": Row(mobilenet_v3, COLOURED, "features.2"),
    "efficientnet": Row(efficientnet, COLOURED, "features.2"),
    "convnext": Row(convnext, COLOURED, "features.3"),
    "regnet": Row(regnet, COLOURED, "trunk_output.block1"),
    "densenet": Row(partial(zoo.DenseNet, 4, (2, 2), 8, num_classes=5), COLOURED, "features.denseblock1"),
    "auxiliary head": Row(Inception, COLOURED, "mixed"),
    "squeezenet": Row(partial(zoo.SqueezeNet, "1_1", 5), COLOURED, "features.3"),
    "shufflenet": Row(partial(zoo.ShuffleNetV2, [1, 1, 1], [8, 16, 32, 64, 64], 5), COLOURED, "stage3"),
    "vgg": Row(vgg, COLOURED, "0.3"),
    "swin": Row(partial(swin, 16), COLOURED, "features.1"),
    "vision transformer": Row(small_vit, COLOURED, "encoder.layers.encoder_layer_1"),
    "maxvit": Row(one_maxvit, COLOURED, "blocks.0"),
    "encoder": Row(lambda: Patches(encoder(batch_first=True), class_token=False), SMALL, "blocks.layers.1"),
    "separate projections": Row(
        lambda: Patches(nn.Sequential(*(Attention() for _ in range(3)))), SMALL, "blocks.1"
    ),
    "channels last": Row(lambda: ChannelsLast(7), SMALL, "blocks.1"),
    "channels-last memory": Row(lambda: plain().to(memory_format=torch.channels_last), SMALL, "1"),
    "returns a tuple": Row(lambda: Returning(a_tuple), SMALL, "inner.1"),
    "returns an object": Row(lambda: Returning(an_object), SMALL, "inner.1"),
    "returns a dictionary": Row(lambda: Returning(a_dictionary), SMALL, "inner.1"),
    "compiled": Row(lambda: torch.compile(plain(), backend="eager"), SMALL, "1"),
    "compiled in place": Row(compiled_in_place, SMALL, "1"),
    "scripted": Row(lambda: torch.jit.script(plain()), SMALL, "1"),
    "traced": Row(lambda: torch.jit.trace(plain().eval(), torch.randn(2, *SMALL)), SMALL, "1"),
    "fx graph": Row(lambda: torch.fx.symbolic_trace(plain()), SMALL, "1.0"),
    "exported": Row(lambda: program().module(), SMALL, "1"),
    "exported, fixed batch": Row(lambda: program(dynamic=False).module(), SMALL, "1"),
    "exported program": Row(program, SMALL, "1"),
    "quantised": Row(quantised, SMALL, "1"),
    "data-parallel": Row(lambda: nn.DataParallel(plain()), SMALL, "1"),
    "float16": Row(lambda: plain().half(), SMALL, "1"),
    "bfloat16": Row(lambda: plain().bfloat16(), SMALL, "1"),
    "float64": Row(lambda: plain().double(), SMALL, "1"),
    "frozen in parts": Row(frozen_in_parts, SMALL, "1"),
    "frozen": Row(lambda: freeze(plain()), SMALL, "network.1"),
    "lazy, run once": Row(lazy_run_once, SMALL, "1"),
    "weight norm": Row(weight_normed, SMALL, "1"),
    "buffers only": Row(BuffersOnly, SMALL, ""),
    "a formula": Row(Formula, SMALL, ""),
}


def built(row: Row):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return row.build()


# ---- what a network was


def state(network) -> dict[str, object]:
    """All that a caller could notice of a network."""
    if not isinstance(network, nn.Module):
        return {}
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    found = {}
    for name, part in network.named_modules():
        found[f"{name}: training"] = part.training
        if not isinstance(part, torch.jit.ScriptModule):
            found[f"{name}: hooks"] = [len(getattr(part, kind)) for kind in hooks]
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            found[name] = "lazy"
        else:
            found[name] = (
                tensor.requires_grad,
                tensor.dtype,
                tensor.device,
                tensor.stride(),
                tensor.grad is None,
            )
            found[f"{name}: values"] = None if tensor.is_meta else tensor.detach().double().flatten().tolist()
    return found


@contextmanager
def in_eval_mode(network: nn.Module):
    modes = [(part, part.training) for part in network.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def images_for(network: nn.Module, split: ImageSplit) -> torch.Tensor:
    return split.normalized(slice(None)).to(next((p.dtype for p in network.parameters()), torch.float32))


def answers(network: nn.Module, split: ImageSplit) -> torch.Tensor:
    """Its logits in eval mode, by hand."""
    with in_eval_mode(network), torch.no_grad():
        output = network(images_for(network, split))
    return getattr(output, "logits", output).float()


# ---- the doors


def split_of(image_shape) -> ImageSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10, *image_shape), dtype=torch.uint8, generator=generator)
    return ImageSplit(images, torch.arange(10) % 5)


def student_for(image_shape) -> nn.Module:
    return models.build(
        "tiny-cnn", num_classes=5, in_channels=image_shape[0], image_size=image_shape[1], seed=3
    )


def as_teacher(network, row, split, tmp_path):
    """A student taught by the network ends as one that is taught by its logits."""
    taught, expected = student_for(row.image_shape), student_for(row.image_shape)
    history = distill(taught, network, split, epochs=2, progress=False)
    distill(expected, answers(built(row), split), split, epochs=2, progress=False)
    assert all(math.isfinite(record["loss"]) for record in history.records)
    for one, other in zip(taught.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-2)


def as_student(network, row, split, tmp_path):
    """Weights that take a gradient move, the others do not, and the loss is finite."""
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in network.named_parameters()}
    teacher = torch.randn(len(split), 5, generator=torch.Generator().manual_seed(1))
    history = distill(network, teacher, split, epochs=1, learning_rate=1e-3, progress=False)
    assert all(math.isfinite(record["loss"]) for record in history.records)
    after = dict(network.named_parameters())
    assert before.keys() == after.keys()
    for name, (values, trained) in before.items():
        assert after[name].requires_grad == trained
        assert trained or torch.equal(after[name], values), f"{name} is frozen and has changed"
    assert any(not torch.equal(after[name], values) for name, (values, _) in before.items())
    assert answers(network, split).isfinite().all()


def captured(network, row, split, tmp_path):
    wrapped = capture(network, [row.layer])
    with in_eval_mode(network):
        logits, features = wrapped(images_for(network, split))
    torch.testing.assert_close(logits.float(), answers(built(row), split), atol=1e-4, rtol=1e-3)
    assert len(features[row.layer]) == len(split) and features[row.layer].ndim in (2, 4)
    assert features[row.layer].isfinite().all()


def suggested(network, row, split, tmp_path):
    pairs = suggest_layers(network, network, row.image_shape)
    assert pairs and all(one == other for one, other in pairs)
    wrapped = capture(network, [one for one, _ in pairs])
    with in_eval_mode(network):
        _, features = wrapped(images_for(network, split))
    assert all(len(values) == len(split) and values.ndim in (2, 4) for values in features.values())


def exported(network, row, split, tmp_path):
    path = export_onnx(
        network,
        tmp_path / "made.onnx",
        image_shape=row.image_shape,
        classes=CLASSES,
        mean=split.mean,
        std=split.std,
    )
    (found,) = runtime.session(path.read_bytes()).run(None, {"images": split.normalized(slice(None)).numpy()})
    torch.testing.assert_close(torch.from_numpy(found), answers(built(row), split), atol=5e-3, rtol=1e-2)


def pruned(network, row, split, tmp_path):
    smaller = prune_channels(network, 0.5, row.image_shape)
    count = [sum(p.numel() for p in model.parameters()) for model in (smaller, network)]
    assert count[0] < count[1]
    logits = answers(smaller, split)
    assert logits.shape == (len(split), 5) and logits.isfinite().all()


def cached(network, row, split, tmp_path):
    for _ in range(2):
        torch.testing.assert_close(
            cached_logits(network, split), answers(built(row), split), atol=1e-3, rtol=1e-3
        )


DOORS = {
    "teacher": as_teacher, "student": as_student, "capture": captured, "suggest_layers": suggested,
    "export_onnx": exported, "prune_channels": pruned, "cached_logits": cached,
}  # fmt: skip


# ---- what is refused, and what the sentence says

NOTHING_TRAINED = "has no weights that take a gradient: nothing would be trained"
PRECISION = r"train them in float32, by model.float\(\)"
INPUT_TYPE = "model cannot process images .* Input type"
MOVED = r"channels of model, a \w+, cannot be followed: .* Such networks take `sparsify`"
WRAP_IT = "must return a tensor of logits or an object with .logits, got {}; wrap it in a module"
NO_HOOKS = "(runs no hooks|does not run it as a module): capture the module from which"
GRAPH = "student is a scripted, traced or exported graph.*: give the module from which it was made"
SCRIPT = "is TorchScript; give the network that was scripted or traced"
QUANTISED = "4 is quantised; give the network it was made from"
NO_TRAINING_MODE = "the model is an exported graph, which has no training mode: give the network from which"
NO_LAYERS = "has no convolution and no linear layer"
FIXED = "takes only the numbers of images that it was exported for: .*dynamic_shapes"
PROGRAM = "{} must be .*(ExportedProgram|torch.export program)[:;] give the (network|module)"

OPAQUE = {"capture": NO_HOOKS, "suggest_layers": GRAPH}
REFUSED = {
    "shufflenet": {"prune_channels": MOVED},
    "swin": {"prune_channels": MOVED},
    "vision transformer": {"prune_channels": MOVED},
    "maxvit": {"prune_channels": MOVED},
    "encoder": {"prune_channels": MOVED},
    "separate projections": {
        "prune_channels": MOVED, "export_onnx": "fixes the batch: take sizes from images.shape",
    },
    "returns a tuple": dict.fromkeys(DOORS, WRAP_IT.format("tuple")),
    "returns a dictionary": dict.fromkeys(DOORS, WRAP_IT.format("dict")),
    "returns an object": {"prune_channels": "cannot follow the channels of model, a Returning"},
    "scripted": OPAQUE | {"export_onnx": SCRIPT, "prune_channels": SCRIPT},
    "traced": OPAQUE | {"export_onnx": SCRIPT, "prune_channels": SCRIPT},
    "exported": OPAQUE | {"student": NO_TRAINING_MODE, "prune_channels": NO_LAYERS},
    "exported, fixed batch": OPAQUE | {
        "teacher": FIXED, "cached_logits": FIXED, "student": NO_TRAINING_MODE, "prune_channels": NO_LAYERS,
        "export_onnx": "must take batches of any size",
    },
    "exported program": {
        "teacher": PROGRAM.format("teacher"), "student": PROGRAM.format("student"),
        "capture": PROGRAM.format("model"), "suggest_layers": PROGRAM.format("student"),
        "export_onnx": PROGRAM.format("model"), "prune_channels": PROGRAM.format("model"),
        "cached_logits": PROGRAM.format("teacher"),
    },
    "quantised": {
        "student": "no gradient reaches the model's weights.*quantised", "export_onnx": QUANTISED,
        "prune_channels": QUANTISED,
    },
    "float16": {"student": PRECISION, "prune_channels": INPUT_TYPE},
    "bfloat16": {"student": PRECISION, "prune_channels": INPUT_TYPE},
    "float64": {"student": PRECISION, "prune_channels": INPUT_TYPE},
    "frozen": {"student": NOTHING_TRAINED},
    "buffers only": {
        "student": NOTHING_TRAINED, "capture": "not modules of the model", "prune_channels": NO_LAYERS,
        "suggest_layers": "student has no layers inside", "export_onnx": "model cannot be written as ONNX",
    },
    "a formula": {
        "student": NOTHING_TRAINED, "capture": "not modules of the model", "prune_channels": NO_LAYERS,
        "suggest_layers": "student has no layers inside",
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(_files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(_logit_cache, "_memory", {})


def refusal(call: Callable[[], object]) -> str | None:
    """The sentence with which something is refused; None where it works."""
    try:
        call()
    except TypeCheckError:
        raise  # the tests' own: a user would meet what is behind it
    except (ValueError, TypeError) as error:
        return " ".join(str(error).split())
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("door", DOORS)
def test_a_foreign_network_works_or_is_refused_with_a_sentence(door, tmp_path):
    for name, row in NETWORKS.items():
        expected, cell = REFUSED.get(name, {}).get(door), f"{name} through {door}"
        network, split = built(row), split_of(row.image_shape)
        before = state(network)
        said = refusal(lambda: DOORS[door](network, row, split, tmp_path))  # noqa: B023
        if expected is None:
            assert said is None, f"{cell}: {said}"
        else:
            assert said is not None, f"{cell}: not refused"
            assert re.search(expected, said), f"{cell}: {said}"
        if door != "student":
            assert state(network) == before, f"{cell}: not given back as it was"


def test_a_network_without_numbers_is_refused_wherever_they_are_wanted():
    split = split_of(SMALL)
    doors = [
        ("teacher", lambda network: distill(plain(), network, split, epochs=1, progress=False)),
        ("student", lambda network: distill(network, torch.randn(10, 5), split, epochs=1, progress=False)),
        ("model", lambda network: train(network, split, epochs=1, progress=False)),
        ("teacher", lambda network: cached_logits(network, split)),
        ("network", freeze),
        ("model", lambda network: metrics.accuracy(network, split)),
    ]
    cases = {
        "yet: run it once on an image": lazy,
        r"no numbers in '0.0.weight' \(device 'meta'\): load its weights": lambda: plain().to("meta"),
    }
    for sentence, build in cases.items():
        for name, door in doors:
            said = refusal(lambda: door(build()))  # noqa: B023
            assert said and re.search(f"{name} .*{sentence}", said), f"{name}: {said}"


class AlwaysDropping(nn.Module):
    """What tutorials write: dropout that does not know of eval mode."""

    def __init__(self):
        super().__init__()
        self.inner = plain()

    def forward(self, images):
        return self.inner(nn.functional.dropout(images))


@pytest.mark.filterwarnings("ignore")
def test_answers_that_depend_on_chance_or_on_the_images_beside_are_refused_of_a_teacher():
    split, example = split_of(SMALL), torch.randn(4, *SMALL)
    for row, image in enumerate(split.images):
        image //= 1 + row  # the first ones are the brightest
    torch.manual_seed(0)
    shapes = ({0: torch.export.Dim("batch")},)
    unsteady = {
        "exported in training mode": torch.export.export(plain(), (example,), dynamic_shapes=shapes).module(),
        "traced in training mode": torch.jit.trace(plain(), example, check_trace=False),
        "dropout in eval mode": AlwaysDropping(),
    }
    for name, teacher in unsteady.items():
        for options in ({}, {"augment": random_crop_flip()}):
            said = refusal(partial(distill, plain(), teacher, split, epochs=1, progress=False, **options))
            assert said and "teacher gives other logits of the same image" in said, (
                f"{name}, {options}: {said}"
            )
        assert "other logits" in refusal(partial(cached_logits, teacher, split)), name


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = plain()

    def forward(self, images):
        return self.inner(images).detach()


def test_students_of_shared_weights_and_of_weights_for_inference_only_are_refused():
    split, shared = split_of(SMALL), plain()
    said = refusal(
        partial(sweeps.run, lambda: nn.Sequential(shared), torch.randn(10, 5), split, split, temperatures=[1],
                alphas=[1], seeds=[0, 1], epochs=1, workers=0, progress=False)
    )  # fmt: skip
    assert said and "student must build new weights at each call" in said, said
    with torch.inference_mode():
        student = plain()
    said = refusal(partial(train, student, split, epochs=1, progress=False))
    assert said and "made under torch.inference_mode()" in said, said


def test_a_student_that_no_gradient_reaches_is_refused_and_stays_as_it_was():
    student = Detached()
    weights = [parameter.detach().clone() for parameter in student.parameters()]
    said = refusal(partial(train, student, split_of(SMALL), epochs=1, progress=False))
    assert said and "no gradient reaches the model's weights" in said
    assert all(torch.equal(one, other) for one, other in zip(student.parameters(), weights, strict=True))
