"""A trained network as a file that runs without Python code of its own, checked against the network it came from."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib._checks import checked, positive_number
from kdlib.deploy import arguments, files, networks, runtime
from kdlib.deploy.description import Description

BATCH_SIZES = (1, 2, 7)  # on which an exported file is compared; none but 2 is the size it was traced with
INPUT, OUTPUT = "images", "logits"
Numbers = Tensor | Sequence[float | int]
Run = Callable[[Tensor], Tensor]
CHECKS = {
    "model": networks.with_weights,
    "path": arguments.file_to_write,
    "image_shape": arguments.image_shape,
    "tolerance": positive_number,
}


@checked(
    classes=arguments.texts,
    mean=arguments.numbers,
    std=arguments.numbers,
    name=arguments.text_or_none,
    value_range=arguments.numbers,
    **CHECKS,
)
def export_onnx(
    model: nn.Module,
    path: str | PathLike,
    *,
    image_shape: Sequence[int],
    classes: Sequence[str],
    mean: Numbers,
    std: Numbers,
    name: str | None = None,
    value_range: Numbers = (0.0, 1.0),
    tolerance: float | int = 1e-4,
) -> Path:
    """Write `model` as one ONNX file for batches of any size, with what `kdlib serve` must know inside it.

    The file's input "images" is float32 (batch, channels, height, width), its output "logits" float32
    (batch, classes). Its metadata say how a picture becomes such an input (`kdlib.deploy.description`).
    Before it is written, onnxruntime runs it on batches of 1, 2 and 7 made-up pictures; its logits must be those
    of the network. The network itself is left as it is; the file holds it in eval mode, in float32.

    Args:
        model: maps images to logits, or to an object with `.logits`. Of a frozen teacher, a compiled or a
            data-parallel network, the network inside is written.
        path: the file to write; an older one is replaced in one step, a folder that is missing is made.
        image_shape: (channels, height, width), with 1 or 3 channels.
        classes: the names of the classes, in the order of the logits.
        mean, std: one number per channel, in units of `value_range`, as in `ImageDataset.mean`.
        name: how the model is called on the page; the name of the file where it is not given.
        value_range: what the pixel values 0 and 255 stand for.
        tolerance: the largest difference allowed, see `logit_difference`.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: an argument that describes no image classifier; a path where nothing can be written;
            a network that cannot process such images in batches of any size, that torch cannot export, or that
            gives another number of logits than there are classes; a difference above the tolerance. Nothing is
            written then, and no folder made.
    """
    shown = path.stem if name is None else name
    description = Description(shown, classes, *image_shape, mean, std, value_range)
    normalise = _normalisation(description)
    _check_preprocessing(model, description)
    network = _prepared(model, image_shape, normalise)
    example = normalise(pictures(2, image_shape))
    found = _logits(network, example).shape[1]
    if found != len(classes):
        raise ValueError(f"classes must name every logit: {len(classes)} names, {found} logits")
    with _exporting("ONNX", network):
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        content = files.with_description(program.model_proto, description)
        run = _onnx_runner(content)
    _check_parity(run, network, image_shape, tolerance, normalise)
    return files.write("path", path, content)


@checked(**CHECKS)
def export_program(
    model: nn.Module,
    path: str | PathLike,
    *,
    image_shape: Sequence[int],
    tolerance: float | int = 1e-4,
) -> Path:
    """Write `model` as a torch.export program (.pt2): torch runs it, without the Python code of the network.

    `torch.export.load(path).module()` maps float32 images of `image_shape`, in batches of any size, to logits.
    It carries no class names and no normalisation. Compared before it is written, and refused, as in
    `export_onnx`.

    Args:
        model, path, image_shape, tolerance: as in `export_onnx`.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: as `export_onnx`.
    """
    network = _prepared(model, image_shape, _centred)
    # Of two: torch.export would take a batch of one for a constant.
    example = _centred(pictures(2, image_shape))
    buffer = io.BytesIO()
    with _exporting("a torch.export program", network):
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, buffer)
        buffer.seek(0)
        run = torch.export.load(buffer).module()
    _check_parity(run, network, image_shape, tolerance, _centred)
    return files.write("path", path, buffer.getvalue())


@checked(**CHECKS)
def export_torchscript(
    model: nn.Module,
    path: str | PathLike,
    *,
    image_shape: Sequence[int],
    tolerance: float | int = 1e-4,
) -> Path:
    """Write `model` as TorchScript, for programs that load nothing else, such as older C++ code with libtorch.

    TorchScript is deprecated, and recent versions of torch warn so at each call; the warnings are passed on.
    For anything new take `export_program` or `export_onnx`. `torch.jit.load(path)` maps float32 images to logits.
    The network is traced, so a decision that its forward takes by looking at values is frozen. Compared before
    it is written, and refused, as in `export_onnx`.

    Args:
        model, path, image_shape, tolerance: as in `export_onnx`.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: as `export_onnx`.
    """
    network = _prepared(model, image_shape, _centred)
    buffer = io.BytesIO()
    with _exporting("TorchScript", network):
        with torch.no_grad():
            traced = torch.jit.trace(network, _centred(pictures(2, image_shape)))
        torch.jit.save(traced, buffer)
        buffer.seek(0)
        run = torch.jit.load(buffer)
    _check_parity(run, network, image_shape, tolerance, _centred)
    return files.write("path", path, buffer.getvalue())


def _rows(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim != 2 or 0 in value.shape:
        raise TypeError(
            f"{name} must be floating-point logits (batch, classes), got {arguments.short(value)}"
        )
    return value


@checked(logits=_rows, expected=_rows)
def logit_difference(
    logits: Float[Tensor, "batch classes"], expected: Float[Tensor, "batch classes"]
) -> float:
    """max |logits - expected| / max(1, max |expected|): absolute, but relative to logits above 1.

    float32 keeps seven digits, so logits in the hundreds cannot agree to 1e-4 in absolute terms.

    Args:
        logits: of the exported model.
        expected: of the network.

    Raises:
        TypeError, ValueError: one is no matrix of logits; they are of different shapes.
    """
    if logits.shape != expected.shape:
        raise ValueError(
            f"logits and expected must have one shape, got {tuple(logits.shape)} and {tuple(expected.shape)}"
        )
    scale = expected.abs().max().clamp(min=1)
    return ((logits - expected).abs().max() / scale).item()


@checked(count=arguments.whole_number, shape=arguments.image_shape)
def pictures(count: int, shape: tuple[int, int, int]) -> Float32[Tensor, "count channels height width"]:
    """Made-up pictures with pixels in [0, 1]: smooth blobs of all brightnesses with some noise; always the same.

    Plain noise would leave most units of a network where no photograph puts them.

    Args:
        count: how many.
        shape: (channels, height, width).

    Raises:
        TypeError, ValueError: no number, no shape.
    """
    arguments.check_batch(count, shape)
    channels, height, width = shape
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    blobs = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    noise = torch.randn(count, channels, height, width, generator=generator)
    return (blobs + 0.05 * noise).clamp(0, 1)


class _Logits(nn.Module):
    """A network whose output is the tensor of logits and nothing else."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return networks.logits_in(self.network(images)).float()


