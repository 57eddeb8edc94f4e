"""Buffers that all links of one event loop share.

A link's own memory would otherwise be mostly buffers, which it uses for microseconds at a time.
Sharing is sound because they are filled and emptied without an `await` in between.
"""

from __future__ import annotations

import trio

from tunnel import limits


class Scratch:
    """What comes from the link's socket, what TLS makes of it, what comes from other sockets."""

    def __init__(self) -> None:
        self.cipher = memoryview(bytearray(limits.TLS_CHUNK))
        self.plain = memoryview(bytearray(limits.TLS_CHUNK))
        self.read = memoryview(bytearray(limits.HUB_BUFFER))


_scratch: trio.lowlevel.RunVar[Scratch] = trio.lowlevel.RunVar("tls-tunnel scratch")


def scratch() -> Scratch:
    """The buffers of the running event loop."""
    try:
        return _scratch.get()
    except LookupError:
        buffers = Scratch()
        _scratch.set(buffers)
        return buffers
