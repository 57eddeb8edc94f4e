"""The reconnect loop."""

from __future__ import annotations

import itertools
import math
import random
from typing import TypeVar

import trio
from trio_util import AsyncValue

from tunnel import limits, remedies
from tunnel.client.backoff import Backoff
from tunnel.client.session import hold_session
from tunnel.client.state import Client
from tunnel.errors import LinkLost, Refused, RemoteProtocolError, TunnelError
from tunnel.events import (
    ClientStopped,
    Connected,
    Connecting,
    ConnectionLost,
    End,
    EndReason,
    MachineSlept,
    Reconnecting,
    RefusedByServer,
)
from tunnel.net.clock import SleepDetector, sleep_while_awake
from tunnel.views import ClientHandle, ClientState

_Error = TypeVar("_Error", bound=BaseException)


async def run_client(
    client: Client,
    *,
    task_status: trio.TaskStatus[ClientHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """For ever: connect and serve; when that ends, all released, wait and connect again.

    Cancelled, it says goodbye to the server and releases everything before it returns.

    Args:
      client: what to do; it may be changed meanwhile, see `Client.update`.
      task_status: told a handle at once; wait for its `state` to be connected.

    Raises:
      LinkLost, Refused, RemoteProtocolError: why an attempt or a session ended, where
        `Client.gives_up` says so.
    """
    state = client.state
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
            client.events.emit(Connecting(attempt))
            asked_to_wait = await _attempt(client, attempt, backoff, state)
            if client.anew:
                client.anew = False
                continue
            state.value = ClientState.WAITING
            delay = max(_delay(client, backoff), asked_to_wait)
            client.events.emit(Reconnecting(delay))
            with trio.CancelScope() as client.pause:
                if await sleep_while_awake(delay, detector):
                    client.events.emit(MachineSlept())
                    backoff.reset()  # what went wrong before concerns another network, perhaps
            client.anew = False
    finally:
        client.events.emit(ClientStopped())


def _delay(client: Client, backoff: Backoff) -> float:
    """Seconds to wait before the next attempt, by what the configuration says now."""
    settings = client.settings
    now = trio.current_time()
    return backoff.delay(now, settings.reconnect_delay, settings.reconnect_max_delay)


async def _attempt(
    client: Client, attempt: int, backoff: Backoff, state: AsyncValue[ClientState]
) -> float:
    """One session; tells its end, and returns how many seconds the server asks to wait."""
    stable_at = math.inf

    def connected() -> None:
        nonlocal stable_at
        stable_at = trio.current_time() + limits.STABLE_SESSION
        state.value = ClientState.CONNECTED
        backoff.server_is_back()
        published = sum(1 for proxy in client.proxies if proxy.up)
        client.events.emit(Connected(published, len(client.proxies)))

    why: TunnelError
    try:
        end = await hold_session(client, attempt, connected)
        why = LinkLost(end.text)
    except* Refused as group:
        why = _only(group)
    except* RemoteProtocolError as group:
        why = _only(group)
        end = End(EndReason.PROTOCOL, str(why))
    except* LinkLost as group:
        why = _only(group)
        end = End(EndReason.OTHER, str(why))
    except* trio.BrokenResourceError as group:
        why = LinkLost(str(group.exceptions[0]))
        end = End(EndReason.OTHER, str(why))
    except* trio.TooSlowError:
        why = LinkLost(f"no connection within {client.settings.connect_timeout:g} seconds")
        end = End(EndReason.TOO_SLOW, str(why))
    if isinstance(why, Refused):
        remedy = remedies.refusal_remedy(why.code)
        client.events.emit(RefusedByServer(why.code, why.text, remedy))
        backoff.server_is_back()
    else:
        client.events.emit(ConnectionLost(end))
        if end.reason is EndReason.STOPPED:
            backoff.expect_restart(trio.current_time())
    if not client.anew and client.gives_up(why):
        raise why
    if trio.current_time() >= stable_at:
        backoff.reset()
    return (why.retry_after or 0.0) if isinstance(why, Refused) else 0.0


def _only(group: BaseExceptionGroup[_Error]) -> _Error:
    error = group.exceptions[0]
    assert not isinstance(error, BaseExceptionGroup)  # groups here have one level  # noqa: S101
    return error
