"""Which module imports which, read from the source: no module is loaded for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

#: The modules of a package, each with those of them that it imports.
Graph: TypeAlias = Mapping[str, frozenset[str]]

#: The modules that still import each other in a circle. Any other circle is a mistake.
ALLOWED_CIRCLES = {
    # Goes when `net` is parted into what waits and what computes.
    frozenset(f"tunnel.net.{name}" for name in ("carrier", "hub", "link", "muxstream", "relay")),
}


def module_name(path: Path, root: Path) -> str:
    """What a file is imported as, such as "tunnel.net.link"; `root` is the package's directory."""
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, *, annotations: bool = True) -> Iterator[tuple[str, str | None]]:
    """Every import statement, wherever it stands: a module, and a name that is taken from it.

    Those inside functions count, and so do those under `if TYPE_CHECKING`, since a reader has to
    follow them like others; without `annotations` only what is imported when the program runs.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            for alias in node.names:
                yield node.module or "", alias.name
        elif annotations or not _is_for_annotations(node):
            yield from imported(node, annotations=annotations)


def _is_for_annotations(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def import_graph(root: Path) -> Graph:
    """The imports between the modules of the package in this directory."""
    trees = {module_name(path, root): ast.parse(path.read_text()) for path in root.rglob("*.py")}

    def targets(tree: ast.AST) -> Iterator[str]:
        for module, name in imported(tree):
            # In `from tunnel.net import link` the name is a module, elsewhere something in one.
            submodule = f"{module}.{name}"
            target = submodule if submodule in trees else module
            if target in trees:
                yield target

    return {name: frozenset(targets(tree)) - {name} for name, tree in trees.items()}


def circles(graph: Graph) -> set[frozenset[str]]:
    """The sets of modules each of which imports, directly or not, all others of its set."""
    reached = {name: _reachable(graph, name) for name in graph}
    return {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }


def _reachable(graph: Graph, start: str) -> set[str]:
    """What is imported from there, directly or not; `start` only if a way leads back to it."""
    found: set[str] = set()
    ahead = [*graph[start]]
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += graph[name]
    return found
