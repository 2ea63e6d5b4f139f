"""The page and its answers, as a WSGI application.

GET  /          the page
GET  /samples/FILE   a sample picture
GET  /model     what is served: names, classes, inputs, limits
GET  /healthz   {"status": "ok"}
POST /predict   a form (multipart/form-data) with one file, `image`; with ?invert=1 bright becomes dark, with
                ?seen=1 the answer shows what each model saw. Answers {"models": [{"name", "milliseconds",
                "predictions": [{"label", "probability"}, ...]}, ...]}, the most probable first.

Every error is JSON, {"error": reason}, with the status that fits. Nothing that is uploaded reaches a disk.
"""

import io
import json
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask, Request, Response, jsonify, request, send_from_directory
from werkzeug.exceptions import HTTPException

from kdlib.deploy.webapp.classifier import Classifier
from kdlib.deploy.webapp.images import FORMATS, MAX_PIXELS, Refused, decode

MAX_BYTES = 8 * 2**20  # of a request
MAX_PARTS = 8  # of a form
FIELD = "image"
_HERE = Path(__file__).parent
# Who may show the page inside a page of theirs: itself, and what the visitor's own machine serves, such as JupyterLab.
FRAMES = "'self' http://127.0.0.1:* http://localhost:*"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        f"form-action 'self'; base-uri 'none'; frame-ancestors {FRAMES}"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class UploadRequest(Request):
    """A request whose files stay in memory (werkzeug puts those above 500 kB into temporary files)."""

    def _get_file_stream(self, *args: Any, **options: Any) -> io.BytesIO:
        return io.BytesIO()


def create_app(classifiers: Sequence[Classifier]) -> Flask:
    """The application that serves these models.

    Args:
        classifiers: one or more, of different names.
    """
    mimetypes.add_type(
        "text/javascript", ".js"
    )  # a Windows registry may say otherwise, and browsers then refuse
    app = Flask("kdlib.deploy.webapp", static_folder=str(_HERE / "static"))
    app.request_class = UploadRequest
    app.config.update(MAX_CONTENT_LENGTH=MAX_BYTES, MAX_FORM_PARTS=MAX_PARTS, MAX_FORM_MEMORY_SIZE=100_000)
    app.url_map.merge_slashes = False  # a redirect would name an absolute address, wrong behind a proxy
    app.json.sort_keys = False
    samples = _samples(classifiers)

    @app.get("/")
    def page() -> Response:
        return send_from_directory(_HERE / "static", "index.html")

    @app.get("/samples/<name>")
    def sample(name: str) -> Response:
        return send_from_directory(_HERE / "samples", name)

    @app.get("/healthz")
    def health() -> Response:
        return jsonify(status="ok")

    @app.get("/model")
    def model() -> Response:
        limits = {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "formats": FORMATS}
        return jsonify(
            models=[classifier.about() for classifier in classifiers], samples=samples, limits=limits
        )

    @app.post("/predict")
    def predict() -> Response:
        picture = decode(_uploaded(), [classifier.description for classifier in classifiers])
        invert, seen = (request.args.get(option) == "1" for option in ("invert", "seen"))
        answers = {classifier.name: classifier.classify(picture, invert=invert) for classifier in classifiers}
        return jsonify(models=[_as_json(name, answer, seen) for name, answer in answers.items()])

    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Refused, lambda refused: _error(refused.status, str(refused)))
    app.after_request(_add_headers)
    return app


def _uploaded() -> bytes:
    """The one uploaded file. Reading the form checks the size of the request first."""
    if request.mimetype != "multipart/form-data":
        raise Refused(415, f"send a form (multipart/form-data) with the picture as the file {FIELD!r}")
    names = [name for name, _ in request.files.items(multi=True)]
    if names != [FIELD] or request.form:
        found = ", ".join(map(repr, [*names, *request.form])) or "nothing"
        raise Refused(400, f"send one file named {FIELD!r} and nothing else; the form holds {found[:200]}")
    content = request.files[FIELD].read()
    if not content:
        raise Refused(400, "the file is empty")
    return content


def _as_json(name: str, answer: Any, seen: bool) -> dict[str, Any]:
    predictions = [{"label": label, "probability": probability} for label, probability in answer.predictions]
    shown = {"seen": answer.seen_as_address()} if seen else {}
    return {"name": name, "milliseconds": round(answer.milliseconds, 3), "predictions": predictions, **shown}


def _samples(classifiers: Sequence[Classifier]) -> list[dict[str, str]]:
    """The sample pictures, if every model knows exactly their classes."""
    samples = json.loads((_HERE / "samples" / "samples.json").read_text(encoding="utf-8"))
    fit = all(list(classifier.description.classes) == samples["classes"] for classifier in classifiers)
    return samples["pictures"] if fit else []


def _http_error(error: HTTPException) -> Response:
    """The errors of the framework: unknown address or method, a request too large, a defect of the server."""
    if error.code is None or error.code < 400:
        return error.get_response()
    reasons = {
        404: "there is nothing at this address",
        405: f"this address does not take {request.method} requests",
        413: f"the request is too large; at most {MAX_BYTES // 2**20} MiB in {MAX_PARTS} parts are taken",
        500: "the server made a mistake; its log says more",
    }
    response = _error(error.code, reasons.get(error.code, error.description or error.name))
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _error(status: int, reason: str) -> Response:
    response = jsonify(error=reason)
    response.status_code = status
    if status == 429:
        response.headers["Retry-After"] = "1"
    return response


def _add_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response
