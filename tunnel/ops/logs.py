"""How log records look: one line each, for people or for programs, whatever is in them.

The library logs through the standard `logging`, the text of an event constant and its details in
`extra`; this module is for a *program* that wants to show them. Details often come from strangers,
so nothing that is not printable reaches the terminal or the journal.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TextIO

from tunnel.model import TRACE

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

Form = Literal["text", "json"]

_COLOURS = {
    "critical": "\x1b[1;31m",
    "error": "\x1b[31m",
    "warning": "\x1b[33m",
    "info": "\x1b[32m",
    "debug": "\x1b[34m",
    "trace": "\x1b[34m",
}
_BOLD, _DIM, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def configure_logging(
    *, level: int, form: Form, stream: TextIO, environ: Mapping[str, str]
) -> None:
    """Send what this package logs to `stream`, and nowhere else; a second call replaces the first.

    Args:
      level: the least that is shown; `TRACE` shows everything.
      form: "text" (colours on a terminal, no timestamps where systemd adds its own) or "json"
        (an object a line: timestamp, level, logger, event, and the details).
      stream: usually `sys.stderr`.
      environ: NO_COLOR, TERM and JOURNAL_STREAM are looked up here.
    """
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(form, stream, environ))
    root = logging.getLogger("tunnel")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


def escaped(text: str) -> str:
    """The text with every unprintable character (control, bidi, newline …) written as an escape.

    A letter of any alphabet stays what it is. A backslash is doubled, so that an escape cannot be
    mistaken for text that looks like one.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escape, text))


def quoted(value: object) -> str:
    """A value as `key=value` shows it: escaped, and in quotes if it would not stay one word."""
    raw = str(value)
    text = escaped(raw)
    if text == raw and raw and not any(sign in raw for sign in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _escape(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode()


def _formatter(form: Form, stream: TextIO, environ: Mapping[str, str]) -> logging.Formatter:
    from structlog.processors import TimeStamper, format_exc_info
    from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name

    terminal = stream.isatty()
    journal = not terminal and _is_journal(stream, environ)
    colour = terminal and os.name == "posix" and _wants_colour(environ)
    render: Processor = _Text(colour=colour, timestamps=not journal) if form == "text" else _json
    return ProcessorFormatter(
        foreign_pre_chain=[ExtraAdder(), add_logger_name, add_log_level, TimeStamper(fmt="iso")],
        # format_exc_info: plain, for a traceback with local variables would print keys.
        processors=[format_exc_info, ProcessorFormatter.remove_processors_meta, render],
    )


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True if systemd's journal reads the stream itself: see JOURNAL_STREAM in systemd.exec(5).

    The variable alone says nothing: children inherit it, whatever their output was led to.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False  # closed, or no file at all
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _wants_colour(environ: Mapping[str, str]) -> bool:
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class _Text:
    """`TIMESTAMP level event  key=value key=value`, and a traceback indented below it."""

    def __init__(self, *, colour: bool, timestamps: bool) -> None:
        self._colour = colour
        self._timestamps = timestamps

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        stamp, level = event.pop("timestamp"), event.pop("level")
        event.pop("logger")
        trace = str(event.pop("exception", ""))
        words = [self._paint(_COLOURS.get(level, ""), f"{level:<8}"), " "]
        if self._timestamps:
            words.insert(0, self._paint(_DIM, stamp) + " ")
        words.append(self._paint(_BOLD, escaped(event.pop("event"))))
        words += [
            f"{' ' * (1 + (n == 0))}{self._paint(_DIM, escaped(key) + '=')}{quoted(value)}"
            for n, (key, value) in enumerate(event.items())
        ]
        # Indented, so that a message inside it cannot pass for a line of the log.
        words += [f"\n    {escaped(line)}" for line in trace.splitlines()]
        return "".join(words)

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if self._colour and code else text


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    head = {key: event.pop(key) for key in ("timestamp", "level", "logger", "event")}
    details: dict[str, Any] = dict(event)
    return json.dumps(head | details, default=str)
