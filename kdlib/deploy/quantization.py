"""An exported network in 8-bit integers: a quarter of the bytes, and on most processors faster."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from jaxtyping import Float
from torch import Tensor

from kdlib import _checks
from kdlib.data import ImageSplit

# runtime before anything of onnxruntime: it keeps onnxruntime from reporting home.
from kdlib.deploy import arguments, files, runtime
from kdlib.deploy.description import Description
from kdlib.deploy.export import INPUT, OUTPUT

BATCH = 32  # images that go through the network at a time
QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # what holds the weights and takes the time

# The underscores leave the sizes to this module's own errors.
Images = ImageSplit | Float[Tensor, "_n _channels _height _width"]


def _images(name: str, value: Any) -> Images:
    """A rule for arguments: a split, or a tensor of images that are normalised already."""
    if isinstance(value, ImageSplit):
        return value
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be an ImageSplit or a tensor of normalised images, got {type(value).__name__}; of a data "
            "set give one split, such as its .train"
        )
    if value.is_meta or value.layout != torch.strided:
        raise ValueError(f"{name} must be a plain tensor of numbers, got {value.layout} on {value.device}")
    if not value.is_floating_point():
        raise ValueError(
            f"{name} must be normalised, floating-point numbers, got {value.dtype}; for pixels give an "
            "ImageSplit"
        )
    return value.detach().cpu()


@_checks.checked(
    path=arguments.file_to_read,
    out=arguments.file_to_write,
    images=_images,
    name=arguments.text_or_none,
    reduce_range=_checks.boolean,
)
def quantize(
    path: str | PathLike,
    out: str | PathLike,
    images: Images,
    *,
    name: str | None = None,
    reduce_range: bool = True,
) -> Path:
    """Write the ONNX file `path` as `out`, with weights and activations in 8 bits.

    A real number r is stored as q = clip(round(r / scale) + zero_point) and read as (q - zero_point) * scale.
    Activations are unsigned: one scale and zero point a tensor, from the smallest and the largest value that the
    calibration images cause. Weights are signed, with zero point 0 and a scale for each output channel, from the
    largest absolute value. This is onnxruntime's static quantisation in the QDQ format, "U8S8"; batch norm is
    folded into the convolutions first. Nothing is trained: to recover what is lost, distil before the export.

    Calibrate on images of the kind that the model will see, some hundred of them: ranges taken from noise cost a
    MobileNetV2 most of its answers. Images of the test split would make its accuracy look better than it is.

    Common implementations differ: PyTorch's own eager, FX and dynamic quantisation are deprecated; onnxruntime's
    default is signed activations, two to three times slower than unsigned ones on x86 processors, one scale for
    all channels of a weight, and all 8 bits of it.

    Args:
        path: a file that `kdlib.deploy.export.export_onnx` wrote.
        out: the file to write; an older one is replaced in one step. It may be `path`.
        images: an ImageSplit, whose pixels are normalised as the file says; or images that are normalised
            already, float (n, channels, height, width).
        name: how the model is called on the page; as before where it is not given.
        reduce_range: use 7 of the 8 bits of a weight. x86 processors without VNNI instructions (most with AVX2
            alone) add two products of 8-bit numbers in 16 bits, where the sum may overflow: it is cut off, which
            costs accuracy and raises no error. Seven bits cannot overflow, and are as fast. With False the
            rounding is finer, for files that only run where the full range is safe.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: there is no file `path`.
        ValueError: `path` is no ONNX file, does not describe itself, is quantised already, has nothing to
            quantise, takes batches of one size only, or gives no finite logits in 8 bits; nothing can be written as
            `out`; images that are not normalised, not finite, or of another shape than the file describes. Nothing
            is written then, and no folder made.
        TypeError: an argument of another kind.

    Source: Jacob et al. 2017, arXiv 1712.05877; scales a channel: Krishnamoorthi 2018, arXiv 1806.08342.
    """
    model, description = _read(path)
    operations = {node.op_type for node in model.graph.node}
    if "QuantizeLinear" in operations:
        raise ValueError(f"{path.name} is quantised already; quantise the file it was made from")
    if not operations.intersection(QUANTISED):
        raise ValueError(
            f"{path.name} has nothing to quantise: none of {', '.join(QUANTISED)} is among its operations"
        )
    batches = _inputs(images, description, path.name)
    renamed = description if name is None else dataclasses.replace(description, name=name)
    with _as_value_error(f"{path.name} cannot be quantised"):
        content = files.with_description(_quantised(model, batches, reduce_range), renamed)
        logits = _run(content, batches[:1])
    if not np.isfinite(logits).all():
        raise ValueError(f"{path.name} gives logits that are not finite once it is quantised")
    return files.write("out", out, content)


@_checks.checked(path=arguments.file_to_read, images=_images)
def onnx_logits(path: str | PathLike, images: Images) -> Float[Tensor, "n classes"]:
    """The logits of an exported model, for every image in order, float32.

    They go where logits go: `kdlib.metrics.accuracy(onnx_logits(path, split), split)`.

    Args:
        path: a file of `export_onnx` or `quantize`.
        images: as in `quantize`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX file or does not describe itself; images as in `quantize`.
    """
    model, description = _read(path)
    batches = _inputs(images, description, path.name)
    with _as_value_error(f"{path.name} cannot process such images"):
        return torch.from_numpy(_run(model.SerializeToString(), batches))


@_checks.checked(path_a=arguments.file_to_read, path_b=arguments.file_to_read, images=_images)
def agreement(
    path_a: str | PathLike,
    path_b: str | PathLike,
    images: Images,
) -> float:
    """The share of images to which two exported models give the same answer (the largest logit), in [0, 1].

    `kdlib.metrics.agreement` between two files: how much of a network is left once it is quantised. Labels play
    no part.

    Args:
        path_a, path_b: files of `export_onnx` or `quantize`.
        images: as in `quantize`; each model gets an ImageSplit normalised as its own file says.

    Raises:
        FileNotFoundError, ValueError: as `onnx_logits`; models with different numbers of classes.
    """
    first, second = onnx_logits(path_a, images), onnx_logits(path_b, images)
    if first.shape != second.shape:
        raise ValueError(
            f"path_a and path_b must have the same number of classes, got {first.shape[1]} and {second.shape[1]}"
        )
    return (first.argmax(1) == second.argmax(1)).double().mean().item()


def _read(path: Path) -> tuple[onnx.ModelProto, Description]:
    content = path.read_bytes()
    try:
        session = runtime.session(content)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    description = Description.from_metadata(session.get_modelmeta().custom_metadata_map, path.name)
    return onnx.load_from_string(content), description


def _inputs(images: Images, description: Description, file: str) -> list[np.ndarray]:
    """The images as the model takes them, in batches."""
    pixels = images if isinstance(images, Tensor) else images.in_memory().images
    if pixels.ndim != 4 or len(pixels) == 0 or tuple(pixels.shape[1:]) != description.image_shape:
        raise ValueError(
            f"images must have the shape (n, {', '.join(map(str, description.image_shape))}) for {file}, n at "
            f"least 1, got {tuple(pixels.shape)}"
        )
    if isinstance(images, Tensor):
        _checks.all_finite("images", images)
        return [batch.float().numpy() for batch in images.split(BATCH)]
    low, high = description.value_range
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (description.mean, description.std))
    return [((low + (high - low) * batch / 255 - mean) / std).numpy() for batch in pixels.split(BATCH)]


@contextmanager
def _as_value_error(what: str) -> Iterator[None]:
    """onnxruntime has a class of its own for each kind of failure."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what}: {error}") from error


class _Calibration:
    """The batches, one after the other, in the form that onnxruntime asks for."""

    def __init__(self, batches: list[np.ndarray]):
        self._remaining = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._remaining, None)
        return None if batch is None else {INPUT: batch}


def _quantised(model: onnx.ModelProto, batches: list[np.ndarray], reduce_range: bool) -> onnx.ModelProto:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, folded, quantised = (
            Path(folder, f"{stage}.onnx") for stage in ("plain", "folded", "quantised")
        )
        onnx.save(model, plain)  # a model in memory would lose its weights on the way
        # Symbolic shape inference is for transformers of text, and complains about sizes it does not need.
        quant_pre_process(plain, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded, quantised, _Calibration(batches),
            quant_format=quantization.QuantFormat.QDQ, per_channel=True, reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
        return onnx.load(quantised)


def _run(content: bytes, batches: list[np.ndarray]) -> np.ndarray:
    session = runtime.session(content)
    return np.concatenate([session.run([OUTPUT], {INPUT: batch})[0] for batch in batches])
