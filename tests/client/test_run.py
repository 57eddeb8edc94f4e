"""The reconnect loop on virtual time: when it tries again, and what it says."""

import logging
import random
import secrets

import pytest
import trio

from tunnel.client.proxy import LocalProxy
from tunnel.client.run import run_client
from tunnel.client.settings import ClientSettings, ProxySpec
from tunnel.client.state import Client
from tunnel.errors import LinkLost, Refused, RemoteProtocolError
from tunnel.events import (
    ClientStopped,
    Connected,
    Connecting,
    ConnectionLost,
    End,
    EndReason,
    EventStream,
    Reconnecting,
    RefusedByServer,
)
from tunnel.net.clock import SleepDetector
from tunnel.protocol.keys import derive, generate_key
from tunnel.views import ClientState


class Script:
    """Stands for `hold_session`: each attempt does the next thing, and its time is noted.

    A thing is an error to raise, or how many seconds a session lasts, or how it ended at once.
    """

    def __init__(self, things, before=0.0):
        self.things = list(things)
        self.before = before
        self.tried = []
        self.attempts = []
        self.played = trio.Event()

    async def __call__(self, _client, attempt, connected):
        self.tried.append(trio.current_time())
        self.attempts.append(attempt)
        if not self.things:
            self.played.set()
            await trio.sleep_forever()
        thing = self.things.pop(0)
        await trio.sleep(self.before)
        if isinstance(thing, Exception):
            raise thing
        connected()
        if isinstance(thing, End):
            return thing
        await trio.sleep(thing)
        return End(EndReason.CUT, "cut")

    @property
    def pauses(self):
        return [later - sooner for sooner, later in zip(self.tried, self.tried[1:], strict=False)]


KEYS = derive(generate_key(secrets.token_bytes(32)))


def make_client(*, events=None, **settings):
    proxies = (LocalProxy(ProxySpec("web", "*", 80, "127.0.0.1", 80)),)
    told = {} if events is None else {"events": events}
    return Client(ClientSettings(None, KEYS, "tests", **settings), "00" * 16, proxies, **told)


@pytest.fixture
def play(monkeypatch):
    """Run the loop until the script is at its end, or the client is in the state `until`."""

    async def play(things, before=0.0, until=None, **settings):
        script = Script(things, before)
        monkeypatch.setattr("tunnel.client.run.hold_session", script)
        async with trio.open_nursery() as nursery:
            handle = await nursery.start(run_client, make_client(**settings))
            if until is None:
                await script.played.wait()
            else:
                await handle.state.wait_value(until)
            nursery.cancel_scope.cancel()
        return script

    return play


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "tunnel.client"]


async def test_five_seconds_whatever_went_wrong(play, autojump_clock, caplog):
    caplog.set_level(logging.INFO)
    errors = [
        LinkLost("cannot reach it"),
        Refused("authentication", "wrong key"),
        RemoteProtocolError("nonsense"),
        trio.BrokenResourceError("broken"),
        trio.TooSlowError(),
    ]
    script = await play(errors)
    assert script.pauses == pytest.approx([5.0] * 5)
    assert script.attempts == [1, 2, 3, 4, 5, 6]
    said = [line for line in lines(caplog) if line not in ("Connecting", "Client stopped")]
    pause = "Reconnecting in 5 seconds"
    assert said == ["Connection lost", pause, "Refused", pause] + ["Connection lost", pause] * 3


async def test_the_reason_is_in_the_log(play, autojump_clock, caplog):
    caplog.set_level(logging.INFO)
    await play([Refused("limit", "come later"), trio.TooSlowError(), 1.0], connect_timeout=7.5)
    records = [record for record in caplog.records if hasattr(record, "reason")]
    assert [(record.getMessage(), record.reason) for record in records] == [
        ("Refused", "come later"),
        ("Connection lost", "no connection within 7.5 seconds"),
        ("Connection lost", "cut"),
    ]
    assert records[0].code == "limit"


async def test_errors_in_groups_are_told_the_same_way(play, autojump_clock, caplog):
    caplog.set_level(logging.INFO)
    script = await play([ExceptionGroup("", [LinkLost("one")])])
    assert script.pauses == pytest.approx([5.0])
    assert [r.reason for r in caplog.records if hasattr(r, "reason")] == ["one"]


async def test_a_server_that_asks_for_patience_gets_it(play, autojump_clock):
    refusals = [Refused("busy", "", 42.0), Refused("busy", "", 1.0), Refused("busy", "", None)]
    script = await play(refusals)
    assert script.pauses == pytest.approx([42.0, 5.0, 5.0])


STOPPED = End(EndReason.STOPPED, "the server stops")


async def test_a_server_that_stopped_is_asked_again_soon_until_it_answers(
    play, autojump_clock, monkeypatch
):
    monkeypatch.setattr(random, "random", lambda: 1.0)
    script = await play([STOPPED, LinkLost("nobody there"), LinkLost(""), 0.0, LinkLost("")])
    assert script.pauses == pytest.approx([1.5, 1.5, 1.5, 5, 5])


async def test_a_refusal_is_an_answer(play, autojump_clock, monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 1.0)
    script = await play([STOPPED, Refused("authentication", "wrong key"), LinkLost("")])
    assert script.pauses == pytest.approx([1.5, 5, 5])


async def test_a_server_that_stopped_for_good_is_asked_at_the_usual_pace(
    play, autojump_clock, monkeypatch
):
    monkeypatch.setattr(random, "random", lambda: 0.5)
    script = await play([STOPPED] + [LinkLost("nobody there")] * 62)
    assert script.pauses == pytest.approx([1.0] * 60 + [5.0] * 3)


