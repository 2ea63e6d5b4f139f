"""What a model file says about itself: its classes, and how a picture becomes its input.

A network without this is a riddle: nothing in it says that class 7 is a sneaker, nor by which mean and standard
deviation its images were normalised. `kdlib.deploy.export.export_onnx` writes it as JSON into the metadata of the
ONNX file, and `kdlib serve` reads it from there. Nothing here imports torch: the server does without.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from kdlib.deploy import arguments

METADATA_KEY = "kdlib"


@dataclass(frozen=True)
class Description:
    """The name, the classes and the input of an image classifier.

    A pixel p in 0..255 enters the network as (low + (high - low) * p / 255 - mean) / std.

    Args:
        name: how the model is called where it is shown.
        classes: the names of the classes, in the order of the logits.
        channels, height, width: the input in pixels; 1 channel is grey, 3 are red, green, blue.
        mean, std: one number per channel, in units of `value_range`.
        value_range: what the pixel values 0 and 255 stand for.

    Raises:
        TypeError, ValueError: sizes, names or numbers that describe no such classifier.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, ...] = (0.0, 1.0)

    def __post_init__(self) -> None:
        rules = dict.fromkeys(("channels", "height", "width"), arguments.whole_number)
        rules |= dict.fromkeys(("mean", "std", "value_range"), arguments.numbers)
        for argument, rule in (rules | {"name": arguments.text, "classes": arguments.texts}).items():
            object.__setattr__(self, argument, rule(argument, getattr(self, argument)))  # in its plain form
        if not self.name.strip():
            raise ValueError(f"name={self.name!r} is empty; say how the model is called")
        if len(set(self.classes)) != len(self.classes) or not all(name.strip() for name in self.classes):
            raise ValueError(
                f"classes must have distinct names, none of them empty, got {list(self.classes)}"
            )
        if len(self.classes) < 2:
            raise ValueError(f"classes must name at least two classes, got {list(self.classes)}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {self.channels}")
        for argument in ("mean", "std"):
            values = getattr(self, argument)
            if len(values) != self.channels or not all(map(math.isfinite, values)):
                raise ValueError(
                    f"{argument} must be {self.channels} finite numbers, one for each of the channels, got "
                    f"{list(values)}"
                )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {list(self.std)}")
        if len(self.value_range) != 2 or not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            raise ValueError(f"value_range must be two finite numbers, low < high, got {self.value_range}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        return self.channels, self.height, self.width

    def to_json(self) -> str:
        """One JSON object; numbers keep all their digits."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Description":
        """The description that `to_json` wrote.

        Args:
            text: of a JSON object.

        Raises:
            ValueError: the text is no such description; the message says what is wrong with it.
        """
        try:
            content = json.loads(text)
            return cls(
                classes=arguments.texts("classes", content["classes"]),
                **{name: arguments.numbers(name, content[name]) for name in ("mean", "std", "value_range")},
                **{
                    name: arguments.whole_number(name, content[name])
                    for name in ("channels", "height", "width")
                },
                name=arguments.text("name", content["name"]),
            )
        except KeyError as error:
            missing = f"{error.args[0]!r} is missing; needed are {[field.name for field in fields(cls)]}"
            raise ValueError(f"the description of the model is incomplete: {missing}") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"the description of the model cannot be read: {error}") from error

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], file: str) -> "Description":
        """The description in the metadata of an ONNX file.

        Args:
            metadata: key -> text.
            file: its name, for the message.

        Raises:
            ValueError: there is none; the message says how to export the model with one.
        """
        if METADATA_KEY not in metadata:
            raise ValueError(
                f"{file} does not say which classes it knows and how its images were normalised. Export the model "
                "with kdlib.deploy.export.export_onnx(model, path, image_shape=..., classes=..., mean=..., std=...), "
                "which writes both into the file"
            )
        return cls.from_json(metadata[METADATA_KEY])
