from __future__ import annotations

import errno
import json
import os
import threading

import attrs
import pytest
import trio

from tunnel import limits
from tunnel.errors import TunnelError
from tunnel.events import VisitorClosed
from tunnel.model import Address
from tunnel.ops.audit import AuditFile, AuditLog, open_audit

CLOSED = VisitorClosed(
    "web", "office", "00ff", Address("2001:db8::1", 50000), 10, 20, 1.25, "finished"
)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def live(audit, life):
    """Have the audit log written while `life` runs."""
    async with audit.written():
        await life()


class Disk:
    """A file that takes nothing until it is let, or never."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.may = threading.Event()
        self.may.set()
        self.lines = []

    def write(self, data):
        self.may.wait(20)
        if self.failures:
            raise self.failures.pop(0)
        self.lines += map(json.loads, data.decode().splitlines())

    def close(self):
        pass


async def test_a_record_is_a_line(tmp_path):
    with open_audit("audit.jsonl", base=tmp_path) as audit:

        async def life():
            audit.put(CLOSED)

        await live(audit, life)
    [line] = lines(tmp_path / "audit.jsonl")
    assert line.pop("time").endswith("Z")
    assert line == {
        "connection": "00ff",
        "client": "office",
        "proxy": "web",
        "visitor": "[2001:db8::1]:50000",
        "sent": 10,
        "received": 20,
        "duration": 1.25,
        "end": "finished",
    }


async def test_only_the_owner_can_read_it(tmp_path):
    with open_audit("audit.jsonl", base=tmp_path):
        assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_there_is_appended_to_and_keeps_its_mode(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text('{"earlier": true}\n')
    path.chmod(0o640)
    with open_audit(str(path), base=tmp_path) as audit:

        async def life():
            audit.put(CLOSED)

        await live(audit, life)
    assert [next(iter(line)) for line in lines(path)] == ["earlier", "time"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(TunnelError, match=r"cannot write audit_log, no/audit.jsonl: No such file"):
        with open_audit("no/audit.jsonl", base=tmp_path):
            pass


def test_nothing_is_kept_unless_asked_for(tmp_path):
    with open_audit(None, base=tmp_path) as audit:
        assert audit is None
    assert not list(tmp_path.iterdir())


async def test_standard_output(capfd, tmp_path):
    with open_audit("-", base=tmp_path, client="home") as audit:

        async def life():
            audit.put(
                VisitorClosed("web", "", None, CLOSED.visitor, 0, 0, 0.0, "address not allowed")
            )

        await live(audit, life)
    line = json.loads(capfd.readouterr().out)
    assert (line["client"], line["connection"]) == ("home", None)


def test_a_file_that_was_moved_away_gets_no_more(tmp_path):
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    file = AuditFile(path)
    file.write(b"1\n")
    path.rename(old)
    file.write(b"2\n")
    path.unlink()
    file.write(b"3\n")
    assert (old.read_text(), path.read_text()) == ("1\n", "3\n")
    assert path.stat().st_mode & 0o777 == 0o600
    file.close()


def test_a_file_that_was_replaced(tmp_path):
    path = tmp_path / "audit"
    file = AuditFile(path)
    path.rename(tmp_path / "audit.1")
    path.touch(0o640)
    file.write(b"1\n")
    file.close()
    assert path.read_text() == "1\n"


def test_a_moved_file_is_better_than_none(tmp_path, monkeypatch):
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    file = AuditFile(path)
    path.rename(old)

    def fail(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        file.write(b"1\n")
        old.unlink()
        with pytest.raises(PermissionError):
            file.write(b"2\n")  # to a file that nobody could find
    file.close()


def test_a_line_that_was_torn_does_not_spoil_the_next(tmp_path, monkeypatch):
    file = AuditFile(tmp_path / "audit")
    write, taken = os.write, []

    def half(descriptor, data):
        if taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken.append(write(descriptor, bytes(data)[:3]))
        return 3

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            file.write(b"lost line\n")
    file.write(b"next line\n")
    file.close()
    assert (tmp_path / "audit").read_text() == "los\nnext line\n"


async def test_a_slow_disk_stops_nobody_and_what_is_lost_is_counted(monkeypatch, caplog):
    monkeypatch.setattr(limits, "AUDIT_QUEUE", 3)
    disk = Disk()
    disk.may.clear()
    audit = AuditLog(disk)

    async def life():
        for _ in range(8):
            audit.put(CLOSED)
        [line] = caplog.records
        assert (line.getMessage(), line.reason) == ("Audit records lost", "the disk is too slow")
        disk.may.set()
        while disk.lines == []:
            await trio.lowlevel.checkpoint()

    await live(audit, life)
    assert [line.get("lost") for line in disk.lines] == [5, None, None, None]
    assert len(caplog.records) == 1  # not one for each


async def test_a_full_disk_is_said_and_counted(caplog):
    disk = Disk(OSError(errno.ENOSPC, "No space left on device"))
    audit = AuditLog(disk)

    async def life():
        audit.put(CLOSED)
        while not caplog.records:
            await trio.lowlevel.checkpoint()
        audit.put(CLOSED)

    await live(audit, life)
    assert (caplog.records[0].records, caplog.records[0].reason) == (1, "No space left on device")
    assert [line.get("lost") for line in disk.lines] == [1, None]


@pytest.fixture
def no_threads(monkeypatch):
    """Time that jumps does not wait for a real thread."""

    async def run_sync(write, data, *, abandon_on_cancel):
        await trio.lowlevel.checkpoint()
        write(data)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


async def test_a_thread_writes_some_times_a_second_and_what_comes_first_at_once(
    autojump_clock, no_threads
):
    """A thread for each record would cost as much as the connection that it is of."""
    disk = Disk()
    writes = []
    audit = AuditLog(disk)

    def write(data):
        writes.append(data.count(b"\n"))

    disk.write = write

    async def life():
        begin = trio.current_time()
        audit.put(CLOSED)
        while not writes:
            await trio.lowlevel.checkpoint()
        assert trio.current_time() == begin
        for _ in range(40):
            audit.put(CLOSED)
            await trio.sleep(limits.AUDIT_INTERVAL / 10)

    await live(audit, life)
    assert sum(writes) == 41
    assert len(writes) <= 6


async def test_the_end_does_not_wait_for_the_next_writing(autojump_clock, no_threads):
    disk = Disk()
    audit = AuditLog(disk)

    async def life():
        audit.put(CLOSED)
        while not disk.lines:
            await trio.lowlevel.checkpoint()
        audit.put(CLOSED)
        life.ended = trio.current_time()

    await live(audit, life)
    assert len(disk.lines) == 2
    assert trio.current_time() == life.ended


async def test_whatever_is_in_a_name_a_line_is_a_line(tmp_path):
    odd = attrs.evolve(CLOSED, proxy='a"\\\n\u2028', client="\u6587\x1b[0m", connection=None)
    with open_audit("audit.jsonl", base=tmp_path) as audit:

        async def life():
            audit.put(odd)

        await live(audit, life)
    text = (tmp_path / "audit.jsonl").read_text()
    assert (text.isascii(), text.count("\n")) == (True, 1)
    [line] = lines(tmp_path / "audit.jsonl")
    assert (line["proxy"], line["client"], line["connection"]) == (odd.proxy, odd.client, None)


async def test_what_comes_while_all_is_cancelled_is_still_written():
    disk = Disk()
    audit = AuditLog(disk)

    async def life():
        try:
            await trio.sleep_forever()
        finally:
            audit.put(CLOSED)

    with trio.CancelScope() as scope:
        scope.cancel()
        await live(audit, life)
    assert len(disk.lines) == 1
    assert not audit.stuck


async def test_a_disk_that_hangs_does_not_keep_the_program(monkeypatch, caplog):
    monkeypatch.setattr(limits, "AUDIT_FLUSH_TIMEOUT", 0.01)
    disk = Disk()
    disk.may.clear()
    audit = AuditLog(disk)

    async def life():
        audit.put(CLOSED)

    await live(audit, life)
    assert audit.stuck
    assert caplog.records[0].reason == "the disk did not take them in time"
    disk.may.set()
