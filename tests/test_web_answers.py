"""The web application in one process: its answers, its page, and the models that it takes."""

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from uploads import file_of, noise, send

from kdlib import data, models
from kdlib.deploy.description import METADATA_KEY
from kdlib.deploy.webapp import app as webapp
from kdlib.deploy.webapp.classifier import Classifier, load
from kdlib.inference import predict_logits


@pytest.fixture(scope="module")
def client(exported):
    return webapp.create_app(load(exported[:1])).test_client()


@pytest.fixture(scope="module")
def pair(exported):
    return webapp.create_app(load(exported)).test_client()


def test_answers_are_those_of_the_network_on_the_images_of_the_test_set(client):
    few = data.load().test.take(20)
    expected = predict_logits(models.build("tiny-cnn", seed=0), few).softmax(1)
    for image, probabilities in zip(few.images, expected, strict=True):
        (model,) = send(client, file_of(Image.fromarray(image[0].numpy()))).json["models"]
        answer = {entry["label"]: entry["probability"] for entry in model["predictions"]}
        torch.testing.assert_close(
            torch.tensor([answer[name] for name in data.load().classes]), probabilities, atol=1e-5, rtol=0
        )
        ordered = [entry["probability"] for entry in model["predictions"]]
        assert ordered == sorted(ordered, reverse=True)
        assert model["name"] == "small" and model["milliseconds"] > 0


def test_two_models_answer_side_by_side_and_show_what_they_saw(pair):
    answer = send(pair, file_of(noise(40, 30)), "?seen=1").json["models"]
    assert [model["name"] for model in answer] == ["small", "other"]
    assert answer[0]["predictions"] != answer[1]["predictions"]
    assert all(model["seen"].startswith("data:image/png;base64,") for model in answer)


def test_models_of_one_name_are_numbered(exported):
    assert [model.name for model in load([exported[0], exported[0]])] == ["small 1", "small 2"]


def test_model_says_what_is_served(pair):
    about = pair.get("/model").json
    first = about["models"][0]
    assert (first["channels"], first["height"], first["width"]) == (1, 28, 28)
    assert first["classes"] == data.load().classes and first["bytes"] > 90_000
    assert about["limits"]["bytes"] == webapp.MAX_BYTES
    assert pair.get("/healthz").json == {"status": "ok"}


def test_samples_are_images_of_the_test_set_with_their_licence(client):
    test, classes = data.load().test, data.load().classes
    offered = client.get("/model").json["samples"]
    assert [sample["label"] for sample in offered] == classes
    for sample in offered:
        pixels = np.asarray(Image.open(io.BytesIO(client.get(f"/samples/{sample['file']}").data)))
        (row,) = (test.indices == int(Path(sample["file"]).stem.rpartition("-")[2])).nonzero()[0]
        assert (
            np.array_equal(pixels, test.images[row, 0].numpy())
            and classes[test.labels[row]] == sample["label"]
        )
    assert b"Zalando" in client.get("/samples/LICENSE").data


def test_samples_are_offered_only_to_models_of_their_classes(exported, tmp_path):
    renamed = with_metadata(exported[0], tmp_path / "renamed.onnx", classes=list("abcdefghij"))
    assert webapp.create_app(load([exported[0], renamed])).test_client().get("/model").json["samples"] == []


def test_inverted_is_the_negative(client):
    plain, negative = (file_of(noise(28, 28, "L").point(curve)) for curve in (lambda p: p, lambda p: 255 - p))
    inverted = send(client, plain, "?invert=1").json["models"][0]["predictions"]
    assert inverted == send(client, negative).json["models"][0]["predictions"]
    assert inverted != send(client, plain).json["models"][0]["predictions"]


def test_every_answer_carries_the_security_headers_and_no_page_a_foreign_address(client):
    for address in ("/", "/static/app.js", "/static/style.css", "/model", "/nowhere", "/samples/LICENSE"):
        response = client.get(address)
        policy, framed = response.headers["Content-Security-Policy"].split("frame-ancestors ")
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy, address
        assert framed.split() == ["'self'", "http://127.0.0.1:*", "http://localhost:*"], address
        assert response.headers["X-Content-Type-Options"] == "nosniff", address
        if address.startswith("/static") or address == "/":
            text = response.get_data(as_text=True)
            for foreign in ("://", 'src="/', 'href="/', "<script>", "style=", "onclick"):
                assert foreign not in text, (address, foreign)


def with_metadata(source: Path, target: Path, **changes) -> Path:
    """The model with another description; without any, with none at all."""
    model = onnx.load(source)
    described = json.loads(model.metadata_props[0].value) | changes
    del model.metadata_props[:]
    if changes:
        model.metadata_props.add(key=METADATA_KEY, value=json.dumps(described))
    onnx.save(model, target)
    return target


def test_a_model_that_does_not_describe_itself_is_refused_with_the_remedy(exported, tmp_path):
    with pytest.raises(ValueError, match=r"bare.onnx does not say .*export_onnx\("):
        Classifier(with_metadata(exported[0], tmp_path / "bare.onnx"))


def test_a_model_that_does_not_do_what_it_says_is_refused(exported, tmp_path):
    for changes, message in (
        ({"channels": 3, "mean": [0] * 3, "std": [1] * 3}, "cannot process the images it describes"),
        ({"classes": ["a", "b"]}, "a finite logit for each of its 2 classes"),
        ({"mean": [1e38]}, "a finite logit"),
        (
            {"classes": "abcdefghij"},
            "description of the model cannot be read: classes must be a list of texts",
        ),
        ({"height": 28.5}, "description of the model cannot be read: height must be an integer"),
    ):
        with pytest.raises(ValueError, match=message):
            Classifier(with_metadata(exported[0], tmp_path / "wrong.onnx", **changes))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match="text.onnx: onnxruntime cannot load this model"):
        Classifier(tmp_path / "text.onnx")
    with pytest.raises(FileNotFoundError):
        Classifier(tmp_path / "absent.onnx")
