"""What comes out of a block that has a nursery around it."""

import pytest
import trio

from tunnel.net.nursery import open_collapsing_nursery


async def fail(error):
    raise error


async def test_an_error_of_the_block_comes_out_as_it_was_raised():
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error
    assert error.__context__ is None


async def test_the_cause_that_was_given_stays():
    cause = KeyError("why")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_collapsing_nursery():
            raise ValueError("mine") from cause
    assert caught.value.__cause__ is cause


async def test_a_group_of_the_caller_stays_one():
    own = ExceptionGroup("own", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_collapsing_nursery():
            raise own
    assert caught.value is own


async def test_a_tasks_error_ends_the_block_and_comes_out_bare():
    ended = False
    with pytest.raises(KeyError):
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(fail, KeyError("task"))
            try:
                await trio.sleep_forever()
            finally:
                ended = True
    assert ended


async def test_of_both_the_blocks_counts():
    with pytest.raises(ValueError, match="mine"):
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(fail, KeyError("task"))
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_program_goes_first(end):
    with pytest.raises(end):
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(fail, end())
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")


async def test_cancelling_from_outside_cancels():
    with trio.CancelScope() as scope:
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_error_while_being_cancelled_is_not_lost():
    with trio.CancelScope() as scope:
        with pytest.raises(ValueError, match="mine"):
            async with open_collapsing_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("mine")


async def test_leaving_the_block_cancels_the_tasks():
    ended = []

    async def task():
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    async with open_collapsing_nursery() as nursery:
        nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()
    assert ended == [True]
