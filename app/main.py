"""`qkd-app`: quantum keys from the command line, and files sent under them.

Who calls (`--network NETWORK --as APPLICATION`, or host, files and URI one by one) may stand before the command or after it.
Results go to standard output, progress and errors to standard error; keys are shown only when asked for.
"""

import asyncio
import dataclasses
import hashlib
import json
import re
import signal
import sys
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from qswitch.protocol.etsi004 import MAX_KEY_CHUNK_SIZE, NEXT_INDEX, U32_MAX, Dialect, Qos
from qswitch.protocol.etsi015 import MAX_DISJOINT_PATHS

from .client import Client, KeyChunk
from .descriptor import Descriptor, Identity
from .errors import ClientError, RestError, StatusError
from .records import KEY_SIZE, MAX_TIMEOUT_MS
from .rest import RestClient
from .transfer import Receiver, Transfer, send_file

DIALECTS = {"p": Dialect.P, "c": Dialect.C}
DEFAULT_TIMEOUT_MS = 20_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and how."""

    identity: Identity
    descriptor: Descriptor | None
    dialect: Dialect
    json: bool

    def client(self) -> Client:
        one = self.identity
        return Client(
            one.host, one.port, certificate=one.certificate, private_key=one.private_key, ca=one.ca, dialect=self.dialect
        )

    def rest(self) -> RestClient:
        one = self.identity
        if not one.url:
            raise click.UsageError("this node has no ETSI 014 interface that is known here; name it with --url")
        return RestClient(one.url, certificate=one.certificate, private_key=one.private_key, ca=one.ca, kme_id=one.kme_id)

    def sae(self, name: str) -> str:
        """An SAE id: with a descriptor names are known, else it is taken as it is."""
        return self.descriptor.uri(name) if self.descriptor is not None else name

    def peer(self, name: str) -> str:
        if self.descriptor is not None:
            return self.descriptor.uri(name)
        if "://" not in name:
            raise click.UsageError(f"'{name}' is no URI; names of applications are known with --network only")
        return name


# Options -------------------------------------------------------------------------------------------------------------


class Address(click.ParamType[Any]):
    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        match = re.fullmatch(r"\[?([^\[\]]+)\]?:(\d{1,5})", str(value))
        if match is None or int(match[2]) > 65535:
            self.fail(f"'{value}' is not of the form HOST:PORT", param, ctx)
        return match[1], int(match[2])


def _complete_application(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    params = {**(ctx.parent.params if ctx.parent else {}), **{k: v for k, v in ctx.params.items() if v is not None}}
    try:
        names = Descriptor.load(params.get("network") or "").applications
    except ClientError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


_file = click.Path(path_type=Path)
CALLER_OPTIONS = [
    click.option(
        "--network", metavar="NETWORK", help="Network descriptor: network.json, its directory, or a name below run/."
    ),
    click.option("--as", metavar="APPLICATION", shell_complete=_complete_application, help="Application to act as."),
    click.option("--host", help="Node's ETSI 004 host, in the place of --network and --as."),
    click.option("--port", type=click.IntRange(1, 65535), help="Node's ETSI 004 port."),
    click.option("--cert", type=_file, help="Application's certificate (PEM)."),
    click.option("--key", type=_file, help="Its private key (PEM)."),
    click.option("--ca", type=_file, help="Authority of the node's certificate (PEM)."),
    click.option("--uri", help="Application's own URI."),
    click.option("--url", help="Node's ETSI 014 interface, in the place of --host, --port and --uri."),
    click.option("--dialect", type=click.Choice(list(DIALECTS)), help="Encoding of ETSI 004.  [default: p]"),
    click.option("--output", type=click.Choice(["text", "json"]), help="Form of the results.  [default: text]"),
]
CALLER_NAMES = ("network", "as", "host", "port", "cert", "key", "ca", "uri", "url", "dialect", "output")


def _caller_options[F: Callable[..., Any]](function: F) -> F:
    for option in reversed(CALLER_OPTIONS):
        function = option(function)
    return function


def _command(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A command of the group: `function` gets the caller first, then its own options; runs until done or told to stop."""

    def run(ctx: click.Context, /, **options: Any) -> None:
        before = ctx.find_root().params
        given = {name: options.pop(name) for name in CALLER_NAMES}
        given = {name: before.get(name) if value is None else value for name, value in given.items()}
        try:
            _run(function(_caller(given), **options))
        except ClientError as error:
            _fail(error, given["output"] == "json")

    run.__doc__ = function.__doc__
    return _caller_options(click.pass_context(run))


