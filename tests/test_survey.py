"""The survey of a folder, what is kept of it, and the labels in dispute."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kdlib.data import ImageSplit, cleaning, likeness
from kdlib.data.disputes import disputed
from kdlib.data.likeness import alike, difference_hash
from kdlib.data.messy import messy_folder
from kdlib.data.survey import survey


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return messy_folder(tmp_path_factory.mktemp("survey") / "garments", images=240, seed=3)


@pytest.fixture(scope="module")
def found(made):
    return survey(made.path)


def groups_of(pairs):
    """Connected files, by repeated joining."""
    groups = []
    for pair in pairs:
        touching = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in touching] + [set(pair).union(*touching)]
    return groups


def picture(seed, size=(40, 30)):
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def saved(folder, name, image, **settings):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **settings)
    return path


# ------------------------------------------------------------------ the survey


def test_what_was_done_to_the_messy_folder_is_found(made, found):
    files = found.files.set_index("file")
    assert len(files) == 240
    assert set(files.index[files["broken"] != ""]) == set(made.broken)
    assert set(files.index[files["turned"]]) == set(made.turned)
    assert {files["broken"][file] for file, kind in made.broken.items() if kind == "empty"} == {
        "the file is empty"
    }
    modes = {"grey": "L", "palette": "P", "alpha": "RGBA", "cmyk": "CMYK", "deep": "I;16"}
    assert all(files["mode"][file] == modes.get(kind, "RGB") for file, kind in made.odd.items())
    for file in files.index[files["turned"]]:
        with Image.open(made.path / file) as image:
            turned = image.getexif()[274] != 3
            assert (files["width"][file], files["height"][file]) == image.size[:: -1 if turned else 1]


def test_twins_of_the_messy_folder_are_found_and_hardly_any_strangers(made, found):
    truth, groups = groups_of(made.twins), cleaning.twins(found)
    together = [any({one, other} <= {*group} for group in groups) for one, other in made.twins]
    assert np.mean(together) >= 0.85
    strangers = [group for group in groups if not any({*group} <= own for own in truth)]
    assert len(strangers) <= 0.1 * len(groups)


def test_pairs_of_two_classes_come_first_and_then_those_that_differ_least(found):
    for table in (found.exact(), found.near(12)):
        assert table["two classes"].is_monotonic_decreasing
        for _, part in table.groupby("two classes"):
            assert part["bits"].is_monotonic_increasing
    assert found.exact()["two classes"].any()


def test_the_same_pixels_are_found_whatever_the_file_is_like(tmp_path):
    image = picture(1)
    saved(tmp_path, "a/one.png", image)
    saved(tmp_path, "a/two.png", image, compress_level=9)
    saved(tmp_path, "b/three.bmp", image)
    saved(tmp_path, "b/four.jpg", image, quality=95)
    found = survey(tmp_path)
    pairs = {tuple(pair) for pair in found.exact()[["file", "other"]].values}
    assert pairs == {("a/one.png", "a/two.png"), ("a/one.png", "b/three.bmp")}
    near = found.near()
    assert {("a/one.png", "b/four.jpg"), ("a/two.png", "b/four.jpg")} <= {
        tuple(pair) for pair in near[["file", "other"]].values
    }
    assert near["two classes"].any() and not near["two splits"].any()


def test_splits_and_classes_follow_from_the_folders(tmp_path):
    saved(tmp_path, "train/cat/1.png", picture(1))
    saved(tmp_path, "test/cat/2.png", picture(1))
    saved(tmp_path, "train/dog/deep/3.png", picture(3))
    saved(tmp_path, "4.png", picture(4))
    saved(tmp_path, "train/.hidden.png", picture(5))
    (tmp_path / "train" / "notes.txt").write_text("no image")
    found = survey(f"folder:{tmp_path}")
    assert found.files[["file", "split", "label"]].values.tolist() == [
        ["4.png", "", ""], ["test/cat/2.png", "test", "cat"], ["train/cat/1.png", "train", "cat"],
        ["train/dog/deep/3.png", "train", "dog"],
    ]  # fmt: skip
    assert found.exact()["two splits"].tolist() == [True]
    assert "split" in repr(found) and "two splits" in repr(found)


def test_it_displays_itself_as_text_and_as_html(found, made):
    text, page = repr(found), found._repr_html_()
    for words in (
        "240 files",
        "Sizes",
        "How they are stored",
        "EXIF",
        "Broken: 4",
        "The same pixels",
        "two classes",
    ):
        assert words in text and words in page, words
    assert str(made.path.parent) not in text + page
    assert "&lt;" in survey_of_odd_names(made)


def survey_of_odd_names(made):
    folder = made.path.parent / "odd names"
    shutil.rmtree(folder, ignore_errors=True)
    saved(folder, "<b>/1.png", picture(1))
    return survey(folder)._repr_html_()


def test_a_folder_of_broken_files_alone_is_told_and_an_empty_one_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="no image files"):
        survey(tmp_path)
    (tmp_path / "cat" / "1.jpg").write_bytes(b"")
    assert "1 files" in repr(survey(tmp_path)) and "none" in repr(survey(tmp_path))
    for given, error in ((tmp_path / "nowhere", FileNotFoundError), (5, TypeError)):
        with pytest.raises(error, match="folder"):
            survey(given)
    for near in (-1, 65, 1.5, True):
        with pytest.raises(ValueError, match="0 to 64"):
            survey(tmp_path, near=near)


# ------------------------------------------------------------------ the hash


def test_the_difference_hash_is_that_of_loops():
    image = np.asarray(picture(7, (9, 8)))
    grey = np.asarray(Image.fromarray(image).convert("L")).astype(int)
    bits = "".join(
        str(int(grey[row, column + 1] > grey[row, column])) for row in range(8) for column in range(8)
    )
    assert int(difference_hash(image)) == int(bits, 2)


def test_a_hash_survives_scaling_saving_and_brightening_but_not_mirroring():
    image = picture(8, (160, 120))
    own = difference_hash(np.asarray(image))
    changed = {
        "smaller": image.resize((64, 48)), "brighter": image.point(lambda value: 20 + 0.85 * value),
        "grey": image.convert("L"), "squashed": image.resize((50, 120)),
    }  # fmt: skip
    for words, other in changed.items():
        assert bin(int(own) ^ int(difference_hash(np.asarray(other)))).count("1") <= 6, words
    mirrored = difference_hash(np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    assert bin(int(own) ^ int(mirrored)).count("1") > 16


def test_pairs_of_hashes_are_all_that_differ_in_so_few_bits(monkeypatch):
    monkeypatch.setattr(likeness, "_ROWS", 7)
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 40, dtype=np.uint64)
    hashes[20:] = hashes[:20] ^ np.uint64(0b1011) * (random.random(20) < 0.5).astype(np.uint64)
    for distance in (0, 2, 3, 30, 64):
        by_loop = [
            (i, j, bits) for i in range(40) for j in range(i + 1, 40)
            if (bits := bin(int(hashes[i]) ^ int(hashes[j])).count("1")) <= distance
        ]  # fmt: skip
        assert sorted(alike(hashes, distance)) == by_loop


def test_ones_are_counted_alike_without_numpy_2(monkeypatch):
    numbers = np.array([[0, 1, 2**63], [2**64 - 1, 5, 255]], dtype=np.uint64)
    expected = [[0, 1, 1], [64, 2, 8]]
    assert likeness._ones(numbers).tolist() == expected
    if hasattr(np, "bitwise_count"):
        monkeypatch.delattr(np, "bitwise_count")
        assert likeness._ones(numbers).tolist() == expected


# ------------------------------------------------------------------ what is kept


def test_each_photograph_is_kept_once_and_none_that_lies_in_two_classes(made, found):
    files = cleaning.kept(found)
    groups = groups_of(
        [pair for table in (found.exact(), found.near()) for pair in table[["file", "other"]].values.tolist()]
    )
    in_groups = set().union(*groups)
    assert not set(files) & set(made.broken)
    assert set(found.files["file"]) - in_groups - set(made.broken) <= set(files)
    for group in groups:
        classes = {file.split("/")[0] for file in group}
        assert len(group & set(files)) == (1 if len(classes) == 1 else 0), group
    assert sorted(map(sorted, groups)) == sorted(map(sorted, cleaning.twins(found)))


def test_the_largest_of_twins_is_kept_and_train_before_test(tmp_path):
    image = picture(2, (90, 60))
    saved(tmp_path, "train/cat/small.png", image.resize((45, 30)))
    saved(tmp_path, "train/cat/large.png", image)
    saved(tmp_path, "test/cat/larger.png", image.resize((180, 120)))
    saved(tmp_path, "test/cat/other.png", picture(3))
    saved(tmp_path, "train/dog/1.png", picture(4))
    saved(tmp_path, "train/cat/1.png", picture(4))
    assert cleaning.kept(survey(tmp_path)) == ["test/cat/other.png", "train/cat/large.png"]


def test_files_are_copied_to_the_same_places_and_the_folder_stays_as_it_is(made, found, tmp_path):
    files = cleaning.kept(found)[:5]
    out = cleaning.copied(found, files, tmp_path / "clean")
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == files
    assert all((out / file).read_bytes() == (made.path / file).read_bytes() for file in files)
    with pytest.raises(ValueError, match="is there already"):
        cleaning.copied(found, files, out)
    with pytest.raises(ValueError, match="nowhere.jpg"):
        cleaning.copied(found, ["nowhere.jpg"], tmp_path / "other")


# ------------------------------------------------------------------ disputed labels


def split_of(labels):
    return ImageSplit(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels))


def by_loops(probabilities, labels):
    """Confident learning as the paper writes it, image by image."""
    classes = range(len(probabilities[0]))
    thresholds = []
    for j in classes:
        own = [row[j] for row, label in zip(probabilities, labels, strict=True) if label == j]
        thresholds.append(sum(own) / len(own) if own else float("inf"))
    found = []
    for number, (row, label) in enumerate(zip(probabilities, labels, strict=True)):
        confident = [j for j in classes if row[j] >= thresholds[j]]
        if confident and (other := max(confident, key=row.__getitem__)) != label:
            found.append((row[other] - row[label], number, other))
    return sorted(found, reverse=True)


def test_disputed_labels_are_those_of_the_paper_by_loops():
    for seed in range(4):
        random = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 4, (60,), generator=random).tolist()
        logits = 2 * torch.randn(60, 5, generator=random)  # nothing is labelled 4
        logits[torch.arange(60), labels] += 1.5
        table = disputed(logits, split_of(labels))
        expected = by_loops(logits.double().softmax(1).tolist(), labels)
        assert table["row"].tolist() == [number for _, number, _ in expected]
        assert (
            table["other"].tolist() == [other for *_, other in expected] and 4 not in table["other"].tolist()
        )
        assert np.allclose(table["margin"], [margin for margin, *_ in expected])
        assert np.allclose(table["p_other"] - table["p_label"], table["margin"])
        assert table["label"].tolist() == [labels[row] for row in table["row"]]


def test_wrong_labels_of_a_sure_network_are_found_and_right_ones_left_alone():
    truth = torch.arange(40) % 4
    labels = truth.clone()
    labels[[3, 17]] = torch.tensor([0, 2])
    logits = 4.0 * torch.nn.functional.one_hot(truth, 4) + 0.1 * torch.randn(
        40, 4, generator=torch.Generator().manual_seed(0)
    )
    logits[[3, 17]] *= 1.5  # surer than on average, or nothing would be said of them
    table = disputed(logits, split_of(labels.tolist()), ["a", "b", "c", "d"])
    assert set(table["row"]) == {3, 17}
    assert set(zip(table["label"], table["other"], strict=True)) == {("a", "d"), ("c", "b")}


def test_logits_that_do_not_fit_are_refused():
    split = split_of([0, 1, 2])
    for logits in (torch.zeros(2, 3), torch.zeros(3, 2)):
        with pytest.raises(ValueError, match="a row for each of the 3 images"):
            disputed(logits, split)
    several = ImageSplit(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.eye(3))
    with pytest.raises(ValueError, match="one class an image"):
        disputed(torch.zeros(3, 3), several)
