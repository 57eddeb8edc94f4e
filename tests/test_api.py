"""From configurations to a running server and client: whose key it is, and what it allows."""

import logging
import os
import shutil
import socket

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.rig import own_host
from tunnel.api import change_server, run_client, run_server
from tunnel.config import load_client, load_server
from tunnel.errors import ConfigError, TunnelError
from tunnel.events import ClientConnected, ClientDisconnected, ProxyPublished
from tunnel.protocol.keys import derive, generate_key
from tunnel.views import ClientState

KEY = generate_key(b"k" * 32)
OTHER = generate_key(b"o" * 32)
VERIFIER = derive(KEY).verifier.to_text()
OWN_WORDS = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def files(certificate, tmp_path):
    for name in ("cert.pem", "key.pem", "ca.pem"):
        shutil.copy(certificate / name, tmp_path)
    for name, key in (("office.key", KEY), ("home.key", OTHER)):
        (tmp_path / name).write_text(key + "\n")
        os.chmod(tmp_path / name, 0o600)


def server_config(text):
    head = 'bind_addr = "127.0.0.1"\nbind_port = 0\ncert_path = "cert.pem"\nkey_path = "key.pem"\n'
    return load_server(f"[server]\n{head}{text}", source="server.toml", environ={}).value


def client_config(port, text):
    head = f'server_addr = "127.0.0.1"\nserver_port = {port}\nca_cert_path = "ca.pem"\n'
    head += 'state_dir = "state"\n'
    return load_client(f"[client]\n{head}{text}", source="client.toml", environ={}).value


def entry(name, *lines):
    return "\n".join(("[[server.clients]]", f'name = "{name}"', *lines, ""))


async def start(nursery, tmp_path, server, client):
    """Start both; returns their handles, the client connected."""
    source = tmp_path / "server.toml"
    handle = await nursery.start(
        lambda task_status: run_server(server, source=source, task_status=task_status)
    )
    config = client_config(handle.addresses[0].port, client)
    source = tmp_path / "client.toml"
    other = await nursery.start(
        lambda task_status: run_client(config, source=source, task_status=task_status)
    )
    with trio.fail_after(5):
        await other.state.wait_value(ClientState.CONNECTED)
    return handle, other


async def start_failure(tmp_path, text):
    with pytest.raises(TunnelError) as caught:
        await run_server(server_config(text), source=tmp_path / "server.toml")
    return caught.value


async def test_the_port_of_statistics_stays_reserved_on_a_reload(tmp_path, nursery, caplog):
    """Also if the system picked it, so that the configuration does not say which it is."""
    caplog.set_level(logging.INFO)
    server = server_config(f'auth_key = "{KEY}"\nstats_port = 0\n')
    source = tmp_path / "server.toml"
    handle = await nursery.start(
        lambda task_status: run_server(server, source=source, task_status=task_status)
    )
    [line] = [one for one in caplog.records if one.getMessage() == "Statistics served"]
    port = int(line.url.rstrip("/").rpartition(":")[2])
    await change_server(handle, server, source=source)
    web = f'[[proxies]]\nname = "web"\npublish_port = {port}\nlocal_port = 1\n'
    config = client_config(handle.addresses[0].port, f'auth_key = "{KEY}"\n{web}')
    source = tmp_path / "client.toml"
    await nursery.start(
        lambda task_status: run_client(config, source=source, task_status=task_status)
    )
    with trio.fail_after(20):
        while not (rejected := [it for it in caplog.records if it.message == "Proxy rejected"]):
            await wait_all_tasks_blocked(0.01)
    assert {it.code for it in rejected} == {"reserved"}
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "proof", [f'auth_key = "{KEY}"', 'auth_key_file = "office.key"', f'verifier = "{VERIFIER}"']
)
async def test_an_identity_from_the_file(tmp_path, proof, caplog):
    host = own_host()
    server = entry(
        "office",
        proof,
        "allow_ports = [7001, 7002, 7003]",
        f'allow_publish_addrs = "{host}"',
        "max_proxies = 1",
    )
    proxies = [("127.0.0.1", 7001), (host, 7004), (host, 7002), (host, 7003)]
    client = f'auth_key = "{KEY}"\n' + "".join(
        f'[[proxies]]\nname = "{number}"\npublish_addr = "{addr}"\npublish_port = {port}\n'
        'local_port = 1\nallow_from = "192.0.2.0/24"\n'
        for number, (addr, port) in enumerate(proxies)
    )
    async with trio.open_nursery() as nursery:
        handle, _client = await start(nursery, tmp_path, server_config(server), client)
        [session] = handle.statistics()
        assert session.name == "office"
        assert [one.name for one in session.proxies] == ["2"]
        reasons = [
            record.reason
            for record in caplog.records
            if record.getMessage() == "Proxy rejected" and record.name == "tunnel.server"
        ]
        assert reasons == [
            f"the server allows publish_addr {host}, not 127.0.0.1",
            "the server allows ports 7001, 7002, 7003, not 7004",
            "the server has max_proxies = 1 for office",
        ]
        with pytest.raises(OSError, match="failed"):
            async with await trio.open_tcp_stream(host, 7002) as visitor:
                try:
                    await visitor.receive_some()
                except trio.BrokenResourceError as error:
                    raise OSError("failed") from error
        nursery.cancel_scope.cancel()


