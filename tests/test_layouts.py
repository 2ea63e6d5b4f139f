"""Whatever the architecture: features come as maps (batch, channels, height, width) or vectors, of whole blocks."""

import copy
import subprocess
import sys
from collections import OrderedDict, namedtuple

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn
from torchvision.models import MaxVit, SwinTransformer, VisionTransformer

from kdlib import features
from kdlib.teachers import freeze


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Patches(nn.Module):
    """Patches of 4 x 4 pixels as tokens, blocks, and a head on their mean."""

    def __init__(self, blocks, *, width=16, class_token=True, sequence_first=False, linear=False):
        super().__init__()
        self.embed = nn.Linear(16, width) if linear else nn.Conv2d(1, width, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.blocks, self.head, self.sequence_first = blocks, nn.Linear(width, 5), sequence_first

    def forward(self, images):
        if isinstance(self.embed, nn.Linear):
            tokens = self.embed(F.unfold(images, 4, stride=4).transpose(1, 2))
        else:
            tokens = self.embed(images).flatten(2).transpose(1, 2)
        if self.token is not None:
            tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = tokens.transpose(0, 1) if self.sequence_first else tokens
        for block in self.blocks if isinstance(self.blocks, nn.ModuleList) else [self.blocks]:
            tokens = block(tokens)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        return self.head(tokens.mean(0 if self.sequence_first else 1))


class Attention(nn.Module):
    """A block with separate projections, the norms before (or after) the attention and the perceptron."""

    def __init__(self, width=16, *, norms_first=True, returns=lambda tokens, weights: tokens):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms_first, self.returns = norms_first, returns

    def forward(self, tokens):
        x = self.norm1(tokens) if self.norms_first else tokens
        weights = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(dim=2)
        tokens = tokens + self.out(weights @ self.value(x))
        tokens = tokens if self.norms_first else self.norm1(tokens)
        x = self.norm2(tokens) if self.norms_first else tokens
        tokens = tokens + self.second(F.gelu(self.first(x)))
        return self.returns(tokens if self.norms_first else self.norm2(tokens), weights)


class SequenceFirst(Attention):
    """The same on (tokens, batch, channels), which nothing in it declares."""

    def forward(self, tokens):
        return super().forward(tokens.transpose(0, 1)).transpose(0, 1)


class Mixer(nn.Module):
    def __init__(self, tokens=16, width=24):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 8), nn.GELU(), nn.Linear(8, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, tokens):
        tokens = tokens + self.tokens(self.norm1(tokens).transpose(1, 2)).transpose(1, 2)
        return tokens + self.channels(self.norm2(tokens))


class Halving(nn.Module):
    """A convolution that halves the map, in a block that returns what `returns` makes of it."""

    def __init__(self, channels, to, returns):
        super().__init__()
        self.convolve, self.norm = nn.Conv2d(channels, to, 3, stride=2, padding=1), nn.BatchNorm2d(to)
        self.relu, self.returns = nn.ReLU(inplace=True), returns

    def forward(self, maps):
        return self.returns(self.relu(self.norm(self.convolve(maps))))


Answer = namedtuple("Answer", ["maps", "size"])


class Halvings(nn.Module):
    def __init__(self, returns=lambda maps: Answer(maps, maps.mean())):
        super().__init__()
        self.blocks = nn.ModuleList(Halving(4**i, 4 ** (i + 1), returns) for i in range(3))
        self.head = nn.Linear(64, 5)

    def forward(self, images):
        for block in self.blocks:
            images = block(images)
            images = images if isinstance(images, torch.Tensor) else images[0]
        return self.head(images.mean(dim=(2, 3)))


def pooling_block(channels, to):
    return nn.Sequential(
        nn.Conv2d(channels, to, 3, padding=1), nn.BatchNorm2d(to), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )


def pooling_network():
    body = nn.Sequential(pooling_block(1, 4), pooling_block(4, 8), pooling_block(8, 16))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


