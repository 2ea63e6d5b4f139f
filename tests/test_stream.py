"""Images that are decoded when they are needed: the same training, bit for bit, in little memory."""

import copy
import multiprocessing
import pickle
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.transforms import v2

from kdlib import _files, _logit_cache, data, inference, metrics, models, sweeps, teachers, training
from kdlib.data import items, scanning, streams
from kdlib.data.augment import random_crop_flip
from kdlib.training import augmentation

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:there is no test split"),
]
CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder and a memory of this test's own."""
    monkeypatch.setattr(_files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(_logit_cache, "_memory", {})
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, own_cache):
    """Photographs of many sizes, 16 in each of three classes."""
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        for row in range(16):
            height, width = random.integers(12, 40, 2)
            pixels = random.integers(0, 256, (height, width, 3)) * (number + 1) // 3
            path = tmp_path / "photographs" / name / f"{row}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "photographs"


@pytest.fixture
def with_workers(monkeypatch):
    """Processes decode although there are few images."""
    monkeypatch.setattr(streams, "_FEW", 1)


def both(folder, **options):
    name = f"folder:{folder}"
    return data.load(name, image_size=12, **options), data.stream(name, image_size=12, **options)


def student(seed=0, image_size=12):
    return models.build("tiny-cnn", num_classes=3, in_channels=3, image_size=image_size, seed=seed)


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_stream_has_the_images_labels_and_statistics_of_the_set_in_memory(folder, with_workers):
    loaded, streamed = both(folder)
    for split in ("train", "validation", "test"):
        one, other = getattr(loaded, split), getattr(streamed, split)
        assert len(one) == len(other) and tuple(one.images.shape) == tuple(other.images.shape)
        assert torch.equal(one.images, other.in_memory().images) and torch.equal(one.labels, other.labels)
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)
    assert loaded.classes == streamed.classes == list(CLASSES) and streamed.notes == loaded.notes


def test_any_rows_can_be_asked_for_as_of_a_tensor(folder):
    loaded, streamed = both(folder)
    images, decoded = loaded.train.images, streamed.train.images
    mask = torch.arange(len(images)) % 3 == 0
    for positions in (
        0,
        -1,
        slice(2, 9, 3),
        torch.tensor([5, 5, 1]),
        mask,
        torch.tensor([[1, 2], [3, 4]]),
        [3, 0],
    ):
        assert torch.equal(images[positions], decoded[positions])
    assert torch.equal(loaded.train.normalized([1, 4]), streamed.train.normalized([1, 4]))
    taken = streamed.train.take(9, seed=3)
    assert isinstance(taken, data.StreamSplit)
    assert torch.equal(taken.in_memory().images, loaded.train.take(9, seed=3).images)
    with pytest.raises(AttributeError, match="decoded when they are needed and have no 'float'.*in_memory"):
        decoded.float()
    with pytest.raises(ValueError, match="positions must choose at least one"):
        streamed.train.subset([])


@pytest.mark.parametrize("options", [{}, {"augment": v2.RandomHorizontalFlip()}, {"batch_size": 7}])
def test_a_training_on_a_stream_is_that_on_the_same_images_in_memory_bit_for_bit(
    folder, options, with_workers
):
    students = []
    for dataset in both(folder):
        students.append(student())
        training.distill(
            students[-1], student(seed=1), dataset.train, epochs=2, validation=dataset.validation, progress=False,
            **options,
        )  # fmt: skip
    assert same_weights(*students) and not same_weights(students[0], student())


def test_the_order_of_the_images_is_that_of_the_seed_and_the_global_generator_is_left_alone(
    folder, with_workers
):
    _, streamed = both(folder)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    weights = []
    for seed in (0, 0, 1):
        weights.append(student())
        training.train(weights[-1], streamed.train, epochs=1, seed=seed, progress=False)
    assert same_weights(weights[0], weights[1]) and not same_weights(weights[0], weights[2])
    assert torch.equal(before, torch.get_rng_state())


