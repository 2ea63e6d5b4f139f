"""The web page started and stopped from Python."""

import gc
import json
import urllib.request

import pytest
from PIL import Image

from kdlib.deploy.webapp import background


def models_at(address: str) -> list[str]:
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxy.open(f"{address}model", timeout=60) as response:
        return [model["name"] for model in json.load(response)["models"]]


def test_it_serves_at_its_address_until_it_is_stopped(exported):
    server = background.Server(exported)
    assert server.address == f"http://{server.host}:{server.port}/" and server.host == "127.0.0.1"
    assert models_at(server.address) == ["small", "other"]
    server.stop()
    server.stop()
    assert server.process.returncode == 0  # with it went its port, which another program may have taken since


def test_it_answers_a_picture_and_refuses_when_it_has_ended(exported):
    server, grey = background.Server(exported), Image.new("L", (28, 28), 90)
    first, second = server.ask(grey)
    assert (first["name"], second["name"]) == ("small", "other") and first["milliseconds"] > 0
    chances = [one["probability"] for one in first["predictions"]]
    assert chances == sorted(chances, reverse=True)
    assert all(isinstance(one["label"], str) for one in first["predictions"])
    assert [model["name"] for model in server.ask(grey.convert("CMYK"))] == ["small", "other"]
    with pytest.raises(OSError, match="the server refuses the picture: .*pixels"):
        server.ask(Image.new("L", (30_000, 30_000)))
    with pytest.raises(TypeError, match="picture"):
        server.ask("grey.png")
    server.stop()
    with pytest.raises(OSError):
        server.ask(grey)


def test_it_ends_with_its_object(exported):
    process = background.Server(exported[:1]).process
    gc.collect()
    assert process.returncode is not None  # 0, or 130 where it had not begun to wait for requests


def test_what_cannot_be_served_is_said(exported, tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match=r"status 2: .*text\.onnx: onnxruntime cannot load this model"):
        background.Server([tmp_path / "text.onnx"])
    with pytest.raises(ValueError, match="got 3"):
        background.Server([*exported, exported[0]])
