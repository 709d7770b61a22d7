"""`qkd-netconf`: the NETCONF front end of a node."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import click

from ..config import RepositoryConfig, load_front
from ..errors import ConfigurationError, NodeError
from ..repository import MARKER, enter
from . import engine
from .engine import Engine, Netopeer2

log = logging.getLogger(__name__)


_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--config", "file", required=True, type=_FILE, help="The agent's TOML file.")
@click.option(
    "--engine", "wanted", type=click.Choice(list(map(str, Engine))), help="Which server to run, whatever the file says."
)
@click.option("--ready-file", type=_FILE, help="Written once the server serves.")
@click.option("--verbose", is_flag=True, help="Log more.")
def main(file: Path, wanted: str | None, ready_file: Path | None, verbose: bool) -> None:
    """Serves NETCONF for a node: whatever stands in its datastore, to whom it may.

    Of the file only [node] repository and shm_prefix are read; endpoints, host keys and users stand in the datastore.
    """
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        front = load_front(file)
        chosen = engine.choose(Engine(wanted) if wanted else front.engine)
        sys.exit(run(front.repository, chosen, ready_file, verbose))
    except NodeError as error:
        raise click.ClickException(str(error)) from error


def run(repository: RepositoryConfig, chosen: Engine, ready_file: Path | None, verbose: bool) -> int:
    """Serves until SIGTERM or SIGINT; the exit code. Raises NodeError when it cannot start."""
    # uvloop is imported where a loop is made, so that `--help` stays quick.
    import uvloop

    if not (repository.path / MARKER).exists():
        # Connecting would make an empty one, in the way of the agent's.
        raise ConfigurationError(
            str(repository.path), "this repository is not set up; start qkd-agent first, or qkd-agent prepare"
        )
    enter(repository)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)

    async def serve() -> int:
        stop = asyncio.Event()
        for number in signal.SIGTERM, signal.SIGINT:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

        def ready() -> None:
            if ready_file is not None:
                ready_file.write_text("ready\n", encoding="utf-8")

        if chosen is Engine.NETOPEER2:
            return await Netopeer2(repository, verbose).run(stop, ready)
        from .builtin import serve as serve_builtin

        return await serve_builtin(stop, ready)

    try:
        return uvloop.run(serve())
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
