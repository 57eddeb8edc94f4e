"""`tls-tunnel top`: a screen that follows one program, and the keys that it listens to."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import trio
from rich.console import Console
from rich.live import Live

from tunnel import store
from tunnel.cli.loading import read_text
from tunnel.config import Kind, detect, load_client, load_server
from tunnel.config.schema import CommonConfig
from tunnel.errors import TunnelError
from tunnel.ops.top import History
from tunnel.ops.topsource import Source
from tunnel.ops.topview import Screen

#: What the keys send that scroll: a line, or a page of ten.
_SCROLL = {b"\x1b[A": -1, b"k": -1, b"\x1b[B": 1, b"j": 1, b"\x1b[5~": -10, b"\x1b[6~": 10}
_QUIT = (b"q", b"Q", b"\x1b", b"\x03")
#: Every address of a machine is also this one.
_LOOPBACK = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def top(source: Source, interval: float) -> None:
    """Show what a program does until somebody presses q.

    Args:
      source: the program.
      interval: seconds from one look to the next.

    Raises:
      TunnelError: this is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise TunnelError(f"top needs a terminal; for a script there is {source.url}/status")
    console = Console(highlight=False, markup=False, emoji=False)
    with (
        _keys_at_once(sys.stdin.fileno()),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        trio.run(Top(source, interval, console, live).run)


class Top:
    """What is shown now, and the three who change it: answers, keys, the size of the terminal."""

    def __init__(self, source: Source, interval: float, console: Console, live: Live) -> None:
        self._source = source
        self._interval = interval
        self._console = console
        self._live = live
        self._history = History()
        self._failure: str | None = None
        self._answered: float | None = None
        self._skipped = 0
        self._at_once = trio.Event()

    async def run(self) -> None:
        """Until a key, or a signal, ends it."""
        signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH}
        with trio.open_signal_receiver(*signals) as received:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow)
                nursery.start_soon(self._obey, nursery.cancel_scope)
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
                await self._at_once.wait()
            self._at_once = trio.Event()

    async def _obey(self, scope: trio.CancelScope) -> None:
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
            self._at_once.set()
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
def _keys_at_once(descriptor: int) -> Iterator[None]:
    """Keys arrive as they are pressed, and do not show; afterwards all is as it was."""
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


# --- Where to look -------------------------------------------------------------------------------


def source_of(config: Path, token: str | None) -> Source:
    """Where the program that this file is for shows its statistics.

    Raises:
      TunnelError: the file is faulty, or turns them off.
    """
    text = read_text(config)
    load = load_client if detect(text) is Kind.CLIENT else load_server
    value: CommonConfig = load(text, source=str(config), environ=os.environ).value
    if not value.stats_port:
        what = "is 0, any free one: name it with -u" if value.stats_port == 0 else "is not set"
        raise TunnelError(f"{config}: stats_port {what}")
    host = _LOOPBACK.get(value.stats_addr, value.stats_addr)
    host = f"[{host}]" if ":" in host else host
    return Source(f"http://{host}:{value.stats_port}", token or _token(value, config))


def _token(value: CommonConfig, config: Path) -> str | None:
    if value.stats_token_file is None:
        return value.stats_token
    return read_token(store.resolve(value.stats_token_file, beside=config.absolute().parent))


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
      TunnelError: it cannot be read, or there is none in it.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TunnelError(f"cannot read a token from {path}: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise TunnelError(f"{path} has no token in it, which is one word")
    return token
