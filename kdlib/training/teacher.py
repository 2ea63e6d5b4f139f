"""The teacher of a training: one class, which answers for a batch, however its answers come about."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdlib._checks import all_finite
from kdlib._logit_cache import known_or_computed
from kdlib.data import ImageSplit
from kdlib.features import capture, class_gradients, teacher_features
from kdlib.inference import (
    MISFITS,
    check_steady,
    described,
    evaluating,
    logits_of,
    precision_of,
    predict_logits,
    preprocessing_of,
    seen_by,
)
from kdlib.training.batches import Batch, Batches
from kdlib.training.precision import bfloat16_helps

# Teacher features above this size, in bytes, are computed in every step rather than kept in memory.
LARGEST_CACHE = 2**30


class Teacher:
    """Answers `.logits(batch)`, `.features(batch)` and `.gradients(batch)`.

    Where the student sees stored images, as they are or in fixed views, each is known beforehand and looked up by
    the row of the image; where it sees new ones in every step, the network is asked, once a batch. It gets the
    pixels as it wants them (`kdlib.teachers.freeze`), runs in eval mode without gradients, and is left as it was:
    mode, `requires_grad`, everything.

    Args:
        source: the network, or its logits, a row for each image.
        batches: what the student sees: which images are stored, whether it sees others, and on which device.
        layers: names of the layers whose features will be asked for.
        gradient_layers: those whose class gradients will be asked for.
        given: features that are known already, by the key under which they are wanted.

    Raises:
        ValueError: logits or given features with another number of rows than there are images, or for images that
            are not seen as they are; layers of a teacher that is known by its logits alone.
    """

    def __init__(
        self,
        source: nn.Module | Tensor,
        batches: Batches,
        *,
        layers: Sequence[str] = (),
        gradient_layers: Sequence[str] = (),
        given: Mapping[str, Tensor] | None = None,
    ):
        self.images, self.views = batches.stored, batches.views
        self._changed = batches.changed_by is not None
        self.live, self.device, self._of_split = batches.live, batches.device, batches.of_split
        self.layers, self.gradient_layers = list(dict.fromkeys(layers)), list(dict.fromkeys(gradient_layers))
        self.network = source if isinstance(source, nn.Module) else None
        self._logits = None if isinstance(source, nn.Module) else source.detach().to(self.device)
        self._features = dict(given or {})
        self._gradients: dict[str, Tensor] = {}
        self._asked: Batch | None = None
        self._refuse(batches.changed_by)
        if self.network is not None:
            self._captured = capture(self.network, [*{*self.layers, *self.gradient_layers}])
            self._bfloat16 = bfloat16_helps(self.network, self.device)
            if self.live:
                check_steady("teacher", self.network, self.images, self.device)
            self._keep_what_fits()

    def logits(self, batch: Batch) -> Tensor:
        """(batch, classes); (batch, members, classes) for a batch of several students."""
        if not self.live:
            return self._known_logits()[batch.rows.to(self.device)].float()
        logits = self._ask(batch)[0]
        if logits.ndim != 2 or len(logits) != len(batch.images):
            raise ValueError(
                f"the teacher must return logits of shape ({len(batch.images)}, classes) for images of shape "
                f"{tuple(batch.images.shape)}, got {tuple(logits.shape)}"
            )
        self._refuse_not_finite(logits, batch.rows)
        return logits

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """The features of `layers` and what was `given`, by name."""
        known = {name: values[batch.rows].to(self.device) for name, values in self._features.items()}
        missing = [layer for layer in self.layers if layer not in known]
        return known | {layer: self._ask(batch)[1][layer] for layer in missing}

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Of `gradient_layers`: the gradient of each image's logit of its class with respect to the features."""
        known = {name: values[batch.rows].to(self.device) for name, values in self._gradients.items()}
        missing = [layer for layer in self.gradient_layers if layer not in known]
        return known | (self._class_gradients(self._pixels_for(batch), batch.labels) if missing else {})

    @property
    def classes(self) -> int:
        """Length of the logit vectors."""
        return self._probe().shape[1]

    def describe(self) -> str:
        """What a checkpoint compares: all answers, or those about two images where each step asks anew."""
        kind, values = ("live", self._probe()) if self.live else ("cached", self._known_logits())
        return f"{kind} {hashlib.sha256(values.float().cpu().numpy().tobytes()).hexdigest()}"

    def recent_logits(self) -> Tensor | None:
        """Logits of many images: all that are known, or those of the last batch."""
        if not self.live:
            return self._known_logits()
        return None if self._asked is None else self._answer[0]

    def _refuse(self, changed_by: str | None) -> None:
        if self._logits is not None and changed_by:
            raise ValueError(
                f"{changed_by} needs the teacher module: cached logits belong to the images as they are"
            )
        if self._logits is not None:
            _refuse_rows("teacher logits", self._logits, self.images)
        if self.network is None and self.layers:
            raise ValueError(
                f"teacher layers {self.layers} need the teacher module; with logits alone, give the features as "
                "teacher_layer as well (kdlib.features.teacher_features)"
            )
        for name, values in self._features.items():
            if changed_by:
                raise ValueError(
                    f"{name}: {changed_by} needs the name of a teacher layer: features that are known "
                    "beforehand belong to the images as they are"
                )
            _refuse_rows(f"{name}: teacher features", values, self.images)
            all_finite(f"{name}: teacher features", values)

    def _known_logits(self) -> Tensor:
        if self._logits is None:
            # Views are answered as they would be in every step; the images as they are, exactly.
            bfloat16 = self._bfloat16 and self._changed
            logits = known_or_computed(self.network, self.images, self.device, bfloat16=bfloat16)
            self._refuse_not_finite(logits, torch.arange(len(logits)))
            self._logits = logits.to(self.device)
        return self._logits

    def _refuse_not_finite(self, logits: Tensor, rows: Tensor) -> None:
        # Values are read on the CPU only: on an accelerator that would stall it at every step.
        if logits.device.type == "cpu" and not (finite := logits.isfinite()).all():
            row, column = (~finite).nonzero()[0].tolist()
            raise ValueError(
                f"teacher logits must be finite, got {logits[row, column].item()} for image "
                f"{rows[row].item() // self.views} of split"
            )

    def _probe(self) -> Tensor:
        """Logits of two images, which show the number of classes."""
        if self._logits is not None:
            return self._logits[:2]
        return predict_logits(self.network, self.images.subset(torch.arange(2)), device=self.device)

    def _keep_what_fits(self) -> None:
        """Compute features and class gradients once, unless the images change or they would fill the memory."""
        if self.live or not (self.layers or self.gradient_layers):
            return
        first = self.images.subset(torch.arange(1))
        shapes = teacher_features(self.network, first, self._captured.layers, device=self.device)
        if 4 * len(self.images) * sum(values.numel() for values in shapes.values()) > LARGEST_CACHE:
            return
        self._features |= teacher_features(self.network, self.images, self.layers, device=self.device)
        if self.gradient_layers:
            parts = [self._gradients_of_rows(rows) for rows in torch.arange(len(self.images)).split(100)]
            self._gradients = {
                name: torch.cat([part[name] for part in parts]) for name in self.gradient_layers
            }

    def _gradients_of_rows(self, rows: Tensor) -> dict[str, Tensor]:
        images = seen_by(self.network, self.images, rows).to(self.device)
        gradients = self._class_gradients(images, self.images.labels[rows].to(self.device))
        return {layer: values.cpu() for layer, values in gradients.items()}

    def _ask(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self._asked is not batch:
            autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16)
            pixels = self._pixels_for(batch)
            try:
                with evaluating(self.network), torch.no_grad(), autocast:
                    logits, features = self._captured(pixels)
            except MISFITS as error:
                raise ValueError(
                    f"the teacher cannot process images of shape {tuple(pixels.shape)}: {described(error)}"
                ) from error
            self._answer = logits_of(logits).float(), features
            self._asked = batch
        return self._answer

    def _pixels_for(self, batch: Batch) -> Tensor:
        own = preprocessing_of(self.network) or self._of_split
        images = batch.images if own is None else own(batch.pixels)
        return images.to(precision_of(self.network))

    def _class_gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with evaluating(self.network), torch.enable_grad():
            # Through the images the graph exists whether or not the teacher's weights are frozen.
            logits, features = self._captured(images.detach().requires_grad_())
            return {
                layer: class_gradients(logits.float(), features[layer], labels).detach()
                for layer in self.gradient_layers
            }


def _refuse_rows(name: str, values: Tensor, images: ImageSplit) -> None:
    if values.ndim < 2 or len(values) != len(images):
        raise ValueError(
            f"{name} need one row for each of the {len(images)} images of split, got shape {tuple(values.shape)}"
        )
