"""`tls-tunnel expose` and `visit`, with a server in the same process."""

from __future__ import annotations

import os
import secrets
import signal

import attrs
import pytest
import trio

from tests.library.test_link import echo, say
from tests.rig import is_free, own_host
from tunnel.cli.commands.expose import _service, proxy_of, publish
from tunnel.cli.commands.visit import listen
from tunnel.cli.display import Progress
from tunnel.cli.running import Program, until_signal
from tunnel.compose import joined_client
from tunnel.config import ProxyConfig, ServerConfig, VisitorConfig
from tunnel.errors import Refused, TunnelError
from tunnel.library.link import connect
from tunnel.library.server import serve
from tunnel.model import PortRange
from tunnel.ops.notify import Notifier
from tunnel.protocol.join import Join
from tunnel.protocol.keys import generate_key

KEY = generate_key(secrets.token_bytes(32))
SERVER = ServerConfig(bind_addr="127.0.0.1", bind_port=0, auth_key=KEY, shutdown_grace=0.0)


def web(port, **settings):
    return ProxyConfig(**{"name": "web", "publish_port": 0, "local_port": port} | settings)


@pytest.fixture
def progress():
    return Progress("server", "target", "is away")


async def run_until_signal(work, beside):
    """As `run_line` does, in this Trio run."""

    async def run(*, task_status):
        task_status.started()
        await work()

    program = Program(run, background=lambda _: beside(), hangup_ends=True)
    await until_signal(program, Notifier())


@pytest.fixture
async def service(nursery):
    async def start(*, task_status):
        await trio.serve_tcp(echo, 0, host="127.0.0.1", task_status=task_status)

    [listener] = await nursery.start(start)
    return listener.socket.getsockname()[1]


async def reached(progress):
    with trio.fail_after(10):
        return await progress.address.wait_value(lambda at: at is not None)


async def test_expose_until_a_signal_and_then_the_port_is_free(progress, service):
    async with serve(SERVER) as server:
        config = joined_client(Join.from_text(server.join))

        async def life():
            await publish(config, web(service), progress)

        async def beside():
            address = await reached(progress)
            assert address.host == "127.0.0.1"
            assert await say(address, b"hello") == b"hello"
            assert progress.counters().total == 1
            places.append(address)
            signal.raise_signal(signal.SIGINT)

        places = []
        with trio.fail_after(10):
            await run_until_signal(life, beside)
        assert is_free(places[0])
        assert not [proxy for session in server.sessions() for proxy in session.proxies]


async def test_visit(progress, service):
    async with serve(SERVER) as server, connect(server.join) as owner:
        config = joined_client(Join.from_text(server.join))
        host = own_host()
        visits = VisitorConfig(name="web", bind_addr=host, bind_port=5432)
        config = attrs.evolve(config, visitors=(visits,))

        async def life():
            await listen(config, progress)

        async def beside():
            async with owner.publish(to=service, name="web"):
                address = await reached(progress)
                assert (address.host, address.port) == (host, 5432)
                assert await say(address, b"hello") == b"hello"
            with trio.fail_after(10):
                await progress.address.wait_value(None)
            signal.raise_signal(signal.SIGINT)

        with trio.fail_after(20):
            await run_until_signal(life, beside)


async def test_what_the_server_does_not_publish(progress):
    config = attrs.evolve(SERVER, allow_ports=(PortRange(1, 1),))
    async with serve(config) as server:
        client = joined_client(Join.from_text(server.join))
        with pytest.raises(TunnelError, match=r"the server does not publish it: .*8080"):
            await publish(client, web(1, publish_port=8080), progress)


async def test_a_wrong_key(progress):
    async with serve(SERVER) as server:
        join = attrs.evolve(Join.from_text(server.join), key=generate_key(bytes(32)))
        with pytest.raises(Refused, match="does not accept this auth_key"):
            await publish(joined_client(join), web(1), progress)


@pytest.mark.parametrize(
    ("target", "name", "service"),
    [
        ("3000", "3000", "127.0.0.1:3000"),
        ("db.example:5432", "db.example:5432", "db.example:5432"),
        ("[::1]:22", "[::1]:22", "[::1]:22"),
        ("unix:/run/app.sock", "app.sock", "unix:/run/app.sock"),
    ],
)
def test_targets(target, name, service):
    found = proxy_of(target, 0, None)
    assert (found.name, _service(found)) == (name, service)


JOIN = Join("127.0.0.1", 1, KEY, "sha256:" + "ab" * 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("expose", "0"), "expose: local_port: expected a port from 1 to 65535, found 0"),
        (("expose", "x"), "expose: local_port: expected a port from 1 to 65535, found 'x'"),
        (("expose", "a b:1"), "expose: local_addr: expected a host name or address"),
        (("expose", "unix:x"), "the path of a socket begins with a slash"),
        (("expose", "1", "--name", " "), "expose: name: expected a name"),
        (("expose", f"unix:/{'x' * 65}"), "expose: name: expected a name"),
        (("visit", "x\n", "--port", "1"), "visit: name: expected a name"),
        (("visit", "x", "--port", "1", "--bind", "y"), "visit: bind_addr: expected an IPv4 or"),
        (("visit", "x", "--port", "1", "--owner", ""), "visit: owner: expected a name"),
    ],
)
def test_arguments_that_cannot_be(run, arguments, message):
    result = run(*arguments, "--join", JOIN.to_text(), exit_code=1)
    assert message in result.stderr
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("command", [("expose", "1"), ("visit", "x", "--port", "1"), ("bench",)])
def test_each_command_needs_a_join_string(run, command):
    assert "which server?" in run(*command, exit_code=1).stderr
    result = run(*command, "--join", "ttj1_nonsense", exit_code=1)
    assert "wrong checksum" in result.stderr
    result = run(*command, "--join", "x", "--join-file", "y", exit_code=1)
    assert "--join and --join-file both" in result.stderr


def test_a_variable_is_taken_out_of_the_environment(run, monkeypatch):
    monkeypatch.setenv("TLS_TUNNEL_JOIN", JOIN.to_text())
    run("expose", "0", exit_code=1)
    assert "TLS_TUNNEL_JOIN" not in os.environ


def test_what_cannot_be_saved_is_not_begun(run, tmp_path, monkeypatch):
    path = tmp_path / "client.toml"
    path.write_text("[server]\n")
    begun = []
    monkeypatch.setattr("tunnel.cli.running.run_line", lambda *given: begun.append(given))
    for command in (("expose", "1"), ("visit", "x", "--port", "1")):
        result = run(*command, "--join", JOIN.to_text(), "--save", path, exit_code=1)
        assert result.stderr.startswith(f"error: {path}")
    assert not begun
