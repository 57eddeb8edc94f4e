"""Finding Pythons, and saying how the tests went with each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import places
from tests.places import NOWHERE, Place, each_python, found_pythons, odd_place, run


def interpreter(path: Path, *version: int, code: int = 0) -> Path:
    """A program that says it is a Python of that version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {' '.join(map(str, version))}\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_the_newest_of_each_version_is_found_on_the_path_and_at_pyenvs(tmp_path):
    path, pyenv = tmp_path / "bin", tmp_path / "pyenv"
    interpreter(path / "python3.11", 3, 11, 2)
    interpreter(path / "python3.12", 3, 12, 9, code=1)  # a shim of what is not there
    found = [interpreter(path / "python3.14", 3, 14, 0)]
    for version in ((3, 9, 18), (3, 11, 7), (3, 13, 0), (3, 13, 10), (3, 13, 9)):
        name = ".".join(map(str, version))
        found.append(interpreter(pyenv / f"versions/{name}/bin/python3", *version))
    newest = found_pythons(f"{tmp_path / 'none'}:{path}", pyenv)
    assert newest == {"3.11": found[2], "3.13": found[4], "3.14": found[0]}
    assert list(newest) == ["3.11", "3.13", "3.14"]


@pytest.mark.parametrize(("names", "missing"), [([], "3.11"), (["3.12", "3.13"], "3.12")])
def test_without_the_oldest_or_one_that_was_asked_for_it_fails(
    tmp_path, monkeypatch, names, missing
):
    interpreter(tmp_path / "python3.13", 3, 13, 0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=None)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match=rf"There is no Python {missing} \(found: 3\.13\)"):
        list(each_python(names))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("def test(): pass", "green"),
        ("def test(): raise AssertionError", "FAILED"),
        ("", "FAILED"),  # no tests at all
    ],
)
def test_a_run_is_a_line_of_the_table(tmp_path, text, verdict):
    (tmp_path / "test_it.py").write_text(text)
    place = Place("here", Path(sys.executable), tmp_path, {"PYTEST_ADDOPTS": "-p no:randomly"})
    green, line = run(place, "unit", ("-q",), "0")
    assert green == (verdict == "green")
    assert line.split()[:3] == ["here", "unit", verdict]


def test_any_failure_is_one_of_the_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        places, "each_python", lambda _: iter([Place("one", Path()), Place("two", Path())])
    )
    results = iter([(True, "one is green"), (False, "two is not")])
    monkeypatch.setattr(places, "run", lambda *_: next(results))
    assert places.main(["--pythons", "--", "tests/net"]) == 1
    assert capsys.readouterr().out.splitlines() == ["", "one is green", "two is not"]


def test_an_odd_place_has_all_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "COPY", tmp_path / "a ä")
    monkeypatch.setattr(places, "environment", lambda *_: Path("python"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    place = odd_place(["path", "locale", "home", "network"])
    assert place.directory == tmp_path / "a ä"
    assert (place.directory / "tests/places.py").read_text("utf-8") == Path(
        places.__file__
    ).read_text("utf-8")
    assert not (place.directory / ".git").exists()
    assert place.environ == {"LANG": "C", "LC_ALL": "C", "HOME": NOWHERE}
    assert place.prefix[0] == "unshare"
    assert odd_place(["locale"]) == Place(
        "locale", Path("python"), places.ROOT, {"LANG": "C", "LC_ALL": "C"}
    )
