"""A session that misbehaves ends alone: another beside it goes on getting answers, and the server keeps nothing of it."""

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from misdeeds import FRAMES, HELLOS, MESSAGES, PARAMETERS, damaged
from netconf_front import Client, Front
from strange_operations import strange

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE_1_0

pytestmark = pytest.mark.engine("builtin", reason="netopeer2 answers some of it otherwise")

SEEDS = [file.read_bytes() for file in sorted((Path(__file__).parents[2] / "fuzz/corpus/message").iterdir())]
ACM = "urn:ietf:params:xml:ns:yang:ietf-netconf-acm"
READ = f'<get-config><source><running/></source><filter><nacm xmlns="{ACM}"><groups/></nacm></filter></get-config>'
STATE = '<netconf-state xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"><sessions/></netconf-state>'
SECONDS = 5.0  # for an answer, whatever others do


async def witness(client: Client) -> None:
    """A well-behaved session gets its answer."""
    async with asyncio.timeout(SECONDS):
        (data,) = await client.ok(READ)
    assert data.findtext(f".//{{{ACM}}}group/{{{ACM}}}name") == "controller"


async def until_end(client: Client) -> list[bytes]:
    """What the server still says before it ends the session."""
    said = []
    with contextlib.suppress(EOFError, OSError):
        while True:
            said.append(await client.receive())
    return said


@pytest.mark.parametrize("misdeed", HELLOS)
async def test_a_bad_hello_ends_the_session(front: Front, misdeed: str) -> None:
    async with front.connect() as good, front.connect(greet=False) as bad:
        await bad.receive()
        bad.stdin.write(HELLOS[misdeed] + b"]]>]]>")
        assert await until_end(bad) == []
        await witness(good)


@pytest.mark.parametrize("misdeed", FRAMES)
async def test_a_bad_frame_is_named_and_ends_the_session(front: Front, misdeed: str) -> None:
    async with front.connect() as good, front.connect() as bad:
        bad.stdin.write(FRAMES[misdeed])
        (said,) = await until_end(bad)
        assert [error.tag for error in netconf.parse_reply(said).errors] == ["malformed-message"]
        await witness(good)


@pytest.mark.parametrize("misdeed", MESSAGES)
async def test_a_bad_message_is_answered(front: Front, misdeed: str) -> None:
    message, tag = MESSAGES[misdeed]
    async with front.connect() as good, front.connect() as bad:
        bad.send(message)
        answering = asyncio.create_task(bad.reply())
        await witness(good)
        assert [error.tag for error in (await answering).errors] == ([tag] if tag else [])
        await witness(bad)


@pytest.mark.parametrize("misdeed", PARAMETERS)
async def test_wrong_parameters_are_refused(front: Front, misdeed: str) -> None:
    operation, tag = PARAMETERS[misdeed]
    async with front.connect() as bad:
        assert (await bad.refused(operation)).tag == tag
        await witness(bad)


async def test_a_client_of_base_1_0_that_sends_no_xml_loses_its_session(front: Front) -> None:
    async with front.connect() as good, front.connect("controller", BASE_1_0) as bad:
        bad.send(b"no XML")
        assert await until_end(bad) == []
        await witness(good)


async def test_thousands_of_operations_at_once_are_answered_in_order(front: Front) -> None:
    number = 3000
    async with front.connect() as good, front.connect() as bad:
        for i in range(number):
            bad.send(netconf.build_rpc(f"m{i}", b"<make-coffee/>"))
        await witness(good)
        assert [(await bad.reply()).message_id for _ in range(number)] == [f"m{i}" for i in range(number)]


@pytest.mark.parametrize("sent", [b"", b"\n#100\n<rpc", b"\n#4\n<a/>"])
async def test_the_end_of_input_ends_the_session(front: Front, sent: bytes) -> None:
    async with front.connect() as good, front.connect() as bad:
        bad.stdin.write(sent)
        bad.stdin.write_eof()
        await until_end(bad)
        await witness(good)


async def test_what_is_no_ssh_disturbs_nobody(front: Front) -> None:
    dice = random.Random(6242)
    async with front.connect() as good:
        for size in (0, 1, 100, 100_000):
            with socket.create_connection(("127.0.0.1", front.port)) as raw, contextlib.suppress(OSError):
                raw.sendall(dice.randbytes(size))
            await witness(good)


class Kept:
    """What the serving process holds."""

    def __init__(self, front: Front) -> None:
        assert front.process is not None
        process = Path(f"/proc/{front.process.pid}")
        self.descriptors = sum(1 for _ in (process / "fd").iterdir())
        self.mebibytes = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    assert true()


async def misbehave(front: Front, dice: random.Random) -> None:
    """Damaged bytes, then the end of input, or of the connection; the server is to end the session by itself."""
    pieces = damaged(dice, SEEDS)
    async with front.connect(greet=False) as bad:
        for piece in pieces:
            bad.stdin.write(piece)
            await asyncio.sleep(0)  # lets it go as a packet of its own
        if dice.random() < 0.2:
            bad.connection.abort()
            return
        bad.stdin.write_eof()
        async with asyncio.timeout(10):
            while await bad.stdout.read(65536):
                pass


@pytest.mark.parametrize("sessions", [200, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
async def test_damaged_sessions_leave_nothing_behind(front: Front, sessions: int) -> None:
    dice = random.Random(6241)
    kept: list[Kept] = []
    async with front.connect() as good:
        for _ in range(sessions // 4):
            await asyncio.gather(*(misbehave(front, dice) for _ in range(4)))
            await witness(good)
            kept.append(Kept(front))
        first, settled = kept[0], kept[len(kept) // 2]
        await eventually(lambda: Kept(front).descriptors <= first.descriptors)
        assert Kept(front).mebibytes < settled.mebibytes + 5
        (data,) = await good.ok(f"<get><filter>{STATE}</filter></get>")
        assert len(data.findall(".//{*}session/{*}session-id")) == 1


# What the user of strange operations may do: on the QKD model, everything.
STRANGER = f"""
<nacm xmlns="{ACM}"><rule-list><name>stranger</name><group>monitor</group>
  <rule><name>qkd</name><module-name>etsi-qkd-sdn-node</module-name><access-operations>*</access-operations>
    <action>permit</action></rule>
</rule-list></nacm>"""


async def answer(client: Client, operation: bytes) -> netconf.RpcReply:
    client.ids += 1
    client.send(netconf.build_rpc(str(client.ids), operation))
    while netconf.split_name(netconf.parse_xml(message := await client.receive()))[1] == "notification":
        pass
    return netconf.parse_reply(message)


@pytest.mark.parametrize("sessions", [30, pytest.param(3000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
async def test_strange_operations_are_answered_and_surprise_nobody(front: Front, sessions: int) -> None:
    front.side("apply", STRANGER)
    dice = random.Random(8341)
    kept: list[Kept] = []
    async with front.connect() as good:
        for _ in range(sessions):
            async with front.connect("monitor") as bad:
                for _ in range(20):
                    operation = strange(dice)
                    reply = await answer(bad, operation)
                    assert not any("internal error" in error.message for error in reply.errors), operation
                await witness(good)
            kept.append(Kept(front))
    assert kept[-1].mebibytes < kept[len(kept) // 3].mebibytes + 8