def test_metrics_logits_and_sweeps_take_a_stream(folder):
    loaded, streamed = both(folder)
    network = student()
    assert metrics.accuracy(network, streamed.test) == metrics.accuracy(network, loaded.test)
    expected = inference.predict_logits(network, loaded.train)
    assert torch.equal(teachers.cached_logits(network, streamed.train), expected)
    tables = [
        sweeps.run(
            "tiny-cnn",
            network,
            dataset.train,
            dataset.test,
            temperatures=[2.0],
            alphas=[0.5],
            seeds=[0, 1],
            epochs=1,
            workers=1,
        )  # fmt: skip
        for dataset in (loaded, streamed)
    ]
    assert tables[0]["accuracy"].tolist() == tables[1]["accuracy"].tolist()


def test_views_of_a_stream_are_fixed_and_their_answers_looked_up_by_view(folder, monkeypatch, with_workers):
    _, streamed = both(folder)
    asked = []
    own = inference.predict_logits

    def counting(model, split, **options):
        asked.append(len(split))
        return own(model, split, **options)

    monkeypatch.setattr(_logit_cache, "predict_logits", counting)
    flip = v2.RandomResizedCrop(12, antialias=True)
    learned = []
    for _ in range(2):
        learned.append(student())
        training.distill(
            learned[-1], student(seed=1), streamed.train, epochs=3, augment=flip, views=2, progress=False
        )
    assert same_weights(*learned)
    assert max(asked) == 2 * len(streamed.train) and asked.count(max(asked)) == 1, "known the second time"


def test_views_that_draw_from_another_generator_than_torchs_are_refused(folder):
    _, streamed = both(folder)
    shifts = np.random.default_rng(0)

    def by_numpy(image):
        return image.roll(int(shifts.integers(12)), -1)

    options = {"epochs": 1, "views": 2, "progress": False}
    with pytest.raises(ValueError, match="augment must draw from PyTorch's generator"):
        training.train(student(), streamed.train, augment=by_numpy, **options)


def test_where_processes_are_not_forked_what_cannot_be_sent_is_decoded_here(folder, monkeypatch):
    _, streamed = both(folder)
    shift = random_crop_flip(padding=1)
    assert pickle.loads(pickle.dumps(shift)) == shift
    views = augmentation.views_of(streamed.train, augmentation.checked_augment(shift, streamed.train), 2, seed=0)
    mirror = augmentation.checked_augment(lambda image: image.flip(-1), streamed.train)
    own = augmentation.views_of(streamed.train, mirror, 2, seed=0)
    for method, sent, kept in (("fork", True, True), ("spawn", True, False)):
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none, method=method: method)
        assert (streams.workers_for(10_000, views.images) > 0) == sent
        assert (streams.workers_for(10_000, own.images) > 0) == kept


def test_a_stream_can_be_sent_to_another_process_and_copied(folder):
    _, streamed = both(folder)
    for other in (pickle.loads(pickle.dumps(streamed.train)), copy.deepcopy(streamed.train)):
        assert torch.equal(other.images[[0, 3]], streamed.train.images[[0, 3]])
        assert other.digest() == streamed.train.digest()
    with multiprocessing.get_context("fork").Pool(
        1
    ) as pool:  # whose processes may have no children of their own
        assert pool.apply(streams.workers_for, (10_000, None)) == 0


