"""Two hundred sessions at once: each edits an entry of its own and reads it, while notifications flow and others read all.

The short run is part of every test run; `make soak` runs the same for minutes.
"""

import asyncio
import contextlib
import statistics
import uuid
from collections.abc import AsyncIterator

import asyncssh
import pytest
from netconf_front import NODE, QKD, Client, Front

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE

CROWD = 200
LISTENERS = 5
TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
SERVER = "urn:ietf:params:xml:ns:yang:ietf-netconf-server"
LIMIT = (
    f'<netconf-server xmlns="{SERVER}" xmlns:nc="{BASE}"><session-limits xmlns="urn:quantum-switch:yang:qkd-netconf-server" '
    'nc:operation="{}"><sessions>{}</sessions></session-limits></netconf-server>'
)
SUBSCRIBE = (
    '<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"><filter>'
    f'<sdqkdn_interface_out xmlns="{QKD}"/></filter></create-subscription>'
)
OUT = f'<sdqkdn_interface_out xmlns="{QKD}"><qkd_interface><qkdi_id>{{}}</qkdi_id></qkd_interface></sdqkdn_interface_out>'


def entry(number: int, inside: str, operation: str = "merge") -> str:
    link = f'<qkd_link nc:operation="{operation}"><qkdl_id>{uuid.UUID(int=0x9000 + number)}</qkdl_id>{inside}</qkd_link>'
    node = f'<qkd_node xmlns="{QKD}" xmlns:nc="{BASE}" xmlns:t="{TYPES}"><qkdn_id>{NODE}</qkdn_id>'
    return f"{node}<qkd_links>{link}</qkd_links></qkd_node>"


def reading(number: int) -> str:
    link = f"<qkd_link><qkdl_id>{uuid.UUID(int=0x9000 + number)}</qkdl_id></qkd_link>"
    node = f'<qkd_node xmlns="{QKD}"><qkd_links>{link}</qkd_links></qkd_node>'
    return f"<get-config><source><running/></source><filter>{node}</filter></get-config>"


class Crowd:
    """What is done at once, until told to stop. Seconds of every call are kept."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.stop = asyncio.Event()
        self.rounds = [0] * CROWD
        self.seconds: list[float] = []
        self.sent = 0
        self.total: int | None = None  # events, once it is known
        self.heard = [0] * LISTENERS
        self.gets = 0

    async def edit(self, client: Client, number: int) -> None:
        """Every reply is awaited and must be what was just written."""
        clock = asyncio.get_running_loop().time
        while not self.stop.is_set():
            enabled = "true" if self.rounds[number] % 2 else "false"
            begun = clock()
            reply = await client.edit(entry(number, f"<qkdl_type>t:VIRT</qkdl_type><qkdl_enable>{enabled}</qkdl_enable>"))
            assert not reply.errors, reply.errors
            found = await client.ok(reading(number))
            self.seconds.append(clock() - begun)
            assert found[0].findtext(f".//{{{QKD}}}qkdl_enable") == enabled
            self.rounds[number] += 1

    async def read_all(self, client: Client) -> None:
        while not self.stop.is_set():
            assert (await client.ok("<get/>"))[0].find(f"{{{QKD}}}qkd_node") is not None
            self.gets += 1

    async def notify(self) -> None:
        while not self.stop.is_set():
            await asyncio.to_thread(self.front.side, "notify", OUT.format(self.sent))
            self.sent += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), 0.02)
        self.total = self.sent + 1
        await asyncio.to_thread(self.front.side, "notify", OUT.format(self.sent))

    async def listen(self, client: Client, number: int) -> None:
        """Hears everything, in order, without a gap."""
        while self.heard[number] != self.total:
            _, event = netconf.parse_notification(await client.receive())
            assert event.findtext(f".//{{{QKD}}}qkdi_id") == str(self.heard[number])
            self.heard[number] += 1


@contextlib.asynccontextmanager
async def crowd_of(front: Front, number: int) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        clients: list[Client] = []
        for first in range(0, number, 20):
            some = range(first, min(first + 20, number))
            clients += await asyncio.gather(*(stack.enter_async_context(front.connect()) for _ in some))
        yield clients


async def live(front: Front, seconds: float) -> None:
    crowd = Crowd(front)
    front.side("follow")  # as an agent does: what is configured is then in effect, and part of what `get` reads
    async with crowd_of(front, CROWD + LISTENERS + 2) as clients:
        editing, listening, (reader, stuck) = clients[:CROWD], clients[CROWD : CROWD + LISTENERS], clients[-2:]
        for client in (*listening, stuck):
            await client.ok(SUBSCRIBE)
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(editing):
                group.create_task(crowd.edit(client, number))
            for number, client in enumerate(listening):
                group.create_task(crowd.listen(client, number))
            group.create_task(crowd.notify())
            group.create_task(crowd.read_all(reader))
            for _ in range(200):  # asks for much, and reads none of it
                stuck.send(netconf.build_rpc("1", b"<get/>"))
            await asyncio.sleep(seconds / 3)
            before = front.resident()
            await asyncio.sleep(seconds * 2 / 3)
            after = front.resident()
            crowd.stop.set()
        await editing[0].ok("<validate><source><running/></source></validate>")
    assert min(crowd.rounds) > 0, crowd.rounds
    assert crowd.heard == [crowd.total] * LISTENERS
    assert crowd.gets > 0
    # Nobody waits for the one that reads nothing: even the longest call is near what the writers' queue makes of it.
    assert max(crowd.seconds) < 10 * statistics.median(crowd.seconds) + 1
    assert after - before < 48 << 20, f"{(after - before) >> 20} MiB more after {sum(crowd.rounds)} edits"


async def test_two_hundred_sessions_edit_read_and_listen(front: Front) -> None:
    await live(front, 9)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_two_hundred_sessions_for_minutes(front: Front) -> None:
    await live(front, 240)


async def test_as_many_subscriptions_lose_nothing(front: Front) -> None:
    async with crowd_of(front, CROWD) as clients:
        for client in clients:
            await client.ok(SUBSCRIBE)
        for number in range(20):
            await asyncio.to_thread(front.side, "notify", OUT.format(number))
        for client in clients:
            for number in range(20):
                _, event = netconf.parse_notification(await client.receive())
                assert event.findtext(f".//{{{QKD}}}qkdi_id") == str(number)


async def test_one_session_more_than_the_limit_is_refused_politely(front: Front) -> None:
    async with front.connect() as client:
        await client.ok(
            f"<edit-config><target><running/></target><config>{LIMIT.format('merge', 21)}</config></edit-config>"
        )
        async with crowd_of(front, 20) as clients:
            for _ in range(3):
                with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
                    async with front.connect():
                        pass
            for one in (client, *clients):
                await one.ok(reading(0))
            await clients[0].ok("<close-session/>")
            async with asyncio.timeout(5):
                while True:
                    with contextlib.suppress(asyncssh.ChannelOpenError):
                        async with front.connect():
                            break
        await client.ok(
            f"<edit-config><target><running/></target><config>{LIMIT.format('remove', 21)}</config></edit-config>"
        )
