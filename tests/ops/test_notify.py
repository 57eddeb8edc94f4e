"""What the service manager is told, over a real datagram socket."""

from __future__ import annotations

import logging
import socket
import tempfile
import time

import pytest
import trio

from tunnel.ops.notify import Notifier, from_environment


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name)
        self.socket.setblocking(False)

    def heard(self):
        """The messages that came since the last call, each as a dictionary."""
        messages = []
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in text.split("\n")))


@pytest.fixture(params=["path", "abstract"])
def manager(request):
    """A service manager, and the environment that it gives to a service."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # the name must be short
        shown = f"{directory}/notify" if request.param == "path" else f"@{directory}/notify"
        manager = Manager(shown.replace("@", "\0"))
        manager.environ = {"NOTIFY_SOCKET": shown, "PATH": "/bin"}
        yield manager
        manager.socket.close()


def test_states(manager):
    notifier = from_environment(manager.environ, pid=1)
    notifier.ready()
    assert manager.heard() == [{"READY": "1"}]
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    notifier.reloading()
    [message] = manager.heard()
    assert message.pop("RELOADING") == "1"
    now = int(message.pop("MONOTONIC_USEC")) / 1e6
    assert before - 0.001 <= now <= time.clock_gettime(time.CLOCK_MONOTONIC)
    assert message == {}
    notifier.stopping()
    assert manager.heard() == [{"STOPPING": "1"}]


def test_a_child_does_not_get_the_variables(manager):
    manager.environ |= {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    from_environment(manager.environ, pid=1)
    assert manager.environ == {"PATH": "/bin"}


async def test_status_is_sent_when_it_changes(manager, autojump_clock):
    notifier = from_environment(manager.environ, pid=1)
    status = "idle"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep_telling, lambda: status)
        await trio.sleep(61)
        assert manager.heard() == [{"STATUS": "idle"}]
        status = "busy"
        await trio.sleep(5)
        assert manager.heard() == [{"STATUS": "busy"}]
        nursery.cancel_scope.cancel()


async def test_signs_of_life_come_at_half_the_interval(manager, autojump_clock):
    manager.environ |= {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "77"}
    notifier = from_environment(manager.environ, pid=77)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep_telling, lambda: "idle")
        await trio.sleep(0.1)
        assert manager.heard() == [{"WATCHDOG": "1", "STATUS": "idle"}]
        for _ in range(5):
            await trio.sleep(1.5)
            assert manager.heard() == [{"WATCHDOG": "1"}]
        nursery.cancel_scope.cancel()
    assert manager.heard() == []


async def test_a_stuck_loop_gives_no_sign_of_life(manager):
    notifier = from_environment(manager.environ | {"WATCHDOG_USEC": "20000"}, pid=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep_telling, lambda: "idle")
        await trio.testing.wait_all_tasks_blocked()
        manager.heard()
        time.sleep(0.1)  # this is what being stuck is  # noqa: ASYNC251
        assert manager.heard() == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "78"},  # of another process
    ],
)
async def test_without_a_watchdog_there_is_no_sign_of_life(manager, autojump_clock, watchdog):
    notifier = from_environment(manager.environ | watchdog, pid=77)
    with trio.move_on_after(60):
        await notifier.keep_telling(lambda: "idle")
    assert manager.heard() == [{"STATUS": "idle"}]


async def test_without_a_manager_nothing_happens(monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    for notifier in (Notifier(), from_environment({"WATCHDOG_USEC": "1000"}, pid=1)):
        notifier.ready()
        notifier.reloading()
        notifier.stopping()
        await notifier.keep_telling(None)  # comes to its end: nobody wants to hear it


def test_a_manager_that_is_gone_is_no_error(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    from_environment({"NOTIFY_SOCKET": "/nowhere/notify"}, pid=1).ready()
    [record] = caplog.records
    assert (record.levelname, record.error) == ("DEBUG", "[Errno 2] No such file or directory")


def test_another_kind_of_address_is_said(caplog):
    from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}, pid=1).ready()
    [record] = caplog.records
    assert (record.levelname, record.socket) == ("WARNING", "vsock:2:1234")
