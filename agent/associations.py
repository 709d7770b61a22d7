"""Pairs of applications that get keys by ETSI 014: which there are, who may have what, and the service that is called.

A pair is (master, slave), as 014's paths name it; asked for the first time, the node registers it with the controller as an
application of ETSI 015, the way an OPEN_CONNECT does, with the id that follows from the two names. The entry that comes
back says which link to use, and both nodes know the pair by its id. Two applications of one node need no link and no
controller: their key is of the node's own random generator.

An SAE id is a URI whose authority is the node where the application lives, or a name that the configuration has a URI for.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Protocol

from qswitch.protocol.etsi014 import Limits, Status
from qswitch.protocol.etsi015 import MAX_DISJOINT_PATHS

from .config import Etsi014Config
from .errors import InsufficientKey, InvalidValue, NoConnection, NodeError, Unauthorised, UnknownKeys, UnknownKeyStream
from .floors import Floor, watch
from .lkms.clock import Clock
from .lkms.keys import Key
from .lkms.manager import DeliveryConfig
from .lkms.promises import UNPROMISED, Terms
from .model import (
    Admission,
    ApplicationConfig,
    ApplicationNew,
    ApplicationState,
    ApplicationStatus,
    KeyStreamId,
    NodeId,
    Notification,
    Qos,
)
from .periods import Periods
from .stream_rules import Bucket, home
from .tasks import Tasks

log = logging.getLogger(__name__)

NAMESPACE = uuid.UUID("d3f0b3de-52b4-5c1e-8f0f-014014014014")
LOCAL = "local/"
"""Begins the id of a pair that lives at one node; no other node and no controller ever sees it."""
REGISTER_SECONDS = 3.0  # a pair that is wanted, and was not admitted, is registered again that often at most
MAX_LOCAL, MAX_WAITING = 1024, 1024  # pairs of this node, pairs that are not admitted yet
IDLE_SECONDS = 600.0  # a pair that was not used for so long shows as DISCONNECTED


class PairKeys(Protocol):
    """What pairs ask of the key manager."""

    async def configure_delivery(self, config: DeliveryConfig) -> None: ...
    async def remove_delivery(self, ksid: KeyStreamId) -> None: ...
    def saved_deliveries(self) -> frozenset[KeyStreamId]: ...
    async def take_keys(self, ksid: KeyStreamId, number: int, octets: int) -> dict[str, Key]: ...
    async def share_keys(self, ksid: KeyStreamId, keys: Mapping[str, Key]) -> None: ...
    async def withdraw_keys(self, ksid: KeyStreamId, key_ids: Collection[str]) -> None: ...
    async def release_keys(self, wanted: Mapping[KeyStreamId, Collection[str]]) -> dict[str, Key]: ...
    def holds(self, ksid: KeyStreamId, key_id: str) -> bool: ...
    def had(self, ksid: KeyStreamId, key_id: str) -> bool: ...
    def held_anywhere(self, key_id: str) -> bool: ...
    def ready_keys(self, ksid: KeyStreamId, octets: int) -> int: ...
    def held_keys(self, ksid: KeyStreamId) -> int: ...
    async def meet_keys(self, ksid: KeyStreamId) -> bool: ...
    def agreed(self, ksid: KeyStreamId) -> bool: ...
    def delivered_bits(self, ksid: KeyStreamId) -> int: ...
    def waits(self, ksid: KeyStreamId) -> bool: ...
    def allocated_bits(self, ksid: KeyStreamId) -> int: ...


def pair_id(master: str, slave: str, disjoint_paths: int = 1) -> KeyStreamId:
    """The id of a pair, the same wherever it is worked out. Keys over several paths are those of a pair of its own."""
    paths = f"\n{disjoint_paths}" if disjoint_paths > 1 else ""
    return KeyStreamId(str(uuid.uuid5(NAMESPACE, f"{master}\n{slave}{paths}")))


def is_pair(entry: ApplicationConfig) -> bool:
    """Whether an entry of the datastore is a pair of 014, and no key stream of 004. One of which the entry says fewer paths
    than its id stands for is none: a controller that does not know of paths has made it."""
    server = entry.server_app_id
    if server is None:
        return False
    counts = range(1, entry.disjoint_paths + 1)
    return any(entry.ksid == pair_id(server, one, paths) for one in entry.client_app_ids for paths in counts)


@dataclass(slots=True, eq=False)
class _Pair:
    ksid: KeyStreamId
    entry: ApplicationConfig | None = None
    known: DeliveryConfig | None = None  # to the key manager
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    used: float = float("-inf")
    registered: float = float("-inf")
    calls: int = 0  # that wait for it
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unsettled: bool = False
    bucket: Bucket = field(default_factory=Bucket)
    floor: Floor | None = None
    periods: Periods | None = None

    @property
    def max_bandwidth_bps(self) -> int | None:
        return self.entry.qos.max_bandwidth_bps if self.entry is not None else None

    @property
    def far(self) -> NodeId | None:
        """The other node, once the pair is admitted."""
        entry = self.entry
        return entry.remote_node if entry is not None and entry.admission is Admission.ADMITTED else None


class AssociationTable:
    """All pairs of the node, and the service that the 014 server calls."""

    def __init__(
        self,
        node: NodeId,
        config: Etsi014Config,
        keys: PairKeys,
        tasks: Tasks,
        notify: Callable[[Notification], None],
        changed: Callable[[], None],
    ) -> None:
        self._node, self._config, self._keys, self._tasks = node, config, keys, tasks
        self._notify, self._changed = notify, changed
        self._pairs: dict[KeyStreamId, _Pair] = {}
        self._local: set[KeyStreamId] = set()
        self._ids = {uri: name for name, uri in config.saes.items()}
        self._with_statistics = True
        self._clock = Clock()  # steady: one that is set back would hold statistics up

    @property
    def limits(self) -> Limits:
        return self._config.limits

    # 015: entries ------------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """What the store has of pairs that live here."""
        for ksid in self._keys.saved_deliveries():
            if ksid.startswith(LOCAL):
                await self._make_local(ksid)

    def apply(self, entries: Mapping[KeyStreamId, ApplicationConfig], with_statistics: bool) -> None:
        """Notes all entries that are pairs; answers who waited for one."""
        self._with_statistics = with_statistics
        for ksid in {*entries, *self._pairs}:
            entry = entries.get(ksid)
            pair = self._pairs.setdefault(ksid, _Pair(ksid))
            if pair.entry != entry:
                pair.entry = entry
                self._tasks.spawn(self._settle_later(pair), f"pair {ksid}")

    async def _settle_later(self, pair: _Pair) -> None:
        try:
            await self._settle(pair)
        except NodeError as error:
            pair.unsettled = True  # `refresh` tries again
            log.warning("pair not as configured, will try again ksid=%s error=%s", pair.ksid, error)

    async def _settle(self, pair: _Pair) -> None:
        """Brings the key manager to what the entry says."""
        async with pair.lock:
            pair.unsettled = False
            wanted = self._delivery(pair)
            if wanted is None and pair.known is not None:
                pair.known = None  # first: a call that comes meanwhile is to wait
                await self._keys.remove_delivery(pair.ksid)
            elif wanted is not None and wanted != pair.known:
                await self._keys.configure_delivery(wanted)
            if wanted is not None and pair.periods is None:  # before anything is delivered
                pair.periods = Periods(self._clock.moment(), self._keys.delivered_bits(pair.ksid))
            pair.known = wanted
        if pair.entry is None and not pair.calls:
            self._pairs.pop(pair.ksid, None)
        pair.changed.set()
        self._changed()

    def _delivery(self, pair: _Pair) -> DeliveryConfig | None:
        if pair.entry is None or pair.far is None:
            return None
        return self._with_limits(pair.ksid, pair.far, pair.entry)

    def _with_limits(self, ksid: KeyStreamId, far: NodeId, entry: ApplicationConfig | None = None) -> DeliveryConfig:
        ttl = (entry.qos.ttl_seconds if entry else None) or self._config.ttl_seconds
        links = entry.backing_links if entry else ()
        terms = Terms(entry.qos.min_bandwidth_bps or 0, entry.priority) if entry else UNPROMISED
        return DeliveryConfig(ksid, far, links, self.limits.key_size // 8, self.limits.stored, ttl, terms)

    async def _make_local(self, ksid: KeyStreamId) -> KeyStreamId:
        if ksid not in self._local:
            if len(self._local) >= MAX_LOCAL:
                await self._forget_local()
            await self._keys.configure_delivery(self._with_limits(ksid, self._node))
            self._local.add(ksid)
        return ksid

    async def _forget_local(self) -> None:
        """Makes room. Raises NoConnection when every pair has keys that wait."""
        idle = [ksid for ksid in self._local if not self._keys.held_keys(ksid)]
        if not idle:
            raise NoConnection(f"another pair at this node: {MAX_LOCAL} have keys that nobody has fetched")
        for ksid in idle:
            if not self._keys.held_keys(ksid):  # still: it may have been asked for meanwhile
                self._local.discard(ksid)
                await self._keys.remove_delivery(ksid)

    # Who is who --------------------------------------------------------------------------------------------------------

    def _uri(self, sae_id: str) -> str:
        return self._config.saes.get(sae_id, sae_id)

    def _sae_id(self, uri: str) -> str:
        return self._ids.get(uri, uri)

    def _names(self, caller: Collection[str]) -> frozenset[str]:
        return frozenset(map(self._uri, caller))

    def _me(self, caller: Collection[str]) -> str:
        """The name that a caller is master under. Raises Unauthorised for one that has none, or lives elsewhere."""
        mine = sorted(name for name in caller if home(name) in (None, self._node))
        if not mine:
            raise Unauthorised(", ".join(sorted(caller)) or "a caller without a name", f"ask for keys at node {self._node}")
        return min(mine, key=lambda name: (home(name) is None, name))

    def _at_home(self, caller: Collection[str], slave: str) -> bool:
        return slave in caller or home(slave) == self._node

    # 014 ---------------------------------------------------------------------------------------------------------------

    async def status(self, caller: frozenset[str], slave_id: str) -> Status:
        """Raises NoConnection when the network has not admitted the pair in time."""
        caller = self._names(caller)
        master, slave, limits = self._me(caller), self._uri(slave_id), self.limits
        ksid = await self._within(lambda: self._met(caller, master, slave), master, [slave])
        pair = self._pairs.get(ksid)
        return Status(
            source_KME_ID=self._node,
            target_KME_ID=(pair.far if pair else None) or self._node,
            master_SAE_ID=self._sae_id(master),
            slave_SAE_ID=slave_id,
            key_size=limits.key_size,
            stored_key_count=self._keys.ready_keys(ksid, limits.key_size // 8),
            max_key_count=limits.stored,
            max_key_per_request=limits.number,
            max_key_size=limits.max_key_size,
            min_key_size=limits.min_key_size,
            max_SAE_ID_count=limits.slaves,
        )

    async def _met(self, caller: Collection[str], master: str, slave: str) -> KeyStreamId:
        ksid = await self._admitted(caller, master, slave)
        await self._keys.meet_keys(ksid)
        return ksid

    async def enc_keys(
        self, caller: frozenset[str], slave_ids: Sequence[str], number: int, octets: int, disjoint_paths: int = 1
    ) -> list[tuple[str, Key]]:
        """New keys for the caller and all slaves, held for each of them, each over so many paths. The caller wipes them.

        Raises Unauthorised, InvalidValue for a slave named twice, NoConnection and InsufficientKey with what is missing.
        """
        caller = self._names(caller)
        master, slaves = self._me(caller), [self._uri(one) for one in slave_ids]
        if len(set(slaves)) < len(slaves):
            raise InvalidValue("additional_slave_SAE_IDs", ", ".join(slave_ids), "each slave is named once")
        work = partial(self._take, caller, master, slaves, number, octets, disjoint_paths)
        keys = await self._within(work, master, slaves, number, octets, disjoint_paths)
        return list(keys.items())

    async def _take(
        self, caller: frozenset[str], master: str, slaves: Sequence[str], number: int, octets: int, paths: int
    ) -> dict[str, Key]:
        pairs = [await self._admitted(caller, master, slave, paths) for slave in slaves]
        bits = 8 * number * octets
        buckets = self._check_rates(pairs, bits)
        try:
            return await self._make(pairs, number, octets)
        except BaseException:
            for bucket in buckets:
                bucket.take(-bits)
            raise

    async def _make(self, pairs: Sequence[KeyStreamId], number: int, octets: int) -> dict[str, Key]:
        """One link makes the keys; every further node is sent them under a pad of its own link."""
        first, *others = sorted(pairs, key=lambda ksid: ksid.startswith(LOCAL))
        keys = await self._keys.take_keys(first, number, octets)
        try:
            for other in others:
                await self._keys.share_keys(other, keys)
        except BaseException:
            for key in keys.values():
                key.wipe()
            await asyncio.shield(self._withdraw(pairs, list(keys)))
            raise
        return keys

    def _check_rates(self, ksids: Collection[KeyStreamId], bits: int) -> list[Bucket]:
        """What the bits were taken from. Raises InsufficientKey for a pair that asks faster than its entry's max_bandwidth;
        bursts of a second pass."""
        now = asyncio.get_running_loop().time()
        limited = [
            (pair, rate)
            for ksid in ksids
            if (pair := self._pairs.get(ksid)) is not None and (rate := pair.max_bandwidth_bps)
        ]
        for pair, rate in limited:
            if not pair.bucket.has(min(bits, rate), rate, now):
                raise InsufficientKey(f"this pair just now: its max_bandwidth is {rate} bit/s")
        buckets = [pair.bucket for pair, _ in limited]
        for bucket in buckets:
            bucket.take(bits)
        return buckets

    async def _withdraw(self, pairs: Collection[KeyStreamId], key_ids: Collection[str]) -> None:
        for ksid in pairs:
            with suppress(NodeError):  # then they go at the end of their time
                await self._keys.withdraw_keys(ksid, key_ids)

    async def dec_keys(self, caller: frozenset[str], master_id: str, key_ids: Sequence[str]) -> list[tuple[str, Key]]:
        """Keys that were made for the caller, all of them or none, each for the last time. The caller wipes them.

        Raises UnknownKeys, Unauthorised when one is for others only.
        """
        caller, master = self._names(caller), self._uri(master_id)
        every = range(1, MAX_DISJOINT_PATHS + 1)
        mine = [ksid for slave in sorted(caller) for paths in every for ksid in self._ids_of(master, slave, paths)]
        found = [next((ksid for ksid in mine if self._keys.holds(ksid, one)), None) for one in key_ids]
        missing = [one for one, ksid in zip(key_ids, found, strict=True) if ksid is None]
        if missing:
            theirs = [self._keys.held_anywhere(one) & (not self._was_for(caller, mine, one)) for one in missing]
            if all(theirs):  # worked out for every id: the time must not tell which one is whose
                raise Unauthorised(", ".join(sorted(caller)), "have these keys: they are for other applications")
            raise UnknownKeys(tuple(missing))
        wanted: dict[KeyStreamId, list[str]] = {}
        for one, ksid in zip(key_ids, found, strict=True):
            assert ksid is not None
            wanted.setdefault(ksid, []).append(one)
        for ksid in wanted:
            self._use(ksid)
        released = await self._keys.release_keys(wanted)
        return [(one, released[one]) for one in key_ids]

    def _was_for(self, caller: Collection[str], mine: Collection[KeyStreamId], key_id: str) -> bool:
        """Whether a key was for the caller, who has had it, or is, and of another master than it said."""
        if any(self._keys.had(ksid, key_id) for ksid in mine):
            return True
        entries = [pair.entry for pair in self._pairs.values() if pair.entry and self._keys.holds(pair.ksid, key_id)]
        return any(one in caller for entry in entries for one in entry.client_app_ids)

    @staticmethod
    def _ids_of(master: str, slave: str, paths: int = 1) -> tuple[KeyStreamId, KeyStreamId]:
        ksid = pair_id(master, slave, paths)
        return ksid, KeyStreamId(LOCAL + ksid)

    # Admission ---------------------------------------------------------------------------------------------------------

    async def _admitted(self, caller: Collection[str], master: str, slave: str, paths: int = 1) -> KeyStreamId:
        """Returns once the pair can be served; registers it where it is not known. For as long as the caller waits."""
        ksid, local = self._ids_of(master, slave, paths)
        if self._at_home(caller, slave):
            return await self._make_local(local)
        for name in (master, slave):
            if ":" not in name:
                raise InvalidValue(
                    "SAE ID", name, "no URI is known for it at this node; ask by the URI, as in qkd://QKDN_ID/NAME"
                )
        if ksid not in self._pairs and sum(one.entry is None for one in self._pairs.values()) >= MAX_WAITING:
            raise NoConnection(f"another pair: {MAX_WAITING} wait for the controller")
        pair = self._pairs.setdefault(ksid, _Pair(ksid))
        self._use(ksid)
        pair.calls += 1
        try:
            while pair.known is None:
                pair.changed.clear()
                self._register(pair, master, slave, paths)
                with suppress(TimeoutError):
                    await asyncio.wait_for(pair.changed.wait(), REGISTER_SECONDS)
        finally:
            pair.calls -= 1
            if not pair.calls and pair.entry is None and pair.known is None:
                self._pairs.pop(ksid, None)
        return ksid

    def _register(self, pair: _Pair, master: str, slave: str, paths: int) -> None:
        now = asyncio.get_running_loop().time()
        if now - pair.registered < REGISTER_SECONDS:
            return
        pair.registered = now
        log.info("pair registers master=%s slave=%s ksid=%s", master, slave, pair.ksid)
        timeout_ms = round(1000 * self._config.timeout_seconds)
        self._notify(ApplicationNew(master, (slave,), Qos(), pair.ksid, open_timeout_ms=timeout_ms, disjoint_paths=paths))

    async def _within[T](
        self,
        work: Callable[[], Awaitable[T]],
        master: str,
        slaves: Sequence[str],
        number: int = 0,
        octets: int = 0,
        paths: int = 1,
    ) -> T:
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                while True:
                    with suppress(UnknownKeyStream):  # the pair was taken away meanwhile: it registers anew
                        return await work()
                    await asyncio.sleep(0)
        except TimeoutError:
            raise self._missing(master, slaves, number, octets, paths) from None

    def _missing(self, master: str, slaves: Sequence[str], number: int, octets: int, paths: int) -> NodeError:
        """What a call waited for in vain."""
        for slave in slaves:
            ksid, local = self._ids_of(master, slave, paths)
            pair, names = self._pairs.get(ksid), f"{self._sae_id(master)} and {self._sae_id(slave)}"
            if local in self._local:
                continue
            if pair is None or pair.known is None:
                entry = pair.entry if pair else None
                reason = (entry.admission_reason or entry.admission.value) if entry else "the controller has not answered"
                return NoConnection(f"{names}: {reason}")
            if not self._keys.agreed(ksid):
                return NoConnection(f"{names}: the key manager of node {pair.far} cannot be reached")
            if (ready := self._keys.ready_keys(ksid, octets or 1)) < number:
                return InsufficientKey(f"{number} keys of {8 * octets} bits: {ready} could be had")
        return InsufficientKey(f"{number} keys of {8 * octets} bits in time; ask again")

    # Time and state ----------------------------------------------------------------------------------------------------

    def _use(self, ksid: KeyStreamId) -> None:
        if (pair := self._pairs.get(ksid)) is not None:
            pair.used = asyncio.get_running_loop().time()

    def refresh(self) -> None:
        """To be called about once a second: statistics, what did not work before."""
        now = self._clock.moment()
        for pair in list(self._pairs.values()):
            if pair.unsettled:
                self._tasks.spawn(self._settle_later(pair), f"pair {pair.ksid}")
            if pair.known is not None and pair.periods is not None:
                pair.periods.count(self._keys.delivered_bits(pair.ksid), now)
                self._watch(pair)

    def _watch(self, pair: _Pair) -> None:
        """Tells when the pair does not get what it was promised, and when it does again."""
        if pair.entry is not None and (pair.floor is not None or pair.entry.qos.min_bandwidth_bps):
            bits, now = self._keys.allocated_bits(pair.ksid), asyncio.get_running_loop().time()
            pair.floor, news = watch(pair.floor, pair.entry, bits, self._keys.waits(pair.ksid), now)
            if news is not None:
                self._notify(news)

    def states(self) -> Mapping[KeyStreamId, ApplicationState]:
        return MappingProxyType({ksid: self._state(one) for ksid, one in self._pairs.items() if one.entry is not None})

    def _state(self, pair: _Pair) -> ApplicationState:
        idle = asyncio.get_running_loop().time() - pair.used > IDLE_SECONDS
        on = pair.known is not None and (not idle or self._keys.held_keys(pair.ksid) > 0)
        status = ApplicationStatus.ON if on else ApplicationStatus.DISCONNECTED
        statistics = tuple(pair.periods.over) if self._with_statistics and pair.periods else ()
        return ApplicationState(pair.ksid, status, pair.created, statistics)
