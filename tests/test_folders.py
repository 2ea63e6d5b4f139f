"""Data sets read from a folder of image files."""

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

    @pytest.mark.parametrize("suffix", ["tif", "png", "pgm"])
    def test_sixteen_bits_in_every_container(self, folder, suffix):
        pixels = RNG.integers(0, 65536, (5, 4), dtype=np.uint16)
        assert np.array_equal(read_back(folder, pixels, name=f"0.{suffix}")[0], pixels >> 8)

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

    @pytest.mark.parametrize(
        ("pixels", "reason"),
        [
            (np.zeros((5, 4), dtype=np.float32), "floating-point"),
            (np.full((5, 4), 70_000, np.int32), "16 bits"),
        ],
    )
    def test_pixels_without_a_clear_scale_are_refused(self, folder, pixels, reason):
        with pytest.raises(ValueError, match=rf"0\.tif.*{reason}"):
            read_back(folder, pixels, name="0.tif")


class TestErrors:
    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*PATH/train/CLASS"):
            load(tmp_path / "nowhere")

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_missing_split(self, folder, split):
        (folder / split).rename(folder / "elsewhere")
        with pytest.raises(FileNotFoundError, match=rf"no folder .*{split}: the layout is"):
            load(folder)

    def test_images_without_class_folders(self, tmp_path):
        save(tmp_path / "train" / "0.png", grey())
        with pytest.raises(ValueError, match=r"no class folders in .*train"):
            load(tmp_path)

    def test_classes_that_differ(self, folder):
        (folder / "test" / "cat").rename(folder / "test" / "dog")
        with pytest.raises(ValueError, match=r"only train has \['cat'\], only test has \['dog'\]"):
            load(folder)

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_class_with_no_images(self, folder, split):
        for path in (folder / split / "cat").iterdir():
            path.unlink()
        with pytest.raises(ValueError, match=rf"\['cat'\] in .*{split} have no images"):
            load(folder)

    def test_a_class_with_one_training_image(self, folder):
        for row in range(3):
            (folder / "train" / "cat" / f"{row}.png").unlink()
        with pytest.raises(ValueError, match=r"\['cat'\].*one image each"):
            load(folder)

    @pytest.mark.parametrize("content", [b"", b"not an image"])
    def test_an_unreadable_image_is_named(self, folder, content):
        (folder / "test" / "cat" / "1.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read the image .*cat.1\.png.*replace or delete"):
            load(folder)

    def test_a_broken_chunk_is_named(self, folder):
        path = folder / "train" / "ant" / "0.png"
        save(path, np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
        content = bytearray(path.read_bytes())
        content[content.index(b"IDAT") - 1] = 0  # the length of the chunk: what follows is no chunk name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read the image .*ant.0\.png.*broken PNG"):
            load(folder)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp", "tif"])
    def test_a_truncated_image_is_named(self, folder, suffix):
        path = folder / "train" / "ant" / f"9.{suffix}"
        save(path, coloured())
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ValueError, match=rf"cannot read the image .*9\.{suffix}"):
            load(folder)

    def test_two_sizes_are_both_named(self, folder):
        save(folder / "test" / "cat" / "1.png", coloured(height=7, width=9))
        with pytest.raises(ValueError, match=r"ant.0\.png has 4x5.*cat.1\.png has 9x7\. Resize"):
            load(folder)
