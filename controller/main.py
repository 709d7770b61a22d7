"""`qkd-controller`: reads its configuration, connects to the nodes, serves the API over TLS, ends cleanly when told."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import uvicorn
import uvloop

from qswitch.protocol.loglines import log_to_stderr

from .config import ControllerConfig, load
from .errors import ConfigurationError, ControllerError
from .northbound.api import make_app
from .service import Service
from .store.sqlite import SqliteStore

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn without handling of signals, which the controller does itself; `up` is set when it has begun or failed to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "file", type=click.Path(path_type=Path), required=True, help="The controller's TOML file.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Gets the line 'ready' when the API is served.")
@click.option("-v", "--verbose", is_flag=True, help="Log what is sent to and heard from nodes.")
@click.version_option(package_name="quantum-switch")
def main(file: Path, ready_file: Path | None, verbose: bool) -> None:
    """Run the SDN controller of a QKD network.

    It connects to every node of its configuration by NETCONF, joins them by links, assigns key streams to links, and offers
    what it knows and does as an HTTPS API, which qkdctl uses. SIGTERM ends it; the nodes go on as they are.
    """
    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    for noisy in ("ncclient", "asyncssh", "uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        config = load(file)
        token = _token(config)
        uvloop.run(_run(config, token, ready_file))
    except ConfigurationError as error:
        click.echo(f"qkd-controller: {error}", err=True)
        sys.exit(2)
    except (ControllerError, OSError) as error:
        click.echo(f"qkd-controller: {error}", err=True)
        sys.exit(1)


def _token(config: ControllerConfig) -> str:
    """The bearer token of the API; a random one is written where there is none yet."""
    path = config.token_file
    try:
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(32) + "\n", encoding="utf-8")
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(str(config.file), f"[controller] token_file: {error}") from error
    if not token:
        raise ConfigurationError(str(config.file), f"[controller] token_file: {path} is empty")
    return token


async def _run(config: ControllerConfig, token: str, ready_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
    service = Service(config, SqliteStore(config.state_dir / "controller.sqlite"))
    await service.start()
    try:
        await _serve(config, token, service, ready_file, stop)
    finally:
        await service.stop()


async def _serve(
    config: ControllerConfig, token: str, service: Service, ready_file: Path | None, stop: asyncio.Event
) -> None:
    server = _Server(
        uvicorn.Config(
            make_app(service, token),
            host=config.listen.host,
            port=config.listen.port,
            ssl_certfile=str(config.certificate),
            ssl_keyfile=str(config.private_key),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
        )
    )
    serving = asyncio.create_task(_guarded(server), name="api")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await server.up.wait()
    if server.started:
        log.info("serving address=%s port=%d", config.listen.host, config.listen.port)
        if ready_file is not None:
            await asyncio.to_thread(ready_file.write_text, "ready\n", encoding="utf-8")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving


async def _guarded(server: _Server) -> None:
    """uvicorn ends the process when it cannot listen; here that is an error like any other."""
    try:
        await server.serve()
    except SystemExit as error:
        host, port = server.config.host, server.config.port
        raise ControllerError(f"the API cannot be served on {host} port {port}: see the log") from error


if __name__ == "__main__":
    main()
