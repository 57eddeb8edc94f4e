from __future__ import annotations

import html
import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tests.ops.statuses import connection, proxy, status
from tests.ops.test_top import HOSTILE, JSON, history
from tunnel.ops.topview import (
    _CONNECTIONS,
    _PROXIES,
    _SESSIONS,
    Screen,
    duration,
    shares,
    size,
    sparkline,
)

URL = "http://127.0.0.1:9090"


def shown(place, width=100, height=24, **more):
    """The lines of a screen as a terminal without colours shows them."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, color_system=None)
    console.print(Screen(place, URL, 2.0, **more).render(width, height))
    return file.getvalue().splitlines()


def test_a_busy_server():
    place = history(
        status(proxy(sent=0), proxy("数据库", client="home")),
        status(
            proxy(sent=4_000_000),
            proxy("数据库", client="home"),
            at=1002.0,
            connections=[connection(7)],
        ),
    )
    lines = shown(place)
    assert len(lines) == 24
    assert lines[0].startswith(f"tls-tunnel top  {URL}  server, running, up 16 m 42 s")
    assert re.match(r"to visitors +2.0 MB/s +from visitors +0 B/s +█$", lines[1])
    assert lines[2].startswith("1 client, 2 proxies, 2 connections, loop lag 0.4 ms, certificate")
    assert "waiting: link 1" in lines[2]
    assert lines[3].split()[:4] == ["PROXY", "client", "published", "conns"]
    assert lines[4].split()[:3] == ["web", "office", "0.0.0.0:8080"]
    assert "2.0 MB" in lines[4]
    assert lines[4].rstrip().endswith("link 1")
    assert lines[5].split()[:2] == ["数据库", "home"]
    assert any(re.match(r"web +198.51.100.9 +0{15}7 +link +0 B +262 kB", line) for line in lines)
    assert any(re.match(r"office +203.0.113.7:55121 +1 m 00 s +21 ms", line) for line in lines)
    assert lines[-1].startswith("q quit   s sort (rate)   r reset")


def test_a_client_shows_its_link():
    lines = shown(history(status(proxy(), role="client", name="office")))
    assert "client office, running" in lines[0]
    assert lines[2].startswith("1 proxy, 1 connection")
    assert any(line.startswith("LINK") for line in lines)


def test_a_program_that_is_not_there():
    lines = shown(history(), failure="nothing there: Connection refused")
    assert lines[2:4] == ["nothing there: Connection refused", "Asked again every 2 seconds."]


def test_a_program_that_went_away():
    lines = shown(history(status(proxy())), failure="nothing there", age=65.0)
    assert "The last answer came 1 m 05 s ago." in lines[3]
    assert not any("web" in line for line in lines)  # what was is not what is


def test_before_the_first_answer():
    assert shown(history())[1] == "waiting for an answer"


def test_what_does_not_fit_is_counted_and_can_be_scrolled_to():
    place = history(status(*(proxy(f"p{n:03}") for n in range(200)), sessions=[]))
    lines = shown(place, height=12)
    assert len(lines) == 12
    assert lines[3].startswith("PROXY +193")
    assert lines[4].startswith("p000")
    assert shown(place, height=12, skipped=150)[4].startswith("p150")
    assert shown(place, height=12, skipped=9999)[4].startswith("p199")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("height", [5, 8, 14, 50])
def test_any_size(width, height):
    many = [proxy(f"proxy-{n}", sent=10**n) for n in range(30)]
    place = history(
        status(*many), status(*many, at=1001.0, connections=[connection(n) for n in range(30)])
    )
    lines = shown(place, width, height)
    assert len(lines) == height
    assert all(cell_len(line) <= width for line in lines)
    assert lines[3].startswith("PRO") or height < 6


def test_the_least_important_columns_go_first():
    place = history(status(proxy()))
    assert "rtt" in shown(place, 80)[3]
    assert "0.0.0.0:8080" in shown(place, 80)[4]  # rather than a column that is nice to have
    narrow = shown(place, 46)[3]
    assert "total" not in narrow
    assert {"PROXY", "conns", "to/s", "from/s"} <= set(narrow.split())


def test_names_of_strangers_harm_no_terminal():
    place = history(
        status(
            proxy(HOSTILE * 1000, client="[bold]x[/bold]", addresses=["[link=x]\x9b"]),
            connections=[connection(1, visitor=HOSTILE)],
        )
    )
    text = "\n".join(shown(place, 200))
    assert text.replace("\n", "").isprintable()
    assert "[red]" in text
    assert "[bold]x[/bold]" in text


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(sorted(status())), JSON))
def test_whatever_is_answered_is_shown_on_one_screen(found):
    lines = shown(history(status(proxy()) | found), 80, 20)
    assert len(lines) == 20
    assert "".join(lines).isprintable()


def test_shares():
    assert shares([3, 2, 1], 10) == [3, 2, 1]
    assert shares([100, 2, 100], 10) == [4, 2, 4]
    assert shares([100, 100], 5) == [3, 2]
    assert shares([100], -3) == [0]
    assert shares([], 10) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1234, "1.2 kB"),
        (99_960, "100 kB"),
        (999_600, "1.0 MB"),
        (5e9, "5.0 GB"),
        (1e15, "1000 TB"),
    ],
)
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0004, "0.4 ms"),
        (0.0216, "22 ms"),
        (9.9, "9 s"),
        (65, "1 m 05 s"),
        (3900, "1 h 05 m"),
        (93_600, "1 d 02 h"),
        (-3900, "-1 h 05 m"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_sparklines():
    assert sparkline([0, 1, 2, 4, 8], 80) == "▁▁▂▄█"
    assert sparkline([8, 1, 2], 2) == "▄█"
    assert sparkline([0.0, 0.0], 5) == "▁▁"
    assert sparkline([1, 2], 0) == ""


def test_the_picture_in_the_documents_has_every_column():
    picture = (Path(__file__).parents[2] / "docs/images/top.svg").read_text(encoding="utf-8")
    words = html.unescape(picture).replace("\xa0", " ")
    for column in (*_PROXIES, *_CONNECTIONS, *_SESSIONS):
        assert column.title in words
    assert "url(http" not in picture  # nothing is fetched to show it
