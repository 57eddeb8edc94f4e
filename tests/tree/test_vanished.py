from __future__ import annotations

import pytest

from tests.tree.vanished import read_successors, successor, vanished, written_tests

NOW = {"tests/new.py::test_a", "tests/new.py::TestB::test_c", "tests/other.py::test_d"}


def test_tests_are_found_in_the_source(tmp_path):
    place = tmp_path / "tests" / "deep" / "test_it.py"
    place.parent.mkdir(parents=True)
    place.write_text(
        "def test_a(): pass\nasync def test_b(): pass\ndef helper():\n    def test_no(): pass\n"
        "class TestC:\n    def test_d(self): pass\n    def no(self): pass\n"
        "class Helper:\n    def test_no(self): pass\n"
    )
    (place.parent / "rig.py").write_text("def test_no(): pass\n")
    file = "tests/deep/test_it.py"
    assert written_tests(tmp_path) == {
        f"{file}::test_a",
        f"{file}::test_b",
        f"{file}::TestC::test_d",
    }


@pytest.mark.parametrize(
    ("test", "written", "heir"),
    [
        ("tests/old.py::test_x", {}, None),
        ("tests/old.py::test_a", {"tests/old.py": "tests/new.py"}, "tests/new.py::test_a"),
        (
            "tests/old.py::TestB::test_c",
            {"tests/old.py": "tests/new.py"},
            "tests/new.py::TestB::test_c",
        ),
        # The file is there, but not the test.
        ("tests/old.py::test_x", {"tests/old.py": "tests/new.py"}, None),
        # What is said of the test comes first.
        (
            "tests/old.py::test_x",
            {"tests/old.py": "tests/new.py", "tests/old.py::test_x": "tests/other.py::test_d"},
            "tests/other.py::test_d",
        ),
        (
            "tests/old.py::test_d",
            {"tests/old.py::test_d": "tests/other.py"},
            "tests/other.py::test_d",
        ),
        # A successor that has a successor.
        (
            "tests/oldest.py::test_a",
            {"tests/oldest.py": "tests/old.py", "tests/old.py": "tests/new.py"},
            "tests/new.py::test_a",
        ),
        ("tests/old.py::test_x", {"tests/old.py::test_x": "tests/new.py::test_y"}, None),
        ("a.py::test_x", {"a.py": "b.py", "b.py": "a.py"}, None),
    ],
)
def test_where_a_test_went(test, written, heir):
    assert successor(test, NOW, written) == heir


def test_only_what_is_gone_needs_a_successor():
    before = {"tests/new.py::test_a", "tests/old.py::test_d", "tests/old.py::test_x"}
    assert vanished(before, NOW, {"tests/old.py": "tests/other.py"}) == {
        "tests/old.py::test_d": "tests/other.py::test_d",
        "tests/old.py::test_x": None,
    }


def test_the_table(tmp_path):
    path = tmp_path / "successors.toml"
    path.write_text('[successors]\n"a.py" = "b.py"\n')
    assert read_successors(path) == {"a.py": "b.py"}
