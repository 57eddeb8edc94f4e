"""Saying that a client has come or gone: to the log, and to the program that runs the server."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from tunnel.events import ClientConnected, ClientDisconnected, End
from tunnel.server.visitors import Lobby

if TYPE_CHECKING:
    from tunnel.server.session import Session

logger = logging.getLogger("tunnel.server.session")


def connected(session: Session, lobby: Lobby) -> None:
    """It has: its ports are bound, and it knows."""
    logger.info(
        "Client connected",
        extra={
            "client": session.seat.name,
            "address": str(session.seat.address),
            "session": session.session_id[:8],
            "proxies": sum(1 for proxy in session.proxies if proxy.up),
        },
    )
    lobby.tell(ClientConnected(session.seat.name, session.seat.address, session.session_id))


def disconnected(session: Session, end: End, lobby: Lobby) -> None:
    """Its session is over, and its ports are free."""
    logger.info(
        "Client disconnected",
        extra={
            "client": session.seat.name,
            "address": str(session.seat.address),
            "session": session.session_id[:8],
            "reason": end.text,
            "duration": round(trio.current_time() - session.started, 1),
        },
    )
    lobby.tell(ClientDisconnected(session.seat.name, session.session_id, end.text))
