from __future__ import annotations

import json

import attrs
import pytest

from tests.benchmarks.compare import as_fast_as_before
from tests.benchmarks.report import (
    FEW,
    HELD,
    MISSED,
    NOISY,
    Ratio,
    Results,
    Row,
    figure,
    markdown,
    marks,
    spread,
    times,
    write,
)

FAST = Row("fast", "fast things", "Gbit/s", True, {"Go": 1.35})
SLOW = Row("slow", "slow things", "µs", False, {"Go": 0.5})


def peer(name, missing=None):
    return {"name": name, "version": "1.0", "missing": missing, "commands": []}


def results(*figures, rows=(FAST, SLOW), failures=(), busy=0.0, peers=None):
    """A run whose rounds found these figures; the failures are those of the first round."""
    rounds = [{"figures": found, "failures": [], "busy": busy, "order": []} for found in figures]
    rounds[0]["failures"] = list(failures)
    return Results(
        {
            "begun": "2026-01-01 00:00 UTC",
            "seconds": 3,
            "machine": {"cpu": "Z80", "cores": 2, "kernel": "6.1", "congestion": "cubic"},
            "peers": peers or [peer("tls-tunnel"), peer("Go")],
            "works": [{"name": "fast", "missing": None}],
            "rows": [attrs.asdict(row) for row in rows],
            "rounds": rounds,
        }
    )


def of(ours, theirs, key="fast"):
    return {"tls-tunnel": {key: ours}, "Go": {key: theirs}}


def verdict(row, *values, peer="Go"):
    return Ratio(row, peer, values).verdict


def test_spread():
    found = spread([5, 1, 2, 3, 4])
    assert (found.median, found.low, found.high, found.least, found.most) == (3, 2, 4, 1, 5)
    assert found.width == pytest.approx(2 / 3)


def test_spread_of_one_value():
    found = spread([2.5])
    assert {found.median, found.low, found.high, found.least, found.most} == {2.5}


def test_spread_around_nothing_is_endless():
    assert spread([-1, 0, 1]).width == float("inf")


def test_ratios_are_of_the_same_round():
    # The machine was half as fast in the second round: the ratios do not show it.
    run = results(of(4, 2), of(2, 1), of(6, 3))
    [ratio] = run.ratios()
    assert ratio.values == (2, 2, 2)


def test_a_round_without_both_figures_gives_no_ratio():
    run = results(of(4, 2), {"tls-tunnel": {"fast": 9}}, {"Go": {"fast": 9}}, of(3, 0))
    [ratio] = run.ratios()
    assert ratio.values == (2,)


def test_a_row_that_nobody_measured_has_no_ratio():
    assert [ratio.row.key for ratio in results(of(4, 2)).ratios()] == ["fast"]


@pytest.mark.parametrize(
    ("row", "value", "expected"),
    [
        (FAST, 1.36, HELD),
        (FAST, 1.35, HELD),
        (FAST, 1.34, MISSED),
        (SLOW, 0.51, MISSED),
        (SLOW, 0.5, HELD),
        (SLOW, 0.1, HELD),
    ],
)
def test_verdict_against_the_promise(row, value, expected):
    assert verdict(row, value, value, value) == expected


def test_no_promise_no_verdict():
    assert verdict(FAST, 1, 1, 1, peer="ssh") == ""


def test_no_verdict_from_noise():
    assert verdict(FAST, 10, 14, 18) == HELD
    assert verdict(FAST, 10, 15, 25) == NOISY
    assert verdict(FAST, 10, 15, 25, peer="ssh") == NOISY


def test_no_verdict_from_two_rounds():
    assert verdict(FAST, 2, 2) == FEW


def test_doubtful_unless_every_promise_was_seen_held():
    held = [of(4, 2)] * 3
    assert not results(*held).doubtful()
    assert results(*[of(2, 2)] * 3).doubtful()
    assert results(*held[:2]).doubtful()


def test_doubtful_if_nothing_promised_was_measured():
    assert results({"tls-tunnel": {"fast": 1}}).doubtful()


def test_corrupt():
    failure = {"peer": "Go", "work": "integrity", "round": 1, "text": "x", "corrupt": True}
    assert results(of(1, 1), failures=[failure]).corrupt()
    assert not results(of(1, 1), failures=[failure | {"corrupt": False}]).corrupt()


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12 346"), (100, "100"), (99.44, "99.4"), (1.2345, "1.23"), (0.001234, "0.00123")],
)
def test_figure(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12.345, "12.35"), (0.1, "0.10"), (0.0412, "0.041"), (0, "0")]
)
def test_times(value, text):
    assert times(value) == text


def lines(run):
    return markdown(run).splitlines()


