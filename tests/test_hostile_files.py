"""Odd and hostile image files: each is read, or refused by a sentence that names it; nothing else happens."""

import resource
import warnings

import hostile
import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from kdlib import data
from kdlib.data import folders, pixels

SIZE = 16
MEGABYTES = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files as a class among others, and what `read` says of each: None, or why not."""
    root = tmp_path_factory.mktemp("hostile")
    files = hostile.fill(root / "train" / "odd")
    for split in ("train", "test"):
        for name in ("odd", "plain"):
            for number in range(4):
                path = root / split / name / f"~{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.roll(hostile.PIXELS, number, axis=1)).save(path)
    return root, files


@pytest.fixture(scope="module")
def refused(folder):
    """Path -> the sentence, of those that cannot be read."""
    return {path: found for path in folder[1].expected if isinstance(found := answer(path), str)}


def answer(path, size=SIZE):
    """The pixels, or what is said; where warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return pixels.read(path, size)
        except ValueError as error:
            return str(error)


@pytest.mark.parametrize("size", [SIZE, None])
def test_each_is_read_or_refused_by_a_sentence_that_names_it(size, folder, monkeypatch):
    unpacked, load = [], ImageFile.ImageFile.load

    def counted(image):
        unpacked.append(image.size[0] * image.size[1])
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    expected, wrong = folder[1].expected, []
    assert len(expected) > 500
    before = peak()
    for path in expected:
        try:
            found = answer(path, size)
        except BaseException as error:  # whatever it is, the other files are looked at too
            found = error
        if not is_right(found, expected[path], path, size):
            wrong.append((path, found))
    assert wrong == []
    assert peak() - before < MEGABYTES or size is None
    assert 0 < max(unpacked) <= pixels._MOST_PIXELS


def peak():
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def is_right(found, expected, path, size):
    if isinstance(found, str):
        return expected != hostile.READ and path in found and len(found.replace(path, "")) < 500
    if expected == hostile.REFUSED or not isinstance(found, pixels.Pixels):
        return False
    shape = found.values.shape
    square = size is None or shape[:2] == (size, size)
    return square and found.values.dtype == np.uint8 and shape[2:] in ((), (3,)) and found.values.size > 0


def test_broken_ones_are_left_out_and_listed(folder, refused):
    root, files = folder
    hostile.left_out(root / "train" / "odd")
    dataset = loaded(data.load, folder)
    assert dataset.skipped == refused
    rows = sorted(dataset.train.indices.tolist() + dataset.validation.indices.tolist())
    assert rows == sorted(set(rows)) and len(rows) == len(files.expected) - len(refused) + 8
    assert 150 < len(refused) < len(files.expected) - 150
    by_index = dict(zip(dataset.train.indices.tolist(), dataset.train.images, strict=True))
    paths = folders.find(root).paths
    for index, image in by_index.items():
        assert (image.numpy() == three(pixels.read(paths[index], SIZE).values)).all(), paths[index]


def three(values):
    return np.stack([values] * 3) if values.ndim == 2 else values.transpose(2, 0, 1)


def loaded(of, folder):
    """The set without its broken files, and no other warning than the one that says so."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        dataset = of(f"folder:{folder[0]}", image_size=SIZE, skip_broken=True)
    said = [str(one.message) for one in warned]
    assert len(said) == 1 and said[0].startswith(f"{len(dataset.skipped)} broken files were left out"), said
    return dataset


def test_a_stream_holds_the_same_and_leaves_the_same_out(folder, own_cache):
    here, there = loaded(data.load, folder), loaded(data.stream, folder)
    assert here.skipped == there.skipped
    for split in ("train", "validation", "test"):
        one, other = getattr(here, split), getattr(there, split)
        assert (one.images == other.images[:]).all() and (one.labels == other.labels).all()
        assert (one.indices == other.indices).all()
        assert torch.allclose(here.mean, there.mean) and torch.allclose(here.std, there.std)


def test_the_first_broken_one_is_named_by_load_and_by_stream_alike(folder, refused, own_cache):
    first = next(path for path in folders.find(folder[0]).paths if path in refused)
    for of in (data.load, data.stream):
        with pytest.raises(ValueError) as error:
            of(f"folder:{folder[0]}", image_size=SIZE)
        assert str(error.value) == refused[first]


def test_warnings_are_as_they_were_after_many_threads_have_read(folder):
    """What a reader shows and what another hides must not be mixed up."""
    from concurrent.futures import ThreadPoolExecutor

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(answer_in_a_thread, folder[1].expected))
        assert warnings.filters == before
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(folder[1].path / "just too many.png")


def answer_in_a_thread(path):
    try:
        return pixels.read(path, SIZE)
    except ValueError as error:
        return str(error)


def test_a_postscript_file_starts_no_other_program(folder, monkeypatch):
    """Pillow hands such files to Ghostscript, by their content and whatever their name is."""
    from PIL import EpsImagePlugin

    def started(*arguments, **options):
        raise AssertionError("Ghostscript was asked")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", started)
    assert "cannot identify image file" in answer(str(folder[1].path / "script.jpg"))


def test_a_folder_with_the_name_of_an_image_is_a_folder(tmp_path):
    for number in range(3):
        for name in ("one", "two"):
            path = tmp_path / name / "x.jpg" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(hostile.PIXELS).save(path)
    assert len(folders.find(tmp_path).paths) == 6
    assert (
        answer(str(tmp_path / "one" / "x.jpg"))
        == f"{tmp_path}/one/x.jpg has the name of an image but is no file: delete it"
    )


def test_links_that_lead_nowhere_are_refused_where_they_may_be_a_class(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "dog").symlink_to("gone")
    with pytest.raises(ValueError, match="the link .*dog leads nowhere: mend or delete it"):
        data.load(f"folder:{tmp_path}", skip_broken=True)


def test_what_one_broken_file_does_to_a_small_set(tmp_path):
    """The only images of a class: the class is named, and not lost in silence."""
    for name in ("one", "two"):
        for split, number in (("train", 2), ("test", 1)):
            for row in range(number):
                path = tmp_path / split / name / f"{row}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(hostile.PIXELS).save(path)
    for row in range(2):
        (tmp_path / "train" / "two" / f"{row}.png").write_bytes(b"broken")
    for of in (data.load, data.stream):
        with pytest.raises(
            ValueError, match=r"of the classes \['two'\] no image for train is left, because 2 files"
        ):
            of(f"folder:{tmp_path}", skip_broken=True)
