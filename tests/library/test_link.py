"""A client inside of another program."""

import json
import logging
import secrets

import attrs
import pytest
import trio

from tests.rig import is_free, own_host, read_all, visit
from tunnel import limits
from tunnel.config import ClientConfig, ProxyConfig, ServerConfig
from tunnel.errors import (
    ConfigError,
    LinkLost,
    PublishError,
    Refused,
    StoreError,
    Untrusted,
)
from tunnel.library.link import connect
from tunnel.library.server import serve
from tunnel.model import Address
from tunnel.protocol.join import JoinFormatError
from tunnel.protocol.keys import generate_key
from tunnel.views import ClientState

KEY = generate_key(secrets.token_bytes(32))
SERVER = ServerConfig(bind_addr="127.0.0.1", bind_port=0, auth_key=KEY, shutdown_grace=0.0)


def client(server, **settings) -> ClientConfig:
    [address] = server.addresses
    return ClientConfig(
        **{
            "server_addr": (address.host,),
            "server_port": address.port,
            "auth_key": KEY,
            "pin": (server.pin,),
            "reconnect_delay": 0.001,
        }
        | settings
    )


async def echo(stream, _peer=None):
    async for data in stream:
        await stream.send_all(data)


async def start_service(*, task_status):
    await trio.serve_tcp(echo, 0, host="127.0.0.1", task_status=task_status)


async def say(address: Address, text: bytes) -> bytes:
    """What comes back for a text and an end."""
    async with await visit(address) as stream:
        await stream.send_all(text)
        await stream.send_eof()
        return await read_all(stream)


async def test_a_handler():
    peers = []

    async def handler(stream, peer):
        peers.append(peer)
        await echo(stream)

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=handler, host="127.0.0.1") as address:
            async with await visit(address) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
                own = stream.socket.getsockname()
                await stream.send_eof()
                assert await stream.receive_some() == b""
            [statistics] = link.statistics()
    assert [peer.address for peer in peers] == [Address(*own)]
    assert peers[0].destination == address
    assert peers[0].visitor is None
    assert len(peers[0].connection) == 16
    assert (statistics.counters.total, statistics.counters.active) == (1, 0)
    assert (statistics.counters.delivered, statistics.counters.read) == (5, 5)


async def test_a_local_service():
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(start_service)
        port = listener.socket.getsockname()[1]
        async with serve(SERVER) as server, connect(client(server)) as link:
            async with link.publish(to=f"127.0.0.1:{port}", host="127.0.0.1") as address:
                assert await say(address, b"hello") == b"hello"
        nursery.cancel_scope.cancel()


async def test_what_is_published_is_known_when_the_client_is_connected_again(
    tunnel_client, tunnel_visit, link_fault, autojump_clock
):
    async with tunnel_client.publish(handler=echo, name="it") as address:
        assert tunnel_client.published.value == {"it": address}
        for _ in range(20):
            await link_fault.cut()
            assert tunnel_client.published.value == {}
            await tunnel_client.state.wait_value(ClientState.CONNECTED)
            assert tunnel_client.published.value == {"it": address}
    assert tunnel_client.published.value == {}


async def test_the_port_is_free_when_the_block_is_over():
    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=echo, host=own_host()) as address:
            assert not is_free(address)
        assert is_free(address)


async def test_the_port_is_free_also_when_the_block_is_cancelled():
    async with serve(SERVER) as server, connect(client(server)) as link:
        with trio.CancelScope() as scope:
            async with link.publish(handler=echo, host=own_host()) as address:
                scope.cancel()
                await trio.sleep_forever()
        assert is_free(address)
        assert scope.cancelled_caught


async def test_the_port_is_free_also_when_the_connection_is_cancelled_with_it():
    host = own_host()
    async with serve(SERVER) as server:
        with trio.CancelScope() as scope:
            async with connect(client(server)) as link:
                async with link.publish(handler=echo, host=host) as address:
                    scope.cancel()
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert is_free(address)


