"""Running a network over a whole split, without gradients and without side effects."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from kdlib._checks import positive_integer
from kdlib._layout import channels_last
from kdlib.data import ImageSplit

# By which share of the largest logit an answer may differ in another batch: bfloat16 rounds by up to 0.02.
_UNSTEADY = 0.05
# What a forward raises of images that it was not made for. Others, such as a full disk, are no matter of the images.
MISFITS = (RuntimeError, AssertionError, AttributeError, LookupError, TypeError)


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """How pixels become what a network sees: (pixels / 255 - mean) / std, channel by channel.

    Grey images are repeated where there are several means. With `size` the shorter side is scaled to it
    (bilinear, with antialiasing) and the centre cut out, as torchvision's transforms for evaluation do.

    Args:
        mean: float32 (channels,), in units of pixels in [0, 1].
        std: likewise, above 0.
        size: height and width that the network sees; None for those of the images.
    """

    mean: Float[Tensor, " channels"]
    std: Float[Tensor, " channels"]
    size: int | None = None

    def __call__(self, pixels: Tensor) -> Float[Tensor, "batch channels height width"]:
        """Images (batch, channels, height, width), uint8 or floating-point numbers in [0, 255], normalised."""
        if pixels.shape[1] == 1 < len(self.mean):
            pixels = pixels.expand(-1, len(self.mean), -1, -1)
        if pixels.shape[1] != len(self.mean):
            raise ValueError(
                f"a network whose preprocessing has {len(self.mean)} means cannot see images of {pixels.shape[1]} "
                f"channels, got shape {tuple(pixels.shape)}"
            )
        pixels = pixels.float()
        if self.size is not None and pixels.shape[2:] != (self.size, self.size):
            pixels = _scaled_and_cropped(pixels, self.size)
        return torch.addcmul(self._shift.to(pixels.device), pixels, self._scale.to(pixels.device))

    @cached_property
    def _scale(self) -> Tensor:
        return (1 / (255 * self.std)).view(1, -1, 1, 1)

    @cached_property
    def _shift(self) -> Tensor:
        return (-self.mean / self.std).view(1, -1, 1, 1)

    def describe(self) -> str:
        """The same text for the same preprocessing, in every process."""
        return f"mean={self.mean.tolist()} std={self.std.tolist()} size={self.size}"


def _scaled_and_cropped(pixels: Tensor, size: int) -> Tensor:
    height, width = pixels.shape[2:]
    shorter = min(height, width)
    # Rounded as torchvision rounds: the longer side down, the margins to the nearest.
    scaled = size * height // shorter, size * width // shorter
    pixels = F.interpolate(pixels, scaled, mode="bilinear", antialias=True, align_corners=False)
    top, left = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return pixels[:, :, top : top + size, left : left + size]


def network_rule(name: str, value: Any) -> nn.Module:
    """A rule for `kdlib._checks.checked`: a network, whose weights are numbers."""
    if isinstance(value, type) and issubclass(value, nn.Module):
        raise TypeError(
            f"{name} must be a network, got the class {value.__name__}: give {value.__name__}(...)"
        )
    if not isinstance(value, nn.Module):
        program = isinstance(value, torch.export.ExportedProgram)
        hint = ": give the network in it, by its .module()" if program else ""
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(value).__name__}{hint}")
    _refuse_missing_weights(name, value)
    return value


def _refuse_missing_weights(name: str, model: nn.Module) -> None:
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{name} does not know the size of {path!r} yet: run it once on an image")
        if tensor.is_meta:
            raise ValueError(f"{name} has no numbers in {path!r} (device 'meta'): load its weights first")


def optional_count_rule(name: str, value: Any) -> int | None:
    """A rule: a whole number of at least 1, or None."""
    return None if value is None else positive_integer(name, value)


def statistic_rule(name: str, value: Any) -> Tensor | None:
    """A rule for `kdlib._checks.checked`: a number for each channel, in units of pixels in [0, 1], or None."""
    if value is None:
        return None
    try:
        numbers = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must hold a number for each channel, got {value!r:.80}") from error
    if numbers.ndim != 1 or not len(numbers) or not numbers.isfinite().all() or numbers.abs().max() > 10:
        raise ValueError(
            f"{name} must hold a finite number for each channel, in units of pixels in [0, 1], got {value!r}"
        )
    return numbers


def preprocessing_of(model: nn.Module) -> Preprocessing | None:
    """What a network carries as its own preprocessing (`kdlib.teachers.freeze`); None where it takes its images as
    the split normalises them."""
    own = getattr(model, "preprocessing", None)
    return own if isinstance(own, Preprocessing) else None  # a network may have a layer of that name


def seen_by(
    model: nn.Module, split: ImageSplit, positions: Tensor
) -> Float[Tensor, "k channels height width"]:
    """The images at these positions as this network sees them: by its own preprocessing, or else the split's, in
    the precision of its weights."""
    return prepared_for(model, split, split.images[positions])


def prepared_for(
    model: nn.Module, split: ImageSplit, pixels: Tensor
) -> Float[Tensor, "k channels height width"]:
    """Pixels of a split as `seen_by` gives them."""
    own = preprocessing_of(model)
    if own is None:
        # As `ImageSplit.normalized` computes it, to the last bit.
        images = (
            pixels.to(torch.float32).div_(255).sub_(split.mean[:, None, None]).div_(split.std[:, None, None])
        )
    else:
        images = own(pixels)
    return images.to(precision_of(model))


def precision_of(model: nn.Module) -> torch.dtype:
    """The floating-point type of a network's weights: float32 but where somebody chose another."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The given device, or the best one that this machine has: CUDA, then Apple's MPS, then the CPU."""
    if device is not None:
        return _named_device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_rule(name: str, value: Any) -> torch.device | None:
    """A rule for `kdlib._checks.checked`: a device that computes here, or None."""
    return None if value is None else _named_device(value)


def _named_device(device: Any) -> torch.device:
    try:
        named = torch.device(device)
        torch.zeros(1, device=named)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device={device!r:.80} cannot compute here: {str(error).splitlines()[0]}"
        ) from error
    if named.type == "meta":
        raise ValueError("device='meta' holds no numbers: give 'cpu', or None for the best one that is here")
    return named


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output: the tensor itself, or its `logits` field (torchvision's networks with
    auxiliary heads and most transformer libraries return an object with such a field)."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise ValueError(
            "the model must return a tensor of logits or an object with .logits, got "
            f"{type(output).__name__}; wrap it in a module whose forward returns the logits alone"
        )
    return logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch every submodule to eval mode, and back to what each one was before."""
    was_training = [(module, module.training) for module in model.modules()]
    try:
        switch(model, training=False)
        yield
    finally:
        for module, training in was_training:
            module.training = training


