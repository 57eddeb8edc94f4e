"""What CI runs, with a `make` that only says what it was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.accept.rows import ROOT

MAKE = """#!/bin/sh
echo "make $* REQUIRE_ALL=$REQUIRE_ALL"
test "$*" != "$FAILING"
"""
INSTALLED = ["programs", ".venv/.installed", "interop-peers"]
FAST = ["test", "compiled", "interop", "docs"]


@pytest.fixture
def ci(tmp_path):
    """Runs .ci/run in a directory of its own; its exit code, and what it printed."""
    program = tmp_path / ".ci" / "run"
    program.parent.mkdir()
    shutil.copy(ROOT / ".ci" / "run", program)
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text(MAKE)
    make.chmod(0o755)

    def run(*arguments, failing=""):
        environ = os.environ | {"PATH": f"{make.parent}:{os.environ['PATH']}", "FAILING": failing}
        environ.pop("REQUIRE_ALL", None)
        done = subprocess.run([program, *arguments], env=environ, capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()

    return run


def made(lines):
    """The targets that were made, all with REQUIRE_ALL=1."""
    found = [line.split() for line in lines if line.startswith("make ") and "REQUIRE_ALL" in line]
    assert all(words[2:] == ["REQUIRE_ALL=1"] for words in found)
    return [words[1] for words in found]


def test_everything(ci):
    code, lines = ci()
    assert code == 0
    assert made(lines) == [*INSTALLED, *FAST, "accept-house"]
    for part in ("make test", "make docs", "fast", "make accept-house"):
        assert f"{part}: 0 s" in lines


def test_the_fast_part(ci):
    code, lines = ci("fast")
    assert code == 0
    assert made(lines) == [*INSTALLED, *FAST]


@pytest.mark.parametrize("target", [*INSTALLED, *FAST, "accept-house"])
def test_what_fails_fails_all(ci, target):
    code, lines = ci(failing=target)
    assert code != 0
    assert made(lines)[-1] == target
