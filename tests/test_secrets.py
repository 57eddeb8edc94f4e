"""Keys stay where they belong: not in logs, arguments, tracebacks, or files for others to read."""

from __future__ import annotations

import base64
import logging
import os
import secrets
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.e2e.rig import ask, lab, service
from tests.rig import proxy as published_proxy
from tests.rig import world
from tunnel import store
from tunnel.config import load_client, load_server
from tunnel.errors import ConfigError
from tunnel.model import TRACE
from tunnel.protocol.keys import KeyFormatError, derive, generate_key

#: As people make them up: every part of it is ours to look for.
HUMAN = "Correct-Horse-7-Battery-Staple"


def forms(key: str) -> list[str]:
    """A key, and what is derived from it, in the ways in which it could be printed."""
    keys = derive(key)
    parts = [keys.client_key, keys.verifier.stored_key, keys.verifier.server_key]
    made = [key, key[5:], keys.verifier.to_text()]
    for part in parts:
        made += [part.hex(), repr(part)[2:-1], base64.b64encode(part).decode().rstrip("=")]
    return made


def assert_silent(text: str, *keys: str) -> None:
    for key in keys:
        assert not any(form in text for form in forms(key))


def fresh() -> str:
    return generate_key(secrets.token_bytes(32))


# --- Processes, at their most talkative -------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.timeout(300)  # it starts six programs, one after the other
async def test_nothing_is_said_of_keys_whatever_goes_wrong(tmp_path, certificate, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "session.keys"))
    wrong, own = fresh(), fresh()
    private = (certificate / "key.pem").read_text().splitlines()[1:-1]
    async with lab(tmp_path, certificate) as place, service() as port:
        run = place.run
        monkeypatch.setattr(place, "run", lambda *what: run("-vv", *what))
        place.prefixes["-vv"] = ()
        # Two clients with a key each, and one key for all others.
        server = await start_server(place, own)
        good, [address] = await place.publish({"local_port": port}, name="good")
        mine, _ = await place.publish({"local_port": port}, name="mine", auth_key=own)
        assert await ask(address) == b"hello"
        bad = await place.start_client({"local_port": port}, name="bad", auth_key=wrong)
        human = await place.start_client({"local_port": port}, name="human", auth_key=HUMAN)
        await bad.wait_for("Refused")
        await human.wait_for("Refused")
        fooled = await place.start_client(
            {"local_port": port}, name="fooled", pin="sha256:" + "0" * 64
        )
        await fooled.wait_for("Connection lost")
        async with await trio.open_tcp_stream(place.host, place.server_port) as stranger:
            await stranger.send_all(b"GET / HTTP/1.1\r\n\r\n")
            await server.wait_for("Handshake failed")
        everybody = [server, good, mine, bad, human, fooled]
        shown = "".join(map(arguments, everybody))
        await server.kill()
        await good.wait_for("Connection lost")
        for one in everybody[1:]:
            await one.stop()
        shown += repr([one.lines for one in everybody])
    assert "Frame" in shown  # it was really at its most talkative
    assert_silent(shown, place.key, own, wrong, HUMAN)
    assert not any(line in shown for line in private)
    assert not (tmp_path / "session.keys").exists()


def arguments(running):
    """What `ps` shows of a process."""
    return Path(f"/proc/{running.process.pid}/cmdline").read_text()


async def start_server(place, own):
    """A server that also has a client with its own key."""
    path = place.directory / "own.toml"
    clients = f'\n[[server.clients]]\nname = "mine"\nauth_key = "{own}"\n'
    text = (
        f'[server]\nbind_addr = "{place.host}"\nbind_port = 0\nauth_key = "{place.key}"\n'
        f'cert_path = "{place.certificate}/cert.pem"\nkey_path = "{place.certificate}/key.pem"\n'
        f'state_dir = "{place.directory}"\n{clients}'
    )
    store.write_atomic(store.File(path, text.encode()))
    server = await place.run("server", "-c", str(path))
    line = await server.wait_for("Server listening")
    place.server_port = int(line["address"].rpartition(":")[2])
    return server


@pytest.mark.parametrize("command", ["server", "client"])
def test_a_crash_prints_no_key(tmp_path, command):
    # Every frame on the way down has the key, or the configuration that has it, in a variable.
    key = fresh()
    rest = {
        "server": f'[server]\nbind_addr = "127.0.0.1"\nbind_port = 0\nauth_key = "{key}"\n',
        "client": f'[client]\nserver_addr = "127.0.0.1"\nauth_key = "{key}"\n'
        '[[proxies]]\nname = "web"\npublish_port = 0\nlocal_port = 1\n',
    }
    path = tmp_path / "it.toml"
    store.write_atomic(store.File(path, rest[command].encode()))
    code = (
        "import tunnel.compose, tunnel.cli\n"
        "def broken(auth_key):\n"
        "    raise RuntimeError('a bug')\n"
        "tunnel.compose.derive = broken\n"
        "tunnel.cli.main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "-vv", command, "-c", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
    )
    assert "a bug" in result.stderr
    assert_silent(result.stdout + result.stderr, key)


