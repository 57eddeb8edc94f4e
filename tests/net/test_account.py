from __future__ import annotations

import time

import pytest

from tunnel.events import EventStream, VisitorClosed, VisitorOpened, how_ended
from tunnel.model import Address, ResetCode
from tunnel.net.account import Account
from tunnel.net.carrier import CarriedConnection
from tunnel.stats import Counters

VISITOR = Address("192.0.2.1", 50000)


@pytest.fixture
def told():
    return []


@pytest.fixture
def events(told):
    stream = EventStream()
    with stream.subscribed(told.append, visitors=True):
        yield stream


@pytest.mark.parametrize(("here", "sent", "received"), [(True, 3, 40), (False, 40, 3)])
def test_both_sides_count_in_the_visitors_directions(
    here, sent, received, monkeypatch, told, events
):
    began = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: began)
    proxy = Counters()
    account = Account(events, "web", "office", "00ff", VISITOR, proxy, published_here=here)
    visit = CarriedConnection("web", "00ff", account, ResetCode.VISITOR_RESET, on_end=account.close)
    visit.begin()
    account.delivered += 3
    account.read += 40
    monkeypatch.setattr(time, "monotonic", lambda: began + 2)
    visit.end(None)
    opened, record = told
    assert opened == VisitorOpened("web", "office", "00ff", VISITOR)
    assert isinstance(record, VisitorClosed)
    assert (record.sent, record.received) == (sent, received)
    assert record.duration == pytest.approx(2)
    assert (record.how, record.visitor, record.connection) == ("finished", VISITOR, "00ff")
    assert (proxy.total, proxy.delivered, proxy.read) == (1, 3, 40)


def test_a_connection_ends_once(told, events):
    account = Account(events, "web", "", "00", VISITOR, Counters(), published_here=True)
    account.close(ResetCode.LINK_LOST)
    account.close(None)
    assert [record.how for record in told] == ["link lost"]


def test_ends_have_words():
    assert how_ended(None) == "finished"
    assert how_ended(ResetCode.LOCAL_REFUSED) == "local refused"
