"""onnxruntime as this package uses it: on one thread unless told otherwise, and without reporting home.

Since version 1.29 the published builds of onnxruntime send events about models and their use to their maker, on
Linux and macOS too, and keep a database of them below the user's cache folder. Neither belongs into a course that
promises to need no network, nor into a server of other people's pictures. The variable must be set before
onnxruntime is imported first; who wants the reports sets it to 0.
"""

import os

from kdlib.deploy import arguments

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime  # noqa: E402


def session(model: bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU that computes on the thread that calls it, and on `threads` - 1 others.

    onnxruntime's default is a thread for each core that waits for the next request in a loop, which costs four
    times the processor time. These threads sleep between two requests.

    Args:
        model: the bytes of an ONNX file.
        threads: at least 1; onnxruntime's 0 would mean that default.

    Raises:
        ValueError: onnxruntime cannot load the model; `threads` is below 1.
        TypeError: arguments of another kind.
    """
    if not isinstance(model, bytes):
        raise TypeError(f"model must be the bytes of an ONNX file, got {type(model).__name__}")
    threads = arguments.threads("threads", threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; they are raised as well
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each kind of failure
        raise ValueError(f"onnxruntime cannot load this model: {error}") from error
