"""Smaller and faster networks, by six ways that all go together with distillation.

A network that is compressed has forgotten something; `kdlib.training.distill`, with the whole network for a
teacher, brings most of it back:

    smaller = prune_channels(network, 0.5, image_shape)
    distill(smaller, cached_logits(network, split), split, epochs=10)
    export_onnx(smaller, "smaller.onnx", ...)

| function | what gets less | faster |
|---|---|---|
| `quantize` | bits of a number, in an exported file: 8 for 32 | on most processors |
| `sparsify`, `finish` | weights, one by one | no: a zero is multiplied like any number |
| `prune_channels` | channels | yes |
| `factorize` | weights, by splitting a layer in two | where the layers are large |
| `carve` | channels, down to those of a given student | yes |
| `search_student` | multiply-adds and milliseconds, down to a budget | yes |
"""

from kdlib.deploy.carving import carve
from kdlib.deploy.factorization import factorize
from kdlib.deploy.folding import fold_norms
from kdlib.deploy.pruning import finish, prune_channels, sparsify, zero_share
from kdlib.deploy.quantization import agreement, onnx_logits, quantize
from kdlib.deploy.student_search import StudentSearch, onnx_latency, search_student

__all__ = [
    "StudentSearch",
    "agreement",
    "carve",
    "factorize",
    "finish",
    "fold_norms",
    "onnx_latency",
    "onnx_logits",
    "prune_channels",
    "quantize",
    "search_student",
    "sparsify",
    "zero_share",
]
