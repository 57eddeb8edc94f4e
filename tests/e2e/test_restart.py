"""A server that is restarted on purpose: how long its clients are in the dark."""

from __future__ import annotations

import datetime as dt
import signal
import time

import pytest
import trio

from tests.e2e.rig import ask, is_free, lab, service, visit

pytestmark = pytest.mark.e2e


def when(line) -> float:
    """The time of a line of the log, in seconds."""
    return dt.datetime.fromisoformat(line["timestamp"]).timestamp()


async def test_a_restart_costs_a_client_under_two_seconds(tmp_path, certificate):
    """With the delays that everybody has: five seconds, fixed. (The rig's own are shorter.)"""
    usual = {"reconnect_delay": 5, "reconnect_max_delay": 5}
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port}, **usual)
        for _ in range(3):
            assert await server.stop() == 0
            assert is_free(address)
            await client.wait_for("Connection lost")
            server = await place.start_server()
            back = server.lines[-1]
            assert back["event"] == "Server listening"
            line = await client.wait_for("Proxy published")
            assert when(line) - when(back) < 2
            assert await ask(address) == b"hello"


async def test_many_clients_do_not_come_back_in_one_moment(tmp_path, certificate):
    usual = {"reconnect_delay": 5, "reconnect_max_delay": 5}
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server()
        clients = []
        for number in range(6):
            client, _ = await place.publish({"local_port": port}, name=f"client{number}", **usual)
            clients.append(client)
        assert await server.stop() == 0
        server = await place.start_server()
        back = when(server.lines[-1])
        after = [when(await client.wait_for("Proxy published")) - back for client in clients]
        assert max(after) < 2
        assert max(after) - min(after) > 0.1


async def test_a_killed_server_is_not_mistaken_for_one_that_is_restarted(tmp_path, certificate):
    usual = {"reconnect_delay": 5, "reconnect_max_delay": 5}
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server()
        client, _ = await place.publish({"local_port": port}, **usual)
        await server.kill()
        await client.wait_for("Reconnecting in 5 seconds")


async def test_a_second_signal_ends_the_server_at_once(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server(shutdown_grace=600)
        client, [address] = await place.publish({"local_port": port})
        visitor = await visit(address)
        await visitor.send_all(b"x")
        assert await visitor.receive_some() == b"x"
        server.process.send_signal(signal.SIGTERM)
        await client.wait_for("Server stops")
        began = time.monotonic()
        assert await server.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 2
        assert server.events()[-1] == "Server stopped"
        with pytest.raises(trio.BrokenResourceError):  # cut off, and it looks so
            await visitor.receive_some()
        await visitor.aclose()
