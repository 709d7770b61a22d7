"""What one end of an association of two applications (014) is: its configuration, the keys it holds, what was asked for.

delivery.py says what it all means.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qswitch.protocol.lkms import AnyMessage

from ..model import KeyStreamId, LinkId, NodeId
from .ahead import Ahead
from .keys import Key
from .pool import Pool
from .promises import UNPROMISED, Terms

KIND = "014"


@dataclass(slots=True)
class StoredKey:
    """`since`: when the time to live began, in seconds of the wall clock; None while the other end has it put by."""

    key: Key
    made: float
    hops: int
    since: float | None = None


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """An association as configured; `limit` is how many keys are held at most for the application of this end."""

    ksid: KeyStreamId
    remote: NodeId
    links: tuple[LinkId, ...]
    usual_octets: int = 32
    limit: int = 10_000
    ttl_seconds: float = 3600.0
    terms: Terms = UNPROMISED


class DeliveryJournal(Protocol):
    """What must be written down; `ours`: put by here, for an application of this end to ask for."""

    def key(self, ksid: KeyStreamId, key_id: str, ours: bool, stored: StoredKey) -> None: ...
    def key_since(self, ksid: KeyStreamId, key_id: str, since: float) -> None: ...
    def key_gone(self, ksid: KeyStreamId, key_id: str) -> None: ...
    def keys_gone(self, ksid: KeyStreamId) -> None: ...
    def ahead(self, ksid: KeyStreamId, octets: int) -> None: ...
    def after(self, callback: Callable[[], None]) -> None:
        """Calls back once all that was noted so far is durable."""


@dataclass(slots=True, eq=False)
class Order:
    """So many keys of so many octets, asked for by an application of this end. `keys` may be handed out when `done`."""

    number: int
    octets: int
    keys: dict[str, StoredKey] = field(default_factory=dict)
    from_stock: list[str] = field(default_factory=list)
    under_way: int = 0  # allocated, the other end has not said yet that it has them
    done: bool = False
    sure: bool = True  # when done: needs no commit
    cancelled: bool = False
    wrapped: Mapping[str, Key] | None = None  # keys that are given, to be held by the other end as well
    told: int = 0  # the delivery's `told` when some of the stock was taken

    @property
    def lacking(self) -> int:
        return self.number - len(self.keys)


@dataclass(slots=True)
class Batch:
    """Keys of one allocation that the other end has not confirmed; without an order they are for the stock."""

    keys: dict[str, StoredKey]
    order: Order | None = None


@dataclass(slots=True)
class DeliveryEnd(ABC):
    """Every method leaves memory and journal in agreement."""

    config: DeliveryConfig
    asks: bool  # the lower end, which opens a meeting
    journal: DeliveryJournal
    send: Callable[[AnyMessage], None]
    pools: Mapping[LinkId, Pool]
    new_id: Callable[[], str]
    clock: Callable[[], float]  # seconds of the wall clock
    spare: Callable[[], int]  # how many more keys the whole node holds
    held: dict[str, StoredKey] = field(default_factory=dict)  # for the application of this end to fetch
    doubtful: dict[str, StoredKey] = field(default_factory=dict)  # put by, the other end may not have them
    ready: dict[str, StoredKey] = field(default_factory=dict)  # put by, the other end has them
    orders: list[Order] = field(default_factory=list)
    consumed: int = 0  # octets delivered at this end
    allocated: int = 0  # octets, by this process
    synced: bool = False
    room: int = 0  # keys that the other end takes
    told_room: int = 0
    epoch: int = 0
    told: int = 0  # rises when the other end is told all that is put by, and when it has answered
    sent: int = 0
    received: int = 0
    target: int = 0
    batches: dict[int, Batch] = field(default_factory=dict)
    gone: dict[str, None] = field(default_factory=dict)  # fetched here lately
    taken: list[str] = field(default_factory=list)  # delivered from the stock, the other end has not been told
    ahead: Ahead[str] = field(init=False)  # of those that are `ready`

    def __post_init__(self) -> None:
        self.ahead = Ahead(self.journal.after)

    @abstractmethod
    def meet(self, links: Iterable[LinkId] = ()) -> None: ...


def wipe(keys: Mapping[str, StoredKey]) -> None:
    for stored in keys.values():
        stored.key.wipe()


def consumer(ksid: KeyStreamId, ids: Sequence[str]) -> str:
    return f"{ksid}/{ids[0]}"