def _prepared(model: nn.Module, shape: tuple[int, int, int], normalise: Run) -> nn.Module:
    """A copy as exporters expect it, that has answered batches of every size it will be compared on."""
    network = _Logits(networks.copied("model", model, torch.float32)).eval()
    for count in BATCH_SIZES:
        _logits(network, normalise(pictures(count, shape)))
    return network


def _logits(network: nn.Module, images: Tensor) -> Float[Tensor, "batch classes"]:
    """Its answers to these images, or a ValueError that says why they are none."""
    shape = tuple(images.shape)
    with torch.inference_mode():
        try:
            output = network.network(images.clone())  # some change their input
        except Exception as error:  # its forward is anybody's code
            raise ValueError(
                f"model cannot process images of shape {shape}: {networks.in_one_line(error)}. image_shape must be "
                "that of the images it was made for, and its forward must take batches of any size"
            ) from error
        logits = networks.logits_in(output)
    if logits.ndim != 2 or len(logits) != len(images) or not logits.is_floating_point():
        raise ValueError(
            f"model must return logits of shape ({len(images)}, classes), floating-point numbers, for images of shape "
            f"{shape}, got {tuple(logits.shape)}, {logits.dtype}; its forward must take batches of any size"
        )
    if not logits.isfinite().all():
        raise ValueError(
            f"model gives logits that are not finite for images of shape {shape}; train it again"
        )
    return logits.float()