class Recurrent(nn.Module):
    """The rows of an image one after another."""

    def __init__(self, batch_first):
        super().__init__()
        self.first, self.second = (
            nn.LSTM(16, 8, batch_first=batch_first),
            nn.GRU(8, 8, batch_first=batch_first),
        )
        self.head, self.batch_first = nn.Linear(8, 5), batch_first

    def forward(self, images):
        rows = images[:, 0] if self.batch_first else images[:, 0].transpose(0, 1)
        rows, _ = self.second(self.first(rows)[0])
        return self.head(rows[:, -1] if self.batch_first else rows[-1])


class ChannelsLast(nn.Module):
    """ConvNeXt's habit: the map is turned for norms and perceptrons, and never turned back."""

    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 4, stride=4)
        self.blocks = nn.Sequential(*(self.Block(width) for _ in range(4)))
        self.head = nn.Linear(width, 5)

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, width)

        def forward(self, maps):
            return maps + self.mix(self.norm(maps))

    def forward(self, images):
        return self.head(self.blocks(self.stem(images).permute(0, 2, 3, 1)).mean(dim=(1, 2)))


class Shared(nn.Module):
    """One block, three times."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(1, 4, 3, padding=1), pooling_block(4, 4), nn.Linear(4, 5)

    def forward(self, images):
        return self.head(self.block(self.block(self.block(self.stem(images)))).mean(dim=(2, 3)))


class SeveralStages(nn.Module):
    """A head that reads all stages, so that everything passes through the first one only."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = pooling_block(1, 4), pooling_block(4, 8), pooling_block(8, 16)
        self.head = nn.Linear(28, 5)

    def forward(self, images):
        one = self.one(images)
        two = self.two(one)
        return self.head(torch.cat([maps.mean(dim=(2, 3)) for maps in (one, two, self.three(two))], dim=1))


def encoder(**options):
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, **options)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)


def swin(width):
    return SwinTransformer(
        patch_size=[4, 4], embed_dim=width, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=5
    )


def small_vit():
    return VisionTransformer(32, 8, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)


def small_maxvit():
    return MaxVit((64, 64), 8, 4, [8, 16], [2, 2], 8, 0.1, num_classes=5)


def as_it_is(raw):
    return raw


def turned(raw):
    return raw.permute(0, 3, 1, 2)


def tokens(raw):
    return raw.transpose(1, 2).unflatten(2, (4, 4))


def after_a_class_token(raw):
    return tokens(raw[:, 1:])


def sequence_first(raw):
    return after_a_class_token(raw.transpose(0, 1))


def one_column(raw):
    return raw.transpose(1, 2)[:, :, :, None]


