"""Events that strangers cause: some at once, then one now and then that counts the others."""

import pytest
import trio

from tunnel import limits
from tunnel.events import End, EndReason, EventStream, HandshakeFailed
from tunnel.model import Address
from tunnel.server.limited_events import LimitedEvents


@pytest.fixture
def told():
    return []


@pytest.fixture
def limited(told):
    return LimitedEvents(EventStream(told.append))


def fail(limited, number, kind="handshake"):
    end = End(EndReason.OTHER, "bad")
    limited.emit(kind, lambda left_out: HandshakeFailed(Address("x", number), end, left_out))


async def test_some_at_once_and_then_one_now_and_then(limited, told, autojump_clock):
    for number in range(1000):
        fail(limited, number)
    assert [event.address.port for event in told] == list(range(20))
    assert not any("left_out" in event.details() for event in told)
    told.clear()
    await trio.sleep(limits.REFUSAL_LOG_INTERVAL)
    for number in range(10):
        fail(limited, number)
    [event] = told
    assert (event.address.port, event.details()["left_out"]) == (0, 980)
    told.clear()
    await trio.sleep(3600)
    fail(limited, 1)
    fail(limited, 2)
    first, second = told
    assert first.left_out == 9
    assert second.left_out == 0  # each is counted once


async def test_what_floods_does_not_hide_what_does_not(limited, told, autojump_clock):
    for _ in range(100):
        fail(limited, 1, "refused/protocol")
    fail(limited, 2, "refused/already_connected")
    fail(limited, 2)
    assert [event.address.port for event in told] == [1] * 20 + [2] * 2
