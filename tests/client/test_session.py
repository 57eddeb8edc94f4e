"""A client's session against a server that the test plays."""

import hashlib
import secrets
from contextlib import asynccontextmanager

import pytest
import trio

from tests.net.rig import make_contexts, memory_transports
from tunnel.client.proxy import LocalProxy
from tunnel.client.session import hold_session
from tunnel.client.settings import ClientSettings, ProxySpec
from tunnel.client.state import Client
from tunnel.errors import Refused, RemoteProtocolError
from tunnel.events import End, EndReason
from tunnel.model import Address, RejectionCode
from tunnel.net.contexts import _shown_certificate
from tunnel.net.framed import next_event
from tunnel.net.tls import TlsStream
from tunnel.protocol.handshake import Binding, ServerHandshake
from tunnel.protocol.keys import derive, generate_key
from tunnel.protocol.messages import Bound, Capabilities, Rejected

KEYS = derive(generate_key(bytes(32)))
ADDRESS = Address("198.51.100.1", 80)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    return make_contexts(tmp_path_factory.mktemp("certificate"))


class Played:
    """A server's end of the connection, and its side of the handshake."""

    def __init__(self, tls, certificate):
        self.tls = tls
        verifier = KEYS.verifier
        self.handshake = ServerHandshake(
            lookup={verifier.key_id: verifier}.get,
            dummy=verifier,
            binding=Binding("certificate", hashlib.sha256(certificate).digest()),
            nonce=secrets.token_bytes(32),
            session_id=secrets.token_hex(16),
            capabilities=Capabilities(),
            server_version="0",
        )

    async def challenge(self):
        await self.tls.do_handshake()
        await self.tls.send_all(self.handshake.challenge())

    async def configured(self, *answers, before=trio.lowlevel.checkpoint):
        await self.challenge()
        await next_event(self.handshake, self.tls)
        await self.tls.send_all(self.handshake.accept(name="tests"))
        wanted = await next_event(self.handshake, self.tls)
        await before()
        await self.tls.send_all(self.handshake.configured(answers))
        return wanted.proxies


@asynccontextmanager
async def against(contexts, play):
    """A client whose server does what `play` does; nothing is left of it in the end."""
    server_context, context = contexts
    one, other = memory_transports()
    stream = TlsStream(other, server_context, server_side=True)

    async def dial():
        tls = TlsStream(one, context, server_side=False, server_hostname="localhost")
        await tls.do_handshake()
        return tls

    played = Played(stream, _shown_certificate(server_context))
    proxies = tuple(
        LocalProxy(ProxySpec(name, "*", port, "127.0.0.1", 1))
        for name, port in (("web", 80), ("any", 0))
    )
    client = Client(ClientSettings(dial, KEYS, "tests"), secrets.token_hex(16), proxies)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play, played)
        yield client
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_into(memoryview(bytearray(1)))
    assert all(proxy._nursery is None and not proxy.addresses for proxy in client.proxies)
    assert all(proxy.status.value is None and not proxy.guard.nonce for proxy in client.proxies)
    stream.abort()


def not_connected():
    pytest.fail("it is not connected")


async def test_a_refusal_is_read_although_nothing_can_be_sent_any_more(contexts):
    async def play(server):
        await server.tls.do_handshake()
        await server.tls.send_all(
            server.handshake.challenge() + server.handshake.refuse("busy", "come later", 7.0)
        )
        server.tls.transport._stream.receive_stream.close()

    async with against(contexts, play) as client:
        with pytest.raises(Refused, match="come later") as caught:
            await hold_session(client, 1, not_connected)
    assert (caught.value.code, caught.value.retry_after) == ("busy", 7.0)


async def test_a_server_that_goes_silent(contexts, autojump_clock):
    async def play(server):
        await server.challenge()
        await trio.sleep_forever()

    async with against(contexts, play) as client:
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await hold_session(client, 1, not_connected)
        assert trio.current_time() - began == pytest.approx(client.settings.connect_timeout)


async def test_a_server_that_goes_without_a_word(contexts):
    async def play(server):
        await server.challenge()
        server.tls.abort()

    async with against(contexts, play) as client:
        with pytest.raises(trio.BrokenResourceError):
            await hold_session(client, 1, not_connected)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_an_answer_too_few_or_too_many(contexts, count):
    async def play(server):
        await server.configured(*(Bound(number, (ADDRESS,)) for number in range(count)))

    async with against(contexts, play) as client:
        with pytest.raises(RemoteProtocolError, match="did not answer for every proxy"):
            await hold_session(client, 1, not_connected)


async def test_what_is_published_and_remembered(contexts, caplog):
    asked = []

    async def play(server):
        asked.append(
            await server.configured(Rejected(0, RejectionCode.IN_USE, "busy"), Bound(1, (ADDRESS,)))
        )
        await server.tls.aclose()

    seen = []
    async with against(contexts, play) as client:

        def connected():
            seen.extend(proxy.addresses for proxy in client.proxies)

        ended = await hold_session(client, 1, connected)
        assert ended == End(EndReason.CLOSED, "closed by the other side")
        assert seen == [(), (ADDRESS,)]
        assert client.proxies[1].preferred_port == ADDRESS.port
        assert client.proxies[1].request().preferred_port == ADDRESS.port
        assert client.proxies[0].preferred_port == 0
    assert [(want.name, want.publish_port) for want in asked[0]] == [("web", 80), ("any", 0)]
    [rejection] = [r for r in caplog.records if r.getMessage() == "Proxy rejected"]
    assert (rejection.proxy, rejection.code, rejection.reason) == ("web", "in_use", "busy")


async def test_what_was_withdrawn_before_the_server_is_asked_is_not_asked_for(contexts):
    asked = []

    async def play(server):
        await server.tls.do_handshake()
        client.proxies = client.proxies[1:]
        await server.tls.send_all(server.handshake.challenge())
        await next_event(server.handshake, server.tls)
        await server.tls.send_all(server.handshake.accept(name="tests"))
        wanted = await next_event(server.handshake, server.tls)
        asked.extend(it.name for it in wanted.proxies)
        await server.tls.send_all(server.handshake.configured((Bound(0, (ADDRESS,)),)))
        await server.tls.aclose()

    async with against(contexts, play) as client:
        withdrawn, _ = client.proxies
        await hold_session(client, 1, lambda: None)
        assert withdrawn.status.value is None
    assert asked == ["any"]