async def test_connecting_can_be_cancelled(autojump_clock):
    async with serve(SERVER) as server:
        silent = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = silent[0].socket.getsockname()[1]
        with trio.move_on_after(1) as scope:
            async with connect(client(server, server_port=port)):
                raise AssertionError("not reached")
        assert scope.cancelled_caught
        await silent[0].aclose()


async def test_connecting_where_all_is_cancelled_ends():
    async with serve(SERVER) as server:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with connect(client(server)):
                raise AssertionError("not reached")
        assert scope.cancelled_caught


async def test_every_address_is_the_one_that_was_dialled():
    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=echo) as address:
            assert address.host == "127.0.0.1"
            assert await say(address, b"hello") == b"hello"


async def test_leaving_cancels_handlers_and_resets_their_connections():
    ended = trio.Event()
    begun = trio.Event()

    async def handler(stream, peer):
        try:
            begun.set()
            await trio.sleep_forever()
        finally:
            ended.set()

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=handler, host="127.0.0.1") as address:
            stream = await visit(address)
            await begun.wait()
        assert ended.is_set()
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_a_handler_that_fails_fails_alone(caplog):
    async def handler(stream, peer):
        if await stream.receive_some() == b"bad":
            raise ValueError("no such thing")
        await stream.send_all(b"fine")

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=handler, host="127.0.0.1") as address:
            async with await visit(address) as bad:
                await bad.send_all(b"bad")
                with pytest.raises(trio.BrokenResourceError):
                    await bad.receive_some()
            async with await visit(address) as good:
                await good.send_all(b"good")
                assert await read_all(good) == b"fine"
    [record] = [r for r in caplog.records if r.getMessage() == "Handler failed"]
    assert record.error == "ValueError: no such thing"
    assert record.exc_info[0] is ValueError


async def test_a_visitor_who_goes_is_no_line_of_the_log(caplog):
    ended = trio.Event()

    async def handler(stream, peer):
        try:
            while True:
                await stream.send_all(bytes(65536))
        finally:
            ended.set()

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=handler, host="127.0.0.1") as address:
            stream = await visit(address)
            await stream.receive_some()
            await stream.aclose()
            await ended.wait()
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_errors_of_the_block_come_out_bare():
    with pytest.raises(ValueError, match="mine"):
        async with serve(SERVER) as server, connect(client(server)) as link:
            async with link.publish(handler=echo, host="127.0.0.1"):
                raise ValueError("mine")


async def test_a_wrong_key_is_raised_at_once():
    async with serve(SERVER) as server:
        other = client(server, auth_key=generate_key(secrets.token_bytes(32)))
        with pytest.raises(Refused) as caught:
            async with connect(other):
                raise AssertionError("not reached")
    assert caught.value.code == "authentication"


async def test_another_server_than_is_meant_is_raised_at_once():
    async with serve(SERVER) as server:
        with pytest.raises(Untrusted):
            async with connect(client(server, pin=("sha256:" + "0" * 64,))):
                raise AssertionError("not reached")


async def test_a_server_that_is_not_there_is_waited_for(autojump_clock):
    config = ClientConfig(server_addr=("127.0.0.1",), server_port=1, auth_key=KEY, skip_verify=True)
    with trio.move_on_after(60) as scope:
        async with connect(config):
            raise AssertionError("not reached")
    assert scope.cancelled_caught


async def test_or_raised_without_reconnect():
    config = ClientConfig(server_addr=("127.0.0.1",), server_port=1, auth_key=KEY, skip_verify=True)
    with pytest.raises(LinkLost):
        async with connect(config, reconnect=False):
            raise AssertionError("not reached")


async def test_a_lost_link_ends_the_block_without_reconnect():
    cancelled = False
    with pytest.raises(LinkLost):
        async with serve(SERVER) as server:
            async with connect(client(server), reconnect=False):
                server.drain()
                try:
                    await trio.sleep_forever()
                finally:
                    cancelled = True
    assert cancelled