def test_table_of_figures():
    text = lines(results(of(4, 2), of(2, 1) | {"direct": {"fast": 100}}, of(6, 3)))
    assert "|  | direct | tls-tunnel<br>1.0 | Go<br>1.0 |" in text
    assert "| fast things, Gbit/s | 100 | 4 | 2 |" in text


def test_table_of_ratios():
    text = lines(results(of(1, 1), of(2, 1), of(3, 1), of(4, 1), of(5, 1)))
    assert "| fast things | 3.00 × | 2.00–4.00 | 1.00–5.00 | more | ≥ 1.35 | too noisy |" in text


def test_what_is_missing_is_named():
    failure = {"peer": "Go", "work": "bulk", "round": 1, "text": "no\nlog", "corrupt": False}
    peers = [peer("tls-tunnel"), peer("frp", "no frps on PATH")]
    text = lines(results(of(1, 1), failures=[failure], peers=peers))
    assert "- frp: no frps on PATH" in text
    assert "- bulk of Go, round 1: no" in text
    assert not any(line.startswith("|") and "frp" in line for line in text)


def test_a_busy_machine_is_named():
    assert "Something else was running" in markdown(results(of(1, 1), busy=0.5))
    assert "Something else was running" not in markdown(results(of(1, 1), busy=0.01))


def test_integrity_is_summed_up():
    run = results({"Go": {"integrity": 256}}, {"Go": {"integrity": 256}})
    assert "- Go: 512 MiB each way, every SHA-256 as sent." in lines(run)


def test_marks_turn_so_that_more_is_better():
    run = results(*[of(1, 4, "slow") | {}] * 3)
    [mark] = marks(run)
    assert (mark.median, mark.extremes, mark.promised, mark.sure) == (4, (4, 4), 2, True)


def test_marks_show_what_is_not_sure():
    run = results(of(1, 1), of(2, 1), of(4, 1))
    assert [mark.sure for mark in marks(run)] == [False]


def test_what_has_no_place_on_a_logarithmic_axis_is_not_marked():
    assert not marks(results(of(0, 1, "slow")))
    assert not marks(results(of(-1, 1)))


def test_files(tmp_path):
    run = results(of(4, 2))
    write(run, tmp_path / "new")
    again = Results(json.loads((tmp_path / "new" / "results.json").read_text()))
    assert markdown(again) == markdown(run) == (tmp_path / "new" / "results.md").read_text()
    assert (tmp_path / "new" / "results.svg").read_text().startswith("<svg")


# --- The tree before --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "values", "found"),
    [
        (FAST, (0.8, 0.9, 1.02), MISSED),  # the quartiles are 0.85 and 0.96
        (FAST, (0.8, 0.9, 1.1), HELD),  # 0.85 and 1
        (FAST, (1.1, 1.2, 1.3), HELD),
        (SLOW, (0.98, 1.1, 1.2), MISSED),  # 1.04 and 1.15
        (SLOW, (0.9, 1.1, 1.2), HELD),  # 1 and 1.15
        (SLOW, (0.7, 0.8, 0.9), HELD),
        (FAST, (0.5, 1.0, 5.0), HELD),  # however noisy
        (FAST, (0.5, 0.5), FEW),
    ],
)
def test_verdict_against_the_tree_before(row, values, found):
    assert verdict(row, *values, peer="before") == found


def in_turns(*pairs, rows=(FAST,)):
    """A run of this tree and the one before, with these figures of both in each round."""
    figures = [{"tls-tunnel": {"fast": ours}, "before": {"fast": theirs}} for ours, theirs in pairs]
    return results(*figures, rows=rows, peers=[peer("tls-tunnel"), peer("before")])


@pytest.mark.parametrize(
    ("run", "printed", "held"),
    [
        (in_turns((9, 8), (8, 8), (8, 9)), "slower than before: 0", True),
        (in_turns((7, 8), (7, 8), (7, 9)), "slower than before: 1\n  fast things", False),
        (in_turns((9, 8), (8, 8)), "not compared with the tree before: fast things", False),
        (
            in_turns((9, 8), (8, 8), (8, 9), rows=(FAST, SLOW)),
            "not compared with the tree before: slow things",
            False,
        ),
    ],
    ids=["as fast", "slower", "too few rounds", "a row without figures"],
)
def test_as_fast_as_before(capsys, run, printed, held):
    assert as_fast_as_before(run) is held
    assert capsys.readouterr().out.strip() == printed


def test_table_of_the_tree_before():
    assert "| 0.88 × | 0.83–0.88 | 0.78–0.88 | more | not worse | **missed** |" in markdown(
        in_turns((7, 8), (7, 8), (7, 9))
    )
