"""The configuration that a running program goes by, and how another one takes its place."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import attrs
import trio

from tunnel import limits, store
from tunnel.api import change_client, change_server
from tunnel.cli.loading import load_client, load_server
from tunnel.config import ClientConfig, ServerConfig
from tunnel.config.changes import Changes, client_changes, in_force, server_changes
from tunnel.errors import TunnelError
from tunnel.ops.control import control_path, serve_control
from tunnel.views import ClientHandle, ServerHandle

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Live:
    """What a program goes by.

    Args:
      source: the file.
      config: what it said when the program started.
    """

    source: Path
    config: ServerConfig | ClientConfig
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def attend(self, handle: ServerHandle | ClientHandle) -> None:
        """Answer `tls-tunnel reload`, and follow the file if that was asked for."""
        beside = self.source.absolute().parent
        state_dir = store.state_directory(self.config.state_dir, beside=beside, environ=os.environ)

        async def answer(question: str) -> dict[str, Any]:
            return await self.answer(handle, question)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_control, control_path(state_dir, self.source), answer)
            if self.config.watch:
                nursery.start_soon(self._watch, handle)

    async def reload(self, handle: ServerHandle | ClientHandle) -> None:
        """Do what the file says now; a fault in it is a log line, and nothing changes."""
        try:
            await self.apply(handle)
        except TunnelError as error:
            logger.error(
                "Configuration not reloaded",
                extra={"reason": str(error), "consequence": "nothing has changed"},
            )

    async def answer(self, handle: ServerHandle | ClientHandle, question: str) -> dict[str, Any]:
        """What `tls-tunnel reload` is told: "plan" only looks, "reload" does it."""
        try:
            if question == "plan":
                _, changes = await trio.to_thread.run_sync(self._read)
                touched = touches(changes, handle)
            elif question == "reload":
                touched = {}
                changes = await self.apply(handle)
            else:
                return {"error": f"it knows no {question!r}"}
        except TunnelError as error:
            return {"error": str(error)}
        return attrs.asdict(changes) | {"connections": touched}

    async def apply(self, handle: ServerHandle | ClientHandle) -> Changes:
        """Do what the file says now; returns what is different.

        Raises:
          TunnelError: it has faults, or names what cannot be used; nothing has changed.
        """
        async with self._turn:
            new, changes = await trio.to_thread.run_sync(self._read)
            if isinstance(new, ServerConfig) and isinstance(handle, ServerHandle):
                await change_server(handle, new, source=self.source)
            elif isinstance(new, ClientConfig) and isinstance(handle, ClientHandle):
                await change_client(handle, new, source=self.source, anew=bool(changes.anew))
            self.config = new
        _log(changes)
        return changes

    def _read(self) -> tuple[ServerConfig | ClientConfig, Changes]:
        if isinstance(self.config, ServerConfig):
            server = load_server(self.source)
            changes = server_changes(self.config, server)
            return in_force(self.config, server, changes), changes
        client = load_client(self.source)
        changes = client_changes(self.config, client)
        return in_force(self.config, client, changes), changes

    async def _watch(self, handle: ServerHandle | ClientHandle) -> None:
        """Reload when the file has changed, and is the same at two looks: it is written, then."""
        known = before = _identity(self.source)
        while True:
            await trio.sleep(limits.CONFIGURATION_LOOK)
            found = _identity(self.source)
            if found not in (known, None) and found == before:
                known = found
                await self.reload(handle)
            before = found


def touches(changes: Changes, handle: ServerHandle | ClientHandle) -> dict[str, int]:
    """How many live connections a change finds: those that it cuts, and those that only see it.

    `finish` are on ports that go away, `stay` on what they were connected to; all of them go on.
    """
    if isinstance(handle, ServerHandle):
        everybody = {"auth_key", "auth_key_file"} & set(changes.live)
        cut = sum(
            session.connections
            for session in handle.statistics()
            if everybody or session.name in changes.removed
        )
        return {"cut": cut}
    active: dict[str, int] = {proxy.name: proxy.counters.active for proxy in handle.statistics()}
    if changes.anew:
        return {"cut": sum(active.values())}
    return {
        "finish": sum(active.get(name, 0) for name in (*changes.removed, *changes.moved)),
        "stay": sum(active.get(name, 0) for name in changes.changed),
    }


def _log(changes: Changes) -> None:
    said = {key: ", ".join(names) for key, names in attrs.asdict(changes).items() if names}
    restart = said.pop("restart", None)
    if restart is not None:
        logger.warning("Takes a restart", extra={"keys": restart})
    logger.info("Configuration reloaded" if said else "Configuration unchanged", extra=said)


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written or replaced; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
