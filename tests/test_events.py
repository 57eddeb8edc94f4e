"""The stream of events, and what the log says of each."""

from __future__ import annotations

import logging

import attrs
import pytest

from tunnel import eventlog, events
from tunnel.events import End, EndReason, EventStream, VisitorClosed, VisitorOpened
from tunnel.model import Address, RejectionCode

HERE = Address("192.0.2.1", 50000)

#: Each event that the log has a line for, and the details of that line.
LINES = [
    (events.ServerListening(HERE, "sha256:00"), {"address": str(HERE), "pin": "sha256:00"}),
    (events.ServerStopped(), {}),
    (
        events.ClientConnected("office", HERE, "0123456789", 2),
        {"client": "office", "address": str(HERE), "session": "01234567", "proxies": 2},
    ),
    (
        events.ClientDisconnected("office", "0123456789", "gone", HERE, EndReason.CUT, 1.26),
        {
            "client": "office",
            "address": str(HERE),
            "session": "01234567",
            "reason": "gone",
            "duration": 1.3,
        },
    ),
    (events.SessionTakenOver("office", HERE), {"client": "office", "address": str(HERE)}),
    (
        events.ProxyPublished("office", "web", (HERE, HERE)),
        {"client": "office", "proxy": "web", "address": f"{HERE}, {HERE}"},
    ),
    (
        events.ProxyPublished("office", "web", ()),
        {"client": "office", "proxy": "web", "address": "visitors only"},
    ),
    (
        events.ProxyRejected("office", "web", 80, RejectionCode.IN_USE, "busy"),
        {"client": "office", "proxy": "web", "port": 80, "code": "in_use", "reason": "busy"},
    ),
    (
        events.ClientRefused(HERE, "limit", "enough"),
        {"address": str(HERE), "code": "limit", "reason": "enough"},
    ),
    (
        events.HandshakeFailed(HERE, End(EndReason.TOO_SLOW, "too slow"), 3),
        {"address": str(HERE), "reason": "too slow", "left_out": 3},
    ),
    (
        events.ConnectionTurnedAway(HERE, "rate of all"),
        {"address": str(HERE), "reason": "rate of all"},
    ),
    (
        events.VisitorTurnedAway("office", "web", HERE, "address not allowed"),
        {
            "client": "office",
            "proxy": "web",
            "address": str(HERE),
            "reason": "address not allowed",
        },
    ),
    (
        events.VisitRefused("laptop", HERE, "web", "00ff", "away"),
        {
            "client": "laptop",
            "address": str(HERE),
            "proxy": "web",
            "connection": "00ff",
            "reason": "away",
        },
    ),
    (
        events.CertificateRead("pin", "2030-01-01", changed=True, same_pin=True),
        {"pin": "pin", "until": "2030-01-01"},
    ),
    (
        events.CertificateUnusable("torn"),
        {"reason": "torn", "consequence": "the one before is still shown"},
    ),
    (
        events.CertificateExpires("cert.pem", "2030-01-01", 3),
        {
            "path": "cert.pem",
            "until": "2030-01-01",
            "days": 3,
            "remedy": "put a new one in its place; it is read without a restart",
        },
    ),
    (events.Connecting(1), {"attempt": 1}),
    (events.Connected(1, 2), {"published": 1, "proxies": 2}),
    (events.ConnectionLost(End(EndReason.CUT, "cut")), {"reason": "cut"}),
    (events.RefusedByServer("limit", "enough", None), {"code": "limit", "reason": "enough"}),
    (events.Reconnecting(5.0), {}),
    (events.MachineSlept(), {}),
    (events.ClientStopped(), {}),
    (events.ServerStopping(3), {"visitors": 3}),
    (
        events.OwnProxyPublished("web", (HERE,), "127.0.0.1:80"),
        {"proxy": "web", "address": str(HERE), "local": "127.0.0.1:80"},
    ),
    (
        events.OwnProxyRejected("web", 80, RejectionCode.RESERVED, "own"),
        {"proxy": "web", "port": 80, "code": "reserved", "reason": "own", "again": "no"},
    ),
    (events.OwnProxyRemoved("web"), {"proxy": "web"}),
    (
        events.LocalServiceUnreachable("web", "127.0.0.1:80", "refused"),
        {"proxy": "web", "local": "127.0.0.1:80", "reason": "refused"},
    ),
]


@pytest.mark.parametrize(("event", "details"), LINES, ids=lambda it: type(it).__name__)
def test_the_line_of_each_event(event, details, caplog):
    caplog.set_level(logging.DEBUG, "tunnel")
    eventlog.log_event(event)
    [record] = caplog.records
    assert event.details() == details
    assert {key: getattr(record, key) for key in details} == details
    assert (record.getMessage(), record.levelname.lower()) == (event.text, event.level)
    assert record.name in eventlog.LOGGERS


def test_every_event_is_in_the_table():
    """All but those that the log has no line for."""
    silent = {events.ProxyWithdrawn, VisitorOpened, VisitorClosed}
    found = {it for it in vars(events).values() if isinstance(it, type) and attrs.has(it)}
    found = {it for it in found if issubclass(it, events.Event)}
    assert {type(event) for event, _ in LINES} == found - silent
    assert all("text" not in vars(it) for it in silent)


@pytest.mark.parametrize(
    ("event", "text", "level"),
    [
        (events.ClientRefused(HERE, "authentication", ""), "Authentication failed", "warning"),
        (events.ClientRefused(HERE, "busy", ""), "Refused", "warning"),
        (events.Reconnecting(5.0), "Reconnecting in 5 seconds", "info"),
        (events.Reconnecting(0.25), "Reconnecting in 0.25 seconds", "info"),
        (events.CertificateRead("p", "u", False, True), "Certificate unchanged", "info"),
        (events.CertificateRead("p", "u", True, False), "Certificate reloaded", "warning"),
        (events.CertificateExpires("c", "u", None), "Certificate has expired", "warning"),
        (events.ProxyWithdrawn("office", "web"), "", "info"),
    ],
)
def test_lines_that_depend_on_what_happened(event, text, level):
    assert (event.text, event.level) == (text, level)


def test_events_without_a_line_are_not_logged(caplog):
    caplog.set_level(logging.DEBUG, "tunnel")
    eventlog.log_event(events.ProxyWithdrawn("office", "web"))
    assert not caplog.records


def test_subscribers_are_told_in_their_order_and_only_within_their_block():
    told = []
    stream = EventStream(lambda event: told.append(("first", event)))
    with stream.subscribed(lambda event: told.append(("second", event))):
        stream.emit(events.MachineSlept())
    stream.emit(events.ServerStopped())
    slept, stopped = events.MachineSlept(), events.ServerStopped()
    assert told == [("first", slept), ("second", slept), ("first", stopped)]


def test_visitors_are_told_of_only_to_those_who_want_them():
    told, visits = [], []
    stream = EventStream(told.append)
    opened = VisitorOpened("web", "office", "00", HERE)
    assert not stream.wants_visitors
    with stream.subscribed(visits.append, visitors=True):
        assert stream.wants_visitors
        stream.emit_visitor(opened)
        stream.emit(events.MachineSlept())
    assert not stream.wants_visitors
    assert (told, visits) == ([events.MachineSlept()], [opened])


def test_one_subscriber_of_both():
    told = []
    stream = EventStream()
    with stream.subscribed(told.append), stream.subscribed(told.append, visitors=True):
        stream.emit(events.MachineSlept())
    stream.emit(events.MachineSlept())
    assert told == [events.MachineSlept()]
