"""What `tls-tunnel check` says about a file, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from tunnel.config.load import detect, examine
from tunnel.config.schema import Kind
from tunnel.errors import Fault


@attrs.frozen
class Report:
    """Whose file it is (None: nobody's), and every fault in it."""

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


def check(text: str, *, environ: Mapping[str, str]) -> Report:
    """Say everything that can be said about a configuration. Never raises."""
    kind = detect(text)
    found = examine(text, kind, environ)
    return Report(kind, tuple(found.errors), tuple(found.warnings))


def _objects(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    return [attrs.asdict(fault) for fault in faults]
