"""How the packages are parted: `make accept-house`."""

from __future__ import annotations

from tests.accept.rows import PASSED, Row, at_least, at_most, exactly, suite
from tests.tree.command import PERCENTILE90
from tests.tree.history import BEFORE
from tests.tree.hops import FILES, FRAMES

_HOPS = ("python", "tests/structure.py")
_FIGURES = (*_HOPS, "--figures")


def _hops(way: str) -> tuple[Row, Row]:
    """From a session of the server to its port, or from a lost link to the log line."""
    frames, files = rf"hops {way}: (\d+) frames", rf"hops {way}: .* (\d+) files"
    return (
        Row(f"hops {way}, frames", at_most(FRAMES), _HOPS, frames, exit_counts=False),
        Row(f"hops {way}, files", at_most(FILES), _HOPS, files, exit_counts=False),
    )


def _old_peer(side: str, other: str) -> Row:
    command = ("make", f"old-{side}")
    return Row(
        f"old {side} with new {other}, scenarios",
        at_least(1, "passed"),
        command,
        PASSED,
        short=(*command, "DRAW=5:{seed}"),
    )


ROWS = (
    *_hops("in"),
    *_hops("out"),
    Row(
        "circles of imports that are not named",
        exactly(0),
        _FIGURES,
        r"circles that are not allowed: (\d+)",
        exit_counts=False,
    ),
    Row(
        "function length, 90th percentile",
        at_most(PERCENTILE90, "lines"),
        _FIGURES,
        r"90th percentile: (\d+) lines",
        exit_counts=False,
    ),
    Row(
        f"tests vanished since {BEFORE} without a successor",
        exactly(0),
        (*_HOPS, "--tests", BEFORE),
        r"without successor: (\d+)",
    ),
    suite("every configuration key works at once or is announced", "tests/test_every_key.py"),
    _old_peer("server", "client"),
    _old_peer("client", "server"),
    Row(
        "scenario on combinations of engine, entry and carrier",
        at_least(1, "passed"),
        ("make", "matrix"),
        PASSED,
        short=("make", "matrix-drawn", "MATRIX_SEED={seed}"),
    ),
    Row(
        "tests skipped for a missing program under REQUIRE_ALL=1",
        exactly(0),
        ("python", "-m", "tests.accept.missing_programs"),
        r"skipped: (\d+)",
    ),
    Row(
        "the fast part of .ci/run",
        at_most(12 * 60, "s"),
        (".ci/run", "fast"),
        by_hand=True,
    ),
    Row(
        f"measurements slower than at {BEFORE}",
        exactly(0),
        ("make", "not-slower"),
        r"slower than before: (\d+)",
        by_hand=True,
    ),
)
