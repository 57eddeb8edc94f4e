"""The batch follows what the network delivers."""

import pytest

from tests.net.rig import socket_transports
from tunnel import limits
from tunnel.net.pace import Pace
from tunnel.net.transport import SocketTransport

MBIT = 1e6 / 8


class Network:
    """A transport whose rate is what the test says."""

    def __init__(self, rate):
        self.rate = rate
        self.limits = []

    def delivery_rate(self):
        return self.rate

    def limit_unsent(self, size):
        self.limits.append(size)


@pytest.mark.parametrize(
    ("rate", "batch"),
    [
        (0.1 * MBIT, limits.MIN_BATCH),
        (50 * MBIT, 16 * limits.KIB),  # 25 kB in 4 ms
        (100 * MBIT, 32 * limits.KIB),
        (1000 * MBIT, 256 * limits.KIB),
        (100_000 * MBIT, 2 * limits.BATCH),
    ],
)
def test_a_batch_is_what_the_link_carries_in_a_few_milliseconds(rate, batch):
    network = Network(rate)
    pace = Pace(network)
    pace.look(0.0)
    assert pace.batch == batch
    assert network.limits == ([] if batch == limits.BATCH else [batch])


def test_up_it_goes_in_steps():
    network = Network(50 * MBIT)
    pace = Pace(network)
    pace.look(0.0)
    network.rate = 100_000 * MBIT
    batches = [pace.batch for now in range(1, 10) if pace.look(float(now))]
    assert batches == [limits.MIN_BATCH << step for step in range(1, 7)]
    assert batches[-1] == limits.MAX_BATCH


def test_a_change_is_told_once():
    pace = Pace(Network(50 * MBIT))
    assert pace.look(0.0)
    assert not pace.look(1.0)


def test_the_kernel_is_not_asked_all_the_time():
    network = Network(50 * MBIT)
    pace = Pace(network)
    pace.look(0.0)
    network.rate = 1000 * MBIT
    assert not pace.look(limits.PACE_INTERVAL * 0.9)
    assert pace.look(limits.PACE_INTERVAL * 1.1)
    assert pace.batch == 32 * limits.KIB


def test_nobody_knows():
    pace = Pace(Network(None))
    assert not pace.look(0.0)
    assert pace.batch == limits.BATCH


async def test_tcp_knows_its_rate():
    one, other = socket_transports()
    one.limit_unsent(limits.MIB)
    buffer = memoryview(bytearray(1 << 16))
    while one.delivery_rate() is None:  # until it was busy for a while
        while one.send_nowait([buffer]):
            pass
        await other.receive_into(buffer)
    assert one.delivery_rate() > 1e5
    one.abort()
    assert one.delivery_rate() is None
    other.abort()


async def test_a_rate_that_is_only_that_of_the_source_is_not_the_network_s():
    one, other = socket_transports()
    for _ in range(20):
        one.send_nowait([b"x"])
        await other.receive_into(memoryview(bytearray(1)))
        assert one.delivery_rate() is None
    one.abort()
    other.abort()


async def test_what_the_kernel_keeps_unsent_is_limited():
    one, other = socket_transports()
    assert isinstance(one, SocketTransport)
    one.limit_unsent(limits.MIN_BATCH)
    sent = 0
    while size := one.send_nowait([bytes(4096)]):
        sent += size
    # What the peer's window takes is in flight; of the rest the kernel takes about this much.
    with_limit = sent
    one.limit_unsent(8 * limits.MIB)
    while size := one.send_nowait([bytes(4096)]):
        sent += size
    assert sent > with_limit
    one.abort()
    other.abort()
