"""Folders of photographs: what becomes of their sizes, the test split that is cut, and a class an image in a table."""

import csv
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from kdlib import data
from kdlib.data import pixels
from kdlib.data.image_files import ImageFiles

cut_is_known = pytest.mark.filterwarnings("ignore:there is no test split")
SIZES = [(16, 16), (16, 24), (24, 16), (17, 40), (41, 17), (5, 9), (9, 5), (7, 50), (100, 99), (15, 120)]


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_torchvision(image, size):
    """The pixels as its transforms give them: a reference of another hand."""
    scaled = v2.Compose([v2.Resize(size), v2.CenterCrop(size)])(image)
    return np.asarray(scaled)


def read(path, size):
    return pixels.read(path, size).values.astype(int)


class TestImageSize:
    @pytest.mark.parametrize("size", [1, 8, 16, 31])
    def test_pixels_are_those_of_torchvision(self, size, tmp_path):
        for width, height in SIZES:
            path = tmp_path / f"{width}x{height}.png"
            colours = noise(width, height)
            for content in (colours, colours[..., 0]):
                Image.fromarray(content).save(path)
                expected = as_torchvision(Image.fromarray(content), size)
                assert np.array_equal(read(path, size), expected), (width, height, content.ndim)

    @pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
    def test_jpeg_files_decoded_at_a_fraction_stay_near(self, name):
        path = Path(sklearn.datasets.__file__).parent / "images" / name
        for size in (24, 32, 64, 100):
            with Image.open(path) as image:
                expected = as_torchvision(image.convert("RGB"), size).astype(int)
            with Image.open(path) as image:
                image.draft(None, (3 * size, 3 * size))
                assert (image.size == (640, 427)) is (size == 100)  # decoded whole, or what is meant here
            off = np.abs(read(path, size) - expected)
            assert off.mean() < 0.5 and np.quantile(off, 0.99) <= 2 and off.max() <= 8, (
                size,
                off.mean(),
                off.max(),
            )

    def test_small_jpeg_files_are_decoded_whole(self, tmp_path):
        for width, height in SIZES:
            Image.fromarray(noise(width, height)).save(tmp_path / "0.jpg", quality=90)
            with Image.open(tmp_path / "0.jpg") as image:
                assert np.array_equal(read(tmp_path / "0.jpg", 40), as_torchvision(image, 40))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_fraction_is_not_moved_by_a_turn(self, orientation, tmp_path):
        """A slope of grey: half a pixel more or less would be seen. 427 is no multiple of 2, 4 or 8."""
        slope = np.add.outer(np.arange(427) * 0.3, np.arange(331) * 0.35).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        for content in (slope, slope.T):
            Image.fromarray(content).save(tmp_path / "0.jpg", quality=98, exif=exif)
            with Image.open(tmp_path / "0.jpg") as image:
                expected = as_torchvision(ImageOps.exif_transpose(image), 20).astype(int)
            assert np.abs(read(tmp_path / "0.jpg", 20) - expected).max() <= 1

    def test_a_long_strip_gives_its_middle(self, tmp_path):
        strip = np.arange(4000)[None, :] // 16 % 256
        for turned in (strip, strip.T):
            Image.fromarray(turned.astype(np.uint8)).save(tmp_path / "0.png")
            found = read(tmp_path / "0.png", 4)
            assert found.shape == (4, 4) and (np.abs(found - 125) <= 1).all()

    def test_every_orientation_is_turned_before_the_centre_is_cut_out(self, tmp_path):
        colours = noise(24, 15)
        upright = {
            1: colours, 2: colours[:, ::-1], 3: colours[::-1, ::-1], 4: colours[::-1], 5: colours.transpose(1, 0, 2),
            6: np.rot90(colours, -1), 7: colours[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(colours, 1),
        }  # fmt: skip
        for orientation, expected in upright.items():
            exif = Image.Exif()
            exif[0x0112] = orientation
            for suffix in ("png", "tif", "webp"):
                path = tmp_path / f"{orientation}.{suffix}"
                Image.fromarray(colours).save(
                    path, exif=exif, **({"lossless": True} if suffix == "webp" else {})
                )
                assert np.array_equal(read(path, None), expected), (orientation, suffix)
                whole = Image.fromarray(np.ascontiguousarray(expected))
                off = np.abs(read(path, 10) - as_torchvision(whole, 10).astype(int)).max()
                assert off <= (orientation > 1), (orientation, suffix)  # it is turned after it was scaled

    def test_alpha_is_laid_on_white(self, tmp_path):
        random = np.random.default_rng(1)
        colours, alpha = noise(30, 20), random.integers(0, 256, (20, 30, 1), dtype=np.uint8)
        Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "0.png")
        share = alpha / 255
        expected = colours * share + 255 * (1 - share)
        assert np.abs(read(tmp_path / "0.png", None) - expected).max() <= 1
        scaled = as_torchvision(Image.fromarray(np.round(expected).astype(np.uint8)), 12)
        assert np.abs(read(tmp_path / "0.png", 12) - scaled.astype(int)).max() <= 1

    def test_a_transparent_palette_and_grey_with_alpha(self, tmp_path):
        palette = Image.fromarray(noise(30, 20)).quantize(8)
        palette.save(tmp_path / "palette.png", transparency=2)
        expected = np.array(palette.convert("RGB"))
        expected[np.asarray(palette) == 2] = 255
        assert (np.asarray(palette) == 2).any()
        assert np.array_equal(read(tmp_path / "palette.png", None), expected)
        grey = noise(30, 20)[..., :2].copy()
        grey[..., 1] = np.where(grey[..., 1] > 99, 255, 0)
        Image.fromarray(grey, "LA").save(tmp_path / "grey.png")
        found = read(tmp_path / "grey.png", None)
        assert np.array_equal(found, np.where(grey[..., 1] > 0, grey[..., 0], 255))

    def test_the_upper_eight_of_sixteen_bits_are_scaled(self, tmp_path):
        deep = np.random.default_rng(2).integers(0, 65536, (20, 33), dtype=np.uint16)
        for suffix in ("png", "tif", "pgm"):
            Image.fromarray(deep).save(tmp_path / f"0.{suffix}")
            expected = as_torchvision(Image.fromarray((deep >> 8).astype(np.uint8)), 8)
            assert np.array_equal(read(tmp_path / f"0.{suffix}", 8), expected), suffix

    def test_images_of_all_sizes_become_one_set(self, tmp_path):
        for name in ("ant", "bee"):
            for number, (width, height) in enumerate(SIZES):
                path = tmp_path / ("train" if number < 7 else "test") / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise(width, height, number)).save(path)
        with pytest.raises(
            ValueError, match=r"one size \(width x height\): .*0\.png has 16x16, .* has 16x24\. Give image_"
        ):
            data.load(f"folder:{tmp_path}")
        dataset = data.load(f"folder:{tmp_path}", image_size=12)
        assert dataset.train.images.shape == (13, 3, 12, 12) and dataset.test.images.shape == (6, 3, 12, 12)
        for image, index in zip(dataset.test.images, dataset.test.indices.tolist(), strict=True):
            number = 7 + index % 3
            expected = as_torchvision(Image.fromarray(noise(*SIZES[number], number)), 12)
            assert np.array_equal(image.permute(1, 2, 0), expected)

    @pytest.mark.parametrize("size", [0, -1, 4097, 10**9])
    def test_sizes_that_cannot_be(self, size, tmp_path):
        for of in (data.load, data.stream):
            with pytest.raises(ValueError, match="image_size must be"):
                of(f"folder:{tmp_path}", image_size=size)

    def test_sets_of_arrays_have_one_size_and_no_broken_files(self):
        with pytest.raises(
            ValueError, match="image_size is for photographs in files; the images of 'digits'"
        ):
            data.load("digits", image_size=8)
        with pytest.raises(ValueError, match="skip_broken is for photographs in files"):
            data.load("digits", skip_broken=True)
        with pytest.raises(
            ValueError, match="'digits' is a set that is in memory whole: give it to kdlib.data.load"
        ):
            data.stream("digits")


