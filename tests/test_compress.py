"""Pruning and factorisation: what is taken away, what is left, and that it computes what it should."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kdlib import data, models
from kdlib.deploy import compress
from kdlib.teachers import freeze
from kdlib.training import train

PLAN = ((8, 3, 1), (16, 3, 2))
SHAPE = (1, 8, 8)


def network(plan=PLAN) -> nn.Module:
    """A small network with batch norm statistics and scales that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(0)
    model = models.PocketCNN(10, 1, plan)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5 * (tensor.ndim > 1))
    return model.eval()


def images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def weights(model: nn.Module) -> list[torch.Tensor]:
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [layer.weight.detach() for layer in layers]


def assert_untouched(model: nn.Module, change) -> nn.Module:
    """Apply the change; the network that it is given must stay as it is."""
    before, training = copy.deepcopy(model.state_dict()), model.training
    changed = change(model)
    assert model.training == training and changed is not model
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return changed


def test_sparsify_takes_the_smallest_weights_of_all_layers_together():
    model = network()
    for share in (0, 0.3, 0.8):
        sparse = assert_untouched(model, lambda model: compress.sparsify(model, share))  # noqa: B023
        before, after = (torch.cat([w.flatten() for w in weights(each)]) for each in (model, sparse))
        gone = np.argsort(before.abs().numpy())[: round(share * len(before))]
        expected = before.clone()
        expected[gone] = 0
        assert torch.equal(after, expected), share
        assert compress.zero_share(sparse) == pytest.approx(share, abs=1 / len(before)), share


def test_sparsify_layerwise_takes_the_share_of_each_layer():
    for before, after in zip(
        weights(network()), weights(compress.sparsify(network(), 0.5, layerwise=True)), strict=True
    ):
        kept = after != 0
        assert (~kept).sum() == before.numel() // 2 and torch.equal(after[kept], before[kept])
        assert before[~kept].abs().max() <= before[kept].abs().min()


def test_sparsify_takes_weights_in_channels_last_and_frozen_teachers():
    expected = weights(compress.sparsify(network(), 0.5))
    for model in (network().to(memory_format=torch.channels_last), freeze(network())):
        sparse = compress.sparsify(model, 0.5)
        assert all(torch.equal(a, b) for a, b in zip(weights(sparse), expected, strict=True))
        assert all(parameter.requires_grad for parameter in sparse.parameters())


def test_zeros_stay_in_training_and_finish_leaves_a_plain_network():
    split = data.load("digits").train.take(40)
    sparse = compress.sparsify(network(), 0.7)
    zeros, before = [w == 0 for w in weights(sparse)], weights(sparse)
    train(sparse, split, epochs=2, progress=False, device="cpu")
    assert all(torch.equal(w == 0, zero) for w, zero in zip(weights(sparse), zeros, strict=True))
    assert not any(torch.equal(w, old) for w, old in zip(weights(sparse), before, strict=True))
    plain = assert_untouched(sparse, compress.finish)
    assert plain.state_dict().keys() == network().state_dict().keys()
    assert type(plain.stages[0][0]) is nn.Conv2d and compress.zero_share(plain) == compress.zero_share(sparse)
    torch.testing.assert_close(plain(images()), sparse(images()))


def test_a_sparse_network_can_be_made_sparser_in_steps():
    twice = compress.sparsify(compress.sparsify(network(), 0.4), 0.8)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(twice), weights(compress.sparsify(network(), 0.8)), strict=True)
    )


def test_shares_that_leave_nothing_or_add_something_are_refused():
    for share in (-0.1, 1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="share must be"):
            compress.sparsify(network(), share)
        with pytest.raises(ValueError, match="share must be"):
            compress.prune_channels(network(), share, SHAPE)


def test_a_network_without_weights_is_refused():
    for refused in (
        compress.sparsify, compress.factorize, lambda model, share: compress.prune_channels(model, share, SHAPE),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="no convolution and no linear layer"):
            refused(nn.Flatten(), 0.5)


def importance_of_first_and_second(model: nn.Module) -> list[np.ndarray]:
    """Sum of squares of the filter, the scale of its norm, and what the next layer does with it."""
    first, second, head = (weight.double().numpy() for weight in weights(model))
    scales = [stage[1].weight.detach().double().numpy() for stage in model.stages]
    return [
        (first**2).sum((1, 2, 3)) + scales[0] ** 2 + (second**2).sum((0, 2, 3)),
        (second**2).sum((1, 2, 3)) + scales[1] ** 2 + (head**2).sum(0),
    ]


