from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.tree import command, history
from tests.tree.figures import Figures
from tests.tree.history import ROOT, NoSuchCommit, checkout
from tests.tree.hops import FRAMES, Chain
from tests.tree.test_hops import hop


def run(capsys, *arguments):
    """The exit code and what was printed."""
    with pytest.raises(SystemExit) as ended:
        command.main("What it does.", arguments)
    return ended.value.code, capsys.readouterr().out


def figures(longest=1, circles=()):
    return Figures(1, 10, 8, 2, (longest,), frozenset(map(frozenset, circles)))


@pytest.fixture
def no_history(monkeypatch, tmp_path):
    """Every commit is an empty directory: no repository is needed."""

    @contextmanager
    def nothing(*_):
        yield tmp_path

    monkeypatch.setattr(command, "checkout", nothing)


@pytest.fixture
def measured(monkeypatch, no_history):
    """Has `--figures` find those that are set in this list: before, and now."""
    found = []
    monkeypatch.setattr(command, "measure", lambda _: found.pop(0))
    return found


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (figures(), 0),
        (figures(command.PERCENTILE90), 0),
        (figures(command.PERCENTILE90 + 1), 1),
        (figures(circles=[("tunnel.a", "tunnel.b")]), 1),
        (figures(circles=command.ALLOWED_CIRCLES), 0),
    ],
)
def test_the_verdict_is_on_what_is_now(capsys, measured, now, code):
    measured[:] = [figures(1000, [("tunnel.c", "tunnel.d")]), now]
    found, printed = run(capsys, "--figures")
    assert found == code
    assert f"90th percentile: {now.percentile90} lines" in printed


@pytest.mark.parametrize(("length", "code"), [(0, 1), (2, 0), (FRAMES + 2, 1)])
def test_the_verdict_on_hops(capsys, monkeypatch, length, code):
    chain = Chain("way", tuple(map(hop, range(length))))
    good = Chain("way", (hop(1), hop(2)))
    monkeypatch.setattr(command.hops, "measure", lambda _: [good, good, chain])
    found, printed = run(capsys)
    assert found == code
    assert f"hops in: 1 frames between (at most {FRAMES}), 1 files" in printed


def test_the_verdict_on_vanished_tests(capsys, monkeypatch, no_history):
    trees = [{"a.py::test_x", "a.py::test_y"}, {"b.py::test_x", "b.py::test_y"}] * 2
    monkeypatch.setattr(command, "written_tests", lambda _: trees.pop(0))
    tables = [{"a.py": "b.py"}, {"a.py::test_x": "b.py::test_x"}]
    monkeypatch.setattr(command, "read_successors", lambda _: tables.pop(0))
    code, printed = run(capsys, "--tests", "HEAD")
    assert code == 0
    assert "a.py -> b.py (2 tests)" in printed
    code, printed = run(capsys, "--tests", "HEAD")
    assert code == 1
    assert "a.py::test_y -> NO SUCCESSOR" in printed
    assert "without successor: 1" in printed


def test_a_commit_that_is_not_there():
    with pytest.raises(NoSuchCommit, match="0123456"):
        with checkout("0123456789"):
            pass


def test_files_of_another_commit(tmp_path, monkeypatch):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    git("init", "--quiet")
    (tmp_path / "file").write_text("old")
    (tmp_path / "other").touch()
    git("add", ".")
    git("commit", "--quiet", "--message", "One")
    (tmp_path / "file").write_text("new")
    monkeypatch.setattr(history, "ROOT", tmp_path)
    with checkout("HEAD", "file") as directory:
        assert (directory / "file").read_text() == "old"
        assert not (directory / "other").exists()


@pytest.mark.parametrize("start", [["tests/structure.py"], ["-m", "tests.structure"]])
def test_it_starts_in_either_way(start):
    done = subprocess.run(
        [sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert "--tests BASE" in done.stdout, done.stderr