def _caller(given: dict[str, Any]) -> Caller:
    descriptor = Descriptor.load(given["network"]) if given["network"] else None
    if descriptor is not None:
        if not given["as"]:
            raise click.UsageError(f"--as is missing; {descriptor.file} has {', '.join(descriptor.applications)}")
        identity = descriptor.identity(given["as"])
    else:
        by_rest = ("cert", "key", "ca") if given["url"] else ("host", "port", "cert", "key", "ca", "uri")
        missing = [name for name in by_rest if given[name] is None]
        if missing:
            wanted = ", ".join(f"--{name}" for name in missing)
            raise click.UsageError(f"say who calls: --network and --as, or else {wanted}")
        where = given["host"] or "", given["port"] or 0, given["uri"] or ""
        identity = Identity(*where, given["cert"], given["key"], given["ca"], given["url"] or "")
    return Caller(identity, descriptor, DIALECTS[given["dialect"] or "p"], given["output"] == "json")


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Ctrl-C and SIGTERM cancel the work, which cleans up; exit status is then 130 or 143."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except asyncio.CancelledError:
        sys.exit(143)


def _fail(error: ClientError, as_json: bool) -> None:
    """Says what went wrong and what to do, on standard error; exit status 1."""
    if as_json:
        click.echo(json.dumps(_error(error)), err=True)
    else:
        click.echo(f"Error: {error}", err=True)
        if isinstance(error, StatusError) and error.offered is not None:
            click.echo(f"  offered: {_text(dataclasses.asdict(error.offered))}", err=True)
    sys.exit(1)


def _error(error: ClientError) -> dict[str, Any]:
    details: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, StatusError):
        details |= {"call": error.call, "status": error.status.value, "status_name": error.status.name}
        if error.offered is not None:
            details["offered_qos"] = dataclasses.asdict(error.offered)
    if isinstance(error, RestError):
        details |= {"call": error.call, "http_status": error.status, "details": list(error.details)}
    return details


def _print(caller: Caller, value: dict[str, Any]) -> None:
    click.echo(json.dumps(value) if caller.json else "\n".join(f"{name}: {_text(one)}" for name, one in value.items()))


def _text(value: Any) -> str:
    return " ".join(f"{name}={one}" for name, one in value.items()) if isinstance(value, dict) else str(value)


# Commands ------------------------------------------------------------------------------------------------------------


@click.group(context_settings={"auto_envvar_prefix": "QKD_APP", "help_option_names": ["-h", "--help"]})
@_caller_options
def main(**_options: Any) -> None:
    """Gets quantum keys from a node over ETSI GS QKD 004 and 014, and sends files encrypted under them.

    Say who calls with --network and --as, before the command or after it, or in the environment (QKD_APP_NETWORK,
    QKD_APP_AS).

    \b
      qkd-app open    --network madrid --as quiron-1 --peer quinto-1
      qkd-app get     --network madrid --as quiron-1 KSID
      qkd-app receive --network madrid --as quinto-1 --listen 127.0.0.1:7000 --out inbox
      qkd-app send    --network madrid --as quiron-1 --peer quinto-1 --to 127.0.0.1:7000 FILE
      qkd-app enc-keys --network madrid --as quiron-1 quinto-1
      qkd-app dec-keys --network madrid --as quinto-1 quiron-1 KEY_ID

    Tab completion, application names included:  eval "$(_QKD_APP_COMPLETE=bash_source qkd-app)"
    (or zsh_source, fish_source).
    """


_u32 = click.IntRange(0, U32_MAX)
_peer = click.option(
    "--peer", required=True, shell_complete=_complete_application, help="URI or name of the other application."
)


def _timeout[F: Callable[..., Any]](most: int) -> Callable[[F], F]:
    return click.option(
        "--timeout",
        type=click.IntRange(0, most),
        default=DEFAULT_TIMEOUT_MS,
        show_default=True,
        help="004 Timeout of every call, in ms.",
    )


_paths = click.option(
    "--disjoint-paths",
    "paths",
    type=click.IntRange(1, MAX_DISJOINT_PATHS),
    default=1,
    metavar="K",
    help="Key that fewer than K relay nodes together know nothing of, or none.",
)


