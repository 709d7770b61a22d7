"""`qkd-agent keys`: what an operator may see of a node's key store and do to it. Nothing here ever shows key."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .config import Credential, LkmsConfig, load
from .errors import ConfigurationError, StorageFailed
from .lkms import control, inspection, maintenance, master_key
from .model import LinkId

_OPTIONS = (
    click.option(
        "--config",
        "file",
        required=True,
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The agent's TOML file.",
    ),
    click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="For people or programs.",
    ),
)


def _options[C: Callable[..., Any]](command: C) -> C:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong is one line on standard error: 2 for a wrong configuration, 1 for the rest."""
    try:
        yield
    except ConfigurationError as error:
        click.echo(f"qkd-agent: {error}", err=True)
        sys.exit(2)
    except StorageFailed as error:
        click.echo(f"qkd-agent: {error}", err=True)
        sys.exit(1)


def _running(config: LkmsConfig) -> dict[str, Any] | None:
    """What the agent says of its links, if it runs."""
    try:
        links: dict[str, Any] = control.ask(config.store, "links")
        return links
    except ConnectionError:
        return None


def _print(output: str, data: dict[str, Any], lines: list[str]) -> None:
    click.echo(json.dumps(data, indent=2) if output == "json" else "\n".join(lines))


@click.group()
def keys() -> None:
    """Look into the node's key store, prove that it is in order, change its master key, erase key.

    \b
    qkd-agent keys status --config agent.toml     what is stored; also while the agent runs
    qkd-agent keys verify --config agent.toml     opens every row; exit status 1 if anything is wrong
    qkd-agent keys rotate --config agent.toml     a new master key; also while the agent runs
    qkd-agent keys purge --all --yes --config …   erases key; only while the agent does not run

    Exit status: 0 done and in order, 1 something is wrong or refused (said on standard error), 2 wrong usage or
    configuration. Run it as the user that the agent runs as. Nothing that is shown contains key; the master key is named by
    a fingerprint.
    """


# status ---------------------------------------------------------------------------------------------------------------


@keys.command()
@_options
def status(file: Path, output: str) -> None:
    """Shows per link and key stream what is stored, the limits, and which master key seals it.

    Reads only, and may be called at any time. Octets are of key that is not used. A block belongs to the end that may take
    from it. USABLE is what both ends hold: only a running agent knows that, else it shows "-".
    """
    with _told():
        config = load(file).lkms
        data = inspection.status(config, _running(config))
        _print(output, data, _status_lines(data))


def _status_lines(data: dict[str, Any]) -> list[str]:
    master, limits, ahead = data["master_key"], data["limits"], data["ahead"]
    since = "" if master["since"] is None else f" since {_when(master['since'])}"
    running = "open in the agent, which runs" if data["agent_runs"] else "not open: the agent does not run"
    lines = [
        f"store       {data['store']}, {running}",
        f"master key  {master['source']}, fingerprint {master['fingerprint'] or 'not noted yet'}{since}",
        *([f"            {master['note']}"] if master["note"] else []),
        f"limits      {limits['capacity_blocks']} blocks a link, fewer on virtual ones",
        f"            once full, a link is refilled when below {limits['refill_percent']} % of them",
        f"log         {data['log_octets']} octets are not folded in yet",
        f"ahead       {ahead['octets']} octets released in memory only; {ahead['burnt_octets']} were burnt by crashes",
    ]
    return lines + _link_lines(data["links"]) + _stream_lines(data["streams"])


COLUMNS = {
    "BLOCKS": "blocks",
    "OF": "capacity_blocks",
    "OCTETS": "octets",
    "USABLE": "usable_octets",
    "OURS": "owned_here",
    "THEIRS": "owned_there",
    "HIGHEST": "highest_number",
    "CONSUMED": "consumed_octets",
    "BURNT": "burnt_octets",
}


