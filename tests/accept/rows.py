"""A list of what must hold: each row is a command, a figure in what it prints, and a limit."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping

import attrs


@attrs.frozen
class Limit:
    """What a figure must be."""

    text: str
    holds: Callable[[float], bool]


def at_most(most: float, unit: str = "") -> Limit:
    """No more than that."""
    return Limit(f"<= {most:g} {unit}".rstrip(), lambda found: found <= most)


def at_least(least: float, unit: str = "") -> Limit:
    """No less than that."""
    return Limit(f">= {least:g} {unit}".rstrip(), lambda found: found >= least)


def exactly(wanted: float, unit: str = "") -> Limit:
    """That, and nothing else."""
    return Limit(f"= {wanted:g} {unit}".rstrip(), lambda found: found == wanted)


class When(enum.Enum):
    """When a row is measured."""

    ALWAYS = "always"
    #: With FULL=1; what it says means nothing in a few seconds, or on a machine that does other work.
    FULL = "with FULL=1 only"


@attrs.frozen
class Row:
    """One thing that must hold.

    Args:
      name: what it is about.
      command: the program and its arguments; "python" is the Python that runs this.
      figure: finds the figure in what the command prints: its last match counts, and the only group
        in it is the figure. None is the seconds that the command took.
      limit: what the figure must be.
      environ: added to the environment.
      needs: files without which the command would measure something else, from the root.
      when: when it is measured.
      may_fail: the command's exit code says nothing else than the figure does.
    """

    name: str
    command: tuple[str, ...]
    figure: re.Pattern[str] | None
    limit: Limit
    environ: Mapping[str, str] = attrs.field(factory=dict)
    needs: tuple[str, ...] = ()
    when: When = When.ALWAYS
    may_fail: bool = False


#: In the last line of pytest's.
PASSED = re.compile(r"\b(\d+) passed\b")


def tests(name: str, *paths: str, **more: object) -> Row:
    """A row whose command is pytest: some pass, none fails, and none is skipped."""
