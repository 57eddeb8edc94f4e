"""What happened, as a subscriber of the events hears it."""

from __future__ import annotations

import io
import logging

import pytest
import trio

from tunnel import limits
from tunnel.eventlog import log_event, logged_events
from tunnel.events import (
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    Connected,
    Connecting,
    ConnectionLost,
    End,
    EndReason,
    EventStream,
    HandshakeFailed,
    OwnProxyRejected,
    ProxyRejected,
    ProxyWithdrawn,
    RefusedByServer,
    SessionTakenOver,
    VisitorClosed,
    VisitorOpened,
)
from tunnel.model import Address, RefusalCode, RejectionCode
from tunnel.ops.journal import Journal, counted
from tunnel.ops.logs import configure_logging

#: One that no events go to.
logger = logging.getLogger("tunnel.ops.serving")
HERE = Address("192.0.2.1", 50000)
CONNECTED = ClientConnected("office", HERE, "0123456789abcdef", 2)
SLOW = HandshakeFailed(HERE, End(EndReason.TOO_SLOW, "too slow"))


@pytest.fixture(autouse=True)
def tunnel_logger():
    """The package's logger as it was."""
    root = logging.getLogger("tunnel")
    before = root.handlers[:], root.level, root.propagate
    root.setLevel(logging.INFO)
    yield root
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture
def events():
    return EventStream()


def say(text, level=logging.INFO, **details):
    logger.log(level, text, extra=details)


def disconnected(reason, end):
    return ClientDisconnected("office", "0123456789abcdef", reason, HERE, end, 1.0)


def test_an_event_has_its_kind_its_details_and_a_number(events):
    journal = Journal()
    with journal.kept(events):
        events.emit(CONNECTED)
        events.emit(SessionTakenOver("office", HERE))
    first, second = journal.since(0)
    assert (first.number, first.kind, first.text, first.level) == (
        1,
        "connected",
        "Client connected",
        "info",
    )
    assert first.details == {
        "client": "office",
        "address": "192.0.2.1:50000",
        "session": "01234567",
        "proxies": 2,
    }
    assert (second.number, second.kind, second.level) == (2, "taken over", "warning")
    assert journal.since(1) == [second]
    assert journal.last == 2


def test_only_the_last_are_kept_and_numbers_go_on(events):
    journal = Journal(most=3)
    with journal.kept(events):
        for attempt in range(10):
            events.emit(Connecting(attempt))
    assert [entry.number for entry in journal.since(0)] == [8, 9, 10]
    assert journal.counts["connecting", ""] == 10


def test_nothing_is_kept_before_and_after(events):
    journal = Journal()
    before = logging.getLogger("tunnel").handlers[:]
    for _ in range(2):
        events.emit(Connecting(1))
        say("Statistics served")
        with journal.kept(events):
            pass
    events.emit(Connecting(1))
    say("Statistics served")
    assert journal.last == 0
    assert logging.getLogger("tunnel").handlers == before


def test_long_texts_are_cut_and_objects_become_text(events):
    journal = Journal()
    with journal.kept(events):
        events.emit(RefusedByServer("busy", "x" * 10_000, None))
        say("Odd", path=OSError("no"), port=80, code=None)
    event, line = journal.since(0)
    assert len(event.details["reason"]) == limits.MAX_EVENT_TEXT
    assert line.details == {"path": "no", "port": 80, "code": None}


def test_debug_is_no_event(events):
    logging.getLogger("tunnel").setLevel(logging.DEBUG)
    journal = Journal()
    with journal.kept(events):
        logger.debug("Visitor connected")
    assert journal.last == 0


def test_what_has_no_line_is_not_kept(events):
    journal = Journal()
    with journal.kept(events):
        events.emit(ProxyWithdrawn("office", "web"))
        events.emit_visitor(VisitorOpened("web", "office", "00", HERE))
        events.emit_visitor(VisitorClosed("web", "office", "00", HERE, 1, 2, 3.0, "finished"))
    assert journal.last == 0
    assert not journal.counts


def test_other_lines_are_kept_and_events_only_once():
    events, journal = logged_events(), Journal()
    with journal.kept(events):
        events.emit(CONNECTED)
        say("Statistics are open", logging.WARNING, address="0.0.0.0:9090")
        logging.getLogger("tunnel.client.proxy").warning("Visit refused")
    assert [(entry.kind, entry.text) for entry in journal.since(0)] == [
        ("connected", "Client connected"),
        ("other", "Statistics are open"),
        ("other", "Visit refused"),
    ]
    assert journal.since(1)[0].level == "warning"
    assert journal.since(1)[0].details == {"address": "0.0.0.0:9090"}


