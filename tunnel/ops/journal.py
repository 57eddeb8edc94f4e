"""What happened lately, and how often: what `/events` answers, and the counts behind `/metrics`.

A journal subscribes to the program's events. What else the program logs stays in it as well, by a
logging handler: a line that is no event is of the kind "other". Connections of visitors are in
neither, for there are thousands a second.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Final, TypeAlias

import attrs

from tunnel import eventlog, limits
from tunnel.events import (
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    Connected,
    Connecting,
    ConnectionLost,
    Event,
    EventStream,
    HandshakeFailed,
    OwnProxyPublished,
    OwnProxyRejected,
    ProxyPublished,
    ProxyRejected,
    RefusedByServer,
    SessionTakenOver,
)

#: A text or a number, as JSON has it.
Plain: TypeAlias = str | float | None

#: The journal of the program that a task belongs to: two in one process do not mix theirs.
_journal: ContextVar[Journal | None] = ContextVar("journal", default=None)

#: What every log record has; all else is a detail.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_OTHER: Final = "other"


@attrs.frozen
class JournalEntry:
    """Something that happened.

    Args:
      number: grows by one.
      time: in Unix seconds.
      kind: one of a few words.
      text: the log's line.
      level: "info", "warning" or "error".
      details: texts and numbers.
    """

    number: int
    time: float
    kind: str
    text: str
    level: str
    details: dict[str, Plain]


class Journal:
    """Keeps what happened last, and counts all of it.

    Args:
      most: how many entries are kept.
    """

    def __init__(self, most: int = limits.MAX_EVENTS) -> None:
        #: The number of the newest entry; 0 if there is none yet.
        self.last = 0
        self._entries: deque[JournalEntry] = deque(maxlen=most)
        #: How often what happened, by what `counted` makes of an event.
        self.counts: Counter[tuple[str, str]] = Counter()

    def since(self, number: int) -> list[JournalEntry]:
        """The entries after that number, as far as they are kept."""
        return [entry for entry in self._entries if entry.number > number]

    @contextlib.contextmanager
    def kept(self, events: EventStream) -> Iterator[None]:
        """Keep what happens during the block.

        Args:
          events: the program's. Of other log lines it is those of the tasks of this block, and of
            tasks that they start, and those that belong to no program.
        """
        token = _journal.set(self)
        try:
            with events.subscribed(self.put), _handled_by(_OtherLines(self)):
                yield
        finally:
            _journal.reset(token)

    def put(self, event: Event) -> None:
        """Count an event, and keep it if the log has a line for it. See `Subscriber`."""
        if (what := counted(event)) is not None:
            self.counts[what] += 1
            if isinstance(event, ClientRefused | HandshakeFailed):
                self.counts[what] += event.left_out
        if event.text and event.level != "debug":
            self.add(time.time(), event.kind, event.text, event.level, event.details())

    def add(
        self, at: float, kind: str, text: str, level: str, details: Mapping[str, object]
    ) -> None:
        """Keep an entry; arguments as for `JournalEntry`, but of any size and type."""
        self.last += 1
        plain = {key: _plain(value) for key, value in details.items()}
        self._entries.append(JournalEntry(self.last, at, kind, text, level, plain))


def counted(event: Event) -> tuple[str, str] | None:
    """What an event is counted as: a name, and the label of a metric; None if it is not.

    Labels have few values, whatever a system or a stranger says: they are codes and reasons of
    ours. (A client takes its server's word for the code of a refusal.)
    """
    match event:
        case ClientConnected():
            return "handshakes", "connected"
        case HandshakeFailed():
            return "handshakes", event.end.reason
        case ClientRefused() | RefusedByServer():
            return "refused", str(event.code)
        case ProxyPublished() | OwnProxyPublished():
            return "published", ""
        case ProxyRejected() | OwnProxyRejected():
            return "rejected", event.code.value
        case ClientDisconnected():
            return "disconnected", event.end
        case SessionTakenOver():
            return "taken over", ""
        case Connecting():
            return "connecting", ""
        case Connected():
            return "connected", ""
        case ConnectionLost():
            return "lost", event.end.reason
        case _:
            return None


class _OtherLines(logging.Handler):
    """Adds log lines that are no events to a journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.INFO)
        self._target = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of this program, or of none in particular, as of what reads its files."""
        if record.name in eventlog.LOGGERS or _journal.get() not in (self._target, None):
            return
        details = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        level = record.levelname.lower()
        self._target.add(record.created, _OTHER, record.getMessage(), level, details)


def _plain(value: object) -> Plain:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    most = limits.MAX_EVENT_TEXT
    return text if len(text) <= most else text[: most - 1] + "…"


@contextlib.contextmanager
def _handled_by(handler: logging.Handler) -> Iterator[None]:
    """Have the package's logger pass its records from info on to a handler.

    Its other handlers show no more than before. Where the logger is not the program's own but set
    up by an application, it stays as it is, and makes no more records than that application wants.
    """
    logger = logging.getLogger("tunnel")
    level, others = logger.level, {it: it.level for it in logger.handlers}
    own = not logger.propagate and level > logging.INFO
    if own:
        for other in others:
            other.setLevel(max(level, other.level))
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        if own:
            logger.setLevel(level)
            for other, before in others.items():
                other.setLevel(before)
