"""The faults of one text: collected while it is read, then reported to people and to programs.

Reading goes on after a fault, so that one run names all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import attrs

from tunnel.config.locate import Lines, Path
from tunnel.config.schema import Kind
from tunnel.errors import Fault

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@attrs.define(eq=False)
class Notes:
    """Errors and warnings about one text, with the lines where they are.

    Args:
      lines: where the text has its keys.
    """

    _lines: Lines
    _errors: list[Fault] = attrs.Factory(list)
    _warnings: list[Fault] = attrs.Factory(list)

    def error(self, path: Path, message: str) -> None:
        """Note what keeps the configuration from being used, about the key at `path`."""
        self._errors.append(self._fault(path, message))

    def warn(self, path: Path, message: str) -> None:
        """Note what may surprise, about the key at `path`."""
        self._warnings.append(self._fault(path, message))

    def error_outside(self, name: str, message: str) -> None:
        """Note an error that is in no file, such as one in the environment's variable `name`."""
        self._errors.append(Fault(None, name, message))

    def warn_outside(self, name: str, message: str) -> None:
        """Note a warning that is in no file."""
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


@attrs.frozen
class Report:
    """Whose file it is (None if it is of neither program), and every fault in it."""

    kind: Kind | None
    errors: tuple[Fault, ...]
    warnings: tuple[Fault, ...]

    @property
    def valid(self) -> bool:
        """True if the file can be used; it may still have warnings."""
        return not self.errors

    def as_json(self) -> dict[str, Any]:
        """The report as `check --format json` prints it."""
        return {
            "valid": self.valid,
            "config_type": self.kind.value if self.kind else "unknown",
            "errors": _objects(self.errors),
            "warnings": _objects(self.warnings),
        }

    def as_text(self, source: str) -> str:
        """One line for each fault, as compilers write them, and one that sums up."""
        lines = [fault.text(source) for fault in self.errors]
        lines += [
            attrs.evolve(fault, message=f"warning: {fault.message}").text(source)
            for fault in self.warnings
        ]
        whose = f"a {self.kind}'s configuration" if self.kind else "no configuration of tls-tunnel"
        count = len(self.errors)
        verdict = "valid" if self.valid else f"{count} error{'s' * (count != 1)}"
        return "\n".join([*lines, f"{source}: {whose}, {verdict}"])


def _objects(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    return [attrs.asdict(fault) for fault in faults]
