"""The configuration that a running program goes by, and how a changed file takes its place."""

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
class RunningConfig:
    """The configuration that a program goes by.

    Args:
      source: the file.
      config: what the file said when the program started; later, what is in force.
    """

    source: Path
    config: ServerConfig | ClientConfig
    #: Held while a change is made: signals, the file and `tls-tunnel reload` may ask at once.
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def serve(self, handle: ServerHandle | ClientHandle) -> None:
        """Answer `tls-tunnel reload`, and follow the file if its `watch` says so; until cancelled.

        Args:
          handle: of the program, which has started.
        """
        base = self.source.absolute().parent
        state_dir = store.state_directory(self.config.state_dir, base=base, environ=os.environ)

        async def answer(question: str) -> dict[str, Any]:
            return await self.answer(handle, question)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_control, control_path(state_dir, self.source), answer)
            if self.config.watch:
                nursery.start_soon(self._watch, handle)

    async def reload(self, handle: ServerHandle | ClientHandle) -> None:
        """Have the program do what the file says now.

        If the file has a fault, then that is logged, and nothing changes.
        """
        try:
            await self.apply(handle)
        except TunnelError as error:
            logger.error(
                "Configuration not reloaded",
                extra={"reason": str(error), "consequence": "nothing has changed"},
            )

    async def answer(self, handle: ServerHandle | ClientHandle, question: str) -> dict[str, Any]:
        """What `tls-tunnel reload` is told.

        Args:
          handle: of the program.
          question: "plan" says what would change, "reload" changes it, too.

        Returns:
          The fields of `Changes`, and `connections` as `affected_connections` counts them for a
          plan. If the file cannot be used, or the question is another one, an `error` alone.
        """
        try:
            if question == "plan":
                _, changes = await trio.to_thread.run_sync(self._read)
                affected = affected_connections(changes, handle)
            elif question == "reload":
                affected = {}
                changes = await self.apply(handle)
            else:
                return {"error": f"it knows no {question!r}"}
        except TunnelError as error:
            return {"error": str(error)}
        return attrs.asdict(changes) | {"connections": affected}

    async def apply(self, handle: ServerHandle | ClientHandle) -> Changes:
        """Have the program do what the file says now; returns what is different.

        If it is cancelled while it reads, nothing changes.

        Args:
          handle: of the program.

        Raises:
          TunnelError: the file has faults, or names what cannot be used; nothing has changed.
        """
        async with self._lock:
            new, changes = await trio.to_thread.run_sync(self._read)
            await self._change(handle, new, anew=bool(changes.anew))
            self.config = new
        _log(changes)
        return changes

    async def _change(
        self,
        handle: ServerHandle | ClientHandle,
        new: ServerConfig | ClientConfig,
        *,
        anew: bool,
    ) -> None:
        if isinstance(new, ServerConfig) and isinstance(handle, ServerHandle):
            await change_server(handle, new, source=self.source)
        elif isinstance(new, ClientConfig) and isinstance(handle, ClientHandle):
            await change_client(handle, new, source=self.source, anew=anew)

    def _read(self) -> tuple[ServerConfig | ClientConfig, Changes]:
        if isinstance(self.config, ServerConfig):
            server = load_server(self.source)
            changes = server_changes(self.config, server)
            return in_force(self.config, server, changes), changes
        client = load_client(self.source)
        changes = client_changes(self.config, client)
        return in_force(self.config, client, changes), changes

    async def _watch(self, handle: ServerHandle | ClientHandle) -> None:
        """Reload when the file has changed; until cancelled.

        An editor may write a file in several steps. So a change counts when two looks, one after
        the other, have found the same file.
        """
        known = before = store.file_identity(self.source)
        while True:
            await trio.sleep(limits.CONFIGURATION_POLL_INTERVAL)
            found = store.file_identity(self.source)
            if found not in (known, None) and found == before:
                known = found
                await self.reload(handle)
            before = found


def affected_connections(changes: Changes, handle: ServerHandle | ClientHandle) -> dict[str, int]:
    """How many live connections a change would affect, by what becomes of them.

    Args:
      changes: the change.
      handle: of the program.

    Returns:
      `cut` is how many the change ends. Of a client whose session stays, `finish` is how many are
      on ports that go away, and `stay` how many are on proxies that change; all of these go on.
    """
    if isinstance(handle, ServerHandle):
        of_all_clients = {"auth_key", "auth_key_file"} & set(changes.live)
        cut = sum(
            session.connections
            for session in handle.statistics()
            if of_all_clients or session.name in changes.removed
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