def test_prune_channels_keeps_the_most_important_half_and_the_logits():
    model = network()
    smaller = assert_untouched(model, lambda model: compress.prune_channels(model, 0.5, SHAPE))
    kept = [
        np.sort(np.argsort(scores)[len(scores) // 2 :]) for scores in importance_of_first_and_second(model)
    ]
    by_hand = models.PocketCNN(10, 1, ((4, 3, 1), (8, 3, 2)))
    state, first, second = model.state_dict(), *kept
    chosen = {
        name: tensor[first] if name.startswith("stages.0") else tensor[second] if "stages" in name else tensor
        for name, tensor in state.items()
        if tensor.ndim
    }
    chosen["stages.1.0.weight"] = chosen["stages.1.0.weight"][:, first]
    chosen["head.weight"] = chosen["head.weight"][:, second]
    by_hand.load_state_dict(chosen, strict=False)
    torch.testing.assert_close(smaller(images()), by_hand.eval()(images()))
    assert [tuple(w.shape) for w in weights(smaller)] == [(4, 1, 3, 3), (8, 4, 3, 3), (10, 8)]


def test_prune_channels_shrinks_other_networks():
    pictures = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    for name in ("resnet8", "student-net", "mobilenet_v2"):
        model = models.build(name, image_size=32, seed=0)
        same, half = (compress.prune_channels(freeze(model), share, (1, 32, 32)) for share in (0, 0.5))
        torch.testing.assert_close(same(pictures), model.eval()(pictures))
        assert half(pictures).shape == (2, 10), name
        before, after = (sum(w.numel() for w in weights(each)) for each in (model, half))
        assert 0.2 < after / before < 0.35, name


def test_prune_channels_leaves_the_rounded_share_and_one_channel_at_least():
    for share, widths in ((0.8, [2, 1]), (0.9, [1, 1]), (0.99, [1, 1]), (0.05, [10, 5])):
        smaller = compress.prune_channels(network(((10, 3, 1), (5, 3, 2))), share, SHAPE)
        assert [len(w) for w in weights(smaller)] == [*widths, 10], share


def test_prune_channels_says_where_it_cannot_follow_the_channels():
    shuffled = models.build("shufflenet_v2_x0_5", image_size=32, seed=0)
    with pytest.raises(ValueError, match="channels of model, a ShuffleNetV2, cannot be followed: stage2.0 "):
        compress.prune_channels(shuffled, 0.5, (1, 32, 32))


def test_prune_channels_refuses_images_that_the_network_does_not_take():
    for shape in ((8, 8), (1, 0, 8), (3, 8, 8)):
        with pytest.raises(ValueError, match="image_shape must be|cannot process images of image_shape="):
            compress.prune_channels(network(), 0.5, shape)


def repeated(rank: int, *shape: int) -> torch.Tensor:
    """Weights whose rows are only `rank` different ones."""
    rows = torch.randn(rank, *shape[1:], generator=torch.Generator().manual_seed(2))
    return rows[torch.arange(shape[0]) % rank]


def of_low_rank(**options) -> nn.Module:
    torch.manual_seed(0)  # of the biases
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, **options), nn.ReLU(), nn.Conv2d(12, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    with torch.no_grad():
        for layer, rank in ((0, 3), (2, 4), (4, 2), (7, 2)):
            model[layer].weight.copy_(repeated(rank, *model[layer].weight.shape))
    return model.eval()


def test_factorize_with_all_energy_computes_the_same_with_fewer_weights():
    # Ranks 3, 4 and 2; the grouped convolution stays.
    shapes = [(3, 1, 3, 3), (12, 3, 1, 1), (4, 12, 1, 1), (16, 4, 1, 1), (16, 4, 3, 3), (2, 16), (10, 2)]
    for options in ({}, {"stride": 2, "padding": 1}, {"dilation": 2, "bias": False}, {"padding": "same"}):
        model = of_low_rank(**options)
        split = assert_untouched(model, lambda model: compress.factorize(model, 1))
        torch.testing.assert_close(split(images()), model(images()), atol=2e-5, rtol=1e-5)
        assert [tuple(w.shape) for w in weights(split)] == shapes, options


def test_factorize_with_all_energy_leaves_layers_of_full_rank():
    split = compress.factorize(network(), 1)
    assert split.state_dict().keys() == network().state_dict().keys()
    torch.testing.assert_close(split(images()), network()(images()))


def test_factorize_takes_the_smallest_rank_that_keeps_the_energy():
    layer = nn.Linear(40, 30)
    matrix = layer.weight.detach().double().numpy()
    values = np.linalg.svd(matrix, compute_uv=False) ** 2
    for energy in (0.3, 0.6, 0.9, 0.99):
        split = compress.factorize(layer, energy)
        if isinstance(split, nn.Linear):  # two layers would save nothing
            rank = next(r for r in range(1, 31) if values[:r].sum() >= energy * values.sum())
            assert energy >= 0.9 and rank * 70 >= 1200, energy
            continue
        right, left = (part.weight.detach().double().numpy() for part in split)
        lost = ((matrix - left @ right) ** 2).sum()
        rank = len(right)
        assert lost == pytest.approx(values[rank:].sum(), rel=1e-4), (
            energy
        )  # no matrix of this rank is nearer
        assert values[:rank].sum() >= energy * values.sum() > values[: rank - 1].sum(), energy
        assert rank * 70 < 1200 and torch.equal(split[1].bias, layer.bias), energy
    assert isinstance(split, nn.Linear)  # of the last energy


def test_factorize_leaves_layers_whose_weights_others_use():
    split = compress.factorize(nn.MultiheadAttention(8, 2), 0.1)
    assert isinstance(split.out_proj, nn.Linear)


def test_factorize_refuses_energies_that_are_no_share():
    for energy in (0, -1, 1.1, float("inf")):
        with pytest.raises(ValueError, match="energy must be"):
            compress.factorize(network(), energy)
