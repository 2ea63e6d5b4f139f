"""Splits held in memory, and the data set that ships inside the package."""

import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdlib import data
from kdlib.data import sources
from kdlib.data.augment import random_crop_flip


def make_split(labels, *, channels=1, **statistics):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), channels, 4, 5), dtype=np.uint8)
    return data.ImageSplit(images, labels, **statistics)


@pytest.fixture(scope="module")
def embedded():
    return data.load()


class TestEmbedded:
    def test_sizes_and_types(self, embedded):
        assert [len(split) for split in (embedded.train, embedded.validation, embedded.test)] == [
            9000,
            1000,
            10000,
        ]
        for split in (embedded.train, embedded.validation, embedded.test):
            assert split.images.shape == (len(split), 1, 28, 28)
            assert split.images.dtype == torch.uint8
            assert split.labels.dtype == split.indices.dtype == torch.int64
        assert len(embedded.classes) == 10
        assert embedded.classes[9] == "Ankle boot"

    def test_every_split_is_balanced(self, embedded):
        for split, per_class in ((embedded.train, 900), (embedded.validation, 100), (embedded.test, 1000)):
            assert split.labels.bincount().tolist() == [per_class] * 10

    def test_train_and_validation_partition_the_embedded_images(self, embedded):
        rows = torch.cat([embedded.train.indices, embedded.validation.indices])
        assert rows.sort().values.tolist() == sources.embedded_fashion_mnist()["train_indices"].tolist()
        assert len(rows.unique()) == 10_000
        assert embedded.test.indices.tolist() == list(range(10_000))

    def test_statistics_come_from_the_training_images(self, embedded):
        pixels = embedded.train.images.double() / 255
        assert embedded.mean.item() == pytest.approx(pixels.mean().item(), abs=1e-6)
        assert embedded.std.item() == pytest.approx(pixels.std(correction=0).item(), abs=1e-6)
        for split in (embedded.validation, embedded.test):
            assert torch.equal(split.mean, embedded.mean)
            assert torch.equal(split.std, embedded.std)

    def test_seed_chooses_the_validation_images_and_nothing_else(self, embedded):
        again, other = data.load(seed=0), data.load(seed=1)
        assert torch.equal(again.validation.indices, embedded.validation.indices)
        assert again.train.digest() == embedded.train.digest()
        assert not torch.equal(other.validation.indices, embedded.validation.indices)
        assert torch.equal(other.test.images, embedded.test.images)

    @pytest.mark.skipif(
        not sources.DEBIAN_FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
    )
    def test_indices_point_at_the_original_images(self, embedded):
        full = data.load(full=True)
        assert [len(split) for split in (full.train, full.validation, full.test)] == [54_000, 6_000, 10_000]
        originals = sources.fashion_mnist(None, full=True)
        for split, original in ((embedded.train, originals.train), (embedded.test, originals.test)):
            rows = split.indices.numpy()
            assert np.array_equal(split.images.numpy(), original.images[rows])
            assert np.array_equal(split.labels.numpy(), original.labels[rows])

    def test_loading_what_is_inside_opens_no_socket(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a socket was opened")

        monkeypatch.setattr(socket, "socket", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        for name in ("fashion-mnist", "digits"):
            assert len(data.load(name).train) > 1000

    def test_importing_data_imports_no_other_data_library(self):
        program = "import sys, kdlib.data; print({'torchvision', 'sklearn', 'pandas'} & set(sys.modules))"
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == "set()"

    def test_a_damaged_file_is_refused(self, tmp_path, monkeypatch):
        for name in ("fashion-mnist.npz", "fashion-mnist.json"):
            shutil.copy(sources.EMBEDDED_FOLDER / name, tmp_path)
        path = tmp_path / "fashion-mnist.npz"
        content = path.read_bytes()
        monkeypatch.setattr(sources, "EMBEDDED_FOLDER", tmp_path)
        for damaged in (content[:-1000], content[:-1] + b"\1"):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"fashion-mnist\.npz is damaged.*reinstall"):
                data.load()


class TestNames:
    def test_an_unknown_name_lists_the_names_and_says_which_is_near(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "photographs").mkdir()
        for name, near in (
            ("Fashion-MNIST", "fashion-mnist"),
            ("fashion_mnist", "fashion-mnist"),
            ("FashionMNIST", "fashion-mnist"),
            ("CIFAR10", "cifar10"),
            ("CIFAR-100", "cifar100"),
            ("cifar 10", "cifar10"),
            (" mnist", "mnist"),
            ("minst", "mnist"),
            ("digit", "digits"),
            ("photographs", "folder:photographs"),
            (str(tmp_path), f"folder:{tmp_path}"),
            ("Folder:photographs", "folder:photographs"),
            ("imagenet", "imagenette"),
            ("", None),
            ("\0", None),
        ):
            with pytest.raises(
                ValueError, match="fashion-mnist, mnist, cifar10, cifar100, digits, .*flowers102, .*folder:PATH"
            ) as error:
                data.load(name)
            assert f"name={name!r}" in str(error.value)
            assert ("did you mean" in str(error.value)) == (near is not None), name
            assert near is None or f"did you mean {near!r}?" in str(error.value)

    def test_a_name_that_is_no_string_is_refused(self, tmp_path):
        for name in (None, 3, ["mnist"], b"mnist", np.array("mnist")):
            with pytest.raises(
                TypeError, match=r"name must be a string, got .*: the names are fashion-mnist"
            ):
                data.load(name)
        with pytest.raises(TypeError, match=f"for a folder give 'folder:{tmp_path}'"):
            data.load(tmp_path)

    def test_seed_and_full_are_what_they_say(self):
        expected = data.load("digits", seed=3).validation.indices
        for seed in (np.int64(3), np.uint8(3)):
            assert torch.equal(data.load("digits", seed=seed, full=np.True_).validation.indices, expected)
        for seed in (3.0, True, "3", None, np.float64(3)):
            with pytest.raises(TypeError, match="seed must be an integer, got"):
                data.load("digits", seed=seed)
        with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
            data.load("digits", seed=-1)
        for full in (1, None, "yes"):
            with pytest.raises(TypeError, match="full must be True or False, got"):
                data.load("digits", full=full)

    def test_a_root_that_would_not_be_read_is_refused(self, tmp_path):
        for name in ("fashion-mnist", "digits", "folder:there"):
            with pytest.raises(ValueError, match="is not used by load"):
                data.load(name, root=tmp_path)


class TestImageSplit:
    def test_numpy_and_tensors_give_the_same_split(self):
        from_numpy = make_split([0, 1, 2], channels=3)
        from_tensors = data.ImageSplit(
            from_numpy.images, from_numpy.labels.to(torch.int32), indices=[7, 8, 9]
        )
        assert from_numpy.digest() == from_tensors.digest()
        assert from_tensors.labels.dtype == torch.int64
        assert from_numpy.indices.tolist() == [0, 1, 2]
        assert from_tensors.indices.tolist() == [7, 8, 9]

    def test_read_only_arrays_are_accepted(self, recwarn):
        images = np.frombuffer(bytes(range(24)), dtype=np.uint8).reshape(2, 1, 3, 4)
        assert data.ImageSplit(images, [0, 1]).images.tolist() == images.tolist()
        assert not recwarn.list

    def test_statistics_against_numpy_in_float64(self):
        for channels in (1, 3):
            split = make_split([0] * 2_500, channels=channels)
            pixels = split.images.numpy().astype(np.float64) / 255
            np.testing.assert_allclose(split.mean, pixels.mean(axis=(0, 2, 3)), atol=1e-7)
            np.testing.assert_allclose(split.std, pixels.std(axis=(0, 2, 3)), atol=1e-7)

    def test_given_statistics_are_kept_and_a_missing_one_is_computed(self):
        split = make_split([0, 1], mean=[0.25])
        assert split.mean.tolist() == [0.25]
        assert torch.equal(split.std, make_split([0, 1]).std)

    def test_a_constant_channel_normalises_to_zero(self):
        split = data.ImageSplit(torch.full((2, 1, 2, 2), 51, dtype=torch.uint8), [0, 1])
        assert split.std.tolist() == [1.0]
        assert split.normalized().abs().max() < 1e-6

    def test_bad_arguments_are_named(self):
        channels_last = (torch.zeros(2, 6, 6, 1), torch.zeros(2, 28, 20, 3), torch.zeros(2, 8, 9, 4))
        for images, labels, others, message in (
            (torch.zeros(2, 1, 4, 4), [0, 1], {}, r"images must be uint8.*torch\.float32"),
            (
                torch.zeros(2, 4, 4, dtype=torch.uint8),
                [0, 1],
                {},
                r"\(n, channels, height, width\).*\(2, 4, 4\)",
            ),
            (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), [], {}, r"\(0, 1, 4, 4\)"),
            (None, [0, 1, 2], {}, r"labels have the shape \(3,\), images \(2, 1, 4, 4\)"),
            (None, [[0.0, 1.0]], {}, r"labels have the shape \(1, 2\), images \(2, 1, 4, 4\)"),
            (None, [0.0, 1.0], {}, r"labels must be whole numbers, got torch\.float64"),
            (None, [True, False], {}, r"labels must be whole numbers, got torch\.bool"),
            (None, [0, -1], {}, "labels must not be negative, got -1"),
            (None, [0, 1], {"indices": [5]}, r"indices have the shape \(1,\), images \(2, 1, 4, 4\)"),
            (None, [0, 1], {"indices": [5, -2]}, "indices must not be negative, got -2"),
            (None, [0, 1], {"mean": [0.5, 0.5]}, r"mean must hold one finite number per channel.*\(2,\)"),
            (None, [0, 1], {"mean": [72.9]}, r"mean must be in \[0, 1\].*got \[72\..*divide by 255"),
            (None, [0, 1], {"mean": [-0.1]}, r"mean must be in \[0, 1\]"),
            (None, [0, 1], {"mean": [0.5j]}, "mean must be real numbers, got torch.complex128"),
            (None, [0, 1], {"mean": [True]}, "mean must be real numbers, got torch.bool"),
            (None, [0, 1], {"mean": ["0.5"]}, "mean must be an array of numbers"),
            (None, [0, 1], {"mean": 0.5}, r"mean must hold one finite number per channel.*shape \(\)"),
            (None, [0, 1], {"std": [57.4]}, r"std must be positive and at most 1.*divide by 255"),
            (None, [0, 1], {"std": [-0.2]}, "std must be positive"),
            (None, [0, 1], {"std": [float("inf")]}, "std must hold one finite number"),
            (None, [0, 1], {"mean": [float("nan")]}, "mean must hold one finite number"),
            (None, [0, 1], {"std": [0.0]}, r"std must be positive and at most 1.*got \[0\.0\]"),
            *((images.byte(), [0, 1], {}, r"looks like .*permute\(0, 3, 1, 2\)") for images in channels_last),
            ("images", [0, 1], {}, "images must be an array of numbers, got str 'images'"),
            ([[1, 2], [3]], [0, 1], {}, "images must be a rectangular array of numbers"),
            (torch.zeros(2, 1, 4, 4, dtype=torch.int64), [0, 1], {}, r"uint8 in 0\.\.255, got torch\.int64"),
            (torch.zeros(2, 1, 4, 4, device="meta"), [0, 1], {}, "images must be a dense tensor"),
        ):
            images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8) if images is None else images
            with pytest.raises(ValueError, match=message):
                data.ImageSplit(images, labels, **others)

    def test_images_of_many_channels_and_images_of_one_column_are_no_mistake(self):
        for shape in ((2, 5, 4, 4), (2, 4, 9, 3), (2, 9, 128, 1), (2, 3, 28, 28)):
            assert data.ImageSplit(torch.zeros(shape, dtype=torch.uint8), [0, 1]).images.shape == shape

    def test_labels_may_be_numbers_in_0_1_for_each_class(self):
        several = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
        for labels in (
            several,
            torch.tensor(several),
            np.array(several, dtype=np.float64),
            np.array(several, dtype=bool),
            torch.tensor(several, dtype=torch.bfloat16),
        ):
            split = make_split(labels)
            assert not split.has_classes
            assert split.labels.dtype == torch.float32
            assert split.labels.tolist() == several
            assert split.subset([1]).labels.tolist() == several[1:]
            assert split.digest() == make_split([0, 1]).digest()
            assert repr(split) == "ImageSplit(2 images of 1x4x5, labels in [0, 1] for 3 classes)"
        assert make_split([4, 0]).has_classes
        assert repr(make_split([4, 0])) == "ImageSplit(2 images of 1x4x5, 2 classes)"

    def test_labels_that_fit_neither_kind_are_refused_with_what_helps(self):
        for labels, message in (
            ([[0.0, float("nan")], [0, 1]], r"labels .*in \[0, 1\], got nan at position \(0, 1\)"),
            ([[0.0, 1.0], [1.5, 1]], r"labels .*in \[0, 1\], got 1\.5 at position \(1, 0\)"),
            ([[0.0, 1.0], [0, -1e-3]], r"labels .*in \[0, 1\], got -0\.001"),
            (
                torch.eye(2, dtype=torch.int64),
                r"float32 in \[0, 1\] or bool, got torch\.int64.*argmax\(axis=1\)",
            ),
            (torch.ones(2, 1, dtype=torch.int32), r"got torch\.int32.*give labels\[:, 0\]"),
            (torch.eye(2, dtype=torch.complex64), r"got torch\.complex64"),
            (torch.zeros(2, 0), r"labels have the shape \(2, 0\)"),
            (torch.zeros(3, 2), r"labels have the shape \(3, 2\), images \(2, 1, 4, 4\)"),
            (torch.zeros(2, 2, 2, dtype=torch.int64), r"labels have the shape \(2, 2, 2\)"),
            (["cat", "dog"], r"labels must be an array of numbers, got list \['cat', 'dog'\]"),
            ([[0], [0, 1]], "labels must be a rectangular array of numbers"),
            (np.array([0, None]), "labels must be an array of numbers, got ndarray"),
            (torch.eye(2).to_sparse(), "labels must be a dense tensor"),
        ):
            with pytest.raises(ValueError, match=message):
                data.ImageSplit(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), labels)

    POSITIONS = (
        ([3, 1], [3, 1]),
        ((2, 0), [2, 0]),
        (range(2), [0, 1]),
        ([-1, 0], [3, 0]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (np.array([3]), [3]),
        (np.array([0, 1, 0, 1], dtype=np.uint8), [0, 1, 0, 1]),  # torch would take them for a mask
        (torch.tensor([3, 0], dtype=torch.int32), [3, 0]),
        (torch.tensor([False, True, False, True]), [1, 3]),
        ([True, False, False, True], [0, 3]),
    )

    def test_normalized(self):
        split = make_split([0, 1, 0, 1], channels=3, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
        mean, std = (np.reshape(values, (3, 1, 1)) for values in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
        for positions, rows in ((None, [0, 1, 2, 3]), *self.POSITIONS):
            expected = (split.images.numpy()[rows].astype(np.float64) / 255 - mean) / std
            result = split.normalized(positions)
            assert result.dtype == torch.float32
            np.testing.assert_allclose(result, expected, atol=1e-6, err_msg=str(positions))
        for none in ([], slice(2, 2), torch.zeros(4, dtype=torch.bool)):
            assert split.normalized(none).shape == (0, 3, 4, 5)

    def test_subset_at_any_positions(self):
        split = make_split([[0.0, 1], [1, 1], [0, 0], [0.5, 0.5]])
        for positions, rows in self.POSITIONS:
            assert split.subset(positions).indices.tolist() == rows, positions
            assert torch.equal(split.subset(positions).labels, split.labels[rows]), positions

    def test_positions_that_are_no_rows_are_refused(self):
        split = make_split([0, 1, 0, 1])
        for positions, message in (
            ([4], "must be below 4, the size of the split, got 4"),
            ([0, -5], "must be below 4, the size of the split, got -5"),
            (3, r"row numbers, a mask of 4 or a slice, got torch\.int64 of the shape \(\)"),
            ([[0, 1]], r"a slice, got torch\.int64 of the shape \(1, 2\)"),
            ([0.0, 1.0], r"a slice, got torch\.float64"),
            ([True, False], "a mask of 4, one for each image, got 2"),
            ("01", "must be an array of numbers, got str '01'"),
            ([0, None], "must be an array of numbers"),
            (slice(None, None, -1), "a slice with a positive step"),
            (slice(0.5, 2), "a slice of whole numbers"),
            ({0, 1}, "must be an array of numbers, got set"),
        ):
            for method in (split.subset, split.normalized):
                with pytest.raises(ValueError, match=rf"positions .*{message}"):
                    method(positions)
        for none in ([], slice(2, 2), torch.zeros(4, dtype=torch.bool)):
            with pytest.raises(ValueError, match="positions must choose at least one of the 4 images"):
                split.subset(none)

    def test_normalized_leaves_the_images_alone(self):
        split = make_split([0, 1])
        before = split.images.clone()
        split.normalized()
        assert torch.equal(split.images, before)

    def test_subset_keeps_the_statistics_and_the_original_indices(self):
        split = data.ImageSplit(make_split([0, 1, 2]).images, [0, 1, 2], indices=[10, 20, 30])
        part = split.subset([2, 0])
        assert part.indices.tolist() == [30, 10]
        assert part.labels.tolist() == [2, 0]
        assert torch.equal(part.images, split.images[[2, 0]])
        assert torch.equal(part.mean, split.mean)
        assert torch.equal(part.std, split.std)

    def test_digest_tells_apart_what_a_network_would_see(self):
        split = make_split([0, 1])
        changed = split.images.clone()
        changed[0, 0, 0, 0] ^= 1
        same_pixels = {
            "pixel": data.ImageSplit(changed, [0, 1], None, split.mean, split.std),
            "mean": data.ImageSplit(split.images, [0, 1], None, split.mean + 0.1, split.std),
            "std": data.ImageSplit(split.images, [0, 1], None, split.mean, split.std + 0.1),
            "shape": data.ImageSplit(split.images.reshape(2, 1, 5, 4), [0, 1], None, split.mean, split.std),
        }
        digests = {split.digest(), *(other.digest() for other in same_pixels.values())}
        assert len(digests) == 5
        assert data.ImageSplit(split.images.clone(), [1, 1], [5, 6]).digest() == split.digest()


def test_random_crop_flip_refuses_what_is_no_number_of_pixels():
    for padding, error in (
        (-1, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        ("2", TypeError),
        (None, TypeError),
    ):
        with pytest.raises(error, match=r"padding must be (an integer|at least 0), got"):
            random_crop_flip(padding=padding)
    with pytest.raises(TypeError, match="flip must be True or False, got int 1"):
        random_crop_flip(flip=1)
    images = make_split([0, 1]).images
    assert torch.equal(random_crop_flip(padding=np.int64(0), flip=np.False_)(images), images)


# A busy machine must not fail a property.
unhurried = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60)


class TestTake:
    @unhurried
    @given(labels=LABELS, share=st.floats(0, 1), seed=st.integers(0, 1000))
    def test_each_class_keeps_its_share_to_within_one(self, labels, share, seed):
        n = max(1, round(share * len(labels)))
        taken = make_split(labels).take(n, seed=seed)
        assert len(taken) == len(set(taken.indices.tolist())) == n
        assert taken.labels.tolist() == [labels[row] for row in taken.indices]
        sizes, counts = np.bincount(labels), np.bincount(taken.labels, minlength=max(labels) + 1)
        assert (np.abs(counts - n * sizes / len(labels)) < 1).all()

    @unhurried
    @given(labels=LABELS, seed=st.integers(0, 1000))
    def test_taking_all_is_the_identity(self, labels, seed):
        assert make_split(labels).take(len(labels), seed=seed).indices.tolist() == list(range(len(labels)))

    def test_a_seed_fixes_the_choice(self, embedded):
        first, again, other = (embedded.train.take(1000, seed=seed) for seed in (3, 3, 4))
        assert torch.equal(first.indices, again.indices)
        assert not torch.equal(first.indices, other.indices)
        assert first.labels.bincount().tolist() == [100] * 10

    def test_soft_labels_count_for_their_largest_and_choose_as_classes_do(self):
        classes = np.random.default_rng(1).integers(0, 4, 60)
        soft = np.full((60, 4), 0.1)
        soft[np.arange(60), classes] = 0.7
        for labels in (soft, np.eye(4)[classes], soft.astype(np.float16)):
            for n in (3, 17, 60):
                expected = make_split(classes).take(n, seed=5).indices
                assert torch.equal(make_split(labels).take(n, seed=5).indices, expected), n

    def test_several_labels_an_image_are_chosen_at_random(self):
        several = np.random.default_rng(1).integers(0, 2, (50, 4)).astype(bool)
        split = make_split(several)
        first, again, other = (split.take(20, seed=seed) for seed in (3, 3, 4))
        assert torch.equal(first.indices, again.indices) and not torch.equal(first.indices, other.indices)
        assert len(first.indices.unique()) == 20 and torch.equal(first.indices, first.indices.sort().values)
        assert torch.equal(first.labels, torch.from_numpy(several).float()[first.indices])
        chosen = torch.stack([torch.isin(split.indices, split.take(20, seed=s).indices) for s in range(400)])
        assert ((chosen.float().mean(dim=0) - 0.4).abs() < 0.1).all()  # four standard deviations

    def test_fewer_images_than_classes_take_one_each_of_random_classes(self):
        split = make_split(list(range(8)) * 3)
        chosen = [split.take(3, seed=seed).labels.tolist() for seed in range(20)]
        assert all(len(set(labels)) == 3 for labels in chosen)
        assert {label for labels in chosen for label in labels} == set(range(8))

    def test_the_statistics_of_the_whole_are_kept(self, embedded):
        few = embedded.train.take(10)
        assert torch.equal(few.mean, embedded.mean)
        assert torch.equal(few.std, embedded.std)

    def test_a_number_out_of_range_is_refused(self):
        split = make_split([0, 1, 0, 1])
        for n in (0, -1, 5, 2.0, True, "2", None, torch.tensor(2)):
            with pytest.raises(ValueError, match="n must be a whole number from 1 to 4") as error:
                split.take(n)
            assert repr(n) in str(error.value)
        assert torch.equal(split.take(np.int64(2), seed=np.int32(1)).indices, split.take(2, seed=1).indices)
        for seed in (1.0, True, None):
            with pytest.raises(TypeError, match="seed must be an integer"):
                split.take(2, seed=seed)
