"""Ratios, their spread, and the tables. `python -m tests.benchmarks.report RESULTS.json`

Works on what `compare` has written and on nothing else, so that a table or a plot can be made again
from the raw figures. A ratio is ours divided by the peer's, both from the same round.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.benchmarks.plot import Mark, plot

OURS, DIRECT = "tls-tunnel", "direct"
#: Another checkout of ours, measured in turns with this one.
BEFORE = "before"
#: A middle half of the ratios wider than this share of their median says nothing.
NOISE = 0.3
#: Others who use more of the cores than this take part in the measurement.
BUSY = 0.15
#: Fewer rounds have no spread to speak of.
ROUNDS = 3
HELD, MISSED, NOISY, FEW, NONE = "held", "**missed**", "too noisy", "too few rounds", ""


@attrs.frozen
class Row:
    """A line of the tables: something that was measured."""

    key: str
    title: str
    unit: str
    more_is_better: bool
    promised: Mapping[str, float] = attrs.field(factory=dict)
    """By peer: what ours / theirs must at least be, or at most where less is better."""


@attrs.frozen
class Spread:
    """Where values lie."""

    median: float
    low: float
    """The lower quartile."""
    high: float
    """The upper quartile."""
    least: float
    most: float

    @property
    def width(self) -> float:
        """The middle half, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else float("inf")


def spread(values: Sequence[float]) -> Spread:
    """Median, quartiles (interpolated between the values) and extremes; needs a value."""
    low = high = values[0]
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), low, high, min(values), max(values))


@attrs.frozen
class Ratio:
    """Ours against one peer's in one row."""

    row: Row
    peer: str
    values: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        return spread(self.values)

    @property
    def promised(self) -> float | None:
        """What the ratio must at least be, or at most where less is better."""
        return self.row.promised.get(self.peer)

    @property
    def worse(self) -> bool:
        """True if ours is worse throughout the middle half of the rounds."""
        found = self.spread
        return found.high < 1 if self.row.more_is_better else found.low > 1

    @property
    def verdict(self) -> str:
        """Whether it is as promised; not from figures that are too noisy or too few.

        The tree before is promised no ratio: ours must not be worse throughout the quartiles.
        """
        if len(self.values) < ROUNDS:
            return FEW
        if self.peer == BEFORE:
            return MISSED if self.worse else HELD
        if self.spread.width > NOISE:
            return NOISY
        if self.promised is None:
            return NONE
        median = self.spread.median
        kept = median >= self.promised if self.row.more_is_better else median <= self.promised
        return HELD if kept else MISSED


class Results:
    """What `compare` has measured, as in its JSON file."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.rows = [Row(**row) for row in raw["rows"]]
        self.peers: list[str] = [peer["name"] for peer in raw["peers"] if not peer["missing"]]

    def values(self, name: str, key: str) -> list[float]:
        """One figure of a peer (or of `DIRECT`), round by round; rounds without it are left out."""
        figures = (round_["figures"].get(name, {}) for round_ in self.raw["rounds"])
        return [found[key] for found in figures if key in found]

    def ratios(self) -> Iterator[Ratio]:
        """Every row against every other peer, as far as both were measured in the same rounds."""
        for row in self.rows:
            for peer in self.peers:
                values = tuple(self._by_round(row.key, peer))
                if peer != OURS and values:
                    yield Ratio(row, peer, values)

    def _by_round(self, key: str, peer: str) -> Iterator[float]:
        for round_ in self.raw["rounds"]:
            ours = round_["figures"].get(OURS, {}).get(key)
            theirs = round_["figures"].get(peer, {}).get(key)
            # A figure of nothing at all is below what could be measured.
            if ours is not None and theirs:
                yield ours / theirs

    def against_before(self) -> tuple[list[Ratio], list[str]]:
        """The ratios to the tree before, and the rows of which there are none, or from too few
        rounds."""
        found = [ratio for ratio in self.ratios() if ratio.peer == BEFORE and ratio.verdict != FEW]
        measured = {ratio.row.key for ratio in found}
        return found, [row.title for row in self.rows if row.key not in measured]

    def failures(self) -> list[dict[str, Any]]:
        """What could not be measured, or arrived otherwise than it was sent."""
        return [failure for round_ in self.raw["rounds"] for failure in round_["failures"]]

    def corrupt(self) -> bool:
        """Whether a digest differed."""
        return any(failure["corrupt"] for failure in self.failures())

    def doubtful(self) -> bool:
        """Whether something promised was missed, or cannot be told from these figures."""
        promised = [ratio for ratio in self.ratios() if ratio.promised is not None]
        return not promised or any(ratio.verdict != HELD for ratio in promised)


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [_head(results), _figures(results)]
    ratios = list(results.ratios())
    for peer in results.peers:
        against = [ratio for ratio in ratios if ratio.peer == peer]
        if against:
            parts.append(_against(peer, against))
    return "\n\n".join([*parts, _integrity(results), _left_out(results)]).rstrip() + "\n"


def _head(results: Results) -> str:
    raw = results.raw
    machine = raw["machine"]
    lines = [
        "# Tunnels compared",
        "",
        f"{raw['begun']}, {len(raw['rounds'])} rounds of {raw['seconds']} s. {machine['cpu']}, "
        f"{machine['cores']} cores, Linux {machine['kernel']}, {machine['congestion']}.",
        "",
        "Load, tunnels and services share these cores. Ratios say more than figures.",
    ]
    busiest = max(round_["busy"] for round_ in raw["rounds"])
    if busiest > BUSY:
        lines += [
            "",
            f"**Something else was running**: up to {busiest:.0%} of the cores were "
            "in use before a round began. Measure again when the machine is quiet.",
        ]
    return "\n".join(lines)


def _figures(results: Results) -> str:
    names = [DIRECT, *results.peers]
    versions = {peer["name"]: peer["version"] for peer in results.raw["peers"]}
    head = [f"{name}<br>{versions[name]}" if name in versions else name for name in names]
    body = []
    for row in results.rows:
        cells = [_median(results.values(name, row.key)) for name in names]
        if any(cells):
            body.append([f"{row.title}, {row.unit}", *cells])
    return "## Figures\n\nMedians of the rounds.\n\n" + _table(["", *head], body)


def _median(values: Sequence[float]) -> str:
    return figure(statistics.median(values)) if values else ""


def figure(value: float) -> str:
    """Three digits, and thousands apart."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def times(ratio: float) -> str:
    """Two digits behind the point, or two that say something."""
    return f"{ratio:.2f}" if abs(ratio) >= 0.1 else f"{ratio:.2g}"


