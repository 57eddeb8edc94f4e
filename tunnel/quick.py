"""A tunnel in one line: configurations that nobody wrote."""

from __future__ import annotations

from tunnel.config import ClientConfig
from tunnel.protocol.join import Join


def client_config(join: Join, name: str | None = None) -> ClientConfig:
    """The client that a join string describes; it publishes nothing yet."""
    return ClientConfig(
        server_addr=(join.host,),
        server_port=join.port,
        auth_key=join.key,
        pin=(join.pin,),
        name=name,
    )
