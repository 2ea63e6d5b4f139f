"""Data sets read from a folder of image files."""

import os
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdlib import data

RNG = np.random.default_rng(0)


def grey(height=5, width=4):
    return RNG.integers(0, 256, (height, width), dtype=np.uint8)


def coloured(height=5, width=4):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes of coloured images: four to train and two to test in each."""
    for split, number in (("train", 4), ("test", 2)):
        for name in ("cat", "ant"):
            for row in range(number):
                save(tmp_path / split / name / f"{row}.png", coloured())
    return tmp_path


def load(folder):
    return data.load(f"folder:{folder}")


def read_back(folder, pixels, **options):
    """The pixels of one image that takes the place of a training image, as it comes out of the loader."""
    name = options.pop("name", "0.png")
    (folder / "train" / "ant" / "0.png").unlink()
    save(folder / "train" / "ant" / name, pixels, **options)
    dataset = load(folder)
    for split in (dataset.train, dataset.validation):
        for index, image in zip(split.indices, split.images, strict=True):
            if index == 0:
                return image.numpy()
    raise AssertionError("image 0 is in neither split")


class TestRoundTrip:
    def test_pixels_labels_and_indices(self, folder):
        dataset = load(folder)
        assert dataset.classes == ["ant", "cat"]
        assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [7, 1, 4]
        files = {split: sorted((folder / split).rglob("*.png")) for split in ("train", "test")}
        for split, paths in ((dataset.train, files["train"]), (dataset.test, files["test"])):
            for image, label, index in zip(split.images, split.labels, split.indices, strict=True):
                expected = np.asarray(Image.open(paths[index]))
                assert np.array_equal(image.permute(1, 2, 0), expected)
                assert dataset.classes[label] == paths[index].parent.name
        cut = sorted([*dataset.train.indices.tolist(), *dataset.validation.indices.tolist()])
        assert cut == list(range(8))

    def test_loading_twice_gives_the_same(self, folder):
        assert load(folder).train.digest() == load(folder).train.digest()

    def test_grey_images_stay_one_channel(self, tmp_path):
        for split in ("train", "test"):
            for row in range(2):
                save(tmp_path / split / "one" / f"{row}.jpg", grey())
        assert load(tmp_path).train.images.shape == (1, 1, 5, 4)

    def test_grey_among_coloured_becomes_three_equal_channels(self, folder):
        pixels = grey()
        assert np.array_equal(read_back(folder, pixels), np.stack([pixels] * 3))

    def test_subfolders_are_read_and_other_files_left_out(self, folder):
        save(folder / "train" / "ant" / "deeper" / "9.PNG", coloured(), format="PNG")
        save(folder / "train" / "ant" / ".ipynb_checkpoints" / "0.png", coloured())
        for name in ("Thumbs.db", "._0.png", "notes.txt"):
            (folder / "train" / "ant" / name).write_bytes(b"not an image")
        (folder / "train" / ".cache").mkdir()
        dataset = load(folder)
        assert dataset.classes == ["ant", "cat"]
        assert len(dataset.train) + len(dataset.validation) == 9

    def test_home_is_expanded(self, folder, monkeypatch):
        monkeypatch.setenv("HOME", str(folder.parent))
        assert len(load(f"~/{folder.name}").test) == 4


class TestPixelFormats:
    def test_sixteen_bits_keep_the_upper_eight(self, folder):
        pixels = np.array([[0, 255, 256], [32768, 65535, 513]], dtype=np.uint16).repeat(2, axis=1)[:, :4]
        pixels = np.vstack([pixels, pixels, pixels[:1]])
        assert np.array_equal(read_back(folder, pixels)[0], pixels >> 8)

    def test_sixteen_bits_in_every_container(self, folder):
        pixels = RNG.integers(0, 65536, (5, 4), dtype=np.uint16)
        for suffix in ("tif", "png", "pgm"):
            save(folder / "train" / "ant" / "0.png", coloured())
            assert np.array_equal(read_back(folder, pixels, name=f"0.{suffix}")[0], pixels >> 8), suffix
            (folder / "train" / "ant" / f"0.{suffix}").unlink()

    def test_numbers_of_fewer_bits_in_files_of_sixteen_are_refused_with_what_to_multiply_by(self, tmp_path):
        """Their upper eight bits are nearly black: 4095 becomes 15 of 255."""
        for bits, factor in ((10, 64), (12, 16), (14, 4)):
            for suffix in ("png", "tif"):
                folder = tmp_path / f"{bits} {suffix}"
                for row in range(6):
                    pixels = RNG.integers(0, 2**bits, (5, 4), dtype=np.uint16)
                    pixels[0, 0] = 2**bits - 1
                    save(folder / ("train" if row < 4 else "test") / "one" / f"{row}.{suffix}", pixels)
                message = rf"reach only {2**bits - 1} of 65535 .*of {bits} bits.*by {factor}, or save them with 8 bits"
                with pytest.raises(ValueError, match=message):
                    load(folder)

    def test_coloured_numbers_of_fewer_bits_in_files_of_sixteen_are_refused_too(self, folder):
        """Pillow gives the upper eight bits of coloured files and does not say that there were more."""
        for colour_type, channels in ((2, 3), (4, 2), (6, 4)):
            for bits, bright in ((12, False), (16, True)):
                numbers = np.full((5, 4, channels), 2**bits - 1, dtype=">u2")
                numbers[..., 3 if channels == 4 else 2 :] = 65535  # alpha, but blue where there is none
                if channels == 3:
                    numbers[..., 2] = 2**bits - 1
                content = png_of_sixteen_bits(numbers, colour_type)
                for path in folder.rglob("*.png"):
                    path.write_bytes(content)
                if bright:
                    assert (load(folder).train.images == 255).all(), colour_type
                else:
                    with pytest.raises(ValueError, match=r"reach only 3855 of 65535.*12 bits.*by 16"):
                        load(folder)

    def test_numbers_of_eight_bits_in_a_file_of_sixteen_are_refused(self, folder):
        with pytest.raises(
            ValueError, match=r"0\.png .*16 bits but reach only 255 of 65535, save them with 8"
        ):
            read_back(folder, np.full((5, 4), 255, dtype=np.uint16))

    def test_a_dark_image_among_bright_ones_of_sixteen_bits_stays_dark(self, folder):
        save(folder / "train" / "ant" / "1.png", np.full((5, 4), 60_000, dtype=np.uint16))
        assert (read_back(folder, np.full((5, 4), 3_000, dtype=np.uint16)) == 3_000 >> 8).all()

    def test_several_pages_or_frames_are_refused(self, folder):
        frames = [Image.fromarray(coloured()) for _ in range(3)]
        for suffix in ("gif", "tif", "webp", "png"):
            path = folder / "train" / "ant" / f"9.{suffix}"
            save(path, frames[0], save_all=True, append_images=frames[1:])
            with pytest.raises(ValueError, match=rf"9\.{suffix} \(it holds 3 pages or frames, save the one"):
                load(folder)
            path.unlink()

    def test_the_first_picture_of_a_photograph_with_several_is_read(self, folder):
        """Phones write such files (MPO) under the name .jpg: a photograph, and a map of its brightness."""
        frames = [Image.new("RGB", (4, 5), colour) for colour in ("red", "black")]
        image = read_back(
            folder, frames[0], name="0.jpg", format="MPO", save_all=True, append_images=frames[1:]
        )
        assert image[0].min() > 250 and image[1:].max() < 5

    def test_grey_with_alpha_stays_grey(self, tmp_path):
        pixels = np.dstack([grey(), np.full((5, 4), 255, dtype=np.uint8)])
        for split in ("train", "test"):
            for row in range(2):
                save(tmp_path / split / "one" / f"{row}.png", Image.fromarray(pixels))
        dataset = load(tmp_path)
        assert dataset.train.images.shape == (1, 1, 5, 4)
        assert np.array_equal(dataset.train.images[0, 0], pixels[..., 0])

    def test_images_under_other_suffixes_are_read_and_not_left_out(self, folder):
        for suffix, options in (
            ("jfif", {"format": "JPEG"}),
            ("jpe", {"format": "JPEG"}),
            ("pnm", {}),
            ("tga", {}),
        ):
            save(folder / "train" / "ant" / f"9.{suffix}", coloured(), **options)
        assert len(load(folder).train) + len(load(folder).validation) == 12
        (folder / "train" / "ant" / "9.heic").write_bytes(b"\0\0\0\x18ftypheic")
        with pytest.raises(ValueError, match=r"cannot read the image .*9\.heic"):
            load(folder)

    def test_palette(self, folder):
        image = Image.fromarray(coloured()).quantize(16)
        assert np.array_equal(read_back(folder, image).transpose(1, 2, 0), np.asarray(image.convert("RGB")))

    def test_one_bit(self, folder):
        pixels = grey() > 127
        assert np.array_equal(read_back(folder, Image.fromarray(pixels))[0], pixels * np.uint8(255))

    def test_cmyk(self, folder):
        image = Image.new("CMYK", (4, 5), (0, 255, 255, 0))
        red, green, blue = read_back(folder, image, name="0.jpg").reshape(3, -1).mean(axis=1)
        assert red > 200
        assert max(green, blue) < 60

    def test_transparent_pixels_become_white(self, folder):
        pixels = np.dstack([coloured(), np.full((5, 4), 255, dtype=np.uint8)])
        pixels[0, 0] = (10, 20, 30, 0)
        expected = pixels[..., :3].copy()
        expected[0, 0] = 255
        assert np.array_equal(read_back(folder, pixels).transpose(1, 2, 0), expected)

    def test_exif_rotation_is_applied(self, folder):
        pixels, exif = coloured(height=4, width=5), Image.Exif()
        exif[0x0112] = 6  # to be shown after a quarter turn clockwise
        expected = np.rot90(pixels, k=-1)
        assert np.array_equal(read_back(folder, pixels, exif=exif).transpose(1, 2, 0), expected)

    def test_pixels_without_a_clear_scale_are_refused(self, folder):
        for pixels, reason in (
            (
                np.zeros((5, 4), dtype=np.float32),
                "floating-point numbers, save them as whole numbers from 0 to 255",
            ),
            (
                np.full((5, 4), 70_000, dtype=np.int32),
                "from 70000 to 70000, but of 16 bits they go from 0 to 65535",
            ),
            (np.full((5, 4), -3, dtype=np.int32), "from -3 to -3"),
        ):
            save(folder / "train" / "ant" / "0.png", coloured())
            with pytest.raises(ValueError, match=rf"0\.tif.*{reason}"):
                read_back(folder, pixels, name="0.tif")
            (folder / "train" / "ant" / "0.tif").unlink()


def png_of_sixteen_bits(numbers, colour_type):
    """A PNG file, written by hand: Pillow writes 16 bits of grey images only."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width, _ = numbers.shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in numbers)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class TestImagesThatAreLeftOut:
    """Silence would let somebody believe that all his images were seen."""

    def test_beside_the_splits_and_outside_the_classes_they_are_named(self, folder):
        assert load(folder).notes == ()
        (folder / "notes").mkdir()
        (folder / "notes" / "read-me.txt").write_text("no image")
        assert load(folder).notes == ()
        for place in ("more/cat/0.png", "train/0.png", "0.png"):
            save(folder / place, coloured())
            with pytest.warns(UserWarning, match="images outside the class folders of every split are left out"):
                found = load(folder)
            outermost = folder / place.partition("/")[0] if place.startswith("more") else folder / place
            assert any(str(outermost) in note for note in found.notes)
            assert len(found.train) + len(found.validation) == 8

    def test_beside_class_folders_alone_too(self, tmp_path):
        for row in range(4):
            save(tmp_path / "ant" / f"{row}.png", coloured())
        save(tmp_path / "loose.png", coloured())
        with pytest.warns(UserWarning, match=r"left out: .*loose\.png"):
            load(tmp_path)


