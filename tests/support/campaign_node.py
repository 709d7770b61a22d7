"""One node of a crash campaign as a process of its own, to be killed at any time, and the process that makes such ones.

A node is what an agent is, but for NETCONF: a key manager, both tables of applications and both servers. Its configuration
is there from the beginning, as a controller has left it. Its devices deliver a block on every beat of the machine's clock
under the beat's number, at both ends of a fibre the same, and keep what was not taken, as devices with a buffer do.

`python campaign_node.py` reads paths of plans, forks a node for each and writes its process id: much faster than to start
Python anew. On SIGUSR1 a node loses its power within a commit, as the file `cut` in its folder says: see `bad_disks`.
"""

import asyncio
import ctypes
import json
import logging
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from bad_disks import Image, lose_power, put_back
from key_managers import link_id, material, node_id

from qswitch.agent.applications import ApplicationTable
from qswitch.agent.associations import AssociationTable, pair_id
from qswitch.agent.config import Etsi014Config, LkmsConfig, ServiceConfig, TlsFiles
from qswitch.agent.errors import StorageFailed
from qswitch.agent.lkms import store
from qswitch.agent.lkms.manager import KeyManager
from qswitch.agent.model import (
    ApplicationConfig,
    Configuration,
    Endpoint,
    KeyStreamId,
    LinkConfig,
    LinkId,
    LinkType,
    Notification,
)
from qswitch.agent.service.etsi004 import Etsi004Server
from qswitch.agent.service.etsi014 import Etsi014Server
from qswitch.agent.tasks import Tasks

NODES = "abcd"
FIBRES = {1: "ab", 2: "bc", 3: "cd"}
ROUTES = {8: "abc", 9: "abcd"}
"""Virtual links: over one relay node, and over two."""
BLOCK, BEATS_PER_SECOND = 8192, 30
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Flow:
    """Two applications that share key of one link; of keys with ids the first is master."""

    one: str
    other: str
    number: int
    kind: str = "004"
    size: int = 32  # octets of a chunk

    @property
    def link(self) -> LinkId:
        return link_id(self.number)

    @property
    def ksid(self) -> KeyStreamId:
        if self.kind == "014":
            return pair_id(uri(self.one, "014"), uri(self.other, "014"))
        return KeyStreamId(f"99999999-0000-4000-8000-{self.number:012d}")

    def entry(self, here: str) -> ApplicationConfig:
        there = self.other if here == self.one else self.one
        return ApplicationConfig(
            self.ksid,
            server_app_id=uri(self.one, self.kind),
            client_app_ids=(uri(self.other, self.kind),),
            backing_links=(self.link,),
            local_node=node_id(here),
            remote_node=node_id(there),
        )


STREAMS = (
    Flow("a", "b", 1, size=4096),
    Flow("b", "c", 2, size=4096),
    Flow("c", "d", 3, size=4096),
    Flow("a", "c", 8, size=1024),
    Flow("a", "d", 9, size=2048),
)
PAIRS = (Flow("b", "c", 2, "014"), Flow("d", "a", 9, "014"), Flow("c", "a", 8, "014"))
SHARED = tuple(Flow("a", other, number, "014") for other, number in (("b", 1), ("c", 8), ("d", 9)))
"""Keys that `a` asks for once, for applications at three other nodes."""


def uri(node: str, kind: str) -> str:
    return f"qkd://{node_id(node)}/{node}-{kind}"


@dataclass(frozen=True, slots=True)
class Plan:
    """`ports`: of each node's key manager, 004 and 014; `began`: the beat of every device's first block."""

    name: str
    folder: Path
    ports: dict[str, tuple[int, int, int]]
    began: int

    @property
    def config(self) -> LkmsConfig:
        tls = TlsFiles(self.folder / "lkms.pem", self.folder / "lkms.key", self.folder / "ca.pem")
        keys, listen = self.folder / "keys.sqlite", self.endpoint(self.name, 0)
        return LkmsConfig(listen, tls, keys, self.folder / "master.key", doubt_seconds=4.0, ledger=True)

    @property
    def log(self) -> Path:
        """Beside the folder: what a node has to say while its disk is full is what one wants to read."""
        return self.folder.with_suffix(".log")

    def endpoint(self, node: str, which: int) -> Endpoint:
        return Endpoint("127.0.0.1", self.ports[node][which])

    def links(self) -> list[LinkConfig]:
        found = [self._link(number, ends, LinkType.PHYSICAL) for number, ends in FIBRES.items() if self.name in ends]
        return found + [self._link(number, way, LinkType.VIRTUAL) for number, way in ROUTES.items() if self.name in way]

    def _link(self, number: int, way: str, kind: LinkType) -> LinkConfig:
        at, virtual = way.index(self.name), kind is LinkType.VIRTUAL
        before, after = way[at - 1 : at] if at else "", way[at + 1 : at + 2]
        end = not (before and after)
        far = way[0] if at else way[-1]
        return LinkConfig(
            link_id(number),
            kind,
            local_node=node_id(self.name if end else way[0]),
            remote_node=node_id(far if end else way[-1]),
            previous_hop=node_id(before) if before and virtual else None,
            next_hops=(node_id(after),) if after and virtual else (),
            remote_lkms=self.endpoint(far, 0) if end else None,
        )

    def write(self) -> Path:
        path = self.folder / "plan.json"
        content = {"name": self.name, "folder": str(self.folder), "ports": self.ports, "began": self.began}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path


