"""Moments that are too short to be met on purpose, met on purpose."""

from __future__ import annotations

import trio

from tests.net.rig import link_pair, make_contexts


class AtTheEndOf(trio.abc.Instrument):
    """Calls something in the moment in which a task has ended, before anybody else runs."""

    def __init__(self, name: str, call) -> None:
        self.name = name
        self.call = call
        self.error: Exception | None = None
        self.called = False

    def task_exited(self, task) -> None:
        if self.name in task.name:
            self.called = True
            try:
                self.call()
            except Exception as error:
                self.error = error


async def last_of_the_link() -> None:
    await trio.sleep_forever()


async def test_nothing_can_be_started_on_a_link_whose_last_task_has_ended(tmp_path):
    """Its nursery is closed then, and its own task has not run yet.

    A dial that has just worked, or a visitor who has just come, does it; the process ended.
    """
    async with link_pair(make_contexts(tmp_path)) as pair:
        link = pair.client
        assert link.spawn(last_of_the_link)
        moment = AtTheEndOf("last_of_the_link", lambda: link.spawn(trio.sleep, 0))
        trio.lowlevel.add_instrument(moment)
        link.lose("lost by the test")
        while not moment.called:
            await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(moment)
    assert moment.error is None
