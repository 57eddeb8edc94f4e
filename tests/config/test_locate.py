"""The locator against documents whose lines are known because the test wrote them."""

from __future__ import annotations

import string
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.config.locate import Lines, Path, locate, scan

DOCUMENT = """\
# [not.a.table]
top = 1
"b.x"."\\u0041\\"" = [1, [2,
  3], {z = 1, y.w = "}"}]   # = ]
[server] # x
long = \"\"\"
[no]
x = 1 \\\"\"\" y
"\"\"\"\"
plain = 'a#b = [' # c
[[proxies]]
name = "a"
[proxies.limits]
when = 1979-05-27 07:32:00.5
[[proxies]]
  'name' = "b"
[a . "b c".d]
u = 1
[a]
v = {}
w.x = 1.5
literal = '''
[[proxies]]
'''
quotes = [\"\"\"x\"\"\"\", { k = "1" }]
last = [
  # comment ] [
  { k = [ ] },
  'x', ]
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("b.x",), 3),
        (("b.x", 'A"'), 3),
        (("b.x", 'A"', 0), 3),
        (("b.x", 'A"', 1, 1), 4),
        (("b.x", 'A"', 2), 4),
        (("b.x", 'A"', 2, "y", "w"), 4),
        (("server",), 5),
        (("server", "long"), 6),
        (("server", "plain"), 10),
        (("proxies",), 11),
        (("proxies", 0), 11),
        (("proxies", 0, "name"), 12),
        (("proxies", 0, "limits"), 13),
        (("proxies", 0, "limits", "when"), 14),
        (("proxies", 1), 15),
        (("proxies", 1, "name"), 16),
        (("a", "b c"), 17),
        (("a", "b c", "d", "u"), 18),
        (("a",), 19),
        (("a", "w", "x"), 21),
        (("a", "literal"), 22),
        (("a", "quotes", 1, "k"), 25),
        (("a", "last"), 26),
        (("a", "last", 0, "k"), 28),
        (("a", "last", 1), 29),
    ],
)
def test_every_form_of_key_has_its_line(path: Path, line: int) -> None:
    tomllib.loads(DOCUMENT)
    assert locate(DOCUMENT, path) == line


def test_nothing_else_in_the_document_is_taken_for_a_key() -> None:
    written = {place.path for place in scan(DOCUMENT) if place.written}
    assert written <= set(paths(tomllib.loads(DOCUMENT)))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("server", "missing"), 5),
        (("proxies", 1, "missing"), 15),
        (("proxies", 7, "missing"), 11),
        (("missing",), None),
        ((), None),
    ],
)
def test_a_missing_key_is_at_its_table(path: Path, line: int | None) -> None:
    assert locate(DOCUMENT, path) == line


def test_carriage_returns_do_not_count() -> None:
    assert locate("a = 1\r\n\r\n[b]\r\nc = '''\r\n'''\r\nd = 2\r\n", ("b", "d")) == 6


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\nb = 1\na = 2\n", ("a",), 3),
        ("[t]\n[u]\n[t]\n", ("t",), 3),
        ("[t]\nx.y = 1\nx.y = 1\n", ("t", "x", "y"), 3),
    ],
)
def test_what_is_there_twice(text: str, path: Path, line: int) -> None:
    repeated = Lines.of(text).repeated
    assert repeated is not None
    assert (repeated.path, repeated.line) == (path, line)


@pytest.mark.parametrize("text", [DOCUMENT, "[a]\n[a.b]\n[a.c]\n", "a.b = 1\na.c = 2\n"])
def test_a_table_that_goes_on_is_not_repeated(text: str) -> None:
    assert Lines.of(text).repeated is None


def test_roots_are_in_order() -> None:
    assert Lines.of(DOCUMENT).roots == ("top", "b.x", "server", "proxies", "a")


def paths(value: object, path: Path = ()) -> list[Path]:
    """Every path of a parsed document."""
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    else:
        children = []
    own = [path] if path else []
    return own + [one for key, child in children for one in paths(child, (*path, key))]


# --- Properties ---------------------------------------------------------------------------------

BARE = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=6)
ANY_KEY = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)
JUNK = st.sampled_from(["", "# x = 1", "  ", "# [t]", "\t# '''"])


def quoted(key: str) -> str:
    escaped = "".join(f"\\U{ord(c):08x}" if c in '"\\' or ord(c) > 0xFFFF else c for c in key)
    return f'"{escaped}"'


@st.composite
def scalars(draw: st.DrawFn) -> str:
    """A value on one or several lines, full of what could be mistaken for keys and brackets."""
    return draw(
        st.sampled_from(
            [
                "1",
                "-1.5e3",
                "true",
                "1979-05-27T07:32:00Z",
                "1979-05-27 07:32:00",
                '"a = [ # \\" \\\\"',
                "'{ \" = '",
                '"""\n[x]\ny = 1\\""" \n""z"""""',
                "'''\nk = 1\n''\n'''",
                "''",
                '""',
                "[]",
                "{ }",
            ]
        )
    )


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    """A document and the line of each of its keys."""
    lines: list[str] = []
    where: dict[Path, int] = {}
    names = draw(st.lists(st.one_of(BARE, ANY_KEY).filter(not_ours), unique=True, max_size=4))
    body(draw, (), lines, where)
    for name in names:
        spelled = draw(spellings(name))
        path: Path = (name,)
        if draw(st.booleans()):
            add(lines, f"[{spelled}]", where, path)
            body(draw, path, lines, where)
        else:
            for index in range(draw(st.integers(1, 3))):
                if index == 0:
                    where[path] = count(lines) + 1
                add(lines, f"[[ {spelled} ]]", where, (*path, index))
                body(draw, (*path, index), lines, where)
                if draw(st.booleans()):
                    add(lines, f"[{spelled}.sub]", where, (*path, index, "sub"))
                    body(draw, (*path, index, "sub"), lines, where)
    return "\n".join(lines), where


