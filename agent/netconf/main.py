"""`qkd-netconf`: the NETCONF front end of a node."""

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from qswitch.protocol.loglines import log_to_stderr

from ..config import Engine, FrontConfig, load_front
from ..errors import ConfigurationError, NodeError
from ..repository import MARKER, enter
from . import engine, versions
from .engine import Netopeer2
from .eventlog import EventLog
from .netopeer2 import PROGRAM

log = logging.getLogger(__name__)

_FILE = click.Path(dir_okay=False, path_type=Path)


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(versions.report(PROGRAM))
        context.exit()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "file", required=True, type=_FILE, help="The agent's TOML file.")
@click.option(
    "--engine",
    "wanted",
    type=click.Choice(list(map(str, Engine))),
    help="Which server runs: netopeer2, the builtin one, or auto: netopeer2 where it is installed. "
    "Default: what the file says, else auto.",
)
@click.option("--ready-file", type=_FILE, help="Written once the server serves, removed at the end.")
@click.option("--verbose", is_flag=True, help="Log more.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="What runs here, and exit."
)
def main(file: Path, wanted: str | None, ready_file: Path | None, verbose: bool) -> None:
    """Serves NETCONF for a node: whatever stands in its datastore, to whom it may.

    Of the file only [node] repository and shm_prefix, [netconf] engine and [netconf.netopeer2] are read. Where the server
    listens, its keys, who may log in and who may do what stand in the datastore: ietf-netconf-server, ietf-keystore,
    ietf-truststore and ietf-netconf-acm, for both engines alike. qkd-agent writes them at its first start.

    Stays in the foreground, logs to standard error, ends on SIGTERM or SIGINT with exit status 0. One repository has one
    server at a time.

    \b
    qkd-netconf --config agent.toml
    qkd-netconf --config agent.toml --engine netopeer2 --verbose
    qkd-netconf --version
    """
    level = logging.DEBUG if verbose else logging.INFO
    log_to_stderr(level)
    logging.getLogger("asyncssh").setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        front = load_front(file)
        chosen = engine.choose(Engine(wanted) if wanted else front.engine)
        sys.exit(run(front, chosen, ready_file, verbose))
    except NodeError as error:
        raise click.ClickException(str(error)) from error


def run(front: FrontConfig, chosen: Engine, ready_file: Path | None, verbose: bool) -> int:
    """Serves until SIGTERM or SIGINT; the exit code. Raises NodeError when it cannot start."""
    # uvloop is imported where a loop is made, so that `--help` stays quick.
    import uvloop

    path = front.repository.path
    if not (path / MARKER).exists():
        # Connecting would make an empty one, in the way of the agent's.
        raise ConfigurationError(str(path), "this repository is not set up; start qkd-agent first, or qkd-agent prepare")
    enter(front.repository)
    # A session with a subscription takes half a dozen descriptors; the usual 1024 would be used up by the first 150.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def serve(ready: Callable[[], None]) -> int:
        stop = asyncio.Event()
        for number in signal.SIGTERM, signal.SIGINT:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        keeping = asyncio.create_task(EventLog(path).keep())
        try:
            if chosen is Engine.NETOPEER2:
                return await Netopeer2(front, verbose).run(stop, ready)
            from .builtin import serve as serve_builtin

            return await serve_builtin(stop, ready)
        finally:
            keeping.cancel()

    with _only_one(path), _told(ready_file) as ready:
        return uvloop.run(serve(ready))


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """The right to serve a repository; it goes with the process. Raises ConfigurationError when another has it."""
    try:
        lock = os.open(path / "netconf.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(str(path), f"the repository is not writable: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigurationError(str(path), "another qkd-netconf serves this repository") from error
    finally:
        os.close(lock)


@contextlib.contextmanager
def _told(file: Path | None) -> Iterator[Callable[[], None]]:
    """What writes the file that says the server serves; an old one goes, and so does this one at the end."""
    if file is None:
        yield lambda: None
        return
    file.unlink(missing_ok=True)
    try:
        yield lambda: _write(file)
    finally:
        file.unlink(missing_ok=True)


def _write(file: Path) -> None:
    file.write_text("ready\n", encoding="utf-8")


if __name__ == "__main__":
    main()
