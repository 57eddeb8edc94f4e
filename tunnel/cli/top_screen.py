"""The screen of `tls-tunnel top`: it follows one program, and does what keys ask for."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import trio
from rich.console import Console
from rich.live import Live

from tunnel.errors import TunnelError
from tunnel.ops.top import History
from tunnel.ops.topsource import Source
from tunnel.ops.topview import Screen

#: What a terminal sends for the keys that scroll (ECMA-48), and by how many lines they do.
_SCROLL = {b"\x1b[A": -1, b"k": -1, b"\x1b[B": 1, b"j": 1, b"\x1b[5~": -10, b"\x1b[6~": 10}
_QUIT = (b"q", b"Q", b"\x1b", b"\x03")


def show(source: Source, interval: float) -> None:
    """Show what a program does until q, or a signal, ends it.

    Args:
      source: the program.
      interval: seconds from one look to the next.

    Raises:
      TunnelError: stdin or stdout is no terminal, or this is Windows.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise TunnelError(f"top needs a terminal; for a script there is {source.url}/status")
    console = Console(highlight=False, markup=False, emoji=False)
    with (
        _unbuffered_keys(sys.stdin.fileno()),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        trio.run(TopScreen(source, interval, console, live).run)


class TopScreen:
    """What is shown, which answers, keys and the size of the terminal change.

    Args:
      source: the program.
      interval: seconds from one look to the next.
      console, live: Rich's, of stdout.
    """

    def __init__(self, source: Source, interval: float, console: Console, live: Live) -> None:
        self._source = source
        self._interval = interval
        self._console = console
        self._live = live
        self._history = History()
        self._failure: str | None = None
        self._answered: float | None = None
        self._skipped = 0
        self._look_now = trio.Event()

    async def run(self) -> None:
        """Show it until a key, or a signal, ends it."""
        signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH}
        with trio.open_signal_receiver(*signals) as received:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow)
                nursery.start_soon(self._read_keys, nursery.cancel_scope)
                async for number in received:
                    if number != signal.SIGWINCH:
                        nursery.cancel_scope.cancel()
                        break
                    self._show()

    async def _follow(self) -> None:
        while True:
            self._show()
            try:
                self._history.add(await self._source.read())
            except TunnelError as error:
                self._failure = str(error)
            else:
                self._failure, self._answered = None, trio.current_time()
            self._show()
            with trio.move_on_after(self._interval):
                await self._look_now.wait()
            self._look_now = trio.Event()

    async def _read_keys(self, scope: trio.CancelScope) -> None:
        descriptor = sys.stdin.fileno()
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            key = os.read(descriptor, 16)
            if not key or key in _QUIT:
                scope.cancel()
                return
            self._press(key)
            self._show()

    def _press(self, key: bytes) -> None:
        if key == b"s":
            self._history.order = self._history.order.following()
        elif key == b"r":
            self._history.reset()
            self._skipped = 0
            self._look_now.set()
        elif step := _SCROLL.get(key):
            last = len(self._history.sorted()) - 1
            self._skipped = max(0, min(self._skipped + step, last))

    def _show(self) -> None:
        age = None if self._answered is None else trio.current_time() - self._answered
        screen = Screen(
            self._history, self._source.url, self._interval, self._failure, age, self._skipped
        )
        self._live.update(screen.render(*self._console.size), refresh=True)


@contextlib.contextmanager
def _unbuffered_keys(descriptor: int) -> Iterator[None]:
    """Inside, keys arrive as they are pressed, and do not show (termios(3), not canonical)."""
    try:
        import termios
        import tty
    except ImportError:
        raise TunnelError("top is not for Windows") from None
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
