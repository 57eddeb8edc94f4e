"""The reconnect loop."""

from __future__ import annotations

import itertools
import logging
import math
import random
from typing import TypeVar

import trio
from trio_util import AsyncValue

from tunnel import limits, remedies
from tunnel.client.backoff import Backoff
from tunnel.client.session import Client, hold_session
from tunnel.errors import LinkLost, Refused, RemoteProtocolError, TunnelError
from tunnel.net.clock import SleepDetector, sleep_while_awake
from tunnel.views import ClientHandle, ClientState

logger = logging.getLogger(__name__)

_Error = TypeVar("_Error", bound=BaseException)


async def run_client(
    client: Client,
    *,
    task_status: trio.TaskStatus[ClientHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """For ever: connect and serve; when that ends, all released, wait and connect again.

    Cancelled, it says goodbye to the server and releases everything before it returns.

    Raises:
      LinkLost, Refused, RemoteProtocolError: why an attempt or a session ended, where
        `Client.gives_up` says so.
    """
    state = AsyncValue(ClientState.CONNECTING)
    # Not a secret: it only keeps clients from coming back in step.
    backoff = Backoff(random.random)
    detector = SleepDetector()
    task_status.started(
        ClientHandle(
            state,
            lambda: tuple(proxy.statistics() for proxy in client.proxies),
            lambda other, *, anew: client.update(other, anew=anew),
        )
    )
    try:
        for attempt in itertools.count(1):
            state.value = ClientState.CONNECTING
            logger.info("Connecting", extra={"attempt": attempt})
            hint = await _attempt(client, attempt, backoff, state)
            if client.anew:
                client.anew = False
                continue
            state.value = ClientState.WAITING
            settings = client.settings
            delay = backoff.delay(
                trio.current_time(), settings.reconnect_delay, settings.reconnect_max_delay
            )
            delay = max(delay, hint)
            logger.info(f"Reconnecting in {round(delay, 3):g} seconds")
            with trio.CancelScope() as client.pause:
                if await sleep_while_awake(delay, detector):
                    logger.info("This machine slept")
                    backoff.reset()  # what went wrong before concerns another network, perhaps
            client.anew = False
    finally:
        logger.info("Client stopped")


async def _attempt(
    client: Client, attempt: int, backoff: Backoff, state: AsyncValue[ClientState]
) -> float:
    """One session and its end in the log; returns how long the server asks to wait, in seconds."""
    hint = 0.0
    why: TunnelError
    stable_at = math.inf

    def connected() -> None:
        nonlocal stable_at
        stable_at = trio.current_time() + limits.STABLE_SESSION
        state.value = ClientState.CONNECTED
        backoff.server_is_back()
        published = sum(1 for proxy in client.proxies if proxy.up)
        logger.info("Connected", extra={"published": published, "proxies": len(client.proxies)})

    try:
        ended = await hold_session(client, attempt, connected)
        why = LinkLost(ended.end.text)
        logger.warning("Connection lost", extra={"reason": ended.end.text})
        if ended.stopping:
            backoff.expect_restart(trio.current_time())
    except* Refused as group:
        why = _only(group)
        hint = _log_refused(why)
        backoff.server_is_back()
    except* (LinkLost, RemoteProtocolError) as group:
        why = _only(group)
        logger.warning("Connection lost", extra={"reason": str(why)})
    except* trio.BrokenResourceError as group:
        why = LinkLost(str(group.exceptions[0]))
        logger.warning("Connection lost", extra={"reason": str(why)})
    except* trio.TooSlowError:
        reason = f"no connection within {client.settings.connect_timeout:g} seconds"
        why = LinkLost(reason)
        logger.warning("Connection lost", extra={"reason": reason})
    if not client.anew and client.gives_up(why):
        raise why
    if trio.current_time() >= stable_at:
        backoff.reset()
    return hint


def _only(group: BaseExceptionGroup[_Error]) -> _Error:
    error = group.exceptions[0]
    assert not isinstance(error, BaseExceptionGroup)  # groups here have one level  # noqa: S101
    return error


def _log_refused(refused: Refused) -> float:
    remedy = remedies.refusal_remedy(refused.code)
    details = {} if remedy is None else {"remedy": remedy}
    logger.error("Refused", extra={"code": refused.code, "reason": refused.text} | details)
    return refused.retry_after or 0.0
