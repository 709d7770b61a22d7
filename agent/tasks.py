"""Whoever starts a task holds its handle: a set of named tasks that ends together and fails loudly.

A task here handles the errors it expects itself. Anything else that escapes is a defect: it is logged with its trace and
handed to `fail`, which ends the process with a non-zero status, rather than leaving a node that half works.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """Running tasks of one owner; `fail` is called on the loop with what escaped from one of them."""

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail = fail
        self._running: set[asyncio.Task[None]] = set()
        self._ending = False

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error: BaseException | None
        if task.cancelled():  # by itself, as it were, when it is not by us: a future that it awaited was cancelled
            error = None if self._ending else RuntimeError(f"task '{task.get_name()}' was cancelled by nobody here")
        else:
            error = task.exception()
        if error is not None:
            log.critical("task failed task=%s", task.get_name(), exc_info=error)
            self._fail(error)

    async def cancel(self) -> None:
        """Cancels what runs and returns when all of it has ended."""
        self._ending = True
        while running := list(self._running):
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def foreign(call: Awaitable[None]) -> None:
    """Awaits code that is not ours. Raises RuntimeError for a CancelledError that nobody sent to this task.

    It is what comes out of awaiting a task that one has cancelled oneself. Passed on, it would end whoever called, and
    look as if that had been wanted.
    """
    try:
        await call
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("it awaits what it has cancelled itself") from error
