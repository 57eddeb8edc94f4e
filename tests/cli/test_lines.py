"""`tls-tunnel expose` and `visit`, with a server in the same process."""

from __future__ import annotations

import gc
import os
import secrets
import signal

import pytest
import trio

from tests.library.test_link import echo, say
from tests.rig import is_free, own_host
from tunnel.cli import lines
from tunnel.cli.lines import Line, _expose, _name_of, _service, _signals, _until_signal, _visit
from tunnel.cli.options import Settings
from tunnel.cli.watching import Watched
from tunnel.config import ProxyConfig, ServerConfig, VisitorConfig
from tunnel.errors import ConfigError, Refused, TunnelError
from tunnel.library.link import connect
from tunnel.library.server import serve
from tunnel.model import PortRange
from tunnel.protocol.join import Join
from tunnel.protocol.keys import generate_key
from tunnel.quick import client_config

KEY = generate_key(secrets.token_bytes(32))
SERVER = ServerConfig(bind_addr="127.0.0.1", bind_port=0, auth_key=KEY, shutdown_grace=0.0)


def web(port, **settings):
    return ProxyConfig(**{"name": "web", "publish_port": 0, "local_port": port} | settings)


@pytest.fixture
def watched():
    return Watched("server", "target", "is away")


@pytest.fixture
async def service(nursery):
    async def start(*, task_status):
        await trio.serve_tcp(echo, 0, host="127.0.0.1", task_status=task_status)

    [listener] = await nursery.start(start)
    return listener.socket.getsockname()[1]


async def reached(watched):
    with trio.fail_after(10):
        return await watched.address.wait_value(lambda at: at is not None)


async def test_expose_until_a_signal_and_then_the_port_is_free(watched, service):
    async with serve(SERVER) as server:
        config = client_config(Join.from_text(server.join))

        async def life():
            await _expose(config, web(service), watched)

        async def beside():
            address = await reached(watched)
            assert address.host == "127.0.0.1"
            assert await say(address, b"hello") == b"hello"
            assert watched.counters().total == 1
            places.append(address)
            signal.raise_signal(signal.SIGINT)

        places = []
        with trio.fail_after(10):
            await _until_signal(life, beside)
        assert is_free(places[0])
        assert not [proxy for session in server.sessions() for proxy in session.proxies]


@pytest.fixture
def hangup():
    """A hangup ends programs, even if the tests themselves were started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_other_signals_end_it_as_well(hangup, number):
    with trio.fail_after(10):

        async def life():
            signal.raise_signal(number)
            await trio.sleep_forever()

        await _until_signal(life, trio.sleep_forever)


def test_a_hangup_that_nohup_ignores_is_ignored(hangup):
    assert signal.SIGHUP in _signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert _signals() == {signal.SIGINT, signal.SIGTERM}


async def test_what_goes_wrong_comes_out_bare():
    async def life():
        raise TunnelError("no")

    with pytest.raises(TunnelError, match="no"):
        await _until_signal(life, trio.sleep_forever)


async def test_visit(watched, service):
    async with serve(SERVER) as server, connect(server.join) as owner:
        config = client_config(Join.from_text(server.join))
        host = own_host()
        visits = VisitorConfig(name="web", bind_addr=host, bind_port=5432)
        config = lines.attrs.evolve(config, visitors=(visits,))

        async def life():
            await _visit(config, watched)

        async def beside():
            async with owner.publish(to=service, name="web"):
                address = await reached(watched)
                assert (address.host, address.port) == (host, 5432)
                assert await say(address, b"hello") == b"hello"
            with trio.fail_after(10):
                await watched.address.wait_value(None)
            signal.raise_signal(signal.SIGINT)

        with trio.fail_after(20):
            await _until_signal(life, beside)


async def test_what_the_server_does_not_publish(watched):
    config = lines.attrs.evolve(SERVER, allow_ports=(PortRange(1, 1),))
    async with serve(config) as server:
        client = client_config(Join.from_text(server.join))
        with pytest.raises(TunnelError, match=r"the server does not publish it: .*8080"):
            await _expose(client, web(1, publish_port=8080), watched)


async def test_a_wrong_key(watched):
    async with serve(SERVER) as server:
        join = lines.attrs.evolve(Join.from_text(server.join), key=generate_key(bytes(32)))
        with pytest.raises(Refused, match="does not accept this auth_key"):
            await _expose(client_config(join), web(1), watched)


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
    found = lines.proxy_config(
        {"name": _name_of(target), "publish_port": 0, **lines.local_address(target)}, "expose"
    )
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


def test_what_cannot_be_saved_is_not_begun(tmp_path):
    path = tmp_path / "client.toml"
    path.write_text("[server]\n")
    before = gc.get_freeze_count()  # (some Pythons have frozen a few objects themselves)
    with pytest.raises(ConfigError):
        lines.expose(Line(Settings(), JOIN, path), "1", port=0, name=None, qr=False)
    assert gc.get_freeze_count() == before
