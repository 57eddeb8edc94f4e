"""Buffers that all links of one event loop share.

A link's own memory would otherwise be mostly buffers, which it uses for microseconds at a time.
Sharing is sound because they are filled and emptied without an `await` in between.
"""

from __future__ import annotations

import trio

from tunnel import limits


class Scratch:
    """One buffer for what comes from the kernel, one for what TLS makes of it."""

    def __init__(self) -> None:
        self.cipher = memoryview(bytearray(limits.TLS_CHUNK))
        self.plain = memoryview(bytearray(limits.TLS_CHUNK))


_scratch: trio.lowlevel.RunVar[Scratch] = trio.lowlevel.RunVar("tls-tunnel scratch")


def scratch() -> Scratch:
    """The buffers of the running event loop."""
    try:
        return _scratch.get()
    except LookupError:
        buffers = Scratch()
        _scratch.set(buffers)
        return buffers
