"""Programs that serve their statistics: from the configuration to what HTTP answers."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
import trio

from tests.rig import is_free, own_host, read_all, visit
from tunnel.api import run_client, run_server
from tunnel.config import load_client, load_server
from tunnel.errors import TunnelError
from tunnel.model import Address
from tunnel.net.listen import open_listeners
from tunnel.protocol.keys import generate_key
from tunnel.views import ClientState

KEY = generate_key(b"k" * 32)
TOKEN = "a-token-of-some-length"


@pytest.fixture(autouse=True)
def files(certificate, tmp_path):
    for name in ("cert.pem", "key.pem", "ca.pem"):
        shutil.copy(certificate / name, tmp_path)


@pytest.fixture(autouse=True)
def informed(caplog):
    caplog.set_level(logging.INFO, logger="tunnel")


@pytest.fixture
def host():
    """A loopback address of this test alone, so that it knows its ports."""
    return own_host()


class Programs:
    """A server, perhaps a client, and what they answer."""

    def __init__(self, nursery, directory, host):
        self.nursery, self.directory, self.host = nursery, directory, host

    async def server(self, text="stats_port = 7000"):
        head = f'bind_addr = "{self.host}"\nbind_port = 0\ncert_path = "cert.pem"\n'
        head += f'key_path = "key.pem"\nauth_key = "{KEY}"\nstats_addr = "{self.host}"\n'
        config = load_server(f"[server]\n{head}{text}", source="server.toml", environ={}).value
        source = self.directory / "server.toml"
        self.handle = await self.nursery.start(
            lambda task_status: run_server(config, source=source, task_status=task_status)
        )

    async def client(self, service, text="stats_port = 7001", port=None):
        port = port or self.handle.addresses[0].port
        head = f'server_addr = "{self.host}"\nserver_port = {port}\nauth_key = "{KEY}"\n'
        head += f'skip_verify = true\nstate_dir = "state"\nstats_addr = "{self.host}"\n'
        proxy = f'[[proxies]]\nname = "web"\npublish_addr = "{self.host}"\n'
        proxy += f"publish_port = 7080\nlocal_port = {service}\n"
        text = f'[client]\nname = "office"\n{head}{text}\n{proxy}'
        config = load_client(text, source="client.toml", environ={}).value
        source = self.directory / "client.toml"
        return await self.nursery.start(
            lambda task_status: run_client(config, source=source, task_status=task_status)
        )

    async def connected(self, service):
        client = await self.client(service)
        with trio.fail_after(20):
            await client.state.wait_value(ClientState.CONNECTED)

    async def ask(self, port, path, token=None):
        stream = await trio.open_tcp_stream(self.host, port)
        more = "" if token is None else f"authorization: Bearer {token}\r\n"
        request = f"GET {path} HTTP/1.1\r\nhost: {self.host}\r\nconnection: close\r\n{more}\r\n"
        await stream.send_all(request.encode())
        with trio.fail_after(20):
            head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        await stream.aclose()
        return int(head.split()[1]), body

    async def get(self, port, path):
        status, body = await self.ask(port, path)
        assert status == 200
        return json.loads(body)

    async def until(self, port, path, holds):
        with trio.fail_after(20):
            while not holds(found := await self.get(port, path)):
                pass
        return found


@pytest.fixture
def programs(nursery, tmp_path, host):
    return Programs(nursery, tmp_path, host)


async def _echo(stream):
    async for data in stream:
        await stream.send_all(data)


async def echo_service(nursery):
    listeners = await nursery.start(trio.serve_tcp, _echo, 0)
    return listeners[0].socket.getsockname()[1]


async def test_bytes_move_while_a_connection_lives_and_agree_on_both_sides(nursery, programs, host):
    await programs.server()
    await programs.connected(await echo_service(nursery))
    visitor = await visit(Address(host, 7080))
    await visitor.send_all(b"x" * 12_345)
    for port in (7000, 7001):
        [one] = await programs.until(
            port, "/stats", lambda found: found and found[0]["bytes_sent"] == 12_345
        )
        assert (one["name"], one["bytes_received"], one["active_connections"]) == ("web", 12_345, 1)
        assert (one["client"], one["total_connections"]) == ("office", 1)
    await visitor.aclose()


async def test_both_sides_say_since_when_they_are_connected(nursery, programs):
    before = time.time()
    await programs.server()
    await programs.connected(await echo_service(nursery))
    for port in (7000, 7001):
        [session] = (await programs.get(port, "/status"))["sessions"]
        assert before <= session["since"] <= time.time()


async def test_ready_when_it_is(nursery, programs):
    await programs.server()
    assert (await programs.ask(7000, "/readyz"))[0] == 200
    await programs.connected(await echo_service(nursery))
    with trio.fail_after(20):
        while (await programs.ask(7001, "/readyz"))[0] != 200:
            pass


async def test_a_client_without_its_server_is_alive_and_not_ready(programs, host):
    await programs.client(1, port=1)
    assert (await programs.ask(7001, "/healthz"))[0] == 200
    status, body = await programs.ask(7001, "/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "not connected to the server")
    status = await programs.until(7001, "/status", lambda found: found["state"] == "waiting")
    assert (status["server"], status["sessions"]) == (f"{host}:1", [])


async def test_a_proxy_that_is_not_published_is_named(nursery, programs, host):
    listeners = open_listeners(host, 7080)
    await programs.server()
    await programs.connected(await echo_service(nursery))
    status, body = await programs.ask(7001, "/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "not published: web")
    listeners[0].close()


async def test_a_server_that_stops_is_not_ready(nursery, programs, host):
    await programs.server()
    await programs.connected(await echo_service(nursery))
    visitor = await visit(Address(host, 7080))
    await visitor.send_all(b"x")
    assert await visitor.receive_some() == b"x"
    programs.handle.drain()
    status, body = await programs.ask(7000, "/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "it stops")
    assert (await programs.ask(7000, "/healthz"))[0] == 200
    await visitor.aclose()


async def test_events_of_each_program_are_its_own(nursery, programs):
    await programs.server()
    await programs.connected(await echo_service(nursery))
    server = await programs.get(7000, "/events")
    client = await programs.get(7001, "/events")
    kinds = [event["kind"] for event in server["events"]]
    assert "connected" in kinds
    assert "connecting" not in kinds
    assert [event["text"] for event in client["events"]][-3:] == [
        "Connecting",
        "Proxy published",
        "Connected",
    ]
    last = client["last"]
    assert (await programs.get(7001, f"/events?after={last}"))["events"] == []


async def test_metrics_of_a_live_tunnel(nursery, programs):
    await programs.server()
    await programs.connected(await echo_service(nursery))
    _, text = await programs.ask(7000, "/metrics")
    assert b"tls_tunnel_sessions 1.0" in text
    assert b'tls_tunnel_handshakes_total{result="connected"} 1.0' in text
    assert b'tls_tunnel_proxy_published{client="office",proxy="web"} 1.0' in text


async def test_a_token_from_a_file(programs, tmp_path):
    (tmp_path / "stats.token").write_text(TOKEN + "\n")
    os.chmod(tmp_path / "stats.token", 0o600)
    await programs.server('stats_port = 7000\nstats_token_file = "stats.token"')
    assert (await programs.ask(7000, "/stats"))[0] == 401
    assert (await programs.ask(7000, "/stats", TOKEN))[0] == 200
    assert (await programs.ask(7000, "/healthz"))[0] == 200


async def test_a_token_that_cannot_travel_in_a_header(programs, tmp_path):
    (tmp_path / "stats.token").write_text("sixteen letters and spaces\n")
    os.chmod(tmp_path / "stats.token", 0o600)
    with pytest.raises(TunnelError, match=r"stats\.token.*without spaces"):
        await programs.server('stats_port = 7000\nstats_token_file = "stats.token"')


async def test_a_port_that_is_taken_is_said_and_leaves_nothing_behind(programs, host):
    with socket.create_server((host, 7000)):
        with pytest.raises(
            TunnelError,
            match=rf"statistics: .* {host}:7000: .* \(process \d+\) .* change stats_port",
        ):
            await programs.server()


async def test_a_start_that_fails_later_leaves_nothing_behind(programs, host):
    with pytest.raises(TunnelError, match=r"missing\.pem"):
        await programs.server('stats_port = 7000\nclient_ca_path = "missing.pem"')
    assert is_free(Address(host, 7000))


async def test_nobody_publishes_the_port_of_the_statistics(nursery, programs, host):
    await programs.server("stats_port = 7080")
    await programs.connected(await echo_service(nursery))
    [rejected] = [
        event
        for event in (await programs.get(7001, "/events"))["events"]
        if event["kind"] == "rejected"
    ]
    assert rejected["details"]["code"] == "reserved"


@pytest.mark.parametrize(
    ("host", "token", "is_said"),
    [("127.0.0.1", "", False), ("*", "", True), ("*", f'stats_token = "{TOKEN}"', False)],
)
async def test_open_to_everybody_is_said(programs, caplog, host, token, is_said):
    programs.host = host
    await programs.server(f"stats_port = 0\n{token}")
    assert ("Statistics are open" in caplog.text) is is_said
    assert TOKEN not in caplog.text


def test_without_the_key_nothing_of_it_is_loaded():
    code = (
        "import sys, tunnel, tunnel.api\n"
        "print([m for m in ('hypercorn', 'prometheus_client', 'h11') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
