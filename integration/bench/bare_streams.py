"""The least that a server of key streams can do: the baseline of the benchmark of ETSI 004.

    python -m qswitch.integration.bench.bare_streams DIRECTORY PORT

Mutual TLS on asyncio (uvloop); every GET_KEY frame of dialect P is answered by one of the same size as a node's, with 32
octets of random key. Where the request offers room for metadata, its number is recorded in SQLite with synchronous=FULL
first: a key that could be given out again after a crash is none, so an endpoint has to do at least that. A request without
room is answered unrecorded: what TLS and a loop cost. No other node, nothing to agree on, nothing sealed or wiped.
"""

import asyncio
import os
import sqlite3
import ssl
import struct
import sys
from contextlib import closing, suppress
from pathlib import Path

import uvloop

from qswitch.protocol.etsi004 import U32_MAX

HEADER, REQUEST = struct.Struct("!3BBI"), struct.Struct("!16sII")
KEY_OCTETS = 32
METADATA = b'{"age":1000,"hops":0}'  # what a node says of a chunk
BEFORE, AFTER = struct.Struct("!III"), struct.Struct("!I")
GET_KEY_REPLY = 0x05


class Bare:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database, self._next = database, 0
        for name, value in (("journal_mode", "WAL"), ("synchronous", "FULL")):
            self._database.execute(f"PRAGMA {name} = {value}").fetchall()
        self._database.execute("CREATE TABLE IF NOT EXISTS released (number INTEGER PRIMARY KEY)")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                *version, _service, length = HEADER.unpack(await reader.readexactly(HEADER.size))
                _ksid, _index, room = REQUEST.unpack(await reader.readexactly(length))
                writer.write(self._answer(version, room))
                await writer.drain()

    def _answer(self, version: list[int], room: int) -> bytes:
        self._next = (self._next + 1) % U32_MAX
        about = METADATA if room else b""
        if room:
            self._database.execute("INSERT INTO released VALUES (?)", (self._next,))
        before = BEFORE.pack(0, self._next, KEY_OCTETS)
        payload = before + os.urandom(KEY_OCTETS) + AFTER.pack(len(about)) + about
        return HEADER.pack(*version, GET_KEY_REPLY, len(payload)) + payload


async def run(home: Path, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(home / "bare.pem", home / "bare.key")
    context.load_verify_locations(home / "ca.pem")
    with closing(sqlite3.connect(home / "bare-streams.sqlite", isolation_level=None)) as database:
        server = await asyncio.start_server(Bare(database).serve, "127.0.0.1", port, ssl=context)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(run(Path(sys.argv[1]), int(sys.argv[2])))
