from __future__ import annotations

import sys

import pytest

from tests.accept import __main__ as program
from tests.accept.__main__ import accept
from tests.accept.rows import PASSED, Row, Verdict, at_least, at_most, exactly, judge, run, suite


def printing(text, code=0):
    return ("python", "-c", f"import sys; print({text!r}); sys.exit({code})")


def row(text="figure: 3", *, limit=None, code=0, **more):
    return Row("row", limit or at_most(3, "lines"), printing(text, code), r"figure: (\d+)", **more)


GOOD = row()
MISSED = {
    "over the limit": (row("figure: 4"), Verdict.MISSED),
    "fails": (row(code=1), Verdict.FAILED),
    "skipped": (row("figure: 3, 1 skipped"), Verdict.SKIPPED),
    "no figure": (row("nothing"), Verdict.NO_FIGURE),
    "no program": (
        Row("row", at_most(3), ("no-such-program",), r"(\d+)"),
        Verdict.ABSENT,
    ),
    "no file": (suite("row", "tests/test_no_such_file.py"), Verdict.ABSENT),
    "a figure that says too much": (
        row("figure: 4", code=1, exit_counts=False),
        Verdict.MISSED,
    ),
}


@pytest.fixture(autouse=True)
def nothing_remembered():
    run.cache_clear()


@pytest.mark.parametrize(("bad", "verdict"), MISSED.values(), ids=MISSED)
@pytest.mark.parametrize("full", [False, True])
def test_a_row_that_does_not_hold_fails_the_list(capsys, monkeypatch, bad, verdict, full):
    """Whatever is wrong with it, and however good the others are: exit 1."""
    monkeypatch.setitem(sys.modules, "tests.accept.made_up", type("M", (), {"ROWS": (GOOD, bad)}))
    monkeypatch.setattr(program, "lists", lambda: ["made_up"])
    monkeypatch.setenv("FULL", "1" if full else "")
    assert judge(bad, full=full, seed=1).verdict is verdict
    with pytest.raises(SystemExit) as ended:
        program.main(["made_up"])
    assert ended.value.code == 1
    assert f"| {verdict.value}\n" in capsys.readouterr().out


def test_rows_that_hold(capsys):
    rows = [GOOD, row("figure: 4 figure: 2"), row("figure: 3", code=1, exit_counts=False)]
    assert accept(rows, full=True, seed=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "row | limit | measured | verdict",
        "row | <= 3 lines | 3 | ok",
        "row | <= 3 lines | 2 | ok",
        "row | <= 3 lines | 3 | ok",
        "3 rows ok, 0 missed, 0 not run",
    ]


def test_what_is_left_out_is_not_called_ok(capsys):
    slow = row("figure: 9", by_hand=True)
    assert accept([GOOD, slow], full=False, seed=1)
    printed = capsys.readouterr().out
    assert "row | <= 3 lines | - | not run" in printed
    assert "not run: 1. Nothing is known of these" in printed
    assert not accept([GOOD, slow], full=True, seed=1)


def test_the_short_form_draws_with_the_seed_that_it_prints(capsys):
    drawn = Row("row", exactly(7), printing("9"), r"(\d+)", short=("python", "-c", "print({seed})"))
    assert accept([drawn], full=False, seed=7)
    assert "SEED=7" in capsys.readouterr().out
    assert judge(drawn, full=True, seed=7).figure == 9


def test_the_end_of_what_a_missed_command_printed_is_shown_once(capsys):
    assert not accept([row("why\nfigure: 4"), row("why\nfigure: 4")], full=False, seed=1)
    assert capsys.readouterr().out.count("why\nfigure: 4") == 1


def test_a_command_is_run_once_for_all_its_rows(tmp_path):
    script = "import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.open('a').write('x')"
    command = ("python", "-c", script + "; print(1)", str(tmp_path / "runs"))
    for _ in range(3):
        judge(Row("row", exactly(1), command, r"(\d+)"), full=False, seed=1)
    assert (tmp_path / "runs").read_text() == "x"


def test_seconds_are_a_figure():
    result = judge(Row("row", at_most(30, "s"), printing("")), full=False, seed=1)
    assert result.verdict is Verdict.OK
    assert 0 < result.figure < 30


@pytest.mark.parametrize(
    ("limit", "text", "good", "bad"),
    [
        (at_most(3, "s"), "<= 3 s", [3, 0], [3.5]),
        (at_least(3), ">= 3", [3, 4], [2]),
        (exactly(0), "= 0", [0], [1, -1]),
    ],
)
def test_limits(limit, text, good, bad):
    assert limit.text == text
    assert all(map(limit.holds, good))
    assert not any(map(limit.holds, bad))


def test_every_list_has_rows_whose_names_are_told_apart():
    assert "house" in program.lists()
    for name in program.lists():
        rows = __import__(f"tests.accept.{name}", fromlist=["ROWS"]).ROWS
        assert len({each.name for each in rows}) == len(rows) > 0


def test_the_summary_of_pytest_has_the_figure():
    assert (
        judge(
            Row("row", at_least(2), printing("== 2 passed, 1 warning in 1s =="), PASSED),
            full=False,
            seed=1,
        ).verdict
        is Verdict.OK
    )
