"""Requests that are no honest upload: each is refused with a reason, none upsets the server."""

import io
import tempfile

import numpy as np
import pytest
from uploads import assert_refused, file_of, gradient, noise, send

from kdlib.deploy.webapp import app as webapp
from kdlib.deploy.webapp.classifier import Classifier, load

GOOD = file_of(noise(28, 28))


@pytest.fixture(scope="module")
def client(exported):
    return webapp.create_app(load(exported[:1])).test_client()


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
