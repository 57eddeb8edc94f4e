"""The command line of `tests/structure.py`."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.rig import make_certificate
from tests.tree import hops
from tests.tree.figures import Figures, measure, percentile90
from tests.tree.history import BEFORE, ROOT, NoSuchCommit, checkout
from tests.tree.imports import ALLOWED_CIRCLES
from tests.tree.vanished import read_successors, vanished, written_tests

#: A tenth of all functions may be longer than so many lines.
PERCENTILE90 = 18
SUCCESSORS = ROOT / "tests" / "successors.toml"


#: The table of `--figures`: what a line is called, and what stands in it.
LINES: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("modules", lambda found: f"{found.modules}"),
    ("lines", lambda found: f"{found.lines}"),
    ("functions", lambda found: f"{len(found.functions)}"),
    ("function length, median", lambda found: f"{statistics.median(found.functions):g}"),
    ("function length, 90th percentile", lambda found: f"{percentile90(found.functions)}"),
    ("the same without docstrings", lambda found: f"{percentile90(found.bodies)}"),
    ("function length, longest", lambda found: f"{found.functions[-1]}"),
    ("circles of imports", lambda found: f"{len(found.circles)}"),
    ("comments and docstrings to code", lambda found: f"{found.share:.0%}"),
)


def show_hops() -> bool:
    """Print the hops; False if there are too many."""
    with tempfile.TemporaryDirectory() as directory:
        chains = hops.measure(make_certificate(Path(directory)))
    for chain in chains:
        print(f"{chain}\n")
    for way, parts in (("in", chains[:1]), ("out", chains[1:])):
        frames, files = (
            max(values) for values in zip(*((c.frames, c.files) for c in parts), strict=True)
        )
        print(
            f"hops {way}: {frames} frames between (at most {hops.FRAMES}), "
            f"{files} files (at most {hops.FILES})"
        )
    return all(chain.short for chain in chains)


def show_figures(before: str) -> bool:
    """Print the figures at that commit and now; False if a promise is missed now."""
    with checkout(before, "tunnel") as directory:
        former = measure(directory / "tunnel")
    now = measure(ROOT / "tunnel")
    print(f"{'':40}{before[:10]:>12}{'now':>12}")
    for title, cell in LINES:
        print(f"{title:40}{cell(former):>12}{cell(now):>12}")
    forbidden = now.circles - ALLOWED_CIRCLES
    for circle in now.circles:
        verdict = "not allowed" if circle in forbidden else "allowed"
        print(f"circle ({verdict}): {', '.join(sorted(circle))}")
    print(f"circles that are not allowed: {len(forbidden)}")
    length = percentile90(now.functions)
    print(f"90th percentile: {length} lines (at most {PERCENTILE90})")
    return not forbidden and length <= PERCENTILE90


def show_vanished(base: str) -> bool:
    """Print what became of the tests of that commit; False if that is not known of each."""
    with checkout(base, "tests") as directory:
        before = written_tests(directory)
    gone = vanished(before, written_tests(ROOT), read_successors(SUCCESSORS))
    for line, count in Counter(_told(*entry) for entry in gone.items()).items():
        print(line if count == 1 else f"{line} ({count} tests)")
    lost = sum(heir is None for heir in gone.values())
    print(f"{len(before)} tests at {base[:10]}, {len(gone)} vanished, without successor: {lost}")
    return not lost


def _told(test: str, heir: str | None) -> str:
    """What has become of a test; one that is called as before is told with its whole file."""
    if heir is None:
        return f"{test} -> NO SUCCESSOR"
    file, _, name = test.partition("::")
    new_file, _, new_name = heir.partition("::")
    return f"{file} -> {new_file}" if name == new_name else f"{test} -> {heir}"


def main(description: str, arguments: Sequence[str] | None = None) -> None:
    """Print what is asked for, and exit with 1 if it is not as promised; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="structure.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--figures", action="store_true", help="figures, now and before")
    what.add_argument("--tests", metavar="BASE", help="tests that vanished since this commit")
    parser.add_argument(
        "--before", metavar="REV", default=BEFORE, help="for --figures; default: %(default)s"
    )
    options = parser.parse_args(arguments)
    try:
        if options.figures:
            held = show_figures(options.before)
        elif options.tests:
            held = show_vanished(options.tests)
        else:
            held = show_hops()
    except NoSuchCommit as error:
        sys.exit(str(error))
    sys.exit(not held)
