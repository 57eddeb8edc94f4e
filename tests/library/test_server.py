"""A server inside of another program."""

import gc
import secrets
import socket

import attrs
import pytest
import trio

from tests.library.test_link import KEY, SERVER, client, echo, say
from tests.rig import is_free, visit
from tunnel import limits
from tunnel.config import IdentityConfig
from tunnel.events import ClientConnected, ClientDisconnected, ProxyPublished, ProxyWithdrawn
from tunnel.library.events import EventQueues
from tunnel.library.link import connect
from tunnel.library.server import serve
from tunnel.model import Address
from tunnel.protocol.keys import generate_key
from tunnel.server.admission import Admission, ProxyAdmission
from tunnel.server.policy import Policy
from tunnel.stats import Reason


async def test_it_listens_while_the_block_lasts():
    async with serve(SERVER) as server:
        [address] = server.addresses
        assert not is_free(address)
        assert server.sessions() == ()
    assert is_free(address)


async def test_sessions():
    async with serve(SERVER) as server, connect(client(server), name="office") as link:
        async with link.publish(handler=echo, host="127.0.0.1", name="web") as address:
            [session] = server.sessions()
            assert session.name == "office"
            assert [proxy.addresses for proxy in session.proxies] == [(address,)]


async def test_errors_of_the_block_come_out_bare():
    with pytest.raises(ValueError, match="mine"):
        async with serve(SERVER):
            raise ValueError("mine")


async def test_the_join_string_is_all_that_a_client_needs():
    async with serve(SERVER) as server, connect(server.join) as link:
        async with link.publish(handler=echo) as address:
            assert await say(address, b"hello") == b"hello"
    assert server.join not in repr(server)


async def test_a_server_that_nobody_can_join_so():
    async with serve(attrs.evolve(SERVER, bind_addr="0.0.0.0")) as server:
        assert server.join is None
    async with serve(attrs.evolve(SERVER, auth_key="made up by a person")) as server:
        assert server.join is None
    own = IdentityConfig(name="office", auth_key=generate_key(secrets.token_bytes(32)))
    async with serve(attrs.evolve(SERVER, auth_key=None, clients=(own,))) as server:
        assert server.join is None


async def test_a_public_address_goes_into_the_join_string():
    async with serve(attrs.evolve(SERVER, bind_addr="0.0.0.0"), public_addr="127.0.0.1") as server:
        async with connect(server.join) as link:
            assert link.state.value


async def test_a_key_in_a_file(tmp_path):
    (tmp_path / "auth.key").write_text(KEY)
    (tmp_path / "auth.key").chmod(0o600)
    path = tmp_path / "server.toml"
    path.write_text(
        '[server]\nbind_addr = "127.0.0.1"\nbind_port = 0\nauth_key_file = "auth.key"\n'
        'state_dir = "state"\n'
    )
    async with serve(path) as server, connect(server.join):
        assert (tmp_path / "state/server.pem").exists()


async def is_turned_away(address):
    try:
        async with await visit(address) as stream:
            return not await stream.receive_some()
    except (OSError, trio.BrokenResourceError):
        return True  # a reset, perhaps before the connection was made


async def test_whom_the_program_does_not_allow(caplog):
    arrivals = []

    def allow(arrival):
        arrivals.append(arrival)
        return "closed today" if len(arrivals) == 1 else None

    async with serve(SERVER, allow=allow) as server, connect(client(server), name="c") as link:
        async with link.publish(handler=echo, host="127.0.0.1", name="web") as address:
            assert await is_turned_away(address)
            assert await say(address, b"hello") == b"hello"
    first = arrivals[0]
    assert (first.client, first.proxy, first.address.host) == ("c", "web", "127.0.0.1")
    assert first.guest_of is None
    [record] = [r for r in caplog.records if r.getMessage() == "Visitor turned away"]
    assert record.reason == "closed today"


async def test_events():
    async with serve(SERVER) as server:
        events = server.events()
        async with connect(client(server), name="office") as link:
            connected = await anext(events)
            assert isinstance(connected, ClientConnected)
            assert connected.client == "office"
            async with link.publish(handler=echo, host="127.0.0.1", name="web") as address:
                assert await anext(events) == ProxyPublished("office", "web", (address,))
            assert await anext(events) == ProxyWithdrawn("office", "web")
        gone = await anext(events)
        assert isinstance(gone, ClientDisconnected)
        assert (gone.client, gone.session) == ("office", connected.session)
        assert gone.reason


async def test_everybody_hears_of_everything_from_then_on():
    async with serve(SERVER) as server:
        first = server.events()
        async with connect(client(server)):
            await anext(first)
            second = server.events()
        assert await anext(first) == await anext(second)


async def test_what_nobody_takes_is_bounded():
    queues = EventQueues()
    events = queues.open()
    for number in range(limits.MAX_EVENTS + 2):
        queues.put(ProxyWithdrawn("office", str(number)))
    assert events.lost == 2
    assert (await anext(events)).proxy == "2"


async def test_who_does_not_listen_any_more_costs_nothing():
    queues = EventQueues()
    for _ in range(3):
        queues.open()
    gc.collect()
    assert not queues._queues


async def test_waiting_for_an_event_can_be_cancelled():
    queues = EventQueues()
    events = queues.open()
    with trio.move_on_after(0):
        await anext(events)
    queues.put(ProxyWithdrawn("office", "web"))
    assert await anext(events) == ProxyWithdrawn("office", "web")


async def test_without_a_file_nothing_is_kept_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    async with serve(SERVER) as server, connect(client(server)):
        assert list(tmp_path.iterdir()) == []


async def test_a_programs_reasons_are_one_kind_of_complaint():
    admission = Admission(Policy())
    visitors = ProxyAdmission(admission, "web")
    for number in range(5):
        one, other = socket.socketpair()
        with other:
            visitors.turn_away(one, Address("127.0.0.1", 1), f"reason {number}")
    assert len(admission.limited._buckets) == 1
    assert admission.tally.statistics()[Reason.REFUSED] == 5
