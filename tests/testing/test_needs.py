"""A test that cannot run is skipped, and a failure where everything is required."""

from __future__ import annotations

import socket

import pytest

from tests.needs import can_listen

pytest_plugins = ["pytester"]

CONFTEST = "from tests.needs import pytest_make_collect_report, pytest_runtest_makereport"
TESTS = """
import pytest
from tests.needs import needs

@needs("no-such-program", "some-package")
def test_mark(): pass

def test_call(): pytest.skip("it has no wings")

def test_import(): pytest.importorskip("no_such_module")

@pytest.fixture
def wire(): pytest.skip("it is not connected")

def test_fixture(wire): pass

@pytest.mark.xfail(strict=True)
def test_expected(): raise AssertionError

def test_good(): pass
"""


@pytest.fixture
def run(pytester, monkeypatch):
    def run(text, required):
        monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
        if required is None:
            monkeypatch.delenv("REQUIRE_ALL", raising=False)
        else:
            monkeypatch.setenv("REQUIRE_ALL", required)
        pytester.makeconftest(CONFTEST)
        path = pytester.makepyfile(text)
        return pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:cacheprovider", path)

    return run


@pytest.mark.parametrize("required", [None, "", "0"])
def test_by_itself_it_is_skipped(run, required):
    run(TESTS, required).assert_outcomes(passed=1, xfailed=1, skipped=4)


def test_where_everything_is_required_it_fails_and_says_why(run):
    result = run(TESTS, "1")
    result.assert_outcomes(passed=1, xfailed=1, failed=2, errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "*no-such-program is not installed (Debian: apt install some-package)*",
            "*must not be skipped: Skipped: it has no wings*",
            "*could not import 'no_such_module'*",
            "*must not be skipped: Skipped: it is not connected*",
        ]
    )


@pytest.mark.parametrize(("required", "outcome"), [(None, "skipped"), ("1", "errors")])
def test_a_whole_file(run, required, outcome):
    text = "import pytest\npytest.skip('not here', allow_module_level=True)\n"
    run(text, required).assert_outcomes(**{outcome: 1})


def test_an_address_that_the_machine_has_or_not():
    assert can_listen(socket.AF_INET, "127.0.0.1")
    assert not can_listen(socket.AF_INET, "192.0.2.1")
