"""The plain TLS sockets that relay is compared with: `python -m qswitch.integration.bench.plain HOME PORT [NEXT_PORT]`.

One process for each hop. Frames of a fixed size go on as they come, over mutual TLS, with nothing done to them; the last
process answers each with when it was sent and when it came, by the machine's monotonic clock; that goes all the way back.
"""

import asyncio
import ssl
import struct
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

FRAME_OCTETS = 4 * 4096 + 512
"""Like a relay message: four blocks, the tag, and a header that names the blocks and the pads."""
PAYLOAD_OCTETS = 4 * 4096
UNDER_WAY = 16  # frames, as many as relay has at most
SENT, ECHO = struct.Struct("!d"), struct.Struct("!dd")


def server_context(home: Path) -> ssl.SSLContext:
    return _context(ssl.PROTOCOL_TLS_SERVER, home)


def client_context(home: Path) -> ssl.SSLContext:
    return _context(ssl.PROTOCOL_TLS_CLIENT, home)


def _context(protocol: int, home: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(home / "plain.pem", home / "plain.key")
    context.load_verify_locations(home / "ca.pem")
    return context


async def _sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            frame = await reader.readexactly(FRAME_OCTETS)
            writer.write(ECHO.pack(*SENT.unpack_from(frame), time.monotonic()))
            await writer.drain()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, octets: int) -> None:
    with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            writer.write(await reader.readexactly(octets))
            await writer.drain()


async def _run(home: Path, port: int, following: int | None) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", following, ssl=client_context(home))
        await asyncio.gather(_pipe(reader, there[1], FRAME_OCTETS), _pipe(there[0], writer, ECHO.size))

    serve = forward if following else _sink
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=server_context(home))
    print("ready", flush=True)
    await server.serve_forever()


@dataclass(slots=True)
class Source:
    """Sends frames as fast as the last hop takes them, with a bounded number on their way."""

    home: Path
    port: int
    seconds: list[float] = field(default_factory=list)  # from being sent to being there, one a frame

    async def run(self, duration: float) -> float:
        """Bits of payload a second."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=client_context(self.home))
        with closing(writer):
            for _ in range(UNDER_WAY):
                self._send(writer)
            start, frames = time.monotonic(), 0
            while time.monotonic() - start < duration:
                sent, came = ECHO.unpack(await reader.readexactly(ECHO.size))
                self.seconds.append(came - sent)
                frames += 1
                self._send(writer)
            return 8 * PAYLOAD_OCTETS * frames / (time.monotonic() - start)

    @staticmethod
    def _send(writer: asyncio.StreamWriter) -> None:
        writer.write(SENT.pack(time.monotonic()).ljust(FRAME_OCTETS, b"\x55"))


if __name__ == "__main__":
    uvloop.run(_run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
