"""Data sets read from a folder of images with a table of labels, several labels an image."""

import csv
import os
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from kdlib import data, metrics, models, training
from kdlib.data import splits
from kdlib.training import teacher_recipe

RNG = np.random.default_rng(0)
SPLITS = ("train", "validation", "test")
# Ten images for train and four for test, in both forms.
FILES = [f"train/{row}.png" for row in range(10)] + [f"test/{row}.png" for row in range(4)]
NAMES = ["a|b", "b", "", "No Finding", "a", "b|a", "c", "a", "b", "no finding", "a|c", "", "b", "d"]
A_AND_B = [(1, 1), (0, 1), ("", ""), (0, 0), (0.3, 0)] * 2 + [(1, 0), (0, 1), ("", 0.25), (0, 0)]


def save_images(folder, files=FILES, pixels=None):
    """An image for each file, each with pixels of its own."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        image = RNG.integers(0, 256, (5, 4), dtype=np.uint8) if pixels is None else pixels
        Image.fromarray(image).save(folder / file)


def write(folder, header, rows):
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def by_name(folder, names=NAMES):
    write(folder, ["file", "labels"], zip(FILES, names, strict=True))


def by_column(folder, numbers=A_AND_B):
    write(folder, ["file", "b", "a"], [(file, *row) for file, row in zip(FILES, numbers, strict=True)])


@pytest.fixture
def folder(tmp_path):
    save_images(tmp_path)
    return tmp_path


def load(folder, **options):
    return data.load(f"folder:{folder}", **options)


def refusal(folder, error=ValueError):
    """What is said of the folder, which must be refused."""
    with pytest.raises(error) as refused:
        load(folder)
    return str(refused.value)


def by_row(dataset, part):
    """Row of the table -> its image or labels, of all splits together."""
    found = [
        (int(index), value)
        for split in SPLITS
        for index, value in zip(
            getattr(dataset, split).indices, getattr(getattr(dataset, split), part), strict=True
        )
    ]
    assert len(dict(found)) == len(found)  # no image is in two splits
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


class TestForms:
    def test_names_in_one_column_become_a_class_each(self, folder):
        by_name(folder)
        dataset = load(folder)
        assert dataset.classes == ["a", "b", "c", "d"]
        for row, label in enumerate(by_row(dataset, "labels")):
            names = set(NAMES[row].split("|")) & {"a", "b", "c", "d"}
            assert label.tolist() == [float(name in names) for name in "abcd"], row
        assert dataset.train.labels.dtype == torch.float32 and not dataset.train.has_classes
        assert not dataset.train.labels[:, 3].any()  # no image for train has d, which is allowed

    def test_columns_become_a_class_each_in_the_order_of_the_header(self, folder):
        by_column(folder)
        dataset = load(folder)
        assert dataset.classes == ["b", "a"]
        expected = torch.tensor([[number or 0.0 for number in row] for row in A_AND_B])
        assert torch.equal(torch.stack(by_row(dataset, "labels")), expected)

    def test_images_are_those_that_the_rows_name_and_indices_are_rows(self, folder):
        order = RNG.permutation(len(FILES))
        write(folder, ["labels", "file"], [(NAMES[row], FILES[row]) for row in order])
        dataset = load(folder)
        assert [len(getattr(dataset, split)) for split in SPLITS] == [9, 1, 4]
        for position, image in enumerate(by_row(dataset, "images")):
            assert np.array_equal(image[0], np.asarray(Image.open(folder / FILES[order[position]])))
        assert dataset.test.indices.tolist() == [place for place, row in enumerate(order) if row >= 10]
        assert torch.equal(dataset.test.mean, dataset.train.mean)
        assert torch.allclose(dataset.train.mean, dataset.train.images.double().mean().float() / 255)

    def test_the_headers_of_the_chest_sets_in_any_case_mean_the_same(self, folder):
        by_name(folder)
        expected = torch.stack(by_row(load(folder), "labels"))
        for file, labels, patient in (
            ("Image Index", "Finding Labels", "Patient ID"),
            ("PATH", "LABELS", "PATIENT"),
            (" Path ", "finding labels", "patient id"),
        ):
            write(folder, [file, labels, patient], zip(FILES, NAMES, range(14), strict=True))
            dataset = load(folder)
            assert torch.equal(torch.stack(by_row(dataset, "labels")), expected), file
            assert dataset.classes == ["a", "b", "c", "d"]

    def test_composed_and_combining_letters_name_one_class(self, folder):
        names = [unicodedata.normalize(form, "Ödem") for form in ("NFC", "NFD")] * 7
        by_name(folder, names)
        assert load(folder).classes == [unicodedata.normalize("NFC", "Ödem")]

    def test_coloured_images_and_such_of_sixteen_bits_are_read_as_in_class_folders(self, folder):
        by_name(folder)
        save_images(folder, FILES[:1], np.full((5, 4, 3), (1, 2, 3), np.uint8))
        assert by_row(load(folder), "images")[0][:, 0, 0].tolist() == [1, 2, 3]
        save_images(folder, FILES, np.full((5, 4), 0x8142, np.uint16))
        assert load(folder).test.images.unique().tolist() == [0x81]
        save_images(folder, FILES, np.full((5, 4), 4095, np.uint16))
        assert "Multiply their pixels by 16" in refusal(folder)


class TestSplits:
    def test_a_column_says_the_split_whatever_the_folders_are_called(self, folder):
        words = ["test", "validation", "TRAIN", "val", *["train"] * 10]
        write(folder, ["file", "labels", "split"], zip(FILES, NAMES, words, strict=True))
        dataset = load(folder)
        assert dataset.test.indices.tolist() == [0]
        assert dataset.validation.indices.tolist() == [1, 3]
        assert dataset.train.indices.tolist() == [2, *range(4, 14)]
        assert torch.equal(load(folder, seed=1).validation.indices, dataset.validation.indices)

    def test_without_it_the_first_folder_says_it(self, tmp_path):
        for name in ("validation", "val"):
            folder = tmp_path / name
            files = ["train/p1/s1/0.png", "./train/p2/0.png", f"{name}/p3/0.png", "test/0.png"]
            save_images(folder, files)
            write(folder, ["file", "labels"], [(file, "a") for file in files])
            dataset = load(folder)
            assert [getattr(dataset, split).indices.tolist() for split in SPLITS] == [[0, 1], [2], [3]]

    def test_if_neither_says_it_both_ways_are_named(self, folder):
        for file in ("elsewhere/0.png", "0.png"):
            save_images(folder, [file])
            write(folder, ["file", "labels"], [*zip(FILES, NAMES, strict=True), (file, "a")])
            message = refusal(folder)
            assert f"labels.csv, line 16: nothing says to which split '{file}' belongs" in message
            assert (
                "add a column split" in message and "folders train, validation (or val) and test" in message
            )

    def test_another_word_for_a_split_is_refused(self, folder):
        for word in ("dev", ""):
            rows = [(file, "a", "train") for file in FILES[:3]] + [(FILES[3], "a", word)]
            write(folder, ["file", "labels", "split"], rows)
            assert f"line 5: split must be train, validation or test, got {word!r}" in refusal(folder)

    def test_a_table_without_images_for_train_or_for_test_is_refused(self, folder):
        for split, files in (("train", FILES[10:]), ("test", FILES[:10])):
            write(folder, ["file", "labels"], [(file, "a") for file in files])
            assert f"has no image for {split}" in refusal(folder)

    def test_one_image_for_train_is_too_few_to_cut_from_unless_others_are_for_validation(self, folder):
        rows = [(FILES[0], "a"), (FILES[10], "a")]
        write(folder, ["file", "labels"], rows)
        assert "has one image for train: add another" in refusal(folder)
        save_images(folder, ["val/0.png"])
        write(folder, ["file", "labels"], [*rows, ("val/0.png", "a")])
        assert [len(getattr(load(folder), split)) for split in SPLITS] == [1, 1, 1]

    def test_the_seed_chooses_a_tenth_for_validation(self, tmp_path):
        files = [f"train/{row}.png" for row in range(40)] + ["test/0.png"]
        save_images(tmp_path, files)
        for names in (["a", "b|a"], ["a", "b"]):  # several labels, and one an image: then of each a tenth
            write(tmp_path, ["file", "labels"], [(file, names[row % 2]) for row, file in enumerate(files)])
            cuts = [load(tmp_path, seed=seed).validation for seed in range(4)]
            assert all(len(cut) == 4 for cut in cuts)
            assert len({tuple(cut.indices.tolist()) for cut in cuts}) == 4
            assert torch.equal(load(tmp_path, seed=3).validation.indices, cuts[3].indices)
        assert all(cut.labels.sum(dim=0).tolist() == [2, 2] for cut in cuts)

    def test_a_part_of_the_training_images_can_be_taken(self, folder):
        for writer in (by_name, by_column):
            writer(folder)
            train = load(folder).train
            part = train.take(4, seed=1)
            assert len(part) == 4 and set(part.indices.tolist()) <= set(train.indices.tolist())
            for index, label in zip(part.indices, part.labels, strict=True):
                assert torch.equal(label, train.labels[train.indices == index][0])


class TestPatients:
    def test_a_cut_keeps_patients_together_at_about_a_tenth_of_the_images(self, tmp_path):
        patients = [patient for patient in range(30) for _ in range(1 + patient % 4)]
        files = [f"train/{row}.png" for row in range(len(patients))] + ["test/0.png"]
        save_images(tmp_path, files)
        write(tmp_path, ["file", "labels", "patient"], zip(files, ["a"] * 99, [*patients, 99], strict=False))
        cuts = set()
        for seed in range(8):
            dataset = load(tmp_path, seed=seed)
            train, validation = (
                {patients[row] for row in split.indices} for split in (dataset.train, dataset.validation)
            )
            assert train.isdisjoint(validation) and train | validation == set(range(30))
            assert abs(len(dataset.validation) - len(patients) / 10) <= 1
            cuts.add(tuple(dataset.validation.indices.tolist()))
            again = load(tmp_path, seed=seed)
            assert torch.equal(again.validation.indices, dataset.validation.indices)
            assert torch.equal(again.train.indices, dataset.train.indices)
        assert len(cuts) == 8

    def test_at_least_one_patient_is_cut_and_one_left_whatever_their_sizes(self):
        for sizes in ([1, 1], [5, 5], [1, 100], [100, 1], [3, 50, 50], [7], [2] * 9):
            groups = np.repeat(np.arange(len(sizes)), sizes)
            for seed in range(20):
                rows = splits.in_groups(groups, max(1, round(len(groups) / 10)), seed)
                cut = np.unique(groups[rows])
                assert len(rows) == sum(sizes[group] for group in cut)
                assert 1 <= len(cut) <= max(1, len(sizes) - 1), sizes
                assert len(rows) <= max(min(sizes), 2 * len(groups) / 10), sizes
        in_threes = np.repeat(np.arange(17), 3)
        assert len(splits.in_groups(in_threes, 5, 0)) == 6  # which is nearer to 5 than 3 is

    def test_a_patient_in_two_splits_is_refused_by_name(self, tmp_path):
        files = ["train/0.png", "train/1.png", "val/2.png", "test/3.png"]
        save_images(tmp_path, files)
        for patients, message in (
            (["p1", "p2", "p3", "p2"], r"'p2' is in train \(.*line 3\) and in test \(.*line 5\)"),
            (["p1", "p2", "p1", "p4"], r"'p1' is in train \(.*line 2\) and in validation \(.*line 4\)"),
            (["p1", "p2", "p3", "p3"], r"'p3' is in validation \(.*line 4\) and in test \(.*line 5\)"),
        ):
            write(tmp_path, ["file", "labels", "Patient ID"], zip(files, "aaaa", patients, strict=True))
            with pytest.raises(ValueError, match=f"patient {message}.*leakage"):
                load(tmp_path)

    def test_an_image_without_a_patient_is_refused(self, folder):
        write(folder, ["file", "labels", "patient"], [(file, "a", "") for file in FILES])
        assert "line 2: the patient is blank" in refusal(folder)

    def test_one_patient_for_train_is_too_few_to_cut_from(self, folder):
        write(folder, ["file", "labels", "patient"], [(file, "a", file.split("/")[0]) for file in FILES])
        assert "has one patient for train: add another" in refusal(folder)


class TestFiles:
    def test_a_path_that_is_not_inside_is_refused(self, folder):
        outside = folder.parent / f"{folder.name}-outside.png"
        save_images(folder.parent, [outside.name])
        for name in (f"../{outside.name}", str(outside), "train/../train/0.png", "train\\0.png", "C:/0.png"):
            write(folder, ["file", "labels"], [(FILES[1], "a"), (name, "a"), (FILES[10], "a")])
            message = refusal(folder)
            assert f"line 3: {name!r} must be a path inside {folder}" in message

    def test_a_missing_file_is_named_with_its_line(self, folder):
        for name in ("train/99.png", "train", "train/\0.png", "train/" + 300 * "n"):
            write(folder, ["file", "labels"], [(FILES[0], "a"), (name, "a"), (FILES[10], "a")])
            assert f"line 3: there is no file {name!r}" in refusal(folder, FileNotFoundError)
        for name, meant in (("train/1.PNG", "1.png"), ("train/1", "1.png"), ("train/10", None), ("no/1.png", None)):
            write(folder, ["file", "labels"], [(FILES[0], "a"), (name, "a"), (FILES[10], "a")])
            ending = f": did you mean {meant!r}?" if meant else f"there is no file {name!r} in {folder}"
            assert refusal(folder, FileNotFoundError).endswith(ending), name
        write(folder, ["file", "labels"], [(FILES[0], "a"), ("", "a")])
        assert "line 3: the column for the file is blank" in refusal(folder)

    def test_a_file_that_is_named_twice_is_refused_with_both_lines(self, folder):
        (folder / "train" / "link.png").symlink_to("0.png")
        for name in (FILES[0], f"./{FILES[0]}", "train//0.png", "train/link.png"):
            write(folder, ["file", "labels"], [(FILES[0], "a"), (FILES[10], "b"), (name, "b")])
            with pytest.raises(ValueError, match=rf"line 4: the file '{name}' is the one of .*line 2"):
                load(folder)

    def test_a_link_may_lead_elsewhere(self, folder):
        outside = folder.parent / f"{folder.name}-elsewhere"
        save_images(outside, ["7.png"])
        (folder / FILES[0]).unlink()
        (folder / FILES[0]).symlink_to(outside / "7.png")
        by_name(folder)
        assert np.array_equal(by_row(load(folder), "images")[0][0], np.asarray(Image.open(outside / "7.png")))

    def test_a_damaged_image_and_one_of_another_size_are_named(self, folder):
        by_name(folder)
        save_images(folder, ["test/3.png"], np.zeros((5, 6), np.uint8))
        assert "test/3.png has 6x5" in refusal(folder)
        (folder / "test" / "3.png").write_bytes(b"no image")
        assert f"cannot read the image {folder / 'test' / '3.png'}" in refusal(folder)


class TestClassFolders:
    def test_beside_a_table_that_names_nothing_in_them_they_are_refused(self, folder):
        save_images(folder, ["train/cat/0.png", "train/dog/0.png", "test/cat/0.png"])
        for writer in (by_name, lambda folder: (folder / "labels.csv").write_text("id,breed\n1,cat\n")):
            writer(folder)
            message = refusal(folder)
            assert "holds both labels.csv and folders in train (cat, ...)" in message
            assert "remove labels.csv if the folders are the classes, and these folders if" in message

    def test_the_layout_is_told_with_the_table(self, tmp_path):
        assert "PATH/labels.csv" in refusal(tmp_path)
        assert "PATH/labels.csv" in refusal(tmp_path / "absent", FileNotFoundError)
        assert "PATH/labels.csv" in refusal("")


class TestText:
    def test_marks_line_ends_blank_lines_and_quotes_are_as_spreadsheets_write_them(self, folder):
        (folder / "train" / "0.png").rename(folder / "train" / 'left, "AP".png')
        files = ['"train/left, ""AP"".png"', *FILES[1:]]
        text = "\n".join(
            ["file,labels", *(f"{file},{name}" for file, name in zip(files, NAMES, strict=True))]
        )
        text = text.replace(",a\n", ', "a"\n').replace("\ntrain/4", "\n\ntrain/4")
        for mark in ("", "\N{BOM}"):
            for end in ("\n", "\r\n", "\r"):
                content = (mark + text + end).replace("\n", end).encode("utf-8")
                (folder / "labels.csv").write_bytes(content)
                dataset = load(folder)
                assert dataset.classes == ["a", "b", "c", "d"]
                assert [float(row[0]) for row in by_row(dataset, "labels")][:5] == [1, 0, 0, 0, 1]
        quoted = 'file,"Opacity, left",b\r\n' + "".join(f"{file},1,1\r\n" for file in FILES)
        with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
            file.write(quoted.replace("train/0.png", '"train/left, ""AP"".png"'))
        assert load(folder).classes == ["Opacity, left", "b"]

    def test_lines_are_counted_as_an_editor_counts_them(self, folder):
        for end in ("\n", "\r\n"):
            text = end.join(["file,labels,patient", "", f'{FILES[0]},a,"one', 'two"', "train/99.png,a,b"])
            (folder / "labels.csv").write_bytes(text.encode())
            assert "line 5: there is no file 'train/99.png'" in refusal(folder, FileNotFoundError)

    def test_what_is_no_table_is_refused(self, folder):
        for content, message in (
            (b"", "must have a header and at least one row below it"),
            (b"file,labels\n", "must have a header and at least one row below it"),
            ("file,labels\ntrain/0.png,Ödem\n".encode("latin-1"), "line 2: this is not UTF-8"),
            ("file,labels\ntrain/0.png,a\n".encode("utf-16"), "line 1: this is not UTF-8"),
            (b"file,labels\ntrain/0.png,a,b\n", "line 2: 3 cells stand under the 2 columns"),
            (b"file,labels\ntrain/0.png\n", "line 2: 1 cells stand under the 2 columns"),
            (b'file,labels\ntrain/0.png,a\ntrain/1.png,"a\n', "line 3: this is no row of comma-separated values"),
            (b"file;labels\ntrain/0.png;a\n", "no column file, .*: separate the columns by commas"),
            (b"file;split;a\ntrain/0.png;train;0,5\n", "line 2: 2 cells .* separate the columns by commas, and write"),
            (b"file;split;left, a\ntrain/0.png;train;1\n", "line 2: 1 cells .* separate the columns by commas"),
            (b"sep=,\nfile,split,a\ntrain/0.png,train,1\n", "line 2: 3 cells .* delete the first line, .* Excel"),
            (b"id,labels\ntrain/0.png,a\n", r"no column file, Image Index or Path in its header \['id', 'labels'\]"),
            (b",file,a\n0,train/0.png,1\n", r"column 1 has no name: .*index=False"),
            (b"file,a,Path\ntrain/0.png,1,x\n", "columns 'file' and 'Path' mean the same"),
            (b"file,a,a\ntrain/0.png,1,1\n", "columns 'a' and 'a' mean the same"),
            (b"file,split\ntrain/0.png,test\n", "has no labels: add a column labels, or a column for each class"),
            (b"file,Labels,Patient Age\ntrain/0.png,a,58\n", r"column 'Labels', and the columns \['Patient Age'\]"),
        ):  # fmt: skip
            (folder / "labels.csv").write_bytes(content)
            with pytest.raises(ValueError, match=message):
                load(folder)

    def test_a_table_that_this_user_may_not_read_is_named(self):
        """In a process of its own, which gives up the rights of root where it has them."""
        code = (
            "import os, sys; from kdlib.data import _records; from pathlib import Path\n"
            "if os.geteuid() == 0: os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
            "try: _records.read(Path(sys.argv[1])); print('read')\n"
            "except ValueError as error: print(error)\n"
        )
        with tempfile.TemporaryDirectory() as open_to_all:  # pytest's own folders are not
            os.chmod(open_to_all, 0o755)
            table = Path(open_to_all, "labels.csv")
            table.write_bytes(b"")
            table.chmod(0)
            command = [sys.executable, "-c", code, str(table)]
            process = subprocess.run(command, capture_output=True, text=True)
        expected = f"cannot read {table} (Permission denied): allow this user to read it\n"
        assert process.stdout == expected, process.stderr


class TestLabels:
    def test_numbers_that_are_no_labels_are_refused_with_line_and_column(self, folder):
        for wrong, message in (
            (-1, r"'a' holds -1 \(uncertain\), .* write 1 or 0 .* or a number between"),
            ("-1.0", r"'a' holds -1 \(uncertain\)"),
            (58, r"'a' holds 58, which is not in \[0, 1\].*delete the column"),
            (1.01, r"'a' holds 1\.01, which is not in"),
            ("nan", "'a' holds nan, which is not in .* leave the cell blank where it means 0"),
            ("inf", "'a' holds inf, which is not in"),
            ("Female", "'a', which is read as a class, holds the text 'Female': delete the column"),
            ("0,5", "'a', which is read as a class, holds the text '0,5'"),
        ):
            by_column(folder, [*A_AND_B[:3], (1, wrong), *A_AND_B[4:]])
            with pytest.raises(ValueError, match=f"line 5: the column {message}"):
                load(folder)

    def test_a_column_that_is_0_for_all_training_images_is_refused(self, folder):
        by_column(folder, [(1, 0)] * 10 + [(1, 1)] * 4)
        assert "no image for train has a number above 0 in the columns ['a']" in refusal(folder)
        by_column(folder, [(1, 0)] * 9 + [(1, 0.01)] + [(1, 1)] * 4)
        assert load(folder).classes == ["b", "a"]

    def test_labels_and_no_finding_at_once_are_refused(self, folder):
        by_name(folder, ["a", "a|No Finding", *NAMES[2:]])
        assert "line 3: 'a|No Finding' means some labels and none" in refusal(folder)

    def test_what_programs_write_for_a_blank_is_no_label(self, folder):
        for blank in ("nan", "NaN", "NA", "N/A", "None", "null"):
            by_name(folder, ["a", blank, *NAMES[2:]])
            assert f"line 3: the label {blank!r} stands for none: leave the cell blank" in refusal(folder)

    def test_labels_that_are_separated_otherwise_are_refused(self, folder):
        for cell in ("a;b", "['a', 'b']"):
            by_name(folder, ["a", cell, *NAMES[2:]])
            assert f"line 3: {cell!r} must be names separated by |" in refusal(folder)
        for cell in ("a,b", "a, b"):
            by_name(folder, ["a", cell, *NAMES[2:]])
            assert f"the label {cell!r} consists of others: separate the labels of an image by |" in refusal(folder)
        by_name(folder, ["a", "Opacity, left", *NAMES[2:]])
        assert "Opacity, left" in load(folder).classes

    def test_one_label_in_two_cases_is_refused_but_letters_may_be_labels(self, folder):
        by_name(folder, ["Effusion", "effusion", *NAMES[2:]])
        assert "the labels 'Effusion' and 'effusion' differ in their case alone: write them alike" in refusal(folder)
        by_name(folder, ["A", "a", *NAMES[2:]])
        assert load(folder).classes == ["A", "a", "b", "c", "d"]

    def test_a_table_that_gives_no_image_a_label_is_refused(self, folder):
        by_name(folder, ["", "No Finding"] * 7)
        assert "gives no image a label" in refusal(folder)


def test_a_network_learns_the_labels_of_a_table_and_is_scored_on_its_test_split(tmp_path):
    """Three labels, each a bright stripe of its own."""
    files = [f"train/{row}.png" for row in range(120)] + [f"test/{row}.png" for row in range(60)]
    has = RNG.random((len(files), 3)) < 0.5
    for file, stripes in zip(files, has, strict=True):
        image = RNG.integers(0, 60, (12, 12), dtype=np.uint8)
        for stripe in np.flatnonzero(stripes):
            image[4 * stripe + 1 : 4 * stripe + 3] += 180
        save_images(tmp_path, [file], image)
    names = ["|".join(name for name, there in zip("xyz", row, strict=True) if there) for row in has]
    write(tmp_path, ["file", "labels", "patient"], zip(files, names, np.arange(180) // 2, strict=True))
    dataset = load(tmp_path)
    network = models.build("tiny-cnn", num_classes=3, in_channels=1, image_size=12, seed=0)
    before = metrics.mean_average_precision(network, dataset.test)
    history = training.train(
        network, dataset.train, epochs=1, batch_size=4, learning_rate=0.01, progress=False,
        task_loss=F.binary_cross_entropy_with_logits, validation=dataset.validation,
    )  # fmt: skip
    assert len(history.records) == 1
    assert metrics.mean_average_precision(network, dataset.test) > max(before, 0.7)


def test_train_teacher_refuses_several_labels_before_it_trains_or_writes(folder, tmp_path):
    by_name(folder, ["a", "b"] * 7)  # they sum to 1, so cross-entropy would take them
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match="this recipe is for one class an image: train by kdlib.training.train"
    ):
        teacher_recipe.train_teacher(f"folder:{folder}", out=out, epochs=1, progress=False)
    assert not out.exists()
