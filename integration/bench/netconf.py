"""How long NETCONF takes, and where: `python -m qswitch.integration.bench.netconf`, or `make bench`.

Milliseconds depend on the machine; ratios within one run say something on any. Two are taken: this project's client over
stock ncclient, on the same server; and a NETCONF server over the same work done in this process on sysrepo.
"""

import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import Any

import click
import sysrepo
import uvloop
from lxml import etree
from ncclient import manager
from sysrepo.session import SysrepoSession

from qswitch.agent.errors import ConfigurationError
from qswitch.agent.netconf.engine import Engine, choose
from qswitch.controller.config import NodeConfig, Timeouts
from qswitch.controller.southbound.dialing import connect
from qswitch.controller.southbound.session import NetconfSession

from ..processes import StartFailed
from .bed import READ, READ_PATH, Bed, apply, prepared

OPERATIONS = ("connect", "get-config", "get", "edit-config")
SERVERS = {Engine.BUILTIN: "qkd-netconf", Engine.NETOPEER2: "netopeer2"}
IN_PROCESS = "sysrepo, in process"
PACKAGES = ("asyncssh", "libyang", "ncclient", "paramiko", "sysrepo", "uvloop")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: rounds, and in each of them calls by our client and calls by ncclient."""

    rounds: int
    calls: int
    ncclient_calls: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer `subject` takes than `baseline` for one operation, by medians."""

    operation: str
    subject: str
    baseline: str
    ratio: float


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

    def median(self, way: str, operation: str) -> float | None:
        taken = self._taken.get((way, operation))
        return median(taken) if taken else None

    def count(self, way: str, operation: str) -> int:
        return len(self._taken.get((way, operation), ()))

    def ratios(self) -> list[Ratio]:
        """Stock ncclient over our client for each server; each server over sysrepo and over netopeer2, by our client."""
        ours = [way for way in self.ways() if way.startswith("our client")]
        pairs = [(way.replace("our client", "ncclient"), way) for way in ours]
        pairs += [(way, IN_PROCESS) for way in ours]
        pairs += [(ours[0], other) for other in ours[1:]]
        return [
            Ratio(operation, subject, baseline, one / other)
            for subject, baseline in pairs
            for operation in OPERATIONS
            if (one := self.median(subject, operation)) and (other := self.median(baseline, operation))
        ]


# The three ways ------------------------------------------------------------------------------------------------------