def read_plan(path: Path) -> Plan:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Plan(content["name"], Path(content["folder"]), content["ports"], content["began"])


class _Watch:
    def link_levels_changed(self, link: LinkId) -> None: ...

    def alarm(self, link: LinkId | None, message: str) -> None:
        """Honest nodes raise none, whatever is killed, but for a disk that is full."""
        print(f"alarm {link} {message}", file=sys.stderr, flush=True)


def _ignore(_notification: Notification) -> None:
    """There is no controller."""


async def _deliver(keys: KeyManager, link: LinkId, began: int) -> None:
    """Takes up where the store is: what this end had not made durable, its device still has."""
    beat = max(began, keys.first_block(link))
    while True:
        await asyncio.sleep(beat / BEATS_PER_SECOND - time.time())
        await keys.deliver(link, beat, material(link, beat, BLOCK))
        beat += 1


async def _open_keys(plan: Plan) -> KeyManager:
    """As a service manager does, starts again and again while the disk is full."""
    while True:
        keys = KeyManager(node_id(plan.name), plan.config, _Watch())
        try:
            await keys.start()
            return keys
        except StorageFailed as problem:
            print(f"not started: {problem}", file=sys.stderr, flush=True)
            await asyncio.sleep(0.1)


def _power(keys: KeyManager, plan: Plan) -> None:
    cut = json.loads((plan.folder / "cut").read_text(encoding="utf-8"))

    def die(image: Image) -> None:
        put_back(plan.config.store, image)
        os.kill(os.getpid(), signal.SIGKILL)

    lose_power(keys._store, plan.config.store, random.Random(cut["seed"]), cut["in_folding"], die)
    if cut["in_folding"]:
        asyncio.ensure_future(keys._store.fold())  # noqa: RUF006  it ends with the process


async def _run(plan: Plan) -> None:
    store.RETRY_SECONDS = 0.2
    keys = await _open_keys(plan)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _power, keys, plan)
    for link in plan.links():
        await keys.configure_link(link)
    failed = asyncio.get_running_loop().create_future()
    tasks = Tasks(failed.set_exception)
    for number, ends in FIBRES.items():
        if plan.name in ends:
            tasks.spawn(_deliver(keys, link_id(number), plan.began), f"device {number}")
    tls = TlsFiles(plan.folder / "node.pem", plan.folder / "node.key", plan.folder / "ca.pem")
    applications = ApplicationTable(keys, tasks, _ignore, lambda: None)
    config = Etsi014Config(plan.endpoint(plan.name, 2), tls, timeout_seconds=5.0)
    pairs = AssociationTable(node_id(plan.name), config, keys, tasks, _ignore, lambda: None)
    streams, entries = (
        {one.ksid: one.entry(plan.name) for one in flows if plan.name in (one.one, one.other)}
        for flows in (STREAMS, PAIRS + SHARED)
    )
    applications.apply(Configuration(node_id(plan.name), applications=streams))
    pairs.apply(entries, True)
    await Etsi004Server(ServiceConfig(plan.endpoint(plan.name, 1), tls), applications).start()
    await Etsi014Server(config, pairs).start()
    while not failed.done():
        await asyncio.wait([failed], timeout=1.0)
        applications.refresh()
        pairs.refresh()
    await failed


def _child(path: Path) -> None:
    """Dies with the process that made it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    plan = read_plan(path)
    errors = os.open(plan.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s %(message)s")
    try:
        uvloop.run(_run(plan))
    finally:
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _child(Path(line.strip()))
        print(child, flush=True)


if __name__ == "__main__":
    main()
