"""An exported model, loaded once: pictures in, classes with probabilities out."""

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from kdlib.deploy import arguments, runtime
from kdlib.deploy.description import Description
from kdlib.deploy.webapp.images import model_input

SHOWN = 10  # classes in an answer, the most probable first


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture.

    Args:
        predictions: (class, probability) of at most ten classes, the most probable first.
        milliseconds: what the network took, without decoding and resizing the picture.
        seen: the picture as the network saw it.
    """

    predictions: list[tuple[str, float]]
    milliseconds: float
    seen: Image.Image

    def seen_as_address(self) -> str:
        """The picture as a data: address, to be shown on a page."""
        file = io.BytesIO()
        self.seen.save(file, format="png")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


class Classifier:
    """A model exported by `kdlib.deploy.export.export_onnx`, in onnxruntime, on one thread.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX model, does not describe itself, or does not do what it says.
        TypeError: `path` is no path.
    """

    def __init__(self, path: str | PathLike):
        self.file = arguments.file_to_read("path", path)
        content = self.file.read_bytes()
        self.bytes = len(content)
        try:
            self._session = runtime.session(content)
        except ValueError as error:
            raise ValueError(f"{self.file.name}: {error}") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.description = Description.from_metadata(metadata, self.file.name)
        self.name = self.description.name
        self._check()

    def classify(self, picture: Image.Image, *, invert: bool = False) -> Answer:
        """Classify a picture.

        Args:
            picture: as `kdlib.deploy.webapp.images.decode` returns it.
            invert: make bright dark first, and dark bright.
        """
        seen, images = model_input(picture, self.description, invert=invert)
        start = time.perf_counter()
        logits = self._logits(images)
        milliseconds = 1000 * (time.perf_counter() - start)
        probabilities = _softmax(logits)
        best = np.argsort(-probabilities, kind="stable")[:SHOWN]
        predictions = [(self.description.classes[label], float(probabilities[label])) for label in best]
        return Answer(predictions, milliseconds, seen)

    def about(self) -> dict[str, Any]:
        """What the page shows of the model."""
        described = self.description
        shape = {name: getattr(described, name) for name in ("channels", "height", "width")}
        normalisation = {name: list(getattr(described, name)) for name in ("mean", "std", "value_range")}
        return {
            "name": self.name,
            "bytes": self.bytes,
            "classes": list(described.classes),
            **shape,
            **normalisation,
        }

    def _logits(
        self, images: Float32[np.ndarray, "1 channels height width"]
    ) -> Float32[np.ndarray, " classes"]:
        (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: images})
        return logits[0]

    def _check(self) -> None:
        """Run it once: its first run is slow, and a model that cannot run had better not be served."""
        described = self.description
        grey = Image.new("L", (described.width, described.height), 128)
        try:
            logits = self._logits(model_input(grey, described)[1])
        except Exception as error:  # onnxruntime has a class of its own for each kind of failure
            raise ValueError(f"{self.file.name} cannot process the images it describes: {error}") from error
        if logits.shape != (len(described.classes),) or not np.isfinite(logits).all():
            raise ValueError(
                f"{self.file.name} must answer with a finite logit for each of its {len(described.classes)} classes"
            )


def models_in(paths: Sequence[Path]) -> list[Path]:
    """The files, and those in the folders, such as one of `kdlib distill`: the shortest name first, "student.onnx"
    before "student-int8.onnx".

    Args:
        paths: of files and folders.

    Raises:
        ValueError: a folder without a model.
    """
    found = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(path.glob("*.onnx"), key=lambda file: (len(file.name), file.name))
        if not inside:
            raise ValueError(
                f"{path} holds no model (*.onnx): give a file, or a folder that `kdlib distill` has finished"
            )
        found += inside
    return found


def load(paths: Sequence[str | PathLike]) -> list[Classifier]:
    """The models in these files, numbered where they have the same name.

    Args:
        paths: of the files.

    Raises:
        FileNotFoundError, ValueError, TypeError: see `Classifier`.
    """
    classifiers = [Classifier(path) for path in arguments.paths("paths", paths)]
    names = [classifier.name for classifier in classifiers]
    for number, classifier in enumerate(classifiers, start=1):
        if names.count(classifier.name) > 1:
            classifier.name = f"{classifier.name} {number}"
    return classifiers


def _softmax(logits: Float32[np.ndarray, " classes"]) -> Float32[np.ndarray, " classes"]:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
