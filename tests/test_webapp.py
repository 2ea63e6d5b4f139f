"""The web application in one process: right answers for good pictures, a clear refusal for anything else."""

import io
import json
import struct
import tempfile
import threading
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from kdlib import data, models
from kdlib.deploy.description import METADATA_KEY, Description
from kdlib.deploy.webapp import app as webapp
from kdlib.deploy.webapp import images
from kdlib.deploy.webapp.classifier import Classifier, load
from kdlib.inference import predict_logits

COLOUR = Description("colour", ("a", "b"), 3, 32, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
GREY = Description("grey", ("a", "b"), 1, 28, 28, (0.25,), (0.5,))
WIDE = Description("wide", ("a", "b"), 3, 20, 60, (0.5,) * 3, (0.5,) * 3, (-1.0, 1.0))
SAMPLES = Path(webapp.__file__).parent / "samples"


@pytest.fixture(scope="module")
def client(exported):
    return webapp.create_app(load(exported[:1])).test_client()


@pytest.fixture(scope="module")
def pair(exported):
    return webapp.create_app(load(exported)).test_client()


def file_of(picture: Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels if bands > 1 else pixels[..., 0], mode="L" if mode == "L" else None)


def gradient(width: int, height: int) -> Image.Image:
    """Dark to bright from left to right in red, from top to bottom in green."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 80)], -1).astype(np.uint8))


def send(client, content: bytes, query: str = ""):
    return client.post(f"/predict{query}", data={"image": (io.BytesIO(content), "picture")})


def assert_refused(response, status: int, *words: str) -> None:
    assert response.status_code == status and response.mimetype == "application/json", response.data
    assert set(response.json) == {"error"}
    assert all(word in response.json["error"] for word in words), response.json


# --- answers -----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "address", ["/", "/static/app.js", "/static/style.css", "/model", "/nowhere", "/samples/LICENSE"]
)
def test_every_answer_carries_the_security_headers_and_no_page_a_foreign_address(client, address):
    response = client.get(address)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    if address.startswith("/static") or address == "/":
        text = response.get_data(as_text=True)
        assert "://" not in text and 'src="/' not in text and 'href="/' not in text and "<script>" not in text
        assert "style=" not in text and "onclick" not in text


# --- preprocessing -----------------------------------------------------------------------------------------


def seen_by(description: Description, content: bytes) -> np.ndarray:
    seen, _ = images.model_input(images.decode(content, [description]), description)
    return np.asarray(seen).astype(float)


@pytest.mark.parametrize("description", [COLOUR, GREY, WIDE], ids=lambda description: description.name)
def test_numbers_follow_the_formula_of_the_description(description):
    picture = noise(description.width, description.height, "L" if description.channels == 1 else "RGB")
    _, numbers = images.model_input(picture, description)
    pixels = np.asarray(picture, float).reshape(description.height, description.width, description.channels)
    low, high = description.value_range
    expected = (low + (high - low) * pixels / 255 - np.array(description.mean)) / np.array(description.std)
    assert numbers.dtype == np.float32
    np.testing.assert_allclose(numbers, expected.transpose(2, 0, 1)[None], atol=1e-6)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "gif"])
@pytest.mark.parametrize("size", [(90, 60), (3000, 2000)], ids=["small", "large"])
def test_every_format_and_size_shows_the_same_middle(kind, size):
    expected = np.asarray(
        gradient(*size).crop((size[0] // 6, 0, size[0] - size[0] // 6, size[1])).resize((32, 32))
    )
    assert np.abs(seen_by(COLOUR, file_of(gradient(*size), kind)) - expected).mean() < 6


MODES = {
    "1": lambda picture: picture.convert("1"),
    "L": lambda picture: picture.convert("L"),
    "palette": lambda picture: picture.quantize(200),
    "LA": lambda picture: picture.convert("LA"),
    "RGBA": lambda picture: picture.convert("RGBA"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(64, 64), (1200, 1200)], ids=["small", "large"])
def test_every_mode_of_png_shows_the_same_brightness(mode, size):
    picture = gradient(*size)
    expected = np.asarray(picture.convert("L").resize((28, 28)), float)
    found = seen_by(GREY, file_of(MODES[mode](picture)))
    assert np.abs(found.mean() - expected.mean()) < 6 and np.corrcoef(found.flat, expected.flat)[0, 1] > 0.95


@pytest.mark.parametrize("size", [28, 1200])
def test_sixteen_bits_keep_their_greys(size):
    deep = np.linspace(0, 65535, size * size).reshape(size, size).astype(np.uint16)
    expected = np.asarray(
        Image.fromarray((deep >> 8).astype(np.uint8)).resize((28, 28), Image.Resampling.BOX), float
    )
    found = seen_by(GREY, file_of(Image.fromarray(deep)))
    assert np.abs(found - expected).max() <= 8 and found.max() - found.min() > 200


def test_print_colours_become_screen_colours():
    assert (
        np.abs(
            seen_by(COLOUR, file_of(gradient(64, 64).convert("CMYK"), "jpeg")).mean(axis=(0, 1))
            - [128, 128, 80]
        ).max()
        < 12
    )


@pytest.mark.parametrize("size", [64, 1200])
def test_what_is_transparent_becomes_white(size):
    picture = gradient(size, size).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, size, size // 2))
    top, bottom = np.split(seen_by(COLOUR, file_of(picture)), 2)
    assert top[:15].min() == 255 and bottom[1:, :, 2].max() < 90
    palette = noise(size, size, "L").quantize(8)
    assert seen_by(GREY, file_of(palette, transparency=bytes(8))).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_picture_held_otherwise_is_turned_upright(orientation, kind):
    upright = gradient(80, 60)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition by which the camera's view differs
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (
        np.abs(seen_by(WIDE, file_of(stored, kind, exif=exif)) - seen_by(WIDE, file_of(upright))).mean() < 4
    )


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "lime")]
    for kind in ("gif", "webp", "png"):
        content = file_of(
            frames[0],
            kind,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if kind == "webp" else {}),
        )
        assert np.abs(seen_by(COLOUR, content) - [255, 0, 0]).max() <= 3


# --- hostile pictures --------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of that many pixels, and none of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1), (1, 1_000_000), (65_000, 2)])
def test_a_very_long_picture_is_cut_before_it_is_resized(client, size, monkeypatch):
    areas = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *more, **options: areas.append(size) or resize(self, size, *more, **options),
    )
    assert send(client, file_of(Image.new("RGB", size))).status_code == 200
    assert areas and max(width * height for width, height in areas) <= 28 * 28


@pytest.mark.parametrize("size", [(4001, 4000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_by_the_header_alone(client, size, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert_refused(send(client, png_header(*size)), 413, "pixels", "16 million")


def test_a_jpeg_in_a_thousand_passes_is_refused_undecoded(client, monkeypatch):
    content = file_of(noise(64, 64), "jpeg", progressive=True)
    start = content.rindex(b"\xff\xda")
    many = content[:start] + content[start:-2] * 1000 + content[-2:]
    assert_refused(send(client, many), 422, "passes")
    assert send(client, content).status_code == 200


DAMAGED = {
    "truncated png": (file_of(noise(64, 64))[:-4000], 422),
    "truncated jpeg": (file_of(noise(64, 64), "jpeg")[:-1500], 422),
    "truncated gif": (file_of(noise(64, 64), "gif")[:-3000], 422),
    "header of a png": (png_header(64, 64), 422),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect/></svg>", 415),
    "tiff": (file_of(noise(64, 64), "tiff"), 415),
    "ico": (file_of(noise(64, 64), "ico"), 415),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "text": (b"hello", 415),
    "zeros": (bytes(1000), 415),
    "pdf": (b"%PDF-1.7\n", 415),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_sound_picture_is_refused(client, name):
    content, status = DAMAGED[name]
    assert_refused(send(client, content), status)


def test_of_many_large_pictures_at_once_some_are_told_to_come_again(client):
    large = file_of(Image.new("RGB", (1200, 1200)))
    with images._one_large_picture:  # as if one that takes for ever were being decoded
        answers = []
        waiting = [
            threading.Thread(target=lambda: answers.append(send(client.application.test_client(), large)))
            for _ in range(images.QUEUE)
        ]
        for thread in waiting:
            thread.start()
        while images._queue_of_large_pictures._value:
            assert any(thread.is_alive() for thread in waiting)
        refused = send(client, large)
        assert_refused(refused, 429, "try again")
        assert refused.headers["Retry-After"] == "1"
        assert send(client, file_of(noise(28, 28))).status_code == 200  # small ones pass
    for thread in waiting:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * images.QUEUE


# --- hostile requests --------------------------------------------------------------------------------------

GOOD = file_of(noise(28, 28))


def test_forms_that_hold_something_else_are_refused(client):
    def form(**fields):
        return client.post("/predict", data=fields, content_type="multipart/form-data")

    assert_refused(form(), 400, "the form holds nothing")
    assert_refused(form(photo=(io.BytesIO(GOOD), "a.png")), 400, "'photo'")
    assert_refused(form(image="not a file"), 400, "'image'")
    assert_refused(form(image=(io.BytesIO(b""), "a.png")), 400, "empty")
    assert_refused(form(image=[(io.BytesIO(GOOD), "a.png"), (io.BytesIO(GOOD), "b.png")]), 400, "one file")
    assert_refused(form(image=(io.BytesIO(GOOD), "a.png"), more="x"), 400, "'more'")
    assert_refused(form(**{f"f{number}": "x" for number in range(50)}), 413)
    assert_refused(form(image="x" * 200_000), 413)


def test_requests_that_are_no_form_are_refused(client):
    for kind in (
        "image/png",
        "application/json",
        "application/x-www-form-urlencoded",
        "",
        "multipart/mixed; boundary=x",
    ):
        assert_refused(client.post("/predict", data=GOOD, content_type=kind), 415, "multipart/form-data")
    for boundary in ("", "; boundary=", "; boundary=x", "; boundary=" + "y" * 5000):
        assert_refused(client.post("/predict", data=GOOD, content_type=f"multipart/form-data{boundary}"), 400)
    assert_refused(client.get("/nowhere"), 404)
    assert_refused(client.get("/static/../app.py"), 404)
    assert_refused(client.get("/samples/..%2fapp.py"), 404)
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
        refused = client.open("/predict", method=method)
        assert_refused(refused, 405, method)
        assert "POST" in refused.headers["Allow"]


def test_a_request_above_the_limit_is_refused_unread(client):
    body = io.BytesIO(b"--x\r\n")
    environment = {"CONTENT_LENGTH": str(50 * 2**20), "wsgi.input": body}
    refused = client.post(
        "/predict", content_type="multipart/form-data; boundary=x", environ_overrides=environment
    )
    assert_refused(refused, 413, "8 MiB")
    assert body.tell() == 0


def test_an_upload_of_eight_megabytes_touches_no_disk(client, monkeypatch):
    for name in ("TemporaryFile", "SpooledTemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, lambda *_, **__: pytest.fail("a temporary file"))
    bmp = file_of(noise(1600, 1700), "bmp")
    assert 8_000_000 < len(bmp) < webapp.MAX_BYTES - 1000
    assert send(client, bmp).status_code == 200


def test_a_defect_of_the_server_is_json_and_tells_nothing(exported, monkeypatch):
    application = webapp.create_app(load(exported[:1]))
    monkeypatch.setattr(Classifier, "classify", lambda *_, **__: 1 / 0)
    assert_refused(send(application.test_client(), GOOD), 500, "the server made a mistake")


def test_no_mutation_of_a_picture_or_a_form_upsets_the_server(client):
    random = np.random.default_rng(0)
    seeds = [file_of(noise(24, 18), kind) for kind in ("png", "jpeg", "webp", "bmp", "gif")]
    seeds += [file_of(gradient(30, 20), "jpeg", progressive=True), file_of(noise(20, 20).quantize(16)), GOOD]
    statuses = []
    for case in range(400):
        content = mutated(random, seeds[case % len(seeds)])
        if case % 4:
            response = send(client, content)
        else:
            head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            body = mutated(random, head + content + b"\r\n--x--\r\n")
            response = client.post("/predict", data=body, content_type="multipart/form-data; boundary=x")
        statuses.append(response.status_code)
        assert response.status_code in (200, 400, 413, 415, 422), (case, response.data)
        assert response.status_code == 200 or set(response.json) == {"error"}
    assert {200, 400, 415, 422} <= set(statuses)


def mutated(random: np.random.Generator, content: bytes) -> bytes:
    """One to four changes: bytes overwritten, a piece cut out, doubled or moved, the end cut off."""
    for _ in range(random.integers(1, 5)):
        start, end = sorted(random.integers(0, len(content) + 1, 2))
        end = min(end, start + 40)
        change = random.integers(5)
        if change == 0:
            content = content[:start] + random.bytes(end - start) + content[end:]
        elif change == 1:
            content = content[:start] + content[end:]
        elif change == 2:
            content = content[:end] + content[start:]
        elif change == 3:
            content = content[:start] + bytes([random.choice([0, 1, 127, 255])]) * 4 + content[start + 4 :]
        elif random.integers(3) == 0:
            content = content[: max(1, start)]
    return content


# --- models that are refused -------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 3, "mean": [0] * 3, "std": [1] * 3}, "cannot process the images it describes"),
        ({"classes": ["a", "b"]}, "a finite logit for each of its 2 classes"),
        ({"mean": [1e38]}, "a finite logit"),
    ],
)
def test_a_model_that_does_not_do_what_it_says_is_refused(exported, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        Classifier(with_metadata(exported[0], tmp_path / "wrong.onnx", **changes))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match="text.onnx is no model that onnxruntime can load"):
        Classifier(tmp_path / "text.onnx")
    with pytest.raises(FileNotFoundError):
        Classifier(tmp_path / "absent.onnx")
