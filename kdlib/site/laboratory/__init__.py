"""A laboratory in the page: the networks that ship, asked by the reader's browser, without a server or a network.

The page works from a folder, such as one on a USB stick. There (file://) a browser refuses `fetch` of files, modules
and workers, so all that it needs comes by `<script src>`: onnxruntime's WebAssembly and the networks as gzip in
base64, unpacked by the browser. `tools/vendor_onnxruntime.py` fetched what lies in `vendored`.
"""

import base64
import gzip
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from kdlib import _files
from kdlib.deploy import runtime, shelf
from kdlib.deploy.description import Description
from kdlib.deploy.webapp.app import MAX_BYTES
from kdlib.deploy.webapp.images import FORMATS, MAX_PIXELS
from kdlib.lesson import browser, page
from kdlib.site.pages import COURSE

# In one script, because each uses what others define; of the lessons' scripts it takes what SHARED names.
SHARED_SCRIPTS = ("maths.js", "page.js")
SHARED = "softmax, logSoftmax, lossTerms, html, write, percent, slider, linearScale, logScale"
SCRIPTS = ("pixels.js", "picture.js", "networks.js", "easel.js", "results.js", "laboratory.js")
WASM = "ort-wasm-simd"
VENDORED = ("ort.wasm-core.min.js", "LICENSE", "ThirdPartyNotices.txt")
FIRST = {"teacher": "teacher", "student": "distilled", "sample": 6, "temperature": 4, "alpha": 0.5}
_HERE = files("kdlib.site.laboratory")
_SAMPLES = files("kdlib.deploy.webapp") / "samples"


def write(folder: Path) -> None:
    """Write the page, index.html, and all that it needs into the folder: about 8 MB.

    Args:
        folder: made where it is missing; files of the same names are replaced.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    vendored = _HERE / "vendored"
    for name in VENDORED:
        _files.write(folder / "runtime" / name, (vendored / name).read_bytes())
    wasm = (vendored / f"{WASM}.wasm.gz").read_bytes()
    _files.write(folder / "runtime" / f"{WASM}.js", _packed(WASM, wasm))
    for name in shelf.names():
        _files.write(folder / "networks" / f"{name}.js", _packed(name, _gzip(shelf.path(name).read_bytes())))
    _files.write(folder / "samples-LICENSE.txt", (_SAMPLES / "LICENSE").read_bytes())
    _files.write(folder / "laboratory.js", _script().encode())
    _files.write(folder / "index.html", _page().encode())


def _page() -> str:
    facts = json.dumps(_facts(), ensure_ascii=False)
    facts = facts.replace("<", r"\u003c")  # nothing in it may end the element that it stands in
    return page.shell(
        f"Laboratory – {COURSE}",
        _static("main.html"),
        bar=f'<a class="kd-home" href="../index.html">{COURSE}</a>',
        style=browser.stylesheet() + browser.script("page_widgets.css") + _static("laboratory.css"),
        end=f'<script id="facts" type="application/json">{facts}</script>\n<script src="laboratory.js"></script>',
    )


def _script() -> str:
    shared = re.sub(r"^export ", "", browser.script(*SHARED_SCRIPTS), flags=re.MULTILINE)
    own = "\n".join(map(_static, SCRIPTS))
    return (
        '"use strict";\n(() => {\n'
        f"const {{ {SHARED} }} = (() => {{\n{shared}\nreturn {{ {SHARED} }};\n}})();\n{own}}})();\n"
    )


def _facts() -> dict[str, Any]:
    """What the page knows of networks and samples."""
    descriptions = {name: _description(name) for name in shelf.names()}
    samples = json.loads((_SAMPLES / "samples.json").read_text(encoding="utf-8"))
    classes = samples["classes"]
    for name, described in descriptions.items():
        if list(described.classes) != classes or described.image_shape != (1, 28, 28):
            raise ValueError(
                f"the model {name} does not take what the laboratory's page draws: 28 x 28, {classes}"
            )
    return {
        "classes": classes,
        "networks": [_network(name, described) for name, described in descriptions.items()],
        "samples": [
            {
                "label": classes.index(picture["label"]),
                "png": base64.b64encode((_SAMPLES / picture["file"]).read_bytes()).decode(),
            }
            for picture in samples["pictures"]
        ],
        "limits": {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "formats": list(FORMATS)},
        "first": FIRST,
    }


def _description(name: str) -> Description:
    metadata = runtime.session(shelf.path(name).read_bytes()).get_modelmeta().custom_metadata_map
    return Description.from_metadata(metadata, f"{name}.onnx")


def _network(name: str, described: Description) -> dict[str, Any]:
    facts = shelf.manifest(name)
    return {
        "name": name,
        "mean": described.mean[0],
        "std": described.std[0],
        "range": list(described.value_range),
        **{key: facts[key] for key in ("parameters", "bytes", "test_accuracy")},
    }


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def _packed(name: str, zipped: bytes) -> bytes:
    """A script that hands a gzip'd file to the page."""
    return b'(window.packed ??= {})["%s"] = "%s";\n' % (name.encode(), base64.b64encode(zipped))


def _static(name: str) -> str:
    return (_HERE / "static" / name).read_text(encoding="utf-8")
