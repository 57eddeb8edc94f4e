"""The tables of ``client.toml``, and for each key what it takes and what it is for."""

from __future__ import annotations

from typing import Annotated, Final

import attrs

from tunnel import limits
from tunnel.config import values
from tunnel.config.schema import CommonConfig, Key
from tunnel.config.values import LOOPBACK
from tunnel.model import ANY

PROXY_TYPES: Final = ("tcp", "ssh", "http/1.1", "http/2.0")


@attrs.frozen(kw_only=True)
class ProxyConfig:
    """``[[proxies]]``: a local service and the server's port that it is published on."""

    name: Annotated[str, Key(values.NAME, "Names it in logs and statistics; unique.", "web")]
    publish_addr: Annotated[
        str,
        Key(
            values.ADDRESS,
            'An address of the server; "0.0.0.0" is IPv4 only, "::" is IPv6 only, "*" is both.',
        ),
    ] = ANY
    publish_port: Annotated[
        int, Key(values.PORT_OR_ANY, "The server's port; 0 takes any free one it allows.", 8080)
    ]
    local_addr: Annotated[
        str, Key(values.LOCAL, 'Where the service is; also "unix:/path", without local_port.')
    ] = LOOPBACK
    local_port: Annotated[int | None, Key(values.PORT, "The port of the service.", 3000)] = None
    proxy_type: Annotated[
        str,
        Key(
            values.choice(*PROXY_TYPES),
            "For old files: every visitor gets a local connection of its own, whatever it says.",
        ),
    ] = "tcp"
    proxy_protocol: Annotated[
        str | None,
        Key(
            values.PROXY_PROTOCOL,
            "Tell the service the visitor's address by a PROXY protocol header; off while not set.",
            "v2",
        ),
    ] = None

    allow_from: Annotated[
        tuple[str, ...],
        Key(
            values.NETWORKS,
            "Who may visit the published port: networks and addresses. Default: everybody.",
            ("192.0.2.0/24", "2001:db8::/32"),
        ),
    ] = ()

    visitors_only: Annotated[
        bool,
        Key(
            values.SWITCH,
            "No public port: other clients reach it by [[visitors]], and nobody else.",
        ),
    ] = False
    allow_visitors: Annotated[
        tuple[str, ...],
        Key(
            values.CLIENTS,
            "The clients that may, as the server's [[server.clients]] calls them. Default: all.",
            ("laptop",),
        ),
    ] = ()
    visitor_secret: Annotated[
        str | None,
        Key(
            values.SECRET,
            "What [[visitors]] must know as well. Visitors of a public port need none.",
            values.PLACEHOLDER_KEY,
        ),
    ] = attrs.field(default=None, repr=False)
    visitor_secret_file: Annotated[
        str | None,
        Key(values.PATH, "Or a file that holds it.", "database.secret"),
    ] = None

    @property
    def unix_path(self) -> str | None:
        """The path of the service's Unix socket, if it has one."""
        unix = self.local_addr.startswith(values.UNIX)
        return self.local_addr.removeprefix(values.UNIX) if unix else None


@attrs.frozen(kw_only=True)
class VisitorConfig:
    """``[[visitors]]``: another client's proxy, reached through the server at a local port.

    That proxy is the one with this name and `publish_port`, whichever client has it.
    """

    name: Annotated[str, Key(values.NAME, "The name of the other client's proxy.", "database")]
    publish_port: Annotated[
        int,
        Key(values.PORT_OR_ZERO, "Its publish_port; 0 if it is the only one of its name."),
    ] = 0
    owner: Annotated[
        str | None,
        Key(
            values.NAME,
            "The client that must have it, as the server's [[server.clients]] calls it.",
            "office",
        ),
    ] = None
    visitor_secret: Annotated[
        str | None,
        Key(values.SECRET, "The proxy's, if it has one.", values.PLACEHOLDER_KEY),
    ] = attrs.field(default=None, repr=False)
    visitor_secret_file: Annotated[
        str | None,
        Key(values.PATH, "Or a file that holds it.", "database.secret"),
    ] = None
    bind_addr: Annotated[str, Key(values.ADDRESS, "The local address to listen on.")] = LOOPBACK
    bind_port: Annotated[int, Key(values.PORT, "The local port to listen on.", 15432)]
    proxy_type: Annotated[
        str, Key(values.choice(*PROXY_TYPES), "For old files; makes no difference.")
    ] = "tcp"


