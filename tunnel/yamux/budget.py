"""How much nonsense a peer may send in a second."""

from __future__ import annotations


class Budget:
    """A number of things a second; time comes with every call."""

    __slots__ = ("_left", "_per_second", "_second")

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = per_second
        self._second = 0.0

    def spend(self, now: float) -> bool:
        """Count one; False if that was one too many in this second."""
        if now - self._second >= 1.0:
            self._second = now
            self._left = self._per_second
        self._left -= 1
        return self._left >= 0
