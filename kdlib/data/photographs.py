"""Sets of photographs that torchvision knows, by name: which files there are, and what they show.

torchvision fetches the archives and reads the lists inside them; the images become pixels as those of
`kdlib.data.folders` do. A set without a test split of its own gets one (a stratified fifth, said in `.notes`); where
all that it holds out is called its validation split, as in Imagenette, that is the test split. A set whose download
torchvision no longer offers (Stanford Cars, SUN397) is not here: give such files as `folder:PATH`.
"""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdlib.data import sources
from kdlib.data.image_files import ImageFiles


@dataclass(frozen=True)
class _Set:
    """How torchvision keeps a set.

    Args:
        reader: the name of its class in `torchvision.datasets`.
        folder: where its files lie, below the root.
        splits: our name of a split -> torchvision's; None where its class knows no splits.
        options: what else the class is given.
    """

    reader: str
    folder: str
    splits: dict[str, str | None]
    options: dict[str, Any] = field(default_factory=dict)


_THREE = {"train": "train", "validation": "val", "test": "test"}
_TWO = {"train": "train", "test": "test"}
_HELD_OUT = {"train": "train", "test": "val"}
_ONE = {"train": None}
_SETS = {
    "caltech101": _Set("Caltech101", "caltech101", _ONE),  # Fei-Fei, Fergus & Perona 2004
    "caltech256": _Set("Caltech256", "caltech256", _ONE),  # Griffin, Holub & Perona 2007
    "country211": _Set("Country211", "country211", _THREE | {"validation": "valid"}),  # Radford et al. 2021
    "dtd": _Set("DTD", "dtd", _THREE),  # textures, the first of ten partitions; Cimpoi et al. 2014
    "eurosat": _Set("EuroSAT", "eurosat", _ONE),  # Helber et al. 2019, the version in colour
    "fgvc-aircraft": _Set("FGVCAircraft", "fgvc-aircraft-2013b", _THREE),  # variants; Maji et al. 2013
    "flowers102": _Set("Flowers102", "flowers-102", _THREE),  # Nilsback & Zisserman 2008
    "food101": _Set("Food101", "food-101", _TWO),  # Bossard, Guillaumin & Van Gool 2014
    "gtsrb": _Set("GTSRB", "gtsrb", _TWO),  # traffic signs; Stallkamp et al. 2012
    "imagenette": _Set("Imagenette", "imagenette2", _HELD_OUT),  # ten classes of ImageNet; Howard 2019
    "imagenette-160px": _Set("Imagenette", "imagenette2-160", _HELD_OUT, {"size": "160px"}),
    "imagenette-320px": _Set("Imagenette", "imagenette2-320", _HELD_OUT, {"size": "320px"}),
    "oxford-iiit-pet": _Set(  # Parkhi et al. 2012
        "OxfordIIITPet", "oxford-iiit-pet", {"train": "trainval", "test": "test"}
    ),
    "rendered-sst2": _Set("RenderedSST2", "rendered-sst2", _THREE),  # sentences as images; Radford et al. 2021
}  # fmt: skip
NAMES: tuple[str, ...] = tuple(_SETS)


def find(name: str, root: Path | None) -> ImageFiles:
    """The files of a set of photographs; none is opened but the lists.

    Images of GTSRB that were taken one after another of the same sign stay together when validation images are cut.

    Args:
        name: one of `NAMES`.
        root: the folder in which the set's own folder lies, as torchvision unpacks it; it is only read. None means
            the user's cache folder, to which the set is downloaded where it is not there.

    Raises:
        FileNotFoundError: the files are not there, or not all of them; the message says which and where.
        ConnectionError: the download failed.
        ValueError: the lists in the set cannot be understood.
    """
    kept = _SETS[name]
    wanted = f"the unpacked folder {kept.folder}"
    folder = sources.cache_for(kept.reader, wanted) if root is None else root
    if root is None and not os.path.isdir(folder / kept.folder):
        sources.download(kept.reader, folder, wanted, lambda: _fetch(kept, folder))
    remedy = (
        f"delete {folder / kept.folder} to have it downloaded anew" if root is None
        else f"put {wanted} there, or leave root out to have it downloaded"
    )  # fmt: skip
    if not os.path.isdir(folder / kept.folder):
        raise FileNotFoundError(f"no {kept.reader} files in root={str(folder)!r}: {remedy}")
    try:
        files = _files(name, dict(_parts(kept, folder)))
    except (RuntimeError, OSError) as error:  # torchvision says so of what is missing or has another checksum
        raise FileNotFoundError(
            f"the {kept.reader} files in {folder} are not complete ({' '.join(str(error).split())}): {remedy}"
        ) from error
    except Exception as error:  # a damaged list may make a parser stumble over anything
        raise ValueError(
            f"the lists of the {kept.reader} files in {folder / kept.folder} are damaged "
            f"({type(error).__name__}: {error}): {remedy}"
        ) from error
    return files.with_test()