async def test_after_a_reconnect_it_is_published_again():
    host = own_host()
    async with trio.open_nursery() as nursery:
        config = attrs.evolve(SERVER, bind_addr=host, cert_path=None)
        first = trio.CancelScope()
        addresses = []

        async def once(config, scope, *, task_status):
            with scope:
                async with serve(config) as server:
                    task_status.started(server)
                    await trio.sleep_forever()

        server = await nursery.start(once, config, first)
        port = server.addresses[0].port
        settings = {"pin": (), "skip_verify": True}
        async with connect(client(server, **settings)) as link:
            async with link.publish(handler=echo, host=host, name="web") as address:
                addresses.append(address)
                assert link.published.value == {"web": address}
                first.cancel()
                await link.published.wait_value({})
                await nursery.start(once, attrs.evolve(config, bind_port=port), trio.CancelScope())
                await link.published.wait_value({"web": address})
                assert link.state.value is ClientState.CONNECTED
                assert await say(address, b"hello") == b"hello"
        nursery.cancel_scope.cancel()


async def test_what_the_server_does_not_allow():
    config = attrs.evolve(SERVER, allow_publish_addrs=("127.0.0.2",))
    async with serve(config) as server, connect(client(server)) as link:
        with pytest.raises(PublishError) as caught:
            async with link.publish(handler=echo, host="127.0.0.1"):
                raise AssertionError("not reached")
        assert caught.value.code == "not_allowed"
        with pytest.raises(PublishError):  # that does not pass
            async with link.publish(handler=echo, host="127.0.0.1", wait=True):
                raise AssertionError("not reached")
        assert link.statistics() == ()
        async with link.publish(handler=echo, host="127.0.0.2") as address:
            assert await say(address, b"hello") == b"hello"


async def test_a_busy_port_is_an_error_or_waited_for():
    async with serve(SERVER) as server, connect(client(server)) as link:
        async with connect(client(server)) as other, trio.open_nursery() as nursery:
            waiting = trio.Event()

            async def wait(port):
                async with other.publish(port, handler=echo, host="127.0.0.1", wait=True):
                    waiting.set()

            async with link.publish(handler=echo, host="127.0.0.1") as address:
                with pytest.raises(PublishError) as caught:
                    async with other.publish(address.port, handler=echo, host="127.0.0.1"):
                        raise AssertionError("not reached")
                assert caught.value.code == "in_use"
                nursery.start_soon(wait, address.port)
            await waiting.wait()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "publish(): to: set it, or handler: one of them"),
        ({"handler": echo, "to": 1}, "publish(): to: set it, or handler: one of them"),
        ({"handler": echo, "port": 70000}, "publish(): publish_port: expected"),
        ({"to": "nowhere:x"}, "publish(): local_port: expected"),
        ({"to": 1, "allow_from": ("x",)}, "publish(): allow_from: expected"),
        ({"handler": echo, "name": "\n"}, "publish(): name: expected"),
    ],
)
async def test_wrong_arguments_say_what_is_wrong(arguments, message):
    async with serve(SERVER) as server, connect(client(server)) as link:
        with pytest.raises(ConfigError) as caught:
            async with link.publish(**arguments):
                raise AssertionError("not reached")
        assert str(caught.value).startswith(message)


async def test_a_name_is_taken_once():
    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=echo, host="127.0.0.1", name="web"):
            with pytest.raises(ConfigError, match="is published already"):
                async with link.publish(handler=echo, host="127.0.0.1", name="web"):
                    raise AssertionError("not reached")


async def test_a_server_that_does_not_answer_holds_up_nobody_for_long(monkeypatch, autojump_clock):
    slow = {"keepalive_interval": 100.0, "keepalive_timeout": 100.0}
    async with serve(attrs.evolve(SERVER, **slow)) as server:
        async with connect(client(server, **slow)) as link:
            async with link.publish(handler=echo, host="127.0.0.1") as address:
                monkeypatch.setattr("tunnel.server.proxies.Proxies.reconfigure", lambda *_: None)
                before = trio.current_time()
            assert 0 <= trio.current_time() - before - limits.WITHDRAWAL < 5
            assert not is_free(address)