class TestBrokenFiles:
    def test_one_is_named_before_anything_is_trained(self, folder):
        (folder / "bee" / "3.jpg").write_bytes((folder / "bee" / "3.jpg").read_bytes()[:200])
        with pytest.raises(ValueError, match=r"cannot read the image .*bee.3\.jpg"):
            data.stream(f"folder:{folder}", image_size=12)

    def test_or_left_out_and_listed_as_by_load(self, folder):
        for name in ("bee/3.jpg", "cat/0.jpg"):
            (folder / name).write_bytes(b"no image")
        with pytest.warns(UserWarning, match="2 broken files were left out"):
            loaded, streamed = both(folder, skip_broken=True)
        assert loaded.skipped == streamed.skipped
        assert sorted(loaded.skipped) == [str(folder / "bee" / "3.jpg"), str(folder / "cat" / "0.jpg")]
        assert torch.equal(loaded.train.images, streamed.train.in_memory().images)
        assert sum(len(s) for s in (streamed.train, streamed.validation, streamed.test)) == 46

    def test_a_class_that_lost_all_its_images_is_named(self, folder):
        for path in (folder / "ant").iterdir():
            path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"of the classes \['ant'\] no image for train is left"):
            data.stream(f"folder:{folder}", image_size=12, skip_broken=True)

    def test_a_file_that_was_replaced_since_is_said(self, folder):
        _, streamed = both(folder)
        first = streamed.train.images.paths[0]
        Image.new("RGB", (3, 4)).save(first)
        streamed.train.images.image_size = None
        with pytest.raises(ValueError, match="was replaced by one of another kind: load the set anew"):
            streamed.train.images[0]


def test_what_a_first_look_found_is_remembered_until_a_file_changes(folder, own_cache, monkeypatch):
    looked = []
    own = scanning._look

    def counting(paths, image_size):
        looked.append(len(paths))
        return own(paths, image_size)

    monkeypatch.setattr(scanning, "_look", counting)
    name = f"folder:{folder}"
    first, again = (data.stream(name, image_size=12) for _ in range(2))
    assert looked == [48] and torch.equal(first.mean, again.mean)
    assert first.train.digest() == again.train.digest()
    Image.new("RGB", (30, 30), "red").save(folder / "ant" / "0.jpg")
    changed = data.stream(name, image_size=12)
    assert looked == [48, 48] and changed.train.digest() != first.train.digest()
    data.stream(name, image_size=8)
    assert looked == [48, 48, 48]
    [kept, *_] = (own_cache / "scans").glob("*.npz")
    for path in (own_cache / "scans").glob("*.npz"):
        path.write_bytes(b"not a table")
    assert torch.equal(data.stream(name, image_size=12).mean, changed.mean) and kept.exists()


def test_mean_and_std_may_be_given(folder):
    streamed = data.stream(f"folder:{folder}", image_size=12, mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.2])
    assert streamed.test.mean.tolist() == pytest.approx([0.5, 0.4, 0.3])
    with pytest.raises(ValueError, match="one number for each of the 3 channels"):
        data.stream(f"folder:{folder}", image_size=12, mean=[0.5], std=[0.2])
    with pytest.raises(ValueError, match="in memory whole"):
        data.stream("digits")


