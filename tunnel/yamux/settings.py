"""What one engine allows itself and its peer; `tunnel/limits.py` has the reason of each number."""

from __future__ import annotations

import enum

import attrs

from tunnel import limits


class Role(enum.Enum):
    """Who dialled. The client opens odd stream ids, the server even ones."""

    CLIENT = 1
    SERVER = 2


@attrs.frozen(kw_only=True)
class Settings:
    """Limits of one `Connection`; the defaults suit a foreign Yamux. Bytes and seconds.

    Args:
      max_frame: largest DATA payload to send.
      max_inbound_streams: streams that the peer may have open; more are reset.
      max_outbound_streams: streams that we may have open.
      max_unacknowledged: streams that we may have open without any sign of the peer on them.
      send_queue: bytes of one stream that may wait here for the link.
      total_send_queue: the same for all streams together.
      max_window: how far the receive window of one stream may grow.
      window_pool: what all windows together may have beyond 256 KiB each.
      keepalive_interval: silence before a ping; None for no keepalive.
      keepalive_timeout: silence after that ping before the peer counts as gone.
      close_linger: how long a stream whose local end is gone waits for the peer's end.
      max_pending_pongs: answers to pings that may wait to be sent.
      useless_frames_per_second: frames that carry nothing; see `inbox.Budget`.
    """

    max_frame: int = limits.FOREIGN_FRAME
    max_inbound_streams: int = limits.FOREIGN_INBOUND_STREAMS
    max_outbound_streams: int = limits.FOREIGN_OUTBOUND_STREAMS
    max_unacknowledged: int = limits.FOREIGN_BACKLOG
    send_queue: int = limits.STREAM_QUEUE
    total_send_queue: int = limits.LINK_QUEUE
    max_window: int = limits.MAX_STREAM_WINDOW
    window_pool: int = limits.WINDOW_POOL
    keepalive_interval: float | None = limits.KEEPALIVE_INTERVAL
    keepalive_timeout: float = limits.KEEPALIVE_TIMEOUT
    close_linger: float = limits.CLOSE_LINGER
    max_pending_pongs: int = limits.MAX_PENDING_PONGS
    useless_frames_per_second: int = limits.USELESS_FRAMES_PER_SECOND
