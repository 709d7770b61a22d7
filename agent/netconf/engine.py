"""Which program serves NETCONF, and netopeer2-server as a child of this one: started, watched, stopped.

Both engines only talk to sysrepo and read the same configuration, so that either can stand in for the other. A netopeer2
that has served and then ends by itself is started again, later each time: sessions are lost, the node stays. One that cannot
even start, or ends again and again, is given up with its own last words, and so is this program: its service manager and
its operator are to know.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..config import Engine, FrontConfig
from ..errors import ConfigurationError
from ..repository import environment
from . import netopeer2
from .netopeer2 import PROGRAM

log = logging.getLogger(__name__)

START_SECONDS = 60.0
STOP_SECONDS = 10.0
QUICK_SECONDS = 30.0  # who served for less has failed quickly
MOST_FAILURES = 5
_FIRST_PAUSE_SECONDS = 0.2
_LEVELS = {"[ERR]": logging.ERROR, "[WRN]": logging.WARNING, "[INF]": logging.INFO}
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def choose(wanted: Engine) -> Engine:
    """The engine to run. Raises ConfigurationError when netopeer2 is demanded and not installed, or does not fit."""
    if wanted is Engine.BUILTIN or (wanted is Engine.AUTO and netopeer2.find() is None):
        return Engine.BUILTIN
    try:
        log.info("netopeer2 version=%s", netopeer2.check(netopeer2.program()))
    except ConfigurationError as error:
        if wanted is Engine.NETOPEER2:
            raise
        log.warning("netopeer2 is left out: %s", error)
        return Engine.BUILTIN
    return Engine.NETOPEER2


class Netopeer2:
    """netopeer2-server in front of one repository."""

    def __init__(self, front: FrontConfig, verbose: bool = False) -> None:
        self._front = front
        self._folder = front.repository.path / "netopeer2"  # for what it keeps of a confirmed commit
        self._pid_file = front.repository.path / "netopeer2.pid"
        self._level = "-v2" if verbose else "-v1"

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> int:
        """Serves until told to stop: 0. Raises NodeError when netopeer2 cannot start, or ends again and again."""
        program = await asyncio.to_thread(self._prepare)
        failures, ever, clock = 0, False, asyncio.get_running_loop()
        while not stop.is_set():
            child = await Child.start(self._command(program), environment(self._front.repository))
            started = clock.time()
            try:
                ever |= await self._serve(child, stop, ready)
            finally:
                await child.end()
            if stop.is_set():
                break
            if not ever:
                raise ConfigurationError(PROGRAM, f"cannot start: {child.last_words}")
            failures = 1 if clock.time() - started >= QUICK_SECONDS else failures + 1
            if failures == MOST_FAILURES:
                raise ConfigurationError(
                    PROGRAM, f"ended {failures} times, each within {QUICK_SECONDS:g} s: {child.last_words}"
                )
            pause = _FIRST_PAUSE_SECONDS * 2 ** (failures - 1)
            log.error("netopeer2 ended by itself, starting it again code=%s pause_seconds=%.1f", child.code, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        return 0

    def _prepare(self) -> Path:
        """Everything that must be so before it starts. Blocking."""
        program = netopeer2.program()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        netopeer2.end_left(self._pid_file, self._front.repository)
        netopeer2.install(program, self._front)
        return program

    def _command(self, program: Path) -> list[str]:
        """In the foreground, its log on standard error; it waits for callbacks of the agent as long as we say."""
        places = ["-p", str(self._pid_file), "-f", str(self._folder)]
        return [str(program), "-d", self._level, *places, "-t", str(self._front.timeout_seconds)]

    async def _serve(self, child: "Child", stop: asyncio.Event, ready: Callable[[], None]) -> bool:
        """Until it ends or is to stop; False when it never served. It writes its pid once it is set up."""
        stopping = asyncio.create_task(stop.wait())
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        try:
            while not _holds(self._pid_file, child.pid):
                done, _ = await asyncio.wait([stopping, child.ended], timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    return False
                if asyncio.get_running_loop().time() > deadline:
                    child.words.append(f"it did not serve within {START_SECONDS:g} s")
                    return False
            log.info("netopeer2 serves pid=%d", child.pid)
            ready()
            await asyncio.wait([stopping, child.ended], return_when=asyncio.FIRST_COMPLETED)
            return True
        finally:
            stopping.cancel()


class Child:
    """A process whose log is passed on, and that does not outlive this one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self.pid = process, process.pid
        self.words: deque[str] = deque(maxlen=5)  # what it complained of last
        self.ended = asyncio.create_task(self._wait())

    @classmethod
    async def start(cls, command: list[str], names: dict[str, str]) -> "Child":
        parent = os.getpid()

        def follow() -> None:  # in the child, before it is the program: it gets SIGTERM when this process goes
            if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) or os.getppid() != parent:
                os._exit(1)

        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        given = {**os.environ, **names}
        process = await asyncio.create_subprocess_exec(
            *command, env=given, stdin=null, stdout=null, stderr=pipe, preexec_fn=follow, limit=1 << 20
        )
        return cls(process)

    @property
    def code(self) -> int | None:
        """Its exit code, or the signal that ended it as a negative number; None while it runs."""
        return self._process.returncode

    @property
    def last_words(self) -> str:
        return "; ".join(self.words) or f"it ended with code {self.code} and without a word"

    async def end(self) -> None:
        """Asks it to end, and kills it when it takes too long."""
        if not self.ended.done():
            self._process.terminate()
            await asyncio.wait([self.ended], timeout=STOP_SECONDS)
        if not self.ended.done():
            log.warning("netopeer2 did not stop in time, killed pid=%d", self.pid)
            self._process.kill()
        await self.ended

    async def _wait(self) -> None:
        """Passes its log on until it has ended. What it has started may keep the pipe open; that is not waited for."""
        passing = asyncio.create_task(self._pass_on())
        await self._process.wait()
        await asyncio.wait([passing], timeout=1)
        passing.cancel()

    async def _pass_on(self) -> None:
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # longer than the limit; the reader has dropped it
                continue
            if not line:
                return
            text = line.decode(errors="replace").strip()
            level = _LEVELS.get(text[:5], logging.DEBUG)
            if level >= logging.WARNING or text[:1] != "[":
                self.words.append(text)
            log.log(level if text[:1] == "[" else logging.WARNING, "netopeer2: %s", text)


def _holds(pid_file: Path, pid: int) -> bool:
    try:
        return pid_file.read_text().strip() == str(pid)
    except OSError:
        return False
