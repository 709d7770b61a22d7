"""How long NETCONF takes, and where: `python -m qswitch.integration.bench.netconf`, or `make bench`.

Milliseconds depend on the machine; ratios within one run say something on any: a NETCONF server over netopeer2 where that
is installed, over the same work done in this process on sysrepo, and stock ncclient over this project's client.
"""

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import click
import sysrepo
import uvloop

from qswitch.agent.config import Engine
from qswitch.agent.errors import ConfigurationError
from qswitch.agent.netconf.engine import choose

from ..processes import StartFailed
from . import holding, ways
from .bed import Bed, prepared
from .holding import Held
from .ways import Effort, InProcess, Samples

SERVERS = {Engine.BUILTIN: "qkd-netconf", Engine.NETOPEER2: "netopeer2"}
IN_PROCESS, BARE = "sysrepo, in process", "bare SSH server"
PACKAGES = ("asyncssh", "libyang", "ncclient", "paramiko", "sysrepo", "uvloop")
LINKS = (1, 50, 500)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times more `subject` takes than `baseline` for one operation, by medians."""

    operation: str
    subject: str
    baseline: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that was measured."""

    links: tuple[int, ...]
    sessions: int
    samples: Samples
    held: dict[str, Held]

    def ratios(self) -> list[Ratio]:
        return [*self._times(), *self._costs()]

    def _times(self) -> list[Ratio]:
        taken = self.samples
        ours = [way for way in taken.ways() if way.startswith("our client")]
        pairs = [(ours[0], other) for other in ours[1:]]
        pairs += [(way, IN_PROCESS) for way in ours]
        pairs += [(way.replace("our client", "ncclient"), way) for way in ours]
        return [
            Ratio(operation, subject, baseline, one / other)
            for subject, baseline in pairs
            for operation in taken.operations()
            if (one := taken.median(subject, operation)) and (other := taken.median(baseline, operation))
        ]

    def _costs(self) -> list[Ratio]:
        """Of the built-in server over every other; processor time only where the other took any."""
        name = SERVERS[Engine.BUILTIN]
        own = self.held[name]
        return [
            Ratio(what, name, other, getattr(own, what) / getattr(held, what))
            for other, held in self.held.items()
            for what in ("kilobytes_per_session", "processor_percent")
            if other != name and getattr(held, what) > 0
        ]


async def measure(links: tuple[int, ...], sessions: int, effort: Effort) -> Run:
    """Measures every way on one node that grows. Raises StartFailed when a server does not start."""
    samples, held = Samples(), dict[str, Held]()
    async with prepared() as bed:
        with sysrepo.SysrepoConnection() as connection:
            inside = InProcess(connection)
            for number in sorted(links):
                bed.fill(number, inside.running, inside.operational)
                for engine in _engines():
                    async with bed.served(engine):
                        await _rounds(bed, engine, number, inside, samples, effort)
            for engine in _engines():
                async with bed.served(engine) as pid:
                    await _events(bed, engine, inside, samples, effort)
                    held[SERVERS[engine]] = await holding.on_netconf(bed, pid, sessions, effort.rounds)
            held[BARE] = await holding.on_bare_ssh(sessions, effort.rounds)
            for session in inside.running, inside.operational:
                session.stop()
    return Run(links, sessions, samples, held)


async def _rounds(bed: Bed, engine: Engine, links: int, inside: InProcess, samples: Samples, effort: Effort) -> None:
    for _ in range(effort.rounds):
        await ways.by_our_client(bed, f"our client -> {SERVERS[engine]}", links, samples, effort)
        await inside.measure(bed, IN_PROCESS, links, samples, effort)
        await ways.by_ncclient(bed, f"ncclient -> {SERVERS[engine]}", links, samples, effort)


