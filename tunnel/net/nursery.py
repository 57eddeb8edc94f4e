"""Nurseries behind context managers: those that enter one do not need to know of the nursery."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio


@asynccontextmanager
async def open_collapsing_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery around a block of the caller's; its tasks are cancelled when the block ends.

    What comes out of a nursery is in a group, and a caller that sees no nursery expects none. So
    one layer, which is that of this nursery, is taken off again: a group that the caller raised
    stays a group. Where block and task both fail, the block's error counts.
    """
    own: BaseException | None = None
    found: BaseException
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                own = error
                raise
            nursery.cancel_scope.cancel()
        return
    except BaseExceptionGroup as group:
        found = _foremost(group, own)
    # Out here, or the group would be its context, and be printed before it.
    raise found


def _foremost(group: BaseExceptionGroup[BaseException], own: BaseException | None) -> BaseException:
    """Of all that was raised together the one exception to raise."""
    errors = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
    if not errors:
        return group.exceptions[0]
    if isinstance(own, BaseExceptionGroup) and own.subgroup(trio.Cancelled) is None:
        errors.append(own)  # (A copy of it is among the others.)
    # What is to end the program, such as KeyboardInterrupt, goes before plain errors.
    return min(errors, key=lambda error: (isinstance(error, Exception), error is not own))


@asynccontextmanager
async def started_shielded(
    nursery: trio.Nursery, work: Callable[..., Awaitable[None]]
) -> AsyncIterator[Any]:
    """Start a task, and cancel it when the block has ended, and not before.

    Cancelling the block, or the nursery, does not cancel the task: what the block does on its way
    out may still need it.

    Args:
      nursery: where the task lives.
      work: called with `task_status`; gives what it says there.
    """
    scope = trio.CancelScope()

    async def shielded(task_status: trio.TaskStatus[Any]) -> None:
        with scope:
            await work(task_status=task_status)

    value = await nursery.start(shielded)
    # Not before: a task that is being started where all is cancelled must end, and would not.
    scope.shield = True
    try:
        yield value
    finally:
        scope.cancel()
