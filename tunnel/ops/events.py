"""What happened lately, and how often: read off the log, whose event texts are stable.

So whatever is worth a line is an event, the code that logs knows nothing of it, and it costs
nothing while nobody asked for statistics. Connections of visitors are no events: their lines are
debug's.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final

import attrs

from tunnel import limits

#: The journal of the program that a task belongs to: two in one process do not mix theirs.
_journal: ContextVar[Journal | None] = ContextVar("journal", default=None)

_KINDS: Final = {
    "Server listening": "listening",
    "Client connected": "connected",
    "Connected": "connected",
    "Client disconnected": "disconnected",
    "Session taken over": "taken over",
    "Authentication failed": "refused",
    "Refused": "refused",
    "Handshake failed": "handshake failed",
    "Proxy listening": "published",
    "Proxy published": "published",
    "Proxy rejected": "rejected",
    "Visitor turned away": "turned away",
    "Connection turned away": "turned away",
    "Connection lost": "lost",
    "Connecting": "connecting",
    "Local service unreachable": "local",
    "Server stops": "stopping",
    "Server stopped": "stopping",
    "Client stopped": "stopping",
}
_BEGINNINGS: Final = {
    "Reconnecting": "reconnecting",
    "Certificate": "certificate",
    "Proxy removed": "port lost",
    "Proxy withdrawn": "port lost",
}

#: What a reason in a log line comes down to, by what it contains: the label of a metric must be
#: one of a few, whatever a system or a stranger says.
_REASONS: Final = (
    ("taken over", "taken_over"),
    ("no sign of life", "silence"),
    ("stops", "stopped"),
    ("protocol error", "protocol"),
    ("ended the session with code", "protocol"),
    ("too slow", "too_slow"),
    ("no connection within", "too_slow"),
    ("not a client", "not_a_client"),
    ("closed by the other side", "closed"),
    ("cut in the middle", "cut"),
    ("ended by this side", "ended"),
)

#: The details that every record has.
_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def reason_label(reason: object) -> str:
    """One of a few words for the reason in a log line; "other" for what has none."""
    text = str(reason)
    return next((label for part, label in _REASONS if part in text), "other")


@attrs.frozen
class Event:
    """Something that happened.

    Args:
      number: grows by one.
      time: in Unix seconds.
      kind: one of a few words.
      text: the log's event.
      level: "info", "warning" or "error".
      details: texts and numbers.
    """

    number: int
    time: float
    kind: str
    text: str
    level: str
    details: dict[str, str | float | None]


class Journal(logging.Handler):
    """Keeps the last events, and counts all of them.

    Args:
      most: how many are kept.
    """

    def __init__(self, most: int = limits.MAX_EVENTS) -> None:
        super().__init__(logging.INFO)
        self.last = 0
        #: Called when a session has ended, while its numbers can still be read.
        self.at_end: Callable[[], None] = _nothing
        self._events: deque[Event] = deque(maxlen=most)
        #: How often what happened, by a metric's name and the label there.
        self.counts: Counter[tuple[str, str]] = Counter()

    def since(self, number: int) -> list[Event]:
        """The events after that one, as far as they are kept."""
        return [event for event in self._events if event.number > number]

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Listen to what the tasks of this block log, and those that they start.

        A program that shows less than what is kept here goes on showing as much.
        """
        logger = logging.getLogger("tunnel")
        token = _journal.set(self)
        with _informed(logger):
            logger.addHandler(self)
            try:
                yield
            finally:
                logger.removeHandler(self)
                _journal.reset(token)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of this program, or of nobody's in particular (what reads its files)."""
        if _journal.get() not in (self, None):
            return
        text = record.getMessage()
        details = {key: _flat(value) for key, value in vars(record).items() if key not in _PLAIN}
        kind = _kind(text)
        self.last += 1
        level = record.levelname.lower()
        self._events.append(Event(self.last, record.created, kind, text, level, details))
        self._count(kind, text, details)

    def _count(self, kind: str, text: str, details: dict[str, str | float | None]) -> None:
        times = 1 + int(details.get("left_out") or 0)  # lines that a flood did not get
        label = reason_label(details.get("reason"))
        match kind, text:
            case "connected", "Client connected":
                self.counts["handshakes", "connected"] += 1
            case "refused" | "rejected", _:
                self.counts[kind, str(details.get("code", "other"))] += times
            case "handshake failed", _:
                self.counts["handshakes", label] += times
            case "published", _:
                self.counts[kind, ""] += 1
            case "disconnected" | "lost", _:
                self.counts[kind, label] += 1
                self.at_end()
            case "taken over" | "connecting" | "connected", _:
                self.counts[kind, ""] += 1
            case _:
                pass


def _nothing() -> None:
    """What is called if nobody wants to know."""


def _kind(text: str) -> str:
    if text in _KINDS:
        return _KINDS[text]
    return next((kind for start, kind in _BEGINNINGS.items() if text.startswith(start)), "other")


def _flat(value: object) -> str | float | None:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    most = limits.MAX_EVENT_TEXT
    return text if len(text) <= most else text[: most - 1] + "…"


@contextlib.contextmanager
def _informed(logger: logging.Logger) -> Iterator[None]:
    """Have the logger make records from info on, and its handlers show no more than before.

    Only where the logger is a program's own. One that an application has set up stays as it is,
    and tells no more than that application wants to hear.
    """
    level = logger.level
    if logger.propagate or level <= logging.INFO:
        yield
        return
    others = {handler: handler.level for handler in logger.handlers}
    for handler, own in others.items():
        handler.setLevel(max(level, own))
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler, own in others.items():
            handler.setLevel(own)
