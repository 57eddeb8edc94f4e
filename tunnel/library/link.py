"""A client inside another program: connected, and asked to publish one thing after the other."""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio
from trio_util import AsyncValue

from tunnel import limits
from tunnel.api import observed_client
from tunnel.client.handler import HandledProxy, Handler
from tunnel.client.proxy import LocalProxy, ProxyStatus
from tunnel.client.run import run_client
from tunnel.client.state import Client
from tunnel.client.visit_port import VisitPort
from tunnel.compose import make_client, make_handled_proxy, make_proxy
from tunnel.config import ClientConfig, ProxyConfig
from tunnel.errors import ConfigError, Fault, PublishError, Refused, TunnelError, Untrusted
from tunnel.library.arguments import Target, local_address, proxy_config
from tunnel.library.configurations import ConfigurationSource, client_config
from tunnel.model import ANY, Address, RefusalCode
from tunnel.net.nursery import open_collapsing_nursery, started_shielded
from tunnel.protocol.messages import Bound, Rejected
from tunnel.views import ClientHandle, ClientState, ProxyStatistics

if TYPE_CHECKING:
    from tunnel.library.asgi import Application

#: What no later attempt would change.
_FINAL = {
    RefusalCode.AUTHENTICATION,
    RefusalCode.BINDING,
    RefusalCode.PROTOCOL,
    RefusalCode.VERSION,
}


@asynccontextmanager
async def connect(
    where: ConfigurationSource, *, name: str | None = None, reconnect: bool = True
) -> AsyncIterator[ClientLink]:
    """Connect to a server, and stay connected for as long as the block lasts.

    The block begins when the client is connected and what its configuration publishes has been
    asked for. When it ends, the server is told so and everything is released, also if that is by
    an error or by cancellation. Errors of the block come out as they were raised.

    Args:
      where: a join string, a configuration, or the file of one. A client of a file is known to the
        server again after a restart; others are new ones every time.
      name: what the server's logs call this client; the host's name if it is None.
      reconnect: connect again whenever the connection is lost.

    Raises:
      ConfigError, StoreError: the configuration cannot be used.
      Refused: the server said no, for a reason that stays; without `reconnect` for any.
      Untrusted: what answers is not the server that is meant.
      LinkLost: without `reconnect`: it could not be reached, or was lost, which cancels the block.
    """
    config, source = client_config(where, name)
    retries = Retries(reconnect=reconnect)
    make = functools.partial(make_client, config, source, gives_up=retries.gives_up)
    # A key that a person made up takes a tenth of a second.
    client = await trio.to_thread.run_sync(make)
    async with open_link(client, config, source, retries) as link:
        yield link


@attrs.define(eq=False, kw_only=True)
class Retries:
    """Which errors end a client that `open_link` runs; `gives_up` is for its constructor.

    Args:
      reconnect: False if any does. Otherwise only one that no later attempt would change does, and
        only before the first session: after that the server was the right one.
    """

    reconnect: bool
    #: There has been a session.
    connected: bool = attrs.field(default=False, init=False)

    def gives_up(self, error: TunnelError) -> bool:
        """True if the client is to end with this error."""
        return not self.reconnect or (not self.connected and _is_final(error))


def _is_final(error: TunnelError) -> bool:
    return isinstance(error, Untrusted) or (isinstance(error, Refused) and error.code in _FINAL)


@asynccontextmanager
async def open_link(
    client: Client, config: ClientConfig, source: Path | None, retries: Retries
) -> AsyncIterator[ClientLink]:
    """Run a client for as long as the block lasts; see `connect`.

    Args:
      client: made from the configuration, and not run yet.
      config: the configuration.
      source: the file, which its paths are relative to.
      retries: what the client asks whether it gives up.

    Raises:
      TunnelError: why the client ended, where its `gives_up` said that it does.
    """

    async def run(*, task_status: trio.TaskStatus[ClientHandle]) -> None:
        async with observed_client(client, config, source):
            await run_client(client, task_status=task_status)

    # Cancelling the block must not cancel the client with it: what leaves the block, such as a
    # proxy that is withdrawn, has something to tell the server.
    async with open_collapsing_nursery() as nursery, started_shielded(nursery, run) as handle:
        link = ClientLink(handle.state, client, config)
        with ExitStack() as noted:
            for proxy in client.proxies:
                noted.enter_context(link.noting(proxy))
            await handle.state.wait_value(ClientState.CONNECTED)
            retries.connected = True
            yield link


