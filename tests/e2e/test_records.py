"""What server and client write down of one visitor: the same connection, by the same id."""

from __future__ import annotations

import functools
import json

import pytest
import trio

from tests.e2e.rig import PATIENCE, ask, lab, service, visit
from tests.rig import read_all

pytestmark = pytest.mark.e2e


class Audited:
    """A server and a client that log everything and keep an audit log each."""

    def __init__(self, place, directory):
        self.place = place
        self.files = {"server": directory / "s.jsonl", "client": directory / "c.jsonl"}
        place.run = functools.partial(verbosely, place.run)

    async def start(self, *proxies):
        self.server = await self.place.start_server(audit_log=str(self.files["server"]))
        self.client, addresses = await self.place.publish(
            *proxies, audit_log=str(self.files["client"])
        )
        return addresses

    async def records(self, side):
        """All records of a side, which is stopped for it."""
        await getattr(self, side).stop()
        return [json.loads(line) for line in self.files[side].read_text().splitlines()]


async def verbosely(run, command, *arguments):
    return await run(command, "-v", *arguments)


@pytest.fixture
async def audited(tmp_path, certificate, carrier):
    async with lab(tmp_path, certificate, carrier) as place:
        yield Audited(place, tmp_path)


async def test_one_connection_has_one_id_in_both_logs_and_both_audits(audited):
    async with service() as port:
        [address] = await audited.start({"local_port": port, "name": "web"})
        assert await ask(address, b"x" * 100_000) == b"x" * 100_000
        came = await audited.server.wait_for("Visitor connected")
        ends = [
            await each.wait_for("Connection ended") for each in (audited.server, audited.client)
        ]
        [there], [here] = [await audited.records(side) for side in ("server", "client")]
    ids = {line["connection"] for line in [came, *ends, there, here]}
    assert len(ids) == 1
    for record in (there, here):
        assert (record["sent"], record["received"]) == (100_000, 100_000)
        assert (record["proxy"], record["client"], record["end"]) == ("web", "client", "finished")
        assert 0 < record["duration"] < PATIENCE
    assert there["visitor"] == here["visitor"] == came["address"]


async def test_a_visitor_whom_nobody_serves(audited):
    async with service() as port:
        pass  # nobody is there any more
    [address] = await audited.start({"local_port": port})
    with pytest.raises(trio.BrokenResourceError):
        async with await visit(address) as visitor:
            await read_all(visitor)
    for side in ("server", "client"):
        [record] = await audited.records(side)
        assert (record["end"], record["sent"]) == ("local refused", 0)


async def test_a_visitor_who_is_not_allowed(audited):
    [address] = await audited.start({"local_port": 1, "allow_from": "192.0.2.0/24"})
    with pytest.raises((trio.BrokenResourceError, OSError)):
        async with await visit(address) as visitor:
            await read_all(visitor)
    [record] = await audited.records("server")
    assert (record["end"], record["connection"]) == ("address not allowed", None)
    assert audited.files["client"].read_text() == ""


async def test_a_lost_link_and_a_file_that_is_rotated(audited):
    async with service() as port:
        [address] = await audited.start({"local_port": port})
        visitor = await visit(address)
        await visitor.send_all(b"hello")
        assert await visitor.receive_some()
        old = audited.files["server"].rename(audited.files["server"].with_suffix(".1"))
        await audited.client.kill()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(visitor)
        await visitor.aclose()
        [record] = await audited.records("server")
    assert record["end"] == "link lost"
    assert old.read_text() == ""


async def test_who_is_there_at_the_end_is_written_down(audited):
    async with service() as port:
        [address] = await audited.start({"local_port": port})
        async with await visit(address) as visitor:
            await visitor.send_all(b"hello")
            assert await visitor.receive_some()
            [here] = await audited.records("client")
    assert here["end"] == "link lost"
    assert here["received"] == 5


async def test_a_file_that_cannot_be_opened_is_said_at_the_start(tmp_path, certificate):
    async with lab(tmp_path, certificate) as place:
        file = place.write_client({"local_port": 1}, audit_log="no/audit.jsonl", server_port=1)
        client = await place.run("client", "-c", str(file))
        await client.wait_for(
            "error: could not start: cannot write audit_log, no/audit.jsonl: No such file or "
            "directory; its directory must be there, and be writable for this user"
        )
        assert await client.process.wait() == 1
