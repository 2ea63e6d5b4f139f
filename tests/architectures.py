"""Small networks of many architectures: how each lays its features out, and which of its layers are whole blocks."""

from collections import namedtuple
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import MaxVit, SwinTransformer, VisionTransformer

from kdlib.teachers import freeze


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


def named(maps):
    return Answer(maps, maps.mean())


def list_of(maps):
    return [maps, maps.mean()]


class Halvings(nn.Module):
    def __init__(self, returns=named):
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


class Architecture(NamedTuple):
    """How to build a network, the shape of its images, how what its layers return becomes maps or vectors (by
    layer), and the layers that are whole blocks at the ends of its stages."""

    build: Callable[[], nn.Module]
    image_shape: tuple[int, int, int]
    layers: dict[str, Callable[[torch.Tensor], torch.Tensor]]
    blocks: list[str]


def layers(how, names):
    return dict.fromkeys(names.split(), how)


SMALL, COLOURED = (1, 16, 16), (3, 32, 32)
BLOCKS = [f"blocks.{i}" for i in range(4)]
HALVINGS = BLOCKS[:3]
ENCODER_LAYERS = [f"blocks.layers.{i}" for i in range(4)]
ARCHITECTURES = {
    "swin": Architecture(
        lambda: swin(24),
        COLOURED,
        layers(turned, "features.0 features.1 features.1.0.attn features.1.0.mlp.0 features.2 features")
        | layers(as_it_is, "permute avgpool flatten"),
        ["features.1", "features"],
    ),
    "swin on a wide image": Architecture(
        lambda: swin(16),
        (3, 32, 64),
        layers(turned, "features.1 features.2") | layers(as_it_is, "permute"),
        ["features.1", "features"],
    ),
    "swin with as many channels as positions to a side": Architecture(
        lambda: swin(8),
        COLOURED,
        layers(turned, "features.1 features.2") | layers(as_it_is, "permute"),
        ["features.1", "features"],
    ),
    "vision transformer": Architecture(
        small_vit,
        COLOURED,
        layers(as_it_is, "conv_proj")
        | layers(after_a_class_token, "encoder.layers.encoder_layer_1.mlp.0 encoder.layers encoder.ln"),
        [f"encoder.layers.encoder_layer_{i}" for i in range(4)],
    ),
    "maxvit": Architecture(
        small_maxvit,
        (3, 64, 64),
        layers(as_it_is, "stem blocks.0 blocks.0.layers.1.layers.grid_attention"),
        ["stem", "blocks.0", "blocks.1"],
    ),
    "encoder": Architecture(
        lambda: Patches(encoder(batch_first=True)),
        SMALL,
        layers(after_a_class_token, "blocks.layers.0 blocks"),
        ENCODER_LAYERS,
    ),
    "encoder, sequence first": Architecture(
        lambda: Patches(encoder(norm_first=True), sequence_first=True),
        SMALL,
        layers(
            sequence_first,
            "blocks.layers.0 blocks.layers.1.self_attn blocks.layers.2.linear1 blocks.layers.3.norm2",
        ),
        ENCODER_LAYERS,
    ),
    "encoder of linear patches": Architecture(
        lambda: Patches(encoder(batch_first=True), class_token=False, linear=True),
        SMALL,
        layers(tokens, "embed blocks.layers.0"),
        ENCODER_LAYERS,
    ),
    "separate projections": Architecture(
        lambda: Patches(nn.Sequential(*(Attention() for _ in range(4)))),
        SMALL,
        layers(after_a_class_token, "blocks.0 blocks.1.query blocks.2.first"),
        BLOCKS,
    ),
    "separate projections, norms last": Architecture(
        lambda: Patches(nn.ModuleList(Attention(norms_first=False) for _ in range(4))),
        SMALL,
        layers(after_a_class_token, "blocks.0.norm1 blocks.3"),
        BLOCKS,
    ),
    "a single block, norms last": Architecture(
        lambda: Patches(Attention(norms_first=False)),
        SMALL,
        layers(after_a_class_token, "blocks"),
        ["embed", "blocks"],
    ),
    "blocks that return attention weights too": Architecture(
        lambda: Patches(nn.ModuleList(Attention(returns=lambda *both: both) for _ in range(4))),
        SMALL,
        layers(after_a_class_token, "blocks.0 blocks.3"),
        BLOCKS,
    ),
    "undeclared sequence first": Architecture(
        lambda: Patches(nn.Sequential(*(SequenceFirst() for _ in range(4))), sequence_first=True),
        SMALL,
        layers(sequence_first, "blocks.0 blocks.3") | layers(after_a_class_token, "blocks.1.value"),
        BLOCKS,
    ),
    "mixer": Architecture(
        lambda: Patches(nn.Sequential(*(Mixer() for _ in range(4))), width=24, class_token=False),
        SMALL,
        layers(tokens, "blocks.0 blocks.1.norm2") | {"blocks.1.tokens": lambda raw: raw.unflatten(2, (4, 4))},
        BLOCKS,
    ),
    "mixer with as many channels as tokens": Architecture(
        lambda: Patches(nn.Sequential(*(Mixer(width=16) for _ in range(4))), class_token=False),
        SMALL,
        layers(tokens, "blocks.0 blocks.3"),
        BLOCKS,
    ),
    "channels last": Architecture(
        lambda: ChannelsLast(7), SMALL, layers(as_it_is, "stem") | layers(turned, "blocks.0"), BLOCKS
    ),
    "channels last, all lengths equal": Architecture(
        lambda: ChannelsLast(4), SMALL, layers(turned, "blocks.1"), BLOCKS
    ),
    "blocks that end with pooling": Architecture(
        pooling_network, SMALL, layers(as_it_is, "0.0 0.1.2 0 2"), ["0.0", "0.1", "0"]
    ),
    "blocks that return a named tuple": Architecture(
        Halvings, SMALL, layers(as_it_is, "blocks.0 blocks.2"), HALVINGS
    ),
    "blocks that return a list": Architecture(
        lambda: Halvings(list_of), SMALL, layers(as_it_is, "blocks.0 blocks.2"), HALVINGS
    ),
    "a block used three times": Architecture(
        Shared, SMALL, layers(as_it_is, "stem block"), ["stem", "block"]
    ),
    "a head that reads several stages": Architecture(
        SeveralStages, SMALL, layers(as_it_is, "two"), ["one", "two", "three"]
    ),
    "rows": Architecture(
        lambda: Recurrent(True), SMALL, layers(one_column, "first second"), ["first", "second"]
    ),
    "rows, sequence first": Architecture(
        lambda: Recurrent(False),
        SMALL,
        {"first": lambda raw: one_column(raw.transpose(0, 1))},
        ["first", "second"],
    ),
    "data-parallel": Architecture(
        lambda: nn.DataParallel(pooling_network()),
        SMALL,
        layers(as_it_is, "module.0.0 0.1"),
        ["module.0.0", "module.0.1", "module.0"],
    ),
    "frozen": Architecture(
        lambda: freeze(swin(24)),
        COLOURED,
        layers(turned, "network.features.1"),
        ["network.features.1", "network.features"],
    ),
    "half precision": Architecture(
        lambda: swin(24).bfloat16(), COLOURED, layers(turned, "features.1"), ["features.1", "features"]
    ),
}