def not_ours(name: str) -> bool:
    return not name.startswith("key-")


def spellings(name: str) -> st.SearchStrategy[str]:
    bare = bool(name) and all(c in string.ascii_letters + string.digits + "-_" for c in name)
    literal = "'" not in name
    ways = [quoted(name)] + [name] * bare + [f"'{name}'"] * literal
    return st.sampled_from(ways)


def count(lines: list[str]) -> int:
    return sum(line.count("\n") + 1 for line in lines)


def add(lines: list[str], line: str, where: dict[Path, int], path: Path) -> None:
    where[path] = count(lines) + 1
    lines.append(line)


def body(draw: st.DrawFn, table: Path, lines: list[str], where: dict[Path, int]) -> None:
    for number in range(draw(st.integers(0, 3))):
        lines.extend(draw(st.lists(JUNK, max_size=2)))
        key = f"key-{number}"
        value = draw(scalars())
        match draw(st.integers(0, 3)):
            case 0:
                add(lines, f" {key} = {value} # [x]", where, (*table, key))
            case 1:
                where[(*table, key)] = count(lines) + 1
                add(lines, f"{key} . 'd.e' = {value}", where, (*table, key, "d.e"))
            case 2:
                add(lines, f"{key} = [ # ]", where, (*table, key))
                add(lines, f"  {value},", where, (*table, key, 0))
                add(lines, '  { in = "]" }, ]', where, (*table, key, 1))
                where[(*table, key, 1, "in")] = where[(*table, key, 1)]
            case _:
                add(lines, f"{key} = {{ a = 1, b.c = 'x' }}", where, (*table, key))
                for path in (("a",), ("b",), ("b", "c")):
                    where[(*table, key, *path)] = where[(*table, key)]


@given(documents())
def test_lines_of_generated_documents(document: tuple[str, dict[Path, int]]) -> None:
    text, where = document
    parsed = tomllib.loads(text)
    lines = Lines.of(text)
    assert {path: lines.line(path) for path in where} == where
    assert set(where) == set(paths(parsed))


SOUP = st.lists(
    st.sampled_from([*"[]{}=,.#'\"\\\n\r \t", '"""', "'''", "a", "b", "[[", "1", "\\u00", "é"])
).map("".join)


@given(st.one_of(SOUP, st.text()))
def test_any_text_is_scanned(text: str) -> None:
    last = text.count("\n") + 1
    for place in scan(text):
        assert 1 <= place.line <= last


@given(st.one_of(SOUP, st.text()))
def test_every_key_of_any_toml_is_found(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except ValueError:
        return
    places = {place.path for place in scan(text)}
    assert set(paths(document)) <= places


@pytest.mark.parametrize(
    "text", ["a={]", "a={[}", "a={=}", "a=[}", "a=[=", "a={b=]", "[[a]", "[]]", '"\\U00110000" = 1']
)
def test_brackets_that_do_not_match(text: str) -> None:
    assert all(place.line == 1 for place in scan(text))


@pytest.mark.parametrize("mark", ["[", "{a=", "[{a=", "a.", '"""', "'''", "]", "a="])
def test_depth_and_length_do_no_harm(mark: str) -> None:
    assert len(list(scan("x = " + mark * 20_000))) < 200_000