@attrs.frozen(kw_only=True)
class ClientConfig(CommonConfig):
    """``[client]``: times are seconds, paths are relative to this file.

    Exactly one of `auth_key` and `auth_key_file` is set. `server_addr` and `pin` hold one entry for
    a plain text and several for a list.
    """

    server_addr: Annotated[
        tuple[str, ...],
        Key(
            values.HOSTS,
            "Name or address of the server, or a list that is tried in turn.",
            "tunnel.example.com",
        ),
    ]
    server_port: Annotated[int, Key(values.PORT, "The server's bind_port.")] = limits.SERVER_PORT
    auth_key: Annotated[
        str | None,
        Key(
            values.AUTH_KEY,
            "The server's auth_key.",
            values.PLACEHOLDER_KEY,
            env="TLS_TUNNEL_AUTH_KEY",
        ),
    ] = attrs.field(default=None, repr=False)
    auth_key_file: Annotated[
        str | None, Key(values.PATH, "Or a file that holds it, instead of auth_key.", "auth.key")
    ] = None
    pin: Annotated[
        tuple[str, ...],
        Key(
            values.PINS,
            "Trust only this key of the server, or one of a list, whatever its certificate's names;"
            " with ca_cert_path both must hold.",
            "sha256:" + "0" * 64,
        ),
    ] = ()
    ca_cert_path: Annotated[
        str | None,
        Key(
            values.PATH,
            "Trust the authorities in this file (PEM) instead of the system's.",
            "ca.pem",
        ),
    ] = None
    skip_verify: Annotated[
        bool, Key(values.SWITCH, "Do not verify the server. Anyone on the way can be it.")
    ] = False
    cert_path: Annotated[
        str | None,
        Key(
            values.PATH,
            "This client's own certificate (PEM), for a server that asks for one (client_ca_path).",
            "client.pem",
        ),
    ] = None
    key_path: Annotated[
        str | None, Key(values.PATH, "Its private key (PEM).", "client-key.pem")
    ] = None
    name: Annotated[
        str | None,
        Key(values.NAME, "Names this client in the server's logs. Default: host name.", "office"),
    ] = None
    client_id: Annotated[
        str | None,
        Key(
            values.IDENTIFIER,
            "Tells this client from others with the same key. Default: made once and kept in"
            " state_dir.",
            "0123456789abcdef" * 2,
        ),
    ] = None
    state_dir: Annotated[
        str | None,
        Key(
            values.DIRECTORY,
            "Where client_id is kept. Default: $STATE_DIRECTORY, else the XDG state directory.",
            "/var/lib/tls-tunnel",
        ),
    ] = None
    connect_timeout: Annotated[
        float, Key(values.SECONDS, "Seconds for name, TCP, TLS and handshake together.")
    ] = limits.CONNECT_TIMEOUT
    reconnect_delay: Annotated[
        float,
        Key(
            values.SECONDS,
            "Seconds from a lost connection to the next attempt.",
            env="TLS_TUNNEL_RECONNECT_DELAY_SECS",
        ),
    ] = limits.RECONNECT_DELAY
    reconnect_max_delay: Annotated[
        float,
        Key(
            values.SECONDS,
            "More than reconnect_delay lets it grow up to this, with jitter. Default:"
            " reconnect_delay.",
            60,
        ),
    ] = attrs.field(default=attrs.Factory(lambda self: self.reconnect_delay, takes_self=True))
    keepalive_interval: Annotated[
        float,
        Key(values.SECONDS, "Seconds of silence before the server is asked for a sign of life."),
    ] = limits.KEEPALIVE_INTERVAL
    keepalive_timeout: Annotated[
        float, Key(values.SECONDS, "Seconds of silence after that before it counts as gone.")
    ] = limits.KEEPALIVE_TIMEOUT
    local_connect_retries: Annotated[
        int,
        Key(
            values.count(0, limits.MAX_LOCAL_CONNECT_RETRIES),
            "How often a local service that does not answer is tried again for one visitor.",
            env="TLS_TUNNEL_LOCAL_CONNECT_RETRIES",
        ),
    ] = limits.LOCAL_CONNECT_RETRIES
    local_retry_delay_ms: Annotated[
        int,
        Key(
            values.count(0, int(limits.MAX_DURATION * 1000)),
            "Milliseconds between these attempts.",
            env="TLS_TUNNEL_LOCAL_RETRY_DELAY_MS",
        ),
    ] = round(limits.LOCAL_RETRY_DELAY * 1000)
    proxies: tuple[ProxyConfig, ...] = ()
    visitors: tuple[VisitorConfig, ...] = ()

    @property
    def local_retry_delay(self) -> float:
        """Seconds between attempts to reach a local service."""
        return self.local_retry_delay_ms / 1000
