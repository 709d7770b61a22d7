"""SIGKILL of the front end at any moment: no lock, no stale subscription and no half edit is left, and it serves again soon.

`make soak` kills more often; the moments are drawn from a seed.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
import uuid

import asyncssh
import pytest
from netconf_front import NODE, QKD, Client, Front

SEED = 20261125
SERVES_SECONDS = 2.0
PAIR = tuple(str(uuid.UUID(int=0xD00 + i)) for i in range(2))
TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
SUBSCRIBE = '<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"/>'
OUT = f'<sdqkdn_interface_out xmlns="{QKD}"><qkd_interface><qkdi_id>7</qkdi_id></qkd_interface></sdqkdn_interface_out>'
READ = f'<get-config><source><running/></source><filter><qkd_node xmlns="{QKD}"/></filter></get-config>'


def edit(target: str, number: int) -> str:
    """Both links get the same number, or none does."""
    links = "".join(
        f"<qkd_link><qkdl_id>{one}</qkdl_id><qkdl_type>t:VIRT</qkdl_type><virt_bandwidth>{number}</virt_bandwidth></qkd_link>"
        for one in PAIR
    )
    node = f'<qkd_node xmlns="{QKD}" xmlns:t="{TYPES}"><qkdn_id>{NODE}</qkdn_id><qkd_links>{links}</qkd_links></qkd_node>'
    return f"<edit-config><target><{target}/></target><config>{node}</config></edit-config>"


async def bandwidths(client: Client) -> list[str | None]:
    content = await client.ok(READ)
    links = {one.findtext(f"{{{QKD}}}qkdl_id"): one for one in content[0].iter(f"{{{QKD}}}qkd_link")}
    return [links[one].findtext(f"{{{QKD}}}virt_bandwidth") if one in links else None for one in PAIR]


async def work(front: Front) -> None:
    """Everything that could leave something behind, until the server is gone."""
    with contextlib.suppress(EOFError, asyncssh.Error, OSError, TimeoutError):
        async with front.connect() as listener, front.connect() as client:
            await listener.ok(SUBSCRIBE)
            number = 1000
            while True:
                for target in "running", "candidate":
                    await client.ok(f"<lock><target><{target}/></target></lock>")
                await client.ok(edit("running", number))
                await client.ok(edit("candidate", number + 1))
                await client.ok("<commit><confirmed/><confirm-timeout>60</confirm-timeout></commit>")
                await client.ok("<commit/>")
                for target in "running", "candidate":
                    await client.ok(f"<unlock><target><{target}/></target></unlock>")
                number += 2


async def kill_once(front: Front, moment: float) -> None:
    working = asyncio.create_task(work(front))
    await asyncio.sleep(moment)
    assert front.process is not None
    os.kill(front.process.pid, signal.SIGKILL)
    front.process.wait()
    begun = time.monotonic()
    front.start()
    async with front.connect() as client:
        first, second = await bandwidths(client)
        assert time.monotonic() - begun < SERVES_SECONDS
        assert first == second, "half an edit"
        for target in "running", "candidate", "startup":
            await client.ok(f"<lock><target><{target}/></target></lock>")
        await client.ok(edit("running", 1))
        # A subscription that nobody serves would hold the sender up.
        await client.ok(SUBSCRIBE)
        begun = time.monotonic()
        await asyncio.to_thread(front.side, "notify", OUT)
        assert time.monotonic() - begun < 1
    await asyncio.wait([working], timeout=15)
    assert working.done() and working.exception() is None


async def campaign(front: Front, kills: int) -> None:
    moments = random.Random(SEED)
    for _ in range(kills):
        await kill_once(front, moments.uniform(0.02, 0.4))


async def test_ten_kills(front: Front) -> None:
    await campaign(front, 10)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_three_hundred_kills(front: Front) -> None:
    await campaign(front, 300)
