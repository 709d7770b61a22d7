import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from qswitch.agent.devices.channel import MAX_BLOCK, Agreement, Channel, ChannelLost, Hello, Kind, agree, connect
from qswitch.agent.model import LinkId, NodeId, Role

A = Hello("a", LinkId("l"), Role.TRANSMITTER, NodeId("n1"), NodeId("n2"), "1550.12", 5)
B = Hello("b", LinkId("l"), Role.RECEIVER, NodeId("n2"), NodeId("n1"), "1550.12", 9)


@pytest.mark.parametrize(
    ("role_a", "role_b", "a_transmits"),
    [
        (Role.TRANSMITTER, Role.RECEIVER, True),
        (Role.RECEIVER, Role.TRANSMITTER, False),
        (Role.TRANSCEIVER, Role.TRANSCEIVER, True),
        (Role.TRANSCEIVER, Role.TRANSMITTER, False),
        (Role.TRANSMITTER, Role.TRANSCEIVER, True),
        (Role.TRANSCEIVER, Role.RECEIVER, True),
        (Role.RECEIVER, Role.TRANSCEIVER, False),
    ],
)
def test_roles(role_a: Role, role_b: Role, a_transmits: bool) -> None:
    one, other = replace(A, role=role_a), replace(B, role=role_b)
    assert agree(one, other) == Agreement(a_transmits, 9)
    assert agree(other, one) == Agreement(not a_transmits, 9)


@pytest.mark.parametrize(
    ("remote", "problem"),
    [
        (replace(B, link=LinkId("m")), "link: this end has l, the far end m"),
        (replace(B, local_node=NodeId("n3")), "node at the far end: this end has n2, the far end n3"),
        (replace(B, remote_node=NodeId("n3")), "node at this end"),
        (replace(B, wavelength="1551.72"), "wavelength: this end has 1550.12"),
        (replace(B, role=Role.TRANSMITTER), "role: both ends are TRANSMITTER"),
        (replace(B, version=2), "device version"),
    ],
)
def test_disagreements_are_said_in_words(remote: Hello, problem: str) -> None:
    with pytest.raises(ChannelLost, match=problem):
        agree(A, remote)


def test_an_unspecified_wavelength_fits_any() -> None:
    assert agree(A, replace(B, wavelength=None)).transmits


def test_hello_survives_the_wire() -> None:
    assert Hello.parse(A.build()) == A


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"role": "BOTH", "next_block": 1}'])
def test_other_hellos_are_refused(data: bytes) -> None:
    with pytest.raises(ChannelLost, match="no simulated device"):
        Hello.parse(data)


async def meet(fibre: Path) -> tuple[Channel, Channel]:
    listening = asyncio.ensure_future(connect(fibre, "a"))
    await asyncio.sleep(0)
    return await connect(fibre, "b"), await listening


async def test_frames_come_as_they_were_sent(tmp_path: Path) -> None:
    one, other = await meet(tmp_path / "fibre.json")
    with one, other:
        assert list(tmp_path.iterdir()) == []  # nobody else can come in
        large = bytes(range(256)) * 4096
        sending = asyncio.ensure_future(one.send(Kind.BLOCK, 1 << 40, large))
        assert await other.receive(Kind.BLOCK, MAX_BLOCK) == (1 << 40, large)
        await sending


async def test_long_paths_fit(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    one, other = await meet(folder / ("y" * 200 + ".json"))
    with one, other:
        await one.send(Kind.TAKEN, 1)
        assert await other.receive(Kind.TAKEN) == (1, b"")


async def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "fibre.sock"))
    left.close()
    one, other = await meet(tmp_path / "fibre.json")
    with one, other:
        pass


async def test_an_end_is_taken_only_once(tmp_path: Path) -> None:
    listening = asyncio.ensure_future(connect(tmp_path / "fibre.json", "a"))
    await asyncio.sleep(0)
    with pytest.raises(ChannelLost, match="another process is end a"):
        await connect(tmp_path / "fibre.json", "a")
    (await listening).__exit__()


async def test_a_stranger_is_shown_out(tmp_path: Path) -> None:
    one, other = await meet(tmp_path / "fibre.json")
    with one, other:
        await one.send(Kind.HELLO, 0, b"x" * 5000)
        with pytest.raises(ChannelLost, match="unexpected frame"):
            await other.greet(A)


async def test_a_lost_far_end_is_noticed(tmp_path: Path) -> None:
    one, other = await meet(tmp_path / "fibre.json")
    with other:
        one.__exit__()
        with pytest.raises(ChannelLost, match="does not answer"):
            await other.receive(Kind.BLOCK)
