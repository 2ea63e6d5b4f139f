"""Make the Fashion-MNIST subset that ships with kdlib, from the original IDX files.

    python tools/make_fashion_mnist.py [--root FOLDER]

Writes kdlib/assets/data/fashion-mnist.npz (1,000 training images of each class and all test images, with
their row numbers in the original files) and its manifest fashion-mnist.json. The same IDX files give the same
bytes.
"""

import argparse
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from kdlib import _files
from kdlib.data import sources

IMAGES_PER_CLASS = 1_000
SEED = 0


def choose_rows(labels: np.ndarray) -> np.ndarray:
    """Sorted row numbers of IMAGES_PER_CLASS random images of each class."""
    random = np.random.default_rng(SEED)
    members = (np.flatnonzero(labels == label) for label in range(len(sources.FASHION_CLASSES)))
    return np.sort(np.concatenate([random.choice(rows, IMAGES_PER_CLASS, replace=False) for rows in members]))


def make_arrays(source: sources.Source) -> dict[str, np.ndarray]:
    rows = choose_rows(source.train.labels)
    train = sources.Images(*(part[rows] for part in source.train))
    return {
        f"{split}_{field}": part.astype(np.uint16 if field == "indices" else np.uint8)
        for split, images in (("train", train), ("test", source.test))
        for field, part in images._asdict().items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", type=Path, default=sources.DEBIAN_FASHION_MNIST, help="folder of the IDX files"
    )
    parser.add_argument("--out", type=Path, default=sources.EMBEDDED_FOLDER, help="folder to write to")
    arguments = parser.parse_args()

    arrays = make_arrays(sources.read_idx_folder("FashionMNIST", arguments.root, sources.FASHION_CLASSES))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    manifest = {
        "file": "fashion-mnist.npz",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "images": {"train": len(arrays["train_labels"]), "test": len(arrays["test_labels"])},
        "images_per_class": IMAGES_PER_CLASS,
        "seed": SEED,
        "source": "https://github.com/zalandoresearch/fashion-mnist",
        "licence": "MIT, Copyright (c) 2017 Zalando SE",
        "command": "python tools/make_fashion_mnist.py",
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    _files.write(arguments.out / "fashion-mnist.npz", content)
    _files.write(arguments.out / "fashion-mnist.json", (json.dumps(manifest, indent=2) + "\n").encode())
    print(f"{manifest['sha256']}  {arguments.out / 'fashion-mnist.npz'}  ({len(content):,} bytes)")


if __name__ == "__main__":
    main()
