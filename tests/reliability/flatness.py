"""Is a series of samples flat at its end? And a picture of it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import attrs


@attrs.frozen
class Series:
    """Samples of one thing: what it is, and (seconds, value) pairs."""

    name: str
    unit: str
    samples: tuple[tuple[float, float], ...]


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Units per second: the median of the slopes of all pairs (Theil and Sen).

    One sample that is far off does not move it, as it would the least squares.
    """
    slopes = [
        (value - earlier) / (at - before)
        for (before, earlier), (at, value) in itertools.combinations(samples, 2)
        if at > before
    ]
    return statistics.median(slopes) if slopes else 0.0


def growth(series: Series) -> float:
    """What the second half of the series would add if it went on growing at its own slope."""
    half = series.samples[len(series.samples) // 2 :]
    return slope(half) * (half[-1][0] - half[0][0]) if len(half) > 1 else 0.0


def is_flat(series: Series, *, share: float, least: float) -> bool:
    """True if the growth of the second half is below `least`, or below a `share` of the value."""
    middle = statistics.median(value for _, value in series.samples)
    return growth(series) <= max(least, share * middle)


# --- The picture --------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 760, 120, 70, 40, 50
_COLOURS = ("#3b7dd8", "#d8743b")
_STYLE = """
text { font: 12px sans-serif; fill: #444 } .axis { stroke: #999 } .grid { stroke: #9993 }
@media (prefers-color-scheme: dark) { text { fill: #ccc } }
"""


def picture(title: str, panels: Sequence[tuple[str, Sequence[Series]]]) -> str:
    """An SVG with one panel above the other; the series of a panel share its axis."""
    height = _TOP + len(panels) * (_HEIGHT + _GAP)
    end = max(at for _, group in panels for series in group for at, _ in series.samples) or 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + _LEFT + 20} {height}">',
        f"<style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="20" font-weight="bold">{title}</text>',
    ]
    for number, (name, group) in enumerate(panels):
        parts += _panel(name, group, end, _TOP + number * (_HEIGHT + _GAP))
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, group: Sequence[Series], end: float, top: int) -> list[str]:
    most = 1.2 * max(value for series in group for _, value in series.samples) or 1.0
    bottom = top + _HEIGHT
    parts = [
        f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{_LEFT + _WIDTH}" y2="{bottom}"/>',
        f'<line class="grid" x1="{_LEFT}" y1="{top}" x2="{_LEFT + _WIDTH}" y2="{top}"/>',
        f'<text x="{_LEFT - 6}" y="{top + 4}" text-anchor="end">{most:.0f}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{_LEFT}" y="{top - 6}">{name}</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 14}" text-anchor="end">{end / 60:.1f} min</text>',
    ]
    for number, series in enumerate(group):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{_LEFT + _WIDTH * at / end:.1f},{bottom - _HEIGHT * value / most:.1f}"
            for at, value in series.samples
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        x = _LEFT + 220 * (number + 1)
        parts.append(f'<text x="{x}" y="{top - 6}" style="fill:{colour}">{series.name}</text>')
    return parts
