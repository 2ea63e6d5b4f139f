"""`kdlib serve`: the application behind waitress, on one port, for strangers too.

waitress reads requests in one thread and answers them in a few others, so a client that sends slowly holds no
thread. Four things are changed here: its own error messages are JSON like those of the application, a refused
upload is let run out so that its sender gets to read the refusal, the time for sending a request is limited as a
whole, not per byte, and clients that let the server wait hold their places only until somebody else needs them:
however many connections are opened, `CONNECTIONS` at most are held, and a new one is taken at once.
"""

import contextlib
import ctypes
import errno
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from os import PathLike

from flask import Flask
from PIL import Image
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import RequestEntityTooLarge

from kdlib.deploy import arguments
from kdlib.deploy.webapp.app import HEADERS, MAX_BYTES, create_app
from kdlib.deploy.webapp.classifier import load, models_in

THREADS = 8  # more than `images.QUEUE`: some are left for small pictures while large ones wait
CONNECTIONS = 100  # each may hold a request that has not arrived as a whole, of up to MAX_BYTES
FILES = 40  # that the process opens besides: its own, and what it reads to answer
SECONDS = 30  # for sending a request, or between two
M_MMAP_THRESHOLD = -3  # as in glibc's malloc.h
KEPT_BYTES = 256 * 2**10  # freed pieces of memory up to this size are kept for later
DISCARDED_BYTES = 64 * 2**20  # of a body that is too large


def serve(
    paths: Sequence[str | PathLike],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    until_input_ends: bool = False,
) -> None:
    """Serve one or two exported models until Ctrl-C or SIGTERM.

    Args:
        paths: of the files that `kdlib.deploy.export.export_onnx` wrote, or a folder that holds one or two of them.
        host: the address to listen at; 127.0.0.1 is reached from this machine alone.
        port: 0 to 65535; 0 stands for any free one.
        until_input_ends: end this process, too, when its standard input ends, as that of a program's child does
            with the program.

    Raises:
        ValueError: more than two models; a file that is no model exported by kdlib; no port or address of this
            machine.
        TypeError: an argument of another kind.
        FileNotFoundError: there is no such file.
        OSError: the port is taken or may not be used.
    """
    paths, host = models_in(arguments.paths("paths", paths)), arguments.text("host", host)
    if not 1 <= len(paths) <= 2:
        raise ValueError(f"one model is served, or two side by side; got {len(paths)}")
    if until_input_ends:
        threading.Thread(target=_end_with_input, name="input", daemon=True).start()
    classifiers = load(paths)
    listening = _bind(host, port)
    _return_freed_memory()
    # The application has a limit of its own, below the size at which Pillow begins to warn.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # warns whenever a request has to wait
    adjustments = Adjustments(
        sockets=[listening],
        threads=THREADS,
        connection_limit=_places(),
        channel_timeout=SECONDS,
        cleanup_interval=5,
        max_request_body_size=MAX_BYTES + 1,  # the first size that waitress refuses
        max_request_header_size=32 * 2**10,
        inbuf_overflow=2 * MAX_BYTES,  # larger bodies would go to a temporary file
        ident=None,
        log_socket_errors=False,
        asyncore_use_poll=True,
    )
    server = HTTPServer(create_app(classifiers), listening, adjustments)
    names = " and ".join(classifier.name for classifier in classifiers)
    # Waitress ends its loop on an interrupt; one that comes before the loop has begun is the same wish.
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(f"Serving {names} at {_address(listening)} (Ctrl-C ends it)", flush=True)
        server.run()


def _end_with_input() -> None:
    # Not by sys.stdin.buffer, whose lock a thread that waits in it would keep at the interpreter's end.
    while os.read(sys.stdin.fileno(), 4096):
        pass  # nothing is expected here
    os._exit(0)  # the main thread may be waiting for a request; there is nothing on a disk to tidy up


