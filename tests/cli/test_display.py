"""What a running line shows, on a terminal and elsewhere."""

from __future__ import annotations

import io
import logging

import attrs
import pytest
import segno
import trio
from rich.console import Console
from rich.live import Live
from trio.testing import wait_all_tasks_blocked
from trio_util import AsyncValue

from tunnel.cli.display import Plain, Progress, Screen, open_display, qr_code
from tunnel.cli.options import Settings
from tunnel.model import Address
from tunnel.stats import Counters
from tunnel.views import ClientState

ADDRESS = Address("203.0.113.5", 41234)
OTHER = Address("2001:db8::1", 80)


@attrs.define
class Link:
    """As much of a link as is looked at."""

    state: AsyncValue = attrs.field(factory=lambda: AsyncValue(ClientState.CONNECTED))


@pytest.fixture
def progress():
    return Progress("tunnel.example.org:8443", "127.0.0.1:3000", "is away")


@pytest.fixture
def terminal(progress):
    """A screen for `progress`, and what was written to it."""
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=30, force_terminal=True, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        yield Screen(progress, console, live, qr=True), stream


def lines(screen):
    return screen.render().plain.splitlines()


async def test_plainly_the_address_is_a_line_whenever_it_is_another_one(progress, capsys):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Plain(progress, qr=False).show)
        for address in (ADDRESS, None, ADDRESS, OTHER, None):
            progress.address.value = address
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert capsys.readouterr().out == "203.0.113.5:41234\n[2001:db8::1]:80\n"


async def test_a_code_goes_below_it(progress, capsys):
    progress.address.value = ADDRESS
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Plain(progress, qr=True).show)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert capsys.readouterr().out == f"{ADDRESS}\n{qr_code(ADDRESS)}\n"


def test_a_screen_before_it_is_connected(terminal):
    screen, _ = terminal
    assert lines(screen) == ["connecting to tunnel.example.org:8443", "Ctrl+C ends it"]


async def test_a_screen_while_all_is_well_and_while_it_is_not(progress, terminal):
    screen, _ = terminal
    counters = Counters(2, 15, 12_300, 3_400_000)
    link, reach = Link(), AsyncValue(ADDRESS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(progress.follow, link, reach, counters.statistics)
        await wait_all_tasks_blocked()
        carried = "connections: 2 now, 15 altogether; 12.3 kB in, 3.4 MB out"
        server, end = "tunnel.example.org:8443", "Ctrl+C ends it"
        connected, published = f"connected to {server}", f"{ADDRESS} -> 127.0.0.1:3000"
        assert lines(screen) == [connected, published, carried, end]
        reach.value = None
        await wait_all_tasks_blocked()
        assert lines(screen) == [connected, "127.0.0.1:3000 is away", carried, end]
        link.state.value = ClientState.WAITING
        assert lines(screen) == [f"lost, tried again soon: {server}", carried, end]
        link.state.value = ClientState.CONNECTING
        assert lines(screen) == [f"connecting to {server}", carried, end]
        nursery.cancel_scope.cancel()
    # Whoever follows no more, counts no more.
    assert lines(screen) == [f"connecting to {server}", end]


async def test_a_screen_shows_each_code_once_and_says_that_it_has_ended(
    progress, terminal, autojump_clock
):
    screen, stream = terminal
    async with trio.open_nursery() as nursery:
        nursery.start_soon(screen.show)
        nursery.start_soon(progress.follow, Link(), progress.address, Counters().statistics)
        for address in (None, ADDRESS, None, ADDRESS):
            progress.address.value = address
            await trio.sleep(2)
        nursery.cancel_scope.cancel()
    shown = stream.getvalue()
    top, *_ = qr_code(ADDRESS).splitlines()[2:]
    assert shown.count(top) == 1
    assert shown.rstrip("\x1b[?25h\n\r ").endswith("127.0.0.1:3000: ended")


async def test_a_screen_shows_a_change_of_state_at_once(progress, terminal, autojump_clock):
    screen, stream = terminal
    link = Link()
    progress.link = link
    async with trio.open_nursery() as nursery:
        nursery.start_soon(screen.show)
        await trio.sleep(0.01)
        link.state.value = ClientState.WAITING
        await trio.sleep(0.01)
        assert "lost, tried again soon" in stream.getvalue()
        nursery.cancel_scope.cancel()


def test_what_strangers_call_themselves_cannot_move_the_cursor(terminal, progress):
    screen, _ = terminal
    progress.server = "a\x1b[2J\nb"
    assert lines(screen)[0] == r"connecting to a\x1b[2J\nb"


def test_a_code_is_the_address_for_a_browser_and_nothing_else():
    # Of another text it would be another picture, and a longer one a larger.
    expected = io.StringIO()
    segno.make_qr("http://203.0.113.5:41234", error="l").terminal(expected, compact=True)
    assert qr_code(ADDRESS) == expected.getvalue()


def test_without_a_terminal_the_log_is_as_always(progress, capsys):
    with open_display(progress, Settings()) as face:
        assert isinstance(face, Plain)
        logging.getLogger("tunnel.test").info("News")
    assert "info     News" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def logger():
    root = logging.getLogger("tunnel")
    before = root.handlers[:], root.level, root.propagate
    yield root
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(Settings(), False), (Settings(quiet=True), False), (Settings(verbosity=1), True)],
)
def test_on_a_terminal_only_warnings_go_above_it(progress, monkeypatch, settings, expected):
    stdout = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr("sys.stderr", Terminal())
    with open_display(progress, settings) as face:
        assert isinstance(face, Screen)
        logging.getLogger("tunnel.test").info("Idle talk")
        logging.getLogger("tunnel.test").warning("Something odd")
    assert "Something odd" in stdout.getvalue()
    assert ("Idle talk" in stdout.getvalue()) is expected


def test_a_log_that_goes_elsewhere_has_everything(progress, monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("sys.stderr", stderr)
    with open_display(progress, Settings()):
        logging.getLogger("tunnel.test").info("News")
    assert "News" in stderr.getvalue()


def test_a_terminal_that_can_do_nothing_gets_lines(progress, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout", Terminal())
    with open_display(progress, Settings()) as face:
        assert isinstance(face, Plain)
