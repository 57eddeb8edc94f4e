"""Links that are flushed together: what came on one was passed on to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Flushable(Protocol):
    """A link."""

    def flush(self) -> None:
        """Put on the wire what is due."""


class Beside:
    """The links to flush once one of them, its owner, was flushed.

    Two links may feed each other, and each flush may give the other something. So nobody is flushed
    twice on one stack: whoever is asked again while `flush` is under way is flushed when the others
    have been.
    """

    __slots__ = ("_links", "_owner", "_under_way")

    def __init__(self, owner: Flushable) -> None:
        self._owner = owner
        self._links: set[Flushable] = set()
        self._under_way = False

    def add(self, link: Flushable) -> None:
        """Flush that link too."""
        self._links.add(link)

    def flush(self, alone: Callable[[], None]) -> None:
        """Flush the owner, which `alone` does, and then the others."""
        if self._under_way:
            self._links.add(self._owner)
            return
        alone()
        if self._links:
            self.flush_others(alone)

    def flush_others(self, alone: Callable[[], None]) -> None:
        """Flush those that were added, until nobody is."""
        self._under_way = True
        try:
            while self._links:
                link = self._links.pop()
                if link is self._owner:
                    alone()
                else:
                    link.flush()
        finally:
            self._under_way = False
