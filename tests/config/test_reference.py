"""The reference says what the schema says."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from tunnel.config import load_client, load_server
from tunnel.config.legacy import OLD_KEYS, OLD_VARIABLES
from tunnel.config.schema import header, keys, required
from tunnel.config.tables import TABLES
from tunnel.config.template import _toml

PAGE = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a title, without its head."""
    section = PAGE.partition(f"\n{title}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("table", TABLES)
def test_every_key_with_its_default_and_what_it_takes(table):
    found = {row[0]: row[1:3] for row in rows(f"### `{header(table)}`")}
    of = TABLES[table]
    assert list(found) == [f"`{name}`" for name in keys(of)]
    for name, key in keys(of).items():
        default, takes = found[f"`{name}`"]
        assert takes == key.type.expects
        assert_default(default, attrs.fields_dict(of)[name].default, name in required(of))


def assert_default(cell: str, default: object, is_required: bool) -> None:
    if is_required:
        assert cell == "required"
    elif default in (None, ()) or hasattr(default, "factory"):
        assert cell, "it says in words what happens"
        assert not cell.startswith("`")
    else:
        assert cell == f"`{_toml(default)}`"


def test_every_variable():
    stands_for: dict[str, list[str]] = {}
    for table, of in TABLES.items():
        for name, key in keys(of).items():
            if key.env:
                stands_for.setdefault(key.env, []).append(f"`{table}.{name}`")
    found = {row[0]: row[1] for row in rows("## Environment")}
    assert found == {f"`{env}`": ", ".join(names) for env, names in stands_for.items()}


def test_every_old_key():
    expected = []
    for old in OLD_KEYS:
        harmless = ", ".join(f"`{_toml(value)}`" for value in old.harmless)
        treatment = old.treatment + (f", except {harmless}" if harmless else "")
        expected.append([f"`{old.key}`", treatment, old.text])
    assert rows("## Files of tls-tunnel 1.5") == expected


def test_every_old_variable():
    assert all(f"`{name}`" in PAGE for name in OLD_VARIABLES)
    assert set(OLD_VARIABLES.values()) == {text for text in OLD_VARIABLES.values() if text in PAGE}


def test_the_examples_load():
    examples = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    server, client, identities = [
        text.replace("ttk1_...", "correct-horse-battery-staple").replace(
            "ttv1_...", "ttv1_" + "a" * 135
        )
        for text in examples
    ]
    assert load_server(server, source="x", environ={}).warnings == ()
    assert load_server(identities, source="x", environ={}).warnings == ()
    assert load_client(client, source="x", environ={}).warnings == ()