async def test_the_shared_key_and_what_identities_take_from_it(tmp_path):
    server = f'auth_key = "{OTHER}"\nallow_ports = ["1-1023"]\nallow_publish_addrs = "::1"\n'
    server += entry("office", 'auth_key_file = "office.key"')
    client = f'auth_key = "{KEY}"\n[[proxies]]\nname = "a"\npublish_port = 7001\nlocal_port = 1\n'
    async with trio.open_nursery() as nursery:
        handle, _client = await start(nursery, tmp_path, server_config(server), client)
        [session] = handle.statistics()
        assert (session.name, session.proxies) == ("office", ())
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "name"), [("laptop", "laptop"), ("lap\ntop", "client"), ("", "client")]
)
async def test_a_client_without_a_name_is_called_as_its_host(tmp_path, monkeypatch, host, name):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    client = f'auth_key = "{KEY}"\n[[proxies]]\nname = "a"\npublish_port = 0\nlocal_port = 1\n'
    async with trio.open_nursery() as nursery:
        server = server_config(f'auth_key = "{KEY}"\n')
        handle, _client = await start(nursery, tmp_path, server, client)
        [session] = handle.statistics()
        assert session.name == name
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f'auth_key = "{KEY}"\n' + entry("a", f'verifier = "{VERIFIER}"'),
            "server.clients[0]: server has the same key: give each client a key of its own",
        ),
        (
            entry("a", f'verifier = "{VERIFIER}"') + entry("b", 'auth_key_file = "office.key"'),
            "server.clients[1]: server.clients[0] has the same key: "
            "give each client a key of its own",
        ),
    ],
)
async def test_the_same_key_twice_however_it_is_given(tmp_path, text, message):
    error = await start_failure(tmp_path, text)
    assert isinstance(error, ConfigError)
    assert str(error) == f"{tmp_path / 'server.toml'}: {message}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('auth_key_file = "missing.key"', "cannot read the key file"),
        (f'verifier = "{VERIFIER[:-1]}b"', "a verifier begins with ttv1_ and has a checksum"),
        (f'auth_key = "{KEY[:-1]}"', "the key begins with ttk1_ and its checksum is wrong"),
        (f'auth_key = "{VERIFIER}"', "is a verifier and no key"),
    ],
)
async def test_a_key_that_is_none_names_its_place(tmp_path, line, message):
    text = entry("a", 'auth_key_file = "home.key"') + entry("b", line)
    error = await start_failure(tmp_path, text)
    assert str(error).startswith(f"{tmp_path / 'server.toml'}: server.clients[1]: ")
    assert message in str(error)
    assert KEY not in str(error)
    assert VERIFIER not in str(error)


async def test_mutual_tls(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "client-ca.pem")
    issued = authority.issue_cert("office")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    issued.private_key_pem.write_to_path(tmp_path / "client-key.pem")
    server = 'client_ca_path = "client-ca.pem"\n' + entry("office", f'verifier = "{VERIFIER}"')
    client = f'auth_key = "{KEY}"\ncert_path = "client.pem"\nkey_path = "client-key.pem"\n'
    client += (
        '[[proxies]]\nname = "a"\npublish_addr = "127.0.0.1"\npublish_port = 0\nlocal_port = 1\n'
    )
    async with trio.open_nursery() as nursery:
        handle, _client = await start(nursery, tmp_path, server_config(server), client)
        assert [session.name for session in handle.statistics()] == ["office"]
        nursery.cancel_scope.cancel()


async def test_an_authority_that_is_none(tmp_path):
    (tmp_path / "client-ca.pem").write_text("nothing")
    error = await start_failure(tmp_path, f'auth_key = "{KEY}"\nclient_ca_path = "client-ca.pem"\n')
    assert "cannot read certificates from" in str(error)


async def test_a_key_of_ones_own_words(tmp_path):
    server = entry("office", f'verifier = "{derive(OWN_WORDS).verifier.to_text()}"')
    client = f'auth_key = "{OWN_WORDS}"\n'
    client += (
        '[[proxies]]\nname = "a"\npublish_addr = "127.0.0.1"\npublish_port = 0\nlocal_port = 1\n'
    )
    async with trio.open_nursery() as nursery:
        handle, _client = await start(nursery, tmp_path, server_config(server), client)
        assert [session.name for session in handle.statistics()] == ["office"]
        nursery.cancel_scope.cancel()


async def test_the_deprecated_tell_is_told(tmp_path):
    told, gone = [], trio.Event()

    def tell(event):
        told.append(type(event))
        if isinstance(event, ClientDisconnected):
            gone.set()

    config = server_config(f'auth_key = "{KEY}"')
    source = tmp_path / "server.toml"
    async with trio.open_nursery() as nursery:
        with pytest.warns(DeprecationWarning, match="events="):
            handle = await nursery.start(
                lambda task_status: run_server(
                    config, source=source, tell=tell, task_status=task_status
                )
            )
        text = f'auth_key = "{KEY}"\n[[proxies]]\nname = "web"\nlocal_port = 1\n'
        client = client_config(handle.addresses[0].port, f"{text}publish_port = 0")
        async with trio.open_nursery() as inner:
            link = await inner.start(
                lambda task_status: run_client(
                    client, source=tmp_path / "client.toml", task_status=task_status
                )
            )
            with trio.fail_after(5):
                await link.state.wait_value(ClientState.CONNECTED)
            inner.cancel_scope.cancel()
        with trio.fail_after(5):
            await gone.wait()
        nursery.cancel_scope.cancel()
    assert told[0] is ProxyPublished
    assert told[-1] is ClientDisconnected
    assert ClientConnected in told
