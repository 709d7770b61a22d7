"""`qkdctl node`."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import click

from . import checks, views
from .completion import complete_node
from .session import Session, command


@click.group()
def node() -> None:
    """Quantum nodes and what stands in them."""


@command(node, "list")
def list_(session: Session) -> None:
    """List all nodes.

    \b
    Examples:
      qkdctl node list
      qkdctl node list -o json | jq -r '.[] | select(.connected | not).name'
    """
    session.show(session.controller.get("/v1/nodes"), views.nodes)


@command(node, "show")
@click.argument("node", shell_complete=complete_node)
def show(session: Session, node: str) -> None:
    """Show a node: its services, interfaces, links and applications.

    NODE is a name, an id, or the beginning of an id.

    \b
    Examples:
      qkdctl node show Quijote
      qkdctl node show 6d5f
    """
    value = session.controller.get(f"/v1/nodes/{quote(node, safe='')}")
    session.show(value, lambda one: views.node(one, session.controller.get("/v1/topology")))


CHECKS_AT_ONCE = 8


@command(node, "check")
@click.argument("node", required=False, shell_complete=complete_node)
@click.option("--all", "every", is_flag=True, help="Check every node that the controller looks after.")
def check(session: Session, node: str | None, every: bool) -> None:
    """Look a node over: connect to it anew, and say what was agreed, what is allowed, and what is wrong.

    The controller does it, the way it is configured for the node, and changes nothing there. Exit status 1 when a node is
    not well.

    \b
    Examples:
      qkdctl node check Quijote
      qkdctl node check --all
      qkdctl node check --all -o json | jq -r '.[] | select(.well | not) | .node'
    """
    if every == (node is not None):
        raise click.UsageError("say which NODE, or --all")
    controller = session.controller

    def one(name: str) -> Any:
        return controller.post(f"/v1/nodes/{quote(name, safe='')}/check", {})

    if node is not None:
        values = [one(node)]
        session.show(values[0], checks.node)
    else:
        names = [found["name"] for found in controller.get("/v1/nodes")]
        with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
            values = list(pool.map(one, names))
        session.show(values, checks.nodes)
    if not all(value["well"] for value in values):
        raise click.exceptions.Exit(1)
