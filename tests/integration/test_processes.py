"""A process is signalled only while it is the one that was started."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qswitch.integration import processes
from qswitch.integration.processes import Process, StartFailed

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write("ready")
time.sleep(60)
"""


async def test_a_recycled_pid_is_left_alone() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        impostor = Process(stranger.pid, started=1)
        assert not impostor.alive()
        impostor.signal(signal.SIGKILL)
        assert await processes.stop([impostor]) == []
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


async def test_one_that_ignores_sigterm_is_killed_and_named(tmp_path: Path) -> None:
    process = processes.start([sys.executable, "-c", STUBBORN, str(tmp_path / "ready")], tmp_path / "log", {})
    await processes.ready(process, tmp_path / "ready", tmp_path / "log", "stubborn")
    assert await processes.stop([process], seconds=0.1) == [process]
    assert not process.alive()


async def test_one_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    process = processes.start([sys.executable, "-c", "raise SystemExit('no fibre')"], tmp_path / "log", {})
    with pytest.raises(StartFailed, match="no fibre"):
        await processes.ready(process, tmp_path / "ready", tmp_path / "log", "early")
