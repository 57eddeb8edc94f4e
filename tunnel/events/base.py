"""What an event is, and the stream that passes it on.

The log, the journal behind `/events`, the metrics, the audit log and the library's `events()` are
subscribers of the same stream. An event knows the line that the log has for it; no program reads
that line to learn what happened.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Final, Literal, TypeAlias

import attrs

from tunnel.model import Address, ResetCode

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Details: TypeAlias = dict[str, object]

#: The field that says how many events of its kind were not told, and says nothing if none was.
_NONE_LEFT_OUT: Final = ("left_out", 0)


class EndReason(enum.StrEnum):
    """Why a session, or an attempt to begin one, came to its end; the label of a metric."""

    #: A later connection of the same client took its place.
    TAKEN_OVER = "taken_over"
    #: The other side has given no sign of life.
    SILENCE = "silence"
    #: The server stops.
    STOPPED = "stopped"
    #: The other side broke the protocol, or says that this side did.
    PROTOCOL = "protocol"
    #: It took longer than it may.
    TOO_SLOW = "too_slow"
    #: What connected to the server's port is no client.
    NOT_A_CLIENT = "not_a_client"
    #: The other side closed the connection properly.
    CLOSED = "closed"
    #: The connection ended in the middle of something.
    CUT = "cut"
    #: This side ended it.
    ENDED = "ended"
    #: Anything else, such as what a system says of a socket.
    OTHER = "other"


@attrs.frozen
class End:
    """How something came to its end: the reason, for programs, and in words, for people."""

    reason: EndReason
    text: str


class Event:
    """Something that happened.

    Args (of the class, not of the event):
      text: the log's line, which scripts may look for; empty if the log has none.
      level: how much it matters.
      kind: what the journal files it under.
      logger: the logger that the line goes to.
    """

    __slots__ = ()

    kind: ClassVar[str] = "other"
    logger: ClassVar[str] = "tunnel"

    @property
    def text(self) -> str:
        """The log's line; some depend on what happened."""
        return ""

    @property
    def level(self) -> Level:
        """How much it matters; of some events that depends on what happened."""
        return "info"

    def details(self) -> Details:
        """What the log line says besides, by the keys that scripts rely on: the event's fields."""
        names = [field.name for field in attrs.fields(type(self))]  # type: ignore[arg-type]
        fields = [(name, getattr(self, name)) for name in names]
        return dict(_detail(*field) for field in fields if field != _NONE_LEFT_OUT)


@attrs.frozen
class VisitorOpened(Event):
    """A visitor's connection is carried from now on. Told only to subscribers to visitors."""

    proxy: str
    client: str
    connection: str
    visitor: Address


@attrs.define  # not frozen, which takes longer: there is one for each connection
class VisitorClosed(Event):
    """A visitor's connection is over, or was turned away. Told only to subscribers to visitors.

    Args:
      proxy: the name of what was visited; empty if there is no such proxy.
      client: the name of the client that published it; empty on that client itself.
      connection: the id that both sides log; None if it was turned away before it got one.
      visitor: where it came from.
      sent: bytes towards the visitor, as far as they went into a socket here, or came out of one.
      received: bytes from it, counted likewise.
      duration: seconds.
      how: "finished", or why it did not come to that.
    """

    proxy: str
    client: str
    connection: str | None
    visitor: Address
    sent: int
    received: int
    duration: float
    how: str


def how_ended(code: ResetCode | None) -> str:
    """How a connection ended, in words; None is cleanly."""
    return "finished" if code is None else code.text


#: Takes an event at once. It must not wait, and what it raises ends whoever told the event.
Subscriber: TypeAlias = Callable[[Event], None]


class EventStream:
    """Passes each event on to those who subscribed, at once and in the order in which they did.

    Args:
      subscribers: those who get every event but `VisitorOpened` and `VisitorClosed`.
    """

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers: tuple[Subscriber, ...] = subscribers
        self._visits: tuple[Subscriber, ...] = ()

    @property
    def wants_visitors(self) -> bool:
        """True if there are subscribers to visitors; these events are thousands a second."""
        return bool(self._visits)

    def emit(self, event: Event) -> None:
        """It has happened."""
        for subscriber in self._subscribers:
            subscriber(event)

    def emit_visitor(self, event: VisitorOpened | VisitorClosed) -> None:
        """It has happened to a visitor; make the event only if `wants_visitors`."""
        for subscriber in self._visits:
            subscriber(event)

    @contextmanager
    def subscribed(self, subscriber: Subscriber, *, visitors: bool = False) -> Iterator[None]:
        """Have a subscriber told within this block.

        Args:
          subscriber: who is told.
          visitors: of `VisitorOpened` and `VisitorClosed`, and of nothing else.
        """
        if visitors:
            self._visits = (*self._visits, subscriber)
        else:
            self._subscribers = (*self._subscribers, subscriber)
        try:
            yield
        finally:
            # Equality, not identity: a bound method is another object each time it is named.
            self._visits = tuple(it for it in self._visits if it != subscriber or not visitors)
            self._subscribers = tuple(
                it for it in self._subscribers if it != subscriber or visitors
            )


def _detail(name: str, value: object) -> tuple[str, object]:
    """A field as log lines have it: its key, and a text or number."""
    if isinstance(value, End):
        return "reason", value.text
    if isinstance(value, tuple):
        return "address", ", ".join(map(str, value)) or "visitors only"
    if isinstance(value, Address):
        return name, str(value)
    return name, value.value if isinstance(value, enum.Enum) else value
