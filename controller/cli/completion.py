"""Tab completion: the commands, and the names of what the controller has now. Never says a word when it cannot."""

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from .access import DESCRIPTOR, RUN
from .names import ends
from .session import Session, options_of

PROGRAM = "qkdctl"
VARIABLE = "_QKDCTL_COMPLETE"
# A person waits with a finger on the key.
SECONDS = 2.0

type _Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completing(path: str, items: Callable[[list[Any]], list[CompletionItem]]) -> _Complete:
    """Completes from the list at `path`; upper and lower case are the same."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            values = _ask(context, path)
            return [one for one in items(values) if str(one.value).lower().startswith(incomplete.lower())]
        # Whatever it is: an error text in the middle of a command line helps nobody, and the command itself will tell.
        except Exception:
            return []

    return complete


def _ask(context: click.Context, path: str) -> list[Any]:
    """A shell that completes runs no command, so the options are taken from what it has parsed."""
    from .client import Controller

    root = context.find_root()
    session = Session(options_of(root.params), connect_seconds=SECONDS, reply_seconds=SECONDS)
    with Controller(session.access(), SECONDS, SECONDS) as controller:
        values = controller.get(path)
    return list(values)


def _node_items(values: list[Any]) -> list[CompletionItem]:
    return [CompletionItem(one["name"], help=f"{one['status']} {one['location']}".strip()) for one in values]


def _link_items(values: list[Any]) -> list[CompletionItem]:
    """By the two ends where these tell the link, and by id."""
    spelled = [ends(one) for one in values]
    by_ends = [
        CompletionItem(name, help=f"{one['type']} {one['status']}")
        for name, one in zip(spelled, values, strict=True)
        if spelled.count(name) == 1
    ]
    return by_ends + [CompletionItem(one["link"], help=f"{ends(one)} {one['type']}") for one in values]


def _app_items(values: list[Any]) -> list[CompletionItem]:
    return [
        CompletionItem(one["ksid"], help=f"{one['server_app_id']} - {', '.join(one['client_app_ids'])}") for one in values
    ]


complete_node = _completing("/v1/nodes", _node_items)
complete_link = _completing("/v1/links", _link_items)
complete_app = _completing("/v1/apps", _app_items)


def complete_network(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Networks that are up in this directory, and files."""
    names = sorted(path.parent.name for path in RUN.glob(f"*/{DESCRIPTOR}"))
    here = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return here or [CompletionItem(incomplete, type="file")]


def script(main: click.Command, shell: str) -> str:
    """What makes `shell` ask qkdctl for completions."""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    return kind(main, {}, PROGRAM, VARIABLE).source()
