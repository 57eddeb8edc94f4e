"""The hops between a session of the server and its port, seen in a session that really runs.

A hop is a frame of a function of ours (the package `tunnel`); those of Trio and of the standard
library are not counted. On the way in they are the frames that are under way when the port is
bound, from `serve_client` on; a task goes on where it was started. The way out has two parts. From
the loss of the link to the free port they are the frames that see the link's end, those that cancel
the task which has the port, and those that are left when it closes the socket. From there to the
log line they are those in which the line is written.
"""

from __future__ import annotations

import itertools
import logging
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import attrs
import trio

import tunnel
from tests.rig import is_free, proxy, world
from tunnel.net.link import Link

PACKAGE = Path(tunnel.__file__).parent
#: Where each chain begins, and what is written to the log when a session has ended.
START, FAREWELL = "serve_client", "Client disconnected"
#: So many frames may be between `serve_client` and either end, in so many files, its own included.
FRAMES, FILES = 3, 4
#: A part of a function that the interpreter may run in a frame of its own.
_INLINE = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
#: Seconds that a session may take to come up and to go.
PATIENCE = 20.0


@attrs.frozen
class Hop:
    """A function, and the line that it was at."""

    code: CodeType = attrs.field(repr=False)
    line: int = attrs.field(eq=False)

    @property
    def file(self) -> str:
        """Its file, from the root of the project."""
        return Path(self.code.co_filename).relative_to(PACKAGE.parent).as_posix()

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.code.co_qualname}"


@attrs.frozen
class Chain:
    """The hops from `serve_client`, which comes first, to one of the ends."""

    title: str
    hops: tuple[Hop, ...]

    @property
    def frames(self) -> int:
        """How many are between."""
        return len(self.hops) - 1

    @property
    def files(self) -> int:
        """In how many files one reads."""
        return len({hop.file for hop in self.hops})

    @property
    def short(self) -> bool:
        """True if it is no longer than it may be; a chain that was not seen is not."""
        return bool(self.hops) and self.frames <= FRAMES and self.files <= FILES

    def __str__(self) -> str:
        lines = [f"{self.title}: {self.frames} frames between, {self.files} files"]
        return "\n    ".join([*lines, *map(str, self.hops)])


def measure(certificate: Path) -> tuple[Chain, Chain, Chain]:
    """Run a session from its beginning to its end; the way in, and both parts of the way out.

    Args:
      certificate: a directory with cert.pem, key.pem and ca.pem.
    """
    watch = Watch()
    with watch.installed():
        trio.run(_session, certificate, watch, instruments=[watch])
    return (
        Chain(f"{START} -> bind", watch.bound),
        Chain("link lost -> port free", watch.freed),
        Chain(f"port free -> log line {FAREWELL!r}", watch.logged),
    )


async def _session(certificate: Path, watch: Watch) -> None:
    """A client publishes a port and goes; the port is free when the server says so."""
    with trio.fail_after(PATIENCE):
        async with world(certificate) as place:
            await place.start_server()
            service = await place.start_service()
            async with trio.open_nursery() as clients:
                place.nursery = clients
                client = await place.start_client(proxy(service))
                [address] = client.statistics()[0].addresses
                clients.cancel_scope.cancel()
            while not watch.logged:
                await trio.lowlevel.checkpoint()
            assert is_free(address)