def colour(label, number):
    """A colour for each image: what came where can be told from its pixels."""
    return 20 * label + 10, number, 0


def write_classes(root, counts, below=""):
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            path = root / below / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 2), colour(label, number)).save(path)


def holds(split):
    """The colours of a split, checked against its labels."""
    colours = [tuple(image[:, 0, 0].tolist()) for image in split.images]
    assert [red // 20 for red, _, _ in colours] == split.labels.tolist()
    return colours


class TestClassesAlone:
    COUNTS = {"ant": 20, "bee": 40, "cat": 11}

    @cut_is_known
    def test_a_fifth_of_each_class_is_cut_for_the_test_whatever_the_seed(self, tmp_path):
        write_classes(tmp_path, self.COUNTS)
        sets = [data.load(f"folder:{tmp_path}", seed=seed) for seed in range(4)]
        for dataset in sets:
            parts = [holds(split) for split in (dataset.train, dataset.validation, dataset.test)]
            whole = {
                colour(label, number) for label, n in enumerate(self.COUNTS.values()) for number in range(n)
            }
            assert sorted(sum(parts, [])) == sorted(whole)
            assert [round(count * 0.2) for count in self.COUNTS.values()] == torch.bincount(
                dataset.test.labels
            ).tolist()
            assert Counter(dataset.validation.labels.tolist()).keys() == {0, 1, 2}
            assert dataset.test.indices.tolist() == sets[0].test.indices.tolist()
        assert len({tuple(dataset.validation.indices.tolist()) for dataset in sets}) == 4

    def test_it_is_said(self, tmp_path):
        write_classes(tmp_path, self.COUNTS)
        for of in (data.load, data.stream):
            with pytest.warns(UserWarning, match="there is no test split: 14 of 71 images") as warned:
                dataset = of(f"folder:{tmp_path}")
            assert [str(one.message) for one in warned] == list(dataset.notes)
            (note,) = dataset.notes
            assert "the same share of each class" in note and "may stand on both sides" in note

    def test_nothing_is_said_where_there_is_a_test_split(self, tmp_path):
        for split in ("train", "test"):
            write_classes(tmp_path, self.COUNTS, split)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert data.load(f"folder:{tmp_path}").notes == ()

    @cut_is_known
    def test_it_is_cut_from_train_too(self, tmp_path):
        write_classes(tmp_path, self.COUNTS, "train")
        dataset = data.load(f"folder:{tmp_path}")
        assert dataset.classes == ["ant", "bee", "cat"] and len(dataset.test) == 14

    def test_the_choice_is_the_same_on_every_machine(self):
        """Pinned: whoever adds the same folder next year must not find other images in the test split."""
        files = ImageFiles(
            [f"{number}" for number in range(20)],
            np.arange(20) % 2,
            np.full(20, "train"),
            np.arange(20),
            ["a", "b"],
        )
        cut = files.with_test()
        assert cut.rows("test").tolist() == [5, 8, 12, 19]
        assert files.rows("test").tolist() == [] and cut.with_test() is cut

    def test_classes_of_fewer_than_three_images_are_refused(self, tmp_path):
        write_classes(tmp_path, {"ant": 5, "bee": 2})
        with pytest.raises(
            ValueError, match=r"the classes \['bee'\] in .* have fewer than three images each"
        ):
            data.load(f"folder:{tmp_path}")

    @cut_is_known
    def test_three_images_of_a_class_are_enough_for_training(self, tmp_path):
        write_classes(tmp_path, {f"class {number}": 3 for number in range(5)})
        dataset = data.load(f"folder:{tmp_path}")
        assert set(dataset.train.labels.tolist()) == set(range(5))
        assert min(len(dataset.validation), len(dataset.test)) >= 1


class TestValidationFolders:
    @pytest.mark.parametrize("name", ["validation", "val", "valid"])
    def test_a_folder_for_validation_is_taken_as_it_is(self, name, tmp_path):
        counts = {"ant": 6, "bee": 8}
        write_classes(tmp_path, counts, "train")
        write_classes(tmp_path, {"ant": 2, "bee": 3}, name)
        write_classes(tmp_path, {"ant": 4, "bee": 4}, "test")
        for seed in (0, 1):
            dataset = data.load(f"folder:{tmp_path}", seed=seed)
            assert [len(holds(part)) for part in (dataset.train, dataset.validation, dataset.test)] == [
                14,
                5,
                8,
            ]
            assert dataset.validation.indices.tolist() == list(range(5))

    @cut_is_known
    def test_without_a_test_folder_that_is_cut_from_the_training_images(self, tmp_path):
        write_classes(tmp_path, {"ant": 10, "bee": 10}, "train")
        write_classes(tmp_path, {"ant": 2, "bee": 3}, "val")
        dataset = data.load(f"folder:{tmp_path}")
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [16, 5, 4]

    def test_a_class_may_lack_in_validation_and_no_other_may_be_there(self, tmp_path):
        for split in ("train", "test"):
            write_classes(tmp_path, {"ant": 4, "bee": 4}, split)
        write_classes(tmp_path, {"bee": 2}, "val")
        found = data.load(f"folder:{tmp_path}").validation.labels.tolist()
        assert found == [1, 1]
        write_classes(tmp_path, {"cow": 2}, "val")
        with pytest.raises(ValueError, match=r"only train has \['ant'\], only validation has \['cow'\]"):
            data.load(f"folder:{tmp_path}")

    def test_two_folders_for_one_split_are_refused(self, tmp_path):
        for split in ("train", "test", "val", "validation"):
            write_classes(tmp_path, {"ant": 4, "bee": 4}, split)
        with pytest.raises(ValueError, match=r"validation and .*val mean the same split: leave one"):
            data.load(f"folder:{tmp_path}")


def table(root, rows, *columns):
    """labels.csv with an image of its own colour for each row."""
    for number, row in enumerate(rows):
        path = root / row[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (number, 0, 0)).save(path)
    with open(root / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


NAMES = ["bee", "ant", "Cow"]


class TestTableOfOneLabel:
    """labels.csv with a column `label`."""

    @cut_is_known
    def test_labels_are_classes_and_the_test_split_is_cut(self, tmp_path):
        table(tmp_path, [(f"{row:02d}.png", NAMES[row % 3]) for row in range(30)], "file", "label")
        sets = [data.load(f"folder:{tmp_path}", seed=seed) for seed in range(2)]
        for dataset in sets:
            assert dataset.classes == ["Cow", "ant", "bee"]
            rows = []
            for split in (dataset.train, dataset.validation, dataset.test):
                assert split.labels.dtype == torch.int64 and split.labels.ndim == 1
                for image, label, index in zip(
                    split.images, split.labels, split.indices.tolist(), strict=True
                ):
                    assert int(image[0, 0, 0]) == index and dataset.classes[label] == NAMES[index % 3]
                    rows.append(index)
            assert sorted(rows) == list(range(30))
            assert torch.bincount(dataset.test.labels).tolist() == [2, 2, 2]
        for split, same in (("test", True), ("validation", False)):
            one, other = (getattr(dataset, split).indices.tolist() for dataset in sets)
            assert (one == other) is same
        assert "there is no test split" in sets[0].notes[0]

    def test_a_column_split_is_followed(self, tmp_path):
        words = ["train", "val", "test", "train", "train", "test"]
        rows = [(f"{row:02d}.png", NAMES[row % 3], words[row // 3]) for row in range(18)]
        table(tmp_path, rows, "Image", "Class", "Split")
        for of in (data.load, data.stream):
            dataset = of(f"folder:{tmp_path}")
            assert dataset.train.indices.tolist() == [0, 1, 2, *range(9, 15)]
            assert dataset.validation.indices.tolist() == [3, 4, 5]
            assert dataset.test.indices.tolist() == [6, 7, 8, 15, 16, 17]
            assert dataset.notes == ()

    def test_folders_say_the_split_too(self, tmp_path):
        rows = [(f"{'test' if row < 3 else 'train'}/{row}.png", NAMES[row % 3]) for row in range(12)]
        table(tmp_path, rows, "file", "label")
        assert data.load(f"folder:{tmp_path}").test.indices.tolist() == [0, 1, 2]

    @cut_is_known
    def test_patients_are_parted_by_no_split_that_is_cut(self, tmp_path):
        rows = [(f"{row:02d}.png", NAMES[row % 3], f"p{row // 4}") for row in range(60)]
        table(tmp_path, rows, "file", "label", "patient")
        tests = set()
        for seed in range(3):
            dataset = data.load(f"folder:{tmp_path}", seed=seed)
            parts = [
                {row // 4 for row in split.indices.tolist()}
                for split in (dataset.train, dataset.validation, dataset.test)
            ]
            assert sum(map(len, parts)) == 15 and set.union(*parts) == set(range(15))
            assert len(dataset.test) == 12
            tests.add(tuple(dataset.test.indices.tolist()))
            assert "whole groups" in dataset.notes[0]
        assert len(tests) == 1

    def test_photographs_of_all_sizes_and_a_broken_one(self, tmp_path):
        rows = [(f"{row:02d}.jpg", NAMES[row % 3], "test" if row < 3 else "train") for row in range(15)]
        table(tmp_path, rows, "file", "label", "split")
        Image.fromarray(noise(33, 20)).save(tmp_path / "07.jpg")
        (tmp_path / "08.jpg").write_bytes(b"\xff\xd8\xff")
        with pytest.raises(ValueError, match=r"cannot read the image .*08\.jpg"):
            data.load(f"folder:{tmp_path}", image_size=8)
        for of in (data.load, data.stream):
            with pytest.warns(UserWarning, match=r"1 broken files were left out .*08\.jpg"):
                dataset = of(f"folder:{tmp_path}", image_size=8, skip_broken=True)
            assert list(dataset.skipped) == [str(tmp_path / "08.jpg")]
            kept = sorted(dataset.train.indices.tolist() + dataset.validation.indices.tolist())
            assert kept == [
                row for row in range(3, 15) if row != 8
            ]  # of the others each keeps its row of the table

    LABELLED = [(f"{row}.png", "ab"[row % 2]) for row in range(9)]
    REFUSALS = {
        r"one class an image in the column 'label', and.*\['labels'\] besides": (
            ["file", "label", "labels"], [("0.png", "a", "b")]
        ),
        r"one class an image in the column 'class', and.*\['age'\] besides": (
            ["file", "class", "age"], [("0.png", "a", 1)]
        ),
        r"'class' and 'label' mean the same": (["file", "class", "label"], [("0.png", "a", "a")]),
        r"line 3: the class is blank: fill it in, or delete the row": (
            ["file", "label"], [("0.png", "a"), ("1.png", "")]
        ),
        r"line 2: the class is blank": (["file", "label"], [("0.png", "NaN"), ("1.png", "a")]),
        r"has one class, 'a': there is nothing to tell": (["file", "label"], LABELLED[::2]),
        r"'Ab' and 'ab' differ in their case alone": (
            ["file", "label"], [("0.png", "ab"), ("1.png", "Ab"), ("2.png", "ab")]
        ),
        r"the classes \['b'\] have fewer than 3 images for train": (["file", "label"], LABELLED[:5]),
        r"the classes \['b'\] have fewer than 2 images for train": (
            ["file", "label", "split"], [(*row, "test" if row[0] == "3.png" else "train") for row in LABELLED[:4]]
        ),
        r"split must be train, validation or test, got ''": (
            ["file", "label", "split"], [(*row, "") for row in LABELLED]
        ),
        r"has no image for train": (["file", "label", "split"], [(*row, "test") for row in LABELLED]),
        r"patient 'p' is in train \(.*line 2\) and in test \(.*line 8\)": (
            ["file", "label", "split", "patient"],
            [(*row, "train" if row[0] < "6" else "test", "p") for row in LABELLED],
        ),
        r"has one patient for train: add another": (
            ["file", "label", "patient"], [(*row, "p") for row in LABELLED]
        ),
    }  # fmt: skip

    @pytest.mark.parametrize("message", REFUSALS)
    def test_refusals(self, message, tmp_path):
        columns, rows = self.REFUSALS[message]
        table(tmp_path, rows, *columns)
        with pytest.raises(ValueError, match=message):
            data.load(f"folder:{tmp_path}")

    def test_a_class_of_the_test_split_that_training_never_sees(self, tmp_path):
        rows = [(f"{row}.png", "ab"[row % 2], "train") for row in range(8)] + [("8.png", "c", "test")]
        table(tmp_path, rows, "file", "label", "split")
        with pytest.raises(ValueError, match=r"the classes \['c'\] have fewer than 2 images for train"):
            data.load(f"folder:{tmp_path}")
