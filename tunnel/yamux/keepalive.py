"""Whether the peer is still there: any byte shows it, and a ping asks for one after a silence.

Yamux's own keepalive counts the answers to pings. That fails where a link is slow: an answer that
waits behind megabytes of data is late, though the peer is well and those very bytes show it. Here
every byte that arrives, even half a TLS record, is a sign of life, and a ping is sent only so that
a peer that has nothing to say says something.
"""

from __future__ import annotations

from tunnel.yamux.settings import Settings


class Keepalive:
    """Silence, pings and round trips of one connection. Seconds throughout.

    Args:
      settings: `keepalive_interval` (None for no keepalive) and `keepalive_timeout`.
      now: when the connection began.
    """

    def __init__(self, settings: Settings, now: float) -> None:
        self._interval = settings.keepalive_interval
        self._timeout = settings.keepalive_timeout
        self._received_at = now
        #: When this end last sent something, or decided to.
        self._sent_at = now
        #: Since when a ping because of the silence is without an answer.
        self._asked_at: float | None = None
        self._ping_value = 0
        self._ping_under_way = False
        self._ping_sent_at: float | None = None

    def heard(self, now: float) -> None:
        """Take a sign of life at `now`; one that is no later than the last answers no ping."""
        if now > self._received_at:
            self._received_at = now
            self._asked_at = None

    def start_ping(self, *, anew: bool = False) -> int | None:
        """The value of a new ping; None if one is under way.

        Args:
          anew: give up on one that was sent: a peer that drops pings when it is busy is not dead.
        """
        if self._ping_under_way and not (anew and self._ping_sent_at is not None):
            return None
        self._ping_under_way = True
        self._ping_sent_at = None
        self._ping_value = (self._ping_value + 1) & 0xFFFF_FFFF
        return self._ping_value

    def sending(self, now: float) -> None:
        """Frames go out now, a new ping first among them: its round trip begins."""
        self._sent_at = now
        if self._ping_under_way and self._ping_sent_at is None:
            self._ping_sent_at = now

    def pong(self, value: int, now: float) -> float | None:
        """The round trip, if this answers the ping that is under way."""
        if not self._ping_under_way or value != self._ping_value or self._ping_sent_at is None:
            return None
        self._ping_under_way = False
        return now - self._ping_sent_at

    @property
    def deadline(self) -> float | None:
        """When `wants_ping` or `expired` can next be true; None for never."""
        if self._interval is None:
            return None
        if self._asked_at is not None:
            return self._asked_at + self._timeout
        return min(self._received_at, self._sent_at) + self._interval

    def wants_ping(self, now: float) -> bool:
        """True once when the silence of either end has lasted `keepalive_interval`.

        An end that hears its peer all the time has to speak as well: the peer's own ping may be
        stuck behind what it sends.
        """
        if self._interval is None or self._asked_at is not None:
            return False
        if now >= self._received_at + self._interval:
            self._asked_at = now
        elif now < self._sent_at + self._interval:
            return False
        self._sent_at = now  # though it may have to wait: it was decided, and not to be asked again
        return True

    def expired(self, now: float) -> bool:
        """True if nothing came within `keepalive_timeout` of asking."""
        return self._asked_at is not None and now >= self._asked_at + self._timeout
