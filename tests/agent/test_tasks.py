"""Tasks that end together, and say so when they end otherwise."""

import asyncio

from qswitch.agent.tasks import Tasks


async def _until(failures: list[BaseException]) -> None:
    async with asyncio.timeout(5):
        while not failures:
            await asyncio.sleep(0)


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_that_is_cancelled_by_nobody_here_has_failed() -> None:
    """A CancelledError of a future that somebody else has cancelled: the node would half work, and not say so."""
    failures = list[BaseException]()
    other = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await other

    tasks = Tasks(failures.append)
    tasks.spawn(wait(), "waits")
    await asyncio.sleep(0)
    other.cancel()
    await _until(failures)
    assert "task 'waits' was cancelled" in str(failures[0])


async def test_what_ends_with_all_others_has_not_failed() -> None:
    failures = list[BaseException]()
    tasks = Tasks(failures.append)
    for _ in range(2):
        tasks.spawn(_never(), "waits")
    await asyncio.sleep(0)
    await tasks.cancel()
    await asyncio.sleep(0)
    assert not failures
