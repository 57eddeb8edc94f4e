"""Thousands who connect and say nothing, or half of something: a proper client does not notice."""

from __future__ import annotations

import ssl

import pytest

from tests.e2e.rig import ask
from tests.e2e.rig import service as local
from tests.faults.lab import crowd, descriptors, fault_lab
from tests.reliability.test_killed import moment
from tunnel import limits
from tunnel.limits import KIB, MIB
from tunnel.model import Address

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MANY = 2000


def client_hello() -> bytes:
    """What a TLS client says first."""
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = client_hello()
SAYS = {"nothing": b"", "half a ClientHello": HELLO[: len(HELLO) // 2], "a ClientHello": HELLO}


@pytest.mark.parametrize("says", SAYS, ids=list(SAYS))
async def test_two_thousand(tmp_path, certificate, says):
    async with fault_lab(tmp_path, certificate) as there, local() as port:
        await there.start({"local_port": port})
        assert await ask(there.address) == b"hello"
        await there.client.stop()
        before, open_before = there.server.memory, descriptors(there.server)
        door = Address(there.place.host, there.place.server_port)
        async with crowd(door, MANY, says=SAYS[says]):
            await there.start_client()
            took = moment(there.client, "Connected") - moment(
                there.client, "Connecting", first=True
            )
            assert await ask(there.address) == b"hello"
            more = there.server.memory - before
            open_more = descriptors(there.server) - open_before
        print(f"{MANY} who said {says}: {more / MIB:.1f} MiB, {open_more} descriptors;", end=" ")
        print(f"a client connected in {1000 * took:.0f} ms")
        assert took < 1.0
        assert open_more <= limits.MAX_STRANGERS + 20
        assert more < limits.MAX_STRANGERS * 100 * KIB
        assert await ask(there.address) == b"hello"
        assert "Connection lost" not in there.client.events()
