"""`qkdctl link`."""

import sys
import time
from typing import Any
from urllib.parse import quote
from uuid import UUID

import click

from . import views
from .completion import complete_link, complete_node
from .names import ends, link_id, node_names
from .session import Session, command
from .text import Bandwidth, printable

POLL_SECONDS = 0.25


@click.group()
def link() -> None:
    """Links: physical over a fibre, virtual over trusted nodes."""


@command(link, "list")
@click.option("--type", "kind", type=click.Choice(("phys", "virt"), case_sensitive=False), help="Only links of this type.")
def list_(session: Session, kind: str | None) -> None:
    """List all links.

    \b
    Examples:
      qkdctl link list
      qkdctl link list --type virt
      qkdctl link list -o json | jq '.[] | {link, status, skr_bps}'
    """
    links = session.controller.get("/v1/links")
    session.show([one for one in links if kind is None or one["type"] == kind.upper()], views.links)


@command(link, "show")
@click.argument("link", shell_complete=complete_link)
def show(session: Session, link: str) -> None:
    """Show a link: its route, the key stores at both ends, and what relaying costs at each hop.

    LINK is an id, the beginning of one, or the two ends as in A-B.

    "Pad spent" is one-time pad (and tag key) taken from the physical link to the next hop; "held" is relayed key that is
    in a node's memory at this moment, normally none.

    \b
    Examples:
      qkdctl link show quiron-quijote
      qkdctl link show 1f0c
    """
    value = _get(session, link)
    session.show(value, lambda one: views.link(one, _names(session)))


@command(link, "create")
@click.argument("a", metavar="A", shell_complete=complete_node)
@click.argument("b", metavar="B", shell_complete=complete_node)
@click.option(
    "--type",
    "kind",
    type=click.Choice(("phys", "virt"), case_sensitive=False),
    default="virt",
    show_default=True,
    help="phys: over a fibre between neighbours. virt: relayed, by a route the controller chooses.",
)
@click.option("--bandwidth", type=Bandwidth(), help="Rate to fill a virtual link with, in bit/s: 2500, 10k, 1.5M.")
@click.option(
    "--disjoint-paths",
    "paths",
    type=click.IntRange(1, 8),
    metavar="K",
    help="Relay K keys over paths that share no node between A and B; the link's key is their XOR.",
)
@click.option("--id", "identifier", type=click.UUID, help="Id of the new link; one is made up otherwise.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait so long at most until it is ACTIVE.")
def create(
    session: Session,
    a: str,
    b: str,
    kind: str,
    bandwidth: int | None,
    paths: int | None,
    identifier: UUID | None,
    wait: float | None,
) -> None:
    """Create a link between the nodes A and B.

    All nodes of the route take it, or none does. It is PENDING at first and ACTIVE once it makes key.

    With --disjoint-paths 2 no single relay node knows the key. Where the network has not that many paths, the answer
    says how many there are and which nodes they all pass through.

    \b
    Examples:
      qkdctl link create Quiron Quinto --bandwidth 10k
      qkdctl link create Quiron Quinto --disjoint-paths 2
      qkdctl link create Norte Distrito --type phys --wait 30
      link=$(qkdctl link create Quiron Quinto -o json | jq -r .link)
    """
    body: dict[str, Any] = {"type": kind.upper(), "source": a, "destination": b}
    if bandwidth is not None:
        body["bandwidth_bps"] = bandwidth
    if paths is not None:
        body["disjoint_paths"] = paths
    if identifier is not None:
        body["link"] = str(identifier)
    value = session.controller.post("/v1/links", body)
    if wait is not None:
        value = _until_active(session, value, wait)
    session.show(value, lambda one: views.link(one, _names(session)))


@command(link, "delete")
@click.argument("link", shell_complete=complete_link)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(session: Session, link: str, yes: bool) -> None:
    """Delete a link. What is left of its key is erased at both ends.

    Refused while applications use it. Asks first when run at a terminal.

    \b
    Examples:
      qkdctl link delete 1f0c
      qkdctl link delete quiron-quinto --yes
    """
    value = _get(session, link)
    described = f"{value['type']} link {value['link']} {ends(value)}"
    if sys.stdin.isatty() and not yes:
        click.confirm(printable(f"Delete {described}, {value['status']}?"), abort=True, err=True)
    session.controller.delete(f"/v1/links/{value['link']}")
    session.show({"deleted": value["link"]}, lambda _: [f"Deleted {described}."])


def _get(session: Session, which: str) -> dict[str, Any]:
    value: dict[str, Any] = session.controller.get(f"/v1/links/{quote(link_id(session.controller, which), safe='')}")
    return value


def _names(session: Session) -> dict[str, str]:
    return node_names(session.controller.get("/v1/nodes"))


def _until_active(session: Session, value: dict[str, Any], seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while value["status"] != "ACTIVE":
        if time.monotonic() >= deadline:
            raise click.ClickException(f"link {value['link']} was created, but is {value['status']} after {seconds:g} s")
        time.sleep(POLL_SECONDS)
        value = session.controller.get(f"/v1/links/{value['link']}")
    return value