class TestLinks:
    def test_a_loop_of_links_multiplies_nothing(self, folder):
        expected = load(folder)
        for target in (".", "..", "../..", "../../train", "../ant"):
            link = folder / "train" / "ant" / "loop"
            link.symlink_to(target, target_is_directory=True)
            found = load(folder)
            assert found.train.digest() == expected.train.digest(), target
            assert len(found.validation) == len(expected.validation), target
            link.unlink()
        for one, other in (("here", "there"), ("there", "here")):
            (folder / "train" / "cat" / one).mkdir()
            (folder / "train" / "cat" / one / "on").symlink_to(f"../{other}", target_is_directory=True)
        assert load(folder).train.digest() == expected.train.digest()

    def test_a_file_to_which_several_links_lead_counts_once(self, folder):
        expected = load(folder).train.digest()
        (folder / "train" / "ant" / "again.png").symlink_to("3.png")
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere" / "3.png").symlink_to("../train/ant/3.png")
        (folder / "train" / "ant" / "deeper").symlink_to("../../elsewhere", target_is_directory=True)
        assert load(folder).train.digest() == expected

    def test_classes_may_be_links_to_folders_elsewhere(self, folder):
        expected = load(folder)
        (folder / "kept").mkdir()
        for split in ("train", "test"):
            (folder / split / "ant").rename(folder / "kept" / split)
            (folder / split / "ant").symlink_to(f"../kept/{split}", target_is_directory=True)
        assert load(folder).train.digest() == expected.train.digest()

    def test_a_file_in_two_classes_or_in_train_and_test_is_refused_naming_both_places(self, folder):
        for link, target in (
            ("train/dog", "cat"),  # a class that is a link to another
            ("train/cat/9.png", "../ant/2.png"),
            ("test/cat/9.png", "../../train/cat/2.png"),
            ("test/cat/more", "../../train/cat"),
        ):
            (folder / link).symlink_to(target, target_is_directory=not target.endswith(".png"))
            if link == "train/dog":
                save(folder / "test" / "dog" / "0.png", coloured())
            with pytest.raises(
                ValueError, match=r"train.* and .*(train|test).* are links to one file.*one class"
            ):
                load(folder)
            (folder / link).unlink()
            if link == "train/dog":
                (folder / "test" / "dog" / "0.png").unlink()
                (folder / "test" / "dog").rmdir()

    def test_test_may_not_be_a_link_to_train(self, folder):
        (folder / "test").rename(folder / "kept")
        (folder / "test").symlink_to("train", target_is_directory=True)
        with pytest.raises(ValueError, match="are links to one file"):
            load(folder)

    def test_a_link_that_leads_nowhere_is_named(self, folder):
        for link in ("train/dog", "train/ant/more", "train/ant/9.png"):
            (folder / link).symlink_to("gone")
            with pytest.raises(
                ValueError, match=rf"the link .*{os.path.basename(link)} leads nowhere: mend or"
            ):
                load(folder)
            (folder / link).unlink()


