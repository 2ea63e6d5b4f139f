"""What `kdlib serve` costs, and whether hostile clients slow an honest one.

    python benchmarks/serve.py [MODEL.onnx ...] [--requests 1000] [--idle 150] [--hostile 1000]

Without a model, an untrained tiny-cnn for grey 28-pixel images is exported and served. Printed are the processor
seconds until the server's first answer, its memory, its requests per second (a client that asks one after the
other on one connection; and per processor second of the server, which a busy machine does not change). Then
the latency of an honest client that opens a connection for each request, alone and while others hold as many
connections as `--idle` says, send nothing on them and open each again that the server drops; and at last the
latency of the first client while another sends hostile uploads one after the other: pictures as large as the
limits allow in every format, decompression bombs, damaged and random files, broken forms, endless bodies.
"""

import argparse
import contextlib
import http.client
import math
import os
import selectors
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from serving import Served, serving  # noqa: E402 - shared with the tests
from uploads import file_of, gradient, noise  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
FORM = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n%s\r\n--x--\r\n'
KIND = {"Content-Type": "multipart/form-data; boundary=x"}


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def megabytes(process: int, field: str = "VmRSS") -> float:
    """Memory that a process holds now (VmRSS) or held at most (VmHWM)."""
    (line,) = (
        line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(field)
    )
    return int(line.split()[1]) / 1024


class Client:
    """One connection, opened again whenever the server has closed it."""

    def __init__(self, server: Served):
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=60)

    def post(self, body: bytes, headers: dict = KIND) -> int:
        """The status of the answer."""
        try:
            self.connection.request("POST", "/predict", body, headers)
            response = self.connection.getresponse()
            response.read()
            return response.status
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return 0


class NewConnections(Client):
    """A connection for each request."""

    def post(self, body: bytes, headers: dict = KIND) -> int:
        """The status of the answer."""
        try:
            return super().post(body, headers)
        finally:
            self.connection.close()


@contextlib.contextmanager
def idle(server: Served, count: int) -> Iterator[None]:
    """Hold so many connections and send nothing on them; one that the server drops is opened again."""
    ended, address = threading.Event(), (server.host, server.port)
    with selectors.DefaultSelector() as selector:

        def hold_one_more() -> None:
            selector.register(socket.create_connection(address), selectors.EVENT_READ)

        def reopen() -> None:
            while not ended.is_set():
                for key, _ in selector.select(0.1):  # nothing was asked: it can only be the end
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    hold_one_more()

        for _ in range(count):
            hold_one_more()
        thread = threading.Thread(target=reopen)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for key in list(selector.get_map().values()):
                key.fileobj.close()


