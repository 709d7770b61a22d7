"""Starts daemons that outlive the starter, and later ends exactly those.

A process is known by its id and the time it was started, so that a recycled id is never signalled.
"""

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


class StartFailed(Exception):
    """A daemon ended, or was not ready in time; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    started: int  # kernel clock ticks after boot, field 22 of /proc/PID/stat

    def alive(self) -> bool:
        return _start_time(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Sends a signal if it is still the process that was started."""
        if self.alive():
            os.kill(self.pid, number)


def _start_time(pid: int) -> int | None:
    """None when there is no such process, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def start(command: list[str], log: Path, environment: dict[str, str]) -> Process:
    """Starts a daemon in a session and a folder of its own (that of its log), its output appended to `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=log.parent,
            env=os.environ | environment,
        )
    return Process(child.pid, _start_time(child.pid) or 0)


async def ready(process: Process, ready_file: Path, log: Path, name: str, seconds: float = 60) -> None:
    """Waits until the daemon has written its ready file. Raises StartFailed when it ends before, or takes too long."""
    deadline = time.monotonic() + seconds
    while not _says_ready(ready_file):
        _reap(process.pid)
        if not process.alive():
            raise StartFailed(f"{name} ended while it started; the end of {log}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise StartFailed(f"{name} was not ready within {seconds:g} s; the end of {log}:\n{tail(log)}")
        await asyncio.sleep(0.05)


def _says_ready(path: Path) -> bool:
    return path.exists() and path.read_text().startswith("ready")


async def stop(processes: list[Process], seconds: float = 10) -> list[Process]:
    """Asks all to end, waits, kills what is left; returns the ones that had to be killed."""
    for process in processes:
        process.signal(signal.SIGTERM)
    if await _gone(processes, seconds):
        return []
    left = [process for process in processes if process.alive()]
    for process in left:
        process.signal(signal.SIGKILL)
    await _gone(left, 5)
    return left


async def kill(process: Process) -> None:
    """SIGKILL, and waits until the process is gone."""
    process.signal(signal.SIGKILL)
    await _gone([process], 5)


async def _gone(processes: list[Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        for process in processes:
            _reap(process.pid)
        if not any(process.alive() for process in processes):
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)


def _reap(pid: int) -> None:
    """Takes the exit status of a child of this process; another's children are not ours to reap."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def tail(log: Path, lines: int = 20) -> str:
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
