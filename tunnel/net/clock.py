"""Noticing that the machine slept.

While it does, the clock that all deadlines here are measured by (CLOCK_MONOTONIC) stands still. So
nothing times out because of it, and nothing notices it either: a link that died meanwhile looks as
alive as before. CLOCK_BOOTTIME goes on; when it got ahead, the machine slept.

Nothing wakes a program when its machine wakes. What was being waited for goes on where it was, so
whoever has to know must not wait for long at a time, and look after each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import trio

from tunnel import limits


def asleep() -> float:
    """Seconds that the machine has slept since it was started; 0 where that cannot be told."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return 0.0
    return time.clock_gettime(boottime) - time.clock_gettime(time.CLOCK_MONOTONIC)


@attrs.define(eq=False)
class SleepDetector:
    """Tells whether the machine slept since the last look.

    Args:
      clock: seconds that it has slept in all.
    """

    _clock: Callable[[], float] = asleep
    _before: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._before = self._clock()

    def slept(self) -> bool:
        """True if it slept since the last call, or since this was made."""
        before, self._before = self._before, self._clock()
        return self._before - before >= limits.SUSPEND_SHORTEST


async def sleep_while_awake(seconds: float, detector: SleepDetector) -> bool:
    """Sleep; True, before the time is over, if the machine slept since the detector last looked.

    It is noticed within `limits.SUSPEND_POLL_INTERVAL` of waking. A checkpoint; cancelling loses
    nothing.
    """
    until = trio.current_time() + seconds
    await trio.lowlevel.checkpoint()
    while not detector.slept():
        left = until - trio.current_time()
        if left <= 0:
            return False
        await trio.sleep(min(left, limits.SUSPEND_POLL_INTERVAL))
    return True
