"""A client that is told to be another while it is connected: what changes, and what does not."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rig import is_free, proxy, read_all, visit, world
from tunnel.client.run import run_client
from tunnel.protocol.messages import Capabilities, Reconfigure, Reconfigured
from tunnel.server import session as server_session
from tunnel.views import ClientState

ID = "0" * 32


async def until(condition):
    """Wait for something that happens in this process."""
    with trio.fail_after(20):
        while not condition():
            await wait_all_tasks_blocked(0.001)


def addresses(client):
    return {it.name: it.addresses[0] for it in client.statistics() if it.addresses}


def reasons(caplog, event):
    return [it.reason for it in caplog.records if it.getMessage() == event]


async def speak(address, word=b"hello"):
    async with await visit(address) as stream:
        await stream.send_all(word)
        await stream.send_eof()
        return await read_all(stream)


async def shout(stream):
    """A service that is told apart from an echo."""
    async for data in stream:
        await stream.send_all(data.upper())
    await stream.send_eof()


@pytest.fixture
async def place(certificate, carrier):
    async with world(certificate, carrier) as tunnel:
        tunnel.echo = await tunnel.start_service()
        tunnel.shout = await tunnel.start_service(shout)
        await tunnel.start_server()
        yield tunnel


def change(place, client, *proxies, anew=False, **settings):
    client.change(place.client(*proxies, client_id=ID, **settings), anew=anew)


async def start(place, *names, **settings):
    proxies = [proxy(place.echo, name=name) for name in names]
    return await place.start_client(*proxies, client_id=ID, **settings)


def session(place):
    [found] = place.server.sessions.values()
    return found


async def test_added_removed_and_untouched(place):
    client = await start(place, "stays", "goes")
    before = addresses(client)
    async with await visit(before["stays"]) as talking, await visit(before["goes"]) as lasting:
        for stream in (talking, lasting):
            await stream.send_all(b"one ")
            assert await stream.receive_some() == b"one "
        change(place, client, proxy(place.echo, name="stays"), proxy(place.echo, name="comes"))
        await until(lambda: "comes" in addresses(client) and is_free(before["goes"]))
        assert addresses(client)["stays"] == before["stays"]
        assert await speak(addresses(client)["comes"]) == b"hello"
        # Who is connected goes on, at a port that is no longer published as well.
        for stream in (talking, lasting):
            await stream.send_all(b"two")
            await stream.send_eof()
            assert await read_all(stream) == b"two"
    assert client.state.value is ClientState.CONNECTED
    assert [it.name for it in session(place).proxies] == ["stays", "comes"]


async def test_another_local_service(place):
    """Visitors who are there keep theirs; the next ones get the new one, at the same port."""
    client = await start(place, "web")
    before = addresses(client)["web"]
    async with await visit(before) as talking:
        await talking.send_all(b"one")
        assert await talking.receive_some() == b"one"
        change(place, client, proxy(place.shout, name="web"))
        assert await speak(before) == b"HELLO"
        await talking.send_all(b"two")
        assert await talking.receive_some() == b"two"
        await until(lambda: session(place).proxies.by_id[0].request.local_port == place.shout)
    assert addresses(client) == {"web": before}
    assert client.statistics()[0].counters.total == 2


async def test_who_may_visit_changes_in_place(place):
    client = await start(place, "web")
    before = addresses(client)["web"]
    change(place, client, proxy(place.echo, name="web", allow_from=("192.0.2.0/24",)))
    await until(lambda: session(place).proxies.by_id[0].admission.allow_from)
    with pytest.raises((OSError, trio.BrokenResourceError)):
        await speak(before)
    assert addresses(client) == {"web": before}


async def test_another_name_at_the_same_port(place):
    client = await start(place, "web")
    port = addresses(client)["web"].port
    fixed = [proxy(place.echo, port, name="web")]
    change(place, client, *fixed)
    await until(lambda: client.statistics()[0].addresses)
    change(place, client, proxy(place.shout, port, name="shop"))
    await until(lambda: "shop" in addresses(client))
    assert addresses(client)["shop"].port == port
    assert await speak(addresses(client)["shop"]) == b"HELLO"


async def test_nobody_gets_a_port_while_its_proxy_is_replaced(place):
    """Another client waits for that very port, and gets it when it is really given up."""
    client = await start(place, "web")
    port = addresses(client)["web"].port
    change(place, client, proxy(place.echo, port, name="a"))
    await until(lambda: "a" in addresses(client))
    rival = await place.start_client(proxy(place.shout, port, name="rival"))
    for name in ("b", "c", "d"):
        change(place, client, proxy(place.echo, port, name=name))
        await until(lambda name=name: name in addresses(client))
        assert not addresses(rival)
    change(place, client, proxy(place.echo, name="elsewhere"))
    await until(lambda: addresses(rival))
    assert await speak(addresses(rival)["rival"]) == b"HELLO"


async def test_the_newest_counts(place):
    client = await start(place, "one")
    for name in ("two", "three", "four"):
        change(place, client, proxy(place.echo, name=name))
    await until(lambda: list(addresses(client)) == ["four"])
    await until(lambda: [it.name for it in session(place).proxies] == ["four"])


async def test_a_rejected_one_is_said_and_the_others_come(place, caplog):
    client = await start(place)
    change(
        place,
        client,
        proxy(place.echo, place.address.port, name="reserved"),
        proxy(place.echo, name="fine"),
    )
    await until(lambda: "fine" in addresses(client))
    assert "reserved" not in addresses(client)
    assert [it.code for it in caplog.records if it.getMessage() == "Proxy rejected"][-1:] == [
        "reserved"
    ]


async def test_one_that_waits_for_its_port_can_be_taken_back(place):
    holder = await start(place, "holder")
    busy = addresses(holder)["holder"].port
    waiting = await place.start_client(
        proxy(place.shout, busy, name="w"), proxy(place.shout, name="x"), client_id="1" * 32
    )
    waiting.change(place.client(proxy(place.shout, name="x"), client_id="1" * 32), anew=False)
    await until(
        lambda: ["x"] in [[it.name for it in s.proxies] for s in place.server.sessions.values()]
    )
    change(place, holder)
    await until(lambda: not addresses(holder))
    await wait_all_tasks_blocked()
    assert list(addresses(waiting)) == ["x"]
    assert busy not in place.server.registry.freed._events


async def test_an_older_server_is_connected_anew(place, monkeypatch, caplog):
    monkeypatch.setattr(server_session, "OWN", Capabilities())
    client = await start(place, "web")
    first = session(place)
    change(place, client, proxy(place.shout, name="web"), proxy(place.echo, name="more"))
    await until(lambda: list(addresses(client)) == ["web", "more"])
    assert session(place) is not first
    assert "Server cannot change a session" in [it.getMessage() for it in caplog.records]


async def test_an_older_server_need_not_know_of_another_local_service(place, monkeypatch):
    monkeypatch.setattr(server_session, "OWN", Capabilities())
    client = await start(place, "web")
    first = session(place)
    change(place, client, proxy(place.echo, name="web", local_addr="127.0.0.1", retries=7))
    await wait_all_tasks_blocked()
    assert session(place) is first


async def test_another_server_is_a_new_session_at_once(place):
    client = await start(place, "web", reconnect_delay=3600.0, reconnect_max_delay=3600.0)
    first = session(place)
    change(place, client, proxy(place.echo, name="web"), anew=True)
    await until(lambda: place.server.sessions and session(place) is not first)
    await until(lambda: addresses(client))


async def test_who_waits_for_the_next_attempt_waits_no_longer(place):
    async def unreachable():
        raise trio.BrokenResourceError("cut")

    place.dial = unreachable
    client = await place.nursery.start(
        run_client,
        place.client(
            proxy(place.echo), client_id=ID, reconnect_delay=3600.0, reconnect_max_delay=3600.0
        ),
    )
    await client.state.wait_value(ClientState.WAITING)
    place.dial = None
    change(place, client, proxy(place.echo), anew=True)
    with trio.fail_after(20):
        await client.state.wait_value(ClientState.CONNECTED)


async def test_a_lost_link_in_the_middle_of_a_change(place):
    """The next session configures all that is wanted then."""
    client = await start(place, "one")
    change(place, client, proxy(place.echo, name="two"), proxy(place.echo, name="three"))
    session(place).link.lose("cut")
    await until(lambda: list(addresses(client)) == ["two", "three"])


# --- What a server may not say ---------------------------------------------------------------


async def test_an_answer_to_nothing_ends_the_session(place, caplog):
    caplog.set_level(logging.INFO)
    await start(place, "web")
    first = session(place)
    first.say(Reconfigured(()))
    await until(lambda: place.server.sessions and session(place) is not first)
    assert "reconfigured does not answer" in reasons(caplog, "Connection lost")[0]


async def test_a_client_that_resets_the_control_stream_while_it_is_being_answered(place, caplog):
    """What the server was about to say is not said; only that session ends."""
    caplog.set_level(logging.INFO)
    client = place.client(proxy(place.echo, name="web"), client_id=ID)
    handle = await place.nursery.start(run_client, client)
    await handle.state.wait_value(ClientState.CONNECTED)
    first = session(place)
    lose = first.link.lose

    def lost(*why):
        lose(*why)
        first.say(Reconfigured(()))

    first.link.lose = lost
    client.session.link.reset(1, 0)
    client.session.link.flush()
    await until(lambda: place.server.sessions and session(place) is not first)
    assert reasons(caplog, "Client disconnected") == ["the other side reset the control stream"]


# --- What a client may not say ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (Reconfigure((7,), ()), "removes what is not there"),
        (Reconfigure((), ((0, proxy(1, 7, name="web").request()),)), "an id that was used"),
        (Reconfigure((0,), ((1, proxy(1, name="b").request()),)), "an id that was used"),
        (Reconfigure((), ((1, proxy(1, name="other").request()),)), "an id that was used"),
        (Reconfigure((), ((2, proxy(1, name="web").request()),)), "a name that another"),
        (
            Reconfigure((), tuple((n, proxy(1, name=f"p{n}").request()) for n in range(2, 257))),
            "more than 256",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_client_that_breaks_the_rules_is_ended(place, caplog, wanted, why):
    caplog.set_level(logging.INFO)
    client = place.client(
        proxy(place.echo, name="web"), proxy(place.echo, name="mail"), client_id=ID
    )
    handle = await place.nursery.start(run_client, client)
    await handle.state.wait_value(ClientState.CONNECTED)
    first = session(place)
    client.session._control.say(wanted)
    client.session.link.flush()
    await until(lambda: place.server.sessions and session(place) is not first)
    [reason] = reasons(caplog, "Client disconnected")
    assert reason.startswith("protocol error on the control stream: ")
    assert why in reason


async def test_two_changes_at_once_are_too_many(place, caplog):
    caplog.set_level(logging.INFO)
    client = place.client(proxy(place.echo, name="web"), client_id=ID)
    handle = await place.nursery.start(run_client, client)
    await handle.state.wait_value(ClientState.CONNECTED)
    for number in (1, 2):
        request = proxy(place.echo, name=f"p{number}").request()
        client.session._control.say(Reconfigure((), ((number, request),)))
    client.session.link.flush()
    await until(lambda: reasons(caplog, "Client disconnected"))
    assert "before the answer to the last one" in reasons(caplog, "Client disconnected")[0]
