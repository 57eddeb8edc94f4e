"""From a configuration to objects: what a server and a client are made of.

Everything here makes, and nothing runs: `api` and the library run what was made. An object is given
all that it needs, and all that it tells its events to, when it is made; nothing is put in later.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import attrs
import trio

from tunnel import store
from tunnel.certificates import spki_pin
from tunnel.client.dial import Dialler, reach
from tunnel.client.handler import HandledProxy, Handler
from tunnel.client.proxy import LocalProxy
from tunnel.client.settings import ClientSettings, ProxySpec
from tunnel.client.state import Client
from tunnel.client.visit_port import VisitPort
from tunnel.config import ClientConfig, IdentityConfig, ProxyConfig, ServerConfig, VisitorConfig
from tunnel.errors import ConfigError, Fault, TunnelError
from tunnel.eventlog import logged_events
from tunnel.events import EventStream
from tunnel.model import Address, name_fault
from tunnel.net.contexts import client_context
from tunnel.net.listen import open_listeners
from tunnel.net.transport import Transport, own_address
from tunnel.ops.audit import AuditLog, open_audit
from tunnel.ops.port_owner import cannot_listen
from tunnel.protocol.join import Join
from tunnel.protocol.keys import ClientKeys, Verifier, derive, generate_key
from tunnel.protocol.proofs import visit_key
from tunnel.server.admission import Judge
from tunnel.server.certificate import CertificateFiles, CertificateKeeper
from tunnel.server.identity import Identities, Identity
from tunnel.server.policy import Policy
from tunnel.server.ratelimit import Rate
from tunnel.server.rules import Rules
from tunnel.server.state import Server

# --- The server -------------------------------------------------------------------------------


@attrs.frozen
class ServerParts:
    """A server that does not run yet.

    Args:
      server: what its sessions share.
      listeners: where clients will connect to; `server.run.run_server` closes them.
      certificate: what it shows, and where that comes from.
    """

    server: Server
    listeners: list[socket.socket]
    certificate: CertificateKeeper

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens."""
        return tuple(map(own_address, self.listeners))


def make_server(
    config: ServerConfig,
    source: Path | None,
    *,
    reserved: Iterable[socket.socket] = (),
    judge: Judge | None = None,
    events: EventStream | None = None,
) -> ServerParts:
    """A server that listens already, and does not run yet.

    A key that a person made up takes a tenth of a second.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to; without one, the working directory is.
      reserved: other listeners of this program, whose ports no client may publish.
      judge: asked for every visitor; see `Judge`.
      events: told what happens; without one, the log is.

    Raises:
      TunnelError: it cannot be used; says why and what to do. Nothing listens then.
    """
    events = logged_events() if events is None else events
    verifiers = _verifiers(config, source)
    certificate = _certificate(config, source, events)
    listeners = _listen(config)
    # What the program itself listens on is reserved on every address, not only on its own.
    ports = frozenset(own_address(listener).port for listener in [*listeners, *reserved])
    # An unknown key is checked as well, so that it takes as long: against a key that is made here.
    dummy = derive(generate_key(secrets.token_bytes(32))).verifier
    server = Server(
        make_policy(config),
        certificate.shown,
        _identities(config, verifiers, ports),
        dummy,
        events=events,
        judge=judge,
        reserved=ports,
    )
    return ServerParts(server, listeners, certificate)


def make_policy(config: ServerConfig) -> Policy:
    """What a server asks of every client."""
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


def make_identities(
    config: ServerConfig, source: Path | None, reserved: frozenset[int]
) -> Identities:
    """The keys that a server knows, and what each of them allows.

    A key that a person made up takes a tenth of a second.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.
      reserved: the ports that no client may publish.

    Raises:
      TunnelError: a key cannot be used; says which and why.
    """
    return _identities(config, _verifiers(config, source), reserved)


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


def _verifier(entry: ServerConfig | IdentityConfig, base: Path) -> Verifier:
    if isinstance(entry, IdentityConfig) and entry.verifier is not None:
        return Verifier.from_text(entry.verifier)
    return _keys(entry, base).verifier


def _identities(
    config: ServerConfig, verifiers: list[Verifier], reserved: frozenset[int]
) -> Identities:
    """What a client with one of these keys may do."""
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
        # From the end: before the clients' own there may be the one that all share.
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
    base = store.directory_of(source)
    client_ca = _path(config.client_ca_path, base)
    cert, key = _path(config.cert_path, base), _path(config.key_path, base)
    if cert is not None and key is not None:
        return CertificateKeeper(CertificateFiles(cert, key, client_ca=client_ca), events=events)
    with contextlib.ExitStack() as stack:
        if source is None and config.state_dir is None:
            state_dir = None
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            environ = os.environ
            place = store.state_directory(config.state_dir, base=base, environ=environ)
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


# --- The client -------------------------------------------------------------------------------


