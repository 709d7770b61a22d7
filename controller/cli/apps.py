"""`qkdctl app`."""

from urllib.parse import quote

import click

from . import views
from .completion import complete_app
from .names import node_names
from .session import Session, command


@click.group()
def app() -> None:
    """Applications: their key streams and backing links."""


@command(app, "list")
def list_(session: Session) -> None:
    """List the key streams of all applications.

    \b
    Examples:
      qkdctl app list
      qkdctl app list -o json | jq '.[] | {ksid, route, consumed_bits}'
    """
    session.show(session.controller.get("/v1/apps"), views.apps)


@command(app, "show")
@click.argument("ksid", shell_complete=complete_app)
def show(session: Session, ksid: str) -> None:
    """Show a key stream: who uses it, over which route and links, with what quality of service.

    KSID is the key stream's id or the beginning of one.

    \b
    Examples:
      qkdctl app show 3f1b8f9e
    """
    value = session.controller.get(f"/v1/apps/{quote(ksid, safe='')}")
    session.show(value, lambda one: views.app(one, node_names(session.controller.get("/v1/nodes"))))


@command(app, "share")
@click.argument("ksid", shell_complete=complete_app)
@click.argument("clients", metavar="CLIENT…", nargs=-1, required=True)
def share(session: Session, ksid: str, clients: tuple[str, ...]) -> None:
    """Name the client applications that share a key stream's key: each is given each key once.

    A CLIENT is an application's URI; all live at the node where the stream's client does. Those that were named before and
    are not any more get no more key; a single one has the stream for itself again.

    \b
    Examples:
      qkdctl app share 3f1b8f9e qkd://QKDN_ID/quinto-1 qkd://QKDN_ID/quinto-2
    """
    value = session.controller.put(f"/v1/apps/{quote(ksid, safe='')}/clients", {"clients": list(clients)})
    session.show(value, lambda one: views.app(one, node_names(session.controller.get("/v1/nodes"))))
