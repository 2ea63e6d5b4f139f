"""Features of any layer beside the logits, for networks of every kind."""

import copy
import random

import pytest
import torch
import torchvision.models
from torch import nn

from kdlib import features

pytestmark = pytest.mark.usefixtures("one_thread")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.relu(self.bn(self.conv(x))) + x)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block())
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.dropout(self.blocks(self.stem(x)).mean(dim=(2, 3))))


class Dynamic(Small):
    """Control flow that depends on the values."""

    def forward(self, x):
        x = self.stem(x)
        while x.abs().max() > 1:
            x = x / 2
        return self.head(self.blocks(x).mean(dim=(2, 3)))


def small(seed=0, kind=Small):
    torch.manual_seed(seed)
    return kind()


IMAGES = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_nested_layers_and_logits_are_those_of_the_model():
    model = small().eval()
    logits, captured = features.capture(model, ["blocks.1", "stem", "blocks.0.conv"])(IMAGES)
    assert list(captured) == ["blocks.1", "stem", "blocks.0.conv"]
    stem = model.stem(IMAGES)
    assert torch.equal(captured["stem"], stem)
    assert torch.equal(captured["blocks.1"], model.blocks(stem))
    assert torch.equal(captured["blocks.0.conv"], model.blocks[0].conv(stem))
    assert torch.equal(logits, model(IMAGES))


def test_a_layer_before_an_in_place_operation_is_not_overwritten():
    model = small().eval()
    _, captured = features.capture(model, ["blocks.0.bn"])(IMAGES)
    assert captured["blocks.0.bn"].min() < 0  # a ReLU in place follows
    assert torch.equal(captured["blocks.0.bn"], model.blocks[0].bn(model.blocks[0].conv(model.stem(IMAGES))))


def test_training_through_it_trains_the_model():
    model, layer = small(), "blocks.0"
    captured_model = features.capture(model, [layer])
    before = model.stem.weight.detach().clone()
    optimizer = torch.optim.SGD(captured_model.parameters(), lr=0.1)
    logits, captured = captured_model(IMAGES)
    (logits.square().mean() + captured[layer].square().mean()).backward()
    optimizer.step()
    assert not torch.equal(model.stem.weight, before)
    assert {id(p) for p in captured_model.parameters()} == {id(p) for p in model.parameters()}


def test_modes_follow_whichever_is_switched():
    model = small()
    captured_model = features.capture(model, ["blocks.0"])
    assert captured_model.training
    captured_model.eval()
    assert not model.training and not model.blocks[0].bn.training
    assert torch.equal(captured_model(IMAGES)[0], captured_model(IMAGES)[0])
    assert torch.equal(captured_model(IMAGES)[0], model(IMAGES))
    model.train()  # the original alone: dropout is on, batch statistics are updated
    statistics = model.blocks[0].bn.running_mean.clone()
    assert not torch.equal(captured_model(IMAGES)[0], captured_model(IMAGES)[0])
    assert not torch.equal(model.blocks[0].bn.running_mean, statistics)


def test_state_dict_is_the_models():
    model, layer = small(0), "blocks.0"
    captured_model = features.capture(model, [layer])
    state = captured_model.state_dict()
    assert list(state) == list(model.state_dict())
    other = small(1).eval()
    features.capture(other, [layer]).load_state_dict(state)
    assert torch.equal(other(IMAGES), model.eval()(IMAGES))
    third = small(2).eval()
    third.load_state_dict(state)
    assert torch.equal(third(IMAGES), model(IMAGES))
    inside = nn.ModuleDict({"net": features.capture(small(3), [layer])})
    assert set(inside.state_dict()) == {f"net.{name}" for name in state}
    inside.load_state_dict({f"net.{name}": value for name, value in state.items()})
    assert torch.equal(inside["net"].model.eval()(IMAGES), model(IMAGES))
    with pytest.raises(RuntimeError, match="Missing key"):
        captured_model.load_state_dict({})


def test_a_copy_is_independent_and_moves_with_its_type():
    captured_model = features.capture(small().eval(), ["blocks.0", "blocks.1"])
    other = copy.deepcopy(captured_model).double()
    nn.init.zeros_(other.model.head.weight)
    assert other(IMAGES.double())[1]["blocks.0"].dtype == torch.float64
    assert captured_model.model.head.weight.abs().sum() > 0
    assert captured_model(IMAGES)[1]["blocks.1"].dtype == torch.float32


def test_a_module_in_two_places_has_two_names_and_gives_its_last_output():
    twice = nn.Linear(3, 3)
    model = nn.Sequential(twice, nn.Tanh(), twice)
    rows = torch.randn(2, 3)
    logits, captured = features.capture(model, ["0", "2"])(rows)
    assert torch.equal(captured["0"], logits) and torch.equal(captured["2"], logits)


