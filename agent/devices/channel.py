"""The wire between two simulated devices: a UNIX socket beside the fibre's file, standing for light and post-processing.

Sockets are used bare, not as streams, so that key is received into memory that can be wiped. Frames are a kind, a block
number, a length and that many octets.
"""

import asyncio
import hashlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, Self

from ..lkms.keys import Key
from ..model import LinkId, NodeId, Role

End = Literal["a", "b"]
VERSION = 1
HEADER = struct.Struct("!BQI")
MAX_HELLO = 4096
MAX_BLOCK = 1 << 20
NO_ANSWER = "the far end does not answer"


class ChannelLost(Exception):
    """The two ends are not, or no longer, connected; the text says why."""


class Kind(IntEnum):
    HELLO = 1
    BLOCK = 2
    TAKEN = 3  # the receiver's key store took the block


@dataclass(frozen=True, slots=True)
class Hello:
    """What each end tells the other before the first block."""

    end: End
    link: LinkId
    role: Role
    local_node: NodeId
    remote_node: NodeId
    wavelength: str | None
    next_block: int  # above every number that this end ever sent or took
    version: int = VERSION

    def build(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, data: bytes | bytearray) -> Self:
        """Raises ChannelLost when the other end speaks another language."""
        try:
            members: dict[str, Any] = json.loads(data)
            return cls(**{**members, "role": Role(members["role"]), "next_block": int(members["next_block"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ChannelLost("the far end is no simulated device of this version") from error


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two hellos settle: who transmits, and the first number."""

    transmits: bool
    first_block: int


def agree(local: Hello, remote: Hello) -> Agreement:
    """What this end does once both said hello. Raises ChannelLost naming the first thing they differ in."""
    for what, mine, theirs in (
        ("device version", local.version, remote.version),
        ("link", local.link, remote.link),
        ("node at the far end", local.remote_node, remote.local_node),
        ("node at this end", local.local_node, remote.remote_node),
    ):
        if mine != theirs:
            raise ChannelLost(f"{what}: this end has {mine}, the far end {theirs}")
    if local.wavelength and remote.wavelength and local.wavelength != remote.wavelength:
        raise ChannelLost(f"wavelength: this end has {local.wavelength}, the far end {remote.wavelength}")
    return Agreement(transmits(local, remote), max(local.next_block, remote.next_block))


def transmits(local: Hello, remote: Hello) -> bool:
    """Whether this end is the transmitter; of two transceivers, end a is. Raises ChannelLost when both want the same."""
    match local.role, remote.role:
        case (Role.TRANSCEIVER, Role.TRANSCEIVER):
            return local.end == "a"
        case (Role.TRANSCEIVER, other):
            return other is Role.RECEIVER
        case (mine, other) if mine is other:
            raise ChannelLost(f"role: both ends are {mine}")
    return local.role is Role.TRANSMITTER


class Channel:
    """Frames over one connected socket. One reader and one writer may be at work at the same time."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def send(self, kind: Kind, number: int, payload: bytes | memoryview = b"") -> None:
        """Raises ChannelLost when the far end is gone."""
        try:
            await self._loop.sock_sendall(self._socket, HEADER.pack(kind, number, len(payload)))
            if payload:
                await self._loop.sock_sendall(self._socket, payload)
        except OSError as error:
            raise ChannelLost(NO_ANSWER) from error

    async def receive(self, wanted: Kind, limit: int = 0) -> tuple[int, bytearray]:
        """The next frame's number and payload. Raises ChannelLost when the end is reached, or the frame is another."""
        kind, number, length = HEADER.unpack(await self._exactly(HEADER.size))
        if kind != wanted or length > limit:
            raise ChannelLost(f"the far end sent an unexpected frame of kind {kind} and {length} octets")
        return number, await self._exactly(length)

    async def greet(self, local: Hello) -> Hello:
        """Exchanges hellos. Raises ChannelLost."""
        await self.send(Kind.HELLO, 0, local.build())
        return Hello.parse((await self.receive(Kind.HELLO, MAX_HELLO))[1])

    async def _exactly(self, length: int) -> bytearray:
        data, got = bytearray(length), 0
        complete = False
        try:
            with memoryview(data) as view:
                while got < length:
                    count = await self._loop.sock_recv_into(self._socket, view[got:])
                    if count == 0:
                        raise ChannelLost(NO_ANSWER)
                    got += count
            complete = True
        except OSError as error:
            raise ChannelLost(NO_ANSWER) from error
        finally:
            if not complete:
                Key(data).wipe()
        return data


async def connect(fibre: Path, end: End) -> Channel:
    """Meets the other end: a listens until b comes, b dials once. Raises ChannelLost."""
    with _address(fibre) as address:
        return await (_listen(address) if end == "a" else _dial(address))


@contextmanager
def _address(fibre: Path) -> Iterator[str]:
    """The socket beside the file, by way of the folder's descriptor: a socket's path may be no longer than 107 octets."""
    name = f"{fibre.name.removesuffix('.json')}.sock"
    if len(name.encode()) > 64:
        name = f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.sock"
    folder = os.open(fibre.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


async def _listen(address: str) -> Channel:
    """Accepts one caller, then listens no more: whoever dials a fibre that is in use finds nobody."""
    loop = asyncio.get_running_loop()
    with _unix_socket() as listener:
        _bind(listener, address)
        try:
            listener.listen(1)
            connected, _ = await loop.sock_accept(listener)
        finally:
            _remove(address)
    return Channel(connected)


def _bind(listener: socket.socket, address: str) -> None:
    os.fchmod(listener.fileno(), 0o600)  # the file takes the mode of the socket: for this user only from the start
    try:
        listener.bind(address)
    except OSError as error:
        if not Path(address).is_socket():
            raise ChannelLost(f"cannot listen beside the fibre's file: {error.strerror}") from error
        _remove_stale(address)
        listener.bind(address)


def _remove(address: str) -> None:
    with suppress(OSError):
        Path(address).unlink()


def _remove_stale(address: str) -> None:
    """A killed process leaves its socket behind. Raises ChannelLost when somebody listens on it."""
    with _unix_socket() as probe:
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            _remove(address)
        except OSError as error:
            raise ChannelLost(f"cannot listen beside the fibre's file: {error.strerror}") from error
        else:
            raise ChannelLost("another process is end a of this fibre")


async def _dial(address: str) -> Channel:
    dialler = _unix_socket()
    try:
        await asyncio.get_running_loop().sock_connect(dialler, address)
    except OSError as error:
        dialler.close()
        raise ChannelLost(NO_ANSWER) from error
    except BaseException:
        dialler.close()
        raise
    return Channel(dialler)


def _unix_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    return made
