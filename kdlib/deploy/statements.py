"""How a measured ratio is told: with its interval, or with the reason why none is."""

from typing import NamedTuple

from kdlib._checks import checked, positive_number
from kdlib.deploy import arguments, benchmark


class Statement(NamedTuple):
    """A ratio and its words.

    Args:
        ratio: None where it was not stated.
        words: "11.80 [10.90, 14.60]", or "not stated: ..." with the reason.
    """

    ratio: benchmark.Ratio | None
    words: str

    @property
    def verdict(self) -> str:
        """What the interval says of the fast one: "faster", "slower", "as fast" (within 5 %), "not told apart"."""
        if self.ratio is None:
            return "not told apart"
        low, high = self.ratio.low, self.ratio.high
        if low > 1.05 or high < 0.95:
            return "faster" if low > 1.05 else "slower"
        return "as fast" if low > 0.95 and high < 1.05 else "not told apart"

    @property
    def ends(self) -> tuple[float, float, float]:
        """(median, low, high) to two decimals, as they are printed.

        Raises:
            ValueError: the ratio was not stated.
        """
        if self.ratio is None:
            raise ValueError(self.words)
        return tuple(round(end, 2) for end in self.ratio[:3])


@checked(slow=arguments.text, fast=arguments.text, widest=positive_number)
def stated(timing: benchmark.Latencies, slow: str, fast: str, widest: float | int = 0.2) -> Statement:
    """`benchmark.ratio(timing, slow, fast)` in words; where it refuses, because the rounds scatter, why.

    Args:
        timing: what `benchmark.latency` measured.
        slow, fast: two of its models.
        widest: how far apart the quartiles of the rounds may lie, as a share of their median; more than the usual
            fifth where a factor is so large that its second digit does not matter.

    Raises:
        TypeError, ValueError: as `benchmark.ratio`, but for rounds that scatter.
    """
    try:
        found = benchmark.ratio(timing, slow, fast, widest=widest)
    except benchmark.Scattered as refusal:
        return Statement(None, f"not stated: {str(refusal).partition(' Measure again')[0]}")
    return Statement(found, f"{found.median:.2f} [{found.low:.2f}, {found.high:.2f}]")
