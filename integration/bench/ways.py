"""The ways to the datastore that are compared: by our client, by stock ncclient, and in this process without NETCONF.

Each takes the same samples: an operation's name stands for what is asked and how many links the node has.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import libyang
import sysrepo
from lxml import etree
from ncclient import manager
from sysrepo.session import SysrepoSession

from qswitch.controller.config import NodeConfig, Timeouts
from qswitch.controller.southbound.dialing import connect
from qswitch.controller.southbound.session import NetconfSession

from .bed import QKD, READ, READ_PATH, Bed, apply

MANY = 100  # links in one large edit
_EVENT = f'<sdqkdn_interface_out xmlns="{QKD}"><qkd_interface><qkdi_id>7</qkdi_id></qkd_interface></sdqkdn_interface_out>'


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: rounds, and in each of them calls by our client and calls by ncclient."""

    rounds: int
    calls: int
    ncclient_calls: int


class Samples:
    """Milliseconds by who did it and what was done."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._edits = 0

    async def take(self, way: str, operation: str, calls: int, call: Callable[[], Awaitable[Any]]) -> None:
        await call()  # whatever is only done once is not measured
        for _ in range(calls):
            begun = time.perf_counter()
            await call()
            self._taken[way, operation].append((time.perf_counter() - begun) * 1000)

    def next_edit(self) -> int:
        """Numbers edits, so that every one changes something."""
        self._edits += 1
        return self._edits

    def ways(self) -> list[str]:
        return list(dict.fromkeys(way for way, _ in self._taken))

    def operations(self) -> list[str]:
        return list(dict.fromkeys(operation for _, operation in self._taken))

    def median(self, way: str, operation: str) -> float | None:
        taken = self._taken.get((way, operation))
        return median(taken) if taken else None

    def count(self, way: str, operation: str) -> int:
        return len(self._taken.get((way, operation), ()))


def edits(links: int) -> tuple[int, ...]:
    """How many links the edits on a node with so many links change."""
    return (1, MANY) if links >= MANY else (1,)


def few(calls: int, links: int) -> int:
    """Large nodes take longer: fewer calls do."""
    return max(2, calls // (5 if links >= MANY else 1))


async def session(wire: Any, heard: Callable[[Any], None] = lambda _event: None) -> NetconfSession:
    return await NetconfSession.open("bench", wire, Timeouts(), heard, lambda _error: None)


async def by_our_client(bed: Bed, way: str, links: int, samples: Samples, effort: Effort) -> None:
    """One connection for all calls."""
    calls = few(effort.calls, links)
    async with await connect(bed.node(), Timeouts()) as wire:
        client = await session(wire)
        await samples.take(way, f"get-config, {links} links", calls, lambda: client.get_config(READ))
        await samples.take(way, f"get, {links} links", calls, lambda: client.get(READ))
        for changed in edits(links):
            await samples.take(
                way,
                f"edit-config of {changed}, {links} links",
                calls,
                lambda changed=changed: client.edit_config(_config(bed, samples, changed)),  # type: ignore[misc]
            )
        await client.close()


async def connecting(bed: Bed, way: str, samples: Samples, calls: int) -> None:
    """A connection, a session on it, and its end."""

    async def once() -> None:
        async with await connect(bed.node(), Timeouts()) as wire:
            await (await session(wire)).close()

    await samples.take(way, "connect", calls, once)


async def notifying(bed: Bed, way: str, sender: SysrepoSession, samples: Samples, calls: int) -> None:
    """From the moment a program of the node sends an event to the moment the client has it."""
    arrived = asyncio.Event()
    async with await connect(bed.node(), Timeouts()) as wire:
        client = await session(wire, lambda _event: arrived.set())
        await client.create_subscription()

        async def once() -> None:
            arrived.clear()
            await asyncio.to_thread(send, sender)
            await arrived.wait()

        await samples.take(way, "notification", calls, once)
        await client.close()


def send(sender: SysrepoSession) -> None:
    """One event, for whoever has subscribed."""
    with sender.get_ly_ctx() as context:
        tree = context.parse_op_mem("xml", _EVENT, dtype=libyang.util.DataType.NOTIF_YANG)
        try:
            sender.notification_send_ly(tree)
        finally:
            tree.free()


def _config(bed: Bed, samples: Samples, changed: int) -> etree._Element:
    config = etree.Element("config")
    config.append(etree.fromstring(bed.edit(samples.next_edit(), changed)))
    return config


async def by_ncclient(bed: Bed, way: str, links: int, samples: Samples, effort: Effort) -> None:
    """Stock ncclient. It blocks; nothing else runs on the loop meanwhile."""
    read, calls = ("subtree", READ), few(effort.ncclient_calls, links)

    async def connection() -> None:
        _ncclient(bed.node()).close_session()

    client = _ncclient(bed.node())

    async def get_config() -> None:
        client.get_config("running", filter=read)

    async def get() -> None:
        client.get(filter=read)

    async def edit_config() -> None:
        client.edit_config(_config(bed, samples, 1), target="running")

    for name, call in (("get-config", get_config), ("get", get), ("edit-config of 1", edit_config)):
        await samples.take(way, f"{name}, {links} links", calls, call)
    client.close_session()
    await samples.take(way, "connect", max(2, calls // 3), connection)


def _ncclient(node: NodeConfig) -> Any:
    return manager.connect(
        host=node.netconf.host,
        port=node.netconf.port,
        username=node.username,
        key_filename=str(node.key),
        hostkey_verify=False,
        allow_agent=False,
        look_for_keys=False,
        ssh_config=None,
    )


class InProcess:
    """The same reads, printed as XML, and the same edits, parsed from XML, without NETCONF, process or access control."""

    def __init__(self, connection: sysrepo.SysrepoConnection) -> None:
        self._connection = connection
        self.running = connection.start_session("running")
        self.operational = connection.start_session("operational")

    async def measure(self, bed: Bed, way: str, links: int, samples: Samples, effort: Effort) -> None:
        calls = few(effort.calls, links)
        await samples.take(way, f"get-config, {links} links", calls, lambda: _done(_read, self.running))
        await samples.take(way, f"get, {links} links", calls, lambda: _done(_read, self.operational))
        for changed in edits(links):
            await samples.take(
                way,
                f"edit-config of {changed}, {links} links",
                calls,
                lambda changed=changed: _done(apply, self.running, bed.edit(samples.next_edit(), changed)),  # type: ignore[misc]
            )

    async def notifying(self, way: str, samples: Samples, calls: int) -> None:
        """From a sender to a subscriber of this process."""
        with self._subscribed() as arrived:

            async def once() -> None:
                arrived.clear()
                await asyncio.to_thread(send, self.running)
                await arrived.wait()

            await samples.take(way, "notification", calls, once)

    @contextmanager
    def _subscribed(self) -> Any:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def heard(_path: str, _kind: str, _event: Any, _time: int, _private: Any) -> None:
            loop.call_soon_threadsafe(arrived.set)

        with self._connection.start_session("running") as listener:
            listener.subscribe_notification("etsi-qkd-sdn-node", None, heard)
            yield arrived


async def _done[**P](function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
    function(*args, **kwargs)


def _read(session: SysrepoSession) -> str:
    with session.get_data_ly(READ_PATH) as data:
        text: str = data.print_mem("xml", with_siblings=True, pretty=False)
    return text