SMALL, COLOURED = (1, 16, 16), (3, 32, 32)
LAYERS = [f"blocks.{i}" for i in range(4)]
# name: (network, shape of an image, {layer: how the tensor of a hook becomes the map}, what is suggested)
NETWORKS = {
    "swin": (
        lambda: swin(24),
        COLOURED,
        {
            "features.0": turned,
            "features.1": turned,
            "features.1.0.attn": turned,
            "features.1.0.mlp.0": turned,
            "features.2": turned,
            "features": turned,
            "permute": as_it_is,
            "avgpool": as_it_is,
            "flatten": as_it_is,
        },
        ["features.1", "features"],
    ),
    "swin on a wide image": (
        lambda: swin(16),
        (3, 32, 64),
        {"features.1": turned, "features.2": turned, "permute": as_it_is},
        ["features.1", "features"],
    ),
    "swin with as many channels as positions to a side": (
        lambda: swin(8),
        COLOURED,
        {"features.1": turned, "features.2": turned, "permute": as_it_is},
        ["features.1", "features"],
    ),
    "vision transformer": (
        small_vit,
        COLOURED,
        {
            "conv_proj": as_it_is,
            "encoder.layers.encoder_layer_0": after_a_class_token,
            "encoder.layers.encoder_layer_1.mlp.0": after_a_class_token,
            "encoder.ln": after_a_class_token,
        },
        [f"encoder.layers.encoder_layer_{i}" for i in range(4)],
    ),
    "maxvit": (
        small_maxvit,
        (3, 64, 64),
        {"stem": as_it_is, "blocks.0": as_it_is, "blocks.0.layers.1.layers.grid_attention": as_it_is},
        ["stem", "blocks.0", "blocks.1"],
    ),
    "encoder": (
        lambda: Patches(encoder(batch_first=True)),
        SMALL,
        {"blocks.layers.0": after_a_class_token, "blocks": after_a_class_token},
        [f"blocks.layers.{i}" for i in range(4)],
    ),
    "encoder, sequence first": (
        lambda: Patches(encoder(norm_first=True), sequence_first=True),
        SMALL,
        {f"blocks.layers.{name}": sequence_first for name in ("0", "1.self_attn", "2.linear1", "3.norm2")},
        [f"blocks.layers.{i}" for i in range(4)],
    ),
    "encoder of linear patches": (
        lambda: Patches(encoder(batch_first=True), class_token=False, linear=True),
        SMALL,
        {"embed": tokens, "blocks.layers.0": tokens},
        [f"blocks.layers.{i}" for i in range(4)],
    ),
    "separate projections": (
        lambda: Patches(nn.Sequential(*(Attention() for _ in range(4)))),
        SMALL,
        {
            "blocks.0": after_a_class_token,
            "blocks.1.query": after_a_class_token,
            "blocks.2.first": after_a_class_token,
        },
        LAYERS,
    ),
    "separate projections, norms last": (
        lambda: Patches(nn.ModuleList(Attention(norms_first=False) for _ in range(4))),
        SMALL,
        {"blocks.0.norm1": after_a_class_token, "blocks.3": after_a_class_token},
        LAYERS,
    ),
    "a single block, norms last": (
        lambda: Patches(Attention(norms_first=False)),
        SMALL,
        {"blocks": after_a_class_token},
        ["embed", "blocks"],
    ),
    "blocks that return attention weights too": (
        lambda: Patches(nn.ModuleList(Attention(returns=lambda *both: both) for _ in range(4))),
        SMALL,
        {"blocks.0": after_a_class_token, "blocks.3": after_a_class_token},
        LAYERS,
    ),
    "undeclared sequence first": (
        lambda: Patches(nn.Sequential(*(SequenceFirst() for _ in range(4))), sequence_first=True),
        SMALL,
        {"blocks.0": sequence_first, "blocks.3": sequence_first, "blocks.1.value": after_a_class_token},
        LAYERS,
    ),
    "mixer": (
        lambda: Patches(nn.Sequential(*(Mixer() for _ in range(4))), width=24, class_token=False),
        SMALL,
        {
            "blocks.0": tokens,
            "blocks.1.norm2": tokens,
            "blocks.1.tokens": lambda raw: raw.unflatten(2, (4, 4)),
        },
        LAYERS,
    ),
    "mixer with as many channels as tokens": (
        lambda: Patches(nn.Sequential(*(Mixer(width=16) for _ in range(4))), class_token=False),
        SMALL,
        {"blocks.0": tokens, "blocks.3": tokens},
        LAYERS,
    ),
    "channels last": (lambda: ChannelsLast(7), SMALL, {"stem": as_it_is, "blocks.0": turned}, LAYERS),
    "channels last, all lengths equal": (lambda: ChannelsLast(4), SMALL, {"blocks.1": turned}, LAYERS),
    "blocks that end with pooling": (
        pooling_network,
        SMALL,
        {"0.0": as_it_is, "0.1.2": as_it_is, "0": as_it_is, "2": as_it_is},
        ["0.0", "0.1", "0"],
    ),
    "blocks that return a named tuple": (
        Halvings,
        SMALL,
        {"blocks.0": as_it_is, "blocks.2": as_it_is},
        ["blocks.0", "blocks.1", "blocks.2"],
    ),
    "blocks that return a list": (
        lambda: Halvings(lambda maps: [maps, maps.mean()]),
        SMALL,
        {"blocks.0": as_it_is, "blocks.2": as_it_is},
        ["blocks.0", "blocks.1", "blocks.2"],
    ),
    "a block used three times": (Shared, SMALL, {"stem": as_it_is, "block": as_it_is}, ["stem", "block"]),
    "a head that reads several stages": (SeveralStages, SMALL, {"two": as_it_is}, ["one", "two", "three"]),
    "rows": (
        lambda: Recurrent(True),
        SMALL,
        {"first": one_column, "second": one_column},
        ["first", "second"],
    ),
    "rows, sequence first": (
        lambda: Recurrent(False),
        SMALL,
        {"first": lambda raw: one_column(raw.transpose(0, 1))},
        ["first", "second"],
    ),
    "data-parallel": (
        lambda: nn.DataParallel(pooling_network()),
        SMALL,
        {"module.0.0": as_it_is, "0.1": as_it_is},
        ["module.0.0", "module.0.1", "module.0"],
    ),
    "frozen": (
        lambda: freeze(swin(24)),
        COLOURED,
        {"network.features.1": turned},
        ["network.features.1", "network.features"],
    ),
    "half precision": (
        lambda: swin(24).bfloat16(),
        COLOURED,
        {"features.1": turned},
        ["features.1", "features"],
    ),
}


