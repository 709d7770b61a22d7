"""Kills a piece of work at every line of the modules it is made of, each time in a process of its own."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


def deaths(work: Callable[[], object], modules: tuple[str, ...], step: int) -> Iterator[int]:
    """Yields after each death, with the number of lines that were run: every `step`-th. Ends when the work got through.

    What the work finds must be put in place anew before each turn.
    """
    lines = 0
    while _dies(work, modules, lines := lines + step):
        yield lines


def _dies(work: Callable[[], object], modules: tuple[str, ...], after: int) -> bool:
    child = os.fork()
    if not child:
        _work(work, modules, after)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work failed"
    return False


def _work(work: Callable[[], object], modules: tuple[str, ...], after: int) -> None:
    left = after

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(modules):
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    try:
        sys.settrace(trace)
        work()
        sys.settrace(None)
        os._exit(0)
    finally:
        os._exit(1)
