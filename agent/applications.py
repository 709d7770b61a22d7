"""Applications: what they call (ETSI 004), what the controller configures for them (015), and how the two meet.

OPEN_CONNECT joins an entry that is there, or registers with the controller and waits for one. An application is the name
in its certificate: whoever first opens a stream at this node holds it here, and nobody else gets anything of it. Entries
and who holds them outlast this process, so an application goes on after a restart without opening again.

GET_KEY's answers where 004 leaves room: the peer has never come -> 3 after a short wait; Timeout ran out -> 6; rate above
max_bandwidth, or the key manager cannot -> 2; no such stream for this caller -> 3. A peer that came and closed does not
keep this end from reading on.

Decisions are in `stream_rules.py`; what they want of the key manager is brought about in `key_streams.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

from qswitch.protocol.etsi004 import (
    Close,
    CloseReply,
    GetKey,
    GetKeyReply,
    OpenConnect,
    OpenConnectReply,
    Status,
)

from .errors import (
    InsufficientKey,
    KeyStreamInUse,
    NodeError,
    PeerNotConnected,
    QosNotMet,
    TimedOut,
    UnknownKeyStream,
)
from .floors import watch
from .key_streams import Holder, Stream, StreamKeys, settle
from .lkms.clock import Clock
from .lkms.keys import Key
from .lkms.manager import Chunk
from .model import (
    ApplicationConfig,
    ApplicationDisconnected,
    ApplicationNew,
    ApplicationQosUpdate,
    ApplicationState,
    Configuration,
    Event,
    KeyStreamId,
    NodeId,
    Notification,
    Severity,
)
from .stream_rules import (
    DEFAULT_CHUNK_SIZE,
    METADATA_SIZE,
    STATUS,
    TRANSITIONS,
    Candidate,
    Phase,
    StreamEvent,
    admission,
    check_paths,
    counter_proposal,
    is_update,
    joining,
    joins,
    members,
    metadata,
    of_network,
    offered,
    pairing,
    parties,
    refusal,
    requested,
    timeout_seconds,
    updated,
    without_paths,
)
from .tasks import Tasks

log = logging.getLogger(__name__)

PEER_SECONDS = 1.0  # GET_KEY waits this long for a peer that has not come yet
WITHDRAW_SECONDS = 0.5
STALE_SECONDS = 3.0  # a refused entry is taken for the answer again when the controller does not change it


@dataclass(slots=True, eq=False)
class _Registration:
    """An OPEN_CONNECT that waits for the controller."""

    me: str
    peer: str
    ksid: str | None
    answer: asyncio.Future[Stream]


class ApplicationTable:
    """All key streams of the node, and the service that the 004 server calls."""

    def __init__(
        self,
        keys: StreamKeys,
        tasks: Tasks,
        notify: Callable[[Notification], None],
        changed: Callable[[], None],
    ) -> None:
        self._keys, self._tasks, self._notify, self._changed = keys, tasks, notify, changed
        self._streams: dict[KeyStreamId, Stream] = {}
        self._registrations: list[_Registration] = []
        self._recovering = True
        self._with_statistics = True
        self._clock = Clock()  # steady: one that is set back would hold statistics up
        self._ages = 0
        self._node = NodeId("")

    # 015: entries ------------------------------------------------------------------------------------------------------

    def apply(self, configuration: Configuration) -> None:
        """Notes the whole configuration and answers who waited for it. The first one is from before this process."""
        self._node, self._with_statistics = configuration.node, configuration.application_stats
        for ksid, entry in configuration.applications.items():
            have = self._streams.get(ksid)
            if have is None or have.removed:
                have = self._add(entry, have)
            elif have.entry == entry:
                continue
            have.entry = entry
            self._step(have, admission(entry))
            self._drop_holders(have)
            self._work(have)
            self._answer(have)
        for ksid, have in self._streams.items():
            if ksid not in configuration.applications and not have.removed:
                have.removed = have.erase = True
                self._work(have)
        self._recovering = False

    def _add(self, entry: ApplicationConfig, old: Stream | None) -> Stream:
        self._ages += 1
        phase = Phase.RECOVERED if self._recovering else Phase.CONFIGURED
        have = Stream(self._node, entry, phase, self._ages, datetime.now(UTC), self._recovering)
        if old is not None:  # not yet erased: the new one sees to that first
            have.lock, have.known, have.erase = old.lock, old.known, True
            old.known = None
        else:
            have.attached = None if self._recovering else False
            held = self._keys.holders(entry.ksid) if self._recovering else {}
            have.holders = {name: Holder(open=is_open) for name, is_open in held.items()}
        self._streams[entry.ksid] = have
        log.info("application configured ksid=%s admission=%s", entry.ksid, entry.admission)
        return have

    def _drop_holders(self, have: Stream) -> None:
        """Those the entry names no longer, and all but the first when the key is not shared any more."""
        was_open = have.open
        named = [name for name in have.holders if name in have.readers]
        kept = named if have.sharing else named[:1]
        have.holders = {name: have.holders[name] for name in kept}
        if was_open and not have.open:
            self._step(have, StreamEvent.CLOSE)

    def _answer(self, have: Stream) -> None:
        """Hands an entry to the registration it answers: the one that brought its KSID, else the oldest of its pair."""
        if not have.serves and have.phase is not Phase.REFUSED:
            return
        named = [one for one in self._registrations if one.ksid == have.ksid]
        paired = [one for one in self._registrations if one.ksid is None and {one.me, one.peer} <= members(have.entry)]
        free = not have.holders and have.phase in (Phase.CONFIGURED, Phase.REFUSED)
        for one in named or (paired[:1] if free else []):
            if not one.answer.done():
                one.answer.set_result(have)
                self._registrations.remove(one)

    # 004 ---------------------------------------------------------------------------------------------------------------

    async def open_connect(self, caller: frozenset[str], request: OpenConnect) -> OpenConnectReply:
        (source, one), (destination, other) = without_paths(request.source), without_paths(request.destination)
        me, peer = parties(caller, source, destination)
        nearest = counter_proposal(request.qos)
        if nearest is not None and self._joins(me, request.ksid):
            nearest = counter_proposal(joining(request.qos))
        if nearest is not None:
            return OpenConnectReply(Status.QOS_NOT_MET, nearest, request.ksid)
        try:
            return await self._open_connect(me, peer, request, max(one, other))
        except QosNotMet as error:
            log.info("call refused call=OpenConnect reason=%r", str(error))
            return OpenConnectReply(Status.QOS_NOT_MET, of_network(request.qos, error.offered), request.ksid)

    def _joins(self, me: str, ksid: str | None) -> bool:
        have = self._streams.get(KeyStreamId(ksid or ""))
        return have is not None and joins(have.entry, me)

    async def _open_connect(self, me: str, peer: str, request: OpenConnect, paths: int) -> OpenConnectReply:
        """Waits as long as this caller says, and no longer; GET_KEY, as long as the stream's opener said."""
        seconds = timeout_seconds(request.qos, request.dialect)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    have = self._find(me, peer, request.ksid) or await self._register(me, peer, request, seconds, paths)
                    check_paths(have.entry, paths)
                    try:
                        return await self._open(have, me, request, seconds)
                    except UnknownKeyStream:
                        if not have.removed:  # else the controller has ended it meanwhile, as before it begins it anew
                            raise
        except TimeoutError:
            raise TimedOut("OPEN_CONNECT", seconds) from None

    def _find(self, me: str, peer: str, ksid: str | None) -> Stream | None:
        """The stream that this call means, when the controller need not be asked. Raises KeyStreamInUse."""
        if ksid is None:
            paired = pairing(me, peer, [self._candidate(one, me) for one in self._streams.values() if one.serves])
            return self._streams[paired] if paired else None
        have = self._streams.get(KeyStreamId(ksid))
        if have is None or have.removed:
            return None
        if have.phase is not Phase.REFUSED:
            self._check_holder(have, me, peer)
        return have if have.serves and (have.phase, StreamEvent.OPEN) in TRANSITIONS else None

    def _candidate(self, have: Stream, me: str) -> Candidate:
        attached = have.known is not None and self._keys.peer_attached(have.ksid)
        phase = have.phase if not have.holders and not have.removed else Phase.ATTACHED
        if me in have.sharing - set(have.holders) and not have.removed and have.phase is Phase.ATTACHED:
            phase = Phase.CONFIGURED  # to this client of several
        return Candidate(have.ksid, members(have.entry), phase, attached, have.age)

    @staticmethod
    def _check_holder(have: Stream, me: str, peer: str) -> None:
        taken = me not in have.holders and bool(have.holders) and not have.sharing
        if not {me, peer} <= members(have.entry) or me not in have.readers or taken:
            raise KeyStreamInUse(have.ksid)

    async def _register(self, me: str, peer: str, request: OpenConnect, seconds: float, paths: int) -> Stream:
        """Tells the controller and waits for its entry. Raises what a refused entry stands for."""
        one = _Registration(me, peer, request.ksid, asyncio.get_running_loop().create_future())
        self._registrations.append(one)
        log.info("application registers application=%s peer=%s ksid=%s", me, peer, request.ksid)
        self._notify(
            ApplicationNew(
                server_app_id=me,
                client_app_ids=(peer,),
                qos=requested(request.qos),
                ksid=KeyStreamId(request.ksid) if request.ksid else None,
                priority=request.qos.priority,
                open_timeout_ms=round(seconds * 1000),
                disjoint_paths=paths,
            )
        )
        try:
            have = await self._answered(one)
        finally:
            if one in self._registrations:
                self._registrations.remove(one)
        if have.phase is Phase.REFUSED:
            raise refusal(have.entry)
        self._check_holder(have, me, peer)
        return have

    async def _answered(self, one: _Registration) -> Stream:
        """An entry refused before is the answer once more, unless the controller changes it soon."""
        stale = self._streams.get(KeyStreamId(one.ksid or ""))
        if stale is None or stale.phase is not Phase.REFUSED:
            return await one.answer
        try:
            return await asyncio.wait_for(asyncio.shield(one.answer), STALE_SECONDS)
        except TimeoutError:
            return stale

    async def _open(self, have: Stream, me: str, request: OpenConnect, seconds: float) -> OpenConnectReply:
        before, shares = have.phase, me in have.sharing and me not in have.holders
        if not self._step(have, StreamEvent.OPEN):
            raise UnknownKeyStream(have.ksid)
        mine = have.holders.setdefault(me, Holder(open=False))
        if not mine.open or before is not Phase.ATTACHED:
            mine.opened = False
        mine.open = True
        asked = joining(request.qos) if joins(have.entry, me) else request.qos
        have.qos = replace(asked, key_chunk_size=asked.key_chunk_size or have.qos.key_chunk_size)
        mine.timeout, mine.qos = seconds, have.qos
        if before is not Phase.CONFIGURED and not shares and is_update(have.entry, requested(request.qos)):
            self._notify(
                ApplicationQosUpdate(have.ksid, updated(have.entry.qos, requested(request.qos)), request.qos.priority)
            )
        if before is Phase.CONFIGURED:  # a peer that came and went, as after a timeout, is not one that is there
            have.peer_seen = self._keys.peer_attached(have.ksid)
        mine.opening += 1
        try:
            await self._settle(have)
            if request.ksid is not None and not have.peer_seen:
                await self._keys.wait_peer_attached(have.ksid)
            chunk_size = await self._agree_chunk_size(have)
            if have.removed:  # what came was the peer of another stream of this KSID
                raise UnknownKeyStream(have.ksid)
        except BaseException:
            if not mine.opened:
                self._undo_open(have, me, request)
                await self._withdrawn(have)
            raise
        finally:
            mine.opening -= 1
        mine.opened = True
        have.peer_seen |= self._keys.peer_attached(have.ksid)
        log.info("application open ksid=%s application=%s peer=%s", have.ksid, me, have.peer_seen)
        status = Status.SUCCESS if have.peer_seen else Status.PEER_ABSENT
        return OpenConnectReply(status, offered(have.entry, mine.qos, chunk_size, have.seconds(mine)), have.ksid)

    async def _withdrawn(self, have: Stream) -> None:
        """The other end is told before the caller is, who may tell its peer: that one must not find it attached."""
        with suppress(NodeError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_SECONDS):
                await self._settle(have)

    async def _agree_chunk_size(self, have: Stream) -> int:
        """Octets. The peer's is taken by a caller who names none; if neither does, it is the usual one."""
        if not (size := self._keys.chunk_size(have.ksid)):
            have.qos = replace(have.qos, key_chunk_size=DEFAULT_CHUNK_SIZE)
            await self._settle(have)
            size = self._keys.chunk_size(have.ksid)
        return size

    def _undo_open(self, have: Stream, me: str, request: OpenConnect) -> None:
        """The call failed, or its caller is gone. Without a KSID the caller never learnt which stream it has."""
        mine = have.holders.get(me)
        if mine is None or have.phase is not Phase.ATTACHED or mine.opening > 1:
            return
        mine.open = False
        if request.ksid is not None:
            del have.holders[me]
        if not have.open:
            self._step(have, StreamEvent.CLOSE if request.ksid is None else StreamEvent.GIVE_UP)
        self._work(have)

    async def get_key(self, caller: frozenset[str], request: GetKey) -> tuple[GetKeyReply, Key | None]:
        have, me = self._held(caller, request.ksid)
        mine = have.holders[me]
        if not mine.open or not self._step(have, StreamEvent.GET_KEY):
            raise UnknownKeyStream(request.ksid)
        wants_metadata = request.metadata_size > 0 and mine.qos.metadata_mimetype != ""
        if wants_metadata and request.metadata_size < METADATA_SIZE:
            small = GetKeyReply(Status.METADATA_TOO_SMALL, request.index or 0, needed_metadata_size=METADATA_SIZE)
            return small, None
        chunk = await self._get_chunk(have, me, request.index)
        about = metadata(chunk.age_ms, chunk.hops) if wants_metadata else b""
        return GetKeyReply(Status.SUCCESS, chunk.index, about), chunk.key

    async def _get_chunk(self, have: Stream, me: str, index: int | None) -> Chunk:
        mine = have.holders[me]
        again = index is not None and index == mine.last_index
        if not again:
            self._check_rate(have, mine)
        chunk = self._keys.chunk_at_once(have.ksid, index, me) if have.settled else None
        if chunk is None:
            chunk = await self._wait_chunk(have, me, index)
            if self._streams.get(have.ksid) is not have or have.holders.get(me) is not mine:  # the entry is another's now
                chunk.key.wipe()
                raise UnknownKeyStream(have.ksid)
        if not again:
            mine.bucket.take(8 * len(chunk.key))
        mine.last_index = chunk.index
        return chunk

    async def _wait_chunk(self, have: Stream, me: str, index: int | None) -> Chunk:
        seconds = have.seconds(have.holders[me])
        try:
            async with asyncio.timeout(seconds):
                await self._settle(have)
                await self._wait_peer(have, seconds)
                return await self._keys.get_chunk(have.ksid, index, me)
        except TimeoutError:
            raise TimedOut("GET_KEY", seconds) from None

    def _check_rate(self, have: Stream, mine: Holder) -> None:
        rate = have.entry.qos.max_bandwidth_bps or mine.qos.max_bps
        bits = 8 * self._keys.chunk_size(have.ksid) if have.known else 0
        if rate and not mine.bucket.has(bits, rate, asyncio.get_running_loop().time()):
            raise InsufficientKey(f"key stream {have.ksid}: its rate is limited to {rate} bit/s")

    async def _wait_peer(self, have: Stream, seconds: float) -> None:
        have.peer_seen |= self._keys.peer_attached(have.ksid)
        if have.peer_seen or have.recovered:
            return
        try:
            await asyncio.wait_for(self._keys.wait_peer_attached(have.ksid), min(PEER_SECONDS, seconds / 2))
        except TimeoutError:
            raise PeerNotConnected(have.ksid) from None
        have.peer_seen = True

    async def close(self, caller: frozenset[str], request: Close) -> CloseReply:
        have, me = self._held(caller, request.ksid)
        have.holders[me].open = False
        if have.open:  # another client still reads
            await self._settle(have)
            return CloseReply(Status.SUCCESS)
        if not self._step(have, StreamEvent.CLOSE):
            raise UnknownKeyStream(request.ksid)
        self._count(have)
        await self._settle(have)
        return CloseReply(Status.SUCCESS)

    def _held(self, caller: frozenset[str], ksid: str) -> tuple[Stream, str]:
        """The stream and the caller's name, if it holds it here.

        One from before this process that nobody is known to hold, or whose key clients share: whoever its entry names.
        """
        have = self._streams.get(KeyStreamId(ksid))
        if have is None or have.removed or not have.serves:
            raise UnknownKeyStream(ksid)
        for name in have.holders:
            if name in caller:
                return have, name
        free = have.phase is Phase.RECOVERED and not have.holders
        if not (free or (have.recovered and have.sharing)):  # at once: others' streams take no longer than nobody's
            raise UnknownKeyStream(ksid)
        if not (name := min(caller & have.readers, default="")):
            raise UnknownKeyStream(ksid)
        have.holders[name] = Holder()
        return have, name

    # Bringing it about -------------------------------------------------------------------------------------------------

    def _step(self, have: Stream, event: StreamEvent) -> bool:
        """Whether the table has the pair."""
        if (step := TRANSITIONS.get((have.phase, event))) is None:
            return False
        before = have.phase
        have.phase, gone = step
        if gone:
            self._notify(ApplicationDisconnected(have.ksid))
        if (status := STATUS[have.phase]) is not STATUS[before]:
            message = f"application is {status}"
            self._notify(Event(message, Severity.MINOR, ksid=have.ksid, application_status=status))
        if have.phase is not before:
            log.debug("application ksid=%s phase=%s", have.ksid, have.phase.name)
            self._changed()
        return True

    def _work(self, have: Stream) -> None:
        self._tasks.spawn(self._settle_later(have), f"stream {have.ksid}")

    async def _settle_later(self, have: Stream) -> None:
        try:
            await self._settle(have)
        except NodeError as error:
            log.warning("key stream not as configured, will try again ksid=%s error=%s", have.ksid, error)

    async def _settle(self, have: Stream) -> None:
        try:
            gone = await settle(have, self._keys, self._clock.moment())
        except BaseException:  # also of a caller who hung up: what it wanted is done all the same
            have.unsettled = True  # `refresh` tries again
            raise
        if gone and self._streams.get(have.ksid) is have:
            del self._streams[have.ksid]
            self._changed()

    # Time --------------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """To be called about once a second: expiry, streams closed at both ends, statistics, what did not work before."""
        now = datetime.now(UTC)
        for have in list(self._streams.values()):
            before = have.phase
            if have.entry.expiration_time is not None and have.entry.expiration_time <= now and not have.removed:
                self._step(have, StreamEvent.EXPIRE)
            if have.known is not None:
                attached = self._keys.peer_attached(have.ksid)
                if have.peer_seen and not attached and have.phase is Phase.CLOSED:
                    self._step(have, StreamEvent.PEER_CLOSED)
                have.peer_seen |= attached
                self._count(have)
                self._watch(have)
            if have.phase is not before or have.unsettled:
                self._work(have)

    def _count(self, have: Stream) -> None:
        if have.periods is not None and have.known is not None:
            bits = self._keys.consumed_bits(have.ksid)
            have.periods.count(bits, self._clock.moment(), last=have.phase is not Phase.ATTACHED)

    def _watch(self, have: Stream) -> None:
        """Tells when the stream does not get what it was promised, and when it does again."""
        if have.floor is None and not have.entry.qos.min_bandwidth_bps:
            return
        bits, now = self._keys.allocated_bits(have.ksid), asyncio.get_running_loop().time()
        have.floor, news = watch(have.floor, have.entry, bits, self._keys.waits(have.ksid), now)
        if news is not None:
            self._notify(news)

    def states(self) -> Mapping[KeyStreamId, ApplicationState]:
        return MappingProxyType({one.ksid: self._state(one) for one in self._streams.values() if not one.removed})

    def _state(self, have: Stream) -> ApplicationState:
        statistics = tuple(have.periods.over) if self._with_statistics and have.periods else ()
        return ApplicationState(have.ksid, STATUS[have.phase], have.created, statistics)