async def test_there_are_only_so_many_handlers(monkeypatch):
    monkeypatch.setattr(limits, "PROXY_CONNECTIONS", 2)

    async def handler(stream, peer):
        await stream.send_all(b"x")
        await trio.sleep_forever()

    async with serve(attrs.evolve(SERVER, max_connections_per_proxy=10)) as server:
        async with connect(client(server)) as link:
            async with link.publish(handler=handler, host="127.0.0.1") as address:
                async with await visit(address) as one, await visit(address) as other:
                    assert await one.receive_some() == await other.receive_some() == b"x"
                    async with await visit(address) as third:
                        with pytest.raises(trio.BrokenResourceError):
                            await third.receive_some()


async def test_what_was_sent_before_the_handler_returns_arrives():
    async def handler(stream, peer):
        await stream.send_all(bytes(1_000_000))

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=handler, host="127.0.0.1") as address:
            async with await visit(address) as stream:
                assert len(await read_all(stream)) == 1_000_000


async def test_a_handler_may_close_the_stream_itself(caplog):
    async def handler(stream, peer):
        await stream.send_all(b"fine")
        await stream.aclose()
        raise ValueError("after that")

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=handler, host="127.0.0.1") as address:
            async with await visit(address) as stream:
                assert await read_all(stream) == b"fine"
            await wait_for(caplog, "Handler failed")


async def wait_for(caplog, text):
    while not any(record.getMessage() == text for record in caplog.records):
        await trio.testing.wait_all_tasks_blocked()


async def test_errors_of_a_handlers_own_tasks_are_its_errors(caplog):
    async def fail():
        raise ValueError("in a task")

    async def handler(stream, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish(handler=handler, host="127.0.0.1") as address:
            async with await visit(address) as stream:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
    [record] = [r for r in caplog.records if r.getMessage() == "Handler failed"]
    assert record.error == "ValueError: in a task"


async def test_the_audit_has_handled_connections(tmp_path):
    path = tmp_path / "audit.jsonl"
    async with serve(SERVER) as server, connect(client(server, audit_log=str(path))) as link:
        async with link.publish(handler=echo, host="127.0.0.1", name="web") as address:
            assert await say(address, b"hello") == b"hello"
    [record] = map(json.loads, path.read_text().splitlines())
    assert (record["proxy"], record["sent"], record["received"]) == ("web", 5, 5)
    assert record["end"] == "finished"


async def test_a_join_string_that_is_none():
    with pytest.raises(JoinFormatError):
        async with connect("tunnel.example.com"):
            raise AssertionError("not reached")


async def test_a_file_without_proxies_and_one_that_is_missing(tmp_path):
    path = tmp_path / "client.toml"
    with pytest.raises(StoreError, match="cannot read the configuration"):
        async with connect(path):
            raise AssertionError("not reached")
    async with serve(SERVER) as server:
        [address] = server.addresses
        path.write_text(
            f'[client]\nserver_addr = "{address.host}"\nserver_port = {address.port}\n'
            f'auth_key = "{KEY}"\npin = "{server.pin}"\nstate_dir = "{tmp_path}"\n'
        )
        async with connect(path, name="office"):
            assert [session.name for session in server.sessions()] == ["office"]
        assert list(tmp_path.glob("client-*.id"))


async def test_what_the_configuration_publishes_is_published():
    proxy = ProxyConfig(name="web", publish_addr="127.0.0.1", publish_port=0, local_port=1)
    async with serve(SERVER) as server, connect(client(server, proxies=(proxy,))) as link:
        now = await link.published.wait_value(lambda now: "web" in now)
        assert not is_free(now["web"])


async def test_what_only_other_clients_visit_has_no_address():
    proxy = ProxyConfig(name="db", publish_port=5432, local_port=1, visitors_only=True)
    async with serve(SERVER) as server, connect(client(server, proxies=(proxy,))) as link:
        async with link.publish(handler=echo, host="127.0.0.1", name="web") as address:
            assert link.published.value == {"web": address}


async def test_what_ends_it_is_bare_with_all_that_observes_it(tmp_path):
    config = ClientConfig(
        server_addr=("127.0.0.1",),
        server_port=1,
        auth_key=KEY,
        stats_port=0,
        audit_log=str(tmp_path / "audit.jsonl"),
    )
    with pytest.raises(LinkLost, match="nothing listens there"):
        async with connect(config, reconnect=False):
            pass
