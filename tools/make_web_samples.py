"""Make the sample pictures that `kdlib serve` offers: the first test image of each class of Fashion-MNIST.

    python tools/make_web_samples.py

Writes kdlib/deploy/webapp/samples/: the images as PNG and samples.json. The same data give the same files.
"""

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from kdlib import data  # noqa: E402

SAMPLES = ROOT / "kdlib" / "deploy" / "webapp" / "samples"


def main() -> None:
    dataset = data.load("fashion-mnist")
    pictures = []
    for label, name in enumerate(dataset.classes):
        position = int((dataset.test.labels == label).nonzero()[0])
        file = f"fashion-mnist-test-{int(dataset.test.indices[position]):04}.png"
        Image.fromarray(dataset.test.images[position, 0].numpy()).save(SAMPLES / file, optimize=True)
        pictures.append({"file": file, "label": name})
    description = {
        "source": "Fashion-MNIST, test set; the number in a file's name is the image's row",
        "licence": "MIT, Copyright (c) 2017 Zalando SE, see LICENSE",
        "classes": dataset.classes,
        "pictures": pictures,
    }
    (SAMPLES / "samples.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    shutil.copy(ROOT / "kdlib" / "assets" / "data" / "LICENSE", SAMPLES)


if __name__ == "__main__":
    main()
