"""What the workflows share: the nodes, the intents, the transactions, the events, and the network as it is seen now."""

import time
from dataclasses import dataclass, field

from .config import ControllerConfig
from .errors import NodeUnreachable
from .events import EventLog
from .intents import Intents
from .model import LinkId, NodeData, NodeId, NodeRecord
from .plan import NodeEdit
from .southbound.inventory import Inventory
from .topology import LinkFacts, Topology, build, link_facts
from .transaction import Transactions

FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0


@dataclass
class Retries:
    """When what failed may be tried again: later and later, until the network changes."""

    _next: dict[str, tuple[float, float]] = field(default_factory=dict)

    def due(self, key: str) -> bool:
        return time.monotonic() >= self._next.get(key, (0.0, 0.0))[0]

    def failed(self, key: str) -> bool:
        """Notes a failure; returns whether it is the first in a row."""
        first = key not in self._next
        delay = min(self._next.get(key, (0.0, FIRST_RETRY / 2))[1] * 2, LONGEST_RETRY)
        self._next[key] = (time.monotonic() + delay, delay)
        return first

    def done(self, key: str) -> None:
        self._next.pop(key, None)

    def clear(self) -> None:
        self._next.clear()


class Control:
    """Is what Transactions need of the nodes."""

    def __init__(self, config: ControllerConfig, intents: Intents, inventory: Inventory, events: EventLog) -> None:
        self.config, self.intents, self.inventory, self.events = config, intents, inventory, events
        self.transactions = Transactions(intents, self)
        self.retries = Retries()

    def record(self, node: NodeId) -> NodeRecord | None:
        managed = self.inventory.by_id(node)
        return managed.record if managed else None

    def name(self, node: NodeId) -> str:
        record = self.record(node)
        return record.name if record else node

    def running(self, node: NodeId) -> NodeData | None:
        record = self.record(node)
        return record.running if record else None

    async def ship(self, edit: NodeEdit) -> None:
        managed = self.inventory.by_id(edit.node)
        if managed is None:
            raise NodeUnreachable(edit.node, "no node of the configuration has this id")
        await managed.edit(edit)

    def facts(self) -> dict[LinkId, LinkFacts]:
        return link_facts(self.inventory.records)

    def topology(self, without: frozenset[LinkId] = frozenset()) -> Topology:
        return build(
            self.inventory.records,
            self.intents.links,
            self.intents.applications.values(),
            self.config.application_bps,
            without,
        )

    def route_names(self, route: tuple[NodeId, ...]) -> str:
        return " - ".join(self.name(one) for one in route)
