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
    restarted: a thousand clients must not come back in one moment. The delays themselves are asked
    for each time, since a configuration that is read again may say others; what is kept here is
    how often the delay has doubled.

    Args:
      vary: gives a number from 0 to 1, a random one.
    """

    vary: Callable[[], float]
    _doubled: int = attrs.field(default=0, init=False)
    _restart_until: float = attrs.field(default=-math.inf, init=False)

    def reset(self) -> None:
        """Begin with the first delay again: the last session was a good one."""
        self._doubled = 0

    def expect_restart(self, now: float) -> None:
        """The server said that it stops: delays are short for `limits.RESTART_PATIENCE`."""
        self._restart_until = now + limits.RESTART_PATIENCE
        self.reset()

    def server_is_back(self) -> None:
        """The server answered, whatever it said: delays are as usual from now on."""
        self._restart_until = -math.inf

    def delay(self, now: float, first: float, largest: float) -> float:
        """How long to wait this time, in seconds.

        Args:
          now: of a clock that only moves forward, in seconds.
          first: the first delay, seconds.
          largest: what it grows to, seconds; no more than `first` if it is not to grow.
        """
        if now < self._restart_until:
            spread = limits.RESTART_DELAY_LONGEST - limits.RESTART_DELAY_SHORTEST
            return min(first, limits.RESTART_DELAY_SHORTEST + spread * self.vary())
        if largest <= first:
            return first
        delay = min(first * (1 << self._doubled), largest)
        if 0 < delay < largest:
            self._doubled += 1
        return delay * (0.5 + 0.5 * self.vary())
