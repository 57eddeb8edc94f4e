"""What a process uses, as the Linux kernel counts it, and what many of something cost each."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs


def memory(pid: int) -> int:
    """Bytes that the system would get back if the process ended now (its unique set size)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(map(int, re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE)))


def cpu(pid: int) -> float:
    """Seconds that its threads have run; the clock ticks of `stat` are too coarse for idling."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def descriptors(pid: int) -> int:
    """How many it has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@attrs.frozen
class Slopes:
    """What one more costs, among the first half of the points and among the last."""

    first: float
    last: float
    all: float

    @property
    def ratio(self) -> float:
        """1 is flat; more is dearer as numbers grow."""
        return self.last / self.first if self.first else float("nan")


def slopes(numbers: Sequence[float], values: Sequence[float]) -> Slopes:
    """The slopes of `values` over `numbers` (least squares); the halves share the middle point."""
    points = list(zip(numbers, values, strict=True))
    middle = len(points) // 2 + 1
    return Slopes(_slope(points[:middle]), _slope(points[-middle:]), _slope(points))


def _slope(points: Iterable[tuple[float, float]]) -> float:
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
