"""Whose channels are taken out: the same ones everywhere in networks of convolutions, none in other networks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models as zoo
from torchvision.models.convnext import CNBlockConfig

from kdlib.deploy.compress import carve, factorize, finish, prune_channels, sparsify
from kdlib.teachers import freeze

CHECKOUT = Path(__file__).parents[1]
SHAPE = (1, 16, 16)


class Network(nn.Module):
    """Convolution, something, head."""

    def __init__(self, middle: nn.Module, channels: int = 8, last: int | None = None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.middle = middle
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(last or channels, 5)

    def forward(self, images):
        return self.head(self.pool(self.middle(self.stem(images))))


class Step(nn.Module):
    """What a function makes of the features and of layers that it is given."""

    def __init__(self, function, *layers: nn.Module):
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, features):
        return self.function(features, *self.layers)


def convolution(inputs: int = 8, outputs: int = 8, size: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


FOLLOWED = {
    "a residual block": lambda: Network(Step(lambda x, one, two: x + two(one(x).relu()), convolution(), convolution())),
    "squeeze and excite": lambda: Network(
        Step(lambda x, one, two: x * two(one(x.mean((2, 3), keepdim=True)).relu()).sigmoid(),
             convolution(8, 4, 1), convolution(4, 8, 1)),
    ),
    "squeeze and excite by view and expand": lambda: Network(
        Step(lambda x, one, two: x * two(one(x.amax((2, 3))).relu()).sigmoid().view(len(x), -1, 1, 1).expand_as(x),
             nn.Linear(8, 4), nn.Linear(4, 8)),
    ),
    "axes of 1 removed and added": lambda: Network(
        Step(lambda x, one: x + one(x.mean((2, 3)).unsqueeze(2).unsqueeze(3)).squeeze(3).squeeze(2)[:, :, None, None],
             convolution(8, 8, 1)),
    ),
    "a cropped map": lambda: Network(Step(lambda x, one: one(x)[:, :, 1:-1, ::2], convolution())),
    "activations of all kinds": lambda: Network(
        nn.Sequential(nn.LeakyReLU(), convolution(), nn.Mish(), nn.Hardswish(), nn.ReflectionPad2d(1), nn.SELU()),
    ),
    "probabilities": lambda: nn.Sequential(Network(convolution()), nn.Softmax(dim=1)),
    "joined branches": lambda: Network(
        Step(lambda x, one, two: torch.cat([x, one(x), two(x)], dim=1), convolution(), convolution(8, 6)), last=22,
    ),
    "depthwise convolution": lambda: Network(nn.Sequential(convolution(groups=8), convolution(size=1))),
    "group norm, padding and resizing": lambda: Network(
        nn.Sequential(nn.ZeroPad2d(1), convolution(), nn.GroupNorm(1, 8), nn.Upsample(scale_factor=2), nn.MaxPool2d(2)),
    ),
    "a flattened map": lambda: nn.Sequential(
        convolution(1, 8), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(128, 12), nn.ReLU(), nn.Linear(12, 5),
    ),
    "rows of pixels": lambda: nn.Sequential(
        convolution(1, 8), nn.Flatten(2), nn.Conv1d(8, 6, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 5),
    ),
    "rows of pixels and back": lambda: Network(
        nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(8), nn.Unflatten(2, (16, 16)), convolution()),
    ),
    "a flattened map and its mean": lambda: nn.Sequential(
        convolution(1, 8), nn.MaxPool2d(4),
        Step(lambda x, one, two: one(x.flatten(1)) + two(x.mean((2, 3))), nn.Linear(128, 6), nn.Linear(8, 6)),
        nn.Linear(6, 5),
    ),
    "a layer used twice": lambda: Network((lambda layer: nn.Sequential(layer, nn.ReLU(), layer))(convolution())),
    "ConvNeXt": lambda: zoo.ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], num_classes=5),
    "compiled and frozen": lambda: freeze(torch.compile(Network(nn.Identity()))),
}  # fmt: skip


NORMALISED = (
    "group norm, padding and resizing",
    "ConvNeXt",
)  # by statistics of channels, of which there are fewer


def attention() -> nn.Module:
    """A plain transformer block on the pixels, with a projection each for queries, keys and values."""

    def block(maps, query, key, value, out):
        rows = maps.flatten(2).transpose(1, 2)
        heads = [layer(rows).unflatten(2, (2, -1)).transpose(1, 2) for layer in (query, key, value)]
        mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return (rows + out(mixed)).transpose(1, 2).unflatten(2, maps.shape[2:])

    return Step(block, *(nn.Linear(8, 8) for _ in range(4)))


def by_hand(maps, query, key, value):
    """Attention in plain matrix products, of one head."""
    rows = maps.flatten(2).transpose(1, 2)
    weights = (query(rows) @ key(rows).transpose(1, 2)).softmax(dim=-1)
    return (weights @ value(rows)).transpose(1, 2).reshape(maps.shape)


def recurrent(maps, layer):
    return layer(maps.mean(3).transpose(1, 2))[0][:, -1, :, None, None]


MOVED = {
    "attention": lambda: Network(attention()),
    "attention by hand": lambda: Network(Step(by_hand, *(nn.Linear(8, 8) for _ in range(3)))),
    "nn.MultiheadAttention": lambda: Network(
        Step(lambda x, layer: layer(*[x.flatten(2).transpose(1, 2)] * 3)[0].transpose(1, 2).unflatten(2, x.shape[2:]),
             nn.MultiheadAttention(8, 2, batch_first=True)),
    ),
    "VisionTransformer": lambda: zoo.VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=5),
    "SwinTransformer": lambda: zoo.SwinTransformer([4, 4], 12, [1, 1], [2, 4], [4, 4], num_classes=5),
    "shuffled channels": lambda: Network(nn.Sequential(convolution(), nn.ChannelShuffle(2), convolution())),
    "channels to pixels": lambda: Network(nn.PixelShuffle(2), last=2),
    "pixels to channels": lambda: Network(nn.PixelUnshuffle(2), last=32),
    "a layer along the width": lambda: Network(nn.Linear(16, 16)),
    "a norm along the width": lambda: Network(nn.LayerNorm(16)),
    "a norm over the whole map": lambda: Network(nn.LayerNorm((8, 16, 16))),
    "flattened channels last": lambda: nn.Sequential(
        convolution(1, 8), nn.MaxPool2d(4), Step(lambda x: x.permute(0, 2, 3, 1)), nn.Flatten(), nn.Linear(128, 5)),
    "axes swapped": lambda: Network(Step(lambda x: x.transpose(1, 2)), channels=16),
    "a convolution after a permutation": lambda: Network(
        Step(lambda x, layer: layer(x.permute(0, 3, 1, 2)), convolution(16, 8, 1)),
    ),
    "the mean of the channels": lambda: Network(
        Step(lambda x, layer: x * layer(x.mean(1, keepdim=True)), convolution(1, 1))),
    "the mean of everything": lambda: Network(Step(lambda x: x / x.mean())),
    "the deviation of everything": lambda: Network(Step(lambda x: x / x.std())),
    "a gated linear unit": lambda: Network(nn.GLU(dim=1), last=4),
    "softmax over the channels": lambda: Network(nn.Softmax(dim=1)),
    "a map out of features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(256, 32), nn.Unflatten(1, (8, 2, 2)), convolution(8, 5), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
    "channels of zeros": lambda: Network(Step(lambda x: nn.functional.pad(x, (0, 0, 0, 0, 2, 2))), last=12),
    "every second channel": lambda: Network(Step(lambda x: x[:, ::2]), last=4),
    "turned about": lambda: Network(Step(lambda x: x.roll(1, dims=1))),
    "sorted channels": lambda: Network(Step(lambda x: x.sort(dim=1).values)),
    "a chunk of the channels": lambda: Network(Step(lambda x: x.chunk(2, dim=1)[0]), last=4),
    "joined images": lambda: Network(Step(lambda x: torch.cat([x, x], dim=3))),
    "weights of its own": lambda: Network(
        Step(lambda x, layer: nn.functional.conv2d(x, layer.weight * 2), convolution())),
    "a recurrent layer": lambda: Network(Step(recurrent, nn.GRU(8, 8, batch_first=True))),
}  # fmt: skip


def shape_of(case: str) -> tuple[int, int, int]:
    return (3, 16, 16) if case in ("ConvNeXt", "VisionTransformer", "SwinTransformer") else SHAPE


def filled(model: nn.Module) -> nn.Module:
    """The network with no number twice among its parameters."""
    generator = torch.Generator().manual_seed(0)
    count = sum(parameter.numel() for parameter in model.parameters())
    values = (torch.randperm(count, generator=generator) / count - 0.5).split(
        [p.numel() for p in model.parameters()]
    )
    for parameter, chosen in zip(model.parameters(), values, strict=True):
        parameter.data.copy_(chosen.view_as(parameter))
    return model.eval()


def kept(before: torch.Tensor, after: torch.Tensor) -> list[torch.Tensor]:
    """Which rows, columns, ... of a parameter are left, in their order; an error where it is no block of them."""
    place = {value: index for index, value in enumerate(before.flatten().tolist())}
    indices = torch.tensor([place[value] for value in after.flatten().tolist()]).view(after.shape)
    chosen = []
    for axis, places in enumerate(torch.unravel_index(indices, before.shape)):
        rows = places.movedim(axis, 0).reshape(after.shape[axis], -1)
        assert (rows == rows[:, :1]).all(), "not a block"
        chosen.append(rows[:, 0])
    return chosen


def test_channels_that_go_are_the_same_for_all_that_write_and_read_them():
    """With all other channels at 0 before a layer reads them, the original computes what is left of it."""
    for case, build in FOLLOWED.items():
        model, shape = filled(build()), shape_of(case)
        smaller = prune_channels(model, 0.5, shape)
        original = finish(model)  # out of its wrappers
        images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
        assert smaller(images).shape == (2, 5), case
        before, after = (
            sum(parameter.numel() for parameter in each.parameters()) for each in (original, smaller)
        )
        assert after < 0.6 * before, (case, before, after)
        if case in NORMALISED:
            continue
        for path, layer in smaller.named_modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) and getattr(layer, "groups", 1) == 1:
                reads = original.get_submodule(path)
                reads.register_forward_pre_hook(reading(kept(reads.weight, layer.weight)[1]))
        torch.testing.assert_close(
            smaller(images), original(images), msg=lambda text, case=case: f"{case}: {text}"
        )


def reading(inputs: torch.Tensor):
    """A hook: a layer that reads these inputs and takes all others for 0."""

    def hook(layer, arguments):
        (features,) = arguments
        axis = -1 if isinstance(layer, nn.Linear) else 1
        mask = torch.zeros(features.shape[axis]).index_fill(0, inputs, 1)
        return features * mask.view(
            [-1 if axis in (number, number - features.ndim) else 1 for number in range(features.ndim)]
        )

    return hook


def test_convnext_keeps_the_same_channels_in_every_layer_of_a_stage():
    model = filled(FOLLOWED["ConvNeXt"]())
    smaller, original = prune_channels(model, 0.5, (3, 16, 16)), dict(model.named_parameters())
    chosen = {
        path: [axis.tolist() for axis in kept(original[path], parameter)]
        for path, parameter in smaller.named_parameters()
    }
    first, hidden = chosen["features.0.0.weight"][0], chosen["features.1.0.block.3.weight"][0]
    assert len(first) == 4 and len(hidden) == 16
    for path in (
        "features.0.1.weight",
        "features.1.0.block.0.bias",
        "features.1.0.block.2.bias",
        "features.2.0.weight",
    ):
        assert chosen[path] == [first], path
    assert chosen["features.1.0.layer_scale"][0] == chosen["features.1.0.block.5.weight"][0] == first
    assert chosen["features.1.0.block.3.weight"][1] == chosen["features.2.1.weight"][1] == first
    assert chosen["features.1.0.block.5.weight"][1] == hidden


@pytest.mark.filterwarnings("ignore")
def test_networks_that_move_their_channels_are_refused_by_the_operation_and_its_place():
    for case, build in MOVED.items():
        model, shape = build(), shape_of(case)
        hooks = [len(module._forward_hooks) for module in model.modules()]
        with pytest.raises(
            ValueError, match="channels of model, a .* cannot be followed: .* takes? `sparsify`|factorize"
        ):
            prune_channels(model, 0.5, shape)
        with pytest.raises(ValueError, match="channels of teacher, a .* cannot be followed"):
            carve(model, model, shape)
        assert [len(module._forward_hooks) for module in model.modules()] == hooks, case
        if case != "weights of its own":  # the others take what the message says
            for smaller in (sparsify(model, 0.5), factorize(model, 0.9)):
                assert smaller(torch.zeros(1, *shape)).shape == (1, 5), case


LIMITED = """
import resource, sys
import torch
from torchvision import models
sys.path.insert(0, "tests")
from test_compress_channels import MOVED, shape_of
from kdlib.deploy.compress import carve, prune_channels
networks = {name: (MOVED[name](), shape_of(name)) for name in ("attention", "SwinTransformer", "VisionTransformer")}
networks["swin_v2_t"] = models.swin_v2_t(num_classes=5), (3, 64, 64)
(used,) = (1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:"))
resource.setrlimit(resource.RLIMIT_DATA, (used + 600 * 2**20, resource.RLIM_INFINITY))
for name, (network, shape) in networks.items():
    for shrink in (lambda: prune_channels(network, 0.5, shape), lambda: carve(network, network, shape)):
        try:
            shrink()
        except ValueError as error:
            print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is one of Linux")
def test_transformers_are_refused_within_600_mb():
    """A Swin of 12 channels took all memory that there was, in lists of channels that went round in circles."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    said = process.stdout.splitlines()
    assert len(said) == 8 and all("cannot be followed: " in line for line in said), process.stdout
