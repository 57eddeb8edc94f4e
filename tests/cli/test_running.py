from __future__ import annotations

import gc
import signal

import pytest
import trio

from tunnel.cli.running import Program, _signals, run_line, until_signal
from tunnel.errors import StoreError, TunnelError
from tunnel.ops.notify import Notifier


class Life:
    """Something that runs until it is drained, and notes what becomes of it."""

    def __init__(self, *, ends_when_drained=True, signal_before_start=False):
        self.ends_when_drained = ends_when_drained
        self.signal_before_start = signal_before_start
        self.drained = trio.Event()
        self.seen = []

    async def run(self, *, task_status):
        try:
            if self.signal_before_start:
                signal.raise_signal(signal.SIGTERM)
                await trio.sleep_forever()
            task_status.started(self)
            await self.drained.wait()
            self.seen.append("drained")
            if not self.ends_when_drained:
                await trio.sleep_forever()
        except trio.Cancelled:
            self.seen.append("cancelled")
            raise

    def drain(self):
        self.drained.set()


class Told(Notifier):
    """Notes what the service manager would be told."""

    def __init__(self, seen):
        super().__init__("nowhere")
        self._seen = seen

    def _send(self, message):
        self._seen.append(message.split("\n")[0])


async def reload(life):
    await trio.lowlevel.checkpoint()
    life.seen.append("reloaded")


def program_of(life, drain=Life.drain, reload=None):
    return Program(life.run, drain, reload, lambda _: "fine")


async def run_with_signals(life, *signals, notifier=None, **settings):
    async with trio.open_nursery() as nursery:
        program = program_of(life, **settings)
        nursery.start_soon(until_signal, program, notifier or Notifier())
        for number in signals:
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(number)


@pytest.fixture(autouse=True)
def thawed():
    """The programs freeze what is there when they start; the tests' own process goes on."""
    yield
    gc.unfreeze()


async def test_what_is_there_at_the_start_is_not_looked_through_again():
    life = Life()
    gc.unfreeze()  # what Python itself has frozen, from 3.12 on
    assert gc.get_freeze_count() == 0
    await run_with_signals(life, signal.SIGTERM)
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains(number):
    life = Life()
    await run_with_signals(life, number)
    assert life.seen == ["drained"]


async def test_a_second_signal_does_not_wait():
    life = Life(ends_when_drained=False)
    await run_with_signals(life, signal.SIGTERM, signal.SIGTERM)
    assert life.seen == ["drained", "cancelled"]


async def test_what_cannot_drain_is_cancelled():
    life = Life()
    await run_with_signals(life, signal.SIGINT, drain=None)
    assert life.seen == ["cancelled"]


async def test_a_signal_during_the_start_cancels():
    life = Life(signal_before_start=True)
    await until_signal(program_of(life), Notifier())
    assert life.seen == ["cancelled"]


async def test_an_end_without_a_signal_is_an_end():
    life = Life()
    life.drain()
    await until_signal(program_of(life), Notifier())
    assert life.seen == ["drained"]


@pytest.mark.parametrize("error", [OSError(98, "Address in use"), StoreError("no key")])
async def test_a_failed_start_is_one_error(error):
    async def run(*, task_status):
        raise error

    with pytest.raises(TunnelError, match=r"could not start: .*(Address in use|no key)") as caught:
        await until_signal(Program(run), Notifier())
    assert caught.value.__cause__ is error


async def test_a_bug_is_not_hidden():
    async def run(*, task_status):
        task_status.started()
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        await until_signal(Program(run), Notifier())


async def test_signals_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    life = Life()
    life.drain()
    await until_signal(program_of(life), Notifier())
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("drain", [Life.drain, None])
async def test_a_hangup_reloads_and_does_not_end(drain):
    life = Life()
    async with trio.open_nursery() as nursery:
        program = program_of(life, drain, reload)
        nursery.start_soon(until_signal, program, Notifier())
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(number)
    assert life.seen == ["reloaded", "reloaded", "drained" if drain else "cancelled"]


async def test_the_background_ends_with_the_program():
    life = Life()

    async def background(handle):
        assert handle is life
        life.seen.append("background")
        life.drain()
        await trio.sleep_forever()

    await until_signal(Program(life.run, background=background), Notifier())
    assert life.seen == ["background", "drained"]


async def test_the_service_manager_is_told():
    life = Life()
    signals = (signal.SIGHUP, signal.SIGTERM)
    notifier = Told(life.seen)
    await run_with_signals(life, *signals, notifier=notifier, reload=reload)
    told = [message for message in life.seen if not message.startswith("STATUS")]
    reloading = ["RELOADING=1", "reloaded", "READY=1"]
    assert told == ["READY=1", *reloading, "STOPPING=1", "drained"]
    assert life.seen.count("STATUS=fine") == 1


async def test_a_program_that_cannot_start_is_never_ready():
    async def run(*, task_status):
        raise StoreError("no key")

    seen = []
    with pytest.raises(TunnelError):
        await until_signal(Program(run), Told(seen))
    assert seen == []


async def test_while_it_drains_it_gives_signs_of_life_and_does_not_reload(autojump_clock):
    life = Life(ends_when_drained=False)
    async with trio.open_nursery() as nursery:
        program = program_of(life, reload=reload)
        nursery.start_soon(until_signal, program, Told(life.seen))
        for number in (signal.SIGTERM, signal.SIGHUP):
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(number)
        await trio.sleep(30)
        signal.raise_signal(signal.SIGTERM)
    assert "reloaded" not in life.seen
    assert "STATUS=stopping: fine" in life.seen
    assert life.seen[-1] == "cancelled"


# --- Commands of one line


@pytest.fixture
def hangup():
    """A hangup ends programs, even if the tests themselves were started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


async def wait(_handle=None):
    await trio.sleep_forever()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_line(hangup, number):
    seen = []

    async def work():
        with trio.fail_after(10):
            try:
                signal.raise_signal(number)
                await trio.sleep_forever()
            finally:
                seen.append("cancelled")

    run_line(work, trio.sleep_forever)
    assert seen == ["cancelled"]


def test_a_hangup_that_nohup_ignores_is_ignored(hangup):
    line = Program(wait, hangup_ends=True)
    assert signal.SIGHUP in _signals(line)
    assert signal.SIGHUP not in _signals(Program(wait))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert _signals(line) == {signal.SIGINT, signal.SIGTERM}


def test_what_goes_wrong_comes_out_as_it_is():
    async def work():
        raise TunnelError("no")

    with pytest.raises(TunnelError, match=r"^no$"):
        run_line(work, trio.sleep_forever)


def test_a_line_is_shown_until_it_has_ended():
    """From before it is connected, and while it ends."""
    seen = []

    async def display():
        seen.append("shown")
        try:
            await trio.sleep_forever()
        finally:
            seen.append("hidden")

    async def work():
        await trio.testing.wait_all_tasks_blocked()
        try:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            seen.append("ended")

    run_line(work, display)
    assert seen == ["shown", "ended", "hidden"]
