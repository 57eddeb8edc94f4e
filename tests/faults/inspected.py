"""Runs a Python program whose number of Trio tasks can be seen from outside.

As a prefix of its command, with a file for the number::

    python -m tests.faults.inspected FILE python -m tunnel server -c server.toml
"""

from __future__ import annotations

import functools
import mmap
import runpy
import struct
import sys
from pathlib import Path

import trio

_NUMBER = struct.Struct("=Q")


class TaskCount(trio.abc.Instrument):
    """Writes how many tasks there are, whenever the event loop has nothing to do."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_NUMBER.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _NUMBER.size)

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        """See `trio.abc.Instrument`."""
        _NUMBER.pack_into(self._map, 0, trio.lowlevel.current_statistics().tasks_living)


def tasks(path: Path) -> int:
    """How many tasks the program has."""
    return int(_NUMBER.unpack(path.read_bytes())[0])


def prefix(path: Path) -> tuple[str, ...]:
    """What goes before the command of a program."""
    return (sys.executable, "-m", "tests.faults.inspected", str(path))


def main() -> None:
    """Run the program that the arguments name."""
    path, _python, _m, module, *arguments = sys.argv[1:]
    trio.run = functools.partial(trio.run, instruments=[TaskCount(Path(path))])
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
