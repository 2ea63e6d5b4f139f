"""Batch norm folded into convolutions."""

import pytest
import torch
from torch import nn

from kdlib.deploy.compress import fold_norms


def test_a_folded_network_answers_as_before_and_its_weights_are_those_of_the_formula():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    network = nn.Sequential(inner, nn.BatchNorm2d(2)).double()
    for norm in (inner[1], network[1]):
        for numbers in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(numbers, 0.3, 2)
    before = inner[0].weight.clone()
    images = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    folded, wanted = fold_norms(network), network.eval()(images)
    torch.testing.assert_close(folded(images), wanted)
    norm = inner[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(folded[0][0].weight, before * scale[:, None, None, None])
    assert isinstance(folded[0][1], nn.Identity) and torch.equal(inner[0].weight, before)
    # The second norm stands behind a sequence, not behind a convolution.
    assert isinstance(folded[1], nn.BatchNorm2d)


def test_a_norm_without_statistics_is_left_alone():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    assert isinstance(fold_norms(network)[1], nn.BatchNorm2d)
    with pytest.raises(TypeError):
        fold_norms("network")


def test_groups_are_folded_and_what_was_folded_can_be_trained():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(6, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)).eval()
    nn.init.uniform_(network[1].running_var, 0.5, 3)
    images, folded = torch.randn(2, 6, 5, 5), fold_norms(network)
    torch.testing.assert_close(folded(images), network(images))
    assert all(parameter.requires_grad for parameter in folded.parameters()) and folded[0].bias is not None


def test_a_sequence_that_reads_what_is_between_its_parts_is_left_alone():
    class Adds(nn.Sequential):
        def forward(self, images):
            between = self[0](images)
            return self[1](between) + between

    network, images = Adds(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval(), torch.randn(2, 1, 3, 3)
    nn.init.constant_(network[1].running_mean, 3)
    torch.testing.assert_close(fold_norms(network)(images), network(images))
