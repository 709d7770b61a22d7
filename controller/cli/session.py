"""What every command of qkdctl shares: the way to the controller, and how results are written.

Commands start before anything of this is looked up, so that `--help` and usage errors need no controller.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import click

from . import access
from .access import Access, AccessOptions
from .text import printable

if TYPE_CHECKING:
    from .client import Controller
    from .grid import Grid

CONNECT_SECONDS, REPLY_SECONDS = 5.0, 60.0


@dataclass
class Session:
    """One run of qkdctl."""

    options: AccessOptions = field(default_factory=AccessOptions)
    output: str = "table"
    connect_seconds: float = CONNECT_SECONDS
    reply_seconds: float = REPLY_SECONDS
    _controller: "Controller | None" = None

    @property
    def controller(self) -> "Controller":
        """Connected on first use, closed with the command."""
        if self._controller is None:
            # Imported here: the HTTP client takes longer to load than all of qkdctl, and `--help` needs none.
            from .client import Controller

            self._controller = Controller(self.access(), self.connect_seconds, self.reply_seconds)
            click.get_current_context().find_root().call_on_close(self._controller.close)
        return self._controller

    def access(self) -> Access:
        """Raises ClickException when the options do not lead to a controller."""
        return access.find(self.options)

    @property
    def wants_json(self) -> bool:
        return self.output == "json"

    def show(self, value: Any, render: "Callable[[Any], Iterable[Grid | str]]") -> None:
        """Writes a value as JSON, or as the parts that `render` makes of it."""
        if self.wants_json:
            click.echo(json.dumps(value, indent=2, ensure_ascii=False))
            return
        for part in render(value):
            if isinstance(part, str):
                click.echo(printable(part))
            else:
                part.write(sys.stdout)


def options_of(parameters: Mapping[str, Any]) -> AccessOptions:
    """The access options among the global ones; empty ones (an empty variable in the environment) count as not given."""
    return AccessOptions(**{one.name: parameters.get(one.name) or None for one in fields(AccessOptions)})


pass_session = click.make_pass_decorator(Session, ensure=True)


def _choose_output(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).output = value


def output_option[**P, T](command: Callable[P, T]) -> Callable[P, T]:
    """`--output`, accepted before and after a command alike."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(("table", "json")),
        expose_value=False,
        callback=_choose_output,
        help="table for people (the default), json for programs.",
    )(command)


def command(group: click.Group, name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Declares a command of `group` that gets the Session first and takes `--output`."""

    def declare(function: Callable[..., None]) -> click.Command:
        return group.command(name)(output_option(pass_session(function)))

    return declare
