"""Named data sets: IDX and CIFAR files, downloads, and the script that makes the embedded file."""

import gzip
import importlib.util
import json
import os
import pickle
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision

from kdlib import _files, data
from kdlib.data import sources

RNG = np.random.default_rng(0)
TRAIN, TEST = 40, 20


def idx_bytes(array):
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def idx_arrays():
    """Random images of ten classes, under the names of the four IDX files."""
    arrays = {}
    for prefix, number in (("train", TRAIN), ("t10k", TEST)):
        arrays[f"{prefix}-images-idx3-ubyte"] = RNG.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte"] = RNG.permutation(number).astype(np.uint8) % 10
    return arrays


def write_idx(folder, arrays, *, compressed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        content = idx_bytes(array)
        path = folder / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(content) if compressed else content)


@pytest.fixture
def arrays():
    return idx_arrays()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "datasets"
    monkeypatch.setattr(sources, "downloads_folder", lambda: folder)
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path / "not installed")
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def assert_holds(dataset, arrays):
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [36, 4, 20]
    parts = ((dataset.train, "train"), (dataset.validation, "train"), (dataset.test, "t10k"))
    for split, prefix in parts:
        rows = split.indices.numpy()
        assert np.array_equal(split.images[:, 0], arrays[f"{prefix}-images-idx3-ubyte"][rows])
        assert np.array_equal(split.labels, arrays[f"{prefix}-labels-idx1-ubyte"][rows])