class TestNames:
    def test_any_name_may_stand_in_the_path_and_be_a_class(self, tmp_path):
        for name in ("a b", "a-b", "caf\u00e9", "\u732b", "it's", "50% off", "a:b", "#1", "*", "[x]", "-r"):
            for split in ("train", "test"):
                for row in range(2):
                    save(tmp_path / name / split / name / f"{row}.png", grey())
            dataset = load(tmp_path / name)
            assert dataset.classes == [name] and len(dataset.test) == 2, name

    def test_composed_and_combining_letters_name_one_class(self, tmp_path):
        for split, form in (("train", "NFC"), ("test", "NFD")):
            for row in range(2):
                save(tmp_path / split / unicodedata.normalize(form, "caf\u00e9") / f"{row}.png", grey())
        assert load(tmp_path).classes == ["caf\u00e9"]


class TestErrors:
    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*PATH/train/CLASS"):
            load(tmp_path / "nowhere")

    def test_images_for_the_test_alone(self, folder):
        (folder / "train").rename(folder / "elsewhere")
        with pytest.raises(FileNotFoundError, match=r"no folder .*train: the layout is"):
            load(folder)

    def test_a_file_in_place_of_a_folder(self, folder):
        (folder / "file").write_bytes(b"")
        with pytest.raises(FileNotFoundError, match=r"no folder .*file: the layout is"):
            load(folder / "file")
        for path in ("", "\0"):
            with pytest.raises(ValueError, match="has no path of a folder behind 'folder:'"):
                load(path)

    def test_images_without_class_folders(self, tmp_path):
        save(tmp_path / "train" / "0.png", grey())
        with pytest.raises(ValueError, match=r"no class folders in .*train"):
            load(tmp_path)

    def test_classes_that_differ(self, folder):
        (folder / "test" / "cat").rename(folder / "test" / "dog")
        with pytest.raises(ValueError, match=r"only train has \['cat'\], only test has \['dog'\]"):
            load(folder)

    def test_a_class_with_no_images(self, folder):
        for split in ("test", "train"):
            for path in (folder / split / "cat").iterdir():
                path.unlink()
            with pytest.raises(ValueError, match=rf"\['cat'\] in .*{split} have no images"):
                load(folder)

    def test_a_class_with_one_training_image(self, folder):
        for row in range(3):
            (folder / "train" / "cat" / f"{row}.png").unlink()
        with pytest.raises(ValueError, match=r"\['cat'\].*one image each"):
            load(folder)

    def test_an_unreadable_image_is_named(self, folder):
        for content in (b"", b"not an image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4"):
            (folder / "test" / "cat" / "1.png").write_bytes(content)
            with pytest.raises(ValueError, match=r"cannot read the image .*cat.1\.png.*replace or delete"):
                load(folder)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on this system")
    def test_a_named_pipe_is_refused_and_not_waited_for(self, folder):
        os.mkfifo(folder / "train" / "ant" / "9.png")
        with pytest.raises(ValueError, match=r"9\.png has the name of an image but is no file"):
            load(folder)

    @pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no such permissions on this system")
    def test_what_this_user_may_not_read_is_named_and_not_left_out(self):
        """In a process of its own, which gives up the rights of root where it has them."""
        code = (
            "import os, sys; from kdlib.data import folders, pixels; from pathlib import Path\n"
            "if os.geteuid() == 0: os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
            "for read in (lambda: folders.entries(sys.argv[1]), lambda: pixels.read(Path(sys.argv[2]))):\n"
            "    try: read(); print('read')\n"
            "    except ValueError as error: print(error)\n"
        )
        with tempfile.TemporaryDirectory() as open_to_all:  # pytest's own folders are not
            os.chmod(open_to_all, 0o755)
            folder, file = Path(open_to_all, "hidden"), Path(open_to_all, "0.png")
            folder.mkdir(mode=0)
            save(file, coloured())
            file.chmod(0)
            process = subprocess.run(
                [sys.executable, "-c", code, str(folder), str(file)], capture_output=True, text=True
            )
        assert process.stdout.splitlines() == [
            f"cannot read the folder {folder} (Permission denied): allow this user to read it",
            f"cannot read the image {file} (Permission denied): allow this user to read it",
        ], process.stderr

    def test_a_broken_chunk_is_named(self, folder):
        path = folder / "train" / "ant" / "0.png"
        save(path, np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
        content = bytearray(path.read_bytes())
        content[content.index(b"IDAT") - 1] = 0  # the length of the chunk: what follows is no chunk name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read the image .*ant.0\.png.*broken PNG"):
            load(folder)

    def test_a_truncated_image_is_named(self, folder):
        for suffix in ("png", "jpg", "gif", "webp", "bmp", "tif"):
            path = folder / "train" / "ant" / f"9.{suffix}"
            save(path, coloured())
            path.write_bytes(path.read_bytes()[:-40])
            with pytest.raises(ValueError, match=rf"cannot read the image .*9\.{suffix}"):
                load(folder)
            path.unlink()

    def test_two_sizes_are_both_named(self, folder):
        save(folder / "test" / "cat" / "1.png", coloured(height=7, width=9))
        with pytest.raises(ValueError, match=r"ant.0\.png has 4x5.*cat.1\.png has 9x7\. Give image_size="):
            load(folder)
