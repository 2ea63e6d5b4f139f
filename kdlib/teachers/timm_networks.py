"""Networks of timm by name, where timm is installed; nothing else of kdlib needs it."""

import torch
from torch import nn

from kdlib.inference import Preprocessing, evaluating

PREFIX = "timm:"


def built(name: str, classes: int, *, fetch: bool, seed: int) -> nn.Module:
    """A network of timm with a new last layer.

    Args:
        name: "timm:NAME".
        fetch: whether it gets timm's own weights.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm does not build such a network.
        ConnectionError: its weights cannot be fetched.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"name={name!r} needs timm, which is not installed: pip install timm, or take a network of torchvision"
        ) from error
    plain = name.removeprefix(PREFIX)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = timm.create_model(plain, pretrained=False, num_classes=classes)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"timm builds no network {plain!r} for {classes} classes: {error}") from error
        if not fetch:
            return network
        torch.manual_seed(seed)
        try:
            return timm.create_model(plain, pretrained=True, num_classes=classes)
        except Exception as error:  # of timm, of its hub, of the library by which that asks the network
            raise ConnectionError(
                f"timm's weights of {plain!r} cannot be fetched here ({' '.join(str(error).split())[:200]}). Get them "
                "elsewhere and give them as weights=FILE"
            ) from error


def stated(network: nn.Module) -> Preprocessing:
    """How timm prepares the images of its own evaluation."""
    import timm.data

    wants = timm.data.resolve_model_data_config(network)
    return Preprocessing(torch.tensor(wants["mean"]), torch.tensor(wants["std"]), wants["input_size"][-1])


def check_size(name: str, network: nn.Module) -> None:
    """Try one blank image of the size that the network is to see.

    Raises:
        ValueError: it does not take it.
    """
    size = network.preprocessing.size
    try:
        with evaluating(network), torch.inference_mode():
            network(torch.zeros(1, len(network.preprocessing.mean), size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"{name} cannot process images of size={size} ({error}); timm states {stated(network).size}"
        ) from error
