"""The errors of this package, in one tree: a caller catches as much or as little as it wants.

`TunnelError` is the root. What a *peer* did wrong is `RemoteProtocolError`, what the *caller* did
wrong is `LocalProtocolError`; nothing else may come out of the sans-IO floors because of bytes
that arrived.
"""

from __future__ import annotations

import attrs


class TunnelError(Exception):
    """Anything that this package raises on purpose."""


class ProtocolError(TunnelError):
    """The rules of a protocol were broken; always one of the two subclasses is raised."""


class LocalProtocolError(ProtocolError):
    """The caller asked for something that the protocol does not allow now. Nothing changed."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow. The connection is over."""


class LinkLost(TunnelError):
    """The connection between client and server ended; `str()` says why, for a log line."""


class Untrusted(LinkLost):
    """What answers at the server's address could not be verified to be the server that is meant."""


class Refused(TunnelError):
    """The server refused the client.

    Args:
      code: a `tunnel.model.RefusalCode`, for programs; `docs/protocol.md` has the list.
      text: the reason, for people.
      retry_after: seconds that the server asks the client to wait, if it said so.
    """

    def __init__(self, code: str, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after = retry_after


class PublishError(TunnelError):
    """The server does not publish a proxy.

    Args:
      code: a `tunnel.model.RejectionCode`, for programs; `docs/protocol.md` has the list.
      text: the reason, for people.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@attrs.frozen
class Fault:
    """One thing wrong (or odd) in a configuration: where it is and what to do about it.

    Args:
      line: counts from 1; None for a fault that is nowhere in the file (an environment variable, a
        missing table).
      key: dotted, such as ``proxies[1].publish_port``.
      message: what is wrong and what to do, to be read behind the key.
    """

    line: int | None
    key: str | None
    message: str

    def text(self, source: str) -> str:
        """One line for people: ``source:line: key: message``, without the parts that are None."""
        place = source if self.line is None else f"{source}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part is not None)


class ConfigError(TunnelError):
    """A configuration has faults.

    Args:
      source: the file's name, for messages.
      faults: all of them, in the order of their lines.
    """

    def __init__(self, source: str, faults: list[Fault]) -> None:
        self.source = source
        self.faults = faults
        super().__init__("\n".join(fault.text(source) for fault in faults))


class StoreError(TunnelError):
    """A key, certificate or state file could not be read, made or kept."""
