"""What it costs to decode the images of a folder when they are needed, in place of holding them in memory.

    python benchmarks/streaming.py folder:PATH [--image-size N] [--model resnet20] [--images 10000] [--rounds 3]

Three figures. Seconds of `data.load` and of the first look of `data.stream`, wall-clock, for a quiet machine. The
largest memory of a process that opens the set as a stream and takes an epoch of training on so many images, its
decoding processes included (the proportional set size of all of them), beyond that of a process that does the same
with 256 images in memory, two batches. And the ratio of an epoch on a stream to one on the same images in memory,
taken in turns within one process; both end with the same weights, which is compared bit by bit.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import warnings

import psutil
import torch

from kdlib import data, models, training

BATCH_SIZE = 128
FEW = 2 * BATCH_SIZE  # a step of fewer images would take less memory for another reason


def network(name: str, split: data.ImageSplit, classes: int) -> torch.nn.Module:
    """A fresh network for these images."""
    _, channels, size, _ = split.images.shape
    return models.build(name, num_classes=classes, in_channels=channels, image_size=size, seed=0)


def seconds(begin) -> tuple[float, data.ImageDataset]:
    """Of a call, and what it returns."""
    started = time.perf_counter()
    result = begin()
    return time.perf_counter() - started, result


def epoch(split: data.ImageSplit, model: str, classes: int) -> tuple[float, torch.Tensor]:
    """Seconds of one epoch, and the weights after it."""
    student = network(model, split, classes)
    took, _ = seconds(lambda: training.train(student, split, epochs=1, batch_size=BATCH_SIZE, progress=False))
    return took, torch.cat([weights.detach().flatten() for weights in student.parameters()])


class Memory:
    """The largest memory of this process and its children while it is watched, in bytes."""

    def __enter__(self) -> "Memory":
        self.largest, self._end = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.1):
            self.largest = max(self.largest, sum(map(_own_share, _processes())))


def _processes() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def _own_share(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.NoSuchProcess:
        return 0


def stream_through(options: argparse.Namespace) -> None:
    """The work whose memory is measured, in a process of its own: with the stream, or with next to nothing."""
    with Memory() as memory:
        dataset = data.stream(options.name, image_size=options.image_size)
        train = dataset.train if options.part == "whole" else dataset.train.subset(slice(FEW)).in_memory()
        if options.part == "empty":
            del dataset
        model = network(options.model, train, options.classes)
        some = train.take(min(len(train), options.images))
        training.train(model, some, epochs=1, batch_size=BATCH_SIZE, progress=False)
    print(json.dumps(memory.largest))


def largest_memory(options: argparse.Namespace, part: str, classes: int) -> int:
    """Bytes of such a process."""
    command = [sys.executable, __file__, options.name, "--model", options.model, "--part", part]
    command += ["--classes", str(classes), "--images", str(options.images)]
    command += ["--image-size", str(options.image_size)] if options.image_size else []
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="folder:PATH, or a set of photographs by name")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=10_000, help="for the ratio of epochs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=("whole", "empty"), help=argparse.SUPPRESS)
    parser.add_argument("--classes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.part:
        stream_through(options)
        return
    look, streamed = seconds(lambda: data.stream(options.name, image_size=options.image_size))
    loading, loaded = seconds(lambda: data.load(options.name, image_size=options.image_size))
    total = sum(len(split) for split in (loaded.train, loaded.validation, loaded.test))
    print(f"{total:,} images of {tuple(loaded.train.images.shape[1:])}; {torch.get_num_threads()} threads")
    print(
        f"data.load: {loading:.1f} s; the first look of data.stream: {look:.1f} s (none where it is remembered)"
    )
    classes = len(loaded.classes)
    some = {
        name: s.train.take(min(options.images, len(s.train))) for name, s in (("m", loaded), ("s", streamed))
    }
    del loaded
    whole, empty = (largest_memory(options, part, classes) for part in ("whole", "empty"))
    print(
        f"memory: {(whole - empty) / 1e6:.0f} MB beyond the {empty / 1e6:.0f} MB of a process with {FEW} images"
    )
    ratios = []
    for _ in range(options.rounds):
        (in_memory, one), (from_files, other) = (epoch(some[key], options.model, classes) for key in "ms")
        ratios.append(from_files / in_memory)
        same = "the same weights" if torch.equal(one, other) else "OTHER WEIGHTS"
        print(
            f"epoch of {len(some['m']):,}: {in_memory:.1f} s in memory, {from_files:.1f} s streamed, {same}",
            flush=True,
        )
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
