"""`qkdctl path`, `topology`, `events`, `health`: the network as a whole."""

import json
import sys

import click

from . import views
from .completion import complete_node
from .session import Session, command
from .text import Bandwidth, printable

INTERRUPTED = 130
UNICODE, ASCII = ("├─ ", "└─ "), ("|- ", "`- ")


def add_commands(main: click.Group) -> None:
    """The commands that stand beside the groups."""
    for one in (_path, _topology, _events, _health):
        main.add_command(one)


_group = click.Group()


@command(_group, "path")
@click.argument("a", metavar="A", shell_complete=complete_node)
@click.argument("b", metavar="B", shell_complete=complete_node)
@click.option("--bandwidth", type=Bandwidth(), help="Rate that must be free all the way, in bit/s: 2500, 10k, 1.5M.")
@click.option(
    "--disjoint-paths", "paths", type=click.IntRange(1, 8), metavar="K", help="K paths that share no node between."
)
def _path(session: Session, a: str, b: str, bandwidth: int | None, paths: int | None) -> None:
    """Show the route that a virtual link from A to B would take now.

    Changes nothing. Exits with 1, and says what is in the way, when there is none.

    \b
    Examples:
      qkdctl path Quiron Quinto
      qkdctl path Quiron Distrito --bandwidth 50k
      qkdctl path Quiron Distrito --disjoint-paths 2
    """
    value = session.controller.get("/v1/path", source=a, destination=b, bandwidth_bps=bandwidth, disjoint_paths=paths)
    session.show(value, views.path)


@command(_group, "topology")
def _topology(session: Session) -> None:
    """Show every node with its links, their rates and stored key.

    \b
    Examples:
      qkdctl topology
      watch qkdctl topology
      qkdctl topology -o json > network-state.json
    """
    value = session.controller.get("/v1/topology")
    session.show(value, lambda one: views.topology(one, _branches(sys.stdout.encoding)))


def _branches(encoding: str | None) -> tuple[str, str]:
    try:
        "".join(UNICODE).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


@command(_group, "events")
@click.option("-f", "--follow", is_flag=True, help="Go on with each new event; Ctrl-C ends.")
def _events(session: Session, follow: bool) -> None:
    """Show what happened in the network, oldest first. Times are UTC.

    With --output json there is one object a line, with --follow and without.

    \b
    Examples:
      qkdctl events
      qkdctl events --follow
      qkdctl events --follow -o json | jq -r 'select(.type == "link_down").link'
    """
    try:
        for one in session.controller.events(follow):
            click.echo(json.dumps(one, ensure_ascii=False) if session.wants_json else printable(views.event(one)))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if follow:
        raise click.ClickException("the controller ended the event stream (it is stopping, or was too far ahead)")


@command(_group, "health")
def _health(session: Session) -> None:
    """Show how the controller and its network are. Exits with 1 when it is not ok.

    \b
    Examples:
      qkdctl health
      qkdctl health > /dev/null || echo "look into it"
    """
    value = session.controller.get("/v1/health")
    session.show(value, views.health)
    if value["status"] != "ok":
        sys.exit(1)
