"""Files that leave this machine: they say what they are, name nothing of where they were made, and are whole."""

from pathlib import Path

from kdlib import _files
from kdlib.deploy.description import METADATA_KEY, Description


def with_description(model, description: Description) -> bytes:
    """The bytes of an ONNX file with the description in it, and without its makers' notes.

    The exporter's notes on each node hold stack traces: the paths of this machine, and a third of the file of a
    small network.

    Args:
        model: an `onnx.ModelProto`; it is changed.
        description: what the file says of itself.
    """
    graph = model.graph
    values = (*graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for part in (model, graph, *graph.node, *values):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.metadata_props.add(key=METADATA_KEY, value=description.to_json())
    return model.SerializeToString()


def write(name: str, path: Path, content: bytes) -> Path:
    """Write the file in one step (`kdlib._files.write`).

    Args:
        name: of the argument that holds the path, for the message.
        path: checked before by `kdlib.deploy.arguments.file_to_write`.
        content: its bytes.

    Raises:
        ValueError: the system refuses, as where the disk is full; an older file is as it was.
    """
    try:
        return _files.write(path, content)
    except OSError as error:
        raise ValueError(f"{name}={str(path)!r} cannot be written: {error.strerror}") from error
