"""`qkdctl`: the operator's command line, a client of the controller's HTTP API and of nothing else."""

from pathlib import Path
from typing import Any

import click

from . import network
from .apps import app
from .completion import PROGRAM, complete_network, script
from .links import link
from .nodes import node
from .session import CONNECT_SECONDS, REPLY_SECONDS, Session, options_of, output_option


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-n",
    "--network",
    envvar="QKDCTL_NETWORK",
    show_envvar=True,
    metavar="NETWORK",
    shell_complete=complete_network,
    help="Which network: its descriptor (network.json), or its name under run/. Default: the only one there.",
)
@click.option("--url", envvar="QKDCTL_URL", show_envvar=True, help="The controller, as https://host:port.")
@click.option(
    "--ca",
    envvar="QKDCTL_CA",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Certificate (PEM) of the authority that vouches for the controller.",
)
@click.option(
    "--token-file",
    envvar="QKDCTL_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="File with the token that lets you in.",
)
@click.option(
    "--connect-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=CONNECT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to try to reach the controller.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=REPLY_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for an answer: the nodes may have work to do first.",
)
@output_option
@click.version_option(package_name="quantum-switch", prog_name=PROGRAM)
@click.pass_context
def main(context: click.Context, /, connect_timeout: float, timeout: float, **_options: Any) -> None:
    """Look at a quantum key distribution network and change it, by way of its controller.

    Nodes go by name or id, links by id or by their two ends as in quiron-quijote, key streams by id. The beginning of an id
    is enough. Nothing that qkdctl shows contains key.

    \b
    First steps:
      qkd-network up madrid                   start a whole network on this machine
      qkdctl topology                         nodes, links, rates, stored key
      qkdctl link create Quiron Quinto        a virtual link over trusted nodes
      qkdctl link show quiron-quinto          its route, and what each hop costs
      qkdctl events --follow                  what happens, as it happens
      eval "$(qkdctl completion bash)"        tab completes commands and names

    Exit status: 0 done, 1 refused or failed (one line on standard error), 2 wrong usage.
    """
    session = context.ensure_object(Session)
    session.options = options_of(context.params)
    session.connect_seconds, session.reply_seconds = connect_timeout, timeout


@main.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the script for tab completion in SHELL.

    It completes commands and the names of nodes, links and key streams.

    \b
    Examples:
      eval "$(qkdctl completion bash)"                                      in ~/.bashrc
      eval "$(qkdctl completion zsh)"                                       in ~/.zshrc
      qkdctl completion fish > ~/.config/fish/completions/qkdctl.fish
    """
    click.echo(script(main, shell))


main.add_command(node)
main.add_command(link)
main.add_command(app)
network.add_commands(main)

if __name__ == "__main__":
    main(prog_name=PROGRAM)