async def _events(bed: Bed, engine: Engine, inside: InProcess, samples: Samples, effort: Effort) -> None:
    way = f"our client -> {SERVERS[engine]}"
    for _ in range(effort.rounds):
        await ways.connecting(bed, way, samples, max(3, effort.calls // 10))
        await ways.notifying(bed, way, inside.running, samples, effort.calls)
        await inside.notifying(IN_PROCESS, samples, effort.calls)


def _engines() -> list[Engine]:
    """The built-in server, and netopeer2 where it is installed."""
    try:
        return [Engine.BUILTIN, choose(Engine.NETOPEER2)]
    except ConfigurationError:
        return [Engine.BUILTIN]


def report(run: Run) -> dict[str, Any]:
    """All of a run as JSON values; medians in milliseconds."""
    return {
        "bench": "netconf",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "links": run.links,
        "sessions": run.sessions,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "medians_ms": {way: _medians(run.samples, way) for way in run.samples.ways()},
        "held_sessions": {name: asdict(one) for name, one in run.held.items()},
        "ratios": [asdict(one) for one in run.ratios()],
    }


def _medians(samples: Samples, way: str) -> dict[str, dict[str, float]]:
    return {
        operation: {"median": value, "calls": samples.count(way, operation)}
        for operation in samples.operations()
        if (value := samples.median(way, operation)) is not None
    }


def table(data: dict[str, Any]) -> str:
    """The run for people: one line an operation, its median by every way, and the ratios."""
    medians, names = data["medians_ms"], list(data["medians_ms"])
    operations = list(dict.fromkeys(one for found in medians.values() for one in found))
    lines = [f"Medians in milliseconds; {data['cores']} cores.", ""]
    lines += [f"{f'({number})':>12} {name}" for number, name in enumerate(names, 1)]
    lines += ["", f"{'':28}" + "".join(f"{f'({number})':>10}" for number in range(1, len(names) + 1))]
    for operation in operations:
        cells = (
            f"{medians[one][operation]['median']:10.2f}" if operation in medians[one] else f"{'-':>10}" for one in names
        )
        lines.append(f"{operation:28}" + "".join(cells))
    lines += ["", f"{data['sessions']} sessions that hold still", ""]
    for name, held in data["held_sessions"].items():
        costs = f"{held['kilobytes_per_session']:8.0f} kB a session {held['processor_percent']:7.2f} % of a core"
        lines.append(f"{name:28}{costs}")
    lines += ["", "Ratios of this run: how many times more the first takes than the second."]
    for pair in dict.fromkeys((one["subject"], one["baseline"]) for one in data["ratios"]):
        lines += ["", f"{pair[0]} : {pair[1]}"]
        found = [one for one in data["ratios"] if (one["subject"], one["baseline"]) == pair]
        lines += [f"    {one['operation']:28}{one['ratio']:8.2f}" for one in found]
    if not any("netopeer2" in way for way in medians):
        lines += ["", "netopeer2-server is not installed: not measured."]
    return "\n".join(lines)


_POSITIVE = click.IntRange(1)


@click.command()
@click.option(
    "--links", default=LINKS, show_default=True, multiple=True, type=click.IntRange(1, 1000), help="Links of the node."
)
@click.option("--sessions", default=100, show_default=True, type=click.IntRange(1, 240), help="Sessions that hold still.")
@click.option("--rounds", default=3, show_default=True, type=_POSITIVE, help="How often all ways take turns.")
@click.option("--calls", default=100, show_default=True, type=_POSITIVE, help="Calls of each kind in a round.")
@click.option("--ncclient-calls", default=6, show_default=True, type=_POSITIVE, help="The same, of stock ncclient.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def main(links: tuple[int, ...], sessions: int, rounds: int, calls: int, ncclient_calls: int, output: str) -> None:
    """Measure NETCONF on a node of its own, in about a minute."""
    try:
        data = report(uvloop.run(measure(links, sessions, Effort(rounds, calls, ncclient_calls))))
    except StartFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(data, indent=2) if output == "json" else table(data))


if __name__ == "__main__":
    main()
