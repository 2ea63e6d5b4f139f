"""Sets of photographs by name, from small files in the layout in which torchvision unpacks them; no network."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision
from PIL import Image

from kdlib import data
from kdlib.data import photographs, sources

pytestmark = pytest.mark.filterwarnings("ignore:there is no test split")
HELD_OUT = {"train": "train", "val": "test"}
THREE = {"train": "train", "val": "validation", "test": "test"}


class Made:
    """What a test has written: the class and split of each image, which is of a colour that no other has."""

    def __init__(self, root):
        self.root, self.images = Path(root), {}

    def photograph(self, path, label, split, *, size=(23, 17)):
        """An image of one colour, larger than what is asked for and not square."""
        number = len(self.images)
        colour = 40 + 24 * (number % 8), 40 + 24 * (number // 8 % 8), 40 + 24 * (number // 64)
        self.images[colour] = label, split
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path, **({"quality": 95} if path.suffix != ".ppm" else {}))
        return path

    def text(self, path, content):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(content)

    def folders(self, below, classes, splits, name="{:04d}.jpg", each=3):
        """An image folder: below/SPLIT/CLASS/NAME."""
        for folder, split in splits.items():
            for label, known in enumerate(classes):
                for number in range(1, each + 1):
                    self.photograph(Path(below, folder, known, name.format(number)), label, split)


def flowers102(made):
    """Ids in an order of their own, and labels that count from 1."""
    splits = {"trnid": [5, 1, 8, 3, 10, 11], "valid": [2, 7], "tstid": [9, 4, 6]}
    labels = [number % 2 + 1 for number in range(1, 12)]
    for key, ids in splits.items():
        split = {"trnid": "train", "valid": "validation", "tstid": "test"}[key]
        for number in ids:
            made.photograph(f"flowers-102/jpg/image_{number:05d}.jpg", labels[number - 1] - 1, split)
    scipy.io.savemat(made.root / "flowers-102/setid.mat", splits)
    scipy.io.savemat(made.root / "flowers-102/imagelabels.mat", {"labels": labels})
    return torchvision.datasets.Flowers102.classes


def oxford_iiit_pet(made):
    names = ["Abyssinian", "great_pyrenees"]
    for ours, theirs in (("train", "trainval"), ("test", "test")):
        lines = []
        for number in range(6):
            stem = f"{names[number % 2]}_{number + (100 if ours == 'test' else 1)}"
            made.photograph(f"oxford-iiit-pet/images/{stem}.jpg", number % 2, ours)
            lines.append(f"{stem} {number % 2 + 1} {number % 2 + 1} 1\n")
        made.text(f"oxford-iiit-pet/annotations/{theirs}.txt", "".join(lines))
    return ["Abyssinian", "Great Pyrenees"]


def eurosat(made):
    made.folders("eurosat/2750", ["Forest", "River"], {"": None}, "X_{}.jpg", each=5)
    return ["Forest", "River"]


def imagenette(made, below="imagenette2"):
    made.folders(below, ["n01440764", "n03425413"], HELD_OUT, "ILSVRC2012_{}.JPEG")
    return ["tench", "gas pump"]


def dtd(made):
    for split, ours in THREE.items():
        made.folders("dtd/dtd/images", ["banded", "woven"], {"": ours}, split + "_{}.jpg")
        names = [f"{name}/{split}_{number}.jpg\n" for number in (2, 1, 3) for name in ("woven", "banded")]
        made.text(f"dtd/dtd/labels/{split}1.txt", "".join(names))
    return ["banded", "woven"]


def food101(made):
    """The classes of a file are in any order; they are numbered by the alphabet."""
    for split in ("train", "test"):
        table = {name: [f"{name}/{split}{number}" for number in range(3)] for name in ("waffles", "baklava")}
        for name, stems in table.items():
            for stem in stems:
                made.photograph(f"food-101/images/{stem}.jpg", ["baklava", "waffles"].index(name), split)
        made.text(f"food-101/meta/{split}.json", json.dumps(table))
    return ["baklava", "waffles"]


def fgvc_aircraft(made):
    classes, number = ["DC-3", "Boeing 717"], 0
    made.text("fgvc-aircraft-2013b/data/variants.txt", "".join(f"{name}\n" for name in classes))
    for split, ours in THREE.items():
        lines = []
        for label in (1, 0, 0, 1):
            number += 1
            made.photograph(f"fgvc-aircraft-2013b/data/images/{number:07d}.jpg", label, ours)
            lines.append(f"{number:07d} {classes[label]}\n")
        made.text(f"fgvc-aircraft-2013b/data/images_variant_{split}.txt", "".join(lines))
    return classes


def gtsrb(made):
    """Three signs of each class, four photographs of each sign."""
    for label in range(2):
        for series in range(3):
            for shot in range(4):
                stem = f"gtsrb/GTSRB/Training/{label:05d}/{series:05d}_{shot:05d}"
                made.photograph(f"{stem}.ppm", label, "train")
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for number, label in enumerate([1, 0, 1]):
        made.photograph(f"gtsrb/GTSRB/Final_Test/Images/{number:05d}.ppm", label, "test")
        lines.append(f"{number:05d}.ppm;23;17;1;1;20;15;{label}")
    made.text("gtsrb/GT-final_test.csv", "\n".join(lines))
    return ["0", "1"]


def caltech101(made):
    made.folders(
        "caltech101/101_ObjectCategories", ["accordion", "yin_yang"], {"": None}, "image_{:04d}.jpg", 5
    )
    (made.root / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir()  # no class, says torchvision
    return ["accordion", "yin_yang"]


def caltech256(made):
    for label, name in enumerate(["001.ak47", "002.yo-yo"]):
        for number in range(1, 6):
            stem = f"caltech256/256_ObjectCategories/{name}/{label + 1:03d}_{number:04d}"
            made.photograph(f"{stem}.jpg", label, None)
    made.text("caltech256/256_ObjectCategories/002.yo-yo/RENAME2", "")  # such files are in the archive
    return ["001.ak47", "002.yo-yo"]


def country211(made):
    splits = {"train": "train", "valid": "validation", "test": "test"}
    made.folders("country211", ["AD", "ZW"], splits)
    return ["AD", "ZW"]


def rendered_sst2(made):
    splits = {"train": "train", "valid": "validation", "test": "test"}
    made.folders("rendered-sst2", ["negative", "positive"], splits, "{}.png")
    return ["negative", "positive"]


SETS = {
    "caltech101": caltech101, "caltech256": caltech256, "country211": country211, "dtd": dtd, "eurosat": eurosat,
    "fgvc-aircraft": fgvc_aircraft, "flowers102": flowers102, "food101": food101, "gtsrb": gtsrb,
    "imagenette": imagenette, "imagenette-160px": lambda made: imagenette(made, "imagenette2-160"),
    "imagenette-320px": lambda made: imagenette(made, "imagenette2-320"), "oxford-iiit-pet": oxford_iiit_pet,
    "rendered-sst2": rendered_sst2,
}  # fmt: skip
WITHOUT_A_TEST_SPLIT = {"caltech101", "caltech256", "eurosat"}


@pytest.fixture(autouse=True)
def as_downloaded(monkeypatch):
    """torchvision compares the checksums of a few files, which small ones cannot have."""
    monkeypatch.setattr(
        torchvision.datasets.flowers102, "check_integrity", lambda path, md5: os.path.isfile(path)
    )


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "datasets"
    monkeypatch.setattr(sources, "downloads_folder", lambda: folder)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def seen(dataset):
    """The colour of each image, with its label and the split it came out in."""
    for split in ("train", "validation", "test"):
        part = getattr(dataset, split)
        assert part.images.shape[1:] == (3, 16, 16)
        for image, label in zip(part.images, part.labels.tolist(), strict=True):
            yield tuple(image.float().mean(dim=(1, 2)).tolist()), label, split


def nearest(colour, colours):
    """JPEG changes a colour by a little; those that were written are far apart."""
    found = min(colours, key=lambda one: np.abs(np.subtract(one, colour)).max())
    assert np.abs(np.subtract(found, colour)).max() <= 6, (found, colour)
    return found


def test_every_set_is_tried():
    assert set(SETS) == set(photographs.NAMES)


@pytest.mark.parametrize("name", SETS)
def test_labels_and_splits_are_those_that_were_written(name, tmp_path, no_network):
    made = Made(tmp_path)
    classes = SETS[name](made)
    before = sorted(tmp_path.rglob("*"))
    dataset = data.load(name, root=tmp_path, image_size=16)
    assert dataset.classes == classes
    found = {}
    for colour, label, split in seen(dataset):
        written = nearest(colour, made.images)
        assert written not in found, "twice"
        found[written] = label, split
    assert found.keys() == made.images.keys()
    has_validation = "validation" in {split for _, split in made.images.values()}
    for colour, (label, split) in made.images.items():
        allowed = {split} if split and (has_validation or split == "test") else {"train", "validation"}
        if split is None:
            allowed |= {"test"}
        assert found[colour][0] == label and found[colour][1] in allowed, (colour, found[colour])
    assert min(map(len, (dataset.train, dataset.validation, dataset.test))) > 0
    assert bool(dataset.notes) is (name in WITHOUT_A_TEST_SPLIT)
    assert sorted(tmp_path.rglob("*")) == before  # root is only read


def test_a_stream_holds_the_same(tmp_path, own_cache):
    flowers102(Made(tmp_path))
    loaded, streamed = (of("flowers102", root=tmp_path, image_size=16) for of in (data.load, data.stream))
    for split in ("train", "validation", "test"):
        one, other = getattr(loaded, split), getattr(streamed, split)
        assert (one.images == other.images[:]).all() and (one.labels == other.labels).all()


def test_photographs_of_one_sign_are_not_parted(tmp_path):
    """They follow one another by a twentieth of a second: in both splits they would make a validation meaningless."""
    made = Made(tmp_path)
    gtsrb(made)
    sides = {}
    for seed in range(8):
        dataset = data.load("gtsrb", root=tmp_path, image_size=16, seed=seed)
        files = photographs.find("gtsrb", tmp_path)
        paths = [path for path, split in zip(files.paths, files.splits, strict=True) if split == "train"]
        for split in ("train", "validation"):
            for index in getattr(dataset, split).indices.tolist():
                path = Path(paths[index])
                sides.setdefault((seed, path.parent.name, path.name[:5]), set()).add(split)
    assert len(sides) == 8 * 6 and all(len(found) == 1 for found in sides.values())


class TestWhatIsNotThere:
    @pytest.mark.parametrize("name", SETS)
    def test_a_root_without_the_set_is_told_what_belongs_there(self, name, tmp_path, no_network):
        wanted = photographs._SETS[name].folder
        with pytest.raises(
            FileNotFoundError, match=rf"no \w+ files in root=.*the unpacked folder {wanted} there"
        ):
            data.load(name, root=tmp_path, image_size=16)
        (tmp_path / wanted).mkdir()
        with pytest.raises(
            FileNotFoundError, match=rf"files in .* are not complete \(.*put .*{wanted} there, or"
        ):
            data.load(name, root=tmp_path, image_size=16)
        assert not os.listdir(tmp_path / wanted)

    @pytest.mark.parametrize("name", SETS)
    def test_without_a_network_the_error_says_what_to_put_where(self, name, empty_cache, no_network):
        wanted = photographs._SETS[name].folder
        message = (
            rf"is not in {re.escape(str(empty_cache))} and could not be .*no network.*folder {wanted} there"
        )
        with pytest.raises(ConnectionError, match=message):
            data.load(name, image_size=16)
        assert not os.listdir(empty_cache)  # no half of a set that would be taken for the whole of it

    def test_a_user_without_a_home_folder_is_told_what_to_set(self, monkeypatch, no_network):
        monkeypatch.setattr(sources, "downloads_folder", lambda: None)
        with pytest.raises(FileNotFoundError, match=r"no home folder.*folder dtd into.*XDG_CACHE_HOME"):
            data.load("dtd", image_size=16)

    def test_an_image_that_a_list_names_is_missing(self, tmp_path):
        food101(Made(tmp_path))
        path = tmp_path / "food-101/images/waffles/test1.jpg"
        path.unlink()
        path.mkdir()
        with pytest.raises(FileNotFoundError, match=rf"Food101 .*not complete \(there is no file {path}\)"):
            data.load("food101", root=tmp_path, image_size=16)

    def test_a_checksum_that_differs(self, tmp_path, monkeypatch):
        flowers102(Made(tmp_path))
        monkeypatch.undo()
        with pytest.raises(FileNotFoundError, match=r"Flowers102 .*not complete \(.*corrupted"):
            data.load("flowers102", root=tmp_path, image_size=16)

    def test_an_incomplete_set_in_the_cache_is_to_be_deleted(self, empty_cache, no_network):
        food101(Made(empty_cache))
        (empty_cache / "food-101/meta/test.json").unlink()
        with pytest.raises(
            FileNotFoundError, match=r"not complete .*test\.json.*delete .*food-101 to have it"
        ):
            data.load("food101", image_size=16)


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "path", "content"),
        [
            ("food101", "food-101/meta/test.json", "{"),
            ("food101", "food-101/meta/test.json", '{"baklava": ["baklava/test0"]}'),
            ("dtd", "dtd/dtd/labels/val1.txt", "banded\n"),
            ("dtd", "dtd/dtd/labels/val1.txt", "woven/val_1.jpg\n"),
            ("oxford-iiit-pet", "oxford-iiit-pet/annotations/test.txt", "Abyssinian_100 one 1 1\n"),
            ("oxford-iiit-pet", "oxford-iiit-pet/annotations/test.txt", ""),
            ("fgvc-aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", "0000005 Concorde\n"),
            ("gtsrb", "gtsrb/GT-final_test.csv", "Filename,ClassId\n00000.ppm,1\n"),
            ("gtsrb", "gtsrb/GT-final_test.csv", "\xff\xfe"),
            ("flowers102", "flowers-102/setid.mat", "<html>"),
        ],
    )
    def test_a_list_that_cannot_be_understood_is_named(self, name, path, content, tmp_path):
        SETS[name](Made(tmp_path))
        (tmp_path / path).write_bytes(content.encode("latin-1"))
        with pytest.raises(
            ValueError, match=r"the lists of the \w+ files in .* are damaged \(.*put the unpacked"
        ):
            data.load(name, root=tmp_path, image_size=16)

    def test_broken_photographs_are_named_or_left_out_and_listed(self, tmp_path):
        made = Made(tmp_path)
        country211(made)
        path = tmp_path / "country211/train/ZW/0002.jpg"
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(ValueError, match=rf"cannot read the image {path}"):
            data.load("country211", root=tmp_path, image_size=16)
        with pytest.warns(UserWarning, match="1 broken files were left out"):
            dataset = data.load("country211", root=tmp_path, image_size=16, skip_broken=True)
        assert list(dataset.skipped) == [str(path)] and len(dataset.train) == 5


class TestDownloads:
    @pytest.fixture
    def archives(self, monkeypatch, tmp_path):
        """A network that has two sets, the second half of GTSRB only once it is asked for again."""
        asked = []

        def deliver(url, download_root, md5=None, **options):
            asked.append(url)
            made = Made(Path(download_root).parent)
            if "GTSRB" not in url:
                food101(Made(download_root))
            elif "Training" in url:
                gtsrb(made)
                shutil.rmtree(made.root / "gtsrb/GTSRB/Final_Test")
                (made.root / "gtsrb/GT-final_test.csv").unlink()
            elif "Images" in url and len(asked) < 3:
                raise RuntimeError("File not found or corrupted.")
            elif "Images" in url:
                training = tmp_path / "elsewhere"
                gtsrb(Made(training))
                shutil.copytree(training / "gtsrb/GTSRB/Final_Test", made.root / "gtsrb/GTSRB/Final_Test")
                shutil.copy(training / "gtsrb/GT-final_test.csv", made.root / "gtsrb")

        for module in (torchvision.datasets.food101, torchvision.datasets.gtsrb):
            monkeypatch.setattr(module, "download_and_extract_archive", deliver)
        return asked

    def test_what_was_downloaded_once_is_not_asked_for_again(self, empty_cache, archives, no_network):
        for _ in range(2):
            assert len(data.load("food101", image_size=16).test) == 6
            assert len(archives) == 1
        assert os.listdir(empty_cache) == ["food-101"]

    def test_a_download_that_ends_half_way_leaves_nothing(self, empty_cache, archives, no_network):
        with pytest.raises(
            ConnectionError, match=r"GTSRB is not in .*File not found or corrupted.*folder gtsrb"
        ):
            data.load("gtsrb", image_size=16)
        assert os.listdir(empty_cache) == []
        assert len(data.load("gtsrb", image_size=16).test) == 3
        assert os.listdir(empty_cache) == ["gtsrb"]

    def test_an_archive_that_is_none(self, empty_cache, monkeypatch):
        """Without a checksum, as FGVC Aircraft, the page of a portal may come in its place."""

        def deliver(url, root, filename=None, md5=None, max_redirect_hops=3):
            Path(root).mkdir(parents=True, exist_ok=True)
            Path(root, filename or url.rpartition("/")[2]).write_bytes(b"<html>please log in</html>")

        monkeypatch.setattr(torchvision.datasets.utils, "download_url", deliver)
        for name in ("fgvc-aircraft", "eurosat", "caltech256", "caltech101"):
            with pytest.raises(ConnectionError, match=r"could not be downloaded \(.*put the unpacked folder"):
                data.load(name, image_size=16)
            assert os.listdir(empty_cache) == []


class TestArrays:
    """Street View House Numbers and STL-10 come as arrays; see test_sources.py for the others."""

    @pytest.fixture
    def arrays(self, tmp_path, monkeypatch):
        random, written = np.random.default_rng(0), {}
        folder = tmp_path / "stl10_binary"
        folder.mkdir()
        for split, number in (("train", 40), ("test", 20)):
            labels = np.arange(number) % 10
            house = random.integers(0, 256, (number, 3, 32, 32), dtype=np.uint8)
            large = random.integers(0, 256, (number, 3, 96, 96), dtype=np.uint8)
            written[split] = {"svhn": house, "stl10": large}, labels
            scipy.io.savemat(  # there the digit 0 is called 10
                tmp_path / f"{split}_32x32.mat",
                {"X": house.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]},
            )
            large.transpose(0, 1, 3, 2).tofile(folder / f"{split}_X.bin")  # columns first
            (labels + 1).astype(np.uint8).tofile(folder / f"{split}_y.bin")
        for module in (torchvision.datasets.svhn, torchvision.datasets.stl10):
            monkeypatch.setattr(
                module, "check_integrity", lambda path, md5: "unlab" in path or os.path.isfile(path)
            )
        return written

    @pytest.mark.parametrize("name", ["svhn", "stl10"])
    def test_pixels_and_labels(self, name, arrays, tmp_path, no_network):
        dataset = data.load(name, root=tmp_path)
        assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [36, 4, 20]
        for split, part in (("train", "train"), ("validation", "train"), ("test", "test")):
            found, (images, labels) = getattr(dataset, split), arrays[part]
            rows = found.indices.numpy()
            assert np.array_equal(found.images, images[name][rows])
            assert np.array_equal(found.labels, labels[rows])
        assert dataset.classes == [str(digit) for digit in range(10)]

    def test_the_names_of_stl10_are_read_where_they_are(self, arrays, tmp_path):
        names = [f"kind {number}" for number in range(10)]
        (tmp_path / "stl10_binary/class_names.txt").write_text("\n".join(names) + "\n")
        assert data.load("stl10", root=tmp_path).classes == names

    @pytest.mark.parametrize(
        ("name", "missing", "wanted"),
        [
            ("svhn", "test_32x32.mat", "train_32x32.mat and"),
            ("stl10", "stl10_binary/test_X.bin", "stl10_binary"),
        ],
    )
    def test_missing_files(self, name, missing, wanted, arrays, tmp_path, empty_cache, no_network):
        (tmp_path / missing).unlink()
        with pytest.raises(FileNotFoundError, match=rf"no complete {name.upper()} files in .*put .*{wanted}"):
            data.load(name, root=tmp_path)
        with pytest.raises(ConnectionError, match=rf"{name.upper()} is not in .*no network.*put .*{wanted}"):
            data.load(name)