class TestIdxFiles:
    def test_read_from_a_root(self, arrays, tmp_path):
        cases = (("fashion-mnist", ""), ("fashion-mnist", "FashionMNIST/raw"), ("mnist", "MNIST/raw"))
        for compressed in (False, True):
            for row, (name, below) in enumerate(cases):
                root = tmp_path / f"{row} {compressed}"
                write_idx(root / below, arrays, compressed=compressed)
                for given in (root, str(root)):
                    assert_holds(data.load(name, root=given, full=True), arrays)

    def test_debians_files_are_used_without_a_root(self, arrays, tmp_path, monkeypatch):
        write_idx(tmp_path, arrays, compressed=True)
        monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path)
        assert_holds(data.load("fashion-mnist", full=True), arrays)

    def test_a_missing_file_names_all_that_are_needed(self, arrays, tmp_path, no_network):
        for missing in arrays:
            root = tmp_path / missing
            write_idx(
                root, {name: array for name, array in arrays.items() if name != missing}, compressed=False
            )
            with pytest.raises(FileNotFoundError, match=rf"no MNIST files in root=.*put .*{missing}"):
                data.load("mnist", root=root)

    def test_a_root_that_does_not_exist(self, tmp_path, no_network):
        with pytest.raises(FileNotFoundError, match="no FashionMNIST files in root=.*typo"):
            data.load("fashion-mnist", root=tmp_path / "typo", full=True)

    def test_a_root_that_is_no_folder(self, tmp_path, no_network, monkeypatch):
        (tmp_path / "file").write_bytes(b"")
        for name in ("mnist", "fashion-mnist", "cifar10", "cifar100"):
            with pytest.raises(ValueError, match=r"root must be a folder, got the file .*file'"):
                data.load(name, root=tmp_path / "file", full=True)
            with pytest.raises(TypeError, match="root must be the path of a folder, got int 3"):
                data.load(name, root=3, full=True)
            with pytest.raises(TypeError, match="root must be the path of a folder, got bytes"):
                data.load(name, root=b"/tmp", full=True)
            with pytest.raises(FileNotFoundError):
                data.load(name, root=tmp_path / "file" / "below", full=True)
        monkeypatch.delenv("HOME")
        with pytest.raises(ValueError, match="root='~nobody-has-this-name/x' begins with a home folder"):
            data.load("mnist", root="~nobody-has-this-name/x")

    def test_a_damaged_file_is_named(self, arrays, tmp_path):
        stem = "t10k-images-idx3-ubyte"
        content = idx_bytes(arrays[stem])
        for compressed in (False, True):
            write_idx(tmp_path, arrays, compressed=compressed)
            path = tmp_path / (f"{stem}.gz" if compressed else stem)
            for damaged, message in (
                (content[:-1], r"announces the shape \(20, 28, 28\) but holds 15679 values"),
                (b"", "not an IDX file"),
                (b"\0\0\x0d" + content[3:], "not an IDX file of unsigned bytes"),
                (content[:9], "announces|not an IDX file"),
            ):
                path.write_bytes(gzip.compress(damaged) if compressed else damaged)
                with pytest.raises(ValueError, match=rf"{stem}.*({message}).*put a fresh copy"):
                    data.load("mnist", root=tmp_path)
            path.unlink()

    def test_a_damaged_compressed_file_is_named(self, arrays, tmp_path):
        write_idx(tmp_path, arrays, compressed=True)
        path = tmp_path / "train-images-idx3-ubyte.gz"
        content = path.read_bytes()
        for damaged in (content[:-20], b"PK" + content[2:], b"", content[:40] + b"\xff" * 40 + content[80:]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz .*put a fresh copy"):
                data.load("mnist", root=tmp_path)

    def test_labels_and_sizes_that_cannot_be_are_refused(self, arrays, tmp_path):
        labels = arrays["t10k-labels-idx1-ubyte"].copy()
        labels[3] = 10
        for name, array, message in (
            ("t10k-labels-idx1-ubyte", labels, "t10k-labels-idx1-ubyte must hold labels from 0 to 9, got 10"),
            ("t10k-images-idx3-ubyte", np.zeros((20, 27, 28), np.uint8), r"one size, .*\(20, 27, 28\)"),
        ):
            write_idx(tmp_path, arrays | {name: array}, compressed=False)
            with pytest.raises(ValueError, match=message):
                data.load("mnist", root=tmp_path)
        for images in (0, 1):
            short = {name: array[:images] if "train" in name else array for name, array in arrays.items()}
            write_idx(tmp_path, short, compressed=False)
            with pytest.raises(ValueError, match=f"must hold at least 2 images, got {images}"):
                data.load("mnist", root=tmp_path)

    def test_images_and_labels_of_two_lengths(self, arrays, tmp_path):
        arrays["train-labels-idx1-ubyte"] = arrays["train-labels-idx1-ubyte"][:-1]
        write_idx(tmp_path, arrays, compressed=False)
        with pytest.raises(ValueError, match=r"\(40, 28, 28\), labels of shape \(39,\)"):
            data.load("mnist", root=tmp_path)

    def test_mnist_is_not_taken_for_fashion_mnist_nor_the_reverse(self, arrays, tmp_path):
        test_labels = sources.embedded_fashion_mnist()["test_labels"]
        arrays["train-images-idx3-ubyte"] = np.zeros((TRAIN, 1, 1), dtype=np.uint8)
        arrays["t10k-images-idx3-ubyte"] = np.zeros((10_000, 1, 1), dtype=np.uint8)
        arrays["t10k-labels-idx1-ubyte"] = test_labels
        write_idx(tmp_path / "fashion", arrays, compressed=False)
        with pytest.raises(ValueError, match="holds Fashion-MNIST"):
            data.load("mnist", root=tmp_path / "fashion")
        arrays["t10k-labels-idx1-ubyte"] = test_labels[::-1].copy()
        write_idx(tmp_path / "digits", arrays, compressed=False)
        with pytest.raises(ValueError, match="holds other images than Fashion-MNIST"):
            data.load("fashion-mnist", root=tmp_path / "digits", full=True)


class TestDownloads:
    FILES = {
        "mnist": "MNIST is not in .*datasets.*train-images-idx3-ubyte.*root=",
        "fashion-mnist": "FashionMNIST is not in .*datasets.*t10k-labels-idx1-ubyte.*root=",
        "cifar10": "CIFAR10 is not in .*datasets.*cifar-10-batches-py.*root=",
        "cifar100": "CIFAR100 is not in .*datasets.*cifar-100-python.*root=",
    }

    def test_without_a_network_the_error_says_what_to_put_where(self, empty_cache, no_network):
        for name, message in self.FILES.items():
            with pytest.raises(ConnectionError, match=message) as error:
                data.load(name, full=True)
            assert "no network in this test" in str(error.value)
            assert str(empty_cache) in str(error.value)

    def test_a_cache_that_cannot_be_written_is_named(self, empty_cache, no_network, monkeypatch):
        monkeypatch.setattr(
            os, "access", lambda path, mode: False
        )  # to the user who runs all tests, all is allowed
        for reason in ("Permission denied", "File exists|Not a directory"):
            for name, message in self.FILES.items():
                with pytest.raises(FileNotFoundError, match=message) as error:
                    data.load(name, full=True)
                assert re.search(
                    rf"datasets, which cannot be written \(({reason})\): allow", str(error.value)
                )
            if empty_cache.is_dir():
                empty_cache.rmdir()
                empty_cache.write_bytes(b"a file where a folder should be")

    def test_a_user_without_a_home_folder_is_told_what_to_set(self, empty_cache, no_network, monkeypatch):
        monkeypatch.setattr(sources, "downloads_folder", lambda: None)
        for name, message in self.FILES.items():
            wanted = message.partition("datasets.*")[2]
            with pytest.raises(FileNotFoundError, match=rf"no home folder.*{wanted}.*XDG_CACHE_HOME"):
                data.load(name, full=True)

    def test_downloads_are_kept_in_the_users_cache(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert sources.downloads_folder() == tmp_path / "kdlib" / "datasets"
        monkeypatch.setattr(_files, "cache_folder", lambda: None)
        assert sources.downloads_folder() is None

    def test_files_put_into_the_cache_by_hand_are_found(self, arrays, empty_cache, no_network):
        write_idx(empty_cache, arrays, compressed=True)
        assert_holds(data.load("mnist"), arrays)

    def test_what_was_downloaded_once_is_not_asked_for_again(self, arrays, empty_cache, monkeypatch):
        requests = []

        def deliver(url, download_root, filename, md5):
            requests.append(url)
            stem = filename.removesuffix(".gz")
            write_idx(Path(download_root), {stem: arrays[stem]}, compressed=False)

        monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", deliver)
        for _ in range(2):
            assert_holds(data.load("mnist"), arrays)
            assert len(requests) == 4


class TestCifar:
    NAMES = {"cifar10": ("CIFAR10", "labels", 10), "cifar100": ("CIFAR100", "fine_labels", 100)}

    @pytest.fixture(params=NAMES)
    def cifar(self, request, tmp_path, monkeypatch):
        """Small files in the layout of CIFAR; torchvision is kept from comparing their checksums."""
        reader, key, classes = self.NAMES[request.param]
        reader = getattr(torchvision.datasets, reader)
        folder = tmp_path / reader.base_folder
        folder.mkdir()
        for name, _ in [*reader.train_list, *reader.test_list]:
            pixels = RNG.integers(0, 256, (2 * classes, 3072), dtype=np.uint8)
            (folder / name).write_bytes(pickle.dumps({"data": pixels, key: list(range(classes)) * 2}))
        names = [f"class {number}" for number in range(classes)]
        (folder / reader.meta["filename"]).write_bytes(pickle.dumps({reader.meta["key"]: names}))
        monkeypatch.setattr(
            torchvision.datasets.cifar, "check_integrity", lambda path, md5: Path(path).exists()
        )
        return request.param, folder, reader

    def test_pixels_labels_and_classes(self, cifar, tmp_path):
        name, folder, reader = cifar
        dataset = data.load(name, root=tmp_path)
        first_batch = pickle.loads((folder / reader.train_list[0][0]).read_bytes())["data"].reshape(
            -1, 3, 32, 32
        )
        rows = dataset.train.indices.numpy()
        in_batch = rows < len(first_batch)
        assert np.array_equal(dataset.train.images[in_batch], first_batch[rows[in_batch]])
        assert labels_follow_indices(dataset, self.NAMES[name][2])
        assert dataset.classes[7] == "class 7"
        assert dataset.mean.shape == dataset.std.shape == (3,)

    def test_a_missing_batch(self, cifar, tmp_path, no_network):
        name, folder, reader = cifar
        (folder / reader.test_list[0][0]).unlink()
        with pytest.raises(
            FileNotFoundError, match=f"no complete {reader.__name__} files.*{reader.base_folder}"
        ):
            data.load(name, root=tmp_path)


def labels_follow_indices(dataset, classes):
    splits = (dataset.train, dataset.validation, dataset.test)
    return all((split.labels == split.indices % classes).all() for split in splits)


class TestDigits:
    def test_all_images_are_there_once_and_scaled(self):
        from sklearn.datasets import load_digits

        dataset, original = data.load("digits"), load_digits()
        splits = (dataset.train, dataset.validation, dataset.test)
        assert [len(split) for split in splits] == [1293, 144, 360]
        rows = np.concatenate([split.indices for split in splits])
        assert sorted(rows) == list(range(1797))
        for split in splits:
            expected = original.images[split.indices] * 255 / 16
            assert np.abs(split.images[:, 0].numpy() - expected).max() <= 0.5
            assert np.array_equal(split.labels, original.target[split.indices])
            shares = np.bincount(split.labels) / len(split)
            assert np.abs(shares - np.bincount(original.target) / 1797).max() < 1 / len(split) + 1e-9

    def test_the_test_split_does_not_depend_on_the_seed(self):
        assert data.load("digits", seed=1).test.indices.tolist() == data.load("digits").test.indices.tolist()


class TestMakeFashionMnist:
    @pytest.fixture
    def tool(self):
        path = Path(__file__).parents[1] / "tools" / "make_fashion_mnist.py"
        spec = importlib.util.spec_from_file_location("make_fashion_mnist", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_the_same_files_give_the_same_bytes(self, tool, arrays, tmp_path, monkeypatch, capsys):
        write_idx(tmp_path / "idx", arrays, compressed=True)
        monkeypatch.setattr(tool, "IMAGES_PER_CLASS", 3)
        outputs = [tmp_path / "first", tmp_path / "second"]
        for out in outputs:
            monkeypatch.setattr(sys, "argv", ["tool", "--root", str(tmp_path / "idx"), "--out", str(out)])
            tool.main()
        for name in ("fashion-mnist.npz", "fashion-mnist.json"):
            assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
        assert sorted(path.name for path in outputs[0].iterdir()) == [
            "fashion-mnist.json",
            "fashion-mnist.npz",
        ]
        assert (
            json.loads((outputs[0] / "fashion-mnist.json").read_text())["sha256"] in capsys.readouterr().out
        )
        monkeypatch.setattr(sources, "EMBEDDED_FOLDER", outputs[0])
        dataset = data.load()
        assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [27, 3, 20]
        assert np.array_equal(
            dataset.train.images[:, 0], arrays["train-images-idx3-ubyte"][dataset.train.indices.numpy()]
        )

    @pytest.mark.skipif(
        not sources.DEBIAN_FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
    )
    def test_the_embedded_file_is_what_the_tool_makes(self, tool):
        embedded = sources.embedded_fashion_mnist()
        made = tool.make_arrays(sources.fashion_mnist(None, full=True))
        assert made.keys() == embedded.keys()
        for name, array in made.items():
            assert np.array_equal(array, embedded[name])
            assert array.dtype == embedded[name].dtype
