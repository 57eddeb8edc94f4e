"""The tables of ``server.toml``, and for each key what it takes and what it is for."""

from __future__ import annotations

from typing import Annotated

import attrs

from tunnel import limits
from tunnel.config import values
from tunnel.config.schema import CommonConfig, Key
from tunnel.model import ANY, PortRange


@attrs.frozen(kw_only=True)
class RateLimit:
    """``[server.rate_limit]``: new connections, counted before TLS."""

    requests_per_second: Annotated[
        int, Key(values.count(1, 2**32 - 1), "New connections per second.", 100)
    ]
    burst_size: Annotated[
        int, Key(values.count(1, 2**32 - 1), "How many may come at once after a pause.", 200)
    ]


@attrs.frozen(kw_only=True)
class IdentityConfig:
    """``[[server.clients]]``: a client that has a key of its own, and what it may do.

    Exactly one of `auth_key`, `auth_key_file` and `verifier` is set. `allow_ports` and
    `allow_publish_addrs` are None where those of ``[server]`` hold.
    """

    name: Annotated[str, Key(values.NAME, "What the server calls it; unique.", "office")]
    auth_key: Annotated[
        str | None, Key(values.AUTH_KEY, "Its key, no other client's.", values.PLACEHOLDER_KEY)
    ] = attrs.field(default=None, repr=False)
    auth_key_file: Annotated[
        str | None, Key(values.PATH, "Or a file that holds it.", "office.key")
    ] = None
    verifier: Annotated[
        str | None,
        Key(
            values.VERIFIER,
            "Or what `tls-tunnel keygen --verifier` prints: proves nobody to be that client.",
            "ttv1_" + "a" * 135,
        ),
    ] = attrs.field(default=None, repr=False)
    allow_ports: Annotated[
        tuple[PortRange, ...] | None,
        Key(
            values.PORT_RANGES,
            "The ports that it may publish, instead of those of [server].",
            (PortRange(443, 443), PortRange(8000, 8999)),
        ),
    ] = None
    allow_publish_addrs: Annotated[
        tuple[str, ...] | None,
        Key(
            values.ADDRESSES,
            "The addresses that it may publish on, instead of those of [server].",
            ("192.0.2.1",),
        ),
    ] = None
    max_proxies: Annotated[
        int, Key(values.count(1, limits.MAX_PROXIES), "How many proxies it may have.")
    ] = limits.MAX_PROXIES
    max_connections: Annotated[
        int,
        Key(values.count(1, 2**32 - 1), "How many visitors it may have at a time; more are reset."),
    ] = limits.OWN_STREAMS


@attrs.frozen(kw_only=True)
class ServerConfig(CommonConfig):
    """``[server]``: times are seconds, paths are relative to this file.

    At most one of `auth_key` and `auth_key_file` is set, and at least one if there are no
    `clients`; so are both or neither of `cert_path` and `key_path`.
    """

    bind_addr: Annotated[
        str, Key(values.ADDRESS, 'Where clients connect to; "*" is every address, IPv4 and IPv6.')
    ] = ANY
    bind_port: Annotated[int, Key(values.PORT_OR_ANY, "0 takes any free port and logs it.")] = (
        limits.SERVER_PORT
    )
    auth_key: Annotated[
        str | None,
        Key(
            values.AUTH_KEY,
            "The secret that server and clients share; `tls-tunnel keygen` makes one.",
            values.PLACEHOLDER_KEY,
            env="TLS_TUNNEL_AUTH_KEY",
        ),
    ] = attrs.field(default=None, repr=False)
    auth_key_file: Annotated[
        str | None, Key(values.PATH, "Or a file that holds it, instead of auth_key.", "auth.key")
    ] = None
    cert_path: Annotated[
        str | None,
        Key(
            values.PATH,
            "Certificate chain (PEM). Without these two one is made once and kept in state_dir.",
            "cert.pem",
        ),
    ] = None
    key_path: Annotated[str | None, Key(values.PATH, "Its private key (PEM).", "key.pem")] = None
    client_ca_path: Annotated[
        str | None,
        Key(
            values.PATH,
            "Ask clients for a certificate of an authority in this file (PEM), besides the key.",
            "client-ca.pem",
        ),
    ] = None
    allow_ports: Annotated[
        tuple[PortRange, ...], Key(values.PORT_RANGES, "The ports that clients may publish.")
    ] = (PortRange(1, 65535),)
    allow_publish_addrs: Annotated[
        tuple[str, ...],
        Key(values.ADDRESSES, 'The addresses that they may publish on; "*" is any.'),
    ] = (ANY,)
    state_dir: Annotated[
        str | None,
        Key(
            values.DIRECTORY,
            "Where things are kept. Default: $STATE_DIRECTORY, else the XDG state directory.",
            "/var/lib/tls-tunnel",
        ),
    ] = None
    handshake_timeout: Annotated[
        float, Key(values.SECONDS, "Seconds for TLS, authentication and configuration together.")
    ] = limits.HANDSHAKE_TIMEOUT
    keepalive_interval: Annotated[
        float,
        Key(values.SECONDS, "Seconds of silence before a client is asked for a sign of life."),
    ] = limits.KEEPALIVE_INTERVAL
    keepalive_timeout: Annotated[
        float, Key(values.SECONDS, "Seconds of silence after that before it counts as gone.")
    ] = limits.KEEPALIVE_TIMEOUT
    shutdown_grace: Annotated[
        float,
        Key(values.SECONDS_OR_ZERO, "Seconds that live connections get when the server stops."),
    ] = limits.SHUTDOWN_GRACE
    max_unauthenticated: Annotated[
        int,
        Key(
            values.count(1, 2**32 - 1),
            "Connections that have proved no key yet; of more, the busiest network's oldest goes.",
        ),
    ] = limits.MAX_STRANGERS
    max_connections_per_proxy: Annotated[
        int, Key(values.count(1, 2**32 - 1), "Visitors of one proxy at a time; more are reset.")
    ] = limits.PROXY_CONNECTIONS
    max_connections_per_visitor: Annotated[
        int,
        Key(values.count(1, 2**32 - 1), "The same for one source network, on all proxies."),
    ] = limits.VISITOR_CONNECTIONS
    rate_limit: RateLimit | None = None
    clients: tuple[IdentityConfig, ...] = ()
