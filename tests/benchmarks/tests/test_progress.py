from __future__ import annotations

import io

import pytest

from tests.benchmarks import progress
from tests.benchmarks.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand."""
    time = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


def test_clock():
    assert [clock(0), clock(59.9), clock(61), clock(3600)] == ["0:00", "0:59", "1:01", "60:00"]


def test_lines_where_there_is_no_terminal(now):
    stream = io.StringIO()
    with Progress(stream) as shown:
        shown.total = 4
        shown.step("one")
        now[0] += 10
        shown.step("two")
    assert stream.getvalue() == "0:00  one\n0:10 of about 0:40  two\n"


def test_a_bar_on_a_terminal(now):
    stream = Terminal()
    with Progress(stream) as shown:
        shown.total = 2
        shown.step("one")
        now[0] += 61
        shown.step("two")
    last = stream.getvalue().split("\r\x1b[K")[-2]
    assert last == f"[{'#' * 12}{'.' * 12}] 1:01 of about 2:02  two"


def test_the_bar_is_gone_at_the_end():
    stream = Terminal()
    with Progress(stream) as shown:
        shown.say("one")
    assert stream.getvalue().endswith("\r\x1b[K")


def test_failures_stay_on_the_screen():
    stream = Terminal()
    Progress(stream).say("FAILED", keep=True)
    assert stream.getvalue().endswith("FAILED\n")


def test_the_bar_fits(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    Progress(stream).say("x" * 100)
    assert len(stream.getvalue().removeprefix("\r\x1b[K")) == 39