@attrs.define(eq=False)
class ClientLink:
    """A client that is, or will be again, connected to its server; `connect` gives one.

    Args:
      state: where it is; wait with `state.wait_value(tunnel.ClientState.CONNECTED)`.
      published: by name where each publication can be reached now; what cannot is not in it.
    """

    state: AsyncValue[ClientState]
    _client: Client
    _config: ClientConfig
    published: AsyncValue[Mapping[str, Address]] = attrs.field(
        factory=lambda: AsyncValue({}), init=False
    )
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    def statistics(self) -> tuple[ProxyStatistics, ...]:
        """Everything that is published, with its counters, now."""
        return tuple(proxy.statistics() for proxy in self._client.proxies)

    @property
    def visitors(self) -> tuple[VisitPort, ...]:
        """What its configuration visits of other clients."""
        return self._client.visit_ports

    @asynccontextmanager
    async def publish(
        self,
        port: int = 0,
        *,
        handler: Handler | None = None,
        to: Target | None = None,
        name: str | None = None,
        host: str = ANY,
        allow_from: tuple[str, ...] = (),
        proxy_protocol: str | None = None,
        wait: bool = False,
    ) -> AsyncIterator[Address]:
        """Publish a handler or a local service for as long as the block lasts; gives its address.

        After a reconnect it is published again, at the same port if that is to be had. When the
        block ends, its port is free before anything else goes on, or the connection is lost, or
        `limits.WITHDRAWAL` seconds are over; then handlers are cancelled. Connections of a local
        service go on.

        Args:
          port: the server's; 0 takes any free one.
          handler: called for each visitor with a stream and a `Peer`, in a task of its own.
          to: or a local service: a port, "host:port", "unix:/path".
          name: names it in logs, on both sides; unique in this client.
          host: the address of the server to publish on.
          allow_from: the networks that may visit; without any, all may.
          proxy_protocol: "v1" or "v2" to tell a local service where visitors come from.
          wait: if the port is busy wait for it, instead of raising.

        Raises:
          ConfigError: an argument is wrong.
          PublishError: the server does not publish it.
        """
        keys: dict[str, object] = {
            "name": name or f"{self._client.settings.name}-{next(self._numbers)}",
            "publish_addr": host,
            "publish_port": port,
            "allow_from": allow_from,
            "proxy_protocol": proxy_protocol,
        }
        if (handler is None) == (to is None):
            raise ConfigError("publish()", [Fault(None, "to", "set it, or handler: one of them")])
        # A handler is in the place of the address that the rules ask for.
        config = proxy_config(keys | local_address(1 if to is None else to))
        async with open_collapsing_nursery() as handlers:
            async with self._kept(self._proxy(config, handler, handlers)) as proxy:
                with self.noting(proxy):
                    yield await self._reached(proxy, wait=wait)

    def _proxy(
        self, config: ProxyConfig, handler: Handler | None, handlers: trio.Nursery
    ) -> LocalProxy:
        if any(proxy.name == config.name for proxy in self._client.proxies):
            message = f"{config.name!r} is published already: give each a name of its own"
            raise ConfigError("publish()", [Fault(None, "name", message)])
        if len(self._client.proxies) >= limits.MAX_PROXIES:
            message = f"a client publishes no more than {limits.MAX_PROXIES}"
            raise ConfigError("publish()", [Fault(None, None, message)])
        if handler is None:
            return make_proxy(config, self._config)
        return make_handled_proxy(config, handler, handlers)

    @asynccontextmanager
    async def _kept(self, proxy: LocalProxy) -> AsyncIterator[LocalProxy]:
        """The client has this proxy; after the block the server has forgotten it."""
        client = self._client
        client.proxies = (*client.proxies, proxy)
        try:
            self._changed()
            yield proxy
        finally:
            client.proxies = tuple(other for other in client.proxies if other is not proxy)
            self._changed()
            with trio.move_on_after(limits.WITHDRAWAL, shield=True):
                await proxy.status.wait_value(None)
            if isinstance(proxy, HandledProxy):
                proxy.close()

    def _changed(self) -> None:
        if self._client.session is not None:
            self._client.session.update(self._client.proxies, anew=False)

    async def _reached(self, proxy: LocalProxy, *, wait: bool) -> Address:
        """Where the proxy is published, as soon as it is."""

        def is_told(status: ProxyStatus) -> bool:
            return isinstance(status, Bound) or (
                isinstance(status, Rejected) and not (wait and status.code.passes)
            )

        status = await proxy.status.wait_value(is_told)
        if isinstance(status, Rejected):
            raise PublishError(status.code, status.text)
        return self._address(status)

    def _address(self, bound: Bound) -> Address:
        """Where visitors of this client's server come to."""
        [first, *_] = bound.addresses
        if ipaddress.ip_address(first.host).is_unspecified:
            return Address(self._client.host or first.host, first.port)
        return first

    @contextmanager
    def noting(self, proxy: LocalProxy) -> Iterator[None]:
        """Keep `published` true about a proxy, for as long as the block lasts.

        It changes with the proxy's status, at once: with a task, `published` could lag behind when
        `state` says that the client is connected again.
        """
        with proxy.status.open_transform(functools.partial(self._note, proxy)):
            try:
                yield
            finally:
                self._note(proxy, None)

    def _note(self, proxy: LocalProxy, status: ProxyStatus) -> None:
        others = {name: at for name, at in self.published.value.items() if name != proxy.name}
        if isinstance(status, Bound) and status.addresses:
            others[proxy.name] = self._address(status)
        if others != self.published.value:
            self.published.value = others

    @asynccontextmanager
    async def publish_asgi(
        self,
        app: Application,
        port: int = 0,
        *,
        name: str | None = None,
        host: str = ANY,
        allow_from: tuple[str, ...] = (),
        wait: bool = False,
    ) -> AsyncIterator[Address]:
        """Publish an ASGI application for as long as the block lasts; gives its address.

        HTTP/1.1, HTTP/2 without TLS, and WebSocket, without a socket in between. The application's
        lifespan is the block's; its `client` is the visitor's address. It runs on Trio.

        Args:
          app: the application.
          port, name, host, allow_from, wait: as for `publish`.

        Raises:
          ConfigError, PublishError: as `publish`.
          TunnelError: the application said that it cannot start.
        """
        # It takes a quarter of a second: only where it is used.
        from tunnel.library.asgi import asgi_handler

        async with asgi_handler(app) as handler:
            async with self.publish(
                port, handler=handler, name=name, host=host, allow_from=allow_from, wait=wait
            ) as address:
                yield address