async def test_after_the_machine_slept_it_connects_at_once(
    play, autojump_clock, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    readings = iter([0.0, 0.0, 0.0, 0.0, 3600.0])  # one a second, and one at the very beginning
    monkeypatch.setattr(
        "tunnel.client.run.SleepDetector",
        lambda: SleepDetector(lambda: next(readings, 3600.0)),
    )
    monkeypatch.setattr(random, "random", lambda: 1.0)
    delays = {"reconnect_delay": 100.0, "reconnect_max_delay": 1000.0}
    script = await play([LinkLost(""), LinkLost("")], **delays)
    assert script.pauses == pytest.approx([3.0, 100.0])
    assert "This machine slept" in lines(caplog)


async def test_a_growing_delay(play, autojump_clock, monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 1.0)
    script = await play([LinkLost("")] * 6, reconnect_delay=2.0, reconnect_max_delay=20.0)
    assert script.pauses == pytest.approx([2, 4, 8, 16, 20, 20])


async def test_it_starts_anew_after_a_stable_session_only(play, autojump_clock, monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 1.0)
    things = [LinkLost(""), LinkLost(""), 29.0, LinkLost(""), 30.0, LinkLost("")]
    script = await play(things, reconnect_delay=1.0, reconnect_max_delay=100.0)
    assert script.pauses == pytest.approx([1, 2, 29 + 4, 8, 30 + 1, 2])


async def test_time_spent_in_vain_attempts_is_not_a_stable_session(
    play, autojump_clock, monkeypatch
):
    monkeypatch.setattr(random, "random", lambda: 1.0)
    script = await play(
        [LinkLost("")] * 3, before=40.0, reconnect_delay=1.0, reconnect_max_delay=100.0
    )
    assert script.pauses == pytest.approx([41, 42, 44])


@pytest.mark.parametrize(
    ("delay", "text"),
    [(5.0, "5"), (0.25, "0.25"), (1234.0, "1234"), (86400.0, "86400"), (1 / 3, "0.333")],
)
async def test_the_line_says_seconds_in_plain_numbers(play, autojump_clock, caplog, delay, text):
    caplog.set_level(logging.INFO)
    settings = {"reconnect_delay": delay, "reconnect_max_delay": delay}
    await play([LinkLost("")], until=ClientState.WAITING, **settings)
    assert f"Reconnecting in {text} seconds" in lines(caplog)


async def test_states(autojump_clock, monkeypatch):
    script = Script([3.0])
    monkeypatch.setattr("tunnel.client.run.hold_session", script)
    began = trio.current_time()
    seen = []
    async with trio.open_nursery() as nursery:
        handle = await nursery.start(run_client, make_client())
        for state in (ClientState.CONNECTED, ClientState.WAITING, ClientState.CONNECTING):
            await handle.state.wait_value(state)
            seen.append(trio.current_time() - began)
        nursery.cancel_scope.cancel()
    assert seen == pytest.approx([0, 3, 8])


async def test_a_mistake_of_our_own_is_not_retried(play, autojump_clock):
    class Mistake(Exception):
        pass

    with pytest.RaisesGroup(Mistake, flatten_subgroups=True):
        await play([Mistake()])


async def test_cancelled_it_says_so(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("tunnel.client.run.hold_session", Script([]))
    async with trio.open_nursery() as inner:
        await inner.start(run_client, make_client())
        inner.cancel_scope.cancel()
    assert lines(caplog)[-1] == "Client stopped"


async def test_a_delay_that_is_reloaded_holds_from_the_next_wait(autojump_clock, monkeypatch):
    script = Script([LinkLost("")] * 3)
    monkeypatch.setattr("tunnel.client.run.hold_session", script)
    async with trio.open_nursery() as nursery:
        handle = await nursery.start(run_client, make_client())
        await handle.state.wait_value(ClientState.WAITING)
        delays = {"reconnect_delay": 40.0, "reconnect_max_delay": 40.0}
        handle.change(make_client(**delays), anew=False)
        await script.played.wait()
        nursery.cancel_scope.cancel()
    assert script.pauses == pytest.approx([5.0, 40.0, 40.0])


async def test_what_happens_is_told_as_typed_events(autojump_clock, monkeypatch):
    things = [
        trio.TooSlowError(),
        RemoteProtocolError("nonsense"),
        trio.BrokenResourceError("reset"),
        Refused("limit", "come later"),
        0.0,
    ]
    monkeypatch.setattr("tunnel.client.run.hold_session", script := Script(things))
    seen = []
    client = make_client(events=EventStream(seen.append))
    async with trio.open_nursery() as nursery:
        await nursery.start(run_client, client)
        await script.played.wait()
        nursery.cancel_scope.cancel()
    assert [event.end.reason for event in seen if isinstance(event, ConnectionLost)] == [
        EndReason.TOO_SLOW,
        EndReason.PROTOCOL,
        EndReason.OTHER,
        EndReason.CUT,
    ]
    [refused] = [event for event in seen if isinstance(event, RefusedByServer)]
    assert (refused.code, refused.reason) == ("limit", "come later")
    assert [type(event) for event in seen[-5:]] == [
        Connected,
        ConnectionLost,
        Reconnecting,
        Connecting,
        ClientStopped,
    ]
    assert seen[-5:-4] == [Connected(0, 1)]
    assert seen[-3:] == [Reconnecting(5.0), Connecting(6), ClientStopped()]
