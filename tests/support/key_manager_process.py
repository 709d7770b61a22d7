"""One key manager as a process of its own, to be killed: `python key_manager_process.py PLAN.json`.

Its device delivers a block on every beat of the machine's clock, under the beat's number, so that both ends get the same
ones. Its application reads one chunk after the other and appends `index digest` to a file before it asks for the next.
With `ids` in the plan a second one takes keys with ids, appending `enc id digest`, and fetches those of the other end,
appending `dec id digest`.
"""

import asyncio
import hashlib
import itertools
import json
import sys
import time
from pathlib import Path

from key_managers import material, node_id

from qswitch.agent.config import LkmsConfig, TlsFiles
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import DeliveryConfig, KeyManager, StreamConfig
from qswitch.agent.model import Endpoint, KeyStreamId, LinkConfig, LinkId, LinkType

BEATS_PER_SECOND = 40
KSID = KeyStreamId("99999999-0000-4000-8000-000000000001")


PAIR = KeyStreamId("77777777-0000-4000-8000-000000000001")


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


def _digest(key: Key) -> str:
    return hashlib.sha256(key.view()).hexdigest()


async def ask(keys: KeyManager, file: Path) -> None:
    """As master: of the usual size mostly, one at a time and some at once."""
    with file.open("a", encoding="ascii") as out:
        for number, octets in itertools.cycle(((1, 32), (1, 32), (3, 32), (1, 24), (2, 32))):
            for key_id, key in (await keys.take_keys(PAIR, number, octets)).items():
                print("enc", key_id, _digest(key), file=out, flush=True)
            await asyncio.sleep(0.01)


async def fetch(keys: KeyManager, own: Path, theirs: Path) -> None:
    """As slave: whatever the master at the other end has told of and is here, in the order of its file, once."""
    done, position = {line.split()[1] for line in own.read_text("ascii").splitlines() if line.startswith("dec")}, 0
    with own.open("a", encoding="ascii") as out:
        while True:
            text = theirs.read_text("ascii") if theirs.exists() else ""
            lines = text[position : text.rfind("\n") + 1]
            position += len(lines)
            ids = [line.split()[1] for line in lines.splitlines() if line.startswith("enc")]
            for key_id in [one for one in ids if one not in done and keys.holds(PAIR, one)]:
                for key in (await keys.release_keys({PAIR: [key_id]})).values():
                    print("dec", key_id, _digest(key), file=out, flush=True)
            await asyncio.sleep(0.05)


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
    working = [device]
    if plan.get("ids"):
        await keys.configure_delivery(DeliveryConfig(PAIR, peer, (link,)))
        (folder / "ids").touch()
        working.append(asyncio.create_task(ask(keys, folder / "ids")))
        working.append(asyncio.create_task(fetch(keys, folder / "ids", folder.parent / plan["peer"] / "ids")))
    with (folder / "read").open("a", encoding="ascii") as out:
        while not any(one.done() for one in working):
            chunk = await keys.get_chunk(KSID, None)
            print(chunk.index, hashlib.sha256(chunk.key.view()).hexdigest(), file=out, flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
