"""Imports run down only, and the lower floors touch neither Trio nor the world."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "tunnel"

#: The floors from the ground up; a package may import those below its own, and itself.
FLOORS = [
    {"remedies", "errors", "limits", "model", "stats", "views", "events", "_version"},
    {"yamux", "protocol", "config"},
    {"certificates"},
    {"eventlog"},
    {"store", "net"},
    {"server", "client", "ops"},
    {"programs"},
    {"api", "quick"},
    {"library"},
    {"blocking", "testing"},
    {"cli"},
    {"__main__", "__init__"},
]
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}

#: What the sans-IO floors do without.
FORBIDDEN = {
    "asyncio",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "ssl",
    "structlog",
    "subprocess",
    "threading",
    "time",
    "trio",
    "trio_util",
    "typer",
}
PURE = {name for floor in FLOORS[:2] for name in floor}


def modules():
    return sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported when the program runs, those inside functions included."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            found |= (
                {f"tunnel.{alias.name}" for alias in node.names}
                if node.module == "tunnel"
                else {node.module or ""}
            )
        found |= imports(node)
    return found


def arrows_up(part: str, found: set[str]) -> list[str]:
    """Imports of something that is not below."""
    wrong = []
    for module in found:
        package, _, rest = module.partition(".")
        if package != "tunnel":
            continue
        target = rest.partition(".")[0] or "__init__"
        if target != part and FLOOR_OF[target] >= FLOOR_OF[part] > 0:
            wrong.append(module)
    return wrong


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path):
    part = part_of(path)
    assert part in FLOOR_OF, f"{part} has no floor: give it one in FLOORS"
    found = imports(ast.parse(path.read_text()))
    assert not arrows_up(part, found)
    if part in PURE:
        assert not {module.partition(".")[0] for module in found} & FORBIDDEN


def test_an_arrow_up_is_noticed():
    assert arrows_up("yamux", {"tunnel.net.link"}) == ["tunnel.net.link"]
    assert arrows_up("server", {"tunnel.client.run"}) == ["tunnel.client.run"]
    assert arrows_up("net", {"tunnel"}) == ["tunnel"]
    assert arrows_up("client", {"tunnel.net.link", "trio"}) == []


@pytest.mark.parametrize("module", ["tunnel", "tunnel.yamux", "tunnel.protocol", "tunnel.config"])
def test_lower_floors_load_no_trio(module):
    code = f"import sys, {module}; print('trio' in sys.modules, 'ssl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_modules_and_functions_stay_small():
    for path in modules():
        text = path.read_text()
        assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
