"""The service that is measured as a handler does what the load asks of it."""

import functools

import pytest
import trio

from tests.benchmarks import load
from tests.benchmarks.bench_handler import WORK, serve


@pytest.mark.parametrize(("kind", "connections"), [work[1:] for work in WORK])
async def test_every_kind_of_load_is_served(kind, connections):
    work = {
        "download": load.download,
        "upload": load.upload,
        "requests": functools.partial(load.requests, connections=connections),
        "new": functools.partial(load.anew, connections=connections),
    }[kind]
    async with trio.open_nursery() as nursery:
        listening = functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        [listener] = await nursery.start(listening)
        port = listener.socket.getsockname()[1]
        assert await trio.to_thread.run_sync(work, port, 0.05) > 0
        nursery.cancel_scope.cancel()
