"""Models in files, opened and fed the same way wherever they are measured.

torch is imported for the files of torch alone: the memory of a model in onnxruntime is measured without it.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from kdlib.deploy import runtime

Images = Float32[np.ndarray, "batch channels height width"]
Call = Callable[[], Any]  # runs a model once, on images that it was given beforehand
KINDS = "an ONNX file (.onnx), a torch.export program (.pt2) or a TorchScript file (.pt, .ts, .torchscript)"


def noise_images(image_shape: Sequence[int], batch_size: int = 1) -> Images:
    """float32 images of standard normal noise, as normalised pixels are; always the same.

    How long a network takes hardly depends on what its images show.

    Raises:
        ValueError: `image_shape` is not (channels, height, width), all above 0; `batch_size` is below 1.
    """
    shape = tuple(map(int, image_shape))
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (channels, height, width), none of them 0, got {image_shape}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return np.random.default_rng(0).standard_normal((batch_size, *shape), dtype=np.float32)


def open_file(path: str | PathLike, *, threads: int = 1) -> Callable[[Images], Call]:
    """Load a model; what comes back makes a batch of images into a call that runs the model on it.

    threads: for onnxruntime. torch has one number for the whole process (`torch.set_num_threads`).

    Raises:
        OSError: the file cannot be read.
        ValueError: its name ends in none of .onnx, .pt2, .pt, .ts, .torchscript, or it holds no such model.
    """
    path = Path(path)
    openers = {".onnx": _open_onnx, ".pt2": _open_program} | dict.fromkeys(
        (".pt", ".ts", ".torchscript"), _open_torchscript
    )
    if path.suffix not in openers:
        raise ValueError(f"{path.name}: must be {KINDS}")
    path.open("rb").close()  # an OSError that names the file, whatever the library below would make of it
    try:
        return openers[path.suffix](path, threads)
    except Exception as error:  # each library has classes of its own for what can be wrong with a file
        raise ValueError(f"{path.name} cannot be loaded; it must be {KINDS}: {error}") from error


def torch_call(network: Callable, images: Any) -> Call:
    """A call of a network of torch as a server would make it: without a record for gradients."""
    import torch

    def call() -> Any:
        with torch.inference_mode():
            return network(images)

    return call


def _open_onnx(path: Path, threads: int) -> Callable[[Images], Call]:
    session = runtime.session(path.read_bytes(), threads=threads)
    name = session.get_inputs()[0].name

    def prepare(images: Images) -> Call:
        feed = {name: images}
        return lambda: session.run(None, feed)

    return prepare


def _open_program(path: Path, threads: int) -> Callable[[Images], Call]:
    import torch

    network = torch.export.load(path).module()
    return lambda images: torch_call(network, torch.from_numpy(images))


def _open_torchscript(path: Path, threads: int) -> Callable[[Images], Call]:
    import torch

    network = torch.jit.load(path, map_location="cpu").eval()
    return lambda images: torch_call(network, torch.from_numpy(images))
