"""A process that loads one model, answers one batch and prints how much memory it held at most, in bytes.

    python -m kdlib.deploy.fresh_process MODEL CHANNELS HEIGHT WIDTH BATCH THREADS

Started by `kdlib.deploy.footprint.peak_memory`.
"""

import sys
from pathlib import Path

from kdlib.deploy.loading import noise_images, open_file


def peak_bytes() -> int:
    """The most memory (resident set size) that this process has held so far, in bytes; Linux and macOS.

    On Linux this is VmHWM, not getrusage's ru_maxrss: that starts from what the parent process held when it
    started this one, so a small process begun from a notebook would seem to be as large as the notebook's.
    macOS has no VmHWM; its ru_maxrss counts bytes (that of Linux, KiB).

    Raises:
        NotImplementedError: on another system.
    """
    if sys.platform.startswith("linux"):
        lines = Path("/proc/self/status").read_text().splitlines()
        (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(kibibytes)
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    raise NotImplementedError(
        f"the peak memory of a process can be read on Linux and macOS, not on {sys.platform}"
    )


def main(arguments: list[str]) -> None:
    path, (*image_shape, batch_size, threads) = arguments[0], map(int, arguments[1:])
    open_file(path, threads=threads)(noise_images(image_shape, batch_size))()
    print(peak_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
