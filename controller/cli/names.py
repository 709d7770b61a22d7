"""Names that operators use for links: an id, the unique beginning of one, or the two ends, as in quiron-quijote.

The controller itself knows names and beginnings of ids; only the spelling by the ends is made here.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .client import Controller

# The beginning of a UUID; `a-b`, which has no dash where a UUID has one, is two ends.
_ID = re.compile(r"[0-9a-f]{1,8}|[0-9a-f]{8}-[0-9a-f-]*", re.IGNORECASE)


def ends(link: Mapping[str, Any]) -> str:
    """`Quiron-Quijote`."""
    return f"{link['source']['name']}-{link['destination']['name']}"


def _swapped(link: Mapping[str, Any]) -> str:
    return f"{link['destination']['name']}-{link['source']['name']}"


def link_id(controller: "Controller", which: str) -> str:
    """The id (or its beginning, left to the controller) of the link that `which` names. Raises ClickException."""
    if _ID.fullmatch(which):
        return which
    links = controller.get("/v1/links")
    matching = [one for one in links if which.lower() in (ends(one).lower(), _swapped(one).lower())]
    if len(matching) == 1:
        return str(matching[0]["link"])
    if not matching:
        raise click.ClickException(
            f"no link '{which}': give an id, its beginning, or two ends as in A-B (`qkdctl link list`)"
        )
    candidates = ", ".join(f"{one['link']} ({one['type']})" for one in matching)
    raise click.ClickException(f"several links join {which}: say which one of {candidates}")


def node_names(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Names by node id."""
    return {one["qkdn_id"]: one["name"] for one in nodes if one["qkdn_id"]}
