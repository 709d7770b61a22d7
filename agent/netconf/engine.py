"""Which program serves NETCONF: netopeer2-server where it is installed, else this package.

Both only talk to sysrepo and read the same configuration, so that either can stand in for the other.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config import Engine, RepositoryConfig
from ..errors import ConfigurationError
from ..repository import environment

__all__ = ["Engine", "Netopeer2", "choose"]

log = logging.getLogger(__name__)

PROGRAM = "netopeer2-server"
_STOP_SECONDS = 10.0


def choose(wanted: Engine) -> Engine:
    """The engine to run. Raises ConfigurationError when netopeer2 is demanded and not installed."""
    installed = shutil.which(PROGRAM) is not None
    if wanted is Engine.NETOPEER2 and not installed:
        raise ConfigurationError("--engine netopeer2", f"'{PROGRAM}' is not on PATH; install it or use --engine builtin")
    if wanted is Engine.AUTO:
        return Engine.NETOPEER2 if installed else Engine.BUILTIN
    return wanted


@dataclass(frozen=True, slots=True)
class Netopeer2:
    """netopeer2-server as a child of this process."""

    repository: RepositoryConfig
    verbose: bool = False

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> int:
        """Runs until told to stop, or until it ends by itself; then its exit code (0 after a stop asked for)."""
        pid_file = self.repository.path / "netopeer2.pid"
        level = "-v2" if self.verbose else "-v1"
        child = await asyncio.create_subprocess_exec(
            PROGRAM, "-d", level, "-p", str(pid_file), env={**os.environ, **environment(self.repository)}
        )
        log.info("netopeer2 started pid=%d", child.pid)
        stopping, ended = asyncio.create_task(stop.wait()), asyncio.create_task(child.wait())
        try:
            await self._wait_ready(pid_file, child, ended)
            if not ended.done():
                ready()
            await asyncio.wait([stopping, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                log.error("netopeer2 ended by itself code=%d", ended.result())
                return ended.result() or 1
            return await self._stop(child, ended)
        finally:
            stopping.cancel()
            if not ended.done():
                child.kill()
            await ended

    async def _wait_ready(self, pid_file: Path, child: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        """Until it wrote its pid, which it does once it is set up."""
        while not ended.done() and not _holds(pid_file, child.pid):
            await asyncio.wait([ended], timeout=0.05)

    async def _stop(self, child: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> int:
        child.terminate()
        done, _ = await asyncio.wait([ended], timeout=_STOP_SECONDS)
        if not done:
            log.warning("netopeer2 did not stop in time, killed pid=%d", child.pid)
        return 0


def _holds(pid_file: Path, pid: int) -> bool:
    try:
        return pid_file.read_text().strip() == str(pid)
    except OSError:
        return False
