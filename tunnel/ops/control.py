"""Talking to a running program: one question and one answer over a Unix socket that is its own.

A user that may write into the program's state directory may ask: the file system decides, no port
is open, and no process is mistaken for another, since a socket file whose program has ended refuses
connections.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from tunnel import limits
from tunnel.errors import StoreError

logger = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]
_LONGEST_QUESTION: Final = 64


def control_path(state_dir: Path, source: Path) -> Path:
    """Where the program listens that runs with this configuration file.

    Args:
      state_dir: the program's state directory.
      source: the configuration file; a relative path is from the working directory.
    """
    digest = hashlib.sha256(os.fsencode(os.path.abspath(source))).hexdigest()
    return state_dir / f"control-{digest[:16]}.sock"


def ask(path: Path, question: str) -> Json:
    """Ask the program that listens there; blocks, for at most `limits.CONTROL_TIMEOUT` seconds.

    Args:
      path: see `control_path`.
      question: a word.

    Raises:
      StoreError: none does, or it gives no answer.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise StoreError("this system has no Unix sockets: restart the program")
    try:
        with _short(path) as name, socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(limits.CONTROL_TIMEOUT)
            sock.connect(name)
            sock.sendall(question.encode() + b"\n")
            with sock.makefile("rb") as answer:
                found = json.loads(answer.readline())
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise StoreError(f"no program that runs with this file listens at {path}") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"no answer from {path}: {error}") from error
    if not isinstance(found, dict):
        raise StoreError(f"no answer from {path}: this is not tls-tunnel")
    return found


async def serve_control(path: Path, answer: Callable[[str], Awaitable[Json]]) -> None:
    """Answer questions until cancelled. If it cannot listen, it logs a warning and returns.

    Args:
      path: where to listen; in a directory that only this user can write to.
      answer: gives the answer to one question. What it raises ends this.
    """
    try:
        listener = _listen(path)
    except OSError as error:
        logger.warning(
            "Cannot be asked",
            extra={
                "path": path,
                "reason": error.strerror or str(error),
                "consequence": "tls-tunnel reload does not reach this program; SIGHUP does",
            },
        )
        return

    async def converse(stream: trio.SocketStream) -> None:
        await _answer(stream, answer)

    with _removed_afterwards(path), listener:
        sock = trio.socket.from_stdlib_socket(listener)
        await trio.serve_listeners(converse, [trio.SocketListener(sock)])


async def _answer(stream: trio.SocketStream, answer: Callable[[str], Awaitable[Json]]) -> None:
    question = b""
    with trio.move_on_after(limits.CONTROL_TIMEOUT):
        with contextlib.suppress(trio.BrokenResourceError):
            while not question.endswith(b"\n") and len(question) <= _LONGEST_QUESTION:
                if not (piece := await stream.receive_some(_LONGEST_QUESTION)):
                    return
                question += piece
            said = await answer(question.decode(errors="replace").strip())
            await stream.send_all(json.dumps(said).encode() + b"\n")
    await stream.aclose()


def _listen(path: Path) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no Unix sockets")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as name:
            _clear(path, name)
            sock.bind(name)
            os.chmod(name, 0o600)  # Before it listens, so that no other user is ever let in.
        sock.listen()
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _removed_afterwards(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _clear(path: Path, name: str) -> None:
    """Remove the socket file of a program that was killed; OSError if one listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(name)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError("another program runs with the same file")


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for a socket, however long its path is: names may have 107 bytes (unix(7))."""
    if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
