"""The reference names every command and option, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from tunnel.cli.app import app
from tunnel.cli.options import LOG_FORMAT_VARIABLE

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text("utf-8")


def commands(group, before=""):
    """Every command by what is typed; a group is its commands."""
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            yield from commands(each, f"{before}{name} ")
        else:
            yield before + name, each


COMMANDS = dict(commands(typer.main.get_command(app)))
SHARED = {"-v", "--verbose", "-q", "--quiet", "--log-format", "--version", "--help"}
COMPLETION = {"--install-completion", "--show-completion"}


def section(title):
    return re.split(r"^## ", PAGE.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[
        0
    ]


def options(command):
    names = (name for each in command.params for name in [*each.opts, *each.secondary_opts])
    return {name for name in names if name.startswith("-")}


def documented(text):
    """The options that the first column of a table names."""
    cells = re.findall(r"^\| (`-.*?) \|", text.replace(r"\|", "/"), flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cell)}


def test_the_page_has_a_section_for_each_command():
    titles = re.findall(r"^## ([a-z ]+)$", PAGE, flags=re.MULTILINE)
    assert titles == list(COMMANDS)
    links = re.findall(r"^\| \[`([a-z ]+)`\]\(#([a-z-]+)\)", PAGE, flags=re.MULTILINE)
    assert links == [(title, title.replace(" ", "-")) for title in titles]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_of_a_command_is_in_its_section(name):
    assert documented(section(name)) == options(COMMANDS[name]) - SHARED


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_of_a_command_is_in_its_synopsis(name):
    synopsis = re.findall(r"```text\n(tls-tunnel .*)\n```", section(name))
    assert len(synopsis) == 1
    used = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", synopsis[0].replace("tls-tunnel", "")))
    assert used <= options(COMMANDS[name]) - SHARED
    names = [
        each.opts for each in COMMANDS[name].params if set(each.opts) & documented(section(name))
    ]
    assert all(used & set(each) for each in names)


def test_each_shared_option_is_in_its_section():
    text = section("Options of every command")
    assert documented(text) == SHARED
    assert options(typer.main.get_command(app)) | {"--help"} == SHARED | COMPLETION
    assert documented(section("Completion in the shell")) == COMPLETION
    assert LOG_FORMAT_VARIABLE in text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_the_shared_options(name):
    assert options(COMMANDS[name]) >= SHARED - {"--help"}


def defaults():
    for name, command in COMMANDS.items():
        for each in command.params:
            if not each.opts[0].startswith("-") or getattr(each, "is_flag", False):
                continue
            if each.opts[0] not in SHARED and each.default:
                yield name, each.opts[0], str(each.default)


@pytest.mark.parametrize(("name", "option", "default"), list(defaults()))
def test_defaults_are_those_of_the_program(name, option, default):
    rows = [row for row in section(name).splitlines() if row.startswith("| `") and option in row]
    assert [f"| `{default}` |" in row for row in rows] == [True]
