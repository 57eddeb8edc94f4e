"""TOML, and syntax errors that say where and what to do."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

from tunnel.config.locate import Lines
from tunnel.config.notes import dotted
from tunnel.errors import Fault

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
#: What tomllib says, and what the person probably did.
_HINTS: Final = {
    "Invalid value": "a text needs quotes",
    "Unescaped '\\' in a string": "write two of them, or put the text into single quotes",
    "Expected '=' after a key in a key/value pair": "a line is: key = value",
    "Unterminated string": "a quote is missing",
    'Expected "\'"': "a quote is missing",
    "Expected \"'''\"": "a text is not closed",
}


def parse(text: str, lines: Lines) -> dict[str, Any] | Fault:
    """The document, or what is wrong with it: TOML's reader stops at the first error."""
    # tomllib, not tomlkit: it tells the right line, and takes nothing that is not TOML.
    try:
        return tomllib.loads(text)
    except RecursionError:
        return Fault(None, None, "brackets are nested too deeply")
    except tomllib.TOMLDecodeError as error:
        return _syntax_fault(str(error), text, lines)
    except ValueError:
        return Fault(None, None, "a number has too many digits")


def _syntax_fault(message: str, text: str, lines: Lines) -> Fault:
    place = _PLACE.search(message)
    at_end = text.rstrip().count("\n") + 1
    line = int(place[1]) if place and place[1] else at_end
    if lines.repeated is not None and lines.repeated.line == line:
        return Fault(line, dotted(lines.repeated.path), "is in the file twice")
    reason = _PLACE.sub("", message)
    column = f", column {place[2]}" if place and place[2] else ""
    hint = f" ({_HINTS[reason]})" if reason in _HINTS else ""
    return Fault(line, None, f"not TOML{column}: {reason}{hint}")
