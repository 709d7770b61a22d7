"""The least that an endpoint for single-use keys can do: the baseline of the benchmark of ETSI 014.

    python -m qswitch.integration.bench.bare DIRECTORY PORT

uvicorn over mutual TLS, one ASGI function: a random key of 256 bits, recorded in SQLite with synchronous=FULL before it is
answered. No other node, no pair, no ids that were ever told to anyone; nothing is sealed, nothing is wiped.
"""

import os
import sqlite3
import ssl
import sys
import uuid
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn


class Bare:
    def __init__(self, database: Path) -> None:
        self._database = sqlite3.connect(database, isolation_level=None)
        for name, value in (("journal_mode", "WAL"), ("synchronous", "FULL")):
            self._database.execute(f"PRAGMA {name} = {value}").fetchall()
        self._database.execute("CREATE TABLE IF NOT EXISTS used (id TEXT PRIMARY KEY) WITHOUT ROWID")

    async def __call__(
        self,
        scope: dict[str, Any],
        _receive: Callable[[], Awaitable[Any]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        key_id = str(uuid.uuid4())
        self._database.execute("INSERT INTO used VALUES (?)", (key_id,))
        body = b'{"keys":[{"key_ID":"%s","key":"%s"}]}' % (key_id.encode(), b64encode(os.urandom(32)))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def main() -> None:
    home, port = Path(sys.argv[1]), int(sys.argv[2])
    uvicorn.run(
        Bare(home / "bare.sqlite"),
        host="127.0.0.1",
        port=port,
        lifespan="off",
        log_level="warning",
        access_log=False,
        loop="uvloop",
        timeout_keep_alive=600,
        ssl_certfile=home / "bare.pem",
        ssl_keyfile=str(home / "bare.key"),
        ssl_ca_certs=str(home / "ca.pem"),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
    )


if __name__ == "__main__":
    main()
