"""The network as the controller's users see it: the one facade that the HTTP API translates.

Nodes are named by name, id, or a unique beginning of an id; links and applications by id or a unique beginning of it.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from .model import AppView, Event, HealthView, LinkType, LinkView, NodeView, PathView, TopologyView


class Network(Protocol):
    """Every method may raise Unknown or Ambiguous for what it was asked about (`errors.py`)."""

    async def nodes(self) -> list[NodeView]: ...

    async def node(self, which: str) -> NodeView: ...

    async def links(self) -> list[LinkView]: ...

    async def link(self, which: str) -> LinkView: ...

    async def create_link(
        self,
        link_type: LinkType,
        source: str,
        destination: str,
        bandwidth_bps: int | None = None,
        link: str | None = None,
    ) -> LinkView:
        """Makes a link between two nodes, in the id `link` if given, and returns it as the nodes accepted it.

        Raises InvalidRequest, Conflict (the id is taken, no free pair of interfaces), NoRoute, TransactionFailed,
        NodeUnreachable. Nothing is left behind when it raises.
        """
        ...

    async def delete_link(self, which: str) -> None:
        """Takes a link away at all its nodes; those that cannot be reached now, when they can. Raises Conflict when
        applications use it."""
        ...

    async def apps(self) -> list[AppView]: ...

    async def app(self, which: str) -> AppView: ...

    async def path(self, source: str, destination: str, bandwidth_bps: int = 0) -> PathView:
        """The route a virtual link would take now. Raises NoRoute with the reason."""
        ...

    async def topology(self) -> TopologyView: ...

    def events(self, follow: bool = False) -> AsyncIterator[Event]:
        """The events still remembered, oldest first; with `follow` also those to come, without an end."""
        ...

    async def health(self) -> HealthView: ...
