"""Log lines about strangers, who must not be able to fill a disk with them."""

from __future__ import annotations

import logging

import trio

from tunnel import limits
from tunnel.server.admission import TokenBucket


class Complaints:
    """Says what happened, but of each kind only so much; then how many lines were left out.

    Args:
      logger: where to.

    The kinds must be few and our own: no part of one may come from a stranger.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._buckets: dict[str, TokenBucket] = {}
        self._left_out: dict[str, int] = {}

    def say(self, level: int, event: str, *, kind: str = "", **details: object) -> None:
        """Log one line, unless too many of its kind (the event, and `kind`) came lately."""
        key = f"{event}/{kind}"
        bucket = self._buckets.get(key)
        if bucket is None:
            rate = 1 / limits.COMPLAINT_INTERVAL
            bucket = self._buckets[key] = TokenBucket(rate, limits.COMPLAINTS_AT_ONCE)
        if not bucket.take(trio.current_time()):
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        left_out = self._left_out.pop(key, 0)
        if left_out:
            details["left_out"] = left_out
        self._logger.log(level, event, extra=details)
