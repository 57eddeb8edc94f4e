"""The connections that have not proved anything yet: how many there are, and which gives way.

Each holds a task, a socket and a TLS state, so that there is a bound. When it is reached, the
newcomer gets the place of the oldest connection of the busiest network: a network that takes many
places loses them, and a client that connects while one takes them all still gets in.
"""

from __future__ import annotations

import contextlib
import socket

import attrs
import trio

from tunnel.eventlog import logged_events
from tunnel.events import ConnectionTurnedAway, EventStream
from tunnel.model import Address
from tunnel.net.transport import peer_address, reset_on_close
from tunnel.server.limited_events import LimitedEvents
from tunnel.server.policy import Policy
from tunnel.server.ratelimit import Penalties, RateLimit, network
from tunnel.stats import Reason, Tally


@attrs.define(eq=False)
class Stranger:
    """A connection since it was accepted.

    Args:
      network: the one that it comes from, as `ratelimit.network` names it.
      address: the address.
    """

    network: str
    address: Address
    #: Cancelled when it must give way, which it must only while it has proved nothing.
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    proved: bool = attrs.field(default=False, init=False)


class StrangersByNetwork:
    """Strangers by their networks, and the networks by how many they are.

    Entering, leaving and finding the busiest take the same time however many there are.
    """

    def __init__(self) -> None:
        self._networks: dict[str, dict[Stranger, None]] = {}
        #: For each number of strangers the networks that have so many, the earliest first.
        self._by_size: dict[int, dict[str, None]] = {}
        self._largest = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, stranger: Stranger) -> bool:
        return stranger in self._networks.get(stranger.network, {})

    def add(self, stranger: Stranger) -> None:
        """Count a stranger, as the newest of its network."""
        others = self._networks.setdefault(stranger.network, {})
        others[stranger] = None
        self._count += 1
        self._move(stranger.network, len(others) - 1, len(others))

    def remove(self, stranger: Stranger) -> None:
        """Count it no more."""
        others = self._networks[stranger.network]
        del others[stranger]
        self._count -= 1
        self._move(stranger.network, len(others) + 1, len(others))
        if not others:
            del self._networks[stranger.network]

    def _move(self, network: str, old: int, new: int) -> None:
        if old:
            del self._by_size[old][network]
            if not self._by_size[old]:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, {})[network] = None
        # It changes by one at a time, and a network that left the largest size is just below it.
        if new > self._largest or self._largest not in self._by_size:
            self._largest = new

    def oldest_of_busiest(self) -> Stranger:
        """Which gives way: of equally busy networks, the one that has been so for longest."""
        busiest = next(iter(self._by_size[self._largest]))
        return next(iter(self._networks[busiest]))


class Strangers:
    """Lets new connections in, before a byte of theirs is read.

    Args:
      policy: how many there may be that have proved nothing, and how fast they may come; replaced
        as a whole.
      tally: counts what was turned away.
      events: told of it, in lines that cannot flood.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        tally: Tally | None = None,
        events: EventStream | None = None,
    ) -> None:
        self._policy = policy
        self._limit = _rate_limit(policy)
        self._tally = tally or Tally()
        self._waiting = StrangersByNetwork()
        self._penalties = Penalties()
        self._limited = LimitedEvents(events or logged_events())

    def __len__(self) -> int:
        return len(self._waiting)

    def update(self, policy: Policy) -> None:
        """Go by another policy from now on; what a rate remembers goes only with that rate."""
        if policy.rate != self._policy.rate:
            self._limit = _rate_limit(policy)
        self._policy = policy

    def receive(self, sock: socket.socket) -> Stranger | None:
        """A place for a new connection; None if it is turned away, and closed.

        Another stranger may lose its place by it: its `scope` is cancelled, and its own task closes
        its socket. What got a place must be said to have `left` in the end.
        """
        try:
            address = peer_address(sock)
        except OSError:
            sock.close()  # it has gone already
            return None
        source = network(address.host)
        reason = self._why_not(source)
        if reason is not None:
            self._turn_away(sock, address, reason)
            return None
        if len(self._waiting) >= self._policy.max_unauthenticated:
            self._make_room()
        stranger = Stranger(source, address)
        self._waiting.add(stranger)
        return stranger

    def _why_not(self, source: str) -> Reason | None:
        now = trio.current_time()
        if self._penalties.turns_away(source, now):
            return Reason.FAILED_PROOFS
        return None if self._limit is None else self._limit.take(source, now)

    def _turn_away(self, sock: socket.socket, address: Address, reason: Reason) -> None:
        with contextlib.suppress(OSError):  # not every system takes it once the peer has gone
            reset_on_close(sock)  # nothing of it stays in the kernel either
        sock.close()
        self._tell(address, reason)

    def _make_room(self) -> None:
        oldest = self._waiting.oldest_of_busiest()
        self._waiting.remove(oldest)
        oldest.scope.cancel()
        self._tell(oldest.address, Reason.GAVE_WAY)

    def _tell(self, address: Address, reason: Reason) -> None:
        self._tally.count(reason)
        self._limited.emit(
            reason, lambda left_out: ConnectionTurnedAway(address, reason.value, left_out)
        )

    def proved(self, stranger: Stranger) -> None:
        """It is a client: no newcomer gets its place any more, and its network is trusted.

        (Its proof may have come in the moment in which it was told to give way; then it goes.)
        """
        if stranger in self._waiting:
            self._waiting.remove(stranger)
        stranger.proved = True
        self._penalties.proved(stranger.network)

    def failed(self, stranger: Stranger) -> float | None:
        """Its proof was wrong; returns for how many seconds it should stay away, if it should."""
        self._tally.count(Reason.WRONG_KEY)
        return self._penalties.failed(stranger.network, trio.current_time()) or None

    def left(self, stranger: Stranger) -> None:
        """Its connection is over, whatever it was."""
        if stranger.proved:
            self._penalties.left(stranger.network, trio.current_time())
        elif stranger in self._waiting:
            self._waiting.remove(stranger)


def _rate_limit(policy: Policy) -> RateLimit | None:
    return None if policy.rate is None else RateLimit(policy.rate)
