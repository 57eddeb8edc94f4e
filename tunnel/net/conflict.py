"""Two tasks in one place where only one may be: an error, as everywhere in Trio."""

from __future__ import annotations

from types import TracebackType

import trio


class ConflictDetector:
    """A synchronous context manager that a second task must not enter.

    Raises:
      trio.BusyResourceError: another task is inside.
    """

    __slots__ = ("_busy", "_message")

    def __init__(self, message: str) -> None:
        self._message = message
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(self._message)
        self._busy = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._busy = False
