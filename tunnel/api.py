"""Composition for programs: from a configuration to a running server or client."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import trio

from tunnel import store
from tunnel.certificates import spki_pin
from tunnel.client.dial import Dialler
from tunnel.client.handler import HandledProxy, Handler
from tunnel.client.proxy import LocalProxy
from tunnel.client.session import Client
from tunnel.client.settings import ClientSettings, ProxySpec
from tunnel.client.visit_auth import visit_keys
from tunnel.client.visit_port import make_visit_port
from tunnel.config import ClientConfig, IdentityConfig, ProxyConfig, ServerConfig
from tunnel.errors import ConfigError, Fault, TunnelError
from tunnel.eventlog import logged_events
from tunnel.events import SERVER_EVENTS, Event, EventStream, ServerEvent, Subscriber
from tunnel.model import Address, name_fault
from tunnel.net.contexts import client_context
from tunnel.net.listen import open_listeners
from tunnel.net.transport import own_address
from tunnel.ops.audit import Writer, open_audit
from tunnel.ops.port_owner import cannot_listen
from tunnel.programs import ClientProgram, ServerProgram, asked_for, observed
from tunnel.protocol.keys import ClientKeys, Verifier, derive, generate_key
from tunnel.server import run as server_run
from tunnel.server.admission import Judge
from tunnel.server.certificate import CertificateFiles, CertificateKeeper
from tunnel.server.identity import Identities, Identity
from tunnel.server.ratelimit import Rate
from tunnel.server.rules import Rules
from tunnel.server.state import Policy, Server
from tunnel.views import Arrival, ClientHandle, ServerHandle

logger = logging.getLogger(__name__)


async def run_server(
    config: ServerConfig,
    *,
    source: Path | None = None,
    allow: Callable[[Arrival], str | None] | None = None,
    tell: Callable[[ServerEvent], None] = lambda _event: None,
    task_status: trio.TaskStatus[ServerHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a server until it is drained or cancelled; every port is free when it returns.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to; without one, the working directory is.
      allow: asked for every visitor, after all other checks; a text turns him away, and is the
        reason. It must not wait.
      tell: told what happens: who comes and goes, what is published. It must not wait.
      task_status: told a `ServerHandle` when clients can connect.

    Raises:
      TunnelError: it could not start; says why and what to do.
    """
    with asked_for(config, source) as stats, _audit(config, source) as audit:
        events = logged_events(telling(tell))
        server, listeners, certificate = make_server(
            config, source, stats.listeners, events=events, judge=allow
        )
        run = functools.partial(server_run.run_server, server, listeners, certificate=certificate)
        program = ServerProgram(server, certificate, tuple(map(own_address, listeners)))
        if audit is None:
            await observed(run, program, stats, task_status)
            return
        with events.subscribed(audit.put, visitors=True):
            run = functools.partial(audit.beside, run)
            await observed(run, program, stats, task_status)


def telling(tell: Callable[[ServerEvent], None]) -> Subscriber:
    """A subscriber that passes on what the library tells."""

    def subscriber(event: Event) -> None:
        if isinstance(event, SERVER_EVENTS):
            tell(event)

    return subscriber


