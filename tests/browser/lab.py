"""Start a real JupyterLab and a real browser."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Playwright

from kdlib.lesson import course

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120  # seconds: how long a busy machine may take for one step
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Lab:
    """A running server: its address and the folder that it serves."""

    url: str
    token: str
    folder: Path

    def address(self, notebook: str) -> str:
        return f"{self.url}/lab/tree/{notebook}?token={self.token}&reset"


@contextlib.contextmanager
def jupyter_lab(folder: Path, private: Path, *, theme: str = "JupyterLab Light") -> Iterator[Lab]:
    """Serve `folder` on a free loopback port, with settings of its own in `private`, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder)
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": folder,
        "ServerApp.allow_root": True,
        "ServerApp.kernel_websocket_connection_class": course.CONNECTION,
        "IdentityProvider.token": lab.token,
        "LabApp.expose_app_in_browser": True,  # lets a test ask the application for the notebook's model
    }
    _write_settings(private, theme)
    log = private / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", *(f"--{k}={v}" for k, v in options.items())],
            env=_environment(private),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_answers(server, lab, log)
        yield lab
    finally:
        server.terminate()  # JupyterLab ends its kernels on this signal
        server.wait(timeout=PATIENCE)


def _environment(private: Path) -> dict[str, str]:
    folders = {
        name: str(private / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    }
    here = {"KDLIB_PROFILE": "ci", "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **folders, **here}


def _write_settings(private: Path, theme: str) -> None:
    """Choose the theme; ask for no news and no updates, which would need a network."""
    folder = private / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    (folder / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    (folder / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )


def _wait_until_it_answers(server: subprocess.Popen, lab: Lab, log: Path) -> None:
    for _ in range(PATIENCE * 5):
        try:
            urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=PATIENCE).close()
            return
        except urllib.error.URLError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=0.2)
                raise RuntimeError(f"JupyterLab ended:\n{log.read_text()}") from None
    raise TimeoutError(f"JupyterLab did not answer within {PATIENCE} s:\n{log.read_text()}")


def launch(playwright: Playwright) -> Browser:
    """Debian's chromium, kept from calling home."""
    local = ["--no-sandbox", "--no-proxy-server", "--disable-gpu"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    return playwright.chromium.launch(executable_path=CHROMIUM, args=local + quiet, timeout=PATIENCE * 1000)
