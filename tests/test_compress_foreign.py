"""Networks of all origins through every way to make one smaller: out of their wrappers, or refused by name."""

import pytest
import torch
from test_compress_channels import FOLLOWED, SHAPE, Network
from torch import nn

from kdlib.deploy.compress import carve, factorize, prune_channels, sparsify, zero_share
from kdlib.teachers import freeze


def traced(model: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.trace(model, torch.zeros(2, *SHAPE))


def with_number(model: nn.Module, value: float) -> nn.Module:
    nn.init.constant_(model.head.weight, value)
    return model


class Packed(nn.Parameter):
    """A weight that is kept in another form, as those of torchao and bitsandbytes."""


def packed(model: nn.Module) -> nn.Module:
    model.head.weight = Packed(model.head.weight.detach())
    return model


def locked(model: nn.Module) -> nn.Module:
    model.images = (image for image in ())
    return model


plain = FOLLOWED["a residual block"]
NOT_PLAIN = {
    "a function": (lambda: len, "must be a network .* got builtin_function"),
    "weights": (lambda: plain().state_dict(), "must be a network .* got OrderedDict"),
    "a program": (lambda: torch.export.export(plain(), (torch.zeros(2, *SHAPE),)), "got a torch.export program"),
    "TorchScript": (lambda: traced(plain()), "it is TorchScript; give the network that was scripted"),
    "TorchScript inside": (lambda: Network(traced_step()), "middle is TorchScript"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear}), "head is quantised; give the network",
    ),
    "packed": (lambda: packed(plain()), "head.weight is kept as Packed, as quantisation does; give the network"),
    "meta": (lambda: plain().to("meta"), "no numbers in 'stem.0.weight'"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), "size of '1.weight' yet"),
    "NaN": (lambda: with_number(plain(), float("nan")), "weights that are not finite, in 'head.weight'"),
    "infinite": (lambda: with_number(plain(), float("inf")), "weights that are not finite, in 'head.weight'"),
    "a generator": (lambda: locked(plain()), "cannot be copied: TypeError"),
}  # fmt: skip


def traced_step() -> nn.Module:
    return torch.jit.trace(nn.ReLU(), torch.zeros(1))


@pytest.mark.filterwarnings("ignore")
def test_networks_that_cannot_be_changed_are_refused_by_name():
    for case, (build, message) in NOT_PLAIN.items():
        for name, shrink in (
            ("model", lambda model: sparsify(model, 0.5)),
            ("model", lambda model: factorize(model, 0.5)),
            ("model", lambda model: prune_channels(model, 0.5, SHAPE)),
            ("teacher", lambda model: carve(model, plain(), SHAPE)),
            ("student", lambda model: carve(plain(), model, SHAPE)),
        ):
            with pytest.raises((ValueError, TypeError), match=f"{name}.*{message}") as error:
                shrink(build())
            assert "\n" not in str(error.value), case


@pytest.mark.filterwarnings("ignore")
def test_networks_out_of_a_wrapper_or_in_half_precision_are_made_smaller():
    wraps = {
        "compiled": torch.compile,
        "data-parallel": nn.DataParallel,
        "frozen": freeze,
        "all three": lambda model: freeze(nn.DataParallel(torch.compile(model))),
        "half": lambda model: model.bfloat16(),
        "exported": lambda model: torch.export.export(model, (torch.zeros(2, *SHAPE),)).module(),
    }
    for case, wrap in wraps.items():
        if case == "exported":  # it has weights but no layers
            for shrink in (
                lambda model: sparsify(model, 0.5),
                lambda model: prune_channels(model, 0.5, SHAPE),
            ):
                with pytest.raises(ValueError, match="no linear layer; of an exported network give the one"):
                    shrink(wrap(plain()))
            continue
        sparse = sparsify(wrap(plain()), 0.5)
        assert zero_share(sparse) == pytest.approx(0.5, abs=0.01) and type(sparse) is Network, case
        assert type(factorize(wrap(plain()), 0.5)) is Network, case
        if case == "half":
            continue
        for smaller in (
            prune_channels(wrap(plain()), 0.5, SHAPE),
            carve(wrap(plain()), wrap(plain()), SHAPE),
        ):
            assert type(smaller) is Network and smaller(torch.zeros(1, *SHAPE)).shape == (1, 5), case
