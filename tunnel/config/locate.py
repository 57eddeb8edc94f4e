"""On which line a key is: a reader of TOML that looks at nothing but keys and brackets.

`tomllib` gives values without their lines, and a message about a fault needs one. This scanner
finds the lines and no values. It never fails: `tomllib` reads the text as well and says what is
wrong with it; here text that is no TOML only has fewer places, or odd ones.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Final

import attrs

Path = tuple[str | int, ...]
"""The way to a value: ``("proxies", 1, "name")`` is the name in the second [[proxies]]."""

_TOKEN: Final = re.compile(
    r'''
      (?P<newline> \n )
    | (?P<blank>   [ \t\r]+ | \#[^\n]* )
    | (?P<text>    """ (?: \\. | [^\\] )*? "{3,5} | \'\'\' .*? '{3,5}
                 | " (?: \\. | [^"\\\n] )* "      | ' [^'\n]* ' )
    | (?P<bare>    [^\s\[\]{}=,.\#"']+ )
    | (?P<mark>    . )
    ''',
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_MAX_CODE_POINT: Final = 0x10FFFF
#: Where a plain value inside brackets ends.
_STOPS: Final = (",", "]", "}")
#: How deep brackets may be nested for their contents to have lines of their own.
_MAX_DEPTH: Final = 50
_ESCAPED: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


@attrs.frozen
class Place:
    """A key, table header or array element, and the line that it begins on.

    `written` is False for a table that is only implied, such as `a` by the header ``[a.b]``.
    """

    path: Path
    line: int
    written: bool


@attrs.frozen
class Lines:
    """Where everything in one text is."""

    _written: dict[Path, int]
    _implied: dict[Path, int]
    repeated: Place | None
    """The first key or table that the text has twice, at its second appearance."""

    @classmethod
    def of(cls, text: str) -> Lines:
        """Scan a text, TOML or not."""
        written: dict[Path, int] = {}
        implied: dict[Path, int] = {}
        repeated = None
        for place in scan(text):
            if place.written and place.path in written:
                repeated = repeated or place
            (written if place.written else implied).setdefault(place.path, place.line)
        return cls(written, implied, repeated)

    def line(self, path: Path) -> int | None:
        """The line of a key; of a missing one, that of the table where it should be, if any."""
        for end in range(len(path), 0, -1):
            found = self._written.get(path[:end]) or self._implied.get(path[:end])
            if found is not None:
                return found
        return None

    @property
    def roots(self) -> tuple[str, ...]:
        """The names at the top, in the order of their first appearance."""
        lines: dict[str, int] = {}
        for path, line in [*self._written.items(), *self._implied.items()]:
            name = str(path[0])
            lines[name] = min(line, lines.get(name, line))
        return tuple(sorted(lines, key=lines.__getitem__))


def locate(text: str, path: Path) -> int | None:
    """The line of one key; see `Lines.line`."""
    return Lines.of(text).line(path)


def scan(text: str) -> Iterator[Place]:
    """Every key, table header and array element of a text, in its order."""
    return _Scanner(list(_tokens(text))).document()


@attrs.frozen
class _Token:
    kind: str
    word: str
    line: int


_END: Final = _Token("end", "", 0)


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind, word = match.lastgroup or "", match.group()
        if kind != "blank":
            yield _Token(kind, word, line)
        line += word.count("\n")


@attrs.define(eq=False)
class _Scanner:
    _tokens: list[_Token]
    _at: int = 0
    #: How many tables each [[array]] has so far: a header further down means the last one.
    _counts: dict[Path, int] = attrs.Factory(dict)

    def document(self) -> Iterator[Place]:
        table: Path = ()
        while (token := self._next) is not _END:
            if token.word == "[":
                table = yield from self._header()
            elif token.kind != "newline":
                yield from self._assignment(table, 0)
            self._skip_line()

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _took(self, word: str) -> bool:
        """Step over the next token if it is this bracket, comma or equals sign; say if it was."""
        took = self._next.kind == "mark" and self._next.word == word
        self._at += took
        return took

    def _skip_line(self) -> None:
        while self._next.kind not in ("newline", "end"):
            self._at += 1
        self._at += 1

    def _key(self, end: str) -> list[str]:
        """The parts of a key up to its "=" or "]"; none if this is no key."""
        names = []
        while not self._took(end):
            token = self._next
            if token.kind in ("bare", "text"):
                names.append(_unquote(token.word))
            elif token.word != ".":
                return []
            self._at += 1
        return names

    def _header(self) -> Generator[Place, None, Path]:
        line = self._next.line
        brackets = self._took("[") + self._took("[")
        names = self._key("]")
        path: Path = ()
        for left, name in zip(range(len(names) - 1, -1, -1), names, strict=True):
            path = (*path, name)
            if left == 0 and brackets == 2:
                self._counts[path] = self._counts.get(path, 0) + 1
            if left or brackets == 2:
                yield Place(path, line, written=False)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        if path:
            yield Place(path, line, written=True)
        return path

    def _assignment(self, table: Path, depth: int) -> Iterator[Place]:
        line = self._next.line
        names = self._key("=")
        for end in range(1, len(names)):
            yield Place((*table, *names[:end]), line, written=False)
        if names:
            yield Place((*table, *names), line, written=True)
            yield from self._value((*table, *names), depth)

    def _value(self, path: Path, depth: int) -> Iterator[Place]:
        if depth < _MAX_DEPTH and self._took("["):
            yield from self._array(path, depth + 1)
        elif depth < _MAX_DEPTH and self._took("{"):
            yield from self._inline_table(path, depth + 1)
        else:
            self._at += 1
            while self._next.kind not in ("newline", "end") and self._next.word not in _STOPS:
                self._at += 1

    def _array(self, path: Path, depth: int) -> Iterator[Place]:
        index = 0
        while self._next is not _END and not self._took("]"):
            if self._took(","):
                index += 1
            elif self._next.kind == "newline":
                self._at += 1
            else:
                yield Place((*path, index), self._next.line, written=True)
                yield from self._value((*path, index), depth)

    def _inline_table(self, path: Path, depth: int) -> Iterator[Place]:
        while self._next is not _END and not self._took("}"):
            before = self._at
            if not self._took(","):
                yield from self._assignment(path, depth)
            if self._at == before:
                self._at += 1


def _unquote(word: str) -> str:
    if word.startswith(("'''", '"""')):
        return word
    if word.startswith("'"):
        return word[1:-1]
    return _ESCAPE.sub(_unescape, word[1:-1]) if word.startswith('"') else word


def _unescape(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    if digits is None:
        return _ESCAPED.get(match[3], match[3])
    number = int(digits, 16)
    return chr(number) if number <= _MAX_CODE_POINT else match[0]