def make_client(
    config: ClientConfig,
    source: Path | None,
    *,
    events: EventStream | None = None,
    gives_up: Callable[[TunnelError], bool] = lambda _error: False,
    reach: Callable[[Address], Awaitable[Transport]] = reach,
) -> Client:
    """A client that does not run yet.

    A key or a secret that a person made up takes a tenth of a second.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to, and which tells this client from others;
        without one they are relative to the working directory, and the client is a new one.
      events: told what happens; without one, the log is.
      gives_up: asked after each attempt and each session why it ended; True ends the client with
        that error.
      reach: connects to a server's address; TLS runs over what it returns.

    Raises:
      TunnelError: it cannot be used; says why and what to do.
    """
    base = store.directory_of(source)
    of_proxies, of_visitors = visit_keys(config, source)
    return Client(
        ClientSettings(
            _dialler(config, base, reach),
            _keys(config, base),
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
        events=logged_events() if events is None else events,
        gives_up=gives_up,
    )


def joined_client(join: Join, name: str | None = None) -> ClientConfig:
    """The configuration that a join string stands for; it publishes nothing yet.

    Args:
      join: the server, and the key for it.
      name: what the server's logs call the client; the host's name if it is None.
    """
    return ClientConfig(
        server_addr=(join.host,),
        server_port=join.port,
        auth_key=join.key,
        pin=(join.pin,),
        name=name,
    )


def _client_id(config: ClientConfig, source: Path | None) -> str:
    if source is None:
        return secrets.token_hex(16)
    base = store.directory_of(source)
    state_dir = store.state_directory(config.state_dir, base=base, environ=os.environ)
    return store.client_id(state_dir, source)


def _host_name() -> str:
    """What a client is called that was given no name."""
    name = socket.gethostname()
    return "client" if name_fault(name) else name


def _dialler(
    config: ClientConfig, base: Path, reach: Callable[[Address], Awaitable[Transport]]
) -> Dialler:
    ca_path = _path(config.ca_cert_path, base)
    cert, key = _path(config.cert_path, base), _path(config.key_path, base)
    pinned = bool(config.pin)
    context = client_context(
        ca_path=ca_path,
        verify=not config.skip_verify and (not pinned or ca_path is not None),
        check_hostname=not pinned,
        own=None if cert is None or key is None else (cert, key),
    )
    servers = tuple(Address(host, config.server_port) for host in config.server_addr)
    pins = frozenset(config.pin)
    return Dialler(servers, context, pins, spki_pin, config.connect_timeout, reach)


def make_proxy(proxy: ProxyConfig, config: ClientConfig, *, key: bytes | None = None) -> LocalProxy:
    """A proxy that is not published yet.

    Args:
      proxy: what its table says.
      config: the client's configuration, which says how often to dial the service, and how fast.
      key: that of its `visitor_secret`; see `visit_keys`.
    """
    return LocalProxy(
        ProxySpec(
            proxy.name,
            proxy.publish_addr,
            proxy.publish_port,
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


def make_handled_proxy(
    proxy: ProxyConfig, handler: Handler, handlers: trio.Nursery
) -> HandledProxy:
    """A proxy with a handler in the place of a local service, that is not published yet.

    Args:
      proxy: what is to be published; what it says of a local service counts for nothing.
      handler: called for each visitor.
      handlers: where it runs.
    """
    place = proxy.name, proxy.publish_addr, proxy.publish_port
    spec = ProxySpec(*place, "", 0, allow_from=proxy.allow_from)
    return HandledProxy(spec, handler=handler, handlers=handlers)


def make_visit_port(config: VisitorConfig, key: bytes | None) -> VisitPort:
    """A local port that leads to another client's proxy, and does not listen yet.

    Args:
      config: what its table says.
      key: that of its `visitor_secret`; see `visit_keys`.
    """
    return VisitPort(
        config.name,
        config.publish_port,
        config.bind_addr,
        config.bind_port,
        config.owner or "",
        visit_key=key,
    )


def visit_keys(
    config: ClientConfig, source: Path | None
) -> tuple[list[bytes | None], list[bytes | None]]:
    """The keys of the secrets of all proxies, and of all visitors; None for those without.

    Each secret that a person made up takes a tenth of a second, however often it is used.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      ConfigError: one cannot be used; says which.
    """
    known: dict[str, bytes] = {}

    def keys(table: str, entries: Iterable[ProxyConfig | VisitorConfig]) -> Iterator[bytes | None]:
        for index, entry in enumerate(entries):
            try:
                secret = _secret(entry, store.directory_of(source))
                if secret is not None and secret not in known:
                    known[secret] = visit_key(secret)
            except TunnelError as error:
                raise _fault(source, f"{table}[{index}].visitor_secret", str(error)) from error
            yield None if secret is None else known[secret]

    return list(keys("proxies", config.proxies)), list(keys("visitors", config.visitors))


def _secret(entry: ProxyConfig | VisitorConfig, base: Path) -> str | None:
    if entry.visitor_secret_file is None:
        return entry.visitor_secret
    return store.read_auth_key(store.resolve(entry.visitor_secret_file, base=base))


# --- Both -------------------------------------------------------------------------------------


def shared_key(config: ServerConfig, source: Path | None) -> str | None:
    """The key that all clients of a server share, if there is one.

    Raises:
      StoreError: it is in a file that cannot be read.
    """
    if config.auth_key is None and config.auth_key_file is None:
        return None
    return _key(config, store.directory_of(source))


def configured_audit(
    config: ServerConfig | ClientConfig, source: Path | None, *, client: str = ""
) -> contextlib.AbstractContextManager[AuditLog | None]:
    """The audit log that a configuration asks for, open for as long as the block lasts.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.
      client: on a client, its name.

    Raises:
      TunnelError: the file cannot be opened.
    """
    return open_audit(config.audit_log, base=store.directory_of(source), client=client)


def _key(config: ServerConfig | ClientConfig | IdentityConfig, base: Path) -> str:
    if config.auth_key is not None:
        return config.auth_key
    return store.read_auth_key(store.resolve(config.auth_key_file or "", base=base))


def _keys(config: ServerConfig | ClientConfig | IdentityConfig, base: Path) -> ClientKeys:
    return derive(_key(config, base))


def _path(named: str | None, base: Path) -> Path | None:
    return None if named is None else store.resolve(named, base=base)


def _fault(source: Path | None, place: str, message: str) -> ConfigError:
    return ConfigError(str(source or "configuration"), [Fault(None, place, message)])
