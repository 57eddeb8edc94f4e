from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ops.statuses import connection, proxy, status
from tunnel import limits
from tunnel.ops.top import History, Order, Status, Traffic

HOSTILE = "[red]\x1b[2J\r\n\u202eevil\u200b\x07"


def history(*answers):
    history = History()
    for answer in answers:
        history.add(Status.from_json(answer))
    return history


def test_an_answer():
    found = Status.from_json(status(proxy(sent=10, received=20), connections=[connection(1)]))
    [row], [session], [waiting] = found.proxies, found.sessions, found.connections
    assert (row.name, row.client, row.address) == ("web", "office", "0.0.0.0:8080")
    assert (row.active, row.total, row.bytes, row.rtt) == (1, 9, Traffic(10, 20), 0.021)
    assert row.waits == (("link", 1),)
    assert (session.name, session.connections, session.blocked) == ("office", 4, False)
    assert (waiting.connection, waiting.queued) == ("0000000000000001", 262_144)
    assert found.waits == (("link", 1),)


def test_rates_are_what_came_between_two_answers():
    place = history(status(proxy(sent=100, received=0)), status(proxy(sent=300), at=1002.0))
    assert place.now == Traffic(100, 0)
    assert place.rate(place.status.proxies[0]) == Traffic(100, 0)


def test_proxies_of_one_name_are_told_apart_by_their_sessions():
    def two(sent, at):
        return status(proxy(sent=sent), proxy(session="other"), at=at)

    place = history(two(0, 1000.0), two(100, 1001.0))
    assert [place.rate(row).sent for row in place.status.proxies] == [100, 0]


def test_a_program_that_began_anew_has_no_rates_yet():
    place = history(
        status(proxy(sent=900)),
        status(proxy(sent=950), at=1001.0),
        status(proxy(sent=10), at=1002.0, process="ffff"),
    )
    assert place.now == Traffic()
    assert not place.rates


@pytest.mark.parametrize("at", [1000.0, 999.0])
def test_a_clock_that_stands_or_goes_back_makes_no_rate(at):
    assert history(status(proxy()), status(proxy(sent=5), at=at)).now == Traffic()


def test_a_client_that_left_makes_no_negative_rate():
    place = history(status(proxy(sent=900), proxy("b", sent=5)), status(proxy("b"), at=1001.0))
    assert place.now == Traffic()
    assert place.rate(place.status.proxies[0]) == Traffic()


def test_history_has_a_bound():
    place = history(*(status(proxy(), at=1000.0 + n) for n in range(limits.TOP_HISTORY + 50)))
    assert len(place.rates) == limits.TOP_HISTORY


def test_sorting():
    def answer(at):
        return status(
            proxy("b", sent=1000 + at, active_connections=2),
            proxy("a", sent=(at - 1000) * 500, active_connections=1),
            proxy("c", sent=0, active_connections=3),
            at=at,
        )

    place = history(answer(1000.0), answer(1001.0))
    names = {}
    for _ in Order:
        names[place.order] = "".join(row.name for row in place.sorted())
        place.order = place.order.following()
    assert names == {
        Order.RATE: "abc",
        Order.CONNECTIONS: "cba",
        Order.BYTES: "bac",
        Order.NAME: "abc",
    }
    assert place.order is Order.RATE
    place.order = Order.NAME
    place.reset()
    assert (place.order, len(place.rates)) == (Order.RATE, 0)


def test_texts_from_strangers_are_cut_and_escaped():
    found = Status.from_json(
        status(proxy(HOSTILE * 1000, client=HOSTILE), connections=[connection(1, waits=HOSTILE)])
    )
    [row] = found.proxies
    for text in (row.name, row.client, found.connections[0].waits):
        assert text.isprintable()
    assert row.name.startswith(r"[red]\x1b[2J\r\n\u202eevil")
    assert row.name.endswith("…")


@pytest.mark.parametrize("answer", [None, [], {}, "x", 1, {"role": "server"}])
def test_what_is_no_answer(answer):
    with pytest.raises(ValueError, match="not what a tls-tunnel answers"):
        Status.from_json(answer)


def test_numbers_that_cannot_be_are_unknown():
    answer = json.loads(json.dumps(status(proxy(sent=1e300, rtt="slow", active_connections=True))))
    [row] = Status.from_json(answer | {"loop_lag": float("nan")}).proxies
    assert (row.bytes.sent, row.rtt, row.active) == (0, None, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(sorted({*status(), *proxy(), *connection(0), "shown", "total"}))
            | st.text(max_size=3),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(sorted(status())), JSON))
def test_whatever_is_in_an_answer_nothing_fails(found):
    place = history(status(), status() | found, status(proxy(), at=2000.0) | found)
    place.sorted()
    assert place.status.name.isprintable()
