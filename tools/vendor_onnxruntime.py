"""Fetch the onnxruntime that runs networks inside the laboratory's page.

    python tools/vendor_onnxruntime.py

Writes kdlib/site/laboratory/vendored/: the smallest of onnxruntime-web's builds (CPU, one thread, SIMD), its
WebAssembly gzip'd, and the licence with the notices of what is compiled into it. Downloads by npm and, for the
licence, which the npm package lacks, by pip; a file of another digest than below is refused.

Version 1.18.0 is the last one that can be loaded by a classic script without threads, which a page opened from a
folder (file://) needs: later ones import a module and share memory between threads.
"""

import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from kdlib import _files  # noqa: E402

FOLDER = ROOT / "kdlib" / "site" / "laboratory" / "vendored"
VERSION = "1.18.0"
SCRIPT, WASM = "ort.wasm-core.min.js", "ort-wasm-simd.wasm"
LICENCE, NOTICES = "LICENSE", "ThirdPartyNotices.txt"
DIGESTS = {  # sha256 of the files as they are in the packages
    SCRIPT: "9f26054b7e08ff6e04a4320232c846c7900a93ecd50ada560281b00bfc4d730c",
    WASM: "f533b5f21790563d7556c611c3835ac65848ee326da2689aac54ed7d9cc8c6a4",
    LICENCE: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
    NOTICES: "10fc98a2f4d478e981813d594e23d7e31b0430e66501a658c1ecab2a226a4b52",
}
WHEEL = ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]


def from_npm(scratch: Path) -> dict[str, bytes]:
    """The script and the WebAssembly."""
    subprocess.run(["npm", "pack", "--silent", f"onnxruntime-web@{VERSION}"], cwd=scratch, check=True)
    with tarfile.open(next(scratch.glob("*.tgz"))) as package:
        return {name: package.extractfile(f"package/dist/{name}").read() for name in (SCRIPT, WASM)}


def from_pypi(scratch: Path) -> dict[str, bytes]:
    """The licence and the notices of the same version."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", *WHEEL, f"onnxruntime=={VERSION}"]
    subprocess.run(command, cwd=scratch, check=True)
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        return {name: wheel.read(f"onnxruntime/{name}") for name in (LICENCE, NOTICES)}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        files = from_npm(Path(scratch)) | from_pypi(Path(scratch))
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != DIGESTS[name]:
            raise SystemExit(f"{name} of onnxruntime {VERSION} has sha256 {found}, expected {DIGESTS[name]}")
    # The comment names a file for debuggers that is not vendored; they would ask for it and complain.
    script = files.pop(SCRIPT).partition(b"//# sourceMappingURL=")[0]
    kept = {SCRIPT: script, f"{WASM}.gz": gzip.compress(files.pop(WASM), 9, mtime=0), **files}
    for name, content in kept.items():
        _files.write(FOLDER / name, content)
        print(f"{name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
