"""What `tls-tunnel top` knows: the answers of `/status`, and the rates between two of them.

The answer comes from a program of the user's choice, but the names in it come from strangers.
Whatever is in it, nothing here raises anything but `ValueError`, and every text is cut and escaped.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterable, Mapping

import attrs

from tunnel import limits
from tunnel.ops.logs import escaped

#: Names have at most so many characters, addresses fewer; longer texts are cut.
_LONGEST = limits.MAX_NAME_LENGTH

Key = tuple[str, str]


class Order(enum.StrEnum):
    """What the proxies are sorted by."""

    RATE = "rate"
    CONNECTIONS = "connections"
    BYTES = "bytes"
    NAME = "name"

    def following(self) -> Order:
        """The next order in turn; after the last one the first."""
        orders = list(Order)
        return orders[(orders.index(self) + 1) % len(orders)]


@attrs.frozen
class Traffic:
    """Bytes so far, or bytes per second: towards visitors and from them."""

    sent: float = 0.0
    received: float = 0.0

    @property
    def both(self) -> float:
        """Towards visitors and from them together."""
        return self.sent + self.received

    def since(self, before: Traffic, seconds: float) -> Traffic:
        """Bytes per second since an earlier number of bytes.

        Args:
          before: what there was then; where that is more, the counters have begun anew.
          seconds: how long ago that was.
        """
        return Traffic(
            max(0.0, self.sent - before.sent) / seconds,
            max(0.0, self.received - before.received) / seconds,
        )


@attrs.frozen
class ProxyRow:
    """One proxy."""

    key: Key
    name: str
    client: str
    address: str
    active: int
    total: int
    bytes: Traffic
    rtt: float | None
    #: How many of its connections wait for what.
    waits: tuple[tuple[str, int], ...] = ()


@attrs.frozen
class SessionRow:
    """One client and its link."""

    name: str
    address: str
    since: float | None
    rtt: float | None
    connections: int
    proxies: int
    queued: int
    blocked: bool


@attrs.frozen
class ConnectionRow:
    """One visitor's connection that waits."""

    connection: str
    proxy: str
    visitor: str
    waits: str
    parked: int
    queued: int


@attrs.frozen
class Status:
    """One answer of `/status`."""

    role: str
    version: str
    state: str
    name: str
    started: float
    now: float
    process: str
    totals: Traffic
    active: int
    loop_lag: float | None
    certificate_expires: float | None
    waits: tuple[tuple[str, int], ...]
    proxies: tuple[ProxyRow, ...]
    sessions: tuple[SessionRow, ...]
    connections: tuple[ConnectionRow, ...]

    @classmethod
    def from_json(cls, answer: object) -> Status:
        """Read an answer.

        Raises:
          ValueError: it is none.
        """
        if not isinstance(answer, dict) or not {"role", "now", "proxies"} <= answer.keys():
            raise ValueError("not what a tls-tunnel answers")
        totals, of = _table(answer, "totals"), _table(answer, "connections")
        connections = [_table(each) for each in _list(of, "shown")]
        waits = _waits(connections)
        return cls(
            role=_text(answer, "role"),
            version=_text(answer, "version"),
            state=_text(answer, "state"),
            name=_text(answer, "name"),
            started=_number(answer, "started"),
            now=_number(answer, "now"),
            process=_text(answer, "process"),
            totals=_traffic(totals),
            active=int(_number(totals, "active_connections")),
            loop_lag=_maybe(answer, "loop_lag"),
            certificate_expires=_maybe(answer, "certificate_expires"),
            waits=_counted(_table(of, "waits")),
            proxies=tuple(_proxy(_table(each), waits) for each in _list(answer, "proxies")),
            sessions=tuple(_session(_table(each)) for each in _list(answer, "sessions")),
            connections=tuple(_connection(each) for each in connections if each.get("waits")),
        )


