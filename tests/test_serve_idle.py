"""`kdlib serve` while clients hold connections open and let it wait: who is answered, and who is dropped."""

import contextlib
import http.client
import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from serving import Served, serving
from waitress import wasyncore
from waitress.adjustments import Adjustments

from kdlib.deploy.webapp.server import CONNECTIONS, SECONDS, Channel

IDLE = 150
PATIENCE = SECONDS / 2  # of a client: it ends before the server lets go of connections because of their age
HEAD = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def server(exported) -> Iterator[Served]:
    with serving(exported[:1]) as running:
        yield running
        assert running.process.poll() is None, "the server has not survived the tests"


def connect(server: Served, sent: bytes = b"", source: str = "") -> socket.socket:
    """A connection on which this was sent, and no more."""
    connection = socket.create_connection(
        (server.host, server.port), timeout=PATIENCE, source_address=(source, 0)
    )
    connection.sendall(sent)
    return connection


def status(connection: socket.socket) -> int:
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def ask(server: Served, address: str = "/healthz") -> int:
    """The status of one request on a connection of its own."""
    with connect(server, GET.replace(b"/healthz", address.encode())) as connection:
        return status(connection)


@contextlib.contextmanager
def held(server: Served, count: int = IDLE, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, open until the block ends, on each of which this was sent."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(server, sent)) for _ in range(count)]


def is_dropped(connection: socket.socket) -> bool:
    """Whether the server ends it, of a connection on which no answer is due."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # it had sent something that was not read
        return True


def test_an_honest_client_is_answered_while_others_hold_connections_and_let_the_server_wait(server):
    for sent in (b"", HEAD[:40], HEAD, HEAD + b"\r\n", HEAD + b"\r\n--x\r\n"):
        with held(server, sent=sent):
            assert [ask(server) for _ in range(3)] == [200] * 3, sent


def test_an_honest_client_is_answered_while_others_idle_between_two_requests(server):
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            connection = stack.enter_context(connect(server, GET))
            assert status(connection) == 200
        assert ask(server) == 200


def test_an_honest_client_is_answered_while_a_crowd_sends_drop_by_drop(server):
    with held(server, CONNECTIONS - 10) as crowd:
        for drop in HEAD[:20]:
            for connection in crowd:
                connection.sendall(bytes([drop]))
        with held(server, 20):
            assert ask(server) == 200
            # What kept dripping was not younger for it: the oldest of the crowd are gone, the last one is not.
            assert is_dropped(crowd[0])
            crowd[-1].sendall(HEAD[20:] + b"\r\n" + bytes(5000))
            assert status(crowd[-1]) == 400


def test_the_connections_that_have_waited_longest_are_dropped_and_the_youngest_are_kept(server):
    with held(server) as connections:
        assert ask(server) == 200
        assert all(is_dropped(connection) for connection in connections[: IDLE - CONNECTIONS])
        for connection in connections[-CONNECTIONS // 2 :]:
            connection.sendall(GET)
            assert status(connection) == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has more than one address for itself")
def test_a_crowd_at_one_address_costs_nobody_at_another_a_connection(server):
    with connect(server, GET, source="127.0.0.2") as honest:
        assert status(honest) == 200
        with held(server, 2 * IDLE):
            assert ask(server) == 200  # the crowd has been dealt with
            honest.sendall(GET)
            assert status(honest) == 200


def test_a_client_that_reads_nothing_is_let_go_too():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server, loop = type("Server", (), {"active_channels": {}})(), {}
        channel = Channel(server, ours, ("", 0), Adjustments(), map=loop)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(2**16))
        channel.total_outbufs_len = channel.outbufs[0].append(b"more") or 4
        channel.drop()
        wasyncore.poll2(60, loop)
        assert not loop and not server.active_channels and ours.fileno() == -1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux lists the open files of a process")
def test_a_server_that_runs_out_of_files_frees_one_for_the_next_client(server):
    import resource

    process = server.process.pid
    assert ask(server) == 200
    soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{process}/fd").iterdir()))
    try:
        resource.prlimit(process, resource.RLIMIT_NOFILE, (used + 10, hard))
        with held(server, 30):
            assert [ask(server) for _ in range(3)] == [200] * 3
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(os.name != "posix", reason="Windows has no limit of this kind")
def test_a_server_that_may_open_few_files_leaves_some_for_its_answers(exported):
    import resource

    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))
    with serving(exported[:1], before=few) as running, held(running, 80):
        assert [ask(running, address) for address in ("/", "/static/app.js", "/model")] == [200] * 3
