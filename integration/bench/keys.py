"""How fast keys are served and relayed: `python -m qswitch.integration.bench.keys`.

Keys with ids (014) and key streams (004) by two nodes joined by one short fibre and their controller, every daemon the
real one; relay by a chain of key managers, each a process of its own. Clients in this process, over mutual TLS with kept
connections. Each figure stands beside a baseline that was measured in the same run, in turns with it.
"""

import json
import os
import platform
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
import uvloop

from ..processes import StartFailed
from .enc_keys import etsi014
from .figures import Section
from .key_streams import etsi004
from .pair import Bed, prepared
from .relaying import relay

SECTIONS: dict[str, Callable[[Bed, tuple[int, ...], int, int], Awaitable[Section]]] = {
    "etsi014": etsi014,
    "etsi004": etsi004,
}


async def measure(
    clients: tuple[int, ...],
    rounds: int,
    calls: int,
    hops: tuple[int, ...],
    seconds: float,
    only: tuple[str, ...] = (),
    release_ahead: int = 0,
) -> dict[str, Any]:
    """All sections, or those named, as JSON values. Raises StartFailed."""
    found: dict[str, Section] = {}
    chosen = {name: section for name, section in SECTIONS.items() if not only or name in only}
    if chosen:
        async with prepared(release_ahead) as bed:
            for name, section in chosen.items():
                found[name] = await section(bed, clients, rounds, calls)
    if not only or "relay" in only:
        found["relay"] = await relay(hops, seconds)
    return {
        "bench": "keys",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "release_ahead": release_ahead,
        "python": platform.python_version(),
        "sections": {name: asdict(section) for name, section in found.items()},
    }


def table(data: dict[str, Any]) -> str:
    lines = [f"{data['cores']} cores."]
    for name, section in data["sections"].items():
        columns = [one for one in section["rows"][0] if one != "way"]
        lines += ["", f"{name:40}" + "".join(f"{one.replace('_', ' '):>16}" for one in columns)]
        lines += [f"{row['way']:40}" + "".join(f"{_number(row[one]):>16}" for one in columns) for row in section["rows"]]
        lines += [_sentence(**one) for one in section["ratios"]]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value}" if isinstance(value, int) else f"{value:.{0 if value >= 1000 else 2}f}"


def _sentence(subject: str, baseline: str, ratio: float, **where: Any) -> str:
    what = ", ".join(f"{value} {name}" if isinstance(value, int) else str(value) for name, value in where.items())
    return f"{subject} : {baseline}, {what}: {ratio:.2f}"


@click.command()
@click.option("--clients", default=(1, 16), show_default=True, multiple=True, type=click.IntRange(1, 200))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often all ways take turns.")
@click.option("--calls", default=1000, show_default=True, type=click.IntRange(100, 5000), help="Calls of a round.")
@click.option("--hops", default=(1, 3, 5), show_default=True, multiple=True, type=click.IntRange(1, 9), help="Of the relay.")
@click.option(
    "--seconds", default=10.0, show_default=True, type=click.FloatRange(0.5, 600), help="Of relay, each number of hops."
)
@click.option("--only", multiple=True, type=click.Choice([*SECTIONS, "relay"]), help="Not all sections, but these.")
@click.option(
    "--release-ahead", default=0, show_default=True, type=click.IntRange(0, 31), help="[lkms] release_ahead of the nodes."
)
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def main(
    clients: tuple[int, ...],
    rounds: int,
    calls: int,
    hops: tuple[int, ...],
    seconds: float,
    only: tuple[str, ...],
    release_ahead: int,
    output: str,
) -> None:
    """Measure how fast keys are served and relayed, in about two minutes."""
    try:
        data = uvloop.run(measure(clients, rounds, calls, hops, seconds, only, release_ahead))
    except StartFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(data, indent=2) if output == "json" else table(data))


if __name__ == "__main__":
    main()
