"""Who is connected: one session an owner, and what a newcomer must be to take its place."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tunnel.errors import Refused
from tunnel.model import Address, RefusalCode
from tunnel.server.registry import Owner, Registration, Registry
from tunnel.server.rules import covers, overlap

OWNER = Owner("key", "configuration")


def make_registration(instance="process", attempt=1, owner=OWNER, name="web", host="192.0.2.7"):
    return Registration(owner, instance, attempt, name, Address(host, 4711), evict=None, probe=None)


@pytest.fixture
def registry():
    return Registry()


class Claims:
    """Ports that are claimed and freed one by one."""

    def __init__(self, registry):
        self.claim, self.free = registry.claim, registry.free


@pytest.fixture
def claims(registry):
    return Claims(registry)


class Sitting:
    """A session that is registered until it is evicted or told to leave."""

    def __init__(self, registry, registration):
        self.registry = registry
        self.registration = registration
        self.reasons = []
        self.leaving = trio.Event()
        self.may_go = trio.Event()
        self.may_go.set()
        #: What a probe of this session finds, and how often it was asked.
        self.alive = True
        self.probes = 0
        registration.evict, registration.probe = self._evict, self._probe

    async def _probe(self):
        self.probes += 1
        await trio.lowlevel.checkpoint()
        return self.alive

    def _evict(self, reason):
        self.reasons.append(reason)
        self.leaving.set()

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
        async with self.registry.registered(self.registration):
            task_status.started()
            await self.leaving.wait()
            await self.may_go.wait()


@pytest.fixture
def sit(registry, nursery):
    async def sit(**what):
        sitting = Sitting(registry, make_registration(**what))
        await nursery.start(sitting.run)
        return sitting

    return sit


async def test_a_later_attempt_of_the_same_process_takes_the_place(sit):
    former = await sit(attempt=1)
    newcomer = await sit(attempt=2)
    assert former.reasons == ["taken over by a new connection of the same client"]
    assert former.registration.gone.is_set()
    assert not newcomer.leaving.is_set()
    newcomer.leaving.set()


async def test_the_newcomer_waits_until_its_ghost_is_gone(sit, nursery):
    former = await sit(attempt=1)
    former.may_go = trio.Event()
    newcomer = Sitting(former.registry, make_registration(attempt=2))
    registered = trio.Event()

    async def come():
        await nursery.start(newcomer.run)
        registered.set()

    nursery.start_soon(come)
    await wait_all_tasks_blocked()
    assert former.reasons
    assert not registered.is_set()
    former.may_go.set()
    await registered.wait()
    newcomer.leaving.set()


async def test_a_ghost_that_does_not_go_is_not_waited_for_for_ever(sit, autojump_clock):
    former = await sit(attempt=1)
    former.may_go = trio.Event()
    newcomer = Sitting(former.registry, make_registration(attempt=2))
    with pytest.raises(trio.TooSlowError):
        await newcomer.run()
    assert trio.current_time() == pytest.approx(5.0)
    former.may_go.set()
    await former.registration.gone.wait()
    newcomer.leaving.set()
    await newcomer.run()  # and nothing of the failed try is left in the way


@pytest.mark.parametrize(
    ("instance", "attempt"),
    [("process", 5), ("process", 4), ("process", 1), ("another", 6), ("another", 1)],
    ids=["same attempt", "older", "much older", "later, but another process", "another process"],
)
async def test_everybody_else_is_refused_and_told_what_to_do(sit, registry, instance, attempt):
    holder = await sit(attempt=5, host="192.0.2.7")
    with pytest.raises(Refused, match="a state directory or a client_id of its own") as caught:
        async with registry.registered(make_registration(instance, attempt)):
            pytest.fail("it was let in")
    assert caught.value.code == RefusalCode.ALREADY_CONNECTED
    assert "192.0.2.7" in caught.value.text
    assert holder.reasons == []
    holder.leaving.set()
    await holder.registration.gone.wait()
    async with registry.registered(make_registration(instance, attempt)):
        pass  # the refusal left nothing behind


async def test_a_later_attempt_of_the_same_process_asks_nobody(sit):
    former = await sit(attempt=1)
    newcomer = await sit(attempt=2)
    assert former.probes == 0
    newcomer.leaving.set()


@pytest.mark.parametrize(("instance", "attempt"), [("process", 1), ("another", 1), ("another", 6)])
async def test_everybody_else_takes_the_place_of_a_silent_session(sit, instance, attempt):
    ghost = await sit(attempt=5)
    ghost.alive = False
    newcomer = await sit(instance=instance, attempt=attempt)
    assert (ghost.probes, len(ghost.reasons)) == (1, 1)
    assert ghost.registration.gone.is_set()
    newcomer.leaving.set()


async def test_a_session_that_ends_while_it_is_asked_is_not_taken_over(sit, registry, caplog):
    former = await sit(attempt=5)

    async def probe():
        former.leaving.set()
        await former.registration.gone.wait()
        return False

    former.registration.probe = probe
    async with registry.registered(make_registration("another", 1)):
        assert former.reasons == []
    assert "Session taken over" not in caplog.text


async def test_other_owners_do_not_meet(sit):
    registrations = [
        await sit(owner=Owner("key", "one")),
        await sit(owner=Owner("key", "two")),
        await sit(owner=Owner("another key", "one")),
    ]
    for sitting in registrations:
        assert sitting.reasons == []
        sitting.leaving.set()


async def test_of_two_newcomers_at_once_only_the_latest_stays(registry, nursery):
    # In whatever order they come and wake: at the end attempt 3 sits there, alone.
    former = Sitting(registry, make_registration(attempt=1))
    await nursery.start(former.run)
    second, third = (Sitting(registry, make_registration(attempt=number)) for number in (2, 3))
    refused = []

    async def come(sitting):
        try:
            await sitting.run()
        except Refused:
            refused.append(sitting)

    async with trio.open_nursery() as comers:
        comers.start_soon(come, second)
        comers.start_soon(come, third)
        await wait_all_tasks_blocked()
        assert registry._sessions == {OWNER: third.registration}
        assert refused == [second] or second.registration.gone.is_set()
        assert third.reasons == []
        third.leaving.set()


async def test_a_seat_is_given_up_however_its_session_ends(registry):
    class Failure(Exception):
        pass

    registration = make_registration()
    with pytest.raises(Failure):
        async with registry.registered(registration):
            raise Failure
    assert registration.gone.is_set()
    with trio.CancelScope() as scope:
        async with registry.registered(make_registration()):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert registry._sessions == {}


# --- Ports ------------------------------------------------------------------------------------


def test_who_holds_a_port(registry, claims):
    one, other = make_registration(), make_registration(owner=Owner("key", "other"))
    claims.claim(one, "127.0.0.1", 80)
    claims.claim(other, "127.0.0.2", 80)
    assert registry.claimant("127.0.0.1", 80) is one
    assert registry.claimant("127.0.0.2", 80) is other
    assert registry.claimant("127.0.0.3", 80) is None
    assert registry.claimant("127.0.0.1", 81) is None
    claims.free(one, "127.0.0.1", 80)
    assert registry.claimant("127.0.0.1", 80) is None
    assert registry.claimant("*", 80) is other
    claims.free(other, "127.0.0.2", 80)
    assert registry.claimant("*", 80) is None


def test_how_many_ports_an_identity_holds(registry, claims):
    one, other = make_registration(), make_registration(owner=Owner("key", "other"))
    stranger = make_registration(owner=Owner("another key", "one"))
    for registration in (one, other, stranger):
        assert not registry.full(registration)
        registration.max_proxies = 2
    claims.claim(one, "127.0.0.1", 80)
    assert not registry.full(other)
    claims.claim(other, "127.0.0.1", 81)
    assert registry.full(one)
    assert registry.full(other)
    assert not registry.full(stranger)
    assert set(registry.publishers("key")) == {one, other}
    assert registry.publishers("another key") == ()
    claims.claim(stranger, "127.0.0.2", 80)
    claims.free(one, "127.0.0.1", 80)
    assert not registry.full(one)
    assert registry.publishers("key") == (other,)
    claims.free(other, "127.0.0.1", 81)
    claims.free(stranger, "127.0.0.2", 80)
    assert registry._proxies == {}


def test_one_session_may_hold_several_ports(registry, claims):
    registration = make_registration()
    for port in (80, 81):
        claims.claim(registration, "127.0.0.1", port)
    claims.free(registration, "127.0.0.1", 80)
    assert registry.publishers("key") == (registration,)
    claims.free(registration, "127.0.0.1", 81)
    assert registry.publishers("key") == ()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("*", "127.0.0.1", True),
        ("*", "*", True),
        ("127.0.0.1", "*", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "*", False),
        ("127.0.0.1", "0.0.0.0", False),
        ("0.0.0.0", "::1", False),
        ("::", "::1", True),
        ("::1", "0:0::1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_which_address_means_which(one, other, expected):
    assert covers(one, other) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("*", "127.0.0.1", True),
        ("*", "::1", True),
        ("*", "*", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "::1", False),
        ("::", "::1", True),
        ("::", "127.0.0.1", False),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("::", "0.0.0.0", False),
        ("2001:db8::1", "2001:DB8::1", True),
    ],
)
def test_which_addresses_cannot_share_a_port(one, other, expected):
    assert overlap(one, other) is overlap(other, one) is expected


async def test_whoever_waits_for_a_port_wakes_when_it_is_free(registry, claims, nursery):
    registration = make_registration()
    claims.claim(registration, "127.0.0.1", 80)
    woken = []

    async def wait(port):
        await registry.freed.wait(port)
        woken.append((port, registry.claimant("*", port)))

    for port in (80, 80, 81):
        nursery.start_soon(wait, port)
    await wait_all_tasks_blocked()
    claims.free(registration, "127.0.0.1", 80)
    await wait_all_tasks_blocked()
    assert woken == [(80, None), (80, None)]
    nursery.cancel_scope.cancel()


async def test_whoever_gives_up_waiting_leaves_nothing_behind(registry, autojump_clock):
    async def wait(seconds):
        with trio.move_on_after(seconds):
            await registry.freed.wait(80)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 1)
        nursery.start_soon(wait, 2)
        await trio.sleep(1.5)
        assert list(registry.freed._events) == [80]
    assert len(registry.freed) == 0
