"""Asking a running program: who may, who answers, and what a killed one leaves."""

from __future__ import annotations

import functools
import logging
import socket
import stat

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tunnel import limits
from tunnel.errors import StoreError
from tunnel.ops.control import ask, control_path, serve_control


async def answer(question):
    return {"question": question}


@pytest.fixture(params=["short", "long"])
def path(request, tmp_path):
    """Where to listen; also where the path is longer than a socket's name may be."""
    directory = tmp_path if request.param == "short" else tmp_path / ("long" * 40)
    return control_path(directory, tmp_path / "server.toml")


async def asked(path, question):
    return await trio.to_thread.run_sync(ask, path, question)


async def test_question_and_answer(path, nursery):
    nursery.start_soon(serve_control, path, answer)
    await wait_all_tasks_blocked()
    for question in ("plan", "reload"):
        assert await asked(path, question) == {"question": question}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0


async def test_nothing_is_left_and_nobody_is_there(path):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_control, path, answer)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert list(path.parent.iterdir()) == []
    with pytest.raises(StoreError, match="no program that runs with this file"):
        ask(path, "plan")


async def test_what_a_killed_program_left_is_taken_over(tmp_path, nursery):
    path = control_path(tmp_path, tmp_path / "server.toml")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with pytest.raises(StoreError, match="no program that runs with this file"):
        ask(path, "plan")
    nursery.start_soon(serve_control, path, answer)
    await wait_all_tasks_blocked()
    assert await asked(path, "plan") == {"question": "plan"}


async def test_a_second_program_leaves_the_first_alone(path, nursery, caplog):
    nursery.start_soon(serve_control, path, answer)
    await wait_all_tasks_blocked()
    await serve_control(path, answer)
    [line] = [it for it in caplog.records if it.getMessage() == "Cannot be asked"]
    assert line.reason == "another program runs with the same file"
    assert await asked(path, "plan") == {"question": "plan"}


async def test_where_it_cannot_listen_it_says_so(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "file").touch()
    await serve_control(tmp_path / "file" / "control.sock", answer)
    [line] = [it for it in caplog.records if it.getMessage() == "Cannot be asked"]
    assert "SIGHUP" in line.consequence


@pytest.mark.parametrize("said", [b"", b"x" * 1000, b"plan"])
async def test_who_asks_nothing_harms_nobody(tmp_path, nursery, autojump_clock, said):
    path = control_path(tmp_path, tmp_path / "server.toml")
    nursery.start_soon(serve_control, path, answer)
    await wait_all_tasks_blocked()
    async with await trio.open_unix_socket(str(path)) as silent:
        await silent.send_all(said)
        if said != b"plan":
            await silent.send_eof()
        before = trio.current_time()
        await silent.receive_some()
        assert trio.current_time() - before <= limits.CONTROL_TIMEOUT + 1


@pytest.mark.parametrize("said", [b"", b"[]\n", b"not JSON\n"])
async def test_who_is_not_tls_tunnel_is_not_believed(tmp_path, nursery, said):
    path = control_path(tmp_path, tmp_path / "server.toml")

    async def strange(stream):
        await stream.receive_some()
        await stream.send_all(said)
        await stream.aclose()

    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(path))
    listener.listen()
    nursery.start_soon(
        functools.partial(trio.serve_listeners, strange, [trio.SocketListener(listener)])
    )
    with pytest.raises(StoreError, match="no answer from"):
        await asked(path, "plan")


def test_each_file_has_its_own(tmp_path):
    paths = {control_path(tmp_path, tmp_path / name) for name in ("a.toml", "b.toml")}
    assert len(paths) == 2