def _return_freed_memory() -> None:
    """Let the C library give back what a large picture took as soon as it is freed.

    glibc raises the size from which it does so, up to 32 MB, whenever such a piece is freed, and keeps smaller
    ones for each thread: half a gigabyte after some hundred large pictures.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(library, "mallopt"):  # not so in other C libraries
        library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def _places() -> int:
    """How many connections are held: `CONNECTIONS`, or fewer where this process may not open as many files."""
    try:
        import resource
    except ImportError:  # on Windows, where the number of files is no limit for connections
        return CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if files == resource.RLIM_INFINITY else min(CONNECTIONS, max(files - FILES, THREADS))


def _bind(host: str, port: int) -> socket.socket:
    """A socket on the first address of `host`."""
    if arguments.whole_number("port", port, least=0) > 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (
        socket.gaierror,
        UnicodeError,
    ) as error:  # UnicodeError: too long for a name, or empty between two dots
        raise ValueError(f"host={host!r} is no address of this machine: {error}") from error
    listening = socket.socket(family, kind, protocol)
    if os.name == "posix":  # elsewhere it would share the port with another program
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        reasons = {
            errno.EADDRINUSE: "is taken by another program",
            errno.EACCES: "may not be used by this user",
        }
        reason = reasons.get(error.errno, f"cannot be used ({error.strerror})")
        remedy = "choose another with --port, or any free one with --port 0"
        raise OSError(f"port {port} of {host} {reason}; {remedy}") from error
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class JSONErrorTask(ErrorTask):
    """Answers a request that waitress itself refuses as the application would."""

    def execute(self) -> None:
        error = self.request.error
        # 501 for an unknown transfer encoding would call a fault of the request one of the server.
        status = f"{error.code} {error.reason}" if error.code != 501 else "400 Bad Request"
        reason = f"{error.reason}: {error.body}".lower()
        if isinstance(error, RequestEntityTooLarge):
            reason = f"the request is too large; at most {MAX_BYTES // 2**20} MiB are taken"
        body = json.dumps({"error": reason}).encode()
        self.status = status
        self.response_headers += [
            *HEADERS.items(),
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
        ]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Parser(HTTPRequestParser):
    """Reads a request; of one that is too large it keeps nothing, but lets the body run out.

    A client that is still sending when the connection is closed sees a broken connection, not the answer.
    """

    _refused = False

    def __init__(self, adj):
        super().__init__(adj)
        self.began = time.time()

    def received(self, data: bytes) -> int:
        """Take what has arrived; returns how many bytes of it belong to this request."""
        if not self._refused:
            consumed = super().received(data)
            if not isinstance(self.error, RequestEntityTooLarge):
                return consumed
            self._refused = True
            if self.expect_continue or self.content_length > DISCARDED_BYTES:
                self.expect_continue = False  # it has sent nothing yet and will not
                return consumed
            self.body_rcv.getbuf().close()
            self.body_rcv.buf = _Nowhere()
            self.body_bytes_received = 0
            self.completed = self.body_rcv.completed
            return consumed
        consumed = self.body_rcv.received(data)
        self.body_bytes_received += consumed
        finished = self.body_rcv.completed or self.body_rcv.error
        self.completed = bool(finished) or self.body_bytes_received > DISCARDED_BYTES
        return consumed


class _Nowhere:
    """A buffer that keeps nothing."""

    def append(self, data: bytes) -> None:
        """Forget it."""

    def close(self) -> None:
        """There is nothing to close."""

    def __len__(self) -> int:
        return 0


class Channel(HTTPChannel):
    """A connection on which a request must arrive as a whole within the time limit."""

    parser_class = Parser
    error_task_class = JSONErrorTask

    def handle_read(self) -> None:
        """Read what has arrived."""
        super().handle_read()
        request = self.request
        if request is not None:  # it is not complete yet: what arrived does not buy it more time
            self.last_activity = request.began

    def drop(self) -> None:
        """Close the connection in this turn of the loop, even if its client reads nothing.

        It is not closed here: the number of its file would go to the next connection, with what the system has
        already reported of this one.
        """
        self.will_close = True
        with contextlib.suppress(OSError):  # the client has closed it: then there is nothing left to end
            self.socket.shutdown(socket.SHUT_RDWR)  # the loop hears of this even where the buffer is full


class HTTPServer(TcpWSGIServer):
    """Keeps a place free for the next connection, at the expense of those that let the server wait.

    Args:
        application: answers the requests.
        listening: a bound socket.
        adjustments: of waitress.
    """

    channel_class = Channel

    def __init__(self, application: Flask, listening: socket.socket, adjustments: Adjustments):
        about = (listening.family, listening.type, listening.proto, listening.getsockname())
        super().__init__(application, {}, _sock=listening, adj=adjustments, sockinfo=about, bind_socket=False)

    def readable(self) -> bool:
        """Whether a new connection is taken: not if a request is being answered on every other."""
        if len(self._map) >= self.adj.connection_limit - 1:
            self._drop_one()
        return super().readable()

    def accept(self) -> tuple[socket.socket, tuple] | None:
        """Take a connection; where the system has no file left for it, one is freed for the next attempt."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._drop_one()
            raise  # waitress tries again

    def _drop_one(self) -> None:
        """Drop the connection that has let the server wait longest, of the address with the most such ones."""
        waiting = [channel for channel in list(self.active_channels.values()) if not channel.requests]
        held = Counter(channel.addr[0] for channel in waiting)
        if waiting:
            max(waiting, key=lambda channel: (held[channel.addr[0]], -channel.last_activity)).drop()
