"""How `tls-tunnel top` looks: one screen made of what it knows, for a terminal of any size.

Only `top` imports this module, and with it rich. Texts go into `Text`, never into rich's markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunnel.ops.top import ConnectionRow, History, ProxyRow, SessionRow, Status, Traffic

_BARS = "▁▂▃▄▅▆▇█"
#: Names and addresses are cut to no less, when the terminal is narrow.
_NARROW = 12
_GAP = 2
#: Columns of this priority, and above, are only nice to have.
_NICE = 6


@attrs.frozen
class Column:
    """A column of a table.

    Args:
      title: what stands above it.
      style: how its cells look.
      right: True for numbers.
      priority: the higher, the sooner it is left out for lack of width; 0 stays.
    """

    title: str
    style: str = ""
    right: bool = False
    priority: int = 0


@attrs.frozen
class Section:
    """A table: its columns, and what is in its rows."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    @property
    def height(self) -> int:
        """The lines that it would like to have."""
        return 1 + len(self.rows)


@attrs.frozen
class Screen:
    """What is to be shown.

    Args:
      history: what is known.
      url: where it comes from.
      interval: seconds from one look to the next.
      failure: why there was no answer; None if there was one.
      age: seconds since the last answer; None if there was none yet.
      skipped: proxies that were scrolled past.
    """

    history: History
    url: str
    interval: float
    failure: str | None = None
    age: float | None = None
    skipped: int = 0

    def render(self, width: int, height: int) -> RenderableType:
        """The screen, for so many columns and lines."""
        status = self.history.status
        lines: list[RenderableType] = [self._title(status)]
        if self.failure is not None:
            return Group(*lines, Text(), *self._trouble(), Text(), self._keys())
        if status is None:
            return Group(*lines, Text("waiting for an answer", "dim"), Text(), self._keys())
        lines += [_rates(self.history, width), _summary(status)]
        sections = [_proxies(self.history, self.skipped), _waiting(status), _sessions(status)]
        wanted = [section for section in sections if section.rows]
        room = height - len(lines) - 1  # the keys have the last line
        lots = shares([each.height for each in wanted], room)
        for section, share in zip(wanted, lots, strict=True):
            if share > 1:
                lines.append(_table(section, width, share - 1))
                room -= share
        return Group(*lines, *[Text()] * room, self._keys())

    def _title(self, status: Status | None) -> Text:
        title = _line(("tls-tunnel top  ", "bold"), (self.url, "cyan"))
        if status is not None and self.failure is None:
            who = " ".join(filter(None, (status.role, status.name)))
            title.append(f"  {who}, {status.state}, up {duration(status.now - status.started)}")
            title.append(f"  {status.version}", "dim")
        return title

    def _trouble(self) -> list[Text]:
        assert self.failure is not None  # or this is not called  # noqa: S101
        again = f"Asked again every {self.interval:g} seconds."
        if self.age is not None:
            again += f" The last answer came {duration(self.age)} ago."
        return [Text(self.failure, "bold red"), Text(again, "dim")]

    def _keys(self) -> Text:
        does = {"q": "quit", "s": f"sort ({self.history.order})", "r": "reset", "↑↓": "scroll"}
        keys = _line(*(part for key in does for part in ((key, "bold"), (f" {does[key]}   ", ""))))
        return keys.append(f"every {self.interval:g} s", "dim")


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many lines each gets: what it wants, or as many as the others, from the first on."""
    given = [0] * len(wanted)
    for _ in range(max(0, room)):
        hungry = [i for i, want in enumerate(wanted) if given[i] < want]
        if not hungry:
            break
        given[min(hungry, key=lambda i: given[i])] += 1
    return given


# --- What is on it -------------------------------------------------------------------------------


def _rates(history: History, width: int) -> Text:
    rate = history.now
    left = f"to visitors {size(rate.sent):>8}/s  from visitors {size(rate.received):>8}/s  "
    bars = sparkline([each.both for each in history.rates], max(0, width - len(left)))
    return _line((left, ""), (bars, "green"))


def _summary(status: Status) -> Text:
    words = [_several(len(status.proxies), "proxy"), _several(status.active, "connection")]
    if status.role == "server":
        words.insert(0, _several(len(status.sessions), "client"))
    if status.loop_lag is not None:
        words.append(f"loop lag {duration(status.loop_lag)}")
    if status.certificate_expires is not None:
        words.append(f"certificate for {duration(status.certificate_expires - status.now)}")
    line = _line((", ".join(words), "dim"))
    if status.waits:
        line.append(f"  waiting: {_waits(status.waits)}", "yellow")
    return line


_PROXIES = (
    Column("PROXY", "bold"),
    Column("client", priority=4),
    Column("published", priority=3),
    Column("conns", "green", right=True),
    Column("total", right=True, priority=7),
    Column("to/s", "green", right=True),
    Column("from/s", "green", right=True),
    Column("to visitors", right=True, priority=6),
    Column("from visitors", right=True, priority=8),
    Column("rtt", right=True, priority=2),
    Column("waiting for", "yellow", priority=1),
)


def _proxy(it: ProxyRow, rate: Traffic) -> Sequence[str]:
    return (
        it.name,
        it.client,
        it.address,
        str(it.active),
        str(it.total),
        size(rate.sent),
        size(rate.received),
        size(it.bytes.sent),
        size(it.bytes.received),
        duration(it.rtt),
        _waits(it.waits),
    )


def _proxies(history: History, skipped: int) -> Section:
    rows = [_proxy(proxy, history.rate(proxy)) for proxy in history.sorted()]
    return Section("proxies", _PROXIES, rows[min(skipped, max(0, len(rows) - 1)) :])


_CONNECTIONS = (
    Column("WAITING", "bold"),
    Column("visitor"),
    Column("connection", "dim", priority=3),
    Column("waits for", "yellow"),
    Column("not taken", right=True, priority=2),
    Column("queued", right=True, priority=1),
)


def _waiting(status: Status) -> Section:
    def row(it: ConnectionRow) -> Sequence[str]:
        return it.proxy, it.visitor, it.connection, it.waits, size(it.parked), size(it.queued)

    return Section("connections", _CONNECTIONS, [row(each) for each in status.connections])


_SESSIONS = (
    Column("CLIENT", "bold"),
    Column("address"),
    Column("since", right=True, priority=2),
    Column("rtt", right=True),
    Column("conns", "green", right=True),
    Column("proxies", right=True, priority=3),
    Column("queued", right=True, priority=1),
    Column("link", "yellow", priority=4),
)


def _sessions(status: Status) -> Section:
    def row(it: SessionRow) -> Sequence[str]:
        return (
            it.name,
            it.address,
            duration(None if it.since is None else status.now - it.since),
            duration(it.rtt),
            str(it.connections),
            str(it.proxies),
            size(it.queued),
            "full" if it.blocked else "",
        )

    columns = _SESSIONS
    if status.role == "client":
        columns = (Column("LINK", "bold"), *_SESSIONS[1:])
    rows = sorted(status.sessions, key=lambda it: (-it.connections, it.name))
    return Section("clients", columns, [row(each) for each in rows])


def _several(count: int, what: str) -> str:
    if count == 1:
        return f"1 {what}"
    return f"{count} {what[:-1]}ies" if what.endswith("y") else f"{count} {what}s"


def _waits(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts)


# --- Drawing -------------------------------------------------------------------------------------


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _table(section: Section, width: int, lines: int) -> Table:
    """One line each for the titles and the rows; what does not fit is counted."""
    rows = section.rows[:lines]
    hidden = len(section.rows) - len(rows)
    titles = [column.title for column in section.columns]
    if hidden:
        titles[0] += f" +{hidden}"
    widths = _widths(section.columns, [titles, *rows], width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="reverse")
    for at, cells in widths.items():
        column = section.columns[at]
        table.add_column(
            Text(titles[at]),
            style=column.style,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=cells,
        )
    for row in rows:
        table.add_row(*(Text(row[at]) for at in widths))
    return table


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """The columns that there is room for, and how wide each is.

    What is only nice to know goes first; then texts are cut, to what can still be read; then the
    least important columns go.
    """
    widths = {at: max(cell_len(row[at]) for row in rows) for at in range(len(columns))}
    while (surplus := sum(widths.values()) + _GAP * len(widths) - width) > 0:
        longest = max(widths, key=lambda at: (not columns[at].right, widths[at]))
        least = max(widths, key=lambda at: columns[at].priority)
        if columns[least].priority >= _NICE:
            del widths[least]
        elif widths[longest] > _NARROW and not columns[longest].right:
            widths[longest] = max(_NARROW, widths[longest] - surplus)
        elif columns[least].priority:
            del widths[least]
        else:
            break
    return widths


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest values as bars, the highest of them filling the line; nothing is an empty bar."""
    values = values[-width:] if width else ()
    most = max(values, default=0.0)
    if most <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(7, int(value / most * 7.999))] for value in values)


def size(count: float) -> str:
    """Bytes for people: `999 B`, `1.2 kB`, `34 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds for people: `0.4 ms`, `21 ms`, `9 s`, `1 h 05 m`, `3 d 02 h`; a dash for unknown."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    whole = int(seconds)
    for unit, smaller, length, part in (
        ("d", "h", 86400, 3600),
        ("h", "m", 3600, 60),
        ("m", "s", 60, 1),
    ):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part:02} {smaller}"
    return f"{whole} s"
