"""What is answered over HTTP, as an ASGI application (https://asgi.readthedocs.io).

Nothing here changes anything, so that GET and HEAD are all there is. A request is a stranger's
until it shows the token, and a browser may send one on behalf of any page on the internet: hence
the look at the Host header (DNS rebinding), and no CORS headers at all.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qs

import attrs

from tunnel.ops.metrics import Metrics
from tunnel.ops.page import load_page
from tunnel.ops.statistics import Statistics

logger = logging.getLogger(__name__)

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

_PLAIN: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


@attrs.frozen
class Answer:
    """An answer to a request: its status, its body, and the headers but for `Content-Length`."""

    status: HTTPStatus
    body: bytes
    headers: Headers


def _json(value: object, status: HTTPStatus = HTTPStatus.OK, *more: tuple[bytes, bytes]) -> Answer:
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(
        status, body, ((b"content-type", b"application/json; charset=utf-8"), *_PLAIN, *more)
    )


def _error(status: HTTPStatus, text: str, *more: tuple[bytes, bytes]) -> Answer:
    return _json({"error": text}, status, *more)


class Application:
    """Answers requests about one program.

    Args:
      statistics: the program's.
      token: what a request for anything but health and the empty page must show; None for nothing.
      hosts: names that requests may call this program by, besides loopback and its own address.
    """

    def __init__(
        self, statistics: Statistics, *, token: str | None = None, hosts: Iterable[str] = ()
    ) -> None:
        self._statistics = statistics
        self._metrics = Metrics(statistics)
        self._page = load_page()
        self._token = None if token is None else token.encode()
        self._hosts = frozenset(map(str.lower, hosts))
        self._open = {"/": self._index, "/healthz": self._health, "/readyz": self._ready}
        self._guarded = {
            "/stats": self._stats,
            "/status": self._status,
            "/events": self._events,
            "/metrics": self._scrape,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see ASGI."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it was accepted: 403
        else:
            await _send(send, await self._answer_anyhow(scope), head=scope["method"] == "HEAD")

    async def _answer_anyhow(self, scope: Scope) -> Answer:
        try:
            return await self.answer(scope)
        except Exception:  # A mistake here must not end the tunnel, and must not be hidden.
            logger.exception("Statistics request failed")
            return _error(
                HTTPStatus.INTERNAL_SERVER_ERROR, "a mistake in this program; see its log"
            )

    async def answer(self, scope: Scope) -> Answer:
        """The answer to a request; a refusal is one, too.

        Args:
          scope: of the type "http"; see ASGI.
        """
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not self._knows_host(headers.get(b"host"), scope.get("server")):
            text = "this program is not called that; stats_hosts in its configuration can allow it"
            return _error(HTTPStatus.FORBIDDEN, text)
        path = scope["path"].rstrip("/") or "/"
        action = self._open.get(path) or self._guarded.get(path)
        if action is None:
            paths = ", ".join([*self._open, *self._guarded])
            return _error(HTTPStatus.NOT_FOUND, f"there is {paths}")
        if scope["method"] not in ("GET", "HEAD"):
            allow = (b"allow", b"GET, HEAD")
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD are all there is", allow)
        if path in self._guarded and not self._may(headers.get(b"authorization", "")):
            challenge = (b"www-authenticate", b'Bearer realm="tls-tunnel"')
            text = "send the token of stats_token in the header Authorization: Bearer"
            return _error(HTTPStatus.UNAUTHORIZED, text, challenge)
        return await action(scope, headers)

    # --- Which requests are answered ---------------------------------------------------------

    def _knows_host(self, host: str | None, server: tuple[str, int | None] | None) -> bool:
        """False if a page of another site may have sent a browser here under its own name."""
        if host is None:
            return True  # Every browser names a host; old health checks do not.
        name = _without_port(host).lower().removesuffix(".")
        if name == "localhost" or name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or (server is not None and _same(address, server[0]))

    def _may(self, authorization: str) -> bool:
        if self._token is None:
            return True
        scheme, _, token = authorization.partition(" ")
        shown = token.strip().encode("utf-8", "replace")
        return scheme.lower() == "bearer" and hmac.compare_digest(shown, self._token)

    # --- Answers -----------------------------------------------------------------------------

    async def _index(self, _scope: Scope, _headers: dict[bytes, str]) -> Answer:
        return Answer(HTTPStatus.OK, self._page.body, self._page.headers)

    async def _health(self, _scope: Scope, _headers: dict[bytes, str]) -> Answer:
        return _json({"status": "ok"})  # That this runs shows that the event loop turns.

    async def _ready(self, _scope: Scope, _headers: dict[bytes, str]) -> Answer:
        reason = self._statistics.snapshots.view().unready
        status = HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE
        return _json({"ready": reason is None, "reason": reason}, status)

    async def _stats(self, _scope: Scope, _headers: dict[bytes, str]) -> Answer:
        return _json(self._statistics.stats())

    async def _status(self, _scope: Scope, _headers: dict[bytes, str]) -> Answer:
        return _json(self._statistics.status())

    async def _events(self, scope: Scope, _headers: dict[bytes, str]) -> Answer:
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8)
        after = query.get("after", ["0"])[0]
        if not (after.isascii() and after.isdecimal() and len(after) < 20):
            return _error(HTTPStatus.BAD_REQUEST, "after is the id of an event, a whole number")
        return _json(self._statistics.events(int(after)))

    async def _scrape(self, _scope: Scope, headers: dict[bytes, str]) -> Answer:
        body, content_type = await self._metrics.scrape(headers.get(b"accept", ""))
        return Answer(HTTPStatus.OK, body, ((b"content-type", content_type.encode()), *_PLAIN))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _same(address: ipaddress.IPv4Address | ipaddress.IPv6Address, own: str) -> bool:
    try:
        return address == ipaddress.ip_address(own.partition("%")[0])
    except ValueError:
        return False


async def _live(receive: Receive, send: Send) -> None:
    """ASGI's start and end of the server, in which there is nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _send(send: Send, answer: Answer, *, head: bool) -> None:
    length = (b"content-length", str(len(answer.body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": answer.status.value,
            "headers": [*answer.headers, length],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
