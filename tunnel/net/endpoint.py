"""What the link knows of a stream's local end."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Endpoint(ABC):
    """The local end of one stream. All methods are called by the link, none may wait.

    None may call `Link.flush` either: the link sends when it has told all endpoints what happened.
    """

    __slots__ = ()

    @abstractmethod
    def deliver(self, data: memoryview) -> int:
        """Take bytes; return how many of them were really handed on.

        The rest stays with the endpoint (the peer's window bounds it), which reports it later with
        `Link.consumed`. `data` is only lent: what is kept must be copied.
        """

    @abstractmethod
    def finish(self) -> None:
        """The peer has sent everything."""

    @abstractmethod
    def reset(self, code: int) -> None:
        """The stream is over at once, by the peer or because the link is lost. The last call."""

    @abstractmethod
    def resume(self) -> None:
        """There is room again to send, after `Link.room` had said 0."""
