"""How much strangers may try, before a byte of theirs is read: plain arithmetic on networks.

Whatever is remembered of a network is in a table of fixed size. `now` is in seconds, of a clock
that only moves forward.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Generic, TypeVar

import attrs

from tunnel import limits
from tunnel.stats import Reason

_Value = TypeVar("_Value")


def network(host: str) -> str:
    """The source network that an address is counted under: itself, or an IPv6 address's /64.

    (Whoever has one IPv6 address has a whole /64 of them.)
    """
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"


class Recent(Generic[_Value]):
    """A value for each of the networks seen last; those before them are forgotten.

    Args:
      size: how many are remembered.
    """

    def __init__(self, size: int = limits.MAX_NETWORKS) -> None:
        self._size = size
        self._values: OrderedDict[str, _Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, source: str) -> _Value | None:
        """What is remembered of it; it is not seen by that."""
        return self._values.get(source)

    def see(self, source: str, value: _Value) -> None:
        """Remember this of it."""
        self._values[source] = value
        self._values.move_to_end(source)
        if len(self._values) > self._size:
            self._values.popitem(last=False)


# --- How fast ---------------------------------------------------------------------------------


@attrs.define(eq=False)
class TokenBucket:
    """So many a second, and so many at once.

    Args:
      per_second: how fast tokens come back.
      burst: how many there are at most.
    """

    per_second: float
    burst: float
    _tokens: float = attrs.field(init=False)
    _filled_at: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.per_second)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@attrs.frozen
class Rate:
    """New connections per second, and how many may come at once after a pause."""

    per_second: float
    burst: float


class RateLimit:
    """A rate for all, of which one network can have only a part.

    A network is held to its part first: what is turned away there takes nothing from the others.

    Args:
      rate: for all together; one network gets `limits.NETWORK_SHARE` of it, at least one at once.
    """

    def __init__(self, rate: Rate) -> None:
        self._all = TokenBucket(rate.per_second, rate.burst)
        self._share = rate.per_second * limits.NETWORK_SHARE
        self._share_burst = max(1.0, rate.burst * limits.NETWORK_SHARE)
        self._networks: Recent[TokenBucket] = Recent()

    def take(self, source: str, now: float) -> Reason | None:
        """Why a new connection from that network is too much now; None if it is not."""
        bucket = self._networks.get(source) or TokenBucket(self._share, self._share_burst)
        self._networks.see(source, bucket)
        if not bucket.take(now):
            return Reason.NETWORK_RATE
        return None if self._all.take(now) else Reason.RATE


# --- Failed proofs ----------------------------------------------------------------------------


@attrs.frozen
class _Record:
    failures: float
    at: float
    until: float

    def remembered(self, now: float) -> float:
        """How many failures are not forgotten yet."""
        return self.failures * math.exp2((self.at - now) / limits.FAILURES_HALF_LIFE)


class Penalties:
    """Networks that are turned away for a while because proofs from them failed.

    The while grows with every failure, and failures are forgotten with time. No connection is
    kept waiting: one that is turned away costs nothing, and its client was told before for how long
    to stay away. A network is spared while a client from there is connected, and for some time
    after: neighbours behind one address do not pay for each other.
    """

    def __init__(self) -> None:
        self._records: Recent[_Record] = Recent()
        #: Sessions of each network.
        self._living: dict[str, int] = {}
        #: Until when a network is trusted that has no session any more.
        self._trusted: Recent[float] = Recent()

    def failed(self, source: str, now: float) -> float:
        """A proof failed; returns for how many seconds its network is turned away."""
        former = self._records.get(source)
        failures = 1 + (0.0 if former is None else former.remembered(now))
        # (A little less than whole, after the first seconds of forgetting.)
        excess = round(failures, 1) - limits.FREE_FAILURES
        penalty = 0.0
        if excess > 0:
            penalty = min(limits.PENALTY_FIRST * 2 ** (excess - 1), limits.PENALTY_LAST)
        self._records.see(source, _Record(failures, now, now + penalty))
        return penalty

    def turns_away(self, source: str, now: float) -> bool:
        """True if that network is turned away now."""
        record = self._records.get(source)
        return record is not None and now < record.until and not self._spared(source, now)

    def _spared(self, source: str, now: float) -> bool:
        return source in self._living or now < (self._trusted.get(source) or 0.0)

    def proved(self, source: str) -> None:
        """A client from there has proved itself; tell when it has `left`."""
        self._living[source] = self._living.get(source, 0) + 1

    def left(self, source: str, now: float) -> None:
        """Its session is over."""
        others = self._living.pop(source) - 1
        if others:
            self._living[source] = others
        else:
            self._trusted.see(source, now + limits.TRUST_LIFETIME)