async def measure_client(bed: Bed, server: str, samples: Samples, effort: Effort) -> None:
    """This project's client: one connection for all calls, and connections of their own for `connect`."""
    way, node, timeouts = f"our client -> {server}", bed.node(), Timeouts()

    async def connection() -> None:
        async with await connect(node, timeouts) as wire:
            await (await _session(wire)).close()

    async with await connect(node, timeouts) as wire:
        session = await _session(wire)
        await samples.take(way, "get-config", effort.calls, lambda: session.get_config(READ))
        await samples.take(way, "get", effort.calls, lambda: session.get(READ))
        await samples.take(way, "edit-config", effort.calls, lambda: session.edit_config(_config(bed, samples)))
        await session.close()
    await samples.take(way, "connect", max(3, effort.calls // 10), connection)


async def _session(wire: Any) -> NetconfSession:
    return await NetconfSession.open("bench", wire, Timeouts(), lambda _event: None, lambda _error: None)


def _config(bed: Bed, samples: Samples) -> etree._Element:
    config = etree.Element("config")
    config.append(etree.fromstring(bed.edit(samples.next_edit())))
    return config


async def measure_ncclient(bed: Bed, server: str, samples: Samples, effort: Effort) -> None:
    """Stock ncclient. It blocks; nothing else runs on the loop meanwhile."""
    way, node, read = f"ncclient -> {server}", bed.node(), ("subtree", READ)

    async def connection() -> None:
        _ncclient(node).close_session()

    client = _ncclient(node)

    async def get_config() -> None:
        client.get_config("running", filter=read)

    async def get() -> None:
        client.get(filter=read)

    async def edit_config() -> None:
        client.edit_config(_config(bed, samples), target="running")

    for operation, call in (("get-config", get_config), ("get", get), ("edit-config", edit_config)):
        await samples.take(way, operation, effort.ncclient_calls, call)
    client.close_session()
    await samples.take(way, "connect", max(3, effort.ncclient_calls // 3), connection)


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


async def measure_sysrepo(
    bed: Bed, running: SysrepoSession, operational: SysrepoSession, samples: Samples, effort: Effort
) -> None:
    """The same reads, printed as XML, and the same edits, parsed from XML, without NETCONF, process or access control."""

    async def get_config() -> None:
        _read(running)

    async def get() -> None:
        _read(operational)

    async def edit_config() -> None:
        apply(running, bed.edit(samples.next_edit()))

    for operation, call in (("get-config", get_config), ("get", get), ("edit-config", edit_config)):
        await samples.take(IN_PROCESS, operation, effort.calls, call)


def _read(session: SysrepoSession) -> str:
    with session.get_data_ly(READ_PATH) as data:
        text: str = data.print_mem("xml", with_siblings=True, pretty=False)
    return text


# The run -------------------------------------------------------------------------------------------------------------


async def measure(links: int, effort: Effort) -> Samples:
    """Measures every way on one node. Raises StartFailed when a server does not start."""
    samples = Samples()
    async with prepared(links) as bed:
        with (
            sysrepo.SysrepoConnection() as connection,
            connection.start_session("running") as running,
            connection.start_session("operational") as operational,
        ):
            bed.fill(running, operational)
            for engine in _engines():
                async with bed.served(engine):
                    for _ in range(effort.rounds):
                        await measure_client(bed, SERVERS[engine], samples, effort)
                        await measure_sysrepo(bed, running, operational, samples, effort)
                        await measure_ncclient(bed, SERVERS[engine], samples, effort)
    return samples


def _engines() -> list[Engine]:
    """The built-in server, and netopeer2 where it is installed."""
    try:
        return [Engine.BUILTIN, choose(Engine.NETOPEER2)]
    except ConfigurationError:
        return [Engine.BUILTIN]


def report(samples: Samples, links: int) -> dict[str, Any]:
    """All of a run as JSON values; medians in milliseconds."""
    return {
        "bench": "netconf",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "links": links,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "medians_ms": {
            way: {
                operation: {"median": value, "calls": samples.count(way, operation)}
                for operation in OPERATIONS
                if (value := samples.median(way, operation)) is not None
            }
            for way in samples.ways()
        },
        "ratios": [asdict(one) for one in samples.ratios()],
    }


def table(data: dict[str, Any]) -> str:
    """The run for people."""
    lines = [f"One node with {data['links']} links, {data['cores']} cores; medians in milliseconds.", ""]
    lines.append(f"{'':34}" + "".join(f"{operation:>13}" for operation in OPERATIONS))
    for way, found in data["medians_ms"].items():
        cells = (f"{found[operation]['median']:13.2f}" if operation in found else f"{'-':>13}" for operation in OPERATIONS)
        lines.append(f"{way:34}" + "".join(cells))
    lines += ["", "Ratios of this run: how many times longer the first takes than the second.", ""]
    pairs = dict.fromkeys((one["subject"], one["baseline"]) for one in data["ratios"])
    for subject, baseline in pairs:
        found = {
            one["operation"]: one["ratio"]
            for one in data["ratios"]
            if (one["subject"], one["baseline"]) == (subject, baseline)
        }
        cells = (f"{found[operation]:13.2f}" if operation in found else f"{'-':>13}" for operation in OPERATIONS)
        lines += [f"{subject} : {baseline}", f"{'':34}" + "".join(cells)]
    if not any("netopeer2" in way for way in data["medians_ms"]):
        lines += ["", "netopeer2-server is not installed: not measured."]
    return "\n".join(lines)


@click.command()
@click.option("--links", default=20, show_default=True, type=click.IntRange(1, 1000), help="Links of the node.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often all ways take turns.")
@click.option("--calls", default=100, show_default=True, type=click.IntRange(1), help="Calls of each kind in a round.")
@click.option("--ncclient-calls", default=10, show_default=True, type=click.IntRange(1), help="The same, of stock ncclient.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def main(links: int, rounds: int, calls: int, ncclient_calls: int, output: str) -> None:
    """Measure NETCONF on a node of its own, in about half a minute."""
    try:
        data = report(uvloop.run(measure(links, Effort(rounds, calls, ncclient_calls))), links)
    except StartFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(data, indent=2) if output == "json" else table(data))


if __name__ == "__main__":
    main()
