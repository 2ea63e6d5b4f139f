"""The page inside a notebook: what it shows, what its button does, and that no server outlives its notebook."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import start_new_kernel
from PIL import Image

from kdlib.deploy.webapp import background
from kdlib.lesson import figures, served_page

ROOT = Path(__file__).parents[1]
PATIENCE = 60  # seconds: how long a busy machine may take


@pytest.fixture
def server(exported):
    running = background.serve(exported[:1])
    yield running
    running.stop()


def cell_that_serves(model: Path) -> str:
    return (
        "from kdlib.deploy.webapp import background\n"
        "from kdlib.lesson import served_page\n"
        f"server = background.serve([{str(model)!r}])\n"
        "print('pid', server.process.pid, flush=True)\n"
        "served_page.show(server)"
    )


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_it_ends(pid: int) -> None:
    late = time.monotonic() + PATIENCE
    while is_running(pid):
        assert time.monotonic() < late, f"the server {pid} has outlived the process that started it"
        time.sleep(0.05)


def test_it_shows_the_page_with_a_link_to_its_address(server):
    shown = served_page.show(server)
    assert f'<iframe src="{server.address}"' in shown.page.value
    assert f'<a href="{server.address}" target="_blank"' in shown.words.value
    assert not shown.button.disabled and server.status is None


def test_its_button_stops_the_server_and_says_so(server):
    shown = served_page.show(server)
    shown.button.click()
    assert server.status == 0
    assert "has ended with status 0" in shown.words.value
    assert shown.button.disabled and "iframe" not in shown.page.value
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), timeout=PATIENCE)


def test_of_a_server_that_has_ended_it_says_that(server):
    server.stop()
    shown = served_page.show(server)
    assert "has ended with status 0" in shown.words.value and shown.button.disabled


def test_what_is_left_without_a_browser_is_the_same_on_every_run(server):
    words = repr(served_page.show(server))
    assert "JupyterLab" in words and str(server.port) not in words


def test_only_a_server_of_a_web_page_is_shown(server):
    for other in (None, 3, server.address, Path("page")):
        with pytest.raises(TypeError, match=r"server must have .address, .status and .stop\(\), got"):
            served_page.show(other)
    server.address = "javascript:alert(1)"
    with pytest.raises(ValueError, match=r"server.address must begin with http:// or https://, got 'javascript"):
        served_page.show(server)


def test_a_cell_that_runs_again_leaves_one_server(exported):
    first = background.serve(exported[:1])
    kept = served_page.show(first)  # as a notebook keeps what its cells have shown
    second = background.serve(exported)
    assert first.status is not None and second.status is None
    kept.button.click()
    assert second.status is None, "the button of the old page stops the new one"
    second.stop()
    third = background.serve(exported[:1])
    assert third.status is None
    third.stop()


def test_a_start_that_fails_leaves_the_older_server_alive(server, exported, tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.onnx"):
        background.serve([tmp_path / "text.onnx"])
    assert server.status is None
    again = background.serve(exported[:1])
    assert server.status is not None, "a failed start has forgotten the server before it"
    again.stop()


@pytest.fixture
def kernel(exported, monkeypatch):
    """A kernel that has run the cell twice: the process, a function that runs code, the server's number."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    manager, client = start_new_kernel(startup_timeout=PATIENCE)

    def printed(code: str) -> str:
        texts = []

        def listen(message):
            content = message["content"]
            assert message["msg_type"] != "error", content
            texts.append(content.get("text", ""))

        client.execute_interactive(code, output_hook=listen, timeout=PATIENCE)
        return "".join(texts)

    first, second = (int(printed(cell_that_serves(exported[0])).split()[1]) for _ in range(2))
    assert not is_running(first) and is_running(second)
    yield manager, printed, second
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_the_server_survives_an_interrupt_but_not_the_end_of_its_kernel(kernel):
    manager, printed, pid = kernel
    manager.interrupt_kernel()
    time.sleep(1)  # the signal has no answer to wait for
    assert printed("print(server.status)").strip() == "None"
    manager.shutdown_kernel()
    assert_it_ends(pid)


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL on Windows")
def test_the_server_does_not_survive_a_kernel_that_is_killed(kernel):
    manager, _, pid = kernel
    os.kill(manager.provisioner.pid, signal.SIGKILL)
    assert_it_ends(pid)


def test_serve_ends_with_its_input_only_where_it_is_asked_to(exported):
    command = [sys.executable, "-m", "kdlib.cli", "serve", str(exported[0]), "--port", "0"]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    bound, free = (subprocess.Popen([*command, *more], **options) for more in (["--until-input-ends"], []))
    for process in (bound, free):
        assert "http://" in process.stdout.readline()
        process.stdin.close()
    assert bound.wait(PATIENCE) == 0 and free.poll() is None
    free.terminate()
    assert free.wait(PATIENCE) == 0


def test_the_recorded_picture_of_the_page_is_small_and_as_wide_as_the_frame():
    content = served_page.PICTURE.read_bytes()
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG" and len(content) < 120_000
    assert picture.width == served_page.WIDTH and 600 < picture.height < 1000
    assert len(picture.convert("RGB").getcolors()) > 20, "it is nearly blank"


def test_the_recorded_picture_is_shown_with_the_command_that_makes_it(monkeypatch, tmp_path):
    shown = []
    for module in (served_page, figures):
        monkeypatch.setattr(module, "display", lambda data, **rest: shown.append(data))
    served_page.picture()
    figure, caption, table = shown
    assert figure["image/png"] == served_page.PICTURE.read_bytes()
    assert f"`{served_page.MAKER}`" in caption["text/markdown"]
    assert "<summary>" in table["text/html"] and 'scope="row">Shirt<' in table["text/html"]
    assert (ROOT / served_page.MAKER.split()[1]).is_file()
    monkeypatch.setattr(served_page, "PICTURE", tmp_path / "page.png")
    with pytest.raises(FileNotFoundError, match=r"page\.png; make it by: python tools/picture_of_page\.py"):
        served_page.picture()
