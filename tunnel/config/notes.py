"""Collecting what is wrong and what is odd, so that a person hears of all of it at once."""

from __future__ import annotations

import re
from typing import Final

import attrs

from tunnel.config.locate import Lines, Path
from tunnel.errors import Fault

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@attrs.define(eq=False)
class Notes:
    """Errors and warnings about one text."""

    _lines: Lines
    _errors: list[Fault] = attrs.Factory(list)
    _warnings: list[Fault] = attrs.Factory(list)

    def error(self, path: Path, message: str) -> None:
        """Something that keeps the configuration from being used."""
        self._errors.append(self._fault(path, message))

    def warn(self, path: Path, message: str) -> None:
        """Something that may surprise."""
        self._warnings.append(self._fault(path, message))

    def error_outside(self, name: str, message: str) -> None:
        """An error that is in no file: in a variable of the environment, for one."""
        self._errors.append(Fault(None, name, message))

    def warn_outside(self, name: str, message: str) -> None:
        """The same as a warning."""
        self._warnings.append(Fault(None, name, message))

    def line(self, path: Path) -> int | None:
        """The line of a key, or of the table that it should be in."""
        return self._lines.line(path)

    @property
    def errors(self) -> list[Fault]:
        """The errors in the order of their lines, those without one last."""
        return sorted(self._errors, key=_order)

    @property
    def warnings(self) -> list[Fault]:
        """The warnings in the same order."""
        return sorted(self._warnings, key=_order)

    def _fault(self, path: Path, message: str) -> Fault:
        return Fault(self.line(path), dotted(path) or None, message)


def _order(fault: Fault) -> tuple[bool, int]:
    return (fault.line is None, fault.line or 0)


def dotted(path: Path) -> str:
    """A path as people write it: ``proxies[1].name``, with quotes where TOML needs them."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # repr() leaves no invisible character in a message.
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else repr(part))
    return text
