from __future__ import annotations

import io
import random
import signal
import sys

import pytest

from tests.benchmarks import compare, workloads
from tests.benchmarks.compare import Comparison, all_peers, arguments, choose_peers, choose_work
from tests.benchmarks.digest import Corrupt
from tests.benchmarks.peers.openssh import OpenSSH
from tests.benchmarks.peers.ours import Ours
from tests.benchmarks.progress import Progress
from tests.benchmarks.report import OURS, Row
from tests.benchmarks.running import Failed, Service
from tests.benchmarks.services import Services
from tests.benchmarks.workloads import Work


def names(things):
    return [thing.name for thing in things]


def test_ours_comes_first():
    peers = all_peers()
    assert next(iter(peers)) == "ours"
    assert {"golang", "openssh"} <= set(peers)


def test_names_are_told_apart():
    found = names(all_peers().values())
    assert len(set(found)) == len(found)


def test_choose_peers():
    assert names(choose_peers("go,ssh,openssh")) == [OURS, "Go (minimal)", "ssh -R"]
    assert names(choose_peers(None)) == names(all_peers().values())
    with pytest.raises(SystemExit, match="no peer is called 'nobody'"):
        choose_peers("nobody")
    assert names(choose_peers("go", compiled=True)) == [OURS, "interpreted", "Go (minimal)"]
    assert names(choose_peers(None, compiled=True))[:3] == [
        OURS,
        "interpreted",
        names(choose_peers(None))[1],
    ]


def test_a_copy_says_whether_it_is_there_and_compiled(tmp_path):
    copy = Ours(tmp_path / "copy")
    assert "make bench" in copy.missing()
    engine = tmp_path / "copy" / "tunnel" / "yamux"
    engine.mkdir(parents=True)
    assert copy.missing() is None
    assert "compiled" not in copy.version()
    (engine / "connection.abi.so").touch()
    assert copy.version().endswith("(engine compiled)")


def test_choose_work():
    assert names(choose_work("bulk1,memory")) == ["bulk1-up", "bulk1-down", "memory"]
    assert choose_work(None) == list(workloads.ALL)
    with pytest.raises(SystemExit, match="no work is called 'sleep'"):
        choose_work("sleep")


def test_rows_are_told_apart():
    rows = [row for work in workloads.ALL for row in work.rows]
    assert len({row.key for row in rows}) == len({row.title for row in rows}) == len(rows)


def test_promises_are_to_peers_that_exist():
    peers = set(names(all_peers().values()))
    for work in workloads.ALL:
        for row in work.rows:
            assert set(row.promised) <= peers


@pytest.mark.parametrize("name", ["recovery", "ports", "memory"])
def test_what_needs_a_tunnel_is_not_done_without(name):
    [work] = choose_work(name)
    assert not work.applies(None)
    assert work.applies(Ours())


def test_a_client_that_does_not_reconnect_is_not_asked_to():
    [recovery] = choose_work("recovery")
    assert not recovery.applies(OpenSSH())


def test_work_without_its_tools_says_so(monkeypatch):
    monkeypatch.setattr(workloads, "find_program", lambda _: None)
    assert workloads.KEEP.missing() == "no wrk, nginx on PATH"


def test_defaults():
    options = arguments([])
    assert (options.rounds, options.seconds) == (5, 3)
    quick = arguments(["--quick"])
    assert (quick.rounds, quick.seconds) == (2, 1)
    assert arguments(["--quick", "--rounds", "7"]).rounds == 7


def test_busy_is_a_share():
    assert 0 <= compare.busy(0.05) <= 1


class Counting:
    """Work that writes down who was measured."""

    def __init__(self, error=None):
        self.seen = []
        self._error = error

    def __call__(self, case):
        self.seen.append(case.peer.name if case.peer else "direct")
        if case.peer and self._error:
            raise self._error
        return {"value": 1.0}


class Nothing:
    """In the place of running services."""

    def __enter__(self):
        return Services(None, None, Service(1, b""))

    def __exit__(self, *_):
        pass


@pytest.fixture
def one_round(monkeypatch):
    """Runs one round of some work, without services and tunnels."""

    monkeypatch.setattr(compare, "services", Nothing)
    monkeypatch.setattr(compare, "busy", lambda _: 0.0)

    def run(measure, seed=1, **more):
        work = Work("count", (), measure, standing=False, **more)
        peers = [Ours(), OpenSSH()]
        progress = Progress(io.StringIO())
        comparison = Comparison(peers, [work], 1, True, random.Random(seed), progress)
        assert comparison.steps() == (3 if work.direct else 2)
        return comparison.round(1)

    return run


def test_a_round_measures_everyone_once(one_round):
    measure = Counting()
    found = one_round(measure)
    assert sorted(measure.seen) == ["direct", "ssh -R", OURS]
    assert found["order"] == [["count", *measure.seen]]
    assert found["figures"] == {name: {"value": 1.0} for name in measure.seen}


def test_the_order_changes_with_the_seed(one_round):
    orders = {tuple(one_round(Counting(), seed)["order"][0]) for seed in range(20)}
    assert len(orders) == 6


def test_without_direct(one_round):
    assert "direct" not in one_round(Counting(), direct=False)["figures"]


@pytest.mark.parametrize(
    ("error", "corrupt"),
    [(Failed("no answers"), False), (OSError("reset"), False), (Corrupt("other bytes"), True)],
)
def test_a_failure_is_written_down_and_the_round_goes_on(one_round, error, corrupt):
    found = one_round(Counting(error))
    assert set(found["figures"]) == {"direct"}
    assert sorted(failure["peer"] for failure in found["failures"]) == ["ssh -R", OURS]
    for failure in found["failures"]:
        assert (failure["text"], failure["corrupt"]) == (str(error), corrupt)


@pytest.mark.parametrize(("ratio", "code"), [(0.5, compare.DOUBTFUL), (1.0, None)])
def test_the_exit_code_says_whether_it_is_slower_than_before(
    monkeypatch, capsys, tmp_path, ratio, code
):
    """Of a whole run: the other checkout is measured in each round, and judged at the end."""

    def measure(case):
        return {"value": ratio if case.peer and case.peer.name == OURS else 1.0}

    work = Work("count", (Row("value", "things", "", True),), measure, standing=False)
    (tmp_path / "before").mkdir()
    argv = ["compare", "--peers", "", "--before", str(tmp_path / "before"), "--rounds", "3"]
    monkeypatch.setattr(sys, "argv", [*argv, "--out", str(tmp_path / "out")])
    monkeypatch.setattr(compare, "choose_work", lambda _: [work])
    monkeypatch.setattr(compare, "_commands", lambda _: [])
    monkeypatch.setattr(compare, "busy", lambda _: 0.0)
    monkeypatch.setattr(compare, "raise_limit", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(compare, "services", Nothing)
    if code is None:
        compare.main()
    else:
        with pytest.raises(SystemExit) as ended:
            compare.main()
        assert ended.value.code == code
    printed = capsys.readouterr().out
    assert f"slower than before: {int(ratio < 1)}" in printed
    assert "against before" in printed
