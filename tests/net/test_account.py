from __future__ import annotations

import time

import pytest

from tunnel.model import Address, ResetCode
from tunnel.net.account import Account, how
from tunnel.net.carrier import Visit
from tunnel.stats import Counters

VISITOR = Address("192.0.2.1", 50000)


@pytest.mark.parametrize(("here", "sent", "received"), [(True, 3, 40), (False, 40, 3)])
def test_both_sides_count_in_the_visitors_directions(here, sent, received, monkeypatch):
    told, began = [], 100.0
    monkeypatch.setattr(time, "monotonic", lambda: began)
    proxy = Counters()
    account = Account(told.append, "web", "office", "00ff", VISITOR, proxy, published_here=here)
    visit = Visit("web", "00ff", account, ResetCode.VISITOR_RESET, on_end=account.close)
    visit.begin()
    account.delivered += 3
    account.read += 40
    monkeypatch.setattr(time, "monotonic", lambda: began + 2)
    visit.end(None)
    [record] = told
    assert (record.sent, record.received) == (sent, received)
    assert record.duration == pytest.approx(2)
    assert (record.end, record.visitor, record.connection) == ("finished", VISITOR, "00ff")
    assert (proxy.total, proxy.delivered, proxy.read) == (1, 3, 40)


def test_a_connection_ends_once():
    told = []
    account = Account(told.append, "web", "", "00", VISITOR, Counters(), published_here=True)
    account.close(ResetCode.LINK_LOST)
    account.close(None)
    assert [record.end for record in told] == ["link lost"]


def test_ends_have_words():
    assert how(None) == "finished"
    assert how(ResetCode.LOCAL_REFUSED) == "local refused"
