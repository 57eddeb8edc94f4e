"""The documents agree with each other and with the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from tunnel.cli.app import app

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
DOCUMENTS = sorted([*READMES, ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) +(.+)$", re.MULTILINE)
#: A name for a place, as translations have it: the headings' own names are in their language.
PLACE = re.compile(r'^<a id="([\w-]+)"></a>$', re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMANDS = typer.main.get_command(app)
#: Wrong usage, of which a bad value is a kind. (Typer does not export it.)
UsageError = typer.BadParameter.__base__
#: Programs that the documents start, and how the same is said to `tls-tunnel`.
PROGRAMS = {
    "tls-tunnel": [],
    "tls-tunnel-server": ["server"],
    "tls-tunnel-client": ["client"],
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(text: str) -> str:
    """The text without its code blocks."""
    return BLOCK.sub("", text)


def headings(text: str) -> list[tuple[int, str]]:
    """Each heading's depth and words."""
    return [(len(marks), words) for marks, words in HEADING.findall(prose(text))]


def anchor(heading: str) -> str:
    """What a heading is called in a link, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def places(text: str) -> set[str]:
    """What a link into the document can name."""
    return {anchor(words) for _, words in headings(text)} | set(PLACE.findall(text))


def broken_links(path: Path, text: str) -> list[str]:
    """Links to files, or to headings in them, that are not there."""
    broken = []
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        aim = (path.parent / file) if file else path
        if not aim.exists() or (fragment and fragment not in places(aim.read_text())):
            broken.append(target)
    return broken


def commands(text: str) -> list[list[str]]:
    """The command lines of shell blocks that start one of our programs, split into words."""
    found = []
    for language, block in BLOCK.findall(text):
        if language not in {"sh", "bash", "console"}:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            # In a `console` block a command has a prompt, all else is output.
            if language == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] in PROGRAMS:
                found.append([word for word in words if word != "&"])
    return found


def usage_error(words: list[str]) -> str | None:
    """What the program would say about a command line, without running it; None if nothing."""
    try:
        with COMMANDS.make_context("tls-tunnel", PROGRAMS[words[0]] + words[1:]) as outer:
            rest = [*outer._protected_args, *outer.args]
            called, command, rest = COMMANDS.resolve_command(outer, rest)
            command.make_context(called, rest, parent=outer)
    except typer.Exit:
        pass  # --version or --help
    except UsageError as error:
        return error.format_message()
    return None


def test_readmes_have_the_same_sections():
    english, chinese = (headings(path.read_text()) for path in READMES)
    assert [depth for depth, _ in english] == [depth for depth, _ in chinese]


def test_readmes_have_the_same_code_blocks():
    english, chinese = (BLOCK.findall(path.read_text()) for path in READMES)
    assert english == chinese
    assert len(english) > 10


def in_chinese(link):
    """Where a link of the Chinese README leads: to the page in Chinese, where there is one."""
    page = link.removesuffix(".md") + ".zh.md"
    return page if (ROOT / page).exists() else link


def test_readmes_have_the_same_links():
    english, chinese = (LINK.findall(prose(path.read_text())) for path in READMES)
    assert [in_chinese(link) for link in english[1:]] == chinese[1:]  # the first leads to the other


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    assert not broken_links(path, path.read_text())


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_printed_commands_exist(path):
    wrong = {" ".join(words): usage_error(words) for words in commands(path.read_text())}
    assert not {line: error for line, error in wrong.items() if error}


def test_the_readme_prints_commands():
    assert ["tls-tunnel", "check", "-c", "client.toml"] in commands(READMES[0].read_text())


@pytest.mark.parametrize(
    "line",
    [
        "tls-tunnel serve",
        "tls-tunnel check",
        "tls-tunnel check -c client.toml --fromat json",
        "tls-tunnel-client client",
        "tls-tunnel --log-format xml keygen",
    ],
)
def test_a_wrong_command_is_noticed(line):
    [words] = commands(f"```sh\n{line}\n```\n")
    assert usage_error(words)


def test_a_broken_link_is_noticed():
    text = "[a](docs/design.md) [b](docs/nowhere.md) [c](#install) [d](#nowhere) [e](https://x.y/)"
    assert broken_links(READMES[0], text) == ["docs/nowhere.md", "#nowhere"]


@pytest.mark.parametrize("page", ["design.md", "protocol.md", "security.md", "reliability.md"])
def test_modules_that_a_page_names_exist(page):
    """Written `server/session.py`, below the package, or `tests/…`, below the project."""
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.py)`", (ROOT / "docs" / page).read_text()))
    missing = [
        name for name in named if not any((top / name).exists() for top in (ROOT, ROOT / "tunnel"))
    ]
    assert missing == []
