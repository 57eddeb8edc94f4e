"""The audit log: a line of JSON for each visitor's connection, when it is over.

The event loop only puts a line into a queue. A thread writes what is there, some times a second, so
that a slow disk holds nothing up; what does not fit into the queue any more is lost, and the log
says how much.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from pathlib import Path

import trio

from tunnel import limits, store
from tunnel.errors import TunnelError
from tunnel.events import Event, VisitorClosed
from tunnel.net.nursery import open_collapsing_nursery

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_audit(place: str | None, *, base: Path, client: str = "") -> Iterator[AuditLog | None]:
    """The audit log that a configuration asks for, open for as long as the block lasts.

    Args:
      place: a file, appended to, made with mode 0600 if it is not there; "-" is standard output;
        None is no audit log.
      base: the directory that a path is relative to.
      client: what events have for the client's name that have none.

    Raises:
      TunnelError: the file cannot be opened.
    """
    if place is None:
        yield None
        return
    try:
        file = StandardOutput() if place == "-" else AuditFile(store.resolve(place, base=base))
    except OSError as error:
        raise TunnelError(
            f"cannot write audit_log, {place}: {error.strerror}; "
            "its directory must be there, and be writable for this user"
        ) from error
    audit = AuditLog(file, client)
    try:
        yield audit
    finally:
        if not audit.stuck:
            file.close()


class AuditLog:
    """The queue of lines, and the task that has a thread write what is in it.

    Args:
      file: where to.
      client: what events have for the client's name that have none.
    """

    def __init__(self, file: AuditFile | StandardOutput, client: str = "") -> None:
        self._file = file
        self._client = client
        #: A line stays until it is written, or lost.
        self._queue: deque[str] = deque()
        #: Set when there is a line to write, or when no more lines come.
        self._wake = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._closed = trio.Event()
        self._lost = 0
        #: How many of the lost ones the log has not been told of.
        self._unreported = 0
        self._quiet_until = 0.0

    def put(self, event: Event) -> None:
        """Subscribe this to `VisitorClosed`: each becomes a line, unless the queue is full."""
        if not isinstance(event, VisitorClosed):
            return
        if len(self._queue) >= limits.AUDIT_QUEUE:
            self._lose(1, "the disk is too slow")
            return
        if not self._queue:
            self._wake.set()
        self._queue.append(_line(time.time(), event, self._client))

    @property
    def stuck(self) -> bool:
        """True if a thread may still be writing though the writing task has given up."""
        return bool(self._queue)

    @asynccontextmanager
    async def written(self) -> AsyncIterator[None]:
        """Write what is put during the block; at its end, what is left of it.

        The end takes at most `limits.AUDIT_FLUSH_TIMEOUT` seconds, also if the block was cancelled.
        What the block raises comes out as it was raised.
        """
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(self._run)
            try:
                yield
            finally:
                self._close()

    def _close(self) -> None:
        """No more events come; `_run` writes what is there, as long as the disk lets it."""
        self._closed.set()
        self._scope.deadline = trio.current_time() + limits.AUDIT_FLUSH_TIMEOUT
        self._wake.set()

    async def _run(self) -> None:
        """Write until closed. It is shielded, since connections end, and are put, later."""
        with self._scope:
            while self._queue or not self._closed.is_set():
                if not self._queue:
                    await self._wake.wait()
                self._wake = trio.Event()
                await self._write_batch()
                # To have a thread do something costs as much as a connection does.
                with trio.move_on_after(limits.AUDIT_INTERVAL):
                    await self._closed.wait()
        if self.stuck:
            self._quiet_until = 0.0
            self._lose(len(self._queue), "the disk did not take them in time")

    async def _write_batch(self) -> None:
        batch = tuple(self._queue)
        lost, self._lost = self._lost, 0
        if not batch:
            return
        note = [json.dumps({"time": _stamp(time.time()), "lost": lost})] if lost else []
        text = "\n".join([*note, *batch, ""])
        try:
            await trio.to_thread.run_sync(self._file.write, text.encode(), abandon_on_cancel=True)
        except OSError as error:
            self._lost += lost
            self._lose(len(batch), error.strerror or str(error))
        for _ in batch:
            self._queue.popleft()

    def _lose(self, count: int, reason: str) -> None:
        self._lost += count
        self._unreported += count
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + limits.SHORTAGE_REMINDER
            logger.error(
                "Audit records lost", extra={"records": self._unreported, "reason": reason}
            )
            self._unreported = 0


class StandardOutput:
    """The standard output, in the place of a file."""

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
          OSError: it cannot be written.
        """
        _write_all(sys.stdout.fileno(), data)

    def close(self) -> None:
        """Leave it open: it is the process's."""


class AuditFile:
    """A file that may be moved away at any time, as logrotate does; a new one is then begun.

    Args:
      path: where it is.

    Raises:
      OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._open()
        #: A line was begun, and the disk did not take the rest of it.
        self._torn = False

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, data: bytes) -> None:
        """Append all of it, whole lines.

        Raises:
          OSError: it cannot be written, at least not all of it.
        """
        self._reopen_if_moved()
        data = b"\n" * self._torn + data
        self._torn = True
        _write_all(self._descriptor, data)
        self._torn = False

    def _reopen_if_moved(self) -> None:
        """See that what is open is what the path names."""
        here = os.fstat(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(here, self._path.stat()):
                return
        try:
            descriptor = self._open()
        except OSError:
            if not here.st_nlink:
                raise
            return  # It was moved away, and a new one cannot be made: the old one still exists.
        os.close(self._descriptor)
        self._descriptor, self._torn = descriptor, False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _line(at: float, event: VisitorClosed, client: str) -> str:
    # A quarter of the time that `json.dumps` takes, and there is one for each connection. Texts are
    # JSON's, and ASCII: whatever a name has in it, a line is a line.
    connection = "null" if event.connection is None else _text(event.connection)
    return (
        f'{{"time": "{_stamp(at)}", "connection": {connection}, '
        f'"client": {_text(event.client or client)}, "proxy": {_text(event.proxy)}, '
        f'"visitor": {_text(str(event.visitor))}, '
        f'"sent": {event.sent}, "received": {event.received}, '
        f'"duration": {event.duration:.6f}, "end": {_text(event.how)}}}'
    )


def _stamp(at: float) -> str:
    second, micros = divmod(int(at * 1e6), 1_000_000)
    return f"{_second(second)}.{micros:06}Z"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}"
