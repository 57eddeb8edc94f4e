"""Every key of both configurations is changed in a running program, and its new value seen at work.

Or it is announced as one that takes a restart. The keys are those of the tables of `tunnel.config`:
one that is added there fails here until it is covered.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import socket
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trustme

from tests.e2e.rig import Wire
from tests.rig import echo, is_free, own_host, read_all, visit
from tunnel.api import change_client, change_server, run_client, run_server
from tunnel.config import (
    ClientConfig,
    IdentityConfig,
    ProxyConfig,
    RateLimit,
    ServerConfig,
    VisitorConfig,
)
from tunnel.config.changes import client_changes, in_force, server_changes
from tunnel.model import Address, PortRange
from tunnel.protocol.keys import derive, generate_key
from tunnel.views import ClientState

HERE = "127.0.0.1"
KEY, OFFICE, HOME, NEW = (generate_key(letter * 32) for letter in (b"k", b"o", b"h", b"n"))
SECRET, OTHER_SECRET = (generate_key(letter * 32) for letter in (b"s", b"t"))
NEVER, SOON = 3600.0, 0.2
#: Real seconds; what is waited for takes much less, and never came if the key was forgotten.
PATIENCE = 20


async def shout(stream):
    """A service that is told apart from an echo."""
    async for data in stream:
        await stream.send_all(data.upper())
    await stream.send_eof()


async def says_nothing(_stream):
    await trio.sleep_forever()


async def until(condition):
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110  # many things are waited for
            await trio.sleep(0.01)


async def speak(address):
    """What comes back; nothing if the visitor is refused, or there is no port."""
    try:
        async with await visit(address) as stream:
            await stream.send_all(b"hello")
            await stream.send_eof()
            return await read_all(stream)
    except (OSError, trio.BrokenResourceError):
        return b""


async def answers(address, expected):
    """Wait until this comes back from there."""
    with trio.fail_after(PATIENCE):
        while await speak(address) != expected:  # noqa: ASYNC110  # the same
            await trio.sleep(0.02)


async def is_closed(stream):
    """Wait until the other end has ended a connection."""
    with trio.fail_after(PATIENCE):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


def free_port(host=HERE):
    with socket.socket() as sock:
        sock.bind((host, 0))
        return sock.getsockname()[1]


class Program:
    """A running server or client, its configuration, and how `reload` changes it."""

    def __init__(self, handle, config, source, scope):
        self.handle, self.config, self.source, self.scope = handle, config, source, scope

    async def change(self, **keys):
        """Have it do what the configuration with these keys says."""
        new = attrs.evolve(self.config, **keys)
        if isinstance(new, ServerConfig):
            new = in_force(self.config, new, server_changes(self.config, new))
            await change_server(self.handle, new, source=self.source)
        else:
            changes = client_changes(self.config, new)
            new = in_force(self.config, new, changes)
            anew = bool(changes.anew)
            await change_client(self.handle, new, source=self.source, anew=anew)
        self.config = new

    async def change_proxy(self, **keys):
        [proxy] = self.config.proxies
        await self.change(proxies=(attrs.evolve(proxy, **keys),))

    async def change_visitor(self, **keys):
        [visitor] = self.config.visitors
        await self.change(visitors=(attrs.evolve(visitor, **keys),))

    async def change_identity(self, **keys):
        [entry] = self.config.clients
        await self.change(clients=(attrs.evolve(entry, **keys),))

    async def is_refused(self):
        """Wait until an attempt has failed. (The first one after a change comes at once.)"""
        with trio.fail_after(PATIENCE):
            await self.handle.state.wait_value(ClientState.WAITING)

    def addresses(self):
        return {it.name: it.addresses[0] for it in self.handle.statistics() if it.addresses}

    async def address(self, name="web"):
        await until(lambda: name in self.addresses())
        return self.addresses()[name]

    def names(self):
        return {session.name for session in self.handle.statistics()}


class There:
    """A place where servers, clients and services run."""

    def __init__(self, nursery, directory, caplog):
        self.nursery, self.directory, self.caplog = nursery, directory, caplog
        self.server: Program

    async def run(self, run, config, source):
        scope = trio.CancelScope()

        async def life(task_status):
            with scope:
                await run(config, source=source, task_status=task_status)

        return Program(await self.nursery.start(life), config, source, scope)

    async def serve(self, **keys):
        own = {"bind_addr": HERE, "bind_port": 0, "auth_key": KEY, "cert_path": "cert.pem"}
        own |= {"key_path": "key.pem"}
        config = ServerConfig(**own | keys)
        self.server = await self.run(run_server, config, self.directory / "server.toml")
        self.port = self.server.handle.addresses[0].port
        return self.server

    async def client(self, *, connects=True, **keys):
        own = {"server_addr": (HERE,), "server_port": self.port, "skip_verify": True}
        own |= {"auth_key": KEY, "name": "one", "client_id": os.urandom(16).hex()}
        config = ClientConfig(**own | keys)
        program = await self.run(run_client, config, self.directory / "client.toml")
        if connects:
            with trio.fail_after(PATIENCE):
                await program.handle.state.wait_value(ClientState.CONNECTED)
        return program

    async def publishing(self, client=(), **keys):
        """A client with one proxy, in front of an echo."""
        return await self.client(proxies=(await self.proxy(**keys),), **dict(client))

    async def proxy(self, **keys):
        own = {"name": "web", "publish_addr": HERE, "publish_port": 0}
        port = keys.get("local_port") or await self.service()
        return ProxyConfig(**own | keys | {"local_port": port})

    async def visiting(self, client=(), **keys):
        """A client with one local port that leads to a proxy."""
        own = {"name": "web", "bind_addr": HERE, "bind_port": free_port()}
        return await self.client(visitors=(VisitorConfig(**own | keys),), **dict(client))

    async def service(self, handler=echo, host=HERE, port=0):
        serve = functools.partial(trio.serve_tcp, handler, port, host=host)
        listeners = await self.nursery.start(serve)
        return listeners[0].socket.getsockname()[1]

    async def wire(self):
        wire = Wire(Address(HERE, self.port))
        await self.nursery.start(wire.run)
        return wire

    def lines(self, event):
        return [it for it in self.caplog.records if it.getMessage().startswith(event)]


@pytest.fixture
def directory(certificate, tmp_path):
    for name in ("cert.pem", "key.pem", "ca.pem"):
        shutil.copy(certificate / name, tmp_path)
    for name, key in (("k", KEY), ("office", OFFICE), ("new", NEW), ("s", SECRET)):
        (tmp_path / f"{name}.key").write_text(key + "\n")
        (tmp_path / f"{name}.key").chmod(0o600)
    (tmp_path / "t.key").write_text(OTHER_SECRET + "\n")
    (tmp_path / "t.key").chmod(0o600)
    for name in ("good", "bad"):
        ca = trustme.CA()
        issued = ca.issue_cert("client@example.com")
        ca.cert_pem.write_to_path(str(tmp_path / f"{name}-ca.pem"))
        issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    return tmp_path


@asynccontextmanager
async def place(directory, caplog):
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        yield There(nursery, directory, caplog)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def there(directory, caplog):
    async with place(directory, caplog) as there:
        yield there


class Covered:
    """How the keys of a table are covered: by a function each, or as ones that take a restart."""

    def __init__(self, table):
        self.table = table
        self.scenarios = {}
        self.restart = {}

    def __call__(self, *keys):
        def remember(scenario):
            assert not set(keys) & set(self.scenarios)
            self.scenarios |= dict.fromkeys(keys, scenario)
            return scenario

        return remember

    @property
    def names(self):
        return [field.name for field in attrs.fields(self.table)]


client, proxy, visitor = map(Covered, (ClientConfig, ProxyConfig, VisitorConfig))
server, identity, rate = map(Covered, (ServerConfig, IdentityConfig, RateLimit))
client.restart = {
    "client_id": "f" * 32,
    "state_dir": "elsewhere",
}
server.restart = {
    "bind_addr": "127.0.0.2",
    "bind_port": 1,
    "cert_path": "other.pem",
    "key_path": "other-key.pem",
    "client_ca_path": "ca.pem",
    "state_dir": "elsewhere",
}
_OBSERVED = {
    "stats_port": 9090,
    "stats_addr": "127.0.0.2",
    "stats_token": "another-token-of-some-length",
    "stats_token_file": "token",
    "stats_hosts": ("stats.example.com",),
    "watch": True,
    "audit_log": "audit.jsonl",
}
client.restart |= _OBSERVED
server.restart |= _OBSERVED


def cases():
    for covered in (client, proxy, visitor, server, identity, rate):
        for name in covered.names:
            yield pytest.param(covered, name, id=f"{covered.table.__name__}.{name}")


@pytest.mark.parametrize(("covered", "key"), list(cases()))
async def test_every_key_is_taken_over_or_announced(there, covered, key):
    if key in covered.restart:
        is_announced(covered.table, key, covered.restart[key])
        return
    assert key in covered.scenarios, f"nobody has said how a running program takes {key} over"
    with trio.fail_after(3 * PATIENCE):
        await covered.scenarios[key](there)


def is_announced(table, key, value):
    """`reload --plan` says that the key takes a restart, and `reload` leaves it as it is."""
    if table is ServerConfig:
        former, look = ServerConfig(auth_key=KEY), server_changes
    else:
        former, look = ClientConfig(server_addr=(HERE,), auth_key=KEY), client_changes
    new = attrs.evolve(former, **{key: value})
    changes = look(former, new)
    assert attrs.asdict(changes) == attrs.asdict(type(changes)(restart=(key,)))
    assert in_force(former, new, changes) == former


# --- [client] ---------------------------------------------------------------------------------


@client("server_addr")
async def _another_address(there):
    one = await there.serve()
    program = await there.client()
    host = own_host()
    other = await there.serve(bind_addr=host, bind_port=there.port)
    await program.change(server_addr=(host,))
    await until(lambda: other.names() == {"one"} and not one.names())


@client("server_port")
async def _another_port(there):
    one = await there.serve()
    program = await there.client()
    other = await there.serve()
    await program.change(server_port=there.port)
    await until(lambda: other.names() == {"one"} and not one.names())


@client("auth_key")
async def _another_key(there):
    await there.serve(clients=(IdentityConfig(name="office", auth_key=OFFICE),))
    program = await there.client()
    await program.change(auth_key=OFFICE)
    await until(lambda: there.server.names() == {"office"})


@client("auth_key_file")
async def _another_key_file(there):
    await there.serve(clients=(IdentityConfig(name="office", auth_key=OFFICE),))
    program = await there.client(auth_key=None, auth_key_file="k.key")
    await program.change(auth_key_file="office.key")
    await until(lambda: there.server.names() == {"office"})


@client("pin")
async def _another_pin(there):
    await there.serve()
    program = await there.client(skip_verify=False, pin=(there.server.handle.pin,))
    await program.change(pin=("sha256:" + "0" * 64,))
    await program.is_refused()
    assert "0" * 64 in there.lines("Connection lost")[-1].reason


@client("ca_cert_path")
async def _another_authority(there):
    await there.serve()
    program = await there.client(
        server_addr=("localhost",), skip_verify=False, ca_cert_path="ca.pem"
    )
    await program.change(ca_cert_path="good-ca.pem")
    await program.is_refused()


@client("skip_verify")
async def _verify(there):
    await there.serve()
    program = await there.client()
    await program.change(skip_verify=False)
    await program.is_refused()


@client("cert_path", "key_path")
async def _another_certificate(there):
    await there.serve(client_ca_path="good-ca.pem")
    program = await there.client(cert_path="good.pem", key_path="good.pem")
    await program.change(cert_path="bad.pem", key_path="bad.pem")
    await program.is_refused()


@client("name")
async def _another_name(there):
    await there.serve()
    program = await there.client()
    await program.change(name="two")
    await until(lambda: there.server.names() == {"two"})


@client("connect_timeout")
async def _connect_timeout(there):
    there.port = await there.service(says_nothing)
    program = await there.client(connects=False, connect_timeout=SOON, reconnect_delay=SOON)
    await until(lambda: there.lines("Connection lost"))
    await program.change(connect_timeout=1.0)
    there.caplog.clear()
    await until(lambda: len(there.lines("Connection lost")) > 1)
    took = there.lines("Connection lost")[-1].created - there.lines("Connecting")[-1].created
    assert took > 0.9


async def _waits(there, **keys):
    """A client whose server is not there; forgets what was logged."""
    there.port = free_port()
    program = await there.client(connects=False, **keys)
    await until(lambda: there.lines("Reconnecting"))
    return program


@client("reconnect_delay")
async def _reconnect_delay(there):
    program = await _waits(there, reconnect_delay=0.1, reconnect_max_delay=0.1)
    await program.change(reconnect_delay=0.25, reconnect_max_delay=0.25)
    await until(lambda: there.lines("Reconnecting in 0.25 seconds"))


@client("reconnect_max_delay")
async def _reconnect_max_delay(there):
    program = await _waits(there, reconnect_delay=0.1, reconnect_max_delay=0.1)
    await program.change(reconnect_max_delay=0.3)
    await until(lambda: there.lines("Reconnecting")[-1].getMessage() > "Reconnecting in 0.101")


@client("keepalive_interval", "keepalive_timeout")
async def _client_keepalive(there):
    await there.serve(keepalive_interval=NEVER)
    wire = await there.wire()
    for soon, long in (("interval", "timeout"), ("timeout", "interval")):
        keys = {f"keepalive_{soon}": NEVER, f"keepalive_{long}": SOON}
        program = await there.client(server_port=wire.port, **keys)
        await program.change(**{f"keepalive_{soon}": SOON})
        await until(lambda: len(there.lines("Connected")) == 2)
        wire.freeze()
        there.caplog.clear()
        await until(lambda: there.lines("Connection lost"))
        assert there.lines("Connection lost")[0].reason == "no sign of life"
        program.scope.cancel()
        there.caplog.clear()


async def _refusing(there, **keys):
    """A client with a proxy whose service refuses; gives how long a visitor waits to hear of it."""
    await there.serve()
    program = await there.publishing(keys, local_port=free_port())
    address = await program.address()

    async def wait():
        began = trio.current_time()
        assert await speak(address) == b""
        return trio.current_time() - began

    await wait()
    return program, wait


@client("local_connect_retries")
async def _retries(there):
    program, wait = await _refusing(there, local_connect_retries=0, local_retry_delay_ms=100)
    await program.change(local_connect_retries=4)
    assert await wait() > 0.35


@client("local_retry_delay_ms")
async def _retry_delay(there):
    program, wait = await _refusing(there, local_connect_retries=1, local_retry_delay_ms=1)
    await program.change(local_retry_delay_ms=400)
    assert await wait() > 0.35


@client("proxies")
async def _another_proxy(there):
    await there.serve()
    program = await there.client()
    await program.change(proxies=(await there.proxy(),))
    await answers(await program.address(), b"hello")


@client("visitors")
async def _another_visitor(there):
    await there.serve()
    await there.publishing(publish_addr="*")
    program = await there.client()
    port = free_port()
    await program.change(visitors=(VisitorConfig(name="web", bind_port=port),))
    await answers(Address(HERE, port), b"hello")


# --- [[proxies]] ------------------------------------------------------------------------------


@proxy("name")
async def _another_proxy_name(there):
    await there.serve()
    program = await there.publishing()
    await program.change_proxy(name="shop")
    await answers(await program.address("shop"), b"hello")
    [session] = there.server.handle.statistics()
    assert [it.name for it in session.proxies] == ["shop"]


@proxy("publish_addr")
async def _another_published_address(there):
    await there.serve()
    program = await there.publishing()
    host = own_host()
    await program.change_proxy(publish_addr=host)
    await until(lambda: any(it.host == host for it in program.addresses().values()))
    await answers(await program.address(), b"hello")


@proxy("publish_port")
async def _another_published_port(there):
    await there.serve()
    program = await there.publishing()
    former, port = await program.address(), free_port()
    await program.change_proxy(publish_port=port)
    await answers(Address(HERE, port), b"hello")
    await until(lambda: is_free(former))


@proxy("local_addr")
async def _another_local_address(there):
    await there.serve()
    host, port = own_host(), await there.service()
    await there.service(shout, host, port)
    program = await there.publishing(local_port=port)
    await program.change_proxy(local_addr=host)
    await answers(await program.address(), b"HELLO")


@proxy("local_port")
async def _another_local_port(there):
    await there.serve()
    program = await there.publishing()
    await program.change_proxy(local_port=await there.service(shout))
    await answers(await program.address(), b"HELLO")


@proxy("proxy_type")
async def _proxy_type(there):
    """It makes no difference, and says so."""
    await there.serve()
    program = await there.publishing()
    address = await program.address()
    await program.change_proxy(proxy_type="ssh")
    await answers(address, b"hello")


@proxy("proxy_protocol")
async def _proxy_protocol(there):
    await there.serve()
    program = await there.publishing()
    await program.change_proxy(proxy_protocol="v1")
    address = await program.address()
    with trio.fail_after(PATIENCE):
        while not (await speak(address)).startswith(b"PROXY"):  # noqa: ASYNC110
            await trio.sleep(0.01)


@proxy("allow_from")
async def _allow_from(there):
    await there.serve()
    program = await there.publishing(allow_from=("192.0.2.0/24",))
    address = await program.address()
    assert await speak(address) == b""
    await program.change_proxy(allow_from=(f"{HERE}/32",))
    await answers(address, b"hello")


@proxy("visitors_only")
async def _visitors_only(there):
    await there.serve()
    program = await there.publishing()
    address = await program.address()
    await program.change_proxy(visitors_only=True)
    await until(lambda: is_free(address) and not program.addresses())


@asynccontextmanager
async def _one_that_visits(there, owner, **keys):
    """A proxy, and another client, `office`, that visits it."""
    await there.serve(clients=(IdentityConfig(name="office", auth_key=OFFICE),))
    program = await there.publishing(**owner, visitors_only=True)
    other = await there.visiting({"auth_key": OFFICE}, **keys)
    yield program, other, Address(HERE, other.config.visitors[0].bind_port)


@proxy("allow_visitors")
async def _allow_visitors(there):
    async with _one_that_visits(there, {"allow_visitors": ("home",)}) as (program, _, address):
        await answers(address, b"")
        await program.change_proxy(allow_visitors=("office",))
        await answers(address, b"hello")


@proxy("visitor_secret")
async def _secret_of_a_proxy(there):
    owner = {"visitor_secret": SECRET}
    async with _one_that_visits(there, owner, visitor_secret=OTHER_SECRET) as (program, _, address):
        await answers(address, b"")
        await program.change_proxy(visitor_secret=OTHER_SECRET)
        await answers(address, b"hello")


@proxy("visitor_secret_file")
async def _secret_file_of_a_proxy(there):
    owner = {"visitor_secret_file": "s.key"}
    async with _one_that_visits(there, owner, visitor_secret=OTHER_SECRET) as (program, _, address):
        await answers(address, b"")
        await program.change_proxy(visitor_secret_file="t.key")
        await answers(address, b"hello")


# --- [[visitors]] -----------------------------------------------------------------------------


async def _two_owners(there, **keys):
    """Two proxies, the second in front of another service, and a client that visits the first."""
    await there.serve(
        clients=(
            IdentityConfig(name="office", auth_key=OFFICE),
            IdentityConfig(name="home", auth_key=HOME),
        )
    )
    one = {"publish_port": 1, "visitors_only": True}
    await there.publishing({"auth_key": OFFICE}, **one)
    other = {"publish_port": 2, "local_port": await there.service(shout), "visitors_only": True}
    await there.publishing({"auth_key": HOME}, **other | keys)


@visitor("name")
async def _another_target(there):
    await _two_owners(there, name="shop")
    program = await there.visiting(name="web")
    address = Address(HERE, program.config.visitors[0].bind_port)
    await answers(address, b"hello")
    await program.change_visitor(name="shop")
    await answers(address, b"HELLO")


@visitor("publish_port")
async def _another_targets_port(there):
    await _two_owners(there)
    program = await there.visiting(publish_port=1)
    address = Address(HERE, program.config.visitors[0].bind_port)
    await answers(address, b"hello")
    await program.change_visitor(publish_port=2)
    await answers(address, b"HELLO")


@visitor("owner")
async def _another_owner(there):
    await _two_owners(there, name="shop")
    program = await there.visiting(owner="home")
    address = Address(HERE, program.config.visitors[0].bind_port)
    await answers(address, b"")
    await program.change_visitor(owner="office")
    await answers(address, b"hello")


@visitor("bind_addr")
async def _another_bound_address(there):
    await _two_owners(there, name="shop")
    program = await there.visiting()
    host = own_host()
    await program.change_visitor(bind_addr=host)
    await answers(Address(host, program.config.visitors[0].bind_port), b"hello")


@visitor("bind_port")
async def _another_bound_port(there):
    await _two_owners(there, name="shop")
    program = await there.visiting()
    former, port = Address(HERE, program.config.visitors[0].bind_port), free_port()
    await program.change_visitor(bind_port=port)
    await answers(Address(HERE, port), b"hello")
    assert is_free(former)


@visitor("visitor_secret")
async def _secret_of_a_visitor(there):
    owner = {"visitor_secret": SECRET}
    async with _one_that_visits(there, owner, visitor_secret=OTHER_SECRET) as (_, other, address):
        await answers(address, b"")
        await other.change_visitor(visitor_secret=SECRET)
        await answers(address, b"hello")


@visitor("visitor_secret_file")
async def _secret_file_of_a_visitor(there):
    owner = {"visitor_secret": SECRET}
    async with _one_that_visits(there, owner, visitor_secret_file="t.key") as (_, other, address):
        await answers(address, b"")
        await other.change_visitor(visitor_secret_file="s.key")
        await answers(address, b"hello")


@visitor("proxy_type")
async def _type_of_a_visitor(there):
    """It makes no difference."""
    async with _one_that_visits(there, {}) as (_, other, address):
        await other.change_visitor(proxy_type="ssh")
        await answers(address, b"hello")


# --- [server] ---------------------------------------------------------------------------------


@server("auth_key")
async def _another_server_key(there):
    await there.serve()
    former = await there.client()
    await there.server.change(auth_key=NEW)
    await former.is_refused()
    await there.client(auth_key=NEW)


@server("auth_key_file")
async def _another_server_key_file(there):
    await there.serve(auth_key=None, auth_key_file="k.key")
    former = await there.client()
    await there.server.change(auth_key_file="new.key")
    await former.is_refused()
    await there.client(auth_key=NEW)


@server("allow_ports")
async def _allow_ports(there):
    await there.serve()
    port = free_port()
    program = await there.publishing(publish_port=port)
    await there.server.change(allow_ports=(PortRange(port + 1, port + 1),))
    await until(lambda: is_free(Address(HERE, port)) and not program.addresses())


@server("allow_publish_addrs")
async def _allow_addresses(there):
    await there.serve()
    program = await there.publishing()
    address = await program.address()
    await there.server.change(allow_publish_addrs=("127.0.0.2",))
    await until(lambda: is_free(address) and not program.addresses())


@server("handshake_timeout")
async def _handshake_timeout(there):
    await there.serve(handshake_timeout=NEVER)
    await there.server.change(handshake_timeout=SOON)
    async with await visit(Address(HERE, there.port)) as stream:
        await is_closed(stream)


@server("keepalive_interval", "keepalive_timeout")
async def _server_keepalive(there):
    for changed, other in (("interval", "timeout"), ("timeout", "interval")):
        keys = {f"keepalive_{changed}": NEVER, f"keepalive_{other}": SOON}
        await there.serve(**keys)
        wire = await there.wire()
        await there.server.change(**{f"keepalive_{changed}": SOON})
        await there.client(server_port=wire.port, keepalive_interval=NEVER)
        await until(there.server.names)
        before = len(there.lines("Client disconnected"))
        wire.freeze()
        await until(lambda n=before: there.lines("Client disconnected")[n:])
        assert there.lines("Client disconnected")[-1].reason == "no sign of life"


@server("shutdown_grace")
async def _shutdown_grace(there):
    await there.serve(shutdown_grace=NEVER)
    program = await there.publishing()
    async with await visit(await program.address()) as stream:
        await stream.send_all(b"x")
        await stream.receive_some()
        await there.server.change(shutdown_grace=SOON)
        there.server.handle.drain()
        await is_closed(stream)


@server("max_unauthenticated")
async def _max_unauthenticated(there):
    await there.serve()
    await there.server.change(max_unauthenticated=1)
    async with await visit(Address(HERE, there.port)) as one:
        async with await visit(Address(HERE, there.port)):
            await is_closed(one)


async def _only_one(there, address):
    """Wait until there is room for one visitor only."""
    async with await visit(address) as one:
        await one.send_all(b"x")
        assert await one.receive_some() == b"x"
        await answers(address, b"")


@server("max_connections_per_proxy")
async def _per_proxy(there):
    """It holds for proxies that are published from then on."""
    await there.serve()
    await there.server.change(max_connections_per_proxy=1)
    program = await there.publishing()
    await _only_one(there, await program.address())


@server("max_connections_per_visitor")
async def _per_visitor(there):
    await there.serve()
    program = await there.publishing()
    await there.server.change(max_connections_per_visitor=1)
    await _only_one(there, await program.address())


async def _turns_away(there):
    """Wait until one of many connections is turned away."""
    with trio.fail_after(PATIENCE):
        while not there.lines("Connection turned away"):
            with contextlib.suppress(OSError):  # the reset may come while it is connecting
                await (await visit(Address(HERE, there.port))).aclose()
            await trio.sleep(0.01)


@server("rate_limit")
async def _rate_limit(there):
    await there.serve()
    await there.server.change(rate_limit=RateLimit(requests_per_second=1, burst_size=1))
    await _turns_away(there)


@server("clients")
async def _another_client(there):
    await there.serve()
    await there.server.change(clients=(IdentityConfig(name="office", auth_key=OFFICE),))
    await there.client(auth_key=OFFICE)
    assert there.server.names() == {"office"}


# --- [server.rate_limit] ----------------------------------------------------------------------


@rate("burst_size")
async def _burst(there):
    await there.serve(rate_limit=RateLimit(requests_per_second=1, burst_size=10**6))
    await there.server.change(rate_limit=RateLimit(requests_per_second=1, burst_size=1))
    await _turns_away(there)


@rate("requests_per_second")
async def _rate(there):
    await there.serve(rate_limit=RateLimit(requests_per_second=10**6, burst_size=1))
    await there.server.change(rate_limit=RateLimit(requests_per_second=1, burst_size=1))
    await _turns_away(there)


# --- [[server.clients]] -----------------------------------------------------------------------


async def _office(there, client=(), **keys):
    """A server that knows one client, and that client with a proxy."""
    own = {"name": "office", "auth_key": OFFICE}
    await there.serve(clients=(IdentityConfig(**own | keys),))
    return await there.publishing({"auth_key": OFFICE} | dict(client))


@identity("name")
async def _another_identity_name(there):
    await _office(there)
    await there.server.change_identity(name="bureau")
    program = await there.client(auth_key=OFFICE)
    await until(lambda: "bureau" in there.server.names())
    program.scope.cancel()


@identity("auth_key")
async def _another_identity_key(there):
    former = await _office(there)
    await there.server.change_identity(auth_key=NEW)
    await former.is_refused()
    await there.client(auth_key=NEW)
    assert there.server.names() == {"office"}


@identity("auth_key_file")
async def _another_identity_key_file(there):
    former = await _office(there, auth_key=None, auth_key_file="office.key")
    await there.server.change_identity(auth_key_file="new.key")
    await former.is_refused()
    await there.client(auth_key=NEW)
    assert there.server.names() == {"office"}


@identity("verifier")
async def _another_verifier(there):
    keys = {"auth_key": None, "verifier": derive(OFFICE).verifier.to_text()}
    former = await _office(there, **keys)
    await there.server.change_identity(verifier=derive(NEW).verifier.to_text())
    await former.is_refused()
    await there.client(auth_key=NEW)
    assert there.server.names() == {"office"}


@identity("allow_ports")
async def _identity_allow_ports(there):
    program = await _office(there)
    address = await program.address()
    free = free_port()
    await there.server.change_identity(allow_ports=(PortRange(free, free),))
    await until(lambda: [it.port for it in program.addresses().values()] == [free])
    await until(lambda: is_free(address))


@identity("allow_publish_addrs")
async def _identity_allow_addresses(there):
    program = await _office(there)
    address = await program.address()
    await there.server.change_identity(allow_publish_addrs=("127.0.0.2",))
    await until(lambda: is_free(address) and not program.addresses())


@identity("max_proxies")
async def _max_proxies(there):
    program = await _office(there)
    await there.server.change_identity(max_proxies=1)
    await program.change(proxies=(*program.config.proxies, await there.proxy(name="more")))
    await until(lambda: there.lines("Proxy rejected"))
    assert list(program.addresses()) == ["web"]


@identity("max_connections")
async def _max_connections(there):
    program = await _office(there)
    await there.server.change_identity(max_connections=1)
    await _only_one(there, await program.address())
