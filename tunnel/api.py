"""Composition for programs: from a configuration to a running server or client."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from pathlib import Path

import trio

from tunnel import store
from tunnel.certificates import spki_pin
from tunnel.client import run as client_run
from tunnel.client.connect import Dialler
from tunnel.client.proxy import LocalProxy
from tunnel.client.session import Client
from tunnel.config import ClientConfig, IdentityConfig, ProxyConfig, ServerConfig
from tunnel.errors import ConfigError, Fault, TunnelError
from tunnel.handles import ClientHandle, ServerHandle
from tunnel.model import Address, name_fault
from tunnel.net.contexts import client_context
from tunnel.net.listen import open_listeners
from tunnel.net.transport import own_address
from tunnel.protocol.keys import ClientKeys, Verifier, derive, generate_key
from tunnel.server import run as server_run
from tunnel.server.admission import Rate
from tunnel.server.certificate import CertificateFiles, CertificateKeeper
from tunnel.server.identity import Identities, Identity
from tunnel.server.publish import Rules
from tunnel.server.session import Policy, Server

logger = logging.getLogger(__name__)


async def run_server(
    config: ServerConfig,
    *,
    source: Path,
    task_status: trio.TaskStatus[ServerHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a server until it is drained or cancelled; every port is free when it returns.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.
      task_status: told a `ServerHandle` when clients can connect.

    Raises:
      TunnelError: it could not start; says why and what to do.
    """
    server, listeners, certificate = _prepare_server(config, source)
    await server_run.run_server(server, listeners, certificate=certificate, task_status=task_status)


async def run_client(
    config: ClientConfig,
    *,
    source: Path,
    task_status: trio.TaskStatus[ClientHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a client until it is cancelled, reconnecting for ever.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to, and which tells this client from others.
      task_status: told a `ClientHandle` at once; wait for its `state` to be connected.

    Raises:
      TunnelError: it could not start; says why and what to do.
    """
    await client_run.run_client(_prepare_client(config, source), task_status=task_status)


# --- The server's parts -----------------------------------------------------------------------


def _prepare_server(
    config: ServerConfig, source: Path
) -> tuple[Server, list[socket.socket], CertificateKeeper]:
    beside = source.absolute().parent
    verifiers = _verifiers(config, source)
    certificate = _certificate(config, beside)
    listeners = _listen(config)
    _mention_stats(config)
    # Nobody may publish what the server itself listens on, on whatever address.
    reserved = {own_address(listener).port for listener in listeners} | {config.stats_port or 0}
    limit = config.rate_limit
    policy = Policy(
        handshake_timeout=config.handshake_timeout,
        keepalive_interval=config.keepalive_interval,
        keepalive_timeout=config.keepalive_timeout,
        shutdown_grace=config.shutdown_grace,
        max_unauthenticated=config.max_unauthenticated,
        max_connections_per_proxy=config.max_connections_per_proxy,
        max_connections_per_visitor=config.max_connections_per_visitor,
        rate=None if limit is None else Rate(limit.requests_per_second, limit.burst_size),
    )
    # An unknown key is checked against one that nobody knows.
    dummy = derive(generate_key(secrets.token_bytes(32))).verifier
    identities = _identities(config, verifiers, frozenset(reserved))
    server = Server(policy, certificate.shown, identities, dummy)
    return server, listeners, certificate


def _verifiers(config: ServerConfig, source: Path) -> list[Verifier]:
    """What the server keeps of each key: of the one that all share, if it is there, comes first."""
    entries: dict[str, ServerConfig | IdentityConfig] = {}
    if config.auth_key is not None or config.auth_key_file is not None:
        entries["server"] = config
    entries |= {f"server.clients[{i}]": entry for i, entry in enumerate(config.clients)}
    places: dict[Verifier, str] = {}
    for place, entry in entries.items():
        try:
            other = places.setdefault(_verifier(entry, source.absolute().parent), place)
        except TunnelError as error:
            raise ConfigError(str(source), [Fault(None, place, str(error))]) from error
        if other != place:
            message = f"{other} has the same key: give each client a key of its own"
            raise ConfigError(str(source), [Fault(None, place, message)])
    return list(places)


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


def _certificate(config: ServerConfig, beside: Path) -> CertificateKeeper:
    """The certificate to show, from the files that are configured, or one of its own."""
    client_ca = _path(config.client_ca_path, beside)
    cert, key = _path(config.cert_path, beside), _path(config.key_path, beside)
    if cert is not None and key is not None:
        return CertificateKeeper(CertificateFiles(cert, key, client_ca=client_ca))
    state_dir = store.state_directory(config.state_dir, beside=beside, environ=os.environ)
    with store.own_certificate(state_dir) as path:
        kept = path.parent == state_dir
        return CertificateKeeper(CertificateFiles(path, path, True, kept, client_ca))


def _listen(config: ServerConfig) -> list[socket.socket]:
    try:
        return open_listeners(config.bind_addr, config.bind_port)
    except OSError as error:
        place = Address(config.bind_addr, config.bind_port)
        raise TunnelError(
            f"cannot listen on {place}: {error.strerror or error}; "
            "change bind_addr or bind_port, or end the program that has it"
        ) from error


# --- The client's parts -----------------------------------------------------------------------


def _prepare_client(config: ClientConfig, source: Path) -> Client:
    beside = source.absolute().parent
    state_dir = store.state_directory(config.state_dir, beside=beside, environ=os.environ)
    _mention_stats(config)
    return Client(
        _dialler(config, beside),
        _keys(config, beside),
        config.name or _host_name(),
        config.client_id or store.client_id(state_dir, source),
        tuple(_local_proxy(proxy, config) for proxy in config.proxies),
        connect_timeout=config.connect_timeout,
        reconnect_delay=config.reconnect_delay,
        reconnect_max_delay=config.reconnect_max_delay,
        keepalive_interval=config.keepalive_interval,
        keepalive_timeout=config.keepalive_timeout,
    )


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


def _local_proxy(proxy: ProxyConfig, config: ClientConfig) -> LocalProxy:
    return LocalProxy(
        proxy.name,
        proxy.publish_addr,
        proxy.publish_port,
        proxy.local_addr,
        proxy.local_port or 0,
        proxy.proxy_protocol,
        proxy.allow_from,
        retries=config.local_connect_retries,
        retry_delay=config.local_retry_delay,
    )


# --- Both -------------------------------------------------------------------------------------


def _keys(config: ServerConfig | ClientConfig | IdentityConfig, beside: Path) -> ClientKeys:
    key = config.auth_key
    if key is None:
        key = store.read_auth_key(store.resolve(config.auth_key_file or "", beside=beside))
    return derive(key)


def _path(named: str | None, beside: Path) -> Path | None:
    return None if named is None else store.resolve(named, beside=beside)


def _mention_stats(config: ServerConfig | ClientConfig) -> None:
    if config.stats_port is not None:
        logger.warning("Statistics over HTTP are not served by this version (stats_port)")
