"""How long to wait before the next attempt."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from tunnel import limits


@attrs.define(eq=False)
class Backoff:
    """A fixed delay; or, with a larger maximum, one that doubles from attempt to attempt.

    A delay that grows also varies, and so does the short one towards a server that is being
    restarted: a thousand clients must not come back in one moment.

    Args:
      first: the first delay, seconds.
      largest: what it grows to, seconds.
      vary: gives a number from 0 to 1, a random one.
    """

    first: float
    largest: float
    vary: Callable[[], float]
    _next: float = attrs.field(init=False)
    _restart_until: float = attrs.field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The last session was a good one."""
        self._next = self.first

    def expect_restart(self, now: float) -> None:
        """The server said that it stops: delays are short for `limits.RESTART_PATIENCE`."""
        self._restart_until = now + limits.RESTART_PATIENCE
        self.reset()

    def server_is_back(self) -> None:
        """It answered, whatever it said."""
        self._restart_until = -math.inf

    def delay(self, now: float) -> float:
        """Seconds to wait this time; `now` is of a clock that only moves forward."""
        if now < self._restart_until:
            spread = limits.RESTART_DELAY_LONGEST - limits.RESTART_DELAY_SHORTEST
            return min(self.first, limits.RESTART_DELAY_SHORTEST + spread * self.vary())
        if self.largest <= self.first:
            return self.first
        delay = self._next * (0.5 + 0.5 * self.vary())
        self._next = min(2 * self._next, self.largest)
        return delay
