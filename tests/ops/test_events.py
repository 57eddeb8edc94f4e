"""What happened, read off the log."""

from __future__ import annotations

import io
import logging

import pytest
import trio

from tunnel import limits
from tunnel.ops.events import Journal, reason_label
from tunnel.ops.logs import configure_logging

logger = logging.getLogger("tunnel.server")


@pytest.fixture(autouse=True)
def tunnel_logger():
    """The package's logger as it was."""
    root = logging.getLogger("tunnel")
    before = root.handlers[:], root.level, root.propagate
    root.setLevel(logging.INFO)
    yield root
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def say(text, level=logging.INFO, **details):
    logger.log(level, text, extra=details)


def test_an_event_has_its_kind_its_details_and_a_number():
    journal = Journal()
    with journal.kept():
        say("Client connected", client="office", proxies=2)
        say("Client disconnected", logging.WARNING, client="office", reason="no sign of life")
    first, second = journal.since(0)
    assert (first.number, first.kind, first.text, first.level) == (
        1,
        "connected",
        "Client connected",
        "info",
    )
    assert first.details == {"client": "office", "proxies": 2}
    assert (second.number, second.kind, second.level) == (2, "disconnected", "warning")
    assert journal.since(1) == [second]
    assert journal.last == 2


def test_only_the_last_are_kept_and_numbers_go_on():
    journal = Journal(most=3)
    with journal.kept():
        for _ in range(10):
            say("Connecting")
    assert [event.number for event in journal.since(0)] == [8, 9, 10]
    assert journal.counts["connecting", ""] == 10


def test_nothing_is_kept_before_and_after():
    journal = Journal()
    say("Connecting")
    with journal.kept():
        pass
    say("Connecting")
    assert journal.last == 0
    assert journal not in logging.getLogger("tunnel").handlers


def test_long_texts_are_cut_and_objects_become_text():
    journal = Journal()
    with journal.kept():
        say("Refused", reason="x" * 10_000, path=OSError("no"), port=80, code=None)
    [event] = journal.since(0)
    assert len(event.details["reason"]) == limits.MAX_EVENT_TEXT
    assert event.details["path"] == "no"
    assert event.details["port"] == 80


def test_debug_is_no_event():
    logging.getLogger("tunnel").setLevel(logging.DEBUG)
    journal = Journal()
    with journal.kept():
        logger.debug("Visitor connected")
    assert journal.last == 0


async def test_two_programs_in_a_process_have_their_own():
    journals = Journal(), Journal()

    async def live(journal, text):
        with journal.kept():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, text)

    async def work(text):
        await trio.lowlevel.checkpoint()
        say(text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, journals[0], "Client connected")
        nursery.start_soon(live, journals[1], "Connected")
    assert [[event.text for event in journal.since(0)] for journal in journals] == [
        ["Client connected"],
        ["Connected"],
    ]


async def test_what_belongs_to_no_program_is_told_by_all(nursery):
    journal, running = Journal(), trio.Event()

    async def live():
        with journal.kept():
            running.set()
            await trio.sleep_forever()

    nursery.start_soon(live)
    await running.wait()
    say("Configuration")
    assert [event.text for event in journal.since(0)] == ["Configuration"]
    nursery.cancel_scope.cancel()


def test_a_quiet_program_keeps_events_and_stays_quiet():
    shown = io.StringIO()
    configure_logging(level=logging.WARNING, form="text", stream=shown, environ={})
    journal = Journal()
    with journal.kept():
        say("Client connected")
        say("Refused", logging.WARNING)
    assert [event.text for event in journal.since(0)] == ["Client connected", "Refused"]
    assert "Client connected" not in shown.getvalue()
    assert "Refused" in shown.getvalue()
    assert logging.getLogger("tunnel").level == logging.WARNING


def test_the_logging_of_an_application_stays_as_it_is(tunnel_logger):
    tunnel_logger.setLevel(logging.WARNING)
    tunnel_logger.propagate = True
    with Journal().kept():
        assert tunnel_logger.level == logging.WARNING


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        (("Client connected", {}), ("handshakes", "connected")),
        (("Handshake failed", {"reason": "too slow"}), ("handshakes", "too_slow")),
        (("Handshake failed", {"reason": "[SSL] whatever"}), ("handshakes", "other")),
        (("Authentication failed", {"code": "authentication"}), ("refused", "authentication")),
        (("Proxy rejected", {"code": "in_use"}), ("rejected", "in_use")),
        (("Session taken over", {}), ("taken over", "")),
        (("Client disconnected", {"reason": "no sign of life"}), ("disconnected", "silence")),
        (("Connection lost", {"reason": "no connection within 10 s"}), ("lost", "too_slow")),
        (("Connected", {}), ("connected", "")),
    ],
)
def test_what_is_counted(said, counted):
    journal = Journal()
    with journal.kept():
        say(said[0], **said[1])
    assert dict(journal.counts) == {counted: 1}


def test_lines_that_a_flood_did_not_get_are_counted():
    journal = Journal()
    with journal.kept():
        say("Handshake failed", reason="too slow")
        say("Handshake failed", reason="too slow", left_out=40)
    assert journal.counts["handshakes", "too_slow"] == 42


def test_a_stranger_makes_no_labels():
    reasons = [f"error {number}" for number in range(1000)]
    assert {reason_label(reason) for reason in reasons} == {"other"}
