"""What the benchmarks need to know of a tunnel: its configuration, and how it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

#: Besides PATH: where distributions put servers, which are not on everybody's PATH.
SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find_program(name: str) -> str | None:
    """The absolute path of an executable, or None."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_PROGRAMS])
    return shutil.which(name, path=path)


@attrs.frozen
class Place:
    """Where one tunnel is set up.

    Every tunnel of a run has a `server_host` of its own, a literal address: the server listens
    there and nowhere else, and so do the published ports.
    """

    directory: Path
    """A fresh directory for its files."""
    server_host: str
    server_port: int
    published: tuple[tuple[int, int], ...]
    """Pairs: a port published on `server_host`, and the port of the local service on 127.0.0.1
    beside the client."""
    through: int | None = None
    """A port on `server_host` that the client dials instead of the server's (a forwarder)."""

    @property
    def dialled_port(self) -> int:
        """The port on `server_host` that the client must dial."""
        return self.server_port if self.through is None else self.through


@attrs.frozen
class Command:
    """A program to be started. It must stay in the foreground; `argv[0]` may be a bare name."""

    argv: tuple[str, ...]
    environ: Mapping[str, str] = attrs.field(factory=dict)
    """Added to the environment."""


class Peer(ABC):
    """A kind of tunnel. An instance has no state: all files are in the place's directory."""

    name: str
    """As in tables, and after `--peers`, where case and what is in brackets do not matter."""
    programs: tuple[str, ...] = ()
    """Executables that must be on PATH."""
    install: str = ""
    """One line: how people get it."""
    reconnects: bool = True
    """Whether a client comes back by itself when its link was cut."""
    ports: int = 100
    """How many ports one tunnel can reasonably publish."""
    server_port: int | None = None
    """The port that the server listens on, if it cannot be chosen."""

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        absent = [name for name in self.programs if find_program(name) is None]
        return f"no {', '.join(absent)} on PATH ({self.install})" if absent else None

    @abstractmethod
    def version(self) -> str:
        """Its version, as short as its authors write it."""

    @abstractmethod
    def prepare(self, place: Place) -> None:
        """Write configuration, keys and certificates into the place's directory."""

    @abstractmethod
    def servers(self, place: Place) -> Sequence[Command]:
        """The programs of the server's side; after them `server_port` accepts TCP."""

    @abstractmethod
    def clients(self, place: Place) -> Sequence[Command]:
        """The programs of the client's side; some tunnels need one for each port."""


def output_of(*argv: str) -> str:
    """What a program prints, on either stream: for `version`."""
    program = find_program(argv[0]) or argv[0]
    done = subprocess.run(
        [program, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=20,
    )
    return done.stdout.strip()
