"""The messy folder: what is said of its files is true of them, and the same seed makes the same files."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from kdlib import data
from kdlib.data import messy, pixels
from kdlib.data.messy import messy_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return messy_folder(tmp_path_factory.mktemp("messy") / "garments", images=240, seed=3)


def files_of(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def digest(folder):
    sha256 = hashlib.sha256()
    for file in files_of(folder):
        sha256.update(file.encode() + (folder / file).read_bytes())
    return sha256.hexdigest()


def test_the_same_seed_makes_the_same_files_byte_for_byte_and_another_seed_others(tmp_path):
    first, again, other = (
        messy_folder(tmp_path / name, images=100, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert digest(first.path) == digest(again.path) != digest(other.path)
    assert first.wrong == again.wrong and first.twins == again.twins and first.odd == again.odd


def test_each_class_has_a_folder_and_the_first_class_the_most_files(made):
    folders = sorted(entry.name for entry in made.path.iterdir())
    assert folders == sorted(name.lower().replace(" ", "-") for name in messy.CLASSES)
    assert len(files_of(made.path)) == 240
    own = [file.split("/")[0] for file in files_of(made.path)]
    counts = [own.count(name.lower().replace(" ", "-")) for name in messy.CLASSES]
    assert counts[0] > 2 * counts[-1] and min(counts) >= 10


def test_only_the_files_that_are_said_to_be_broken_cannot_be_read(made):
    unreadable = set()
    for file in files_of(made.path):
        try:
            pixels.read(made.path / file)
        except ValueError:
            unreadable.add(file)
    assert unreadable == set(made.broken)
    assert set(made.broken.values()) == set(messy.BROKEN_KINDS)


def test_photographs_have_many_sizes_and_shapes(made):
    shapes = [Image.open(made.path / file).size for file in files_of(made.path) if file not in made.broken]
    shorter = [min(shape) for shape in shapes]
    assert len(set(shapes)) > 150 and max(shorter) > 2 * min(shorter)
    assert any(width > 1.5 * height for width, height in shapes) and any(
        height > 1.5 * width for width, height in shapes
    )


def test_odd_files_are_stored_as_it_is_said(made):
    modes = {
        "grey": "L",
        "palette": "P",
        "alpha": "RGBA",
        "cmyk": "CMYK",
        "deep": "I;16",
        "progressive": "RGB",
    }
    assert set(made.odd.values()) == set(modes)
    for file, kind in made.odd.items():
        with Image.open(made.path / file) as image:
            assert image.mode == modes[kind], (file, kind)
            assert bool(image.info.get("progressive")) == (kind == "progressive")


def test_turned_files_carry_a_note_and_no_others_do(made):
    noted = {
        file for file in files_of(made.path)
        if file not in made.broken and Image.open(made.path / file).getexif().get(274, 1) != 1
    }  # fmt: skip
    assert noted == set(made.turned) and len(noted) >= 20


def test_turning_is_undone_by_the_note(tmp_path, monkeypatch):
    """Of two folders that differ in the note alone, the photographs are the same up to what JPEG loses."""
    turned = messy_folder(tmp_path / "turned", images=100, seed=1)
    monkeypatch.setattr(messy, "_TURNED_BACK", dict.fromkeys(messy._TURNED_BACK, Image.Transpose.ROTATE_180))
    with_another = messy_folder(tmp_path / "upside down", images=100, seed=1)
    upright = [file for file in turned.turned if Image.open(turned.path / file).getexif()[274] == 3]
    others = [file for file in turned.turned if file not in upright]
    assert upright and others
    for file in upright:
        assert (turned.path / file).read_bytes() == (with_another.path / file).read_bytes()
    for file in others:
        mine, his = (pixels.read(one.path / file).values for one in (turned, with_another))
        assert mine.shape == his.shape[1::-1] + his.shape[2:]


def test_twins_show_one_photograph_and_some_of_them_lie_in_two_classes(made):
    for one, other in made.twins:
        small = [
            np.asarray(
                Image.fromarray(pixels.read(made.path / file).values).resize((16, 16)), dtype=float
            ).mean(axis=2)
            for file in (one, other)
        ]
        assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.97, (one, other)
    same = [(made.path / one).read_bytes() == (made.path / other).read_bytes() for one, other in made.twins]
    assert 0 < sum(same) < len(same)
    assert sum(one.split("/")[0] != other.split("/")[0] for one, other in made.twins) >= 1


def test_wrong_files_lie_in_another_folder_than_that_of_their_class(made):
    assert 3 <= len(made.wrong) <= 15
    for file, truth in made.wrong.items():
        assert file.split("/")[0] != truth and (made.path / truth).is_dir()
    assert not set(made.wrong) & (set(made.broken) | set(made.odd) | set(made.turned))


def test_nothing_in_the_folder_tells_what_was_done(made):
    assert {file.rsplit(".", 1)[1] for file in files_of(made.path)} <= {"jpg", "png"}
    for file in files_of(made.path):
        name = file.split("/")[1].lower()
        assert not any(word in name for word in ("wrong", "copy", "twin", "broken", *messy.ODD_KINDS))


def test_held_out_garments_are_those_of_the_test_split(tmp_path, monkeypatch):
    dataset, seen = data.load("fashion-mnist"), []
    photograph = messy._photograph
    monkeypatch.setattr(
        messy, "_photograph", lambda garment, random: seen.append(garment) or photograph(garment, random)
    )
    for held_out, split in ((False, dataset.train), (True, dataset.test)):
        seen.clear()
        messy_folder(tmp_path / str(held_out), images=60, classes=("Bag", "Coat"), held_out=held_out)
        own = {image.tobytes() for image in split.images[:, 0].numpy()}
        assert len(seen) == 60 and all(garment.tobytes() in own for garment in seen)


def test_what_is_not_allowed_is_refused_in_words(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for given, error, words in (
        ({"path": tmp_path / "full"}, ValueError, "give a folder that is empty"),
        ({"path": 3}, TypeError, "must be the path of a folder"),
        ({"classes": ("Bag", "Hat")}, ValueError, "'Hat' is none; there are T-shirt/top"),
        ({"classes": ("Bag",)}, ValueError, "two classes"),
        ({"classes": ("Bag", "Bag", "Coat")}, ValueError, "names a class twice"),
        ({"images": 40}, ValueError, "at least 100"),
        ({"images": 100_000}, ValueError, "at most"),
        ({"seed": -1}, ValueError, "seed"),
    ):
        with pytest.raises(error, match=words):
            messy_folder(**{"path": tmp_path / "new", **given})
    assert (tmp_path / "full" / "file").read_text() == "mine"