class History:
    """The last two answers, and the throughput before."""

    def __init__(self) -> None:
        self.status: Status | None = None
        #: Bytes per second of all proxies, the newest last.
        self.rates: deque[Traffic] = deque(maxlen=limits.TOP_HISTORY)
        self.order = Order.RATE
        self._by_proxy: dict[Key, Traffic] = {}

    def add(self, status: Status) -> None:
        """Take another answer; one of a program that was restarted begins anew."""
        before, self.status = self.status, status
        if before is None or before.process != status.process:
            self.rates.clear()  # another program, or the same once more
            self._by_proxy.clear()
            return
        seconds = status.now - before.now
        if seconds <= 0:
            return
        self.rates.append(status.totals.since(before.totals, seconds))
        old = {proxy.key: proxy.bytes for proxy in before.proxies}
        self._by_proxy = {
            proxy.key: proxy.bytes.since(old.get(proxy.key, Traffic()), seconds)
            for proxy in status.proxies
        }

    def reset(self) -> None:
        """Forget all answers, and sort as at the start."""
        self.rates.clear()
        self.order = Order.RATE

    def rate(self, proxy: ProxyRow) -> Traffic:
        """Bytes per second of a proxy."""
        return self._by_proxy.get(proxy.key, Traffic())

    @property
    def now(self) -> Traffic:
        """Bytes per second of all."""
        return self.rates[-1] if self.rates else Traffic()

    def sorted(self) -> list[ProxyRow]:
        """The proxies, what matters most first; what is equal stays in the order of names."""
        if self.status is None:
            return []
        by_name = sorted(self.status.proxies, key=lambda it: (it.name, it.client, it.key))
        match self.order:
            case Order.RATE:
                return sorted(by_name, key=lambda it: -self.rate(it).both)
            case Order.CONNECTIONS:
                return sorted(by_name, key=lambda it: -it.active)
            case Order.BYTES:
                return sorted(by_name, key=lambda it: -it.bytes.both)
            case Order.NAME:
                return by_name


# --- Reading JSON that may be anything ---------------------------------------------------------


def _table(value: object, key: str | None = None) -> Mapping[str, object]:
    if key is not None and isinstance(value, Mapping):
        value = value.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(table: Mapping[str, object], key: str) -> list[object]:
    value = table.get(key)
    return value[: limits.TOP_ROWS] if isinstance(value, list) else []


def _text(table: Mapping[str, object], key: str) -> str:
    value = table.get(key)
    if value is None:
        return ""
    text = str(value)
    return escaped(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def _maybe(table: Mapping[str, object], key: str) -> float | None:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e18 else None  # (nor is NaN)


def _number(table: Mapping[str, object], key: str) -> float:
    return _maybe(table, key) or 0.0


def _traffic(table: Mapping[str, object]) -> Traffic:
    return Traffic(_number(table, "bytes_sent"), _number(table, "bytes_received"))


def _counted(table: Mapping[str, object]) -> tuple[tuple[str, int], ...]:
    counts = {_text({"": key}, ""): int(_number(table, key)) for key in list(table)[:16]}
    return tuple((name, count) for name, count in counts.items() if count)


def _waits(connections: Iterable[Mapping[str, object]]) -> dict[Key, Counter[str]]:
    waits: dict[Key, Counter[str]] = {}
    for each in connections:
        if each.get("waits"):
            key = (_text(each, "client"), _text(each, "proxy"))
            waits.setdefault(key, Counter())[_text(each, "waits")] += 1
    return waits


def _proxy(table: Mapping[str, object], waits: Mapping[Key, Counter[str]]) -> ProxyRow:
    name, client = _text(table, "name"), _text(table, "client")
    return ProxyRow(
        key=(_text(table, "session"), name),
        name=name,
        client=client,
        address=_address(table),
        active=int(_number(table, "active_connections")),
        total=int(_number(table, "total_connections")),
        bytes=_traffic(table),
        rtt=_maybe(table, "rtt"),
        waits=tuple(waits.get((client, name), Counter()).most_common()),
    )


def _address(table: Mapping[str, object]) -> str:
    """Where visitors reach it, or why they do not."""
    if _text(table, "status") not in ("", "published"):
        return "not published"
    addresses = _list(table, "addresses")
    return _text({"": addresses[0]}, "") if addresses else ""


def _session(table: Mapping[str, object]) -> SessionRow:
    return SessionRow(
        _text(table, "client"),
        _text(table, "address"),
        _maybe(table, "since"),
        _maybe(table, "rtt"),
        int(_number(table, "connections")),
        int(_number(table, "proxies")),
        int(_number(table, "queued")),
        table.get("blocked") is True,
    )


def _connection(table: Mapping[str, object]) -> ConnectionRow:
    return ConnectionRow(
        _text(table, "connection"),
        _text(table, "proxy"),
        _text(table, "visitor"),
        _text(table, "waits"),
        int(_number(table, "parked")),
        int(_number(table, "queued")),
    )
