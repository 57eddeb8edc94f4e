"""The scenarios of reconnecting, with real processes."""

from __future__ import annotations

import signal

import pytest
import trio

from tests.e2e.rig import Wire, ask, is_free, lab, occupied, published, service, visit
from tests.needs import needs_ipv6
from tunnel.model import Address

pytestmark = pytest.mark.e2e


async def test_network_cut_and_back(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        server = await place.start_server()
        wire = Wire(Address(place.host, place.server_port))
        await place.nursery.start(wire.run)
        client, [address] = await place.publish(
            {"local_port": port}, server_addr="127.0.0.1", server_port=wire.port
        )
        for _ in range(5):
            assert await ask(address) == b"hello"
            visitor = await visit(address)
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
            wire.cut()
            await server.wait_for("Client disconnected")
            assert is_free(address)
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()
            await visitor.aclose()
            await client.wait_for("Connection lost")
            await client.wait_for("Reconnecting in 0.05 seconds")
            wire.mend()
            assert await published(client) == address
        assert await ask(address) == b"hello"


async def test_network_gone_without_a_word(tmp_path, certificate):
    """Neither side is told; both notice by silence, and the client gets its port back."""
    async with lab(tmp_path, certificate) as place, service() as port:
        keepalive = {"keepalive_interval": 0.2, "keepalive_timeout": 0.2}
        server = await place.start_server(**keepalive)
        wire = Wire(Address(place.host, place.server_port))
        await place.nursery.start(wire.run)
        client, [address] = await place.publish(
            {"local_port": port}, server_addr="127.0.0.1", server_port=wire.port, **keepalive
        )
        wire.freeze()
        wire.whole = False
        line = await server.wait_for("Client disconnected")
        assert line["reason"] == "no sign of life"
        assert is_free(address)
        await client.wait_for("Connection lost")
        wire.mend()
        assert await published(client) == address
        assert await ask(address) == b"hello"


async def test_a_client_that_comes_back_before_the_server_noticed_takes_over(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server()  # it would notice by itself after ten seconds
        wire = Wire(Address(place.host, place.server_port))
        await place.nursery.start(wire.run)
        client, [address] = await place.publish(
            {"local_port": port},
            server_addr="127.0.0.1",
            server_port=wire.port,
            keepalive_interval=0.2,
            keepalive_timeout=0.2,
        )
        wire.freeze()
        await client.wait_for("Connection lost")
        assert await published(client) == address
        events = server.events()
        assert "Session taken over" in events
        assert await ask(address) == b"hello"


@needs_ipv6
async def test_visitors_over_ipv4_and_ipv6(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        await place.start_server()
        _, [address] = await place.publish({"local_port": port, "publish_addr": "*"})
        for host in ("127.0.0.1", "::1"):
            assert await ask(Address(host, address.port)) == b"hello"


async def test_client_killed_and_restarted(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port})
        fixed = {"local_port": port, "publish_port": address.port}
        for _ in range(3):
            visitor = await visit(address)
            await visitor.send_all(b"x")
            assert await visitor.receive_some() == b"x"
            await client.kill()
            await server.wait_for("Client disconnected")
            assert is_free(address)
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()
            await visitor.aclose()
            client, _ = await place.publish(fixed)
            assert await ask(address) == b"hello"


async def test_client_restarted_with_one_proxy_more(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port})
        assert await client.stop(signal.SIGINT) == 0
        line = await server.wait_for("Client disconnected")
        assert line["reason"] == "closed by the other side"
        assert client.events()[-1] == "Client stopped"
        _, addresses = await place.publish(
            {"local_port": port, "publish_port": address.port}, {"local_port": port}
        )
        assert addresses[0] == address
        for each in addresses:
            assert await ask(each) == b"hello"


async def test_two_clients_one_goes_and_the_other_does_not_notice(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        server = await place.start_server()
        first, [gone] = await place.publish({"local_port": port}, name="first")
        second, [stays] = await place.publish({"local_port": port}, name="second")
        visitor = await visit(stays)
        await visitor.send_all(b"before")
        assert await visitor.receive_some() == b"before"
        await first.kill()
        await server.wait_for("Client disconnected", client="first")
        assert is_free(gone)
        await visitor.send_all(b"after")
        assert await visitor.receive_some() == b"after"
        await visitor.aclose()
        assert "Connection lost" not in second.events()


async def test_wrong_key(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server()
        client = await place.start_client({"local_port": port}, auth_key="not the right key at all")
        line = await client.wait_for("Refused")
        assert line["code"] == "authentication"
        assert "auth_key" in line["reason"]
        await client.wait_for("Reconnecting in 0.05 seconds")
        await client.wait_for("Refused")  # it goes on trying
        await server.wait_for("Authentication failed")
        assert "not the right key" not in repr(client.lines + server.lines)
        assert await client.stop() == 0


async def test_a_port_of_another_client_comes_over_when_that_one_goes(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        await place.start_server()
        first, [address] = await place.publish({"local_port": port}, name="first")
        wanted = {"local_port": port, "publish_port": address.port}
        second = await place.start_client(wanted, {"local_port": port}, name="second")
        line = await second.wait_for("Proxy rejected")
        assert line["code"] == "in_use"
        assert "first" in line["reason"]
        other = await published(second, proxy="proxy1")
        assert await ask(other) == b"hello"
        await first.kill()
        assert await published(second, proxy="proxy0") == address
        assert await ask(address) == b"hello"


async def test_a_port_of_a_foreign_program_is_tried_again(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        await place.start_server()
        _, [address] = await place.publish({"local_port": port}, name="other")
        free = Address(address.host, address.port + 1 if address.port < 65535 else 65000)
        with occupied(free):
            client = await place.start_client({"local_port": port, "publish_port": free.port})
            line = await client.wait_for("Proxy rejected")
            assert "outside the tunnel" in line["reason"]
            await client.wait_for("Connected", published=0)
        assert await published(client) == free
        assert await ask(free) == b"hello"


async def test_server_restart_with_a_client_waiting(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port})
        await server.kill()
        await client.wait_for("Connection lost")
        assert is_free(address)
        await client.wait_for("Connection lost")  # nobody listens
        await place.start_server()
        assert await published(client) == address
        assert await ask(address) == b"hello"


async def test_a_server_that_stops_lets_live_connections_finish(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port})
        visitor = await visit(address)
        await visitor.send_all(b"x")
        assert await visitor.receive_some() == b"x"
        server.process.send_signal(signal.SIGTERM)
        await client.wait_for("Server stops")
        assert is_free(address)
        await visitor.send_all(b"still here")
        assert await visitor.receive_some() == b"still here"
        await visitor.send_eof()
        assert await visitor.receive_some() == b""
        await visitor.aclose()
        with trio.fail_after(20):
            assert await server.process.wait() == 0
        assert server.events()[-1] == "Server stopped"
        line = await client.wait_for("Connection lost")
        assert line["reason"] == "closed by the other side"


async def test_a_server_that_stops_says_so_to_a_client_without_visitors(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server()
        client, _ = await place.publish({"local_port": port})
        assert await server.stop() == 0
        await client.wait_for("Server stops")
        await client.wait_for("Connection lost", reason="closed by the other side")


@pytest.mark.parametrize("state", ["kept", "lost"])
async def test_a_restarted_client_does_not_meet_its_silent_ghost(tmp_path, certificate, state):
    """The machine died without a word and is back before the server noticed, perhaps with
    nothing of what it had kept: the port is there, long before keepalive would have found out."""
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server(keepalive_interval=600)
        wire = Wire(Address(place.host, place.server_port))
        await place.nursery.start(wire.run)
        through = {"server_addr": "127.0.0.1", "server_port": wire.port}
        first, [address] = await place.publish({"local_port": port}, **through)
        wire.freeze()
        await first.kill()
        fixed = {"local_port": port, "publish_port": address.port}
        client_id = {} if state == "kept" else {"client_id": "0123456789abcdef" * 2}
        _, [again] = await place.publish(fixed, **through, **client_id)
        assert again == address
        assert await ask(address) == b"hello"
        assert server.events().count("Session taken over") == 1


async def test_two_copies_of_one_configuration_do_not_evict_each_other(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        await place.start_server()
        first, [address] = await place.publish({"local_port": port})
        copy = await place.start_client({"local_port": port})
        line = await copy.wait_for("Refused")
        assert line["code"] == "already_connected"
        assert "client_id of its own" in line["reason"]
        await copy.wait_for("Refused")
        assert await ask(address) == b"hello"
        assert "Connection lost" not in first.events()