class TestAnswersOnDisk:
    """Teachers are asked part by part; what was kept outlives the process."""

    @pytest.fixture
    def parts_of_ten(self, monkeypatch):
        monkeypatch.setattr(_logit_cache, "PART", 10)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_they_are_those_of_the_network(self, folder, parts_of_ten, dtype):
        _, streamed = both(folder)
        network = student()
        logits = teachers.cached_logits(network, streamed.train, dtype=dtype)
        expected = inference.predict_logits(network, streamed.train)
        assert logits.dtype == dtype
        torch.testing.assert_close(
            logits.float(), expected, rtol=1e-3 if dtype == torch.float16 else 1e-5, atol=1e-3
        )
        learner = student(seed=2)
        training.distill(learner, logits, streamed.train, epochs=1, progress=False)

    def test_numbers_that_float16_does_not_hold_are_refused(self, folder):
        _, streamed = both(folder)
        network = student()
        with torch.no_grad():
            network.head.bias.add_(1e5)
        with pytest.raises(ValueError, match="dtype=torch.float16 holds numbers up to 65504"):
            teachers.cached_logits(network, streamed.train, dtype=torch.float16)
        with pytest.raises(ValueError, match="dtype must be torch.float32 or torch.float16, got 'half'"):
            teachers.cached_logits(network, streamed.train, dtype="half")

    def test_a_process_killed_with_kill_9_loses_the_last_part_alone(self, folder, own_cache, tmp_path):
        script = tmp_path / "ask.py"
        script.write_text(
            textwrap.dedent(
                f"""
                import os, pathlib, signal, sys, warnings
                warnings.simplefilter("ignore")
                from kdlib import _files, _logit_cache, data, models, teachers
                _files.cache_folder = lambda: pathlib.Path({str(own_cache)!r})
                _logit_cache.PART = 10
                asked, own, deadly = [], _logit_cache._of_part, int(sys.argv[1])
                def counting(teacher, split, *rest):
                    asked.append(len(split))
                    if len(asked) == deadly:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return own(teacher, split, *rest)
                _logit_cache._of_part = counting
                split = data.stream({f"folder:{folder}"!r}, image_size=12).train
                network = models.build("tiny-cnn", num_classes=3, in_channels=3, image_size=12, seed=0)
                print(len(split), len(asked), teachers.cached_logits(network, split).double().sum().item(), len(asked))
                """
            )
        )
        run = [sys.executable, str(script)]
        killed = subprocess.run([*run, "3"], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resumed = subprocess.run([*run, "0"], capture_output=True, text=True)
        images, _, total, asked = resumed.stdout.split()
        assert int(asked) == -(-int(images) // 10) - 2, "two parts were known"
        _, streamed = both(folder)
        expected = inference.predict_logits(student(), streamed.train).double().sum().item()
        assert float(total) == pytest.approx(expected, rel=1e-5)
        assert not list((own_cache / "logits").glob("*.parts")), "what was put together is taken away"

    def test_two_processes_may_ask_at_once(self, folder, own_cache, parts_of_ten):
        _, streamed = both(folder)
        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            answers = pool.starmap(_ask, [(streamed.train, own_cache)] * 4)
        assert all(torch.equal(answers[0], other) for other in answers[1:])


def _ask(split, cache):
    torch.set_num_threads(1)
    _files.cache_folder = lambda: cache
    _logit_cache._memory.clear()
    return teachers.cached_logits(student(), split)


class TestTorchDatasets:
    """Any map-style data set of (image, label)."""

    @pytest.fixture
    def pixels(self):
        return torch.randint(
            0, 256, (30, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )

    def test_training_metrics_and_teachers_take_one(self, pixels):
        labels = torch.arange(30) % 3
        given, split = TensorDataset(pixels, labels), data.ImageSplit(pixels, labels)
        one, other = student(), student()
        training.distill(one, student(seed=1), given, epochs=1, validation=given, progress=False)
        training.distill(other, student(seed=1), split, epochs=1, validation=split, progress=False)
        assert same_weights(one, other) and metrics.accuracy(one, given) == metrics.accuracy(other, split)
        assert torch.equal(teachers.cached_logits(one, given), inference.predict_logits(one, split))

    @pytest.mark.parametrize(
        "image",
        [
            lambda pixels: Image.fromarray(pixels.permute(1, 2, 0).numpy()),
            lambda pixels: pixels.permute(1, 2, 0).numpy(),
            lambda pixels: pixels / 255,
        ],
        ids=["pillow", "numpy", "in [0, 1]"],
    )
    def test_images_of_each_kind_become_the_same_pixels(self, pixels, image):
        listed = _Listed([(image(one), row % 3) for row, one in enumerate(pixels)])
        split = items.as_split(Subset(listed, range(5, 25)))
        assert torch.equal(split.images[:], pixels[5:25]) and split.labels.tolist() == [
            row % 3 for row in range(5, 25)
        ]
        assert torch.equal(split.mean, data.ImageSplit(pixels[5:25], split.labels).mean)

    def test_several_labels_an_image(self, pixels):
        listed = _Listed([(one, torch.tensor([1.0, 0.0, row % 2])) for row, one in enumerate(pixels)])
        assert items.as_split(listed).labels.shape == (30, 3)

    def test_another_transform_is_noticed(self, pixels):
        listed = _Listed([(one, 0) for one in pixels])
        before = items.as_split(listed).images[0]
        listed.pairs = [(255 - one, 0) for one in pixels]
        assert torch.equal(items.as_split(listed).images[0], 255 - before)

    def test_what_is_no_such_set_is_refused(self, pixels):
        augmenting = _Listed([(pixels[0], 0)] * 4, transform=lambda _: torch.rand(3, 12, 12))
        refused = {
            "another image each time it is asked for: .* give it as augment=": augmenting,
            "numbers in .0, 1.; item 0 has torch.float32 from -1 to ": _Listed([(pixels[0] / 127.5 - 1, 0)]),
            "item 0 has .3, 12, 12., item 1 has .3, 6, 6.": _Listed(
                [(pixels[0], 0), (pixels[0][:, :6, :6], 1)]
            ),
            "pairs .image, label., item 0 is Tensor": _Listed(list(pixels)),
            "item 0 has str": _Listed([("a.jpg", 0)]),
            "at least one item": _Listed([]),
        }
        for message, dataset in refused.items():
            with pytest.raises(ValueError, match=message):
                items.as_split(dataset)
        with pytest.raises(TypeError, match="map-style torch.utils.data.Dataset"):
            items.as_split([(pixels[0], 0)])
        with pytest.raises(TypeError, match="split must be an ImageSplit or a torch Dataset, got list"):
            training.train(student(), [1, 2], epochs=1)


class _Listed(Dataset):
    def __init__(self, pairs, transform=None):
        self.pairs, self.transform = pairs, transform

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, row):
        if self.transform is None:
            return self.pairs[row]
        return self.transform(self.pairs[row][0]), self.pairs[row][1]


class TestPreprocessing:
    """A student with its own, a teacher with another, a split with a third."""

    def test_a_student_is_trained_as_it_is_asked(self, folder):
        loaded, _ = both(folder)
        own = inference.Preprocessing(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7]))
        carrying, plain = student(), student()
        carrying.preprocessing = own
        train = loaded.train
        as_it_wants = data.ImageSplit(train.images, train.labels, mean=own.mean, std=own.std)
        training.train(carrying, train, epochs=1, progress=False)
        training.train(plain, as_it_wants, epochs=1, progress=False)
        expected = inference.predict_logits(plain, as_it_wants)
        torch.testing.assert_close(inference.predict_logits(carrying, train), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        "options", [{}, {"augment": lambda image: image}], ids=["looked up", "asked live"]
    )
    def test_a_teacher_never_gets_what_the_student_wants(self, folder, options):
        loaded, _ = both(folder)
        asked = []
        teacher = _Watching(asked)
        learner = student()
        learner.preprocessing = inference.Preprocessing(torch.tensor([0.9] * 3), torch.tensor([0.01] * 3))
        training.distill(learner, teacher, loaded.train, epochs=1, progress=False, **options)
        of_split = loaded.train.normalized()
        assert max(asked) <= of_split.abs().max() + 1e-4


