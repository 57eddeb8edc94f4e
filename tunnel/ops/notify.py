"""Telling systemd how the program is: sd_notify(3), for units with `Type=notify`.

A message is a datagram of `KEY=value` lines to the Unix socket that `NOTIFY_SOCKET` names. Without
that variable nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping

import trio

from tunnel import limits

logger = logging.getLogger(__name__)


class Notifier:
    """The service manager, as this program sees it; use `from_environment`.

    Args:
      address: a path, or an abstract name that begins with NUL; None for no service manager.
      watchdog: how often it wants a sign of life at least, seconds; None for never.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self._address = address
        self._watchdog = watchdog
        self._said = ""

    def ready(self) -> None:
        """The program does its work: it has started, or a reload is over."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The program reads its files again; `ready` follows."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """The program comes to its end by itself."""
        self._send("STOPPING=1")

    async def keep_telling(self, status: Callable[[], str]) -> None:
        """Send signs of life and what `status` says, when that has changed; until cancelled.

        Both come from the event loop itself, at half the interval that is asked for: when the loop
        is stuck they stop, and the service manager restarts the program. Without a service manager
        it returns at once.

        Args:
          status: what the program is doing, in a few words.
        """
        if self._address is None:
            return
        interval = limits.STATUS_INTERVAL
        if self._watchdog is not None:
            interval = min(interval, self._watchdog / 2)
        while True:
            self._send("\n".join(self._news(status())))
            await trio.sleep(interval)

    def _news(self, status: str) -> list[str]:
        lines = [] if self._watchdog is None else ["WATCHDOG=1"]
        if status != self._said:
            self._said = status
            lines.append(f"STATUS={status}")
        return lines

    def _send(self, message: str) -> None:
        if self._address is None or not message:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(limits.NOTIFY_TIMEOUT)
                sock.sendto(message.encode(), self._address)
        except OSError as error:
            logger.debug("Service manager not told", extra={"error": str(error)})


def from_environment(environ: MutableMapping[str, str], *, pid: int) -> Notifier:
    """What the environment says of a service manager; its variables are taken out.

    They are for this process alone: a child that inherited them could speak for it.

    Args:
      environ: usually `os.environ`.
      pid: of this process; a watchdog that is meant for another is not ours.
    """
    name = environ.pop("NOTIFY_SOCKET", "")
    microseconds = environ.pop("WATCHDOG_USEC", "")
    meant_for = environ.pop("WATCHDOG_PID", "")
    if not name or os.name != "posix":
        return Notifier()
    if name[0] not in "/@":
        logger.warning("Unknown kind of NOTIFY_SOCKET, nobody is told", extra={"socket": name})
        return Notifier()
    address = "\0" + name[1:] if name[0] == "@" else name
    return Notifier(address, _seconds(microseconds) if meant_for in ("", str(pid)) else None)


def _seconds(microseconds: str) -> float | None:
    """The watchdog's interval; None if there is none."""
    number = int(microseconds) if microseconds.isascii() and microseconds.isdigit() else 0
    return number / 1e6 if number else None