def test_hooks_do_not_stay_behind():
    model = small()
    captured_model = features.capture(model, ["stem"])
    captured_model(IMAGES)
    with pytest.raises(RuntimeError):
        captured_model(IMAGES[:, :0])
    assert not any(module._forward_hooks for module in model.modules())


def test_dynamic_control_flow_is_followed():
    model = small(kind=Dynamic).eval()
    logits, captured = features.capture(model, ["blocks.0", "head"])(IMAGES * 100)
    assert torch.equal(logits, model(IMAGES * 100))
    assert torch.equal(captured["head"], logits)


def test_decisions_of_python_are_not_frozen():
    class Skips(Small):
        def forward(self, x):
            x = self.stem(x)
            return self.head((self.blocks(x) if random.random() < 0.5 else x).mean(dim=(2, 3)))

    random.seed(0)
    captured_model = features.capture(small(kind=Skips).eval(), ["stem"])
    assert len({captured_model(IMAGES)[0].sum().item() for _ in range(20)}) == 2


def test_unknown_layers_are_answered_with_near_names():
    cases = [
        (["block.0"], r"\['block\.0'\] are not modules.*near names: .*blocks\.0"),
        (["stem", "heed"], r"\['heed'\].*near names: .*head"),
        (["blocks.0.add"], r"only modules can be captured; near names: blocks\.0,"),
        (["blocks.1.some.thing.cat"], r"only modules can be captured; near names: blocks\.1"),
        (["zzz"], r"it has stem, blocks, blocks\.0, "),
        ("stem", "layers must be a sequence of names, got 'stem'"),
        ([3], "layers must be a sequence of names, got \\[3\\]"),
        (None, "layers must be a sequence of names, got None"),
    ]
    for layers, message in cases:
        with pytest.raises(ValueError, match=message):
            features.capture(small(), layers)


def test_a_preprocessing_of_its_own_is_passed_on():
    model = small()
    captured_model = features.capture(model, ["stem"])
    assert captured_model.preprocessing is None
    model.preprocessing = "its own"
    assert captured_model.preprocessing == "its own"


def test_a_layer_that_does_not_run_and_a_model_without_logits_are_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.unused = nn.Linear(4, 4)

        def forward(self, x):
            return self.attention(x, x, x)[0].mean(1)

    tokens = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match="layer 'unused' does not run .* in training mode"):
        features.capture(Odd(), ["unused"])(tokens)
    with pytest.raises(ValueError, match="the model must return .*logits.*tuple"):
        features.capture(nn.LSTM(4, 2), [])(tokens)


# One small member of each torchvision family: the side of its images, and two of its layers.
FAMILIES = {
    "vgg11": (32, ["features.2", "features.19"]),
    "resnet18": (64, ["layer1", "layer4"]),
    "squeezenet1_1": (64, ["features.4", "features"]),
    "densenet121": (64, ["features.denseblock1", "features"]),
    "googlenet": (64, ["conv3", "inception5b"]),
    "inception_v3": (299, ["Mixed_5d", "Mixed_7c"]),
    "mobilenet_v2": (64, ["features.1", "features"]),
    "mobilenet_v3_small": (64, ["features.1", "features"]),
    "mnasnet0_5": (64, ["layers.8", "layers"]),
    "shufflenet_v2_x0_5": (64, ["stage2", "conv5"]),
    "efficientnet_b0": (64, ["features.2", "features"]),
    "regnet_x_400mf": (64, ["trunk_output.block1", "trunk_output"]),
    "convnext_tiny": (64, ["features.1", "features"]),
    "vit_b_16": (32, ["encoder.layers.encoder_layer_2", "encoder.layers.encoder_layer_11"]),
    "swin_t": (64, ["features.1", "features"]),
}


def family(name):
    options = {"image_size": 32} if name == "vit_b_16" else {}
    if name in ("googlenet", "inception_v3", "vgg11"):
        options["init_weights"] = False  # truncated normal numbers take long
    return torchvision.models.get_model(name, weights=None, num_classes=10, **options)


def test_every_torchvision_family():
    for name, (side, layers) in FAMILIES.items():
        model = family(name).eval()
        captured_model = features.capture(model, layers)
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits, captured = captured_model(images)
            assert torch.equal(logits, model(images)), name
        for maps in captured.values():
            assert len(maps) == 2 and maps.isfinite().all(), name
            assert maps.dim() == 4 and maps.shape[2] == maps.shape[3], name
        assert captured[layers[0]].shape != captured[layers[1]].shape or name == "vit_b_16", name

        pairs = features.suggest_layers(model, model, (3, side, side))
        assert pairs and all(student == teacher for student, teacher in pairs), name
        assert layers[1] in {student for student, _ in pairs} or name == "vgg11", name

        # In training mode GoogLeNet and Inception return auxiliary logits too; the main ones are wanted.
        logits, captured = captured_model.train()(images)
        assert logits.shape == (2, 10) and logits.requires_grad, name
        assert all(maps.requires_grad for maps in captured.values()), name
