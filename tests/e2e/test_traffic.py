"""What a tunnel carries, and how each kind of end looks at the other side; real processes."""

from __future__ import annotations

import hashlib
import random
import resource

import pytest
import trio

from tests.e2e.rig import ask, lab, reset, service, visit
from tests.rig import read_all
from tunnel.limits import MIB

pytestmark = pytest.mark.e2e


async def test_64_mebibytes_both_ways_at_once(tmp_path, certificate, carrier):
    size = 64 * MIB
    outward, inward = (random.Random(seed).randbytes(MIB) for seed in (1, 2))
    digests = {}
    served = trio.Event()

    async def send(stream, block):
        for _ in range(size // MIB):
            await stream.send_all(block)
        await stream.send_eof()

    async def receive(stream, name):
        digest = hashlib.sha256()
        async for data in stream:
            digest.update(data)
        digests[name] = digest.digest()

    async def exchange(stream, block, name):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, stream, block)
            nursery.start_soon(receive, stream, name)

    async def handler(stream):
        await exchange(stream, outward, "service")
        served.set()

    async with lab(tmp_path, certificate, carrier) as place, service(handler) as port:
        await place.start_server()
        _, [address] = await place.publish({"local_port": port})
        async with await visit(address) as visitor:
            await exchange(visitor, inward, "visitor")
        await served.wait()

    assert digests["service"] == hashlib.sha256(inward * 64).digest()
    assert digests["visitor"] == hashlib.sha256(outward * 64).digest()


async def test_a_thousand_connections_one_after_the_other(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        await place.start_server()
        _, [address] = await place.publish({"local_port": port})
        for number in range(1000):
            question = b"%d" % number
            assert await ask(address, question) == question


async def test_two_hundred_connections_at_once(tmp_path, certificate, carrier):
    answers = {}

    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        await place.start_server()
        _, [address] = await place.publish({"local_port": port})
        everybody = trio.Event()
        here = 0

        async def talk(number):
            nonlocal here
            async with await visit(address) as visitor:
                await visitor.send_all(b"%d" % number)
                first = await visitor.receive_some()
                here += 1
                if here == 200:
                    everybody.set()
                await everybody.wait()  # all 200 are open at this moment
                await visitor.send_eof()
                answers[number] = first + await read_all(visitor)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(talk, number)
    assert answers == {number: b"%d" % number for number in range(200)}


async def test_a_slow_visitor_slows_nobody_and_costs_only_its_window(
    tmp_path, certificate, carrier
):
    async def handler(stream):
        try:
            if await stream.receive_some(1) == b"s":
                while True:
                    await stream.send_all(bytes(65536))
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass

    async with lab(tmp_path, certificate, carrier) as place, service(handler) as port:
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port})
        before = server.memory + client.memory
        slow = [await visit(address) for _ in range(4)]
        for visitor in slow:
            await visitor.send_all(b"s")
        async with await visit(address) as quick:
            await quick.send_all(b"q")
            for _ in range(500):
                await quick.send_all(b"ping")
                assert await quick.receive_some() == b"ping"
        # Four windows and queues on each side, and what Python makes of them; a sender that
        # nobody stops would be at hundreds of mebibytes by now.
        assert server.memory + client.memory - before < 64 * MIB
        for visitor in slow:
            await trio.aclose_forcefully(visitor)
        assert await ask(address, b"qstill there") == b"still there"


async def test_half_close_with_a_late_answer(tmp_path, certificate, carrier):
    async def handler(stream):
        question = await read_all(stream)
        await stream.send_all(b"%d bytes" % len(question))

    async with lab(tmp_path, certificate, carrier) as place, service(handler) as port:
        await place.start_server()
        _, [address] = await place.publish({"local_port": port})
        assert await ask(address, bytes(100_000)) == b"100000 bytes"


async def test_an_end_of_the_service_is_an_end_for_the_visitor_who_can_go_on(
    tmp_path, certificate, carrier
):
    got = trio.Event()

    async def handler(stream):
        await stream.send_eof()
        assert await read_all(stream) == b"said after the end"
        got.set()

    async with lab(tmp_path, certificate, carrier) as place, service(handler) as port:
        await place.start_server()
        _, [address] = await place.publish({"local_port": port})
        async with await visit(address) as visitor:
            assert await visitor.receive_some() == b""
            await visitor.send_all(b"said after the end")
            await visitor.send_eof()
            with trio.fail_after(20):
                await got.wait()


async def test_resets_stay_resets(tmp_path, certificate, carrier):
    seen = trio.Event()

    async def handler(stream):
        if await stream.receive_some(1) == b"r":
            reset(stream)
            return
        await stream.send_all(b"w")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        seen.set()

    async with lab(tmp_path, certificate, carrier) as place, service(handler) as port:
        await place.start_server()
        _, [address] = await place.publish({"local_port": port})
        visitor = await visit(address)
        await visitor.send_all(b"r")
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()
        await visitor.aclose()

        visitor = await visit(address)
        await visitor.send_all(b"w")
        assert await visitor.receive_some() == b"w"
        reset(visitor)
        with trio.fail_after(20):
            await seen.wait()


async def test_a_refused_local_service_is_a_reset_before_any_byte(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place, service() as port:
        pass
    async with lab(tmp_path, certificate, carrier) as place:
        await place.start_server()
        client, [address] = await place.publish({"local_port": port})
        visitor = await visit(address)
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()
        await visitor.aclose()
        line = await client.wait_for("Local service unreachable")
        assert line["reason"] == "Connection refused"


@pytest.mark.parametrize("victim", ["server", "client"])
async def test_a_killed_process_is_a_reset_in_the_middle_of_a_download(
    tmp_path, certificate, carrier, victim
):
    async def handler(stream):
        try:
            while True:
                await stream.send_all(bytes(65536))
        except trio.BrokenResourceError:
            pass

    async with lab(tmp_path, certificate, carrier) as place, service(handler) as port:
        server = await place.start_server()
        client, [address] = await place.publish({"local_port": port})
        visitor = await visit(address)
        await visitor.receive_some()
        await {"server": server, "client": client}[victim].kill()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(visitor)
        await visitor.aclose()


async def test_the_visitors_address_reaches_the_service(tmp_path, certificate, carrier):
    async def handler(stream):
        await stream.send_all(await stream.receive_some())

    async with lab(tmp_path, certificate, carrier) as place, service(handler) as port:
        await place.start_server()
        _, addresses = await place.publish(
            {"local_port": port, "proxy_protocol": "v1"},
            {"local_port": port, "proxy_protocol": "v2"},
        )
        async with await visit(addresses[0]) as visitor:
            source = visitor.socket.getsockname()
            expected = f"PROXY TCP4 {source[0]} {place.host} {source[1]} {addresses[0].port}\r\n"
            assert await visitor.receive_some() == expected.encode()
        async with await visit(addresses[1]) as visitor:
            header = await visitor.receive_some()
            assert header.startswith(b"\r\n\r\n\0\r\nQUIT\n\x21\x11")
            assert len(header) == 16 + 12  # no private fields


async def test_more_visitors_than_descriptors(tmp_path, certificate):
    """A server that runs out of descriptors pauses, and recovers when visitors leave."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with lab(tmp_path, certificate) as place, service() as port:
        server = await place.start_server()
        _, [address] = await place.publish({"local_port": port})
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (40, hard))
        visitors = [await visit(address) for _ in range(60)]
        await server.wait_for("Cannot accept")
        for visitor in visitors[:50]:
            await trio.aclose_forcefully(visitor)
        assert await ask(address) == b"hello"
        for visitor in visitors[50:]:
            await trio.aclose_forcefully(visitor)
