"""What a tree of source is like in figures: for reading, and two of them for a verdict."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.tree.imports import circles, import_graph

#: What has no code in it, of the kinds of tokens.
_LAYOUT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@attrs.frozen
class Figures:
    """Of a package.

    Args:
      modules: how many there are.
      lines: of all modules, blank ones included.
      code: lines with code on them, docstrings not counted.
      prose: lines of docstrings, and lines with nothing but a comment.
      functions: the lengths of all functions in lines, from `def` to the last, shortest first.
      bodies: the same without their docstrings.
      circles: sets of modules that import each other.
    """

    modules: int
    lines: int
    code: int
    prose: int
    functions: tuple[int, ...]
    bodies: tuple[int, ...]
    circles: frozenset[frozenset[str]]

    @property
    def share(self) -> float:
        """Lines of prose for each line of code."""
        return self.prose / self.code


def percentile90(lengths: Sequence[int]) -> int:
    """The length, of these in order, that a tenth of them exceeds (the nearest rank)."""
    return lengths[-(-len(lengths) * 9 // 10) - 1]


def measure(root: Path) -> Figures:
    """The figures of the package in this directory."""
    texts = [path.read_text() for path in sorted(root.rglob("*.py"))]
    trees = [ast.parse(text) for text in texts]
    functions = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    prose = [_docstring_lines(tree) for tree in trees]
    code = [_code_lines(text) for text in texts]
    comments = [_comment_lines(text) for text in texts]
    return Figures(
        len(texts),
        sum(text.count("\n") for text in texts),
        sum(len(lines - of_prose) for lines, of_prose in zip(code, prose, strict=True)),
        sum(map(len, prose))
        + sum(len(lines - of_code) for lines, of_code in zip(comments, code, strict=True)),
        tuple(sorted(map(_length, functions))),
        tuple(sorted(_length(function) - len(_docstring(function)) for function in functions)),
        frozenset(circles(import_graph(root))),
    )


def _length(function: ast.stmt) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def _docstring_lines(tree: ast.AST) -> set[int]:
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for line in _docstring(node)
    }


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> range:
    """The lines of its docstring; none if it has no docstring."""
    match node.body:
        case [ast.Expr(value=ast.Constant(value=str())) as text, *_]:
            assert text.end_lineno is not None
            return range(text.lineno, text.end_lineno + 1)
    return range(0)


def _code_lines(text: str) -> set[int]:
    found: set[int] = set()
    for token in _tokens(text):
        if token.type not in _LAYOUT and token.type != tokenize.COMMENT:
            found |= set(range(token.start[0], token.end[0] + 1))
    return found


def _comment_lines(text: str) -> set[int]:
    return {token.start[0] for token in _tokens(text) if token.type == tokenize.COMMENT}


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)