def _link_lines(links: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = [("LINK", *COLUMNS, "")]
    for link, one in links.items():
        rows.append((link, *(_or_dash(one[name]) for name in COLUMNS.values()), "full" if one["full"] else ""))
    return ["", *_table(rows)] if links else ["", "no link has key here"]


def _stream_lines(streams: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = [("KEY STREAM", "CHUNKS", "OCTETS", "NEXT", "RELEASED", "APPLICATION", "PEER")]
    for ksid, one in streams.items():
        numbers = (one["chunks"], one["octets"], one["next_index"], one["released"])
        rows.append((ksid, *map(str, numbers), one["application"], one["peer_application"]))
    return ["", *_table(rows)] if streams else []


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


# verify ---------------------------------------------------------------------------------------------------------------


@keys.command()
@_options
def verify(file: Path, output: str) -> None:
    """Proves that the key store is in order, or says what is wrong.

    Every row that holds key opens under the master key, is as long as it must be, and no two hold the same. Cursors, sizes
    and owners of blocks, positions of key streams, totals and the ledger (where one is kept) agree; no octet was used twice.
    SQLite's own check passes, and the files are for their owner only. What is harmless, as a log left by a crash, is noted.

    May be called while the agent runs: it looks at one moment of the store. It needs the master key itself: of a credential
    or a variable, provide it to this command as to the agent. Exit status 1 if anything is wrong.
    """
    with _told():
        config = load(file).lkms
        found = inspection.verify(config, _running(config) is not None)
    data = {"in_order": not found.problems, "opened": found.opened, "problems": found.problems, "notes": found.notes}
    verdict = f"in order: {found.opened} rows of key opened" if not found.problems else f"{len(found.problems)} problems"
    _print(output, data, [*found.problems, *(f"note: {note}" for note in found.notes), verdict])
    sys.exit(1 if found.problems else 0)


# rotate ---------------------------------------------------------------------------------------------------------------


@keys.command()
@_options
def rotate(file: Path, output: str) -> None:
    """Makes another master key and seals the whole store anew under it.

    A master key in a file is replaced by a fresh one and the old file overwritten; that works while the agent runs, too. One
    from a credential or an environment variable is somebody else's to replace: stop the agent, provide the new one beside
    the old one, as NAME.next or NAME_NEXT, rotate, and then put it in the old one's place. Until that is done, the
    agent uses the successor.

    The rotation may be interrupted at any moment: the store opens under one of the two keys, and agent and commands find out
    which. A copy of the old master key with a copy of the old store opens that copy still, not what is stored now.
    """
    with _told():
        config = load(file).lkms
        try:
            done = maintenance.Rotated(control.ask(config.store, "rotate"), False)
        except ConnectionError:
            done = maintenance.rotate(config.store, config.master_key)
        lines = [f"master key is now {done.fingerprint}"]
        if done.finished:
            lines.append("finished a rotation that had been interrupted; rotate again for yet another key")
        if not isinstance(config.master_key, Path):
            names = master_key.describe(config.master_key), master_key.describe(master_key.successor(config.master_key))
            place = "credential" if isinstance(config.master_key, Credential) else "variable"
            lines.append(f"now store the content of {names[1]} as {names[0]}, and remove the {place} {names[1]}")
        _print(output, {"fingerprint": done.fingerprint, "finished_earlier": done.finished}, lines)


# purge ----------------------------------------------------------------------------------------------------------------


@keys.command()
@click.option("--link", "links", multiple=True, metavar="ID", help="Erase the key of this link; may be given several times.")
@click.option("--all", "everything", is_flag=True, help="Erase all key: of links, key streams and applications.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_options
def purge(file: Path, output: str, links: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Erases stored key: of one link, or all there is. Only while the agent does not run.

    The far ends burn their copies when the agent is back and the ends meet: the highest block numbers stay, and no number
    ever comes twice. Links fill up anew. With --all, applications open their key streams anew, and
    a key with an id that only the far end still has goes there at its time to live. Needs no master key.

    What a flash medium, a copying file system or a snapshot keeps of erased rows, it keeps sealed under the master
    key: rotate that afterwards.
    """
    if bool(links) is everything:
        raise click.UsageError("say which key: --link ID, or --all")
    with _told():
        config = load(file).lkms
        if not yes:
            what = "all key" if everything else f"the key of {', '.join(links)}"
            click.confirm(f"Erase {what} in {config.store}?", abort=True, err=True)
        done = maintenance.purge(config.store, None if everything else [LinkId(link) for link in links], config.ledger)
        data = {"blocks": done.blocks, "octets": done.octets, "other_rows": done.other_rows}
        _print(output, data, [f"erased {done.blocks} blocks with {done.octets} octets, and {done.other_rows} other rows"])
