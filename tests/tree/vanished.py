"""Tests that are gone, and what became of them.

A test is known by its file, its class and its name: "tests/net/test_hub.py::test_half_close". Cases
of one test (`parametrize`) are one test here.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path


def written_tests(root: Path) -> set[str]:
    """All tests in the directory `tests` below this one, read from the source."""
    return {
        f"{path.relative_to(root).as_posix()}::{name}"
        for path in root.glob("tests/**/test_*.py")
        for name in _names(ast.parse(path.read_text()).body)
    }


def _names(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name.startswith("test"):
                    yield name
            case ast.ClassDef(name=name, body=inner) if name.startswith("Test"):
                yield from (f"{name}::{test}" for test in _names(inner))


def read_successors(path: Path) -> dict[str, str]:
    """The table `successors` of a TOML file: an old file or test, and the new one."""
    table: dict[str, str] = tomllib.loads(path.read_text())["successors"]
    return table


def successor(test: str, now: AbstractSet[str], successors: Mapping[str, str]) -> str | None:
    """Where the meaning of a test is tested now; None if that is not written down.

    What is written of a test comes before what is written of its file. A successor may have one of
    its own, if it has gone too; at the end there must be a test that exists.
    """
    passed: set[str] = set()
    while test not in now:
        if test in passed:
            return None  # they are each other's
        passed.add(test)
        file, _, name = test.partition("::")
        if test in successors:
            test = successors[test]
            if "::" not in test:  # the test keeps its name in another file
                test = f"{test}::{name}"
        elif file in successors:
            test = f"{successors[file]}::{name}"
        else:
            return None
    return test


def vanished(
    before: AbstractSet[str], now: AbstractSet[str], successors: Mapping[str, str]
) -> dict[str, str | None]:
    """The tests that are not there any more, each with its successor, if one is written down."""
    return {test: successor(test, now, successors) for test in sorted(before - now)}
