"""The solutions of lesson 06 compute what the library computes by other means."""

import copy

import torch
import torch.nn.functional as F
import torch_pruning
from torch import nn

from kdlib.deploy import factorization, pruning
from kdlib.lesson import exercises


def test_low_rank_factors_are_those_of_the_librarys_factorised_layer():
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 12, 3, padding=1, bias=False).double()
    for energy in (0.3, 0.6, 0.8):
        theirs = factorization.factorize(layer, energy)
        rank = theirs[0].out_channels
        first, second = exercises.solution("low_rank_factors")(layer.weight.detach(), rank)
        images = torch.randn(2, 5, 7, 7, dtype=torch.float64)
        ours = F.conv2d(F.conv2d(images, first, padding=1), second)
        assert 1 < rank < 12 and torch.allclose(ours, theirs(images)), energy


def test_what_low_rank_factors_miss_is_what_the_other_singular_values_hold():
    for weight, rank in exercises.get("low_rank_factors").cases():
        first, second = exercises.solution("low_rank_factors")(weight, rank)
        missed = (weight.flatten(1) - second.flatten(1) @ first.flatten(1)).norm()
        others = torch.linalg.svdvals(weight.flatten(1))[rank:].norm()
        assert torch.allclose(missed, others, atol=1e-10), (tuple(weight.shape), rank)


def test_a_pruned_pair_is_what_the_dependency_graph_leaves():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1)
    images = torch.randn(8, 3, 11, 11)
    layers[1](layers[0](images))  # running statistics that are not those of a new norm
    nn.init.normal_(layers[1].weight)
    first, norm, second = copy.deepcopy(layers)
    theirs = nn.Sequential(first, norm, nn.ReLU(), second)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, images)
    graph.get_pruning_group(first, torch_pruning.prune_conv_out_channels, [0, 3, 4]).prune()
    ours = exercises.solution("prune_channel_pair")(*layers, torch.tensor([1, 2, 5]))
    for mine, other in zip(ours, (first, norm, second), strict=True):
        assert str(mine) == str(other)
        assert {name: x.tolist() for name, x in mine.state_dict().items()} == {
            name: x.tolist() for name, x in other.state_dict().items()
        }


def test_a_pruned_pair_trains_on_and_leaves_the_layers_that_were_given_alone():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
    before = [copy.deepcopy(layer.state_dict()) for layer in layers]
    first, norm, second = exercises.solution("prune_channel_pair")(*layers, torch.tensor([5, 0]))
    small = nn.Sequential(first, norm, nn.ReLU(), second).train()
    optimizer = torch.optim.SGD(small.parameters(), lr=1.0)
    small(torch.randn(4, 3, 9, 9)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in small.parameters())
    optimizer.step()
    for layer, state in zip(layers, before, strict=True):
        assert all(torch.equal(layer.state_dict()[name], state[name]) for name in state)


def test_the_repaired_sparse_training_is_that_of_a_network_from_sparsify():
    torch.manual_seed(0)
    layer = nn.Linear(10, 6, bias=False).double()
    velocity = torch.randn(6, 10, dtype=torch.float64)
    inputs, targets = torch.randn(20, 10).double(), torch.randn(20, 6).double()

    def gradient(weight):
        leaf = weight.detach().requires_grad_()
        return torch.autograd.grad(F.mse_loss(F.linear(inputs, leaf), targets), leaf)[0]

    sparse = pruning.sparsify(layer, 0.6)
    mask = (sparse.weight != 0).double()
    trained = sparse.parametrizations.weight.original
    optimizer = torch.optim.SGD(sparse.parameters(), lr=0.1, momentum=0.9)
    optimizer.state[trained]["momentum_buffer"] = velocity.clone()
    for _ in range(7):
        optimizer.zero_grad()
        F.mse_loss(sparse(inputs), targets).backward()
        optimizer.step()
    repair = exercises.get("repair_sparse_training")
    given = layer.weight.detach(), mask, velocity, gradient, 7, 0.1
    assert torch.allclose(repair.solve(*given), sparse.weight)
    assert torch.equal(repair.solve(*given) != 0, mask.bool())
    assert (repair.start(*given) != 0).all()  # what is to be repaired: no zero is left