def hostile_uploads() -> list[tuple[str, bytes, dict]]:
    """(name, body, headers) of one upload of each kind."""
    side = 4000
    black, photograph = Image.new("RGB", (side, side)), gradient(side, side)
    progressive = file_of(noise(64, 64), "jpeg", progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    pictures = {
        "16 Mpx png": file_of(black),
        "16 Mpx rgba png": file_of(black.convert("RGBA")),
        "16 Mpx palette png": file_of(black.quantize(4), transparency=bytes(4)),
        "16 Mpx 16-bit png": file_of(Image.fromarray(np.zeros((side, side), np.uint16))),
        "16 Mpx jpeg": file_of(photograph, "jpeg"),
        "16 Mpx progressive jpeg": file_of(photograph, "jpeg", progressive=True, subsampling=0),
        "16 Mpx webp": file_of(black, "webp", lossless=True, method=0),
        "16 Mpx gif": file_of(black, "gif"),
        "1 x 4000 png": file_of(Image.new("RGB", (1, 4000))),
        "16 Mpx x 1 png": file_of(Image.new("RGB", (16_000_000, 1))),
        "25 Mpx png": file_of(Image.new("1", (5000, 5000))),
        "1000-pass jpeg": progressive[:scan] + progressive[scan:-2] * 1000 + progressive[-2:],
        "8 MB bmp": file_of(noise(1600, 1700), "bmp"),
        "truncated png": file_of(noise(300, 300))[:-9000],
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "empty": b"",
        "8 MB of zeros": bytes(8_000_000),
    }
    uploads = [(name, FORM % (b"image", picture), KIND) for name, picture in pictures.items()]
    picture = file_of(noise(28, 28))
    uploads += [
        ("wrong field", FORM % (b"photo", picture), KIND),
        ("8 MB of line ends", b"--x\r\n" + b"\r\n" * 4_000_000, KIND),
        ("8 MB of dashes", b"--x\r\n" + b"\r\n--" * 2_000_000, KIND),
        ("8 MB of parts", b"--x\r\n\r\n\r\n" * 800_000, KIND),
        ("8 MB header of a part", b"--x\r\nA: " + bytes(8_000_000), KIND),
        ("no form", picture, {"Content-Type": "image/png"}),
        ("12 MB", bytes(12_000_000), KIND),
    ]
    return uploads


def hostile_stream(count: int) -> Iterator[tuple[str, bytes, dict]]:
    """`count` hostile uploads: every second one of `hostile_uploads`, the others mutated pictures."""
    random = np.random.default_rng(0)
    uploads = hostile_uploads()
    sound = [file_of(noise(60, 50), kind) for kind in ("png", "jpeg", "webp", "bmp", "gif")]
    for number in range(count):
        if number % 2:
            yield uploads[number // 2 % len(uploads)]
        else:
            picture = bytearray(sound[number // 2 % len(sound)])
            for place in random.integers(0, len(picture), 8):
                picture[place] = random.integers(256)
            yield "mutated", FORM % (b"image", bytes(picture)), KIND


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def latencies(client: Client, body: bytes, enough: Callable[[int], bool]) -> tuple[list[float], Counter]:
    """Milliseconds of one request after the other, until `enough(how many)`; and the statuses."""
    measured, statuses = [], Counter()
    while not enough(len(measured)):
        start = time.perf_counter()
        statuses[client.post(body)] += 1
        measured.append(1000 * (time.perf_counter() - start))
    return measured, statuses


def attack(server: Served, uploads: list, statuses: Counter, slowest: dict[str, float]) -> None:
    client = Client(server)
    for name, body, headers in uploads:
        start = time.perf_counter()
        statuses[client.post(body, headers)] += 1
        slowest[name] = max(slowest.get(name, 0), 1000 * (time.perf_counter() - start))


def default_model(folder: str) -> Path:
    from kdlib import data, models
    from kdlib.deploy.export import export_onnx

    dataset = data.load()
    return export_onnx(
        models.build("tiny-cnn", seed=0), Path(folder) / "tiny-cnn.onnx", image_shape=(1, 28, 28),
        classes=dataset.classes, mean=dataset.mean, std=dataset.std,
    )  # fmt: skip


def measure(server: Served, requests: int, crowd: int, hostile: int) -> list[tuple[str, float, float, bool]]:
    """(what, figure, target, whether more is better)"""
    process, rows = server.process.pid, []
    honest, body = Client(server), FORM % (b"image", file_of(noise(28, 28)))
    honest.post(body)
    rows.append(("cold start, CPU s", cpu_seconds(process), 1, False))
    rows.append(("memory after the first answer, MB", megabytes(process), 150, False))
    latencies(honest, body, lambda done: done >= 100)
    cpu, start = cpu_seconds(process), time.perf_counter()
    alone, statuses = latencies(honest, body, lambda done: done >= requests)
    rows.append(("requests/s", requests / (time.perf_counter() - start), 100, True))
    rows.append(("requests per CPU s of the server", requests / (cpu_seconds(process) - cpu), 100, True))
    rows.append(("alone, median ms", percentile(alone, 0.5), 200, False))
    rows.append(("alone, p99 ms", percentile(alone, 0.99), 200, False))
    for what, holding in (("new connections", 0), (f"{crowd} idle, new connections", crowd)):
        with idle(server, holding):
            fresh, more = latencies(NewConnections(server), body, lambda done: done >= requests)
        statuses += more
        rows.append((f"{what}, median ms", percentile(fresh, 0.5), 200, False))
        rows.append((f"{what}, p99 ms", percentile(fresh, 0.99), 200, False))
    before, hostile_statuses, slowest = megabytes(process), Counter(), {}
    uploads = list(hostile_stream(hostile))
    thread = threading.Thread(target=attack, args=(server, uploads, hostile_statuses, slowest))
    thread.start()
    honest = Client(server)  # the place of its first connection, which lay idle, was needed for another
    besieged, more = latencies(honest, body, lambda done: not thread.is_alive())
    rows.append(("under attack, median ms", percentile(besieged, 0.5), 200, False))
    rows.append(("under attack, p99 ms", percentile(besieged, 0.99), 200, False))
    rows.append(("memory grown by the attack, MB", megabytes(process) - before, 50, False))
    rows.append(("memory at its peak, MB", megabytes(process, "VmHWM"), math.inf, False))
    every = statuses + more + hostile_statuses
    rows.append(("answers 5xx", sum(every[status] for status in every if status >= 500), 0, False))
    rows.append(
        ("honest requests not answered 200", (statuses + more).total() - (statuses + more)[200], 0, False)
    )
    print(f"hostile uploads by status (0: connection broken): {dict(sorted(hostile_statuses.items()))}")
    worst = sorted(slowest.items(), key=lambda item: -item[1])[:5]
    print("slowest of them:", ", ".join(f"{name} {milliseconds:.0f} ms" for name, milliseconds in worst))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--requests", type=int, default=1000, metavar="N")
    parser.add_argument("--idle", type=int, default=150, metavar="N")
    parser.add_argument("--hostile", type=int, default=1000, metavar="N")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        models = options.models or [default_model(folder)]
        server = stack.enter_context(serving(models))
        rows = measure(server, options.requests, options.idle, options.hostile)
    fine = True
    print(f"\n{'':36}{'measured':>10}{'target':>10}")
    for what, figure, target, more_is_better in rows:
        met = figure >= target if more_is_better else figure <= target
        fine &= met
        sign = "" if math.isinf(target) else f"{'>=' if more_is_better else '<='} {target:g}"
        print(f"{what:36}{figure:10.2f}{sign:>10}{'' if met else '  MISSED'}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
