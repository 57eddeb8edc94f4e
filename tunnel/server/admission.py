"""How many strangers may try, before a byte of theirs is read."""

from __future__ import annotations

import attrs


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
        """Take a token if there is one; `now` in seconds of a clock that only moves forward."""
        self._tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.per_second)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
