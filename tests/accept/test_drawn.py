from __future__ import annotations

import os
import subprocess
import sys

from tests.accept.rows import ROOT

TESTS = "\n".join(f"def test_{number}(): pass" for number in range(20))


def drawn(tmp_path, draw, *options):
    """The tests that ran, and the summary."""
    path = tmp_path / "test_many.py"
    path.write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "tests.accept.drawn", *options, str(path)],
        cwd=ROOT,
        env=os.environ | {"DRAW": draw},
        capture_output=True,
        text=True,
    )
    ran = {line.split("::")[1].split()[0] for line in done.stdout.splitlines() if "::test_" in line}
    return ran, done.stdout


def test_so_many_tests_are_drawn_with_a_seed(tmp_path):
    first, printed = drawn(tmp_path, "5:1", "-n", "0")
    assert len(first) == 5
    assert "5 passed, 15 deselected" in printed
    # However the tests are shuffled.
    assert drawn(tmp_path, "5:1", "-n", "0", "-p", "randomly", "--randomly-seed=7")[0] == first
    assert drawn(tmp_path, "5:2", "-n", "0")[0] != first


def test_workers_draw_the_same_and_more_than_there_are_is_all(tmp_path):
    assert "20 passed" in drawn(tmp_path, "99:1", "-n", "2")[1]
