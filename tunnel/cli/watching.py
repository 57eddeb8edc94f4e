"""What a running line shows: a few lines that change on a terminal, else the address alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TextIO, cast

import attrs
import trio
from trio_util import AsyncValue

from tunnel import limits
from tunnel.cli.options import Settings, start_logging
from tunnel.library.link import ClientLink
from tunnel.model import Address
from tunnel.ops.logs import escaped
from tunnel.stats import CountersStatistics
from tunnel.views import ClientState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

_STATES: Final = {
    ClientState.CONNECTED: ("connected to", "green"),
    ClientState.CONNECTING: ("connecting to", "yellow"),
    ClientState.WAITING: ("lost, tried again soon:", "red"),
}


@attrs.define(eq=False)
class Watched:
    """A line that runs, as it is looked at.

    Args:
      server: the server, as a person calls it.
      target: the other end of the tunnel.
      missing: what to say of it when it cannot be reached.
    """

    server: str
    target: str
    missing: str
    #: Once it is connected for the first time.
    link: ClientLink | None = attrs.field(default=None, init=False)
    counters: Callable[[], CountersStatistics] | None = attrs.field(default=None, init=False)
    #: Where it is reached now; None while it is not.
    address: AsyncValue[Address | None] = attrs.field(factory=lambda: AsyncValue(None), init=False)

    async def follow(
        self,
        link: ClientLink,
        reach: AsyncValue[Address | None],
        counters: Callable[[], CountersStatistics],
    ) -> None:
        """It is connected; know from now on where it is reached, until cancelled."""
        self.link, self.counters = link, counters
        try:
            async for address in reach.eventual_values():
                self.address.value = address
        finally:
            self.counters = None  # what they count is about to go

    @property
    def state(self) -> ClientState:
        """Where its client is."""
        return ClientState.CONNECTING if self.link is None else self.link.state.value


class Plain:
    """Where stdout is no terminal: the address, a line whenever it is another one."""

    def __init__(self, watched: Watched, *, qr: bool) -> None:
        self._watched = watched
        self._qr = qr

    async def show(self) -> None:
        """Print, until cancelled."""
        before = None
        async for address in self._watched.address.eventual_values():
            if address not in (None, before):
                before = address
                print(address, flush=True)
                if self._qr:
                    print(code(address), flush=True)


class Screen:
    """On a terminal: the same few lines, written again and again; what is to stay goes above."""

    def __init__(self, watched: Watched, console: Console, live: Live, *, qr: bool) -> None:
        self._watched = watched
        self._console = console
        self._live = live
        self._qr = qr
        self._shown: Address | None = None

    async def show(self) -> None:
        """Keep it true, until cancelled; what stays is that it has ended."""
        try:
            while True:
                self._show_code()
                self._live.update(self.render(), refresh=True)
                await self._change()
        finally:
            self._live.update(self._ended(), refresh=True)

    async def _change(self) -> None:
        """Until there is something new to show, or the counters are to be looked at again."""
        link = self._watched.link
        with trio.move_on_after(limits.SCREEN_INTERVAL):
            if link is None:
                await trio.sleep_forever()
            else:
                await link.state.wait_transition()

    def _show_code(self) -> None:
        address = self._watched.address.value
        if self._qr and address not in (None, self._shown):
            self._shown = address
            self._console.print(code(cast(Address, address)))

    def render(self) -> Text:
        """The lines now."""
        from rich.text import Text

        watched = self._watched
        words, style = _STATES[watched.state]
        text = Text.assemble((f"{words} {escaped(watched.server)}\n", style))
        address = watched.address.value
        if address is not None:
            text.append(str(address), "bold")
            text.append(f" -> {escaped(watched.target)}\n")
        elif watched.state is ClientState.CONNECTED:
            text.append(f"{escaped(watched.target)} {watched.missing}\n", "yellow")
        if watched.counters is not None:
            text.append(f"{_carried(watched.counters())}\n")
        return text.append("Ctrl+C ends it", "dim")

    def _ended(self) -> Text:
        from rich.text import Text

        return Text(f"{escaped(self._watched.target)}: ended")


def _carried(counters: CountersStatistics) -> str:
    from rich.filesize import decimal

    return (
        f"connections: {counters.active} now, {counters.total} altogether; "
        f"{decimal(counters.delivered)} in, {decimal(counters.read)} out"
    )


def code(address: Address) -> str:
    """A QR code that opens the address in a browser, for a dark terminal."""
    import io

    import segno

    picture = io.StringIO()
    segno.make_qr(f"http://{address}", error="l").terminal(picture, compact=True)
    return picture.getvalue()


@contextlib.contextmanager
def shown(watched: Watched, settings: Settings, *, qr: bool = False) -> Iterator[Plain | Screen]:
    """Start logging, and what suits stdout; `show` it as long as the line runs.

    Args:
      watched: the line.
      settings: how to log.
      qr: print a QR code of the address, too.
    """
    if not _can_be_rewritten(sys.stdout):
        start_logging(settings)
        yield Plain(watched, qr=qr)
        return
    # A tenth of a second, only for whoever sees it.
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    _log_above(console, settings)
    with Live(console=console, auto_refresh=False, redirect_stderr=False) as live:
        yield Screen(watched, console, live, qr=qr)


def _can_be_rewritten(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _log_above(console: Console, settings: Settings) -> None:
    """Where stderr is the terminal, too, lines of the log go above what is shown.

    Those that only say what it shows are left out.
    """
    if not sys.stderr.isatty():
        start_logging(settings)
        return
    from rich.file_proxy import FileProxy

    quiet = settings.quiet or not settings.verbosity
    stream = cast(TextIO, FileProxy(console, sys.stderr))
    start_logging(attrs.evolve(settings, quiet=quiet), stream)
