"""What a command of one line shows while it runs.

On a terminal a few lines that change, or a progress bar; elsewhere the address alone, or nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import attrs
import trio
from trio_util import AsyncValue, periodic

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
class Progress:
    """How far a tunnel is, and what it carries: what a display shows of it.

    Args:
      server: the server, as a person calls it.
      target: the other end of the tunnel.
      missing: what to say of the target when it cannot be reached.
    """

    server: str
    target: str
    missing: str
    #: The client, once it is connected for the first time.
    link: ClientLink | None = attrs.field(default=None, init=False)
    counters: Callable[[], CountersStatistics] | None = attrs.field(default=None, init=False)
    #: Where the target is reached now; None while it is not.
    address: AsyncValue[Address | None] = attrs.field(factory=lambda: AsyncValue(None), init=False)

    async def follow(
        self,
        link: ClientLink,
        reach: AsyncValue[Address | None],
        counters: Callable[[], CountersStatistics],
    ) -> None:
        """Note where the target is reached, until cancelled.

        Args:
          link: the client, which is connected.
          reach: where the target is reached; None while it is not.
          counters: called for what the tunnel has carried, as long as this runs.
        """
        self.link, self.counters = link, counters
        try:
            async for address in reach.eventual_values():
                self.address.value = address
        finally:
            # What they count goes away with the caller's block.
            self.counters = None

    @property
    def state(self) -> ClientState:
        """Whether the client is connected."""
        return ClientState.CONNECTING if self.link is None else self.link.state.value


class Plain:
    """What is shown where stdout is no terminal: the address, a line whenever it is another one.

    Args:
      progress: what is shown.
      qr: a QR code of the address, too.
    """

    def __init__(self, progress: Progress, *, qr: bool) -> None:
        self._progress = progress
        self._qr = qr

    async def show(self) -> None:
        """Print, until cancelled."""
        before = None
        async for address in self._progress.address.eventual_values():
            if address not in (None, before):
                before = address
                print(address, flush=True)
                if self._qr:
                    print(qr_code(address), flush=True)


class Screen:
    """What is shown on a terminal: a few lines that change; what is to stay goes above them.

    Args:
      progress: what is shown.
      console, live: Rich's, of stdout.
      qr: a QR code of the address, too.
    """

    def __init__(self, progress: Progress, console: Console, live: Live, *, qr: bool) -> None:
        self._progress = progress
        self._console = console
        self._live = live
        self._qr = qr
        self._shown: Address | None = None

    async def show(self) -> None:
        """Show the state until cancelled; at the end, that the tunnel has ended."""
        try:
            while True:
                self._show_code()
                self._live.update(self.render(), refresh=True)
                await self._change()
        finally:
            self._live.update(self._ended(), refresh=True)

    async def _change(self) -> None:
        """Wait until there is something new to show, or it is time to show the counters again."""
        link = self._progress.link
        with trio.move_on_after(limits.SCREEN_INTERVAL):
            if link is None:
                await trio.sleep_forever()
            else:
                await link.state.wait_transition()

    def _show_code(self) -> None:
        address = self._progress.address.value
        if self._qr and address not in (None, self._shown):
            self._shown = address
            self._console.print(qr_code(cast(Address, address)))

    def render(self) -> Text:
        """The lines that are shown now."""
        from rich.text import Text

        progress = self._progress
        words, style = _STATES[progress.state]
        text = Text.assemble((f"{words} {escaped(progress.server)}\n", style))
        address = progress.address.value
        if address is not None:
            text.append(str(address), "bold")
            text.append(f" -> {escaped(progress.target)}\n")
        elif progress.state is ClientState.CONNECTED:
            text.append(f"{escaped(progress.target)} {progress.missing}\n", "yellow")
        if progress.counters is not None:
            text.append(f"{_carried(progress.counters())}\n")
        return text.append("Ctrl+C ends it", "dim")

    def _ended(self) -> Text:
        from rich.text import Text

        return Text(f"{escaped(self._progress.target)}: ended")


def _carried(counters: CountersStatistics) -> str:
    from rich.filesize import decimal

    return (
        f"connections: {counters.active} now, {counters.total} altogether; "
        f"{decimal(counters.delivered)} in, {decimal(counters.read)} out"
    )


def qr_code(address: Address) -> str:
    """Draw a QR code that opens an address in a browser, with the characters of a dark terminal."""
    import io

    import segno

    picture = io.StringIO()
    segno.make_qr(f"http://{address}", error="l").terminal(picture, compact=True)
    return picture.getvalue()


@contextlib.contextmanager
def open_display(
    progress: Progress, settings: Settings, *, qr: bool = False
) -> Iterator[Plain | Screen]:
    """Begin to log, and give the display that suits stdout; its `show` runs beside the command.

    Args:
      progress: what is shown.
      settings: how to log.
      qr: show a QR code of the address, too.
    """
    if not _can_be_rewritten(sys.stdout):
        start_logging(settings)
        yield Plain(progress, qr=qr)
        return
    # These imports take a tenth of a second, so they are made only where they are needed.
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    _log_above(console, settings)
    with Live(console=console, auto_refresh=False, redirect_stderr=False) as live:
        yield Screen(progress, console, live, qr=qr)


def _can_be_rewritten(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _log_above(console: Console, settings: Settings) -> None:
    """Begin to log; where stderr is the terminal, too, above what is shown.

    Lines that only say what is shown are left out there.
    """
    if not sys.stderr.isatty():
        start_logging(settings)
        return
    from rich.file_proxy import FileProxy

    quiet = settings.quiet or not settings.verbosity
    stream = cast(TextIO, FileProxy(console, sys.stderr))
    start_logging(attrs.evolve(settings, quiet=quiet), stream)


# --- A measurement --------------------------------------------------------------------------


class ProgressBar:
    """What shows how far a measurement is. This one shows nothing; see `open_progress_bar`."""

    def begin(self, part: str, seconds: float) -> None:
        """A part of the measurement begins.

        Args:
          part: what is measured, in a few words.
          seconds: how long it takes.
        """

    async def keep_moving(self) -> None:
        """Move the bar, until cancelled."""
        await trio.sleep_forever()


class _ShownBar(ProgressBar):
    def __init__(self, progress: Any, seconds: float) -> None:  # noqa: ANN401  # Rich's
        self._progress = progress
        self._task = progress.add_task("connecting", total=seconds)
        self._done = self._seconds = 0.0
        self._since = 0.0

    def begin(self, part: str, seconds: float) -> None:
        self._done += self._seconds
        self._seconds, self._since = seconds, trio.current_time()
        self._progress.update(self._task, description=part)

    async def keep_moving(self) -> None:
        async for _ in periodic(0.1):
            passed = min(trio.current_time() - self._since, self._seconds)
            self._progress.update(self._task, completed=self._done + passed, refresh=True)


@contextlib.contextmanager
def open_progress_bar(seconds: float) -> Iterator[ProgressBar]:
    """Show a progress bar on stderr if that is a terminal; its `keep_moving` runs beside the work.

    Args:
      seconds: how long all parts take together.
    """
    if not sys.stderr.isatty():
        yield ProgressBar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description:<15}"), BarColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        yield _ShownBar(progress, seconds)
