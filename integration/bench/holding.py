"""What sessions cost a server that hold still: memory for each, and processor time of all.

Beside the NETCONF servers stands a bare one: asyncssh with a subsystem that reads and says nothing, so that what NETCONF
and the datastore add to SSH shows.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncssh

from qswitch.controller.config import Timeouts
from qswitch.controller.southbound.dialing import connect

from .bed import Bed
from .ways import session

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
# Serves until its standard input ends; says its port first.
_BARE = """
import asyncio, sys, asyncssh, uvloop
async def still(stdin, stdout, stderr):
    await stdin.read()
async def main():
    listener = await asyncssh.listen("127.0.0.1", 0, server_host_keys=[sys.argv[1]], authorized_client_keys=sys.argv[2],
        session_factory=still, encoding=None, line_editor=False, allow_pty=False, gss_host=None)
    print(listener.get_port(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
uvloop.run(main())
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Of one server with sessions that hold still."""

    kilobytes_per_session: float
    processor_percent: float  # of one core, all sessions together


async def on_netconf(bed: Bed, pid: int, sessions: int, seconds: float) -> Held:
    """Sessions of our client."""

    async def one(stack: AsyncExitStack) -> None:
        await session(await stack.enter_async_context(await connect(bed.node(), Timeouts())))

    return await _held(pid, sessions, seconds, one)


async def on_bare_ssh(sessions: int, seconds: float) -> Held:
    """The same number of channels with nothing behind them."""
    async with _bare() as (pid, port, key):

        async def one(stack: AsyncExitStack) -> None:
            wire: Any = asyncssh.connect(
                "127.0.0.1", port, username="bench", client_keys=[key], known_hosts=None, config=None
            )
            await (await stack.enter_async_context(wire)).open_session(subsystem="still", encoding=None)

        return await _held(pid, sessions, seconds, one)


@asynccontextmanager
async def _bare() -> AsyncIterator[tuple[int, int, asyncssh.SSHKey]]:
    host, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    with TemporaryDirectory(prefix="qkd-bench-") as folder:
        host.write_private_key(f"{folder}/host")
        user.write_public_key(f"{folder}/user")
        command = (sys.executable, "-c", _BARE, f"{folder}/host", f"{folder}/user")
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.pid, int(await process.stdout.readline()), user
        finally:
            process.stdin.close()
            await process.wait()


async def _held(pid: int, sessions: int, seconds: float, one: Any) -> Held:
    async with AsyncExitStack() as first:
        await one(first)  # whatever the first session alone brings is not its share
    before = _memory(pid)
    async with AsyncExitStack() as stack:
        for _ in range(sessions):
            await one(stack)
        await asyncio.sleep(0.5)
        held, begun = _memory(pid), _processor(pid)
        await asyncio.sleep(seconds)
        busy = _processor(pid) - begun
    return Held((held - before) / 1024 / sessions, 100 * busy / seconds)


def _family(pid: int) -> list[int]:
    """The process and its children: an engine may be one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def _memory(pid: int) -> int:
    """Resident octets."""
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in _family(pid)) * _PAGE


def _processor(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = (Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in _family(pid))
    return sum(int(one[11]) + int(one[12]) for one in fields) / _TICKS