class Watch(trio.abc.Instrument, logging.Handler):
    """Looks at what happens in one run of Trio, and remembers the chains.

    It is an instrument, since a task is followed back to where it was started; a handler of log
    records; and it stands in front of what it looks at while it is `installed`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bound: tuple[Hop, ...] = ()
        self.freed: tuple[Hop, ...] = ()
        self.logged: tuple[Hop, ...] = ()
        self._lost: tuple[Hop, ...] = ()
        self._started: dict[trio.lowlevel.Task, tuple[Hop, ...]] = {}
        self._listeners: list[object] = []
        self._cancelled: list[tuple[trio.CancelScope, tuple[Hop, ...]]] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Look within this block."""
        logger = logging.getLogger(PACKAGE.name)
        level = logger.level
        with (
            audited("socket.bind", self._bind),
            preceded(socket.socket, "close", self._close),
            preceded(trio.CancelScope, "cancel", self._cancel),
            followed(Link, "run", self._lose),
        ):
            logger.addHandler(self)
            logger.setLevel(logging.INFO)
            try:
                yield
            finally:
                logger.removeHandler(self)
                logger.setLevel(level)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Called by Trio on the stack of what starts the task."""
        self._started[task] = self._way_here()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging` on the stack of what writes the line."""
        if record.getMessage() == FAREWELL:
            self.logged = _from_start(_unfinished())

    def _bind(self, sock: object, _: object) -> None:
        if way := _from_start(self._way_here()):
            self._listeners.append(sock)
            self.bound = max(self.bound, way, key=len)

    def _lose(self, _: Link) -> None:
        self._lost = self._lost or _from_start(self._way_here())

    def _cancel(self, scope: trio.CancelScope) -> None:
        if self._lost:
            self._cancelled.append((scope, _from_start(_unfinished())))

    def _close(self, sock: object) -> None:
        if any(sock is listener for listener in self._listeners) and not self.freed:
            scopes = list(_scopes(trio.lowlevel.current_task()))
            ways = [way for scope, way in self._cancelled if scope in scopes]
            # Each function once: that a task goes back through those that it came by is no hop.
            hops = itertools.chain(self._lost, *ways, _from_start(_unfinished()))
            self.freed = tuple(dict.fromkeys(hops))

    def _way_here(self) -> tuple[Hop, ...]:
        """The frames that led here, those included that have started a task and returned since."""
        try:
            task = trio.lowlevel.current_task()
        except RuntimeError:  # Trio itself starts the first one
            return ()
        return self._started.get(task, ()) + _stack()


def _from_start(way: tuple[Hop, ...]) -> tuple[Hop, ...]:
    """From `serve_client` on; nothing if the way does not pass there."""
    names = [hop.code.co_name for hop in way]
    return way[names.index(START) :] if START in names else ()


def _stack() -> tuple[Hop, ...]:
    """The frames under way in this thread, the outermost first."""
    found = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        found.append((frame, frame.f_lineno))
        frame = frame.f_back
    return _hops(reversed(found))


def _unfinished() -> tuple[Hop, ...]:
    """The frames that are not over in this task and in those whose nurseries it lives in."""
    way = _stack()
    nursery = trio.lowlevel.current_task().parent_nursery
    while nursery is not None:
        task = nursery.parent_task
        way = _hops(task.iter_await_frames()) + way
        nursery = task.parent_nursery
    return way


def _hops(frames: Iterable[tuple[FrameType, int]]) -> tuple[Hop, ...]:
    return tuple(
        Hop(frame.f_code, line)
        for frame, line in frames
        if PACKAGE in Path(frame.f_code.co_filename).parents and frame.f_code.co_name not in _INLINE
    )


def _scopes(task: trio.lowlevel.Task) -> Iterator[trio.CancelScope]:
    """The cancel scopes that the task is in now, which Trio does not tell in a public way."""
    status: Any = task._cancel_status
    while status is not None:
        yield status._scope
        status = status._parent


# --- To stand in front of what happens --------------------------------------------------------


@contextmanager
def preceded(kind: type, method: str, look: Callable[[Any], None]) -> Iterator[None]:
    """Within this block every call of a method calls `look` with the object first."""
    original = getattr(kind, method)

    def call(self: object, *arguments: object, **options: object) -> object:
        look(self)
        return original(self, *arguments, **options)

    with mock.patch.object(kind, method, call):
        yield


@contextmanager
def followed(kind: type, method: str, look: Callable[[Any], None]) -> Iterator[None]:
    """Within this block `look` is called with the object when an async method of it is over."""
    original = getattr(kind, method)

    async def call(self: object, *arguments: object, **options: object) -> object:
        try:
            return await original(self, *arguments, **options)
        finally:
            look(self)

    with mock.patch.object(kind, method, call):
        yield


@contextmanager
def audited(event: str, look: Callable[..., None]) -> Iterator[None]:
    """Within this block `look` is called at an audit event of Python's, such as a system call."""
    within = True

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if within and name == event:
            look(*arguments)

    sys.addaudithook(hook)  # it cannot be taken away again
    try:
        yield
    finally:
        within = False
