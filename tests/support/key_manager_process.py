"""One key manager as a process of its own, to be killed: `python key_manager_process.py PLAN.json`.

Its device delivers a block on every beat of the machine's clock, under the beat's number, so that both ends get the same
ones. Its application reads one chunk after the other and appends `index digest` to a file before it asks for the next.
"""

import asyncio
import hashlib
import json
import sys
import time
from pathlib import Path

from key_managers import material, node_id

from qswitch.agent.config import LkmsConfig, TlsFiles
from qswitch.agent.lkms.manager import KeyManager, StreamConfig
from qswitch.agent.model import Endpoint, KeyStreamId, LinkConfig, LinkId, LinkType

BEATS_PER_SECOND = 40
KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")


class Silent:
    def link_levels_changed(self, link: LinkId) -> None: ...

    def alarm(self, link: LinkId | None, message: str) -> None:
        """An honest pair raises none, whatever is killed."""
        print(f"alarm {message}", file=sys.stderr, flush=True)


async def deliver(keys: KeyManager, link: LinkId) -> None:
    while True:
        beat = int(time.time() * BEATS_PER_SECOND)
        if beat >= keys.first_block(link):
            await keys.deliver(link, beat, material(link, beat, 512))
        await asyncio.sleep((beat + 1) / BEATS_PER_SECOND - time.time())


async def main(plan: dict[str, str]) -> None:
    folder, link = Path(plan["folder"]), LinkId(plan["link"])
    tls = TlsFiles(folder / "lkms.pem", folder / "lkms.key", folder / "ca.pem")
    listen, there = Endpoint("127.0.0.1", int(plan["port"])), Endpoint("127.0.0.1", int(plan["peer_port"]))
    config = LkmsConfig(listen, tls, folder / "keys.sqlite", folder / "master.key", doubt_seconds=2.0, ledger=True)
    keys = KeyManager(node_id(plan["name"]), config, Silent())
    await keys.start()
    peer = node_id(plan["peer"])
    await keys.configure_link(LinkConfig(link, LinkType.PHYSICAL, remote_node=peer, remote_lkms=there))
    device = asyncio.create_task(deliver(keys, link))
    await keys.configure_stream(StreamConfig(KSID, peer, (link,), 32))
    await keys.attach(KSID)
    with (folder / "read").open("a", encoding="ascii") as out:
        while not device.done():
            chunk = await keys.get_chunk(KSID, None)
            print(chunk.index, hashlib.sha256(chunk.key.view()).hexdigest(), file=out, flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
