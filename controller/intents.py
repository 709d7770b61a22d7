"""What the controller wants, in memory and in the store, always the same in both.

Kept are links, key streams, what the nodes of names are called and where their key managers listen, and *debts*: entries of
ours that a node may still have though nobody wants them any more, because it could not be reached when they were dropped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .errors import StoreFailed
from .model import ApplicationIntent, KeyStreamId, LinkId, LinkIntent, NodeId, ServiceAddress
from .plan import NodeEdit
from .store.base import Store


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a node while it cannot be asked."""

    qkdn_id: NodeId
    lkms: ServiceAddress | None = None


@dataclass(frozen=True, slots=True)
class Debt:
    """Ids of entries that one node may have and should be compared with what is wanted when it can be reached."""

    links: tuple[LinkId, ...] = ()
    applications: tuple[KeyStreamId, ...] = ()

    def __or__(self, other: "Debt") -> "Debt":
        return Debt(tuple(sorted({*self.links, *other.links})), tuple(sorted({*self.applications, *other.applications})))


@dataclass(frozen=True, slots=True)
class Change:
    """A change of intents; None takes one away."""

    links: Mapping[LinkId, LinkIntent | None] = field(default_factory=dict)
    applications: Mapping[KeyStreamId, ApplicationIntent | None] = field(default_factory=dict)


class Intents:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.links: dict[LinkId, LinkIntent] = {}
        self.applications: dict[KeyStreamId, ApplicationIntent] = {}
        self.known: dict[str, Known] = {}
        self.debts: dict[NodeId, Debt] = {}
        self.declined: set[LinkId] = set()  # links of fibres that an operator took away

    async def load(self) -> None:
        """Reads the store. A journal that a crash left behind becomes debts: its change never became an intent, so the nodes
        it concerned are brought back to what was wanted before. Raises StoreFailed."""
        links = await self._all("link/", LinkIntent)
        applications = await self._all("app/", ApplicationIntent)
        self.links = {one.link: one for one in links.values()}
        self.applications = {one.ksid: one for one in applications.values()}
        self.known = {key.removeprefix("node/"): one for key, one in (await self._all("node/", Known)).items()}
        self.declined = {LinkId(key.removeprefix("declined/")) for key in await self._all("declined/", bool)}
        debts = await self._all("debt/", Debt)
        self.debts = {NodeId(key.removeprefix("debt/")): one for key, one in debts.items()}
        for key, edits in (await self._all("journal/", list[NodeEdit])).items():
            await self._save({**self._owe(edits), key: None})

    async def _all[T](self, prefix: str, kind: type[T]) -> dict[str, T]:
        try:
            return {key: msgspec.json.decode(value, type=kind) for key, value in (await self._store.read(prefix)).items()}
        except msgspec.MsgspecError as error:
            raise StoreFailed(f"what is kept under {prefix} cannot be read: {error}") from error

    async def _save(self, changes: Mapping[str, Any]) -> None:
        if changes:
            await self._store.write({k: None if v is None else msgspec.json.encode(v) for k, v in changes.items()})

    async def remember(self, name: str, known: Known) -> None:
        if self.known.get(name) != known:
            self.known[name] = known
            await self._save({f"node/{name}": known})

    async def journal(self, key: str, edits: Iterable[NodeEdit]) -> None:
        """Writes down what is about to be sent."""
        await self._save({f"journal/{key}": list(edits)})

    async def settle(self, key: str, change: Change, owing: Iterable[NodeEdit] = ()) -> None:
        """Ends a journal: the change becomes an intent, and what could not be sent a debt, all at once."""
        saved: dict[str, Any] = {f"journal/{key}": None, **self._owe(owing)}
        saved |= {f"link/{link}": one for link, one in change.links.items()}
        saved |= {f"app/{ksid}": one for ksid, one in change.applications.items()}
        await self._save(saved)
        _apply(self.links, change.links)
        _apply(self.applications, change.applications)

    def _owe(self, edits: Iterable[NodeEdit]) -> dict[str, Debt]:
        changed = {}
        for edit in edits:
            self.debts[edit.node] = self.debts.get(edit.node, Debt()) | Debt(edit.links, edit.applications)
            changed[f"debt/{edit.node}"] = self.debts[edit.node]
        return changed

    async def decline(self, link: LinkId, declined: bool = True) -> None:
        """Whether a link is not to be made by itself, though there is a fibre for it."""
        if declined != (link in self.declined):
            await self._save({f"declined/{link}": True if declined else None})
            (self.declined.add if declined else self.declined.discard)(link)

    async def owe(self, edits: Iterable[NodeEdit]) -> None:
        """Notes that nodes may have these entries without their being wanted."""
        await self._save(self._owe(edits))

    async def paid(self, node: NodeId) -> None:
        """The node has been compared with what is wanted."""
        if self.debts.pop(node, None) is not None:
            await self._save({f"debt/{node}": None})

    def lkms(self) -> dict[NodeId, ServiceAddress]:
        """Where key managers listen, by node."""
        return {one.qkdn_id: one.lkms for one in self.known.values() if one.lkms is not None}


def _apply[K, V](entries: dict[K, V], changes: Mapping[K, V | None]) -> None:
    for key, value in changes.items():
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value
