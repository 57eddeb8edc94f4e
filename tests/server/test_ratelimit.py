"""The buckets that let strangers in, and what failed proofs cost their networks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import limits
from tunnel.server.ratelimit import Penalties, Rate, RateLimit, Recent, TokenBucket, network
from tunnel.stats import Reason


def test_a_burst_and_then_one_by_one():
    bucket = TokenBucket(per_second=2, burst=3)
    assert [bucket.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert not bucket.take(100.4)
    assert bucket.take(100.5)
    assert not bucket.take(100.5)


def test_what_is_saved_up_is_never_more_than_a_burst():
    bucket = TokenBucket(per_second=1000, burst=2)
    assert bucket.take(0.0)
    assert [bucket.take(1e6) for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("per_second", [0.5, 1, 8, 256])
def test_in_the_long_run_the_rate_is_kept(per_second):
    bucket = TokenBucket(per_second=per_second, burst=1)
    taken = sum(bucket.take(step / 1024) for step in range(20 * 1024))
    assert taken == pytest.approx(20 * per_second, abs=1.5)


def test_a_refusal_costs_nothing():
    bucket = TokenBucket(per_second=1, burst=1)
    assert bucket.take(0.0)
    for step in range(100):
        assert not bucket.take(step / 101)
    assert bucket.take(1.0)


# --- Networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("unix", "unix"),
    ],
)
def test_the_network_that_an_address_is_counted_under(host, place):
    assert network(host) == place


def test_only_the_networks_seen_last_are_remembered():
    recent = Recent(3)
    for place in "abcd":
        recent.see(place, place.upper())
    assert [recent.get(place) for place in "abcd"] == [None, "B", "C", "D"]
    recent.see("b", "again")
    recent.see("e", "E")
    assert [recent.get(place) for place in "bcde"] == ["again", None, "D", "E"]
    assert len(recent) == 3


def test_one_network_cannot_use_up_what_all_have():
    limit = RateLimit(Rate(per_second=1e-9, burst=8))
    greedy = [limit.take("192.0.2.1", 0.0) for _ in range(1000)]
    assert greedy == [None] * 2 + [Reason.NETWORK_RATE] * 998
    for number in range(2, 8):
        assert limit.take(f"192.0.2.{number}", 0.0) is None
    assert limit.take("192.0.2.9", 0.0) is Reason.RATE


def test_a_network_gets_its_part_back_with_time():
    limit = RateLimit(Rate(per_second=8, burst=8))
    taken = sum(limit.take("192.0.2.1", second / 100) is None for second in range(10_000))
    assert taken == pytest.approx(100 * 8 * limits.NETWORK_SHARE, abs=3)


def test_even_a_small_rate_lets_a_network_come():
    limit = RateLimit(Rate(per_second=1, burst=1))
    assert limit.take("192.0.2.1", 0.0) is None
    assert limit.take("192.0.2.1", 3.9) is Reason.NETWORK_RATE
    assert limit.take("192.0.2.1", 4.0) is None


def test_the_networks_of_a_rate_are_bounded():
    limit = RateLimit(Rate(per_second=100, burst=100))
    for number in range(limits.MAX_NETWORKS + 100):
        limit.take(str(number), 0.0)
    assert len(limit._networks) == limits.MAX_NETWORKS


# --- Failed proofs ----------------------------------------------------------------------------

HERE, THERE = "192.0.2.1", "192.0.2.2"


def fail(penalties, times, now=0.0, place=HERE):
    return [penalties.failed(place, now) for _ in range(times)]


def test_a_slip_costs_nothing():
    penalties = Penalties()
    assert fail(penalties, limits.FREE_FAILURES) == [0.0] * limits.FREE_FAILURES
    assert not penalties.turns_away(HERE, 0.0)


def test_whoever_goes_on_is_turned_away_for_longer_and_longer_up_to_a_bound():
    penalties = Penalties()
    fail(penalties, limits.FREE_FAILURES)
    assert fail(penalties, 8) == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_a_penalty_ends_when_it_was_said_to_end():
    penalties = Penalties()
    [*_, told] = fail(penalties, limits.FREE_FAILURES + 1, now=100.0)
    assert penalties.turns_away(HERE, 100.0)
    assert penalties.turns_away(HERE, 100.0 + told - 0.001)
    assert not penalties.turns_away(HERE, 100.0 + told)


def test_only_the_network_that_failed_pays():
    penalties = Penalties()
    fail(penalties, 20)
    assert penalties.turns_away(HERE, 0.0)
    assert not penalties.turns_away(THERE, 0.0)


def test_failures_are_forgotten():
    penalties = Penalties()
    [*_, worst] = fail(penalties, 20)
    later = 8 * limits.FAILURES_HALF_LIFE
    assert worst == limits.PENALTY_LAST
    assert penalties.failed(HERE, later) == 0.0
    assert not penalties.turns_away(HERE, later)


def test_a_day_of_guessing_gets_about_a_guess_a_minute():
    penalties = Penalties()
    now, guesses, day = 0.0, 0, 86_400.0
    while now < day:
        guesses += 1
        now += max(penalties.failed(HERE, now), 0.01)
    assert guesses < day / 40


def test_a_client_that_obeys_always_hears_why():
    # What it is told to wait is never more than what a client lets itself be told.
    assert limits.PENALTY_LAST <= limits.MAX_RETRY_AFTER
    penalties = Penalties()
    now = 0.0
    for _ in range(1000):
        assert not penalties.turns_away(HERE, now)
        now += max(penalties.failed(HERE, now), 5.0)


def test_a_network_with_a_living_client_is_spared():
    penalties = Penalties()
    penalties.proved(HERE)
    penalties.proved(HERE)
    fail(penalties, 20)
    assert not penalties.turns_away(HERE, 0.0)
    penalties.left(HERE, 0.0)
    assert not penalties.turns_away(HERE, limits.PENALTY_LAST / 2)
    assert not penalties._trusted.get(HERE)  # there is still one


def test_a_network_is_trusted_for_some_time_after_its_client():
    penalties = Penalties()
    penalties.proved(HERE)
    penalties.left(HERE, 1000.0)
    fail(penalties, 20, now=1000.0)
    assert not penalties.turns_away(HERE, 1000.0)  # its own client may have to come back
    last = 1000.0 + limits.TRUST_LIFETIME
    fail(penalties, 20, now=last - 1)
    assert not penalties.turns_away(HERE, last - 0.5)
    assert penalties.turns_away(HERE, last)


def test_what_is_remembered_of_failures_is_bounded():
    penalties = Penalties()
    for number in range(limits.MAX_NETWORKS + 100):
        penalties.proved(str(number))
        penalties.left(str(number), 0.0)
        penalties.failed(str(number), 0.0)
    assert len(penalties._records) == len(penalties._trusted) == limits.MAX_NETWORKS
    assert not penalties._living


@given(st.lists(st.floats(0, 1000), max_size=60))
def test_no_penalty_is_beyond_the_bound_whatever_the_times(pauses):
    penalties = Penalties()
    now = 0.0
    for pause in pauses:
        now += pause
        told = penalties.failed(HERE, now)
        assert 0.0 <= told <= limits.PENALTY_LAST
        assert penalties.turns_away(HERE, now) is (told > 0)
        assert not penalties.turns_away(HERE, now + limits.PENALTY_LAST)
