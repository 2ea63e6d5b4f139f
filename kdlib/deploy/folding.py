"""Batch norm folded into the convolution before it, as every runtime for inference does."""

from torch import nn
from torch.nn.utils import fusion

from kdlib._checks import checked
from kdlib.deploy import networks
from kdlib.deploy.networks import trainable_copy

NORMS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


@checked(model=networks.with_weights)
def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of `model` in which a convolution does what it did together with the batch norm behind it.

        w'_c = w_c gamma_c / sqrt(var_c + eps),    b'_c = (b_c - mean_c) gamma_c / sqrt(var_c + eps) + beta_c

    In eval mode both give the same answers, up to rounding; the copy has an `nn.Identity` where the norm was. Its
    weights are those that a quantiser rounds: channels whose norm scales them up have become large.

    Folded is a norm that stands right behind a convolution in an `nn.Sequential`, where nothing else can read what is
    between them; others are left alone.

    Args:
        model: any network; it is left as it is.

    Returns:
        A network on the CPU, in eval mode.

    Raises:
        ValueError: it is quantised or TorchScript.
        TypeError: it is no network.

    Source: Jacob et al. 2017, arXiv 1712.05877, section 3.2.
    """
    network = trainable_copy(model)
    # A subclass with a forward of its own may read what is between its parts.
    plain = [part for part in network.modules() if isinstance(part, nn.Sequential)]
    for sequence in [part for part in plain if type(part).forward is nn.Sequential.forward]:
        for place in range(len(sequence) - 1):
            convolution, norm = sequence[place], sequence[place + 1]
            if type(norm) is NORMS.get(type(convolution)) and norm.track_running_stats:
                sequence[place] = fusion.fuse_conv_bn_eval(convolution, norm).requires_grad_(True)
                sequence[place + 1] = nn.Identity()
    return network.eval()