def _against(peer: str, ratios: Iterable[Ratio]) -> str:
    body = []
    for ratio in ratios:
        found = ratio.spread
        bound = ""
        if ratio.promised is not None:
            bound = f"{'≥' if ratio.row.more_is_better else '≤'} {ratio.promised:g}"
        elif peer == BEFORE:
            bound = "not worse"
        body.append(
            [
                ratio.row.title,
                f"{times(found.median)} ×",
                f"{times(found.low)}–{times(found.high)}",
                f"{times(found.least)}–{times(found.most)}",
                "more" if ratio.row.more_is_better else "less",
                bound,
                ratio.verdict,
            ]
        )
    head = ["", "ratio", "quartiles", "extremes", "better is", "promised", ""]
    text = f"## {OURS} against {peer}\n\nOurs divided by theirs in the same round."
    return f"{text}\n\n{_table(head, body)}"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _integrity(results: Results) -> str:
    lines = ["## Integrity", ""]
    for name in results.peers:
        sizes = results.values(name, "integrity")
        if sizes:
            lines.append(f"- {name}: {sum(sizes):.0f} MiB each way, every SHA-256 as sent.")
    if results.corrupt():
        lines.append("- **Something arrived otherwise than it was sent**; see below.")
    return "\n".join(lines) if len(lines) > 2 else ""


def _left_out(results: Results) -> str:
    absent = [*results.raw["peers"], *results.raw["works"]]
    lines = [f"- {thing['name']}: {thing['missing']}" for thing in absent if thing["missing"]]
    lines += [
        f"- {failure['work']} of {failure['peer']}, round {failure['round']}: "
        + failure["text"].strip().splitlines()[0]
        for failure in results.failures()
    ]
    return "\n".join(["## Left out", "", *lines]) if lines else ""


def marks(results: Results) -> list[Mark]:
    """What is plotted: how many times better, whichever way better is."""
    found = []
    for ratio in results.ratios():
        values = ratio.values
        promised = ratio.promised
        if not ratio.row.more_is_better:
            if not all(values):
                continue  # infinitely better has no place on the axis
            values = tuple(1 / value for value in values)
            promised = None if promised is None else 1 / promised
        if min(values) <= 0:
            continue
        place = spread(values)
        found.append(
            Mark(
                ratio.row.title,
                ratio.peer,
                place.median,
                (place.low, place.high),
                (place.least, place.most),
                promised,
                sure=ratio.verdict not in (NOISY, FEW),
            )
        )
    return found


def write(results: Results, directory: Path) -> None:
    """Write results.json, results.md and results.svg."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results.raw, indent=1, ensure_ascii=False)
    (directory / "results.json").write_text(text + "\n")
    (directory / "results.md").write_text(markdown(results))
    (directory / "results.svg").write_text(plot(f"{OURS}: how many times better", marks(results)))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write(Results(json.loads(path.read_text())), path.parent)
