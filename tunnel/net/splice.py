"""Two streams of two links joined: what comes on one goes out on the other.

There is no socket and no task in between. Each stream has an end here, an endpoint of its link. It
lends what comes to the other link as far as that has room, and parks the rest within the stream's
window; only what was passed on is granted again. So a slow reader at the far end slows the sender
at this one, and no other.
"""

from __future__ import annotations

from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link


def splice(
    visiting: tuple[Link, int],
    owning: tuple[Link, int],
    connection: CarriedConnection,
    *,
    parked: bytes | bytearray = b"",
    finished: bool = False,
) -> None:
    """Join two open streams from now on; flush both links after it.

    Args:
      visiting: the link and stream of the visitor.
      owning: those of the proxy's owner.
      connection: for counting and logging.
      parked: what the visitor has sent already; not consumed yet.
      finished: the visitor has sent everything.
    """
    ends = Splice(visiting, owning, connection)
    ends.begin()
    if parked and (taken := ends.visitor.deliver(memoryview(parked))):
        ends.visitor.link.consumed(ends.visitor.stream_id, taken)
    if finished:
        ends.visitor.finish()


class Splice:
    """What both ends share."""

    __slots__ = ("_over", "connection", "owner", "visitor")

    def __init__(
        self, visiting: tuple[Link, int], owning: tuple[Link, int], connection: CarriedConnection
    ) -> None:
        self.connection = connection
        self.visitor = SpliceEnd(self, *visiting)
        self.owner = SpliceEnd(self, *owning)
        self.visitor.other, self.owner.other = self.owner, self.visitor
        self._over = False

    def begin(self) -> None:
        """Both streams are carried from now on; whoever drains a link waits for them."""
        for end in (self.visitor, self.owner):
            end.link.attach(end.stream_id, end)
            end.link.carrier.started()
        self.connection.begin()

    def passed(self, end: SpliceEnd, size: int) -> None:
        """Count bytes that went on."""
        if end is self.visitor:
            self.connection.counters.read += size
        else:
            self.connection.counters.delivered += size

    def finish_if_done(self) -> None:
        """Both directions have ended cleanly, perhaps."""
        if self.visitor.done and self.owner.done:
            self.end(None)

    def end(self, code: ResetCode | None) -> None:
        """It is over: cleanly if `code` is None."""
        if self._over:
            return
        self._over = True
        for end in (self.visitor, self.owner):
            end.link.detach(end.stream_id)
            end.link.carrier.ended()
        self.connection.end(code)


class SpliceEnd(Endpoint):
    """The end of one of the two streams."""

    __slots__ = ("_finished", "_parked", "_splice", "done", "link", "other", "stream_id")

    other: SpliceEnd

    def __init__(self, whole: Splice, link: Link, stream_id: int) -> None:
        self.link = link
        self.stream_id = stream_id
        #: Everything that came on this stream, and its end, was passed on.
        self.done = False
        self._splice = whole
        self._parked = bytearray()
        self._finished = False

    def deliver(self, data: memoryview) -> int:
        """See `Endpoint`."""
        taken = 0
        if not self._parked:
            while taken < len(data) and (room := self.other.room):
                piece = data[taken : taken + room]
                self.other.link.lend(self.other.stream_id, piece)
                taken += len(piece)
        if taken:
            self._passed(taken)
        self._parked += data[taken:]
        return taken

    @property
    def room(self) -> int:
        """How much this stream can send; after 0 it is resumed when it is more."""
        return self.link.room(self.stream_id)

    def _passed(self, size: int) -> None:
        self._splice.passed(self, size)
        self.link.flush_with(self.other.link)

    def resume(self) -> None:
        """See `Endpoint`: pass on what the other end has parked."""
        self.other.unpark()
        self.link.flush_with(self.link)
        self.link.flush_with(self.other.link)

    def unpark(self) -> None:
        """Pass on what is parked, as far as there is room now."""
        passed = 0
        while self._parked and (room := self.other.room):
            piece = bytes(self._parked[:room])
            del self._parked[: len(piece)]
            self.other.link.send(self.other.stream_id, piece)
            passed += len(piece)
        if passed:
            self._splice.passed(self, passed)
            self.link.consumed(self.stream_id, passed)
        self._finish_if_passed()

    def finish(self) -> None:
        """See `Endpoint`: the end goes behind what is parked."""
        self._finished = True
        self._finish_if_passed()

    def _finish_if_passed(self) -> None:
        if self._finished and not self._parked and not self.done:
            self.done = True
            self.other.link.send_eof(self.other.stream_id)
            self.link.flush_with(self.other.link)
            self._splice.finish_if_done()

    def reset(self, code: int) -> None:
        """See `Endpoint`: a reset stays a reset, with its reason."""
        self.other.link.reset(self.other.stream_id, code)
        self.link.flush_with(self.other.link)
        self._splice.end(ResetCode.of(code))
