"""Network-wide changes: all nodes or none.

A plan is journalled before its first edit leaves, sent stage by stage, and becomes an intent in the same write that ends the
journal. When a required edit fails, everything sent so far is undone by inverse edits, the doubtful ones included; a node
that cannot be reached for that is in debt, and is set right when it comes back. A crash in between leaves the journal, which
becomes debts at the next start: nodes are brought to what was last wanted, never half-way.
"""

import asyncio
import logging
import uuid
from collections.abc import Iterable
from typing import Protocol

from .errors import ControllerError, TransactionFailed
from .intents import Change, Intents
from .model import NodeData, NodeId
from .plan import NodeEdit, Plan, Stage, inverse

log = logging.getLogger(__name__)


class Nodes(Protocol):
    """What a transaction needs of the nodes."""

    def running(self, node: NodeId) -> NodeData | None:
        """The configuration as last read."""
        ...

    def name(self, node: NodeId) -> str: ...

    async def ship(self, edit: NodeEdit) -> None:
        """Sends one edit. Raises NodeUnreachable, NodeTimedOut, NodeRefused, BadReply."""
        ...


class Transactions:
    def __init__(self, intents: Intents, nodes: Nodes) -> None:
        self._intents, self._nodes = intents, nodes

    async def run(self, plan: Plan, change: Change) -> None:
        """Ships a plan; then, and only then, the change is what is wanted. Raises TransactionFailed with the reason of every
        node that failed, after undoing what was done; StoreFailed before anything was sent or when it could not be kept."""
        key, edits = uuid.uuid4().hex, [edit for stage in plan.stages for edit in stage.edits]
        undo = {id(edit): inverse(edit, self._nodes.running(edit.node)) for edit in edits}
        await self._intents.journal(key, edits)
        sent: list[NodeEdit] = []
        owing: list[NodeEdit] = []
        for stage in plan.stages:
            failed = await self._stage(stage)
            sent += stage.edits  # a failed one may be in all the same: its answer was lost, or it came late
            if failed and stage.required:
                await self._undo(plan, key, [undo[id(edit)] for edit in reversed(sent)])
                raise TransactionFailed(plan.what, {self._nodes.name(node): str(error) for node, error in failed.items()})
            owing += [edit for edit in stage.edits if edit.node in failed]
        await self._intents.settle(key, change, owing)
        log.info("transaction done what=%s nodes=%d owing=%d", plan.what, len(edits), len(owing))

    async def _stage(self, stage: Stage) -> dict[NodeId, ControllerError]:
        """Sends the edits of a stage at the same time; returns the errors of those that failed."""
        results = await asyncio.gather(*(self._nodes.ship(edit) for edit in stage.edits), return_exceptions=True)
        failed: dict[NodeId, ControllerError] = {}
        for edit, result in zip(stage.edits, results, strict=True):
            if isinstance(result, ControllerError):
                failed[edit.node] = result
            elif isinstance(result, BaseException):
                raise result
        return failed

    async def _undo(self, plan: Plan, key: str, edits: Iterable[NodeEdit]) -> None:
        owing = []
        for edit in edits:
            try:
                await self._nodes.ship(edit)
            except ControllerError as error:
                log.warning("undo left for later what=%s node=%s problem=%s", plan.what, self._nodes.name(edit.node), error)
                owing.append(edit)
        await self._intents.settle(key, Change(), owing)
