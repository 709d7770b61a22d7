"""`qkdctl node`."""

from urllib.parse import quote

import click

from . import views
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
