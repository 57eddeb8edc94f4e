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
from tunnel.config import ClientConfig, ProxyConfig, ServerConfig
from tunnel.errors import TunnelError
from tunnel.handles import ClientHandle, ServerHandle
from tunnel.model import Address, name_fault
from tunnel.net.contexts import ServerTls, client_context, server_tls
from tunnel.net.listen import open_listeners
from tunnel.net.transport import own_address
from tunnel.protocol.keys import ClientKeys, derive, generate_key
from tunnel.server import run as server_run
from tunnel.server.admission import TokenBucket
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
    server, listeners, rate, pin = _prepare_server(config, source)
    await server_run.run_server(server, listeners, rate=rate, pin=pin, task_status=task_status)


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
) -> tuple[Server, list[socket.socket], TokenBucket | None, str]:
    beside = source.absolute().parent
    verifier = _keys(config, beside).verifier
    tls, pin = _server_tls(config, beside)
    listeners = _listen(config)
    _mention_stats(config)
    # Nobody may publish what the server itself listens on, on whatever address.
    reserved = {own_address(listener).port for listener in listeners} | {config.stats_port or 0}
    policy = Policy(
        Rules(config.allow_ports, frozenset(reserved)),
        handshake_timeout=config.handshake_timeout,
        keepalive_interval=config.keepalive_interval,
        keepalive_timeout=config.keepalive_timeout,
        shutdown_grace=config.shutdown_grace,
    )
    limit = config.rate_limit
    rate = None if limit is None else TokenBucket(limit.requests_per_second, limit.burst_size)
    # An unknown key is checked against one that nobody knows.
    dummy = derive(generate_key(secrets.token_bytes(32))).verifier
    return Server(policy, tls, {verifier.key_id: verifier}, dummy), listeners, rate, pin


def _server_tls(config: ServerConfig, beside: Path) -> tuple[ServerTls, str]:
    """The certificate to show, and the pin that clients can know it by."""
    if config.cert_path is not None and config.key_path is not None:
        cert = store.resolve(config.cert_path, beside=beside)
        key = store.resolve(config.key_path, beside=beside)
        return server_tls(cert, key), spki_pin(store.leaf_der(cert))
    state_dir = store.state_directory(config.state_dir, beside=beside, environ=os.environ)
    with store.own_certificate(state_dir) as path:
        return server_tls(path, path), spki_pin(store.leaf_der(path))


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
    ca_path = config.ca_cert_path and store.resolve(config.ca_cert_path, beside=beside)
    pinned = bool(config.pin)
    context = client_context(
        ca_path=ca_path or None,
        verify=not config.skip_verify and (not pinned or ca_path is not None),
        check_hostname=not pinned,
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
        retries=config.local_connect_retries,
        retry_delay=config.local_retry_delay,
    )


# --- Both -------------------------------------------------------------------------------------


def _keys(config: ServerConfig | ClientConfig, beside: Path) -> ClientKeys:
    key = config.auth_key
    if key is None:
        key = store.read_auth_key(store.resolve(config.auth_key_file or "", beside=beside))
    return derive(key)


def _mention_stats(config: ServerConfig | ClientConfig) -> None:
    if config.stats_port is not None:
        logger.warning("Statistics over HTTP are not served by this version (stats_port)")
