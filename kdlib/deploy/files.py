"""Files that leave this machine: they say what they are, name nothing of where they were made, and are whole."""

from kdlib.deploy.description import METADATA_KEY, Description


def with_description(model, description: Description) -> bytes:
    """The bytes of an ONNX file (`onnx.ModelProto`) with the description in it, and without its makers' notes.

    The exporter's notes on each node hold stack traces: the paths of this machine, and a third of the file of a
    small network.
    """
    graph = model.graph
    values = (*graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for part in (model, graph, *graph.node, *values):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.metadata_props.add(key=METADATA_KEY, value=description.to_json())
    return model.SerializeToString()
