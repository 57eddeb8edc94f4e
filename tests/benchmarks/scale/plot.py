"""Line charts as SVG, readable on a light and on a dark page, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import attrs

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 30, 58, 40
COLUMNS = 2

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #222; }
  .title { font-weight: 600; font-size: 13px; }
  .page { fill: #fff; }
  .grid { stroke: #ddd; }
  .axis { stroke: #888; }
  .series { fill: none; stroke-width: 2; }
  .s0 { stroke: #0b62c4; } .d0 { fill: #0b62c4; }
  .s1 { stroke: #c2410c; } .d1 { fill: #c2410c; }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd; } .page { fill: #16181c; } .grid { stroke: #333; }
    .s0 { stroke: #6cb2ff; } .d0 { fill: #6cb2ff; }
    .s1 { stroke: #ff9a5c; } .d1 { fill: #ff9a5c; }
  }
"""

Points = Sequence[tuple[float, float]]


@attrs.frozen
class Chart:
    """Some series over one axis.

    Args:
      title: what is shown, with its unit.
      across: what grows from left to right.
      series: points by name; both axes begin at 0.
    """

    title: str
    across: str
    series: dict[str, Points]


def page(charts: Sequence[Chart]) -> str:
    """The charts as one SVG document, two in a row."""
    rows = math.ceil(len(charts) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT
    drawn = [
        f'<g transform="translate({index % COLUMNS * WIDTH},{index // COLUMNS * HEIGHT})">\n'
        f"{_draw(chart)}</g>\n"
        for index, chart in enumerate(charts)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">\n<style>{STYLE}</style>\n'
        f'<rect class="page" width="{width}" height="{height}"/>\n{"".join(drawn)}</svg>\n'
    )


def steps(largest: float, wanted: int = 5) -> list[float]:
    """Round numbers from 0 up to at least `largest`, about so many."""
    if largest <= 0:
        return [0.0, 1.0]
    raw = largest / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= raw * 0.999)
    return [number * step for number in range(math.ceil(largest / step - 1e-9) + 1)]


def _draw(chart: Chart) -> str:
    points = [point for line in chart.series.values() for point in line]
    across = steps(max(x for x, _ in points))
    up = steps(max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * x / across[-1],
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / up[-1],
        )

    parts = [_text(LEFT, 20, chart.title, "title")]
    for y in up:
        left, height = place(0, y)
        parts.append(_line(left, height, WIDTH - RIGHT, height, "grid" if y else "axis"))
        parts.append(_text(left - 6, height + 4, f"{y:g}", anchor="end"))
    for x in across:
        left, bottom = place(x, 0)
        parts.append(_text(left, bottom + 16, f"{x:,.0f}", anchor="middle"))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, chart.across, anchor="middle"))
    for number, (name, line) in enumerate(chart.series.items()):
        placed = [place(x, y) for x, y in line]
        parts += _series(placed, name, number)
    return "".join(parts)


def _series(placed: Points, name: str, number: int) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    legend = LEFT + 120 * number
    return [
        f'<polyline class="series s{number}" points="{path}"/>\n',
        *(f'<circle class="d{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>\n' for x, y in placed),
        f'<circle class="d{number}" cx="{legend + 4}" cy="38" r="4"/>\n',
        _text(legend + 14, 42, name),
    ]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>\n'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>\n"
    )
