"""Why a port cannot be had, and which program has it, as far as proc(5) tells this user."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from tunnel import remedies
from tunnel.model import Address

#: The state of a socket that listens, in /proc/net/tcp.
_LISTENS = "0A"
#: The first port that is not privileged, unless the system was told otherwise.
_FIRST_FREE_PORT = 1024


def cannot_listen(error: OSError, place: Address, keys: str = "bind") -> str:
    """Why it is not possible to listen there, and what to do about it, as one line.

    Args:
      error: what came of trying.
      place: where.
      keys: what the configuration's keys for the place begin with.
    """
    owner: str | None = None
    match error.errno:
        case errno.EADDRINUSE:
            told = remedies.PORT_TAKEN
            owner = port_owner(place.port)
        case errno.EACCES:
            told = remedies.PORT_PRIVILEGED
        case errno.EADDRNOTAVAIL:
            told = remedies.NO_SUCH_ADDRESS
        case _:
            told = remedies.CANNOT_LISTEN
    return told.text(
        place=place,
        host=place.host,
        holder=owner or "another program",
        reason=error.strerror or str(error),
        first=_FIRST_FREE_PORT,
        bind_addr=f"{keys}_addr",
        bind_port=f"{keys}_port",
    )


def port_owner(port: int, proc: Path = Path("/proc")) -> str | None:
    """The program that listens on a TCP port, such as "nginx (process 812)"; None if unknown.

    Args:
      port: on whatever address.
      proc: where proc(5) is mounted.
    """
    wanted = {f"socket:[{inode}]" for inode in _listeners(port, proc)}
    if not wanted:
        return None
    for process in proc.glob("[0-9]*"):
        # Processes end while they are looked at, and those of others are not ours to look into.
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) in wanted for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text(errors="replace").strip()
                return f"{name} (process {process.name})"
    return None


def _listeners(port: int, proc: Path) -> Iterator[str]:
    """The inodes of sockets that listen on a port."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                    yield words[9]
