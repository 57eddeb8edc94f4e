from __future__ import annotations

import json

import pytest

from tests.benchmarks import tools
from tests.benchmarks.running import Failed
from tests.benchmarks.tools import Bulk, iperf3, parse_iperf3, parse_wrk, wrk

WRK = """\
Running 3s test @ http://127.0.0.1:8080/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.04ms    1.01ms  20.00ms   88.12%
    Req/Sec    31.53k     2.90k   37.62k    70.00%
  Latency Distribution
     50%  812.00us
     75%    2.36ms
     90%    3.11ms
     99%    1.02s
  94196 requests in 3.00s, 30.54MB read
Requests/sec:  31352.08
Transfer/sec:     10.16MB
"""
ERRORS = "  Socket errors: connect 0, read {}, write 0, timeout {}\n"


def iperf(size=1000, seconds=2.0, error=None):
    if error:
        return json.dumps({"start": {}, "error": error})
    total = {"bytes": size, "seconds": seconds, "bits_per_second": 8 * size / seconds}
    return json.dumps({"end": {"sum_sent": {"bytes": 9 * size}, "sum_received": total}})


def test_wrk():
    found = parse_wrk(WRK)
    assert found.rate == 31352.08
    assert found.p50 == pytest.approx(812e-6)
    assert found.p99 == pytest.approx(1.02)


def test_wrk_with_a_few_errors():
    assert parse_wrk(WRK + ERRORS.format(50, 44)).rate


@pytest.mark.parametrize(
    "line",
    [ERRORS.format(95, 0), ERRORS.format(50, 45), "  Non-2xx or 3xx responses: 95\n"],
)
def test_wrk_with_errors_means_nothing(line):
    with pytest.raises(Failed, match="errors"):
        parse_wrk(WRK + line)


@pytest.mark.parametrize(
    "text",
    ["", "unable to connect to 127.0.0.1:1 Connection refused\n", WRK.replace("94196", "0")],
)
def test_wrk_without_answers(text):
    with pytest.raises(Failed, match="no answers"):
        parse_wrk(text)


def test_iperf3_counts_what_arrived():
    assert parse_iperf3(iperf(1000, 2.0)) == Bulk(1000, 2.0)


@pytest.mark.parametrize("text", ["", "iperf3: error", iperf(error="unable to connect"), iperf(0)])
def test_iperf3_that_failed(text):
    with pytest.raises(Failed):
        parse_iperf3(text)


def test_iperf3_waits_for_a_busy_server(monkeypatch):
    answers = [iperf(error="the server is busy running a test. try again later"), iperf(7, 1.0)]
    waited = []
    monkeypatch.setattr(tools, "_run", lambda *_: answers.pop(0))
    monkeypatch.setattr(tools.time, "sleep", waited.append)
    assert iperf3("127.0.0.1", 1, seconds=1) == Bulk(7, 1.0)
    assert len(waited) == 1


def test_iperf3_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(tools, "_run", lambda *_: iperf(error="the server is busy"))
    monkeypatch.setattr(tools.time, "sleep", lambda _: None)
    with pytest.raises(Failed, match="stayed busy"):
        iperf3("127.0.0.1", 1, seconds=1)


def test_a_tool_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(tools, "find_program", lambda _: None)
    with pytest.raises(Failed, match="wrk is not installed"):
        wrk("http://127.0.0.1:1/", 1, 1)
