"""Which photographs look alike: a hash that most of what happens to a photograph leaves as it is."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_ROWS = 512  # hashes that are compared with all others at a time


def difference_hash(
    image: UInt8[np.ndarray, "height width"] | UInt8[np.ndarray, "height width 3"],
) -> np.uint64:
    """64 bits, of which most stay when a photograph is scaled, saved again, brightened or made grey.

        bit[row, column] = small[row, column + 1] > small[row, column],    small = the grey image, scaled to 8 x 9

    N. Krawetz: Kind of Like That. 2013 (a note on dHash; hackerfactor.com, 529). An average hash compares with the mean
    of the image instead, which says less of images of one layout.
    """
    grey = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    small = np.asarray(grey).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).view(">u8")[0].astype(np.uint64)


def alike(hashes: np.ndarray, distance: int) -> list[tuple[int, int, int]]:
    """(one, other, bits) of all pairs of 64-bit hashes that differ in at most `distance` bits, one before the other."""
    found = []
    for start in range(0, len(hashes), _ROWS):
        differences = _ones(hashes[start : start + _ROWS, None] ^ hashes[None, start:])
        ones, others = np.nonzero(differences <= distance)
        later = others > ones
        bits = differences[ones[later], others[later]]
        found += zip(
            (ones[later] + start).tolist(), (others[later] + start).tolist(), bits.tolist(), strict=True
        )
    return found


def _ones(numbers: np.ndarray) -> np.ndarray:
    """How many bits of each number are set."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(numbers)
    return np.unpackbits(numbers[..., None].view(np.uint8), axis=-1).sum(axis=-1)