# --- In one process ---------------------------------------------------------------------------


async def test_the_values_of_a_running_tunnel_do_not_show_their_secrets(certificate, caplog):
    caplog.set_level(TRACE)
    async with world(certificate) as tunnel:
        key = HUMAN
        tunnel.keys = derive(key)
        service_port = await tunnel.start_service()
        await tunnel.start_server()
        client = tunnel.client(published_proxy(service_port))
        await tunnel.start_client(published_proxy(service_port))
        [session] = tunnel.server.sessions.values()
        seen = [tunnel.server, client, session, session.registration, session.link, tunnel.keys]
        shown = "".join(f"{one!r}{one!s}" for one in seen) + caplog.text
        shown += repr([vars(record) for record in caplog.records])
    assert_silent(shown, key)


SERVER, CLIENT = "[server]\n", '[client]\nserver_addr = "x"\n'
PROXY = '[[proxies]]\nname = "a"\npublish_port = 1\nlocal_port = 1\n'
VISITOR = '[[visitors]]\nname = "a"\npublish_port = 1\nbind_port = 1\nvisitor_secret = "{key}"\n'


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (load_server, SERVER + 'auth_key = "{key}"\n'),
        (load_client, CLIENT + 'auth_key = "{key}"\n' + PROXY),
        (
            load_server,
            SERVER + 'auth_key_file = "x"\n[[server.clients]]\nname = "a"\nauth_key = "{key}"\n',
        ),
        (
            load_client,
            CLIENT + 'auth_key_file = "x"\n' + PROXY + 'visitor_secret = "{key}"\n' + VISITOR,
        ),
    ],
    ids=["server", "client", "one of many", "visits"],
)
def test_a_configuration_does_not_show_its_keys(load, text):
    key = fresh()
    config = load(text.format(key=key), source="x.toml", environ={})
    assert_silent(f"{config!r}{config!s}", key)


@pytest.mark.parametrize(
    "line",
    [
        'auth_key = "{short}"',
        'auth_key = ["{key}"]',
        'auth_key = "{key}"\nauth_key = "{key}"',
        'auth_key = "{key}',  # no closing quote
        "auth_key = {key}",
        'auth_key = "{key}"\nauth_key_file = "{key}"',
        'auth_kay = "{key}"',
    ],
)
def test_a_fault_in_a_configuration_does_not_repeat_the_key(line):
    key = fresh()
    text = SERVER + line.format(key=key, short=key[5:20]) + "\n"
    with pytest.raises(ConfigError) as caught:
        load_server(text, source="x.toml", environ={})
    assert key[5:20] not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda key: key + "x", lambda key: key[:-3]])
def test_a_mistyped_key_is_not_repeated(damage):
    key = fresh()
    with pytest.raises(KeyFormatError) as caught:
        derive(damage(key))
    assert key[5:20] not in str(caught.value)


# --- Files ------------------------------------------------------------------------------------


def tunnel_command(*arguments, directory):
    return subprocess.run(
        [sys.executable, "-m", "tunnel", *map(str, arguments)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        umask=0,  # the most careless of users
    )


def test_every_file_with_a_secret_is_for_its_owner_only(tmp_path):
    for arguments in (
        ("init", "pair", "--server", "127.0.0.1"),
        ("template", "server", "-o", "server.toml"),
        ("template", "client", "-o", "client.toml"),
        ("cert", "--key-out", "own-key.pem", "--cert-out", "own-cert.pem"),
    ):
        result = tunnel_command(*arguments, directory=tmp_path)
        assert result.returncode == 0, result.stderr
    secret = 0
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        text = path.read_text()
        if "PRIVATE KEY" in text or "ttk1_" in text:
            secret += 1
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert secret >= 6


def test_what_a_server_keeps_is_for_its_owner_only(tmp_path):
    state = tmp_path / "state"
    before = os.umask(0)
    try:
        with store.own_certificate(state) as path:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
        store.client_id(state, tmp_path / "client.toml")
    finally:
        os.umask(before)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()}
    assert len(modes) == 2
    assert set(modes.values()) == {0o600}


def test_only_the_fingerprint_of_an_own_certificate_is_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with store.own_certificate(tmp_path) as path:
        body = path.read_text().splitlines()[1]
    assert body not in caplog.text