async def test_two_programs_in_a_process_have_their_own():
    journals = Journal(), Journal()

    async def live(journal, event):
        events = EventStream()
        with journal.kept(events):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, events, event)

    async def work(events, event):
        await trio.lowlevel.checkpoint()
        events.emit(event)
        say(f"After {event.text}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, journals[0], CONNECTED)
        nursery.start_soon(live, journals[1], Connected(1, 1))
    assert [[entry.text for entry in journal.since(0)] for journal in journals] == [
        ["Client connected", "After Client connected"],
        ["Connected", "After Connected"],
    ]


async def test_what_belongs_to_no_program_is_told_by_all(nursery):
    journal, running = Journal(), trio.Event()

    async def live():
        with journal.kept(EventStream()):
            running.set()
            await trio.sleep_forever()

    nursery.start_soon(live)
    await running.wait()
    say("Configuration")
    assert [entry.text for entry in journal.since(0)] == ["Configuration"]
    nursery.cancel_scope.cancel()


def test_a_quiet_program_keeps_events_and_stays_quiet():
    shown = io.StringIO()
    configure_logging(level=logging.WARNING, form="text", stream=shown, environ={})
    events, journal = logged_events(), Journal()
    with journal.kept(events):
        events.emit(CONNECTED)
        say("Statistics served")
        say("Statistics are open", logging.WARNING)
    assert [entry.text for entry in journal.since(0)] == [
        "Client connected",
        "Statistics served",
        "Statistics are open",
    ]
    assert "Client connected" not in shown.getvalue()
    assert "Statistics served" not in shown.getvalue()
    assert "Statistics are open" in shown.getvalue()
    assert logging.getLogger("tunnel").level == logging.WARNING


def test_the_logging_of_an_application_stays_as_it_is(tunnel_logger):
    tunnel_logger.setLevel(logging.WARNING)
    tunnel_logger.propagate = True
    with Journal().kept(EventStream()):
        assert tunnel_logger.level == logging.WARNING


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        (CONNECTED, ("handshakes", "connected")),
        (SLOW, ("handshakes", "too_slow")),
        (
            HandshakeFailed(HERE, End(EndReason.OTHER, "[SSL] whatever")),
            ("handshakes", "other"),
        ),
        (
            ClientRefused(HERE, RefusalCode.AUTHENTICATION, "wrong key"),
            ("refused", "authentication"),
        ),
        (
            ProxyRejected("office", "web", 80, RejectionCode.IN_USE, "in use"),
            ("rejected", "in_use"),
        ),
        (SessionTakenOver("office", HERE), ("taken over", "")),
        (disconnected("no sign of life", EndReason.SILENCE), ("disconnected", "silence")),
        (
            ConnectionLost(End(EndReason.TOO_SLOW, "no connection within 10 s")),
            ("lost", "too_slow"),
        ),
        (Connected(1, 1), ("connected", "")),
        (OwnProxyRejected("web", 80, RejectionCode.IN_USE, "in use"), ("rejected", "in_use")),
        (RefusedByServer("busy", "later", None), ("refused", "busy")),
    ],
)
def test_what_is_counted(events, said, counted):
    journal = Journal()
    with journal.kept(events):
        events.emit(said)
    assert dict(journal.counts) == {counted: 1}


def test_lines_that_a_flood_did_not_get_are_counted(events):
    journal = Journal()
    with journal.kept(events):
        events.emit(SLOW)
        events.emit(HandshakeFailed(HERE, SLOW.end, left_out=40))
    assert journal.counts["handshakes", "too_slow"] == 42


def test_a_stranger_makes_no_labels():
    ends = [End(EndReason.OTHER, f"error {number}") for number in range(1000)]
    assert {counted(HandshakeFailed(HERE, end)) for end in ends} == {("handshakes", "other")}


def test_the_log_and_the_journal_say_the_same(caplog):
    journal = Journal()
    events = EventStream(log_event)
    with caplog.at_level(logging.INFO, logger="tunnel"), journal.kept(events):
        events.emit(SLOW)
    [record], [entry] = caplog.records, journal.since(0)
    assert (record.getMessage(), record.levelname.lower()) == (entry.text, entry.level)
    assert (record.reason, record.address) == (entry.details["reason"], entry.details["address"])