def _parts(kept: _Set, folder: Path, **options: bool) -> Iterable[tuple[str, Any]]:
    """torchvision's reader of each split."""
    from torchvision import datasets

    for split, theirs in kept.splits.items():
        chosen = {} if theirs is None else {"split": theirs}
        yield split, getattr(datasets, kept.reader)(folder, **chosen, **kept.options, **options)


def _fetch(kept: _Set, folder: Path) -> None:
    """Download and unpack a set; its folder appears whole or not at all, because torchvision asks for no more."""
    with tempfile.TemporaryDirectory(prefix=f".{kept.folder}-", dir=folder) as place:
        for _ in _parts(kept, Path(place), download=True):
            pass
        try:
            os.rename(Path(place, kept.folder), folder / kept.folder)
        except OSError:
            if not os.path.isdir(folder / kept.folder):  # otherwise another process was faster
                raise


def _files(name: str, parts: dict[str, Any]) -> ImageFiles:
    paths, labels, splits, indices = [], [], [], []
    for split, part in parts.items():
        found_paths, found_labels = _listed(part)
        if not found_labels:
            raise ValueError(f"there is no image for {split}")
        paths += map(str, found_paths)
        labels += found_labels
        splits += [split] * len(found_labels)
        indices += range(len(found_labels))
    for path in paths:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"there is no file {path}")
    classes = _classes(parts, max(labels))
    groups = _series(paths) if name == "gtsrb" else None
    return ImageFiles(
        paths, np.array(labels, dtype=np.int64), np.array(splits), np.array(indices), classes, groups
    )


def _listed(part: Any) -> tuple[Sequence[str | Path], list[int]]:
    """Files and labels. Few classes of torchvision offer them by a public name."""
    for name in ("samples", "_samples"):
        if hasattr(part, name):
            paths, labels = zip(*getattr(part, name), strict=True)
            return paths, list(labels)
    for name in ("_image_files", "_images"):
        if hasattr(part, name):
            return getattr(part, name), list(part._labels)
    return [_file_of_caltech(part, *of_image) for of_image in zip(part.y, part.index, strict=True)], list(
        part.y
    )


def _file_of_caltech(part: Any, label: int, index: int) -> Path:
    """Caltech's images are numbered in their class, and in Caltech 256 that is numbered too."""
    numbered = type(part).__name__ == "Caltech256"
    name = f"{label + 1:03d}_{index:04d}.jpg" if numbered else f"image_{index:04d}.jpg"
    return Path(part.root, f"{256 if numbered else 101}_ObjectCategories", part.categories[label], name)


def _classes(parts: dict[str, Any], highest: int) -> list[str]:
    """The names as torchvision gives them, of several the first; numbers where it gives none.

    Raises:
        ValueError: the splits have not the same classes.
    """
    names = {split: _names(part) for split, part in parts.items()}
    classes = names["train"] or [str(number) for number in range(highest + 1)]
    for split, others in names.items():
        if others and others != classes:
            raise ValueError(f"train has the classes {classes}, {split} has {others}")
    if highest >= len(classes):
        raise ValueError(f"there are {len(classes)} classes, but labels up to {highest}")
    return classes


def _names(part: Any) -> list[str]:
    given = getattr(part, "classes", getattr(part, "categories", []))
    return [name if isinstance(name, str) else name[0] for name in given]


def _series(paths: Sequence[str]) -> np.ndarray:
    """A number for each series of photographs of one sign: in .../00007/00003_00029.ppm it is the third of class 7."""
    names = [os.path.join(os.path.dirname(path), os.path.basename(path).partition("_")[0]) for path in paths]
    return np.unique(names, return_inverse=True)[1]