def switch(model: nn.Module, *, training: bool) -> None:
    """Switch every submodule to training or eval mode.

    Raises:
        ValueError: to training mode, of a network that computes as it did when torch.export made it.
    """
    try:
        model.train(training)
    except NotImplementedError as error:  # a graph made by torch.export refuses to be switched
        if training:
            raise ValueError(
                "the model is an exported graph, which has no training mode: give the network from which it was "
                "exported"
            ) from error
        for module in model.modules():
            module.training = False


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move a network to a device, and back to where it was."""
    before = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), device)
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


def predict_logits(
    model: nn.Module,
    split: ImageSplit,
    *,
    batch_size: int = 100,
    device: str | torch.device | None = None,
    bfloat16: bool = False,
) -> Float[Tensor, "n classes"]:
    """Logits of every image of `split`, in order, as float32 on the CPU.

    Runs in eval mode and restores each submodule's mode. The model stays on `device`
    (chosen by `pick_device` where it is None). A network that carries a preprocessing of its own gets it.
    With `bfloat16` it computes in bfloat16 what may be.

    Raises:
        ValueError: the model does not accept images of this shape, or returns something else than
            one logit vector an image; the message shows both shapes.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    _refuse_missing_weights("the model", model)
    device = pick_device(device)
    model.to(device)
    outputs = []
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
    with evaluating(model), channels_last(model), torch.inference_mode(), autocast:
        for pixels in split.pixel_batches(torch.arange(len(split)).split(batch_size)):
            outputs.append(
                _logits_of_batch(model, prepared_for(model, split, pixels).to(device)).float().cpu()
            )
    # A tensor made in inference mode cannot take part in training later; a clone can.
    return torch.cat(outputs).clone()


def check_steady(
    name: str,
    model: nn.Module,
    split: ImageSplit,
    device: str | torch.device | None,
    logits: Tensor | None = None,
) -> None:
    """What a network says of an image must not depend on the images beside it, nor on chance.

    Args:
        name: of the argument, for the message.
        logits: what it said of the whole split, where that is known.

    Raises:
        ValueError: it does, although the network is in eval mode.
    """
    two = predict_logits(model, split.subset(torch.arange(min(2, len(split)))), device=device)
    if logits is None:
        logits = predict_logits(model, split.subset(torch.arange(min(8, len(split)))), device=device)
    difference = (logits[: len(two)] - two).abs().max().item()
    if difference > _UNSTEADY * two.abs().max().item() + 1e-4:  # NaN is refused where it would do harm
        raise ValueError(
            f"{name} gives other logits of the same image at each call or beside other images (by up to "
            f"{difference:.3g}), although in eval mode: it may have been exported or traced in training mode (call "
            ".eval() before), or call dropout or batch norm without training=self.training"
        )


def _logits_of_batch(model: nn.Module, images: Tensor) -> Tensor:
    try:
        output = model(images)
    except MISFITS as error:
        raise ValueError(
            f"the model cannot process images of shape {tuple(images.shape)}: {described(error)}{_hint(model)}"
        ) from error
    logits = logits_of(output)
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(
            f"the model must return logits of shape ({len(images)}, classes) for images of shape "
            f"{tuple(images.shape)}, got {tuple(logits.shape)}"
        )
    return logits


def _hint(model: nn.Module) -> str:
    if not isinstance(model, fx.GraphModule):
        return ""
    return (
        ". An exported graph takes only the numbers of images that it was exported for: export it with "
        "dynamic_shapes=({0: torch.export.Dim('batch')},), or give the network itself"
    )


def described(error: BaseException) -> str:
    """The message of an error that somebody else's code raised, with its kind where that says more."""
    return str(error) if type(error) is RuntimeError else f"{type(error).__name__}: {error}"