def built(name):
    torch.manual_seed(0)
    return NETWORKS[name][0]().eval()


def images_for(name, batch):
    network, shape = NETWORKS[name][:2]
    dtype = torch.bfloat16 if name == "half precision" else torch.float32
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def raw_outputs(model, layers, images):
    """What the layers return, by hooks of the test's own, and the logits."""
    raw, handles = {}, []
    for layer in layers:
        module = dict(model.named_modules()).get(layer) or model.get_submodule(f"module.{layer}")

        def keep(module, arguments, output, layer=layer):
            raw[layer] = output if isinstance(output, torch.Tensor) else output[0]

        handles.append(module.register_forward_hook(keep))
    logits = model(images)
    for handle in handles:
        handle.remove()
    return raw, logits


def test_features_are_maps_or_vectors_whatever_a_layer_returns():
    for name, (_, _, layers, _) in NETWORKS.items():
        model = built(name)
        # 17 and 16 images: as many as tokens, with and without a class token, or rows.
        for batch in (3, 17, 16, 1):
            images = images_for(name, batch)
            with torch.no_grad():
                raw, expected = raw_outputs(model, layers, images)
                logits, found = features.capture(model, list(layers))(images)
            assert torch.equal(logits, expected), name
            for layer, how in layers.items():
                assert found[layer].dim() in (2, 4) and len(found[layer]) == batch, (name, layer, batch)
                assert torch.equal(found[layer], how(raw[layer])), (name, layer, batch)


def test_suggested_layers_are_whole_blocks():
    for name, (_, shape, _, expected) in NETWORKS.items():
        model = built(name)
        pairs = features.suggest_layers(model, model, shape)
        assert pairs == [(layer, layer) for layer in expected], name
        _, found = features.capture(model, expected)(images_for(name, 3))
        assert all(maps.dim() == 4 and len(maps) == 3 for maps in found.values()), name


