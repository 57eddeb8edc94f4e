"""What a change finds of live connections, and what a person is told of it."""

from __future__ import annotations

import attrs
import pytest
import trio

from tunnel.cli.commands.reload import describe
from tunnel.cli.reloading import RunningConfig, affected_connections
from tunnel.config import ClientConfig, load_client
from tunnel.config.changes import Changes
from tunnel.model import Address
from tunnel.stats import Counters
from tunnel.views import ClientHandle, ProxyStatistics, ServerHandle, SessionStatistics

WHERE = Address("192.0.2.1", 80)


def proxy(name, active):
    counters = Counters()
    for _ in range(active):
        counters.opened()
    return ProxyStatistics(name, (WHERE,), 80, 0.0, counters.statistics())


def client(**active):
    return ClientHandle(None, lambda: tuple(proxy(*pair) for pair in active.items()), None)


def server(**connections):
    sessions = (
        SessionStatistics(name, WHERE, "0" * 32, n, None, ()) for name, n in connections.items()
    )
    return ServerHandle((), "", lambda: tuple(sessions), None, None, None)


@pytest.mark.parametrize(
    ("changes", "touched"),
    [
        (Changes(added=("new",)), {"finish": 0, "stay": 0}),
        (Changes(removed=("a",), moved=("b",), changed=("c",)), {"finish": 3, "stay": 4}),
        (Changes(removed=("a",), anew=("pin",)), {"cut": 15}),
        (Changes(restart=("state_dir",)), {"finish": 0, "stay": 0}),
    ],
)
def test_what_a_change_of_a_client_touches(changes, touched):
    assert affected_connections(changes, client(a=1, b=2, c=4, d=8)) == touched


@pytest.mark.parametrize(
    ("changes", "cut"),
    [
        (Changes(added=("new",), live=("allow_ports",)), 0),
        (Changes(removed=("office",)), 1),
        (Changes(live=("auth_key",)), 3),
    ],
)
def test_what_a_change_of_a_server_touches(changes, cut):
    assert affected_connections(changes, server(office=1, home=2)) == {"cut": cut}


def test_what_is_said():
    answer = attrs.asdict(Changes(added=("a", "b"), restart=("bind_port",)))
    assert describe(answer | {"connections": {"cut": 0}}) == (
        "added: a, b\nonly with a restart: bind_port\n"
    )
    assert describe(answer | {"connections": {"cut": 7}}).endswith(
        "live connections that are cut: 7\n"
    )
    assert describe(attrs.asdict(Changes())) == "nothing is different\n"


def test_every_part_of_a_change_is_said():
    names = [field.name for field in attrs.fields(Changes)]
    said = describe(attrs.asdict(Changes(**{name: (f"<{name}>",) for name in names})))
    assert all(f"<{name}>" in said for name in names)


TEXT = """
[client]
server_addr = "example.org"
auth_key = "sixteen characters"
state_dir = "state"
[[proxies]]
name = "web"
publish_port = 80
local_port = 80
"""


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "client.toml"
    path.touch(0o600)
    path.write_text(TEXT)
    config = load_client(TEXT, source="x", environ={}).value
    assert isinstance(config, ClientConfig)
    return RunningConfig(path, config)


class Changed:
    """A handle that notes what it was told to be."""

    def __init__(self):
        self.told = []
        self.handle = ClientHandle(None, tuple, self.change)

    def change(self, other, *, anew):
        self.told.append(([it.name for it in other.proxies], anew))


async def test_a_question_that_nobody_knows(live):
    handle = Changed()
    assert "error" in await live.answer(handle.handle, "stop")
    assert not handle.told


async def test_a_plan_tells_the_program_nothing(live):
    handle = Changed()
    live.source.write_text(TEXT.replace("web", "shop"))
    for _ in range(2):
        answer = await live.answer(handle.handle, "plan")
        assert (answer["added"], answer["removed"]) == (("shop",), ("web",))
    assert not handle.told
    await live.answer(handle.handle, "reload")
    assert handle.told == [(["shop"], False)]
    answer = await live.answer(handle.handle, "plan")
    assert (answer["added"], answer["removed"]) == ((), ())


async def test_a_file_that_cannot_be_used_is_an_answer(live):
    """It is a right one, but the key's file is not there: nothing has changed."""
    handle = Changed()
    live.source.write_text(TEXT.replace('auth_key = "sixteen characters"', 'auth_key_file = "no"'))
    before = live.config
    answer = await live.answer(handle.handle, "reload")
    assert "no" in answer["error"]
    assert live.config is before
    assert not handle.told


class Watched(RunningConfig):
    """Notes what it would have read, and when."""

    async def reload(self, handle):
        handle.append((trio.current_time(), self.source.read_text()))


async def test_a_file_is_not_read_while_it_is_being_written(live, autojump_clock, nursery):
    read = []
    nursery.start_soon(Watched(live.source, live.config)._watch, read)
    await trio.sleep(0.5)
    for size in range(1, 4):  # between two looks each time
        live.source.write_text(TEXT + "#" * size)
        await trio.sleep(1.0)
    assert not read
    await trio.sleep(60.0)
    assert read == [(pytest.approx(4.0), TEXT + "###")]


async def test_a_file_that_goes_and_comes_again_as_it_was(live, autojump_clock, nursery):
    read = []
    nursery.start_soon(Watched(live.source, live.config)._watch, read)
    await trio.sleep(0.5)
    aside = live.source.rename(live.source.with_suffix(".aside"))
    await trio.sleep(10.0)
    aside.rename(live.source)
    await trio.sleep(10.0)
    assert not read