@contextmanager
def _exporting(kind: str, network: nn.Module) -> Iterator[None]:
    """Turn what torch says of a network that it cannot export into a ValueError that says what helps."""
    try:
        yield
    except Exception as error:  # torch has a class of its own for each stage
        remedy = networks.why_not_plain(network.network) or (
            "its forward must do the same for every batch: sizes from images.shape in place of constants, no decision "
            "and no loop that depends on values or on the number of images"
        )
        raise ValueError(
            f"model cannot be written as {kind}: {remedy} ({networks.in_one_line(error)})"
        ) from error


def _check_preprocessing(model: nn.Module, description: Description) -> None:
    """A network that says how it wants its images must not be described as wanting them otherwise."""
    own = networks.preprocessing(model)
    if own is None:
        return
    low, high = description.value_range
    mean, std = (low + (high - low) * own.mean).tolist(), ((high - low) * own.std).tolist()
    size = (description.height, description.width) if own.size is None else (own.size, own.size)
    given = (*description.mean, *description.std, description.height, description.width)
    if len(mean) != description.channels or not np.allclose(
        (*mean, *std, *size), given, rtol=1e-4, atol=1e-6
    ):
        raise ValueError(
            f"model says itself how it wants its images: {_in_words(mean, std, *size)}; give these as mean, std and "
            f"image_shape, got {_in_words(description.mean, description.std, *description.image_shape[1:])}"
        )


def _in_words(mean: Sequence[float], std: Sequence[float], height: int, width: int) -> str:
    mean, std = (f"[{', '.join(f'{number:.4g}' for number in numbers)}]" for numbers in (mean, std))
    return f"mean={mean}, std={std}, {height} x {width} pixels"


def _onnx_runner(content: bytes) -> Run:
    session = runtime.session(content)
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _normalisation(description: Description) -> Run:
    low, high = description.value_range
    mean, std = (torch.tensor(values)[:, None, None] for values in (description.mean, description.std))
    return lambda pixels: (low + (high - low) * pixels - mean) / std


def _centred(pixels: Tensor) -> Tensor:
    """Pixels as most normalisations leave them, for a file that says nothing of its own."""
    return (pixels - 0.5) / 0.25


def _check_parity(run: Run, network: nn.Module, shape: tuple, tolerance: float, normalise: Run) -> None:
    for count in BATCH_SIZES:
        images = normalise(pictures(count, shape))
        expected = _logits(network, images)
        try:
            with torch.inference_mode():
                found = run(images)
        except Exception as error:  # of onnxruntime, of torch's own guards, or of its interpreter
            raise ValueError(
                f"the exported model cannot process a batch of {count}, although model can; nothing was written. Its "
                "forward fixes the batch: take sizes from images.shape in place of constants, and no loop over the "
                f"images ({networks.in_one_line(error)})"
            ) from error
        difference = logit_difference(found, expected) if found.shape == expected.shape else float("inf")
        if not difference <= tolerance:  # a NaN is no agreement either
            raise ValueError(
                f"the exported model differs from the network by {difference:.2g} on a batch of {count}, more than "
                f"tolerance={tolerance:g}; nothing was written"
            )