@main.command("open")
@_peer
@click.option("--ksid", type=click.UUID, help="Join this key stream, or agree on this identifier beforehand.")
@click.option(
    "--chunk-size", type=click.IntRange(1, MAX_KEY_CHUNK_SIZE), default=KEY_SIZE, show_default=True, help="Octets."
)
@_timeout(U32_MAX)
@click.option("--ttl", type=_u32, default=0, help="Seconds that unread key is kept.")
@click.option("--max-bps", type=_u32, default=0, help="Most key needed, bit/s.")
@click.option("--min-bps", type=_u32, default=0, help="Least key needed, bit/s.")
@click.option("--jitter", type=_u32, default=0, help="Deviation of the rate, bit/s.")
@click.option("--priority", type=_u32, default=0)
@_paths
@_command
async def open_(caller: Caller, peer: str, ksid: uuid.UUID | None, paths: int, **qos: int) -> None:
    """Open a key stream with another application, or join the one it opened.

    0 leaves a figure of the quality of service to the network.
    """
    wanted = Qos(key_chunk_size=qos.pop("chunk_size"), **qos)  # type: ignore[arg-type]
    async with caller.client() as client:
        asked = f"?disjoint-paths={paths}" if paths > 1 else ""
        reply = await client.open_connect(
            caller.identity.uri, caller.peer(peer) + asked, wanted, str(ksid) if ksid else None
        )
    status = {"status": reply.status.value, "status_name": reply.status.name}
    _print(caller, {"ksid": reply.ksid, **status, "qos": dataclasses.asdict(reply.qos)})