def test_the_logits_depend_on_the_features_and_gradients_are_those_without_capture():
    for name, (_, _, layers, _) in NETWORKS.items():
        if name in ("frozen", "half precision"):
            continue
        model, images = built(name), images_for(name, 3)
        raw, logits = raw_outputs(model, layers, images)
        tensors = [*(raw[layer] for layer in layers), *model.parameters()]
        plain = torch.autograd.grad(logits.square().sum(), tensors, allow_unused=True)
        logits, found = features.capture(model, list(layers))(images)
        ours = torch.autograd.grad(
            logits.square().sum(), [*found.values(), *model.parameters()], allow_unused=True
        )
        for layer, theirs, mine in zip(layers, plain, ours, strict=False):
            torch.testing.assert_close(mine, layers[layer](theirs), msg=f"{name}, {layer}")
        for theirs, mine in zip(plain[len(layers) :], ours[len(layers) :], strict=True):
            if theirs is not None:
                torch.testing.assert_close(mine, theirs, msg=name)


def test_class_gradients_of_captured_features_are_those_of_the_layer():
    model = built("swin")
    images, classes = images_for("swin", 3), torch.tensor([0, 3, 2])
    logits, found = features.capture(model, ["features.1"])(images)
    gradients = features.class_gradients(logits, found["features.1"], classes)
    assert features.gradcam_map(found["features.1"], gradients).shape == (3, 8, 8)
    raw, logits = raw_outputs(model, ["features.1"], images)
    theirs = torch.autograd.grad(logits[torch.arange(3), classes].sum(), raw["features.1"])[0]
    torch.testing.assert_close(gradients, turned(theirs))


def test_sequences_of_a_model_that_takes_them_sequence_first():
    for length, batch in ((5, 3), (4, 4)):
        source = torch.randn(length, batch, 16)
        model = encoder().eval()
        expected = model.layers[0](source).permute(1, 2, 0)[..., None]
        _, found = features.capture(model, ["layers.0", "layers.0.linear1"])(source)
        torch.testing.assert_close(found["layers.0"], expected)
        assert found["layers.0.linear1"].shape == (batch, 32, length, 1)


def test_asking_for_the_batch_leaves_no_trace():
    model = Patches(nn.Sequential(SequenceFirst(), nn.Dropout()), sequence_first=True).train()
    model.head.eval()
    images, state = torch.randn(17, 1, 16, 16), torch.random.get_rng_state()
    logits, _ = features.capture(model, ["blocks.0"])(images)
    assert model.training and model.blocks[1].training and not model.head.training
    assert not any(module._forward_hooks for module in model.modules())
    torch.random.set_rng_state(state)
    first = model(images)
    # The layer lay the other way, so the batch ran a second time, with the next draw of the dropout.
    assert torch.equal(logits, model(images)) and not torch.equal(logits, first)


def test_registers_before_the_tokens_are_left_out():
    class WithRegisters(Patches):
        def __init__(self):
            super().__init__(nn.Sequential(Attention()), class_token=False)
            self.token = nn.Parameter(torch.randn(1, 5, 16))

    model = WithRegisters().eval()
    images = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        raw, _ = raw_outputs(model, ["blocks.0"], images)
        _, found = features.capture(model, ["blocks.0"])(images)
    assert raw["blocks.0"].shape == (3, 21, 16)
    assert torch.equal(found["blocks.0"], tokens(raw["blocks.0"][:, 5:]))


def test_maps_over_time_stay_as_they_are():
    model = nn.Sequential(nn.Conv3d(1, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2))
    _, found = features.capture(model, ["0"])(torch.randn(2, 1, 5, 8, 8))
    assert found["0"].shape == (2, 4, 3, 6, 6)


