"""A list of rows, judged. `python -m tests.accept house`

Exits 1 unless every row that it ran holds. FULL=1 runs all rows; without it those that take long,
or a machine of their own, are left out or run in part, drawn with SEED.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
from collections.abc import Sequence
from pathlib import Path

from tests.accept.rows import Result, Row, Verdict, judge

HERE = Path(__file__).parent
#: How much of what a command printed is shown when its row is missed.
SHOWN_LINES = 30


def accept(rows: Sequence[Row], *, full: bool, seed: int) -> bool:
    """Judge the rows and print what came of them; False if one is missed."""
    print("FULL=1: every row" if full else f"short form, SEED={seed}; FULL=1 runs every row")
    print("row | limit | measured | verdict", flush=True)
    results = []
    for row in rows:
        results.append(judge(row, full=full, seed=seed))
        print(results[-1], flush=True)
    missed = [result for result in results if not result.verdict.good]
    _show_outputs(missed)
    left = sum(result.verdict is Verdict.NOT_RUN for result in results)
    if left:
        print(f"not run: {left}. Nothing is known of these until FULL=1 has run them.")
    print(f"{len(results) - left - len(missed)} rows ok, {len(missed)} missed, {left} not run")
    return not missed


def _show_outputs(missed: Sequence[Result]) -> None:
    """The end of what the commands of missed rows printed, each once."""
    for output, names in _by_output(missed).items():
        print(f"\n--- {', '.join(names)}")
        print("\n".join(output.splitlines()[-SHOWN_LINES:]))


def _by_output(missed: Sequence[Result]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in missed:
        if result.output:
            found.setdefault(result.output, []).append(result.row.name)
    return found


def lists() -> list[str]:
    """The names of the lists: the modules here that have `ROWS`."""
    return [path.stem for path in sorted(HERE.glob("*.py")) if "\nROWS" in path.read_text()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge the list that is named; see the module."""
    parser = argparse.ArgumentParser(
        prog="tests.accept",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=lists())
    name = parser.parse_args(arguments).name
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    rows = importlib.import_module(f"tests.accept.{name}").ROWS
    parser.exit(not accept(rows, full=os.environ.get("FULL") == "1", seed=seed))


if __name__ == "__main__":
    main()
