"""Imports run down only, and the lower floors touch neither Trio nor the world."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tree.imports import ALLOWED_CIRCLES, circles, import_graph, imported

ROOT = Path(__file__).parents[1] / "tunnel"

#: The floors from the ground up; a package may import those below its own, and itself. An import
#: for annotations only (`TYPE_CHECKING`) is an import like others. These floors do without
#: Trio, input and output:
PURE_FLOORS = [
    {"_version", "errors", "limits", "stats"},
    {"model"},
    {"events", "remedies", "views"},
    {"yamux", "protocol", "config"},
]
FLOORS = [
    *PURE_FLOORS,
    {"certificates"},
    {"eventlog"},
    {"store", "net"},
    {"server", "client", "ops"},
    {"compose"},
    {"api"},
    {"library"},
    {"blocking", "testing"},
    {"cli"},
    {"__main__", "__init__"},
]
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}
PURE = {name for floor in PURE_FLOORS for name in floor}

#: What the pure floors do without when they run.
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


#: A module is one idea, of so many lines at most; a function is read at one look.
MODULE_LINES = 500
FUNCTION_LINES = 60


def modules():
    return sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST, *, annotations: bool = True) -> set[str]:
    """Every module that is imported; `from tunnel import net` imports `tunnel.net`."""
    return {
        f"{module}.{name}" if module == "tunnel" and name else module
        for module, name in imported(tree, annotations=annotations)
    }


def arrows_up(part: str, found: set[str]) -> list[str]:
    """Imports of something that is not below."""
    wrong = []
    for module in found:
        package, _, rest = module.partition(".")
        if package != "tunnel":
            continue
        target = rest.partition(".")[0] or "__init__"
        if target != part and FLOOR_OF[target] >= FLOOR_OF[part]:
            wrong.append(module)
    return wrong


def too_long(path: Path) -> list[str]:
    """What is too long in a file: the file, and functions."""
    text = path.read_text()
    found = [] if text.count("\n") <= MODULE_LINES else [path.name]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno >= FUNCTION_LINES:
                found.append(f"{path.name}: {node.name}")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path):
    part = part_of(path)
    assert part in FLOOR_OF, f"{part} has no floor: give it one in FLOORS"
    tree = ast.parse(path.read_text())
    assert not arrows_up(part, imports(tree))
    if part in PURE:
        loaded = imports(tree, annotations=False)
        assert not {module.partition(".")[0] for module in loaded} & FORBIDDEN


def test_an_arrow_up_is_noticed():
    assert arrows_up("yamux", {"tunnel.net.link"}) == ["tunnel.net.link"]
    assert arrows_up("server", {"tunnel.client.run"}) == ["tunnel.client.run"]
    assert arrows_up("net", {"tunnel"}) == ["tunnel"]
    assert arrows_up("client", {"tunnel.net.link", "trio"}) == []


def test_an_arrow_up_from_the_ground_is_noticed():
    assert arrows_up("views", {"tunnel.net.link"}) == ["tunnel.net.link"]
    assert arrows_up("errors", {"tunnel.model"}) == ["tunnel.model"]
    assert arrows_up("model", {"tunnel.views"}) == ["tunnel.views"]
    assert arrows_up("views", {"tunnel.model", "tunnel.stats"}) == []


@pytest.mark.parametrize(
    "text",
    [
        "from tunnel.net.link import Link",
        "from tunnel.net import link",
        "def late():\n    from tunnel.net.link import Link",
        "if TYPE_CHECKING:\n    from tunnel.net.link import Link",
        "if typing.TYPE_CHECKING:\n    import tunnel.net.link",
        "try:\n    from tunnel import net\nexcept ImportError:\n    pass",
    ],
)
def test_an_arrow_up_is_noticed_wherever_it_stands(text):
    assert arrows_up("views", imports(ast.parse(text)))


# --- Circles ----------------------------------------------------------------------------------


def test_no_circle_but_those_named():
    assert circles(import_graph(ROOT)) == ALLOWED_CIRCLES


@pytest.mark.parametrize(
    "back",
    [
        "from tunnel.net.one import Thing",
        "from tunnel.net import one",
        "import tunnel.net.one",
        "def late():\n    from tunnel.net.one import Thing",
        "if TYPE_CHECKING:\n    from tunnel.net.one import Thing",
    ],
)
def test_a_circle_is_noticed(tmp_path, back):
    package = tmp_path / "tunnel" / "net"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "one.py").write_text("from tunnel.net.two import other\n")
    (package / "two.py").write_text("from tunnel.net import three\n")
    (package / "three.py").write_text("import os\n")
    assert circles(import_graph(package.parent)) == set()
    (package / "three.py").write_text(back)
    assert circles(import_graph(package.parent)) == {
        frozenset({"tunnel.net.one", "tunnel.net.two", "tunnel.net.three"})
    }


# --- What is loaded, and how long it is -------------------------------------------------------


@pytest.mark.parametrize("module", ["tunnel", "tunnel.yamux", "tunnel.protocol", "tunnel.config"])
def test_lower_floors_load_no_trio(module):
    code = f"import sys, {module}; print('trio' in sys.modules, 'ssl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_modules_and_functions_stay_small():
    assert [wrong for path in modules() for wrong in too_long(path)] == []


def test_what_is_too_long_is_noticed(tmp_path):
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    pass\n" * 59 + "x = 1\n" * 440)
    assert too_long(path) == []
    path.write_text("def f():\n" + "    pass\n" * 60 + "x = 1\n" * 440)
    assert too_long(path) == ["long.py", "long.py: f"]
