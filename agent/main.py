"""`qkd-agent`: one SD-QKD node in one process.

Exit status: 0 after SIGTERM or SIGINT, 2 for a configuration that cannot be used, 1 for everything else.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click
import uvloop

from qswitch.protocol.loglines import log_to_stderr

from . import hardening, repository
from .config import AgentConfig, load
from .errors import ConfigurationError, NodeError
from .key_commands import keys
from .lkms import master_key

log = logging.getLogger(__name__)

_CONFIG = click.option(
    "--config",
    "file",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The agent's TOML file; paths in it are relative to it.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("quantum-switch"), prog_name="qkd-agent")
def main() -> None:
    """The agent of an SD-QKD node: key management, QKD devices, ETSI 004 and 014, the ETSI 015 datastore.

    \b
    qkd-agent run --config agent.toml
    qkd-agent keys status --config agent.toml
    """


@main.command()
@_CONFIG
@click.option(
    "--ready-file",
    metavar="PATH",
    type=click.Path(path_type=Path, resolve_path=True),
    help="File that is created, with the line `ready`, once the node serves.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log everything that is worth knowing to a developer.")
def run(file: Path, ready_file: Path | None, verbose: bool) -> None:
    """Runs the node in the foreground until SIGTERM or SIGINT. Prepares its datastore at the first start."""
    hardening.harden()
    hardening.take_descriptors()
    _log(verbose)
    sys.exit(_guarded(lambda: _run(load(file), ready_file)))


main.add_command(keys)


@main.command()
@_CONFIG
@click.option("-v", "--verbose", is_flag=True, help="Log everything that is worth knowing to a developer.")
def prepare(file: Path, verbose: bool) -> None:
    """Sets up the node's datastore without running the node. Does nothing where it is set up."""
    _log(verbose)
    sys.exit(_guarded(lambda: repository.prepare(load(file))))


def _guarded(work: Callable[[], None]) -> int:
    """The exit status; what an operator can mend is told without a trace."""
    try:
        work()
    except ConfigurationError as error:
        click.echo(f"qkd-agent: {error}", err=True)
        return 2
    except (NodeError, OSError) as error:
        click.echo(f"qkd-agent: {error}", err=True)
        return 1
    except Exception:
        log.critical("the agent has a defect", exc_info=True)
        return 1
    return 0


def _log(verbose: bool) -> None:
    level = logging.DEBUG if verbose else logging.INFO
    log_to_stderr(level)
    logging.getLogger("asyncio").setLevel(logging.INFO)


def _run(config: AgentConfig, ready_file: Path | None) -> None:
    source = master_key.held(config.lkms.master_key)  # before anything is started that would inherit it
    config = replace(config, lkms=replace(config.lkms, master_key=source))
    repository.prepare(config)
    os.chdir(config.file.parent)  # what plugins find in their options is relative to the file, too
    # Only now: sysrepo reads the repository's place from the environment, which `prepare` has set.
    from .node import Node

    async def serve() -> None:
        ended = _ended()
        node = Node(config)
        try:
            starting = asyncio.ensure_future(node.start())
            await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                _tell_ready(ready_file)
                await asyncio.wait({ended, node.failed}, return_when=asyncio.FIRST_COMPLETED)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
        finally:
            await node.stop()
        if node.failed.done():
            node.failed.result()

    uvloop.run(serve())


def _ended() -> asyncio.Future[None]:
    """Done on SIGTERM or SIGINT; a second signal finds the process ending already."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    return ended


def _tell_ready(ready_file: Path | None) -> None:
    log.info("ready")
    if ready_file is not None:
        ready_file.write_text("ready\n", encoding="ascii")


if __name__ == "__main__":
    main()
