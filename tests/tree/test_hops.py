from __future__ import annotations

import contextlib
import socket
import textwrap

import pytest
import trio

from tests.tree import hops
from tests.tree.hops import FILES, FRAMES, PACKAGE, Chain, Watch, measure
from tunnel.net.link import Link


def code_of_ours(source, file="made_up.py"):
    """Functions from a source that counts as a module of the package."""
    names = {"trio": trio, "contextlib": contextlib}
    exec(compile(textwrap.dedent(source), str(PACKAGE / file), "exec"), names)
    return names


def names(way):
    return [hop.code.co_qualname for hop in way]


def watch(serve_client, *arguments):
    found = Watch()
    with found.installed():
        trio.run(serve_client, *arguments, instruments=[found])
    return found


def test_a_session_that_runs(certificate):
    """However long the chains are: each was seen, and begins and ends where it says."""
    chains = measure(certificate)
    assert len(chains) == 3
    for chain in chains:
        assert names(chain.hops)[0] == "serve_client"
        assert all((PACKAGE.parent / hop.file).is_file() for hop in chain.hops)


def test_a_task_goes_on_where_it_was_started():
    found = code_of_ours(
        """
        async def serve_client(sock):
            async with trio.open_nursery() as nursery:
                begin(nursery, sock)

        def begin(nursery, sock):
            nursery.start_soon(serve, sock)

        async def serve(sock):
            await trio.lowlevel.checkpoint()  # `begin` has returned by then, and counts
            [bind(each) for each in [sock]]

        def bind(sock):
            sock.bind(("127.0.0.1", 0))
        """
    )
    with socket.socket() as sock:
        seen = watch(found["serve_client"], sock)
    assert names(seen.bound) == ["serve_client", "begin", "serve", "bind"]


def test_what_is_bound_elsewhere_is_not_the_sessions():
    found = code_of_ours("async def other(sock): sock.bind(('127.0.0.1', 0))")
    with socket.socket() as sock:
        assert watch(found["other"], sock).bound == ()


OUT = """
async def serve_client(sock, link):
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(hold, sock)
        await lose(link)
        withdraw(scope)

async def lose(link):
    with contextlib.suppress(ValueError):
        await link.run()

def withdraw(scope):
    with trio.CancelScope() as other:
        unrelated(other)
    cancel(scope)

def unrelated(scope):
    scope.cancel()

def cancel(scope):
    scope.cancel()

async def hold(sock, task_status):
    with trio.CancelScope() as scope:
        sock.bind(("127.0.0.1", 0))
        task_status.started(scope)
        try:
            await trio.sleep_forever()
        finally:
            free(sock)

def free(sock):
    sock.close()
"""


def test_the_way_out_has_who_sees_the_loss_who_cancels_and_who_closes(monkeypatch):
    async def run(_):
        raise ValueError

    monkeypatch.setattr(Link, "run", run)
    sock = socket.socket()
    seen = watch(code_of_ours(OUT)["serve_client"], sock, object.__new__(Link))
    way = ["serve_client", "lose", "withdraw", "cancel", "hold", "free"]
    assert names(seen.freed) == way
    assert sock.fileno() == -1


def test_a_port_that_stays_is_not_free():
    found = code_of_ours("async def serve_client(sock): sock.bind(('127.0.0.1', 0))")
    with socket.socket() as sock:
        seen = watch(found["serve_client"], sock)
        assert seen.freed == ()


def hop(number, file="a.py"):
    code = code_of_ours(f"def f{number}(): pass", file)[f"f{number}"].__code__
    return hops.Hop(code, 1)


@pytest.mark.parametrize(
    ("chain", "short"),
    [
        ([hop(number) for number in range(FRAMES + 1)], True),
        ([hop(number) for number in range(FRAMES + 2)], False),
        ([hop(number, f"{number}.py") for number in range(FILES)], True),
        ([], False),
    ],
    ids=["three", "four", "four files", "not seen"],
)
def test_how_long_a_chain_may_be(chain, short):
    assert Chain("", tuple(chain)).short is short


def test_a_chain_may_not_be_in_too_many_files(monkeypatch):
    monkeypatch.setattr(hops, "FILES", 2)
    assert not Chain("", tuple(hop(number, f"{number}.py") for number in range(3))).short


def test_nothing_stays_installed():
    before = (socket.socket.close, trio.CancelScope.cancel, Link.run)
    with Watch().installed():
        assert socket.socket.close is not before[0]
    assert (socket.socket.close, trio.CancelScope.cancel, Link.run) == before
