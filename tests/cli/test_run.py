from __future__ import annotations

import gc
import signal

import pytest
import trio
from trio_util import AsyncValue

from tunnel.cli.run import Program, client_status, server_status, until_signal
from tunnel.errors import StoreError, TunnelError
from tunnel.model import Address
from tunnel.ops.notify import Notifier
from tunnel.stats import Counters
from tunnel.views import (
    ClientHandle,
    ClientState,
    ProxyStatistics,
    ServerHandle,
    SessionStatistics,
)


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

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
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


async def test_what_runs_beside_it_ends_with_it():
    life = Life()

    async def beside(handle):
        assert handle is life
        life.seen.append("beside")
        life.drain()
        await trio.sleep_forever()

    await until_signal(Program(life.run, beside=beside), Notifier())
    assert life.seen == ["beside", "drained"]


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


def proxies(*published):
    return tuple(
        ProxyStatistics(
            "web", (Address("192.0.2.1", 80),) * there, 80, 0.0, Counters().statistics()
        )
        for there in published
    )


def test_what_a_server_is_doing():
    session = SessionStatistics("tests", Address("192.0.2.2", 1), "00", 3, None, proxies(1, 1))
    handle = ServerHandle((), "", lambda: (session, session), None, None, None)
    assert server_status(handle) == "2 clients, 4 proxies, 6 visitors"


def test_what_a_client_is_doing():
    handle = ClientHandle(AsyncValue(ClientState.WAITING), lambda: proxies(1, 0, 1), None)
    assert client_status(handle) == "waiting, 2 proxies published"
