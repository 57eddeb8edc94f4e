"""A nursery that a caller of ours does not need to know of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_collapsing_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery around a block of the caller's; its tasks are cancelled when the block ends.

    What comes out of a nursery is in a group, and a caller who sees none would miss it. So one
    layer, which is ours, is taken off again: a group that the caller raised stays a group. Where
    block and task both fail, the block's error counts.
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
    """Of what went wrong together the one thing that is told."""
    errors = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
    if not errors:
        return group.exceptions[0]
    if isinstance(own, BaseExceptionGroup) and own.subgroup(trio.Cancelled) is None:
        errors.append(own)  # of which a copy is among the others
    # What is to end the program goes before what only went wrong.
    return min(errors, key=lambda error: (isinstance(error, Exception), error is not own))
