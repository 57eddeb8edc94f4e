"""What the diagnostic reads out of `ss` and `tc`."""

from __future__ import annotations

import pytest

from tests.benchmarks.waiting import Look, parse_backlog, parse_ss, report

BUSY = (
    "0 118464 10.213.0.2:48914 10.213.0.1:7000 bbr wscale:10,10 rto:208 rtt:7.612/0.63 ato:40 "
    "mss:1448 pmtu:1500 rcvmss:536 advmss:1448 cwnd:32 bytes_sent:14480000 bytes_retrans:2896 "
    "bytes_acked:14433665 bytes_received:5120 segs_out:9999 pacing_rate 47161224bps "
    "delivery_rate 47680000bps busy:2404ms unacked:28 retrans:0/2 rcv_space:14480 "
    "notsent:77920 minrtt:0.03 snd_wnd:262144"
)
IDLE = "0 0 10.213.0.2:48914 10.213.0.1:7000 bbr wscale:10,10 rto:204 rtt:0.2/0.1 mss:1448 cwnd:10"
QDISC = """\
qdisc tbf 8002: root refcnt 3 rate 50Mbit burst 16Kb lat 50ms
 Sent 62914560 bytes 41563 pkt (dropped 12, overlimits 83126 requeues 0)
 backlog {} 23p requeues 0
"""


def test_a_busy_sender():
    assert parse_ss(BUSY, 33_000) == Look(
        rtt=pytest.approx(0.007612),
        minrtt=pytest.approx(0.00003),
        cwnd=32 * 1448,
        unacked=28 * 1448,
        notsent=77_920,
        queued=33_000,
        retrans=2,
    )


def test_what_ss_leaves_out_is_nothing():
    look = parse_ss(IDLE, 0)
    assert look is not None
    assert (look.unacked, look.notsent, look.retrans) == (0, 0, 0)


@pytest.mark.parametrize("text", ["", "0 0 10.213.0.2:1 10.213.0.1:2"])
def test_no_connection(text):
    assert parse_ss(text, 0) is None


@pytest.mark.parametrize(
    ("backlog", "size"), [("0b", 0), ("34822b", 34_822), ("34Kb", 34 << 10), ("2Mb", 2 << 20)]
)
def test_backlog(backlog, size):
    assert parse_backlog(QDISC.format(backlog)) == size


def test_no_backlog():
    assert parse_backlog("qdisc noqueue 0: root refcnt 2") == 0


def test_bytes_are_told_in_milliseconds_of_the_rate():
    looks = [Look(0.005, 0.0001, 62_500, 31_250, 6_250, 0, again) for again in (3, 5)]
    table = {line.split("  ")[0]: line.split()[-3:] for line in report(looks, rate=50_000_000)}
    assert table["rtt ms"] == ["5.00"] * 3
    assert table["cwnd ms"] == ["10.00"] * 3
    assert table["notsent ms"] == ["1.00"] * 3
    assert table["sent again"][-2:] == ["2", "segments"]


def test_nothing_was_seen():
    assert list(report([])) == ["nobody sent anything"]
