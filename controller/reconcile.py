"""Brings a node that was away back to what is wanted: what it lacks is pushed, what was ours and is unwanted goes.

What others configured is reported and stays.
"""

import logging

from .control import Control
from .errors import ControllerError
from .intents import Debt
from .model import NodeId
from .plan import correction, strangers

log = logging.getLogger(__name__)


class Reconciler:
    def __init__(self, control: Control) -> None:
        self._control = control
        self._dirty: set[str] = set()
        self._reported: dict[str, list[str]] = {}

    def mark(self, name: str) -> None:
        """A node is to be compared: it came back, or what it said was not to be believed."""
        self._dirty.add(name)

    async def run(self) -> None:
        """Compares every marked node that can be reached."""
        for name in sorted(self._dirty):
            managed = self._control.inventory.nodes[name]
            if not managed.record.connected or not self._control.retries.due(f"reconcile {name}"):
                continue
            try:
                await self._compare(name)
                self._dirty.discard(name)
                self._control.retries.done(f"reconcile {name}")
            except ControllerError as error:
                if self._control.retries.failed(f"reconcile {name}"):
                    self._control.events.add("node_differs", str(error), node=name)

    async def _compare(self, name: str) -> None:
        record = await self._control.inventory.nodes[name].refresh()
        if record.running is None or record.qkdn_id is None:
            return
        intents = self._control.intents
        debt = intents.debts.get(record.qkdn_id, Debt())
        edit = correction(
            record.qkdn_id,
            record.running,
            intents.links.values(),
            intents.applications.values(),
            intents.lkms(),
            debt.links,
            debt.applications,
        )
        if edit:
            await self._control.ship(edit)
            count = len(edit.links) + len(edit.applications)
            self._control.events.add("node_corrected", f"{count} entries brought to what is wanted", node=name)
        await intents.paid(record.qkdn_id)
        self._report_strangers(name, record.qkdn_id)

    def _report_strangers(self, name: str, node: NodeId) -> None:
        running = self._control.running(node)
        found = strangers(running, self._control.intents.links.values()) if running else []
        if found and self._reported.get(name) != found:
            self._control.events.add("links_unknown", f"not configured by this controller: {', '.join(found)}", node=name)
        self._reported[name] = list(found)