@main.command("get")
@click.argument("ksid", type=click.UUID)
@click.option("--index", type=click.IntRange(0, NEXT_INDEX - 1), help="First chunk; the next one when not given.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="How many chunks.")
@click.option("--show", is_flag=True, help="Print the keys themselves, in hex.")
@_command
async def get(caller: Caller, ksid: uuid.UUID, index: int | None, count: int, show: bool) -> None:
    """Get keys of a key stream.

    Shows index, length and fingerprint (the first 16 hex digits of SHA-256) of each, not the key, so that two ends can be
    compared in the open. "The next one" is an extension: nodes of other makers want --index.
    """
    keys: list[dict[str, Any]] = []
    try:
        async with caller.client() as client:
            for number in range(count):
                chunk = await client.get_key(str(ksid), None if index is None else index + number)
                keys.append(_describe(chunk, show))
                chunk.wipe()
                if not caller.json:
                    click.echo(_text(keys[-1]))
    finally:
        if caller.json:  # what was got before a failure is not lost
            click.echo(json.dumps({"ksid": str(ksid), "keys": keys}))


def _describe(chunk: KeyChunk, show: bool) -> dict[str, Any]:
    described = {
        "index": chunk.index,
        "length": len(chunk.key),
        "fingerprint": hashlib.sha256(chunk.key).hexdigest()[:16],
    }
    age, hops = chunk.metadata.get("age"), chunk.metadata.get("hops")
    described |= {name: value for name, value in (("age_ms", age), ("hops", hops)) if isinstance(value, int)}
    return described | ({"key": chunk.key.hex()} if show else {})


@main.command("close")
@click.argument("ksid", type=click.UUID)
@_command
async def close(caller: Caller, ksid: uuid.UUID) -> None:
    """Close this end of a key stream."""
    async with caller.client() as client:
        await client.close(str(ksid))
    _print(caller, {"ksid": str(ksid), "closed": True})


# ETSI 014 ------------------------------------------------------------------------------------------------------------

_slave = click.argument("slave", shell_complete=_complete_application)


@main.command("key-status")
@_slave
@_command
async def key_status(caller: Caller, slave: str) -> None:
    """What the node has of keys for this application and SLAVE (014 "Get status")."""
    async with caller.rest() as client:
        status = await client.status(caller.sae(slave))
    _print(caller, {name: value for name in status.__struct_fields__ if (value := getattr(status, name)) is not None})


@main.command("enc-keys")
@_slave
@click.option("--number", type=click.IntRange(1), default=1, show_default=True, help="How many keys.")
@click.option("--size", type=click.IntRange(1), help="Bits of each; the node's usual size when not given.")
@click.option("--also", multiple=True, shell_complete=_complete_application, help="A further slave of the same keys.")
@click.option("--show", is_flag=True, help="Print the keys themselves, in hex.")
@_paths
@_command
async def enc_keys(
    caller: Caller, slave: str, number: int, size: int | None, also: tuple[str, ...], show: bool, paths: int
) -> None:
    """Get new keys to share with SLAVE (014 "Get key"), who fetches them by the ids shown.

    Shows id, length and fingerprint of each, not the key. A key is delivered once: with --show or not at all.
    """
    async with caller.rest() as client:
        keys = await client.enc_keys(caller.sae(slave), number, size, [caller.sae(one) for one in also], paths)
    _print_keys(caller, keys, show)


@main.command("dec-keys")
@click.argument("master", shell_complete=_complete_application)
@click.argument("key_ids", metavar="KEY_ID...", nargs=-1, required=True, type=click.UUID)
@click.option("--show", is_flag=True, help="Print the keys themselves, in hex.")
@_command
async def dec_keys(caller: Caller, master: str, key_ids: tuple[uuid.UUID, ...], show: bool) -> None:
    """Get the keys that MASTER has got for this application (014 "Get key with key IDs"): all of them or none, once."""
    async with caller.rest() as client:
        keys = await client.dec_keys(caller.sae(master), [str(one) for one in key_ids])
    _print_keys(caller, keys, show)


def _print_keys(caller: Caller, keys: dict[str, bytearray], show: bool) -> None:
    shown = []
    for key_id, key in keys.items():
        fingerprint = hashlib.sha256(key).hexdigest()[:16]
        shown.append(
            {"key_id": key_id, "length": len(key), "fingerprint": fingerprint} | ({"key": key.hex()} if show else {})
        )
        key[:] = bytes(len(key))
    if caller.json:
        click.echo(json.dumps({"keys": shown}))
    else:
        click.echo("\n".join(map(_text, shown)))


@main.command("send")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_peer
@click.option("--to", type=Address(), required=True, help="Where the peer's `qkd-app receive` listens.")
@_timeout(MAX_TIMEOUT_MS)
@_command
async def send(caller: Caller, file: Path, peer: str, to: tuple[str, int], timeout: int) -> None:
    """Send a file, every 1 MiB of it encrypted (AES-256-GCM) under a quantum key of its own.

    Ends well only when the receiver has confirmed that it has the file whole.
    """
    source, destination = caller.identity.uri, caller.peer(peer)
    with Bars() as bars:
        async with caller.client() as client:
            qos = Qos(key_chunk_size=KEY_SIZE, timeout=timeout)
            transfer = await send_file(client, file, source, destination, to, qos, bars.show)
    _print_transfer(caller, transfer)


@main.command("receive")
@click.option("--listen", type=Address(), required=True, help="Where to wait for senders.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory for the files.")
@click.option("--peer", shell_complete=_complete_application, help="Take files from this application only.")
@click.option("--count", type=click.IntRange(0), default=1, show_default=True, help="End after so many files; 0: never.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@_command
async def receive(caller: Caller, listen: tuple[str, int], out: Path, peer: str | None, count: int, overwrite: bool) -> None:
    """Receive files into a directory.

    A file appears under its name only when it is there whole; what fails leaves nothing behind.
    """
    await asyncio.to_thread(out.mkdir, parents=True, exist_ok=True)
    enough, left = asyncio.Event(), count

    def finished(transfer: Transfer) -> None:
        nonlocal left
        _print_transfer(caller, transfer)
        left -= 1
        if left == 0:
            enough.set()

    def failed(error: ClientError) -> None:
        click.echo(json.dumps(_error(error)) if caller.json else f"Error: {error}", err=True)

    with Bars() as bars:
        receiver = Receiver(
            caller.client,
            caller.identity.uri,
            out,
            finished=finished,
            failed=failed,
            progress=bars.show,
            overwrite=overwrite,
            only_from=caller.peer(peer) if peer else None,
        )
        host, port = await receiver.start(*listen)
        click.echo(f"waiting for files at {host}:{port}", err=True)
        try:
            await enough.wait()
        finally:
            await receiver.stop()


def _print_transfer(caller: Caller, transfer: Transfer) -> None:
    _print(caller, dataclasses.asdict(transfer) | {"path": str(transfer.path)})


class Bars:
    """A progress bar per file, on standard error when that is a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._progress = Progress(
            TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(escape(name), total=total)
        self._progress.update(self._tasks[name], completed=done)


if __name__ == "__main__":
    main(prog_name="qkd-app")
