"""What must hold, as rows: each is a command, a figure in what it prints, and a limit to it."""

from __future__ import annotations

import enum
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]


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


@attrs.frozen
class Row:
    """One thing that must hold.

    Args:
      name: what it is about.
      limit: what the figure must be.
      command: a program and its arguments; "python" is the Python that runs this.
      figure: a regular expression whose only group is the figure; its last match in what the
        command prints counts. None: the figure is the seconds that the command takes.
      short: the command of the short form, if it is another one; "{seed}" in it is a number that
        decides what is drawn.
      by_hand: it is left out of the short form: it says something only on a machine that does
        nothing else, or takes too long.
      needs: a file or directory, from the root, without which there is nothing to run.
      exit_counts: whether the row is missed if the command fails, whatever the figure is. Not for a
        command that gives several figures and fails because of any.
    """

    name: str
    limit: Limit
    command: tuple[str, ...]
    figure: str | None = None
    short: tuple[str, ...] | None = None
    by_hand: bool = False
    needs: str | None = None
    exit_counts: bool = True


def suite(name: str, path: str) -> Row:
    """The row of a file of tests: some pass, and none is skipped or fails."""
    command = ("python", "-m", "pytest", "-q", "-n", "0", path)
    return Row(name, at_least(1, "passed"), command, PASSED, needs=path)


#: In the last line of pytest.
PASSED = r"\b(\d+) passed\b"
_SKIPPED = re.compile(r"\b\d+ skipped\b")


class Verdict(enum.Enum):
    """What came of a row."""

    OK = "ok"
    MISSED = "MISSED"
    FAILED = "MISSED: the command failed"
    SKIPPED = "MISSED: something was skipped"
    NO_FIGURE = "MISSED: no figure"
    ABSENT = "MISSED: nothing to run"
    NOT_RUN = "not run"

    @property
    def good(self) -> bool:
        """True unless the whole list is missed because of it."""
        return self in (Verdict.OK, Verdict.NOT_RUN)


@attrs.frozen
class Outcome:
    """What a command printed, how it ended, and how long it took in seconds."""

    output: str
    code: int
    seconds: float


@attrs.frozen
class Result:
    """A row with its verdict."""

    row: Row
    verdict: Verdict
    figure: float | None = None
    output: str = ""

    def __str__(self) -> str:
        measured = "-" if self.figure is None else f"{self.figure:g}"
        return f"{self.row.name} | {self.row.limit.text} | {measured} | {self.verdict.value}"


def judge(row: Row, *, full: bool, seed: int) -> Result:
    """Run a row's command, and say whether what it found is within the limit.

    Args:
      row: the row.
      full: run what is left out of the short form, and nothing in a shorter way.
      seed: decides what the short form draws.
    """
    if row.by_hand and not full:
        return Result(row, Verdict.NOT_RUN)
    command = row.command if full or row.short is None else row.short
    command = tuple(word.format(seed=seed) for word in command)
    if _absent(row, command[0]):
        return Result(row, Verdict.ABSENT)
    outcome = run(command)
    figure = _figure(row, outcome)
    return Result(row, _verdict(row, outcome, figure), figure, outcome.output)


def _absent(row: Row, program: str) -> bool:
    if program != "python" and shutil.which(program) is None:
        return True
    return row.needs is not None and not (ROOT / row.needs).exists()


@cache
def run(command: tuple[str, ...]) -> Outcome:
    """Run a command in the project's directory; the same command is run once for all its rows."""
    argv = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    print(f"... {' '.join(command)}", file=sys.stderr, flush=True)
    began = time.monotonic()
    done = subprocess.run(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = done.stdout.decode(errors="replace")
    return Outcome(text, done.returncode, time.monotonic() - began)


def _figure(row: Row, outcome: Outcome) -> float | None:
    if row.figure is None:
        return round(outcome.seconds, 3)
    found = re.findall(row.figure, outcome.output)
    return float(found[-1]) if found else None


def _verdict(row: Row, outcome: Outcome, figure: float | None) -> Verdict:
    if row.exit_counts and outcome.code != 0:
        return Verdict.FAILED
    if _SKIPPED.search(outcome.output):
        return Verdict.SKIPPED
    if figure is None:
        return Verdict.NO_FIGURE
    return Verdict.OK if row.limit.holds(figure) else Verdict.MISSED