async def run_client(
    config: ClientConfig,
    *,
    source: Path | None = None,
    task_status: trio.TaskStatus[ClientHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a client until it is cancelled, reconnecting for ever.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to, and which tells this client from others;
        without one they are relative to the working directory, and the client is a new one.
      task_status: told a `ClientHandle` at once; wait for its `state` to be connected.

    Raises:
      TunnelError: it could not start; says why and what to do.
    """
    client = make_client(config, source)
    await run_made_client(client, config, source=source, task_status=task_status)


async def run_made_client(
    client: Client,
    config: ClientConfig,
    *,
    source: Path | None,
    task_status: trio.TaskStatus[ClientHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The same for whoever has something to do with the client itself, which `make_client` made.

    Raises:
      TunnelError: it could not start; or why it ended, if `Client.gives_up` says so.
    """
    with asked_for(config, source) as stats, _audit(config, source) as audit:
        program = ClientProgram(client)
        run: Callable[..., Awaitable[None]] = program.run
        if audit is None:
            await observed(run, program, stats, task_status)
            return
        audit.client = client.settings.name
        with client.events.subscribed(audit.put, visitors=True):
            run = functools.partial(audit.beside, run)
            await observed(run, program, stats, task_status)


async def change_server(
    handle: ServerHandle, config: ServerConfig, *, source: Path | None = None
) -> None:
    """Have a running server do what another configuration says, and read its certificate again.

    Every session goes on but those whose key is not known any more. If cancelled, nothing changes.

    Args:
      handle: of the server.
      config: what it says. What takes a restart (see `server_changes`) is not looked at.
      source: the file, as for `run_server`.

    Raises:
      TunnelError: it cannot be used; nothing has changed.
    """
    reserved = frozenset({address.port for address in handle.addresses} | {config.stats_port or 0})

    def prepare() -> Identities:
        return _identities(config, _verifiers(config, source), reserved)

    # To derive keys that people made up takes a tenth of a second each.
    identities = await trio.to_thread.run_sync(prepare)
    handle.change(_policy(config), identities)
    handle.reload()


async def change_client(
    handle: ClientHandle, config: ClientConfig, *, source: Path | None = None, anew: bool = False
) -> None:
    """Have a running client do what another configuration says; returns before it is all done.

    Proxies that are the same stay published, and every live connection goes on.

    Args:
      handle: of the client.
      config: what it says. What takes a restart (see `client_changes`) is not looked at.
      source: the file, as for `run_client`.
      anew: with a new connection to the server, which ends the one that lives.

    Raises:
      TunnelError: it cannot be used; nothing has changed.
    """
    other = await trio.to_thread.run_sync(make_client, config, source)
    handle.change(other, anew=anew)


# --- The server's parts -----------------------------------------------------------------------


def make_server(
    config: ServerConfig,
    source: Path | None,
    stats: Iterable[socket.socket] = (),
    *,
    events: EventStream,
    judge: Judge | None = None,
) -> tuple[Server, list[socket.socket], CertificateKeeper]:
    """A server that is not run yet, what it listens on already, and its certificate."""
    verifiers = _verifiers(config, source)
    certificate = _certificate(config, source, events)
    listeners = _listen(config)
    # Nobody may publish what the server itself listens on, on whatever address.
    reserved = {own_address(listener).port for listener in [*listeners, *stats]}
    # An unknown key is checked against one that nobody knows.
    dummy = derive(generate_key(secrets.token_bytes(32))).verifier
    identities = _identities(config, verifiers, frozenset(reserved))
    server = Server(
        _policy(config), certificate.shown, identities, dummy, events=events, judge=judge
    )
    return server, listeners, certificate


def _policy(config: ServerConfig) -> Policy:
    limit = config.rate_limit
    return Policy(
        handshake_timeout=config.handshake_timeout,
        keepalive_interval=config.keepalive_interval,
        keepalive_timeout=config.keepalive_timeout,
        shutdown_grace=config.shutdown_grace,
        max_unauthenticated=config.max_unauthenticated,
        max_connections_per_proxy=config.max_connections_per_proxy,
        max_connections_per_visitor=config.max_connections_per_visitor,
        rate=None if limit is None else Rate(limit.requests_per_second, limit.burst_size),
    )


def _verifiers(config: ServerConfig, source: Path | None) -> list[Verifier]:
    """What the server keeps of each key: of the one that all share, if it is there, comes first."""
    entries: dict[str, ServerConfig | IdentityConfig] = {}
    if config.auth_key is not None or config.auth_key_file is not None:
        entries["server"] = config
    entries |= {f"server.clients[{i}]": entry for i, entry in enumerate(config.clients)}
    places: dict[Verifier, str] = {}
    for place, entry in entries.items():
        try:
            other = places.setdefault(_verifier(entry, store.directory_of(source)), place)
        except TunnelError as error:
            raise _fault(source, place, str(error)) from error
        if other != place:
            message = f"{other} has the same key: give each client a key of its own"
            raise _fault(source, place, message)
    return list(places)


def _fault(source: Path | None, place: str, message: str) -> ConfigError:
    return ConfigError(str(source or "configuration"), [Fault(None, place, message)])


def _verifier(entry: ServerConfig | IdentityConfig, beside: Path) -> Verifier:
    if isinstance(entry, IdentityConfig) and entry.verifier is not None:
        return Verifier.from_text(entry.verifier)
    return _keys(entry, beside).verifier


def _identities(
    config: ServerConfig, verifiers: list[Verifier], reserved: frozenset[int]
) -> Identities:
    """What whoever has one of these keys may do."""
    shared = Rules(config.allow_ports, reserved, config.allow_publish_addrs)
    clients = [
        Identity(
            verifier,
            Rules(
                entry.allow_ports or shared.allow_ports,
                reserved,
                entry.allow_publish_addrs or shared.allow_addrs,
            ),
            entry.name,
            entry.max_proxies,
            entry.max_connections,
        )
        for entry, verifier in zip(reversed(config.clients), reversed(verifiers), strict=False)
    ]
    others = verifiers[: len(verifiers) - len(clients)]
    return Identities([*(Identity(verifier, shared) for verifier in others), *clients])


def _certificate(
    config: ServerConfig, source: Path | None, events: EventStream
) -> CertificateKeeper:
    """The certificate to show, from the files that are configured, or one of its own.

    A server of another program, without a file and `state_dir`, keeps nothing on the disk.
    """
    beside = store.directory_of(source)
    client_ca = _path(config.client_ca_path, beside)
    cert, key = _path(config.cert_path, beside), _path(config.key_path, beside)
    if cert is not None and key is not None:
        return CertificateKeeper(CertificateFiles(cert, key, client_ca=client_ca), events=events)
    with contextlib.ExitStack() as stack:
        if source is None and config.state_dir is None:
            state_dir = None
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            environ = os.environ
            place = store.state_directory(config.state_dir, beside=beside, environ=environ)
            state_dir = place
        path = stack.enter_context(store.own_certificate(place))
        kept = path.parent == state_dir
        files = CertificateFiles(path, path, True, kept, client_ca)
        return CertificateKeeper(files, events=events)


def _listen(config: ServerConfig) -> list[socket.socket]:
    try:
        return open_listeners(config.bind_addr, config.bind_port)
    except OSError as error:
        place = Address(config.bind_addr, config.bind_port)
        raise TunnelError(cannot_listen(error, place)) from error


# --- The client's parts -----------------------------------------------------------------------


def make_client(config: ClientConfig, source: Path | None) -> Client:
    """A client that is not run yet. Deriving a key that people made up takes a tenth of a second.

    Raises:
      TunnelError: it cannot be used; says why and what to do.
    """
    beside = store.directory_of(source)
    of_proxies, of_visitors = visit_keys(config, source)
    return Client(
        ClientSettings(
            _dialler(config, beside),
            _keys(config, beside),
            config.name or _host_name(),
            connect_timeout=config.connect_timeout,
            reconnect_delay=config.reconnect_delay,
            reconnect_max_delay=config.reconnect_max_delay,
            keepalive_interval=config.keepalive_interval,
            keepalive_timeout=config.keepalive_timeout,
        ),
        config.client_id or _client_id(config, source),
        tuple(
            make_proxy(proxy, config, key=key)
            for proxy, key in zip(config.proxies, of_proxies, strict=True)
        ),
        visit_ports=tuple(map(make_visit_port, config.visitors, of_visitors)),
    )


def _client_id(config: ClientConfig, source: Path | None) -> str:
    if source is None:
        return secrets.token_hex(16)
    beside = store.directory_of(source)
    state_dir = store.state_directory(config.state_dir, beside=beside, environ=os.environ)
    return store.client_id(state_dir, source)


def _host_name() -> str:
    """What a client is called that was given no name."""
    name = socket.gethostname()
    return "client" if name_fault(name) else name


def _dialler(config: ClientConfig, beside: Path) -> Dialler:
    ca_path = _path(config.ca_cert_path, beside)
    cert, key = _path(config.cert_path, beside), _path(config.key_path, beside)
    pinned = bool(config.pin)
    context = client_context(
        ca_path=ca_path,
        verify=not config.skip_verify and (not pinned or ca_path is not None),
        check_hostname=not pinned,
        own=None if cert is None or key is None else (cert, key),
    )
    servers = tuple(Address(host, config.server_port) for host in config.server_addr)
    return Dialler(servers, context, frozenset(config.pin), spki_pin, config.connect_timeout)


def make_proxy(
    proxy: ProxyConfig,
    config: ClientConfig,
    handler: Handler | None = None,
    *,
    key: bytes | None = None,
) -> LocalProxy:
    """A proxy that is not published yet; `handler` is in the place of a local service.

    `key` is that of its `visitor_secret`.
    """
    place = proxy.name, proxy.publish_addr, proxy.publish_port
    if handler is not None:
        return HandledProxy(ProxySpec(*place, "", 0, allow_from=proxy.allow_from), handler=handler)
    return LocalProxy(
        ProxySpec(
            *place,
            proxy.local_addr,
            proxy.local_port or 0,
            proxy.proxy_protocol,
            proxy.allow_from,
            visitors_only=proxy.visitors_only,
            allow_visitors=proxy.allow_visitors,
            visit_key=key,
            retries=config.local_connect_retries,
            retry_delay=config.local_retry_delay,
        )
    )


# --- Both -------------------------------------------------------------------------------------


def shared_key(config: ServerConfig, source: Path | None) -> str | None:
    """The key that all clients of a server share, if there is one.

    Raises:
      StoreError: it is in a file that cannot be read.
    """
    if config.auth_key is None and config.auth_key_file is None:
        return None
    return _key(config, store.directory_of(source))


def _key(config: ServerConfig | ClientConfig | IdentityConfig, beside: Path) -> str:
    if config.auth_key is not None:
        return config.auth_key
    return store.read_auth_key(store.resolve(config.auth_key_file or "", beside=beside))


def _keys(config: ServerConfig | ClientConfig | IdentityConfig, beside: Path) -> ClientKeys:
    return derive(_key(config, beside))


def _path(named: str | None, beside: Path) -> Path | None:
    return None if named is None else store.resolve(named, beside=beside)


def _audit(
    config: ServerConfig | ClientConfig, source: Path | None
) -> contextlib.AbstractContextManager[Writer | None]:
    return open_audit(config.audit_log, beside=store.directory_of(source))
