"""A progress bar on a terminal, lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Self, TextIO

BAR = 24


class Progress:
    """How far a run is, how long it has taken and how long it will."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.total = 0
        self._stream = sys.stderr if stream is None else stream
        self._bar = self._stream.isatty()
        self._begun = time.monotonic()
        self._done = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._stream.write("\r\x1b[K")

    def step(self, text: str) -> None:
        """The former step is done, this one begins."""
        self._done += 1
        self.say(text)

    def say(self, text: str, *, keep: bool = False) -> None:
        """Show what happens now; `keep` leaves it on the screen."""
        if not self._bar:
            self._stream.write(f"{self.times()}  {text}\n")
        elif keep:
            self._stream.write(f"\r\x1b[K{text}\n")
        else:
            done = max(self._done, 0)
            filled = BAR * done // max(self.total, 1)
            line = f"[{'#' * filled}{'.' * (BAR - filled)}] {self.times()}  {text}"
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + line[:width])
        self._stream.flush()

    def times(self) -> str:
        """Elapsed, and about how much in all."""
        elapsed = time.monotonic() - self._begun
        if self._done < 1:
            return clock(elapsed)
        return f"{clock(elapsed)} of about {clock(elapsed * self.total / self._done)}"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
