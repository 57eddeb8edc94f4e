"""A plot of ratios with their spread, on a logarithmic axis, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import attrs

LABELS, AXIS, VALUES = 330, 560, 60
LINE, GAP, TOP, BOTTOM = 14, 10, 64, 44
#: Told apart by most kinds of eyes, on white and on black (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8c6bb1", "#777777")
KEY = "median, quartiles, extremes of the rounds; upright: promised; hollow: too noisy to tell"
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #222; }
.title { font-size: 15px; font-weight: 600; }
.back { fill: #fff; }
.grid { stroke: #ddd; }
.one { stroke: #888; stroke-width: 1.5; }
.value { font-size: 11px; }
.promise { stroke: #222; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e4e4; } .back { fill: #16181c; } .grid { stroke: #34373d; }
  .one { stroke: #999; } .promise { stroke: #e4e4e4; }
}"""


@attrs.frozen
class Mark:
    """One ratio: more than 1 is better.

    Args:
      row: what was measured.
      peer: against whom.
      median: of the rounds.
      quartiles: where the middle half lies; the thick line.
      extremes: least and most; the thin line.
      promised: how much it should at least be.
      sure: False if the spread is too wide to say anything; drawn hollow then.
    """

    row: str
    peer: str
    median: float
    quartiles: tuple[float, float]
    extremes: tuple[float, float]
    promised: float | None = None
    sure: bool = True


@attrs.frozen
class Scale:
    """Ratios to places on the axis."""

    least: float
    most: float

    def __call__(self, ratio: float) -> float:
        share = math.log(ratio / self.least) / math.log(self.most / self.least)
        return round(LABELS + AXIS * share, 1)

    def ticks(self) -> Iterator[float]:
        """1, 2, 5, 10 and so on, and as many below 1."""
        decade = math.floor(math.log10(self.least))
        while 10**decade <= self.most:
            for digit in (1, 2, 5):
                if self.least <= (tick := digit * 10.0**decade) <= self.most:
                    yield tick
            decade += 1


def scale(marks: Sequence[Mark]) -> Scale:
    """An axis that has room for all of them, and for 1."""
    ratios = [1.0]
    for mark in marks:
        ratios += [*mark.extremes, mark.promised or 1.0]
    return Scale(min(*ratios, 0.5) / 1.15, max(*ratios, 2.0) * 1.15)


def plot(title: str, marks: Sequence[Mark]) -> str:
    """The SVG file: rows from top to bottom, in each a line for every peer."""
    rows = list(dict.fromkeys(mark.row for mark in marks))
    peers = list(dict.fromkeys(mark.peer for mark in marks))
    colours = {peer: COLOURS[index % len(COLOURS)] for index, peer in enumerate(peers)}
    axis = scale(marks)
    body: list[str] = []
    y = TOP + GAP
    for row in rows:
        own = [mark for mark in marks if mark.row == row]
        middle = y + LINE * len(own) / 2
        body.append(_text(LABELS - 12, middle + 4, row, anchor="end"))
        for mark in own:
            body += _mark(mark, axis, y + LINE / 2, colours[mark.peer])
            y += LINE
        y += GAP
    return "\n".join(
        [
            *_head(title, y + BOTTOM),
            *_legend(colours),
            *_grid(axis, y),
            *body,
            _text(LABELS + AXIS / 2, y + 34, KEY, anchor="middle"),
            "</svg>\n",
        ]
    )


def _head(title: str, height: float) -> list[str]:
    width = LABELS + AXIS + VALUES
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        '<rect class="back" width="100%" height="100%"/>',
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
    ]


def _legend(colours: dict[str, str]) -> Iterator[str]:
    x = 16.0
    for peer, colour in colours.items():
        yield f'<circle cx="{x}" cy="46" r="5" fill="{colour}"/>'
        yield _text(x + 10, 50, peer)
        x += 34 + 7 * len(peer)


def _grid(axis: Scale, bottom: float) -> Iterator[str]:
    for tick in axis.ticks():
        x = axis(tick)
        kind = "one" if tick == 1 else "grid"
        yield f'<line class="{kind}" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>'
        yield _text(x, bottom + 14, f"{tick:g} ×", anchor="middle")


def _mark(mark: Mark, axis: Scale, y: float, colour: str) -> Iterator[str]:
    for (start, end), thickness in ((mark.extremes, 1.5), (mark.quartiles, 5)):
        yield (
            f'<line x1="{axis(start)}" x2="{axis(end)}" y1="{y}" y2="{y}" '
            f'stroke="{colour}" stroke-width="{thickness}"/>'
        )
    if mark.promised is not None:
        x = axis(mark.promised)
        yield f'<line class="promise" x1="{x}" x2="{x}" y1="{y - 6}" y2="{y + 6}"/>'
    paint = f'fill="{colour}"' if mark.sure else f'class="back" stroke="{colour}" stroke-width="2"'
    told = f"{mark.row}, against {mark.peer}: {mark.median:.2f} times better"
    if not mark.sure:
        told += " (not sure)"
    circle = f'<circle cx="{axis(mark.median)}" cy="{y}" r="5" {paint}>'
    yield f"{circle}<title>{escape(told)}</title></circle>"
    value = f"{mark.median:.2f}" if mark.median < 10 else f"{mark.median:.0f}"
    yield f'<text class="value" x="{LABELS + AXIS + 8}" y="{y + 4}">{value} ×</text>'


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
