from __future__ import annotations

from tests.tree.figures import measure, percentile90

ONE = '''"""A module.

Of two ideas.
"""

import os  # not a line of prose


# A comment.
def f():
    """Do nothing."""
    text = """no
    # docstring
    """
    return text  # nor this


class C:
    """A class."""

    async def g(self):
        pass
'''
TWO = "from package.three import x\n"
THREE = "def f():\n    from package.two import y\n"


def package(tmp_path, **modules):
    root = tmp_path / "package"
    root.mkdir()
    for name, text in modules.items():
        (root / f"{name}.py").write_text(text)
    return root


def test_lines_of_code_and_of_prose(tmp_path):
    found = measure(package(tmp_path, one=ONE))
    assert (found.modules, found.lines) == (1, 22)
    # Four of the module's docstring, one of each other, one comment.
    assert found.prose == 7
    assert found.code == 9
    assert found.share == 7 / 9


def test_functions_and_circles(tmp_path):
    found = measure(package(tmp_path, one=ONE, two=TWO, three=THREE))
    assert found.functions == (2, 2, 6)
    assert found.bodies == (2, 2, 5)
    assert found.circles == {frozenset({"package.two", "package.three"})}


def test_the_90th_percentile_is_the_nearest_rank():
    assert percentile90(range(1, 11)) == 9
    assert percentile90(range(1, 12)) == 10
    assert percentile90([7]) == 7
