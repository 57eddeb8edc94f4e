"""Whose Yamux ours meets, and in what they differ as their users see it."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import pytest

PEERS = Path(__file__).parent / "peers"


@attrs.frozen
class Library:
    """Somebody else's Yamux, and how its peer program is started."""

    name: str
    tool: str
    built: Path
    command: tuple[str, ...]
    #: A reset looks like an end to its users.
    hides_resets: bool = False
    #: It tells the other side of a stream that has not been used.
    shows_unused_streams: bool = True
    #: Its users can ping.
    pings: bool = True
    #: Its users can announce the end of a session without ending it.
    announces: bool = True
    #: It announces the end of a session when it ends one.
    says_goodbye: bool = True
    #: Its users can end a session with a code.
    has_codes: bool = False

    def sees_reset_as(self, shown: str, hidden: str) -> str:
        """What its user is told of a reset: one of the two."""
        return hidden if self.hides_resets else shown

    def check(self) -> None:
        """Skip the test if the peer was not built."""
        if shutil.which(self.tool) is None:
            pytest.skip(f"the peer for {self.name} needs {self.tool}, which is not installed")
        if not self.built.exists():
            pytest.skip(f"the peer for {self.name} is not built: run `make interop`")


def _go(library: str, **traits) -> Library:
    program = PEERS / "go/build/peer"
    command = (str(program), "--library", library)
    return Library(library, "go", program, command, says_goodbye=False, **traits)


def _rust(version: str) -> Library:
    program = PEERS / "rust/build/debug/peer"
    command = (str(program), "--library", version)
    return Library(
        f"rust-{version}",
        "cargo",
        program,
        command,
        hides_resets=True,
        shows_unused_streams=False,
        pings=False,
        announces=False,
    )


def _node() -> Library:
    modules = PEERS / "node/node_modules"
    command = ("node", str(PEERS / "node/peer.js"))
    return Library("libp2p-js", "npm", modules, command, announces=False, has_codes=True)


LIBRARIES = (
    _go("hashicorp"),
    _go("libp2p-go", has_codes=True),
    _rust("0.13"),
    _rust("0.14"),
    _node(),
)
