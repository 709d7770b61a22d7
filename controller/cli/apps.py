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
