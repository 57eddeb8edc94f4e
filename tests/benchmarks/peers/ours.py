"""This tunnel, as `tls-tunnel init` configures it; only a lost link is dialled after 1 s, not 5."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.peers.peer import Command, Peer, Place
from tunnel import __version__

ROOT = Path(__file__).parents[3]
#: Where `make bench` puts a copy of this tree with its engine compiled.
COMPILED = ROOT / "build" / "compiled"


class Ours(Peer):
    """Server and client of this repository, with the Python that runs the benchmark."""

    name = "tls-tunnel"
    install = "make demo"

    def __init__(self, root: Path = ROOT, name: str = name) -> None:
        self.name = name
        self._root = root

    def missing(self) -> str | None:
        return None if self._root.is_dir() else f"no copy in {self._root} (make bench makes it)"

    def version(self) -> str:
        run = ("git", "-C", str(self._root), "describe", "--always", "--dirty")
        done = subprocess.run(run, capture_output=True, text=True)
        words = [__version__, done.stdout.strip(), f"on Python {platform.python_version()}"]
        if any(self._root.glob("tunnel/yamux/connection.*.so")):
            words.append("(engine compiled)")
        return " ".join(filter(None, words))

    def prepare(self, place: Place) -> None:
        address = f"{place.server_host}:{place.server_port}"
        run = ("tunnel", "init", str(place.directory), "--server", address)
        subprocess.run(
            [sys.executable, "-m", *run], check=True, cwd=self._root, stdout=subprocess.DEVNULL
        )
        _edit(place, "server", '# bind_addr = "*"', f'bind_addr = "{place.server_host}"')
        dialled = f"server_port = {place.dialled_port}\nreconnect_delay = 1"
        _edit(place, "client", f"server_port = {place.server_port}", dialled)
        path = place.directory / "client.toml"
        head = path.read_text().partition("\n[[")[0]
        path.write_text(head + "".join(_proxy(place, *ports) for ports in place.published))

    def servers(self, place: Place) -> Sequence[Command]:
        return [self._command(place, "server")]

    def clients(self, place: Place) -> Sequence[Command]:
        return [self._command(place, "client")]

    def _command(self, place: Place, side: str) -> Command:
        argv = (sys.executable, "-m", "tunnel", side, "-c", str(place.directory / f"{side}.toml"))
        state = str(place.directory / "state")
        return Command(argv, {"XDG_STATE_HOME": state, "PYTHONPATH": str(self._root)})


def _edit(place: Place, side: str, former: str, wanted: str) -> None:
    path = place.directory / f"{side}.toml"
    text = path.read_text()
    assert former in text, f"{former!r} is not in {path}"
    path.write_text(text.replace(former, wanted, 1))


def _proxy(place: Place, published: int, local: int) -> str:
    return (
        f'\n[[proxies]]\nname = "port-{published}"\npublish_addr = "{place.server_host}"\n'
        f"publish_port = {published}\nlocal_port = {local}\n"
    )
