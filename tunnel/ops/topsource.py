"""Where `tls-tunnel top` reads: a program's `/status`, over HTTP, with the standard library.

No proxy of the environment is asked and no redirection followed, so that the token goes nowhere but
to the URL that was given.
"""

from __future__ import annotations

import http.client
import json
import math
import urllib.parse

import attrs
import trio

from tunnel import limits
from tunnel.errors import TunnelError
from tunnel.ops.top import Status

_REMEDIES = {
    401: "it asks for a token: give the file that holds it, with --token-file",
    403: "it does not answer to this name: use its address, or add the name to stats_hosts",
    404: "it has no /status: another program, or one that is too old",
}


def _without_slash(url: str) -> str:
    return url.rstrip("/")


def _usable(_source: object, _attribute: object, url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or set(" ?#@") & {*url}:
        raise TunnelError(f"{url!r} is not such as http://127.0.0.1:9090")


@attrs.frozen
class Source:
    """The HTTP side of one server or client.

    Args:
      url: its address, as it is shown; what is asked for is below it.
      token: what it asks for, if anything.
    """

    url: str = attrs.field(validator=_usable, converter=_without_slash)
    token: str | None = attrs.field(default=None, repr=False)

    async def read(self) -> Status:
        """The program now.

        Raises:
          TunnelError: there is no answer, or no good one; says what to do.
        """
        try:
            with trio.fail_after(limits.TOP_TIMEOUT):
                # Cancellation must not wait for a thread that hangs in a dead network.
                return await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)
        except (OSError, trio.TooSlowError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer in time"
            raise TunnelError(f"nothing there: {reason}") from error
        except (ValueError, http.client.HTTPException, RecursionError) as error:
            raise TunnelError("what answers there is not a tls-tunnel") from error

    def _read(self) -> Status:
        parts = urllib.parse.urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname or "", parts.port, timeout=limits.TOP_TIMEOUT)
        try:
            connection.request("GET", f"{parts.path}/status", headers=self._headers())
            with connection.getresponse() as answer:
                if answer.status != http.HTTPStatus.OK:
                    remedy = _REMEDIES.get(answer.status, "see the log of the program there")
                    raise TunnelError(f"HTTP status {answer.status}: {remedy}")
                return Status.from_json(json.loads(_bounded(answer), parse_constant=_no_number))
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers


def _bounded(answer: http.client.HTTPResponse) -> bytes:
    body = answer.read(limits.TOP_ANSWER + 1)
    if len(body) > limits.TOP_ANSWER:
        raise ValueError("too long")
    return body


def _no_number(_name: str) -> float:
    return math.nan  # shown as unknown
