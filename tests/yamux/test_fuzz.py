"""The fuzzers of `fuzz/fuzz_yamux.py` for a moment, with the same cases each time."""

import pytest
from hypothesis import settings

from fuzz.fuzz_yamux import QUICK, fuzz_bytes, fuzz_streams
from fuzz.yamux_referee import Referee
from tests.yamux.wire import ACK, FIN, RST, SYN, data, go_away, ping, update
from tunnel.yamux import Role


# They take two seconds, unless one of them finds something and makes it small.
@pytest.mark.timeout(600)
def test_two_engines():
    fuzz_streams(settings(QUICK, max_examples=120))


@pytest.mark.timeout(600)
def test_any_bytes():
    fuzz_bytes(settings(QUICK, max_examples=100))


WRONG = {
    "a stream from nowhere": [data(3, b"x")],
    "data before SYN": [data(1, b"x"), update(1, flags=SYN)],
    "a second SYN": [update(1, flags=SYN), update(1, flags=SYN)],
    "numbers that go down": [update(3, flags=SYN), update(1, flags=SYN)],
    "a number of the other's": [update(2, flags=SYN)],
    "ACK of one's own stream": [update(1, flags=SYN), update(1, flags=ACK)],
    "two flags": [update(1, flags=SYN | FIN)],
    "FIN with data": [update(1, flags=SYN), data(1, b"x", FIN)],
    "no data": [update(1, flags=SYN), data(1)],
    "too much data": [update(1, flags=SYN), data(1, bytes(1001))],
    "data beyond the window": [update(1, flags=SYN), *[data(1, bytes(1000))] * 263],
    "data after FIN": [update(1, flags=SYN), update(1, flags=FIN), data(1, b"x")],
    "two FINs": [update(1, flags=SYN), update(1, flags=FIN), update(1, flags=FIN)],
    "anything after RST": [update(1, flags=SYN), update(1, flags=RST), update(1, 5)],
    "no credit": [update(1, flags=SYN), update(1)],
    "an answer to no ping": [ping(1, ACK)],
    "a ping with two flags": [ping(1, SYN | ACK)],
    "anything after the go-away": [go_away(), ping(1)],
    "half a frame": [data(1, b"x")[:5]],
}


@pytest.mark.parametrize("name", WRONG)
def test_the_referee_sees(name):
    referee = Referee(Role.CLIENT, max_frame=1000)
    with pytest.raises((AssertionError, LookupError)):
        referee.sent(WRONG[name])
