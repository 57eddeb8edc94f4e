"""An ASGI application through the tunnel, without a socket of its own."""

import pytest
import trio
import wsproto
from trio.testing import wait_all_tasks_blocked
from wsproto.events import AcceptConnection, Request, TextMessage

from tests.library.test_link import SERVER, client
from tests.rig import is_free, own_host, read_all, visit
from tunnel import limits
from tunnel.errors import TunnelError
from tunnel.library.link import connect
from tunnel.library.server import serve


class App:
    """Answers with what it knows of the visitor; notes its own life."""

    def __init__(self):
        self.life = []
        self.hanging = trio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                self.life.append(message["type"])
                await send({"type": message["type"] + ".complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            message = await receive()
            await send({"type": "websocket.send", "text": message["text"].upper()})
            await receive()
        elif scope["path"] == "/broken":
            raise ValueError("broken page")
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            if scope["path"] == "/endless":
                self.hanging.set()
                while True:
                    body = bytes(65536)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            body = f"{scope['client'][0]}:{scope['client'][1]}".encode()
            await send({"type": "http.response.body", "body": body})


async def get(address, path=b"/"):
    async with await visit(address) as stream:
        request = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path
        await stream.send_all(request)
        own = "{}:{}".format(*stream.socket.getsockname())
        return await read_all(stream), own.encode()


async def test_pages():
    app = App()
    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish_asgi(app, host=own_host()) as address:
            answer, own = await get(address)
            assert answer.startswith(b"HTTP/1.1 200")
            assert own in answer
            assert app.life == ["lifespan.startup"]
        assert is_free(address)
        assert app.life == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_page_that_fails_is_logged(caplog):
    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish_asgi(App(), host="127.0.0.1") as address:
            answer, _ = await get(address, b"/broken")
            assert answer.startswith(b"HTTP/1.1 500")
    [record] = [r for r in caplog.records if r.getMessage() == "Application failed"]
    assert record.error == "ValueError: broken page"


async def test_websocket():
    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish_asgi(App(), host="127.0.0.1") as address:
            ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
            async with await visit(address) as stream:
                await stream.send_all(ws.send(Request(host="x", target="/")))
                events = []
                while not any(isinstance(event, TextMessage) for event in events):
                    ws.receive_data(await stream.receive_some())
                    for event in ws.events():
                        events.append(event)
                        if isinstance(event, AcceptConnection):
                            await stream.send_all(ws.send(TextMessage("hello")))
                assert events[-1].data == "HELLO"


async def test_a_visitor_who_does_not_read_holds_up_nothing():
    app = App()
    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish_asgi(app, host=own_host()) as address:
            stream = await visit(address)
            await stream.send_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await app.hanging.wait()
            await trio.testing.wait_all_tasks_blocked()
        assert is_free(address)
        await stream.aclose()


async def test_an_application_that_does_not_start():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async with serve(SERVER) as server, connect(client(server)) as link:
        with pytest.raises(TunnelError, match="no database"):
            async with link.publish_asgi(app, host="127.0.0.1"):
                raise AssertionError("not reached")


async def test_an_application_without_lifespan():
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish_asgi(app, host="127.0.0.1") as address:
            answer, _ = await get(address)
            assert b"fine" in answer


async def test_an_application_that_goes_before_its_time():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async with serve(SERVER) as server, connect(client(server)) as link:
        async with link.publish_asgi(app, host="127.0.0.1"):
            await trio.testing.wait_all_tasks_blocked()


async def test_cancelling_cancels_the_application():
    async with serve(SERVER) as server, connect(client(server)) as link:
        app = App()
        with trio.CancelScope() as scope:
            async with link.publish_asgi(app, host=own_host()) as address:
                scope.cancel()
                await trio.sleep_forever()
        assert is_free(address)
        assert app.life == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_visitor_who_has_gone_holds_no_place(tunnel_client, tunnel_visit, autojump_clock):
    async with tunnel_client.publish_asgi(App()) as address:
        async with tunnel_visit(address) as visitor:
            await visitor.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await visitor.receive_some()).startswith(b"HTTP/1.1 200")
        await wait_all_tasks_blocked()
        [statistics] = tunnel_client.statistics()
        assert (statistics.counters.total, statistics.counters.active) == (1, 0)


@pytest.mark.parametrize("cancelled", [True, False])
async def test_the_application_is_told_to_stop_however_the_block_ends(tunnel_client, cancelled):
    app = App()
    with trio.CancelScope() as scope:
        try:
            async with tunnel_client.publish_asgi(app, host="127.0.0.1"):
                if not cancelled:
                    raise LookupError("mine")
                scope.cancel()
                await trio.sleep_forever()
        except LookupError:
            pass
    assert scope.cancelled_caught is cancelled
    assert app.life == ["lifespan.startup", "lifespan.shutdown"]


async def test_one_that_does_not_stop_is_not_waited_for_for_ever(tunnel_client, autojump_clock):
    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with tunnel_client.publish_asgi(app, host="127.0.0.1"):
            scope.cancel()
            started = trio.current_time()
            await trio.sleep_forever()
    assert trio.current_time() - started == pytest.approx(limits.WITHDRAWAL)
