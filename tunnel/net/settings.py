"""The engine's limits between our own ends, from what both have announced."""

from __future__ import annotations

from tunnel.protocol.messages import Capabilities
from tunnel.yamux import Settings


def link_settings(
    own: Capabilities, peer: Capabilities, *, keepalive_interval: float, keepalive_timeout: float
) -> Settings:
    """What this end allows itself and the peer. Seconds and bytes."""
    return Settings(
        max_frame=min(own.max_frame, peer.max_frame),
        max_inbound_streams=own.max_streams,
        max_outbound_streams=min(own.max_streams, peer.max_streams),
        max_unacknowledged=peer.backlog,
        keepalive_interval=keepalive_interval,
        keepalive_timeout=keepalive_timeout,
    )
