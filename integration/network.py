"""`qkd-network`: emulated networks on one machine, every daemon the real one, only the quantum physics simulated."""

import asyncio
import functools
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from . import layout
from .emulation import AlreadyUp, Emulation, NotUp
from .layout import LayoutError
from .processes import StartFailed

RUN = Path("run")


def _directory(network: str, directory: Path | None) -> Path:
    return directory or RUN / Path(network).stem


def _guard[**P, T](command: Callable[P, T]) -> Callable[P, T]:
    """Turns the errors a user can do something about into one line and exit status 1."""

    @functools.wraps(command)
    def guarded(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except (LayoutError, NotUp, AlreadyUp, StartFailed) as error:
            raise click.ClickException(str(error)) from error

    return guarded


def _progress(text: str) -> None:
    click.echo(f"  {text}", err=True)


def _networks(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    shipped = [path.stem for path in Path(__file__).parent.glob("networks/*.toml")]
    return sorted(name for name in shipped if name.startswith(incomplete))


def _spans(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    try:
        network = Emulation(_directory(context.params.get("network") or "", context.params.get("directory")))
    except NotUp:
        return []
    return [one["name"] for one in network.descriptor["spans"] if one["name"].startswith(incomplete)]


directory_option = click.option(
    "--directory", type=click.Path(path_type=Path), help="Where the network lives; default run/NETWORK."
)
network_argument = click.argument("network", shell_complete=_networks)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="quantum-switch")
def main() -> None:
    """Run a whole QKD network on this machine.

    Every node gets its own datastore, key manager, NETCONF server and applications' certificates; a controller joins them.
    Only the quantum channel is simulated. The descriptor run/NETWORK/network.json tells other tools where everything is.

    \b
    qkd-network up madrid          nine nodes of the Madrid quantum network
    qkdctl topology                what the controller knows of it
    qkd-network cut madrid norte-concepcion
    qkd-network down madrid
    """


@main.command()
@network_argument
@directory_option
@click.option(
    "--engine",
    type=click.Choice(["auto", "netopeer2", "builtin"]),
    help="NETCONF server of the nodes; auto takes netopeer2 where it is installed. Default: what NETWORK says, else auto.",
)
@click.option("-v", "--verbose", is_flag=True, help="Daemons log everything that is worth knowing to a developer.")
@_guard
def up(network: str, directory: Path | None, engine: str | None, verbose: bool) -> None:
    """Start NETWORK, a shipped one or a .toml file, and wait until its physical links are ACTIVE.

    Ctrl-C takes down again what was started. What an earlier run left in the directory is replaced.
    """
    emulation = Emulation.create(layout.load(network), _directory(network, directory), engine)
    emulation.verbose = verbose
    try:
        asyncio.run(emulation.start(_progress))
    except BaseException:
        _progress("taking down what was started")
        asyncio.run(emulation.down())
        raise
    click.echo(f"{emulation.name} is up: {emulation.directory / 'network.json'}")


@main.command()
@network_argument
@directory_option
@_guard
def down(network: str, directory: Path | None) -> None:
    """End NETWORK: exactly the processes that were started for it. Logs and stores stay for a look."""
    emulation = Emulation(_directory(network, directory))
    for name in asyncio.run(emulation.down()):
        click.echo(f"warning: {name} did not end when asked and was killed", err=True)
    click.echo(f"{emulation.name} is down")


@main.command()
@network_argument
@directory_option
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@_guard
def status(network: str, directory: Path | None, output: str) -> None:
    """Show which processes of NETWORK run. Exit status 1 when one of them does not."""
    emulation = Emulation(_directory(network, directory))
    running = emulation.running()
    rows = [
        (one["name"], kind, one["pids"].get(kind), one["state_dir"])
        for one in emulation.descriptor["nodes"]
        for kind in ("agent", "netconf")
    ]
    rows.append(("(controller)", "controller", emulation.descriptor["controller"]["pids"].get("controller"), "controller"))
    result = [
        {"node": node, "process": kind, "pid": pid, "running": f"{home}/{kind}" in running} for node, kind, pid, home in rows
    ]
    if output == "json":
        click.echo(json.dumps(result, indent=2))
    else:
        table = Table("node", "process", "pid", "state")
        for one in result:
            table.add_row(
                one["node"], one["process"], str(one["pid"] or "-"), "running" if one["running"] else "not running"
            )
        Console().print(table)
    sys.exit(0 if all(one["running"] for one in result) else 1)


def _span_command(name: str, text: str, action: Callable[[Emulation, str], None]) -> None:
    @main.command(name, help=text)
    @network_argument
    @click.argument("span", shell_complete=_spans)
    @directory_option
    @_guard
    def command(network: str, span: str, directory: Path | None) -> None:
        emulation = Emulation(_directory(network, directory))
        action(emulation, span)
        click.echo(f"{span}: {name}")


_span_command("cut", "Cut the fibre of SPAN, as in norte-concepcion.", lambda network, span: network.set_cut(span, True))
_span_command("mend", "Mend the fibre of SPAN.", lambda network, span: network.set_cut(span, False))


def _process_command(name: str, text: str, action: Callable[[Emulation, str, str], Coroutine[Any, Any, None]]) -> None:
    @main.command(name, help=text)
    @network_argument
    @click.argument("node")
    @click.argument("process", type=click.Choice(["agent", "netconf"]))
    @directory_option
    @_guard
    def command(network: str, node: str, process: str, directory: Path | None) -> None:
        asyncio.run(action(Emulation(_directory(network, directory)), node, process))
        click.echo(f"{node} {process}: {name}")


async def _start(network: Emulation, node: str, process: str) -> None:
    if f"{network.home(node).name}/{process}" in network.running():
        raise AlreadyUp(f"{process} of {node} runs already")
    await network.start_process(node, process)


async def _kill(network: Emulation, node: str, process: str) -> None:
    await network.kill(f"{network.home(node).name}/{process}")


_process_command("start", "Start one PROCESS of a NODE again, as after 'kill'.", _start)
_process_command("kill", "Kill one PROCESS of a NODE with SIGKILL, to see what a crash does.", _kill)

if __name__ == "__main__":
    main()
