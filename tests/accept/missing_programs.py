"""Runs tests that need a program where there is none, with REQUIRE_ALL=1: each must fail.

`python -m tests.accept.missing_programs`; exits 1 unless there was such a test, and it failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

#: Tests that call programs; without REQUIRE_ALL they are skipped where these are not installed.
CALLERS = ("tests/ops/test_units.py", "tests/ops/test_metrics.py")


def main() -> None:
    """Print how many were skipped, and how many failed."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "0", *CALLERS],
            env=os.environ | {"PATH": empty, "REQUIRE_ALL": "1"},
            capture_output=True,
            text=True,
        )
    print(done.stdout)
    *_, summary = done.stdout.strip().splitlines() or [""]
    skipped, failed = (_count(word, summary) for word in ("skipped", "(?:failed|errors?)"))
    print(f"failed: {failed}, skipped: {skipped}")
    sys.exit(not failed)


def _count(word: str, summary: str) -> int:
    found = re.search(rf"(\d+) {word}", summary)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