class Windows(nn.Module):
    """Attention in windows of 2 x 2, and some other tensors that are no features of an image."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(1, 8, 1), nn.LayerNorm(8), nn.Linear(8, 5)
        self.folded, self.beside, self.classes, self.shapes = (nn.Identity() for _ in range(4))
        self.scalars, self.named = nn.Flatten(0), nn.Flatten()

    def forward(self, images):
        maps = self.stem(images)
        windows = (
            F.unfold(maps, 2, stride=2).unflatten(1, (8, 4)).permute(0, 3, 2, 1)
        )  # (batch, windows, 4, 8)
        self.folded(self.norm(windows).flatten(0, 1))
        self.beside(windows)
        self.classes(maps.argmax(dim=1))
        self.shapes({"maps": maps})
        self.scalars(maps.mean(dim=(1, 2, 3)))
        return self.head(maps.mean(dim=(2, 3)))


def test_what_is_neither_map_nor_tokens_nor_vectors_is_refused():
    cases = {
        "folded": r"layer 'folded' returned shape \(192, 4, 8\), whose first axis is not the batch of 3 .*windows",
        "beside": r"layer 'beside' returned shape \(3, 64, 4, 8\), .* no map of images 16 x 16 .*take the block",
        "classes": "layer 'classes' returned torch.int64, and features are floating-point",
        "shapes": "layer 'shapes' must return a tensor, or a tuple that begins with one, .* got dict",
        "scalars": r"layer 'scalars' returned shape \(3,\), which is neither a map nor a vector",
    }
    for layer, message in cases.items():
        with pytest.raises(ValueError, match=message):
            features.capture(Windows(), [layer])(torch.randn(3, 1, 16, 16))
    model = Halvings(lambda maps: OrderedDict({0: maps}))
    with pytest.raises(ValueError, match="layer 'blocks.0' must return a tensor.*got OrderedDict"):
        features.capture(model, ["blocks.0"])(torch.randn(2, 1, 16, 16))
    with pytest.raises(ValueError, match="a captured model must be called with a tensor .* got dict"):
        features.capture(model, ["blocks.0"])({})


def test_the_last_run_of_a_layer_counts_also_where_an_earlier_one_gave_no_features():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.relu, self.head = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, images):
            weights = self.relu(self.head.weight.flatten())
            return self.head(self.relu(self.stem(images)).mean(dim=(2, 3))) + weights.sum()

    model, images = Twice(), torch.randn(3, 1, 8, 8)
    _, found = features.capture(model, ["relu"])(images)
    assert torch.equal(found["relu"], model.stem(images).relu())


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


def test_pairs_of_suggested_layers_can_be_compared():
    """Of architectures that lay their features out in four ways: a regressor and an attention map fit each pair."""
    student, images = torchvision.models.resnet18(num_classes=5).eval(), torch.randn(2, 3, 32, 32)
    for teacher in (swin(24), small_vit(), torchvision.models.convnext_tiny(num_classes=5)):
        pairs = features.suggest_layers(student, teacher.eval(), COLOURED)
        assert len(pairs) >= 2
        _, ours = features.capture(student, [mine for mine, _ in pairs])(images)
        _, others = features.capture(teacher, [theirs for _, theirs in pairs])(images)
        for mine, theirs in pairs:
            regressor = features.Regressor.between(ours[mine], others[theirs])
            assert features.hint_loss(regressor(ours[mine]), others[theirs]).isfinite()


def test_losses_that_meet_another_layout_say_what_turns_it():
    maps = torch.randn(2, 7, 7, 48)
    for loss in (features.attention_transfer_loss, features.mmd_loss):
        with pytest.warns(
            UserWarning, match=r"look like a channels-last map.*to_map\(features, channels_last=True\)"
        ):
            loss(maps, maps)
    for call in (
        lambda: features.Regressor(48, 5)(maps),
        lambda: features.Regressor(48, 5)(maps.flatten(1, 2)),
        lambda: features.VariationalInformationLoss(48, 48)(maps, maps),
        lambda: features.VariationalInformationLoss(49, 48)(maps.flatten(1, 2), maps.flatten(1, 2)),
        lambda: features.ContrastiveLoss(48, 48)(maps, maps),
    ):
        with pytest.raises(ValueError, match="tokens and channels-last maps.*kdlib.features.to_map"):
            call()
    with pytest.warns(UserWarning, match="look channels-first already.*capture returns them"):
        features.to_map(torch.randn(2, 48, 7, 7), channels_last=True)
