"""One end of a key stream as this node keeps it, and how the key manager is brought to what is wanted of it.

What is wanted follows from the entry and the phase; what the key manager has is remembered. `settle` compares and acts,
so that it may be called at any time, again after a failure, and from calls and edits that cross.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from qswitch.protocol.etsi004 import Qos as StreamQos

from .floors import Floor
from .lkms.manager import Chunk, StreamConfig
from .lkms.promises import Terms
from .model import ApplicationConfig, ApplicationType, KeyStreamId, NodeId
from .periods import Periods
from .stream_rules import DEFAULT_TIMEOUT_SECONDS, JSON, KEPT, Bucket, Phase, home, members, sharing


class StreamKeys(Protocol):
    """What applications ask of the key manager."""

    async def configure_stream(self, stream: StreamConfig) -> None: ...
    async def remove_stream(self, ksid: KeyStreamId) -> None: ...
    def holders(self, ksid: KeyStreamId) -> Mapping[str, bool]: ...
    async def hold(self, ksid: KeyStreamId, holders: Mapping[str, bool]) -> None: ...
    async def attach(self, ksid: KeyStreamId) -> None: ...
    async def detach(self, ksid: KeyStreamId) -> None: ...
    def peer_attached(self, ksid: KeyStreamId) -> bool: ...
    async def wait_peer_attached(self, ksid: KeyStreamId) -> None: ...
    def chunk_at_once(self, ksid: KeyStreamId, index: int | None, reader: str) -> Chunk | None: ...
    async def get_chunk(self, ksid: KeyStreamId, index: int | None, reader: str) -> Chunk: ...
    def consumed_bits(self, ksid: KeyStreamId) -> int: ...
    def chunk_size(self, ksid: KeyStreamId) -> int: ...
    def waits(self, ksid: KeyStreamId) -> bool: ...
    def allocated_bits(self, ksid: KeyStreamId) -> int: ...


_UNSPECIFIED = StreamQos(metadata_mimetype=JSON)


@dataclass(slots=True, eq=False)
class Holder:
    """An application that has the stream at this node: one, unless clients share its key."""

    open: bool = True  # until it closes
    opened: bool = True  # by a call that succeeded, and not closed since
    qos: StreamQos = _UNSPECIFIED
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    last_index: int | None = None
    opening: int = 0  # OPEN_CONNECT calls under way
    bucket: Bucket = field(default_factory=Bucket)


@dataclass(slots=True, eq=False)
class Stream:
    node: NodeId
    entry: ApplicationConfig
    phase: Phase
    age: int
    created: datetime
    recovered: bool  # from before this process: the peer may have come, and gone, then
    removed: bool = False
    erase: bool = False  # what the key manager has is of an entry that is gone
    holders: dict[str, Holder] = field(default_factory=dict)
    qos: StreamQos = _UNSPECIFIED  # as the application that opened last asked for it
    peer_seen: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    known: StreamConfig | None = None  # to the key manager
    attached: bool | None = None  # to the key manager; None: not known, as of before this process
    unsettled: bool = False
    floor: Floor | None = None  # of a stream with a min_bandwidth
    periods: Periods | None = None  # None: not known to the key manager yet

    @property
    def ksid(self) -> KeyStreamId:
        return self.entry.ksid

    def seconds(self, holder: Holder) -> float:
        """Timeout of GET_KEY: of whoever opened the stream, else of the application here."""
        return self.entry.qos.timeout_ms / 1000 if self.entry.qos.timeout_ms else holder.timeout

    @property
    def sharing(self) -> frozenset[str]:
        """The clients of this node that share the stream's key; none when only one application is to have it."""
        return sharing(self.entry, self.node)

    @property
    def readers(self) -> frozenset[str]:
        """Who may have the stream here: all of these where they share it, else one of these. Who lives at the other node
        has no part in it at this one."""
        return self.sharing or frozenset(one for one in members(self.entry) if home(one) != self.entry.remote_node)

    @property
    def open(self) -> bool:
        return any(one.open for one in self.holders.values())

    @property
    def settled(self) -> bool:
        """Whether the key manager has all that is wanted of it, and both applications were there."""
        return self.attached is True and not self.unsettled and not self.lock.locked() and (self.peer_seen or self.recovered)

    @property
    def serves(self) -> bool:
        """Without `remote_qkdn_id` no key is served yet (015); internal consumption has no stream."""
        return self.entry.remote_node is not None and self.entry.type is ApplicationType.CLIENT


async def settle(have: Stream, keys: StreamKeys, now: datetime) -> bool:
    """Brings the key manager to what the stream's phase and entry want; true when that is to have nothing of it any more.

    Raises what the key manager raises; what was done until then is remembered.
    """
    async with have.lock:
        have.unsettled = False
        keep = not have.removed and have.serves and have.phase in KEPT
        if have.known is not None and (have.erase or not keep):
            await keys.remove_stream(have.ksid)
            have.known, have.attached = None, False
        have.erase = False
        if keep:
            await _bring_about(have, keys, now)
        return have.removed


async def _bring_about(have: Stream, keys: StreamKeys, now: datetime) -> None:
    if (config := _config(have)) != have.known:
        await keys.configure_stream(config)
        have.known = config
    if have.periods is None:  # before anything is delivered
        have.periods = Periods(now, keys.consumed_bits(have.ksid))
    attached = have.phase is Phase.ATTACHED
    holders = {name: one.open for name, one in have.holders.items()}
    if holders != keys.holders(have.ksid):  # before anything is delivered to them
        await keys.hold(have.ksid, holders)
    unknown = have.phase is Phase.RECOVERED and (have.open or not have.holders)  # else a crash may have come within a CLOSE
    if unknown or have.attached == attached:
        return
    have.attached = None  # a call that fails may have done its part, and waited for the disk only
    await (keys.attach if attached else keys.detach)(have.ksid)
    have.attached = attached


def _config(have: Stream) -> StreamConfig:
    entry = have.entry
    assert entry.remote_node is not None  # by `serves`
    return StreamConfig(
        ksid=have.ksid,
        remote=entry.remote_node,
        links=entry.backing_links,
        chunk_size=have.qos.key_chunk_size,
        ttl_seconds=entry.qos.ttl_seconds or have.qos.ttl or None,
        readers=tuple(sorted(have.sharing)),
        terms=Terms(entry.qos.min_bandwidth_bps or 0, entry.priority),
    )
