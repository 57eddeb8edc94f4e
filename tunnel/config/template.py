"""Configurations as text: every key with its meaning, those at their default commented out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import attrs
import tomlkit

from tunnel import limits
from tunnel.config.client import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.config.schema import Table, header, keys
from tunnel.config.server import IdentityConfig, RateLimit, ServerConfig
from tunnel.config.values import PLACEHOLDER_KEY
from tunnel.model import PortRange

_HEAD: Final = """\
# Configuration of a tls-tunnel {}. A key that is commented out shows its default, or an
# example where there is none."""
_EXAMPLE_PROXY: Final = ProxyConfig(name="web", publish_port=8080, local_port=3000)


def server_template(
    *,
    auth_key: str = PLACEHOLDER_KEY,
    cert_path: str | None = None,
    key_path: str | None = None,
    bind_port: int = limits.SERVER_PORT,
) -> str:
    """A commented ``server.toml``; with the placeholder for a key it does not load.

    Args:
      auth_key: the key that server and clients share.
      cert_path, key_path: of a certificate chain and its key (PEM); None for one of its own.
      bind_port: where clients connect to.
    """
    return dump(
        ServerConfig(auth_key=auth_key, cert_path=cert_path, key_path=key_path, bind_port=bind_port)
    )


def client_template(
    *,
    auth_key: str = PLACEHOLDER_KEY,
    server_addr: str = "tunnel.example.com",
    server_port: int = limits.SERVER_PORT,
    pin: str | None = None,
    ca_cert_path: str | None = None,
) -> str:
    """A commented ``client.toml`` with one proxy; with the placeholder it does not load.

    Args:
      auth_key: the server's key.
      server_addr, server_port: where the server is.
      pin: of the server's key, `sha256:` and 64 hexadecimal digits; None to trust by certificate.
      ca_cert_path: authorities (PEM) to trust instead of the system's; None for the system's.
    """
    return dump(
        ClientConfig(
            auth_key=auth_key,
            server_addr=(server_addr,),
            server_port=server_port,
            pin=() if pin is None else (pin,),
            ca_cert_path=ca_cert_path,
            proxies=(_EXAMPLE_PROXY,),
        )
    )


def dump(config: ServerConfig | ClientConfig) -> str:
    """A configuration as a commented file that loads as the same value."""
    lines = _server(config) if isinstance(config, ServerConfig) else _client(config)
    return "\n".join(lines) + "\n"


def _server(config: ServerConfig) -> Iterator[str]:
    yield _HEAD.format("server")
    yield from _table("server", ServerConfig, config)
    yield from _table("server.rate_limit", RateLimit, config.rate_limit)
    for identity in config.clients or (None,):
        yield from _table("server.clients", IdentityConfig, identity)


def _client(config: ClientConfig) -> Iterator[str]:
    yield _HEAD.format("client")
    yield from _table("client", ClientConfig, config)
    for proxy in config.proxies or (None,):
        yield from _table("proxies", ProxyConfig, proxy)
    for visitor in config.visitors or (None,):
        yield from _table("visitors", VisitorConfig, visitor)


def _table(name: str, table: Table, config: attrs.AttrsInstance | None) -> Iterator[str]:
    """The lines of one table; without a value, of an example that is commented out as a whole."""
    yield ""
    yield "# " + (table.__doc__ or "").splitlines()[0].replace("`", "")
    yield header(name) if config else f"# {header(name)}"
    for key_name, key in keys(table).items():
        default = _default(table, key_name, config)
        value = default if config is None else getattr(config, key_name)
        given = value not in (default, None)
        shown = value if given else key.example if default in (None, ()) else default
        yield from textwrap.wrap(key.help, 98, initial_indent="# ", subsequent_indent="# ")
        yield f"{'' if given else '# '}{key_name} = {_toml(shown)}"


def _default(table: Table, name: str, config: attrs.AttrsInstance | None) -> Any:  # noqa: ANN401
    """What a key is if it is left out; None if nothing, or if that depends on another key."""
    default: Any = attrs.fields_dict(table)[name].default
    if default is attrs.NOTHING:
        return None
    if not hasattr(default, "factory"):
        return default
    return default.factory(config) if config else None


def _toml(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, tuple):
        items = [str(item) for item in value]
        # A single range stays in brackets, a single name or pin goes without.
        value = items if len(items) > 1 or isinstance(value[0], PortRange) else items[0]
    return tomlkit.item(value).as_string()