class _Watching(torch.nn.Module):
    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def forward(self, images):
        self.asked.append(images.abs().max().item())
        return images.mean(dim=(2, 3))


def test_a_stream_of_many_files_takes_little_memory(tmp_path):
    """What is decoded is let go: a set of 72 MB of pixels, and a process that may take half of that."""
    script = tmp_path / "much.py"
    script.write_text(
        textwrap.dedent(
            """
            import pathlib, resource, sys, warnings
            warnings.simplefilter("ignore")
            import torch
            from PIL import Image
            from kdlib import _files, data, inference, models
            from kdlib.data import streams
            _files.cache_folder = lambda: None
            streams.workers_for = lambda images, source: 0
            torch.set_num_threads(1)
            folder = pathlib.Path(sys.argv[1])
            for name in "ab":
                (folder / name).mkdir(parents=True)
                for row in range(12):
                    Image.new("RGB", (1000, 1000), (row, 2 * row, ord(name))).save(folder / name / f"{row}.jpg")
            network = models.build("tiny-cnn", num_classes=2, in_channels=3, image_size=1000)
            train = data.stream(f"folder:{folder}").train
            inference.predict_logits(network, train.subset([0]), batch_size=1)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            inference.predict_logits(network, train, batch_size=1)
            print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
            """
        )
    )
    run = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "photographs")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 30, "seventeen images of 3 MB each were not kept"
