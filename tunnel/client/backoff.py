"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable

import attrs


@attrs.define(eq=False)
class Backoff:
    """A fixed delay; or, with a larger maximum, one that doubles from attempt to attempt.

    A delay that grows also varies, so that a thousand clients of a server that was restarted do
    not come back in the same second.

    Args:
      first: the first delay, seconds.
      largest: what it grows to, seconds.
      vary: gives a number from 0 to 1, a random one.
    """

    first: float
    largest: float
    vary: Callable[[], float]
    _next: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The last session was a good one."""
        self._next = self.first

    def delay(self) -> float:
        """Seconds to wait this time."""
        if self.largest <= self.first:
            return self.first
        delay = self._next * (0.5 + 0.5 * self.vary())
        self._next = min(2 * self._next, self.largest)
        return delay
