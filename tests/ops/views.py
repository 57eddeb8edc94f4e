"""Programs at a moment, for tests of what is said about them."""

from __future__ import annotations

from tunnel.model import Address
from tunnel.stats import Counters
from tunnel.views import (
    ConnectionsView,
    ConnectionView,
    LinkView,
    ProgramView,
    ProxyView,
    SessionView,
    Waits,
)

LINK = LinkView(rtt=0.02, streams=3, connections=2, queued=5, blocked=False)


def proxy(name="web"):
    addresses = (Address("0.0.0.0", 8080), Address("::", 8080))
    return ProxyView(
        name, "*", 8081, addresses, "127.0.0.1", 3000, 1.5, Counters(2, 7, 100, 30), bool(addresses)
    )


def session(client="office", link=LINK, proxies=None):
    address = "203.0.113.7:55121"
    return SessionView(client, "0123abcd", address, 1.0, link, proxies or (proxy(),))


def program(*sessions):
    return ProgramView(
        "running",
        None,
        sessions or (session(),),
        addresses=(Address("0.0.0.0", 8443),),
        rejected={"wrong key": 3},
        strangers=1,
        certificate_until=2e9,
    )


def counters(view):
    """Those of a program."""
    return [proxy.counters for session in view.sessions for proxy in session.proxies]


def connections():
    one = ConnectionView("00ff", "web", "198.51.100.9", Waits.VISITOR, 1, 0, 11, 22)
    waits = {reason: int(reason is Waits.VISITOR) for reason in Waits}
    return ConnectionsView(1, waits, (("office", one),))
