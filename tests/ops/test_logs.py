from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.model import TRACE
from tunnel.ops.logs import configure_logging, escaped, quoted

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def configure():
    """Configure logging to a stream of the test's own; undone afterwards."""
    root = logging.getLogger("tunnel")
    before = root.handlers[:], root.level, root.propagate

    def configure(form="text", *, level=logging.INFO, environ=None, stream=None):
        stream = io.StringIO() if stream is None else stream
        configure_logging(level=level, form=form, stream=stream, environ=environ or {})
        return stream

    yield configure
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture
def log():
    return logging.getLogger("tunnel.test")


def without_stamp(text):
    found = re.match(STAMP + " ", text)
    assert found, text
    return text[found.end() :]


def test_text_is_time_level_event_and_details(configure, log):
    stream = configure()
    log.info("Client connected", extra={"client": "web", "address": "192.0.2.1:4"})
    line = without_stamp(stream.getvalue())
    assert line == "info     Client connected  client=web address=192.0.2.1:4\n"


def test_an_event_without_details_has_nothing_after_it(configure, log):
    stream = configure()
    log.warning("Server stopped")
    assert without_stamp(stream.getvalue()) == "warning  Server stopped\n"


@pytest.fixture
def file(tmp_path):
    with (tmp_path / "stderr").open("w+") as stream:
        yield stream


def journal_stream(file):
    status = os.fstat(file.fileno())
    return f"{status.st_dev}:{status.st_ino}"


def test_no_timestamps_where_the_journal_reads(configure, log, file):
    configure(environ={"JOURNAL_STREAM": journal_stream(file)}, stream=file)
    log.info("Connected")
    file.seek(0)
    assert file.read() == "info     Connected\n"


def test_timestamps_where_something_else_reads_under_systemd(configure, log, file, tmp_path):
    with (tmp_path / "other").open("w") as other:
        environ = {"JOURNAL_STREAM": journal_stream(other), "INVOCATION_ID": "1"}
    configure(environ=environ, stream=file)
    log.info("Connected")
    file.seek(0)
    assert without_stamp(file.read()) == "info     Connected\n"


@pytest.mark.parametrize("name", ["INVOCATION_ID", "JOURNAL_STREAM"])
def test_timestamps_where_there_is_no_file(configure, log, name):
    stream = configure(environ={name: "8:1"})
    log.info("Connected")
    assert without_stamp(stream.getvalue()) == "info     Connected\n"


def test_a_terminal_has_timestamps_even_if_systemd_started_it(configure, log):
    stream = configure(environ={"INVOCATION_ID": "1", "NO_COLOR": "1"}, stream=Terminal())
    log.info("Connected")
    assert without_stamp(stream.getvalue()) == "info     Connected\n"


def test_colours_on_a_terminal_only(configure, log):
    terminal = configure(stream=Terminal())
    log.info("Connected", extra={"a": 1})
    assert "\x1b[1mConnected\x1b[0m" in terminal.getvalue()
    file = configure()
    log.info("Connected", extra={"a": 1})
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(configure, log, environ):
    terminal = configure(stream=Terminal(), environ=environ)
    log.info("Connected")
    assert "\x1b" not in terminal.getvalue()


def test_json_is_one_object_a_line(configure, log):
    stream = configure("json", environ={"INVOCATION_ID": "1"})
    log.info("Client connected", extra={"client": "网", "attempt": 3})
    log.info("two\nlines")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert list(first) == ["timestamp", "level", "logger", "event", "client", "attempt"]
    assert re.fullmatch(STAMP, first.pop("timestamp"))
    assert first == {
        "level": "info",
        "logger": "tunnel.test",
        "event": "Client connected",
        "client": "网",
        "attempt": 3,
    }
    assert second["event"] == "two\nlines"


def test_json_shows_any_value(configure, log):
    stream = configure("json")
    log.info("x", extra={"value": object, "exact": 1.5})
    shown = json.loads(stream.getvalue())
    assert shown["value"] == "<class 'object'>"
    assert shown["exact"] == 1.5


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (logging.WARNING, ["warning"]),
        (logging.INFO, ["info", "warning"]),
        (logging.DEBUG, ["debug", "info", "warning"]),
        (TRACE, ["trace", "debug", "info", "warning"]),
    ],
)
def test_levels(configure, log, level, shown):
    stream = configure("json", level=level)
    for each in (TRACE, logging.DEBUG, logging.INFO, logging.WARNING):
        log.log(each, "x")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == shown


def test_a_second_call_replaces_the_first(configure, log):
    first, second = configure(), configure()
    log.info("x")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_nothing_reaches_the_root_logger(configure, log, caplog):
    configure()
    log.info("x")
    assert not caplog.records


HOSTILE = "a\r\n2026-01-01 info Client connected\x1b[2J\u202e\u2028\x00\x9b\ud800"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("place", ["event", "value"])
def test_what_strangers_say_stays_on_its_line(configure, log, form, place):
    stream = configure(form)
    if place == "event":
        log.info(HOSTILE)
    else:
        log.info("x", extra={"name_": HOSTILE})
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()


def test_quotes_and_escapes():
    assert quoted("web-1") == "web-1"
    assert quoted("隧道") == "隧道"
    assert quoted("two words") == '"two words"'
    assert quoted("") == '""'
    assert quoted("a=b") == '"a=b"'
    assert quoted('say "no"') == r'"say \"no\""'
    assert quoted("\u202e\x1b\n") == r'"\u202e\x1b\n"'
    assert quoted("\\n") == r'"\\n"'
    assert quoted(8443) == "8443"


@given(st.text())
def test_escaped_text_is_printable_and_unambiguous(text):
    shown = escaped(text)
    assert shown.isprintable()
    assert all(unicodedata.bidirectional(c) not in {"RLO", "LRO", "RLI", "PDF"} for c in shown)
    pieces = re.findall(r"\\(?:x..|u....|U........|.)|[^\\]+", shown)
    back = "".join(
        p.encode("ascii").decode("unicode_escape") if p[0] == "\\" else p for p in pieces
    )
    assert back == text


@given(st.text(), st.text())
def test_one_detail_cannot_pass_for_two(one, other):
    shown = f"{quoted(one)} {quoted(other)}"
    assert len(re.findall(r'(?:"(?:\\.|[^"\\])*"|[^ "]+)(?: |$)', shown)) == 2


def log_a_failure(log):
    secret = "-".join(["a", "secret", "key"])  # put together: the source line is shown, too

    def fail(key):
        raise ValueError("bad\n2026-01-01T00:00:00.0Z info     Client connected")

    try:
        fail(secret)
    except ValueError:
        log.exception("Session failed", extra={"client": "web"})


def test_a_traceback_in_text_is_indented_and_has_no_locals(configure, log):
    stream = configure()
    log_a_failure(log)
    first, *rest = stream.getvalue().splitlines()
    assert without_stamp(first) == "error    Session failed  client=web"
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)
    assert "a-secret-key" not in stream.getvalue()


def test_a_traceback_in_json_has_no_locals(configure, log):
    stream = configure("json")
    log_a_failure(log)
    assert "ValueError: bad" in json.loads(stream.getvalue())["exception"]
    assert "a-secret-key" not in stream.getvalue()


def test_structlog_is_loaded_only_when_logging_is_configured():
    code = "import sys, tunnel.ops.logs; print('structlog' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
