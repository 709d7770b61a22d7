"""Applications: the table, and two nodes' worth of callers over a key manager that is only its protocol."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

from qswitch.agent import applications
from qswitch.agent.applications import ApplicationTable
from qswitch.agent.errors import (
    InsufficientKey,
    InvalidValue,
    KeyStreamInUse,
    NoConnection,
    NodeError,
    PeerNotConnected,
    StorageFailed,
    TimedOut,
    Unauthorised,
    UnknownKeyStream,
)
from qswitch.agent.lkms import clock
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.manager import Chunk, StreamConfig
from qswitch.agent.model import (
    Admission,
    ApplicationConfig,
    ApplicationDisconnected,
    ApplicationNew,
    ApplicationQosUpdate,
    ApplicationStatus,
    Configuration,
    KeyStreamId,
    LinkConfig,
    LinkId,
    LinkType,
    NodeId,
    Notification,
    Qos,
)
from qswitch.agent.periods import PERIOD_SECONDS
from qswitch.agent.stream_rules import (
    KEPT,
    METADATA_SIZE,
    STATUS,
    TRANSITIONS,
    Bucket,
    Candidate,
    Phase,
    StreamEvent,
    check,
    counter_proposal,
    metadata,
    pairing,
    parties,
    sharing,
    without_paths,
)
from qswitch.agent.tasks import Tasks
from qswitch.protocol.etsi004 import Close, Dialect, GetKey, OpenConnect, Qos as StreamQos, Status

NODES = (NodeId("00000001-0000-4000-8000-000000000000"), NodeId("00000002-0000-4000-8000-000000000000"))
ALICE, BOB, EVE = (f"qkd://{node}/{name}" for node, name in ((NODES[0], "alice"), (NODES[1], "bob"), (NODES[0], "eve")))
STREAM = KeyStreamId("cccccccc-0000-4000-8000-000000000000")
OTHER = KeyStreamId("dddddddd-0000-4000-8000-000000000000")
LINK = LinkId("aaaaaaaa-0000-4000-8000-000000000000")

# The table -----------------------------------------------------------------------------------------------------------


def test_every_phase_has_a_status_and_takes_a_refusal() -> None:
    assert set(STATUS) == set(Phase)
    assert all(TRANSITIONS[phase, StreamEvent.REFUSE][0] is Phase.REFUSED for phase in Phase)
    assert all((phase, StreamEvent.ADMIT) in TRANSITIONS for phase in Phase)


def test_only_who_opened_gets_key() -> None:
    assert {phase for phase, event in TRANSITIONS if event is StreamEvent.GET_KEY} == {Phase.ATTACHED, Phase.RECOVERED}


def test_the_controller_is_told_once_that_an_application_went() -> None:
    for (phase, event), (after, told) in TRANSITIONS.items():
        if event is StreamEvent.CLOSE:
            assert told is (phase in {Phase.ATTACHED, Phase.RECOVERED}), phase
            assert (after, StreamEvent.CLOSE) not in TRANSITIONS or not TRANSITIONS[after, StreamEvent.CLOSE][1]


def test_key_is_kept_as_long_as_an_end_may_read_it() -> None:
    assert set(Phase) - KEPT == {Phase.FINISHED, Phase.REFUSED, Phase.EXPIRED}


# The rules -----------------------------------------------------------------------------------------------------------


def test_the_caller_is_source_or_destination() -> None:
    assert parties({ALICE, "alice"}, ALICE, BOB) == (ALICE, BOB)
    assert parties({BOB}, ALICE, BOB) == (BOB, ALICE)
    assert parties({"alice"}, "alice", "bob") == ("alice", "bob")
    with pytest.raises(Unauthorised):
        parties({EVE}, ALICE, BOB)
    for pair in ((ALICE, ALICE), ("", ALICE), (ALICE, "")):
        with pytest.raises(InvalidValue):
            parties({ALICE}, *pair)


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        (StreamQos(), None),
        (StreamQos(key_chunk_size=16_001), StreamQos(key_chunk_size=16_000)),
        (StreamQos(max_bps=10, min_bps=20), StreamQos(max_bps=10, min_bps=10)),
        (StreamQos(min_bps=20), None),
        (StreamQos(metadata_mimetype="text/xml"), StreamQos()),
        (StreamQos(metadata_mimetype=""), None),
    ],
)
def test_what_cannot_be_had_is_answered_with_the_nearest(asked: StreamQos, nearest: StreamQos | None) -> None:
    assert counter_proposal(asked) == nearest


def test_metadata_fits_what_is_asked_for() -> None:
    assert metadata(12, 0) == b'{"age":12,"hops":0}'
    assert len(metadata(2**40, 2**20)) == METADATA_SIZE <= 33  # what QUBIP's client has room for


def test_a_bucket_lets_bursts_through_and_no_more_than_its_rate() -> None:
    bucket, taken = Bucket(), 0
    for tenth in range(600):
        while bucket.has(256, 1000, tenth / 10):
            bucket.take(256)
            taken += 256
    assert 60_000 - 256 <= taken <= 61_024


def test_of_several_unclaimed_streams_the_newest_with_a_peer_is_meant() -> None:
    both = frozenset({ALICE, BOB})
    candidates = [
        Candidate(KeyStreamId("old"), both, Phase.CONFIGURED, True, 1),
        Candidate(KeyStreamId("new"), both, Phase.CONFIGURED, True, 2),
        Candidate(KeyStreamId("given up"), both, Phase.CONFIGURED, False, 3),
        Candidate(KeyStreamId("taken"), both, Phase.ATTACHED, True, 4),
        Candidate(KeyStreamId("another's"), frozenset({EVE, BOB}), Phase.CONFIGURED, True, 5),
    ]
    assert pairing(BOB, ALICE, candidates) == "new"
    assert pairing(EVE, ALICE, candidates) is None


def test_an_entry_names_this_node_and_another() -> None:
    good = ApplicationConfig(STREAM, local_node=NODES[0], remote_node=NODES[1])
    check(Configuration(NODES[0], applications={STREAM: good}))
    for bad in (replace(good, local_node=NODES[1]), replace(good, remote_node=NODES[0])):
        with pytest.raises(InvalidValue):
            check(Configuration(NODES[0], applications={STREAM: bad}))


@pytest.mark.parametrize(
    ("uri", "name", "paths"),
    [
        ("qkd://node/app", "qkd://node/app", 1),
        ("qkd://node/app?disjoint-paths=2", "qkd://node/app", 2),
        ("qkd://node/app?x=1&disjoint-paths=3&y", "qkd://node/app?x=1&y", 3),
        ("qkd://node/app?disjoint-path=3", "qkd://node/app?disjoint-path=3", 1),
        ("alice", "alice", 1),
    ],
)
def test_disjoint_paths_are_asked_for_in_a_uri(uri: str, name: str, paths: int) -> None:
    assert without_paths(uri) == (name, paths)


@pytest.mark.parametrize("asked", ["0", "9", "", "two", "+2", "2\u0660", "02", "1" * 5000])
def test_what_is_no_number_of_paths_is_refused(asked: str) -> None:
    with pytest.raises(InvalidValue, match="from 1 to 8"):
        without_paths(f"qkd://node/app?disjoint-paths={asked}")


def test_an_application_that_needs_paths_is_backed_by_links_that_have_them() -> None:
    single = LinkConfig(LINK, LinkType.VIRTUAL, next_hops=(NODES[1],))
    double = replace(single, next_hops=(), components=(LinkId("one"), LinkId("two")))
    for link, paths, good in (
        (single, 1, True),
        (single, 2, False),
        (double, 2, True),
        (double, 3, False),
        (double, 1, True),
    ):
        asks = ApplicationConfig(STREAM, backing_links=(LINK,), remote_node=NODES[1], disjoint_paths=paths)
        node = Configuration(NODES[0], links={LINK: link}, applications={STREAM: asks})
        if good:
            check(node)
        else:
            with pytest.raises(InvalidValue, match="disjoint paths"):
                check(node)


# Two nodes -----------------------------------------------------------------------------------------------------------


class Keys:
    """One node's key manager, as far as its protocol says; `stock` chunks are there for each stream."""

    def __init__(self) -> None:
        self.peer = self
        self.streams: dict[KeyStreamId, StreamConfig] = {}
        self.attached: set[KeyStreamId] = set()
        self.consumed: dict[KeyStreamId, int] = {}
        self.waited: set[KeyStreamId] = set()
        self.allocated: dict[KeyStreamId, int] = {}
        self.held: dict[KeyStreamId, Mapping[str, bool]] = {}
        self.stock = 10
        self.turned = asyncio.Condition()
        self.more = asyncio.Event()  # than the stock

    async def configure_stream(self, stream: StreamConfig) -> None:
        self.streams[stream.ksid] = stream

    async def remove_stream(self, ksid: KeyStreamId) -> None:
        self.streams.pop(ksid, None)
        self.held.pop(ksid, None)
        await self._attach(ksid, False)

    def holders(self, ksid: KeyStreamId) -> Mapping[str, bool]:
        return self.held.get(ksid, {})

    async def hold(self, ksid: KeyStreamId, holders: Mapping[str, bool]) -> None:
        self.held[ksid] = dict(holders)

    async def attach(self, ksid: KeyStreamId) -> None:
        await self._attach(ksid, True)

    async def detach(self, ksid: KeyStreamId) -> None:
        await self._attach(ksid, False)

    async def _attach(self, ksid: KeyStreamId, attached: bool) -> None:
        (self.attached.add if attached else self.attached.discard)(ksid)
        async with self.peer.turned:
            self.peer.turned.notify_all()

    def peer_attached(self, ksid: KeyStreamId) -> bool:
        return ksid in self.peer.attached

    async def wait_peer_attached(self, ksid: KeyStreamId) -> None:
        async with self.turned:
            await self.turned.wait_for(lambda: self.peer_attached(ksid))

    def waits(self, ksid: KeyStreamId) -> bool:
        return ksid in self.waited

    def allocated_bits(self, ksid: KeyStreamId) -> int:
        return self.allocated.get(ksid, 0)

    def chunk_size(self, ksid: KeyStreamId) -> int:
        sizes = [keys.streams[ksid].chunk_size for keys in (self, self.peer) if ksid in keys.streams]
        return next((size for size in sizes if size), 0)

    def chunk_at_once(self, _ksid: KeyStreamId, _index: int | None, _reader: str) -> None:
        """Always by `get_chunk`."""

    async def get_chunk(self, ksid: KeyStreamId, index: int | None, reader: str) -> Chunk:
        if (index or 0) >= self.stock:
            await self.more.wait()
        size = self.chunk_size(ksid)
        self.consumed[ksid] = self.consumed.get(ksid, 0) + 8 * size
        return Chunk(index or 0, Key(bytes([index or 0]) * size), 12, 3)

    def consumed_bits(self, ksid: KeyStreamId) -> int:
        return self.consumed.get(ksid, 0)


class Node:
    """An application table with an application's calls; entries are applied as a controller would."""

    def __init__(self, node: NodeId, keys: Keys) -> None:
        self.node, self.keys = node, keys
        self.said: list[Notification] = []
        self.failures: list[BaseException] = []
        self.entries: dict[KeyStreamId, ApplicationConfig] = {}
        self.restart()
        self.table.apply(Configuration(node))

    def restart(self) -> None:
        self.tasks = Tasks(self.failures.append)
        self.table = ApplicationTable(self.keys, self.tasks, self.said.append, lambda: None)

    def push(self, *entries: ApplicationConfig) -> None:
        self.table.apply(Configuration(self.node, applications={one.ksid: one for one in entries}))

    def open(
        self, me: str, peer: str, ksid: str | None = None, qos: StreamQos | None = None
    ) -> Coroutine[Any, Any, tuple[Status, str | None, StreamQos]]:
        async def call() -> tuple[Status, str | None, StreamQos]:
            request = OpenConnect(me, peer, qos or StreamQos(timeout=2000), ksid, Dialect.C)
            reply = await self.table.open_connect(frozenset({me}), request)
            return reply.status, reply.ksid, reply.qos

        return call()

    async def get(self, me: str, ksid: str = STREAM, index: int | None = 0, size: int = 100) -> tuple[Status, bytes, bytes]:
        reply, key = await self.table.get_key(frozenset({me}), GetKey(ksid, index, size))
        return reply.status, bytes(key.view()) if key else b"", reply.metadata

    async def close(self, me: str, ksid: str = STREAM) -> Status:
        return (await self.table.close(frozenset({me}), Close(ksid))).status

    async def told(self, kind: type) -> Any:
        async with asyncio.timeout(2):
            while not (found := [one for one in self.said if isinstance(one, kind)]):
                await asyncio.sleep(0.001)
        return found[-1]

    @property
    def status(self) -> ApplicationStatus:
        return self.table.states()[STREAM].status


def entry(node: NodeId, ksid: KeyStreamId = STREAM, **values: Any) -> ApplicationConfig:
    here, there = (NODES[0], NODES[1]) if node == NODES[0] else (NODES[1], NODES[0])
    default = ApplicationConfig(ksid, server_app_id=ALICE, client_app_ids=(BOB,), backing_links=(LINK,))
    return replace(default, **{"local_node": here, "remote_node": there, **values})


@pytest.fixture
async def nodes() -> tuple[Node, Node]:
    first, second = Keys(), Keys()
    first.peer, second.peer = second, first
    return Node(NODES[0], first), Node(NODES[1], second)


async def opened(a: Node, b: Node, **values: Any) -> None:
    a.push(entry(a.node, **values))
    b.push(entry(b.node, **values))
    first, second = await asyncio.gather(a.open(ALICE, BOB, STREAM), b.open(BOB, ALICE, STREAM))
    assert first[0] is second[0] is Status.SUCCESS


async def test_the_main_job(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    qos = StreamQos(key_chunk_size=64, max_bps=5000, ttl=60, priority=2, timeout=2000)
    opening = asyncio.ensure_future(a.open(ALICE, BOB, qos=qos))
    new = await a.told(ApplicationNew)
    assert new == ApplicationNew(
        ALICE, (BOB,), Qos(5000, ttl_seconds=60, timeout_ms=2000), None, priority=2, open_timeout_ms=2000
    )
    a.push(entry(a.node, qos=Qos(max_bandwidth_bps=4000)))
    b.push(entry(b.node))
    status, ksid, got = await opening
    assert (status, ksid) == (Status.PEER_ABSENT, STREAM)
    assert got == replace(qos, max_bps=4000)
    assert a.status is ApplicationStatus.ON and b.status is ApplicationStatus.DISCONNECTED
    assert (await b.open(BOB, ALICE, ksid, StreamQos()))[::2] == (
        Status.SUCCESS,
        StreamQos(key_chunk_size=64, timeout=10000),
    )
    assert not any(isinstance(one, ApplicationNew) for one in b.said)
    assert (
        await a.get(ALICE, index=3) == await b.get(BOB, index=3) == (Status.SUCCESS, bytes([3]) * 64, b'{"age":12,"hops":3}')
    )
    assert await a.close(ALICE) is Status.SUCCESS
    assert await a.told(ApplicationDisconnected) == ApplicationDisconnected(STREAM)
    assert (await b.get(BOB, index=4))[0] is Status.SUCCESS  # reserved before, read after the peer closed
    await b.close(BOB)
    assert STREAM in a.keys.streams
    for node in nodes:
        node.table.refresh()
    await asyncio.sleep(0)
    assert not a.keys.streams and not b.keys.streams
    for node in nodes:
        node.push()
    await asyncio.sleep(0)
    assert not a.table.states() and not a.failures and not b.failures


async def test_a_known_ksid_waits_for_the_peer_and_then_for_no_longer_than_its_timeout(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    a.push(entry(a.node))
    b.push(entry(b.node))
    with pytest.raises(TimedOut):
        await a.open(ALICE, BOB, STREAM, StreamQos(timeout=50))
    await asyncio.sleep(0)
    assert not a.keys.attached and a.status is ApplicationStatus.DISCONNECTED
    opening = asyncio.ensure_future(a.open(ALICE, BOB, STREAM))
    assert (await b.open(BOB, ALICE, STREAM))[0] is Status.SUCCESS
    assert (await opening)[0] is Status.SUCCESS


@pytest.mark.parametrize("gone", ["timed out", "closed"])
async def test_a_peer_that_came_and_went_is_not_there(nodes: tuple[Node, Node], gone: str) -> None:
    a, b = nodes
    a.push(entry(a.node))
    b.push(entry(b.node))
    if gone == "closed":
        assert (await a.open(ALICE, BOB))[0] is Status.PEER_ABSENT
        b.table.refresh()
        await a.close(ALICE)
    else:
        opening = asyncio.ensure_future(a.open(ALICE, BOB, STREAM, StreamQos(timeout=50)))
        await asyncio.wait({opening}, timeout=0.01)
        b.table.refresh()
        with pytest.raises(TimedOut):
            await opening
    await asyncio.sleep(0.01)
    with pytest.raises(TimedOut):
        await b.open(BOB, ALICE, STREAM, StreamQos(timeout=50))


async def test_who_joins_gets_the_registered_priority(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b, priority=3)
    for asked in (0, 9):
        assert (await b.open(BOB, ALICE, STREAM, StreamQos(priority=asked)))[2].priority == 3


async def test_both_ends_may_open_without_a_ksid(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    opening = [asyncio.ensure_future(a.open(ALICE, BOB)), asyncio.ensure_future(b.open(BOB, ALICE))]
    await asyncio.gather(*(node.told(ApplicationNew) for node in nodes))
    for node in nodes:
        node.push(entry(node.node))
    assert {(await one)[1] for one in opening} == {STREAM}


async def test_no_controller_is_a_timeout(nodes: tuple[Node, Node]) -> None:
    with pytest.raises(TimedOut):
        await nodes[0].open(ALICE, BOB, STREAM, StreamQos(timeout=20))


@pytest.mark.parametrize(
    ("admission", "error"),
    [
        (Admission.NO_CONNECTION, NoConnection),
        (Admission.KSID_IN_USE, KeyStreamInUse),
    ],
)
async def test_what_the_controller_refuses_is_refused(
    nodes: tuple[Node, Node], admission: Admission, error: type[NodeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qswitch.agent.applications.STALE_SECONDS", 0.01)
    a, _ = nodes
    opening = asyncio.ensure_future(a.open(ALICE, BOB, STREAM))
    await a.told(ApplicationNew)
    a.push(entry(a.node, admission=admission, remote_node=None))
    with pytest.raises(error):
        await opening
    with pytest.raises(error):  # the controller is asked again, and changes nothing
        await a.open(ALICE, BOB, STREAM)
    assert sum(isinstance(one, ApplicationNew) for one in a.said) == 2


async def test_a_controller_that_ignores_paths_is_never_taken_for_one_that_gives_them(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    opening = asyncio.ensure_future(a.open(ALICE, f"{BOB}?disjoint-paths=2"))
    asked = await a.told(ApplicationNew)
    assert (asked.disjoint_paths, asked.client_app_ids) == (2, (BOB,))
    a.push(entry(a.node))  # a single path
    with pytest.raises(NoConnection, match="over a single path, 2 disjoint ones are asked for"):
        await opening
    with pytest.raises(NoConnection):
        await a.open(ALICE, f"{BOB}?disjoint-paths=3", STREAM)
    a.push(entry(a.node, disjoint_paths=2))
    b.push(entry(b.node, disjoint_paths=2))
    assert (await a.open(ALICE, f"{BOB}?disjoint-paths=2"))[:2] == (Status.PEER_ABSENT, STREAM)
    assert (await b.open(BOB, ALICE))[:2] == (Status.SUCCESS, STREAM), "who asks for nothing gets what is there"
    with pytest.raises(NoConnection, match="over 2 disjoint paths, 3"):
        await b.open(BOB, f"{ALICE}?disjoint-paths=3", STREAM)


async def test_what_the_network_could_give_is_answered(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    asked = StreamQos(key_chunk_size=48, max_bps=9_000, min_bps=8_000, timeout=2000)
    opening = asyncio.ensure_future(a.open(ALICE, BOB, STREAM, asked))
    await a.told(ApplicationNew)
    a.push(entry(a.node, admission=Admission.QOS_NOT_MET, remote_node=None, qos=Qos(9_000, 5_000)))
    assert await opening == (Status.QOS_NOT_MET, STREAM, replace(asked, min_bps=5_000))


async def test_the_timeout_of_the_opener_is_that_of_get_key(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b, qos=Qos(timeout_ms=40, jitter_bps=7))
    for node, caller in ((a, ALICE), (b, BOB)):
        with pytest.raises(TimedOut, match=r"0\.04 s"):
            await node.get(caller, index=99)
    _, _, told = await b.open(BOB, ALICE, STREAM, StreamQos(jitter=9, timeout=9000))
    assert (told.jitter, told.timeout) == (7, 40)


def test_clients_that_share_key_are_those_of_one_end() -> None:
    carol, elsewhere = BOB + "-2", BOB.replace(NODES[1], STREAM)
    both = entry(NODES[1], qos=Qos(clients_shared_keys=True), client_app_ids=(BOB, carol))
    assert sharing(both, NODES[1]) == {BOB, carol}
    assert not sharing(both, NODES[0]), "the server application reads alone"
    assert not sharing(replace(both, client_app_ids=(BOB, elsewhere)), NODES[1])
    assert not sharing(replace(both, qos=Qos()), NODES[1])


async def test_after_a_restart_clients_that_share_key_go_on(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    carol = BOB + "-2"
    values: dict[str, Any] = {"qos": Qos(clients_shared_keys=True), "client_app_ids": (BOB, carol)}
    await opened(a, b, **values)
    b.restart()
    b.push(entry(b.node, **values))
    assert (await b.get(carol, index=3))[0] is (await b.get(BOB, index=4))[0] is Status.SUCCESS
    with pytest.raises(UnknownKeyStream):
        await b.get(EVE)
    assert await b.close(BOB) is Status.SUCCESS and b.status is ApplicationStatus.ON
    assert await b.close(carol) is Status.SUCCESS and b.status is ApplicationStatus.DISCONNECTED


async def test_who_opens_again_keeps_what_it_does_not_name(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b, qos=Qos(9_000, 500, ttl_seconds=60, clients_shared_keys=True))
    await a.open(ALICE, BOB, STREAM, StreamQos(max_bps=8_000, timeout=2000))
    wanted = Qos(8_000, 500, ttl_seconds=60, clients_shared_keys=True, timeout_ms=2000)
    assert (await a.told(ApplicationQosUpdate)).qos == wanted


async def test_a_stranger_gets_nothing(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b)
    with pytest.raises(KeyStreamInUse):
        await a.open(EVE, BOB, STREAM)
    with pytest.raises(Unauthorised):
        await a.table.open_connect(frozenset({EVE}), OpenConnect(ALICE, BOB, StreamQos(), STREAM))
    with pytest.raises(KeyStreamInUse):  # the peer of this stream, but at the wrong node
        await a.open(BOB, ALICE, STREAM)
    for call in (a.get(EVE), a.get(BOB), a.get(ALICE, OTHER), a.close(EVE), a.close(ALICE, OTHER)):
        with pytest.raises(UnknownKeyStream):
            await call


async def test_without_remote_node_nothing_is_served(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    a.push(entry(a.node, remote_node=None))
    with pytest.raises(TimedOut):
        await a.open(ALICE, BOB, STREAM, StreamQos(timeout=20))
    assert not a.keys.streams


async def test_an_application_that_crashed_opens_again(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b)
    assert (await a.open(ALICE, BOB, STREAM, StreamQos(max_bps=77)))[0] is Status.SUCCESS
    assert await a.told(ApplicationQosUpdate) == ApplicationQosUpdate(STREAM, Qos(max_bandwidth_bps=77))
    await a.close(ALICE)
    assert (await a.open(ALICE, BOB, STREAM))[0] is Status.SUCCESS
    assert (await a.get(ALICE))[0] is Status.SUCCESS


async def test_statistics_have_every_bit_from_the_first(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b)
    for index in range(3):
        await a.get(ALICE, index=index)
    assert not a.table.states()[STREAM].statistics, "the period is not over"
    await a.close(ALICE)
    (period,) = a.table.states()[STREAM].statistics
    assert period.consumed_bits == a.keys.consumed_bits(STREAM) == 3 * 256 and period.start < period.end


async def test_a_wall_clock_that_is_set_back_holds_up_no_statistics(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = nodes
    await opened(a, b)
    await a.get(ALICE)

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Yesterday":
            return super().now(tz) - timedelta(days=1)

    ticks = clock._ticks
    monkeypatch.setattr(applications, "datetime", Yesterday)
    monkeypatch.setattr(clock, "_ticks", lambda: ticks() + PERIOD_SECONDS + 1)
    a.table.refresh()
    (period,) = a.table.states()[STREAM].statistics
    assert period.consumed_bits == 256 and period.start < period.end


async def test_after_a_restart_of_the_node_applications_go_on(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b)
    a.restart()
    a.push(entry(a.node))
    with pytest.raises(UnknownKeyStream):
        await a.get(EVE)
    assert (await a.get(ALICE, index=2))[0] is Status.SUCCESS
    assert a.status is ApplicationStatus.ON


async def test_after_a_restart_only_the_holder_is_served(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b)
    a.restart()
    a.push(entry(a.node))
    for call in (a.get(BOB), a.close(BOB)):
        with pytest.raises(UnknownKeyStream):
            await call
    with pytest.raises(KeyStreamInUse):
        await a.open(BOB, ALICE, STREAM)
    assert (await a.get(ALICE, index=2))[0] is Status.SUCCESS


async def test_after_a_restart_a_closed_stream_is_opened_before_it_is_read(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b)
    await a.close(ALICE)
    a.restart()
    a.push(entry(a.node))
    for name in (ALICE, BOB):
        with pytest.raises(UnknownKeyStream):
            await a.get(name)
    assert (await a.open(ALICE, BOB, STREAM))[0] is Status.SUCCESS
    assert (await a.get(ALICE, index=2))[0] is Status.SUCCESS


async def test_after_a_crash_within_a_close_it_is_done(nodes: tuple[Node, Node]) -> None:
    """Who holds the stream was on disk, that it has closed not yet."""
    a, b = nodes
    await opened(a, b)
    await a.keys.hold(STREAM, {ALICE: False})
    a.restart()
    a.push(entry(a.node))
    await asyncio.sleep(0.01)
    assert not b.keys.peer_attached(STREAM)
    with pytest.raises(UnknownKeyStream):
        await a.get(ALICE)


async def test_get_key_says_why_not(nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qswitch.agent.applications.PEER_SECONDS", 0.01)
    a, b = nodes
    opening = asyncio.ensure_future(a.open(ALICE, BOB, qos=StreamQos(timeout=100)))
    await a.told(ApplicationNew)
    a.push(entry(a.node))
    await opening
    with pytest.raises(PeerNotConnected):
        await a.get(ALICE)
    b.push(entry(b.node))
    await b.open(BOB, ALICE, STREAM)
    with pytest.raises(TimedOut):
        await a.get(ALICE, index=99)
    small, _ = await a.table.get_key(frozenset({ALICE}), GetKey(STREAM, 0, 8))
    assert (small.status, small.needed_metadata_size) == (Status.METADATA_TOO_SMALL, METADATA_SIZE)
    assert a.keys.consumed_bits(STREAM) == 0
    assert (await a.get(ALICE, size=0))[2] == b""


async def test_the_rate_is_limited_and_reading_again_is_free(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b, qos=Qos(max_bandwidth_bps=1))
    for index in (0, 1, 2, 3, 3, 3):
        assert (await a.get(ALICE, index=index))[0] is Status.SUCCESS
    with pytest.raises(InsufficientKey):
        await a.get(ALICE, index=4)
    assert (await a.get(ALICE, index=3))[0] is Status.SUCCESS


async def test_links_and_time_of_an_entry_reach_the_key_manager(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b)
    a.push(entry(a.node, backing_links=(LINK, LinkId("other")), qos=Qos(ttl_seconds=9)))
    await asyncio.sleep(0)
    assert (a.keys.streams[STREAM].links, a.keys.streams[STREAM].ttl_seconds) == ((LINK, "other"), 9)
    a.push(entry(a.node, expiration_time=datetime.now(UTC) - timedelta(seconds=1)))
    a.table.refresh()
    await asyncio.sleep(0)
    assert a.status is ApplicationStatus.OUT_OF_TIME and not a.keys.streams
    with pytest.raises(UnknownKeyStream):
        await a.get(ALICE)


async def test_an_entry_removed_and_made_again_starts_with_nothing(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await opened(a, b)
    a.push()
    a.push(entry(a.node))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert STREAM in a.keys.streams and STREAM not in a.keys.attached
    with pytest.raises(UnknownKeyStream):
        await a.get(ALICE)


async def test_a_caller_who_hangs_up_leaves_nothing_attached(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    for node in nodes:
        node.push(entry(node.node))
    opening = asyncio.ensure_future(a.open(ALICE, BOB, STREAM))
    await asyncio.wait({opening}, timeout=0.01)
    assert STREAM in a.keys.attached
    opening.cancel()
    await asyncio.wait({opening})
    await asyncio.sleep(0.01)
    assert STREAM not in a.keys.attached
    assert b.keys.peer_attached(STREAM) is False


async def test_a_minimum_that_is_not_held_is_told_once_and_when_it_is_again(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = nodes
    promised = Qos(min_bandwidth_bps=100_000)
    for node in (a, b):
        node.push(entry(node.node, qos=promised))
    await asyncio.gather(a.open(ALICE, BOB, STREAM), b.open(BOB, ALICE, STREAM))
    before, now = len(a.said), 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    a.keys.waited = {STREAM}
    for _ in range(30):
        now, a.keys.allocated[STREAM] = now + 1, a.keys.allocated.get(STREAM, 0) + 60_000
        a.table.refresh()
    a.keys.waited = set()
    for _ in range(30):
        now, a.keys.allocated[STREAM] = now + 1, a.keys.allocated[STREAM] + 100_000
        a.table.refresh()
    unmet = ApplicationQosUpdate(STREAM, Qos(min_bandwidth_bps=60_000), unmet_min_bps=100_000)
    assert a.said[before:] == [unmet, ApplicationQosUpdate(STREAM, promised)]


def fails(node: Node, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a key manager whose disk is full: the work is done and noted, and the caller told that it is not on disk."""
    does = getattr(node.keys, name)

    async def failing(ksid: KeyStreamId) -> None:
        await does(ksid)
        raise StorageFailed("disk is full")

    monkeypatch.setattr(node.keys, name, failing)


async def test_who_opens_after_a_close_that_met_a_full_disk_is_attached(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = nodes
    await opened(a, b)
    fails(a, "detach", monkeypatch)
    with pytest.raises(StorageFailed):
        await a.close(ALICE)
    monkeypatch.undo()
    assert (await a.open(ALICE, BOB, STREAM))[0] is Status.SUCCESS
    assert b.keys.peer_attached(STREAM)


async def test_an_open_that_met_a_full_disk_leaves_nothing_attached(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = nodes
    for one in nodes:
        one.push(entry(one.node))
    fails(a, "attach", monkeypatch)
    with pytest.raises(StorageFailed):
        await a.open(ALICE, BOB, STREAM)
    assert not b.keys.peer_attached(STREAM)


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_close_that_was_not_done_at_once_is_done_soon(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch, hangs_up: bool
) -> None:
    """The caller may be gone, and does not call again."""
    a, b = nodes
    await opened(a, b)
    waits = asyncio.Event()

    async def hold(_ksid: KeyStreamId, _holders: Mapping[str, bool]) -> None:
        waits.set()
        if not hangs_up:
            raise StorageFailed("disk is full")
        await asyncio.Event().wait()

    monkeypatch.setattr(a.keys, "hold", hold)
    closing = asyncio.ensure_future(a.close(ALICE))
    await waits.wait()
    if hangs_up:
        closing.cancel()
    with pytest.raises((StorageFailed, asyncio.CancelledError)):
        await closing
    monkeypatch.undo()
    a.table.refresh()
    await asyncio.sleep(0.01)
    assert not b.keys.peer_attached(STREAM)


async def test_calls_for_one_stream_that_all_fail_leave_nothing_attached(nodes: tuple[Node, Node]) -> None:
    """As of an application that asks again while its first call waits."""
    a, b = nodes
    for node in nodes:
        node.push(entry(node.node))
    first = asyncio.ensure_future(a.open(ALICE, BOB, STREAM, StreamQos(timeout=50)))
    await asyncio.wait({first}, timeout=0.01)
    with pytest.raises(TimedOut):
        await a.open(ALICE, BOB, STREAM, StreamQos(timeout=100))
    assert isinstance(first.exception(), TimedOut)
    assert STREAM not in a.keys.attached and not b.keys.peer_attached(STREAM)


async def test_a_call_that_fails_takes_nothing_from_one_that_succeeded(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    for node in nodes:
        node.push(entry(node.node))
    first, second = (asyncio.ensure_future(a.open(ALICE, BOB, STREAM)) for _ in range(2))
    await asyncio.wait({first, second}, timeout=0.01)
    second.cancel()
    assert (await b.open(BOB, ALICE, STREAM))[0] is (await first)[0] is Status.SUCCESS
    await b.close(BOB)
    b.table.refresh()
    again = asyncio.ensure_future(a.open(ALICE, BOB, STREAM))
    await asyncio.sleep(0)
    again.cancel()
    await asyncio.wait({second, again})
    assert STREAM in a.keys.attached and (await a.get(ALICE))[0] is Status.SUCCESS


async def test_who_is_named_no_longer_gets_nothing_that_it_waited_for(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    carol = f"qkd://{NODES[1]}/carol"
    await opened(a, b)
    waits = asyncio.ensure_future(b.get(BOB, index=10))
    await asyncio.wait({waits}, timeout=0.01)
    b.push(entry(b.node, client_app_ids=(carol,)))
    assert (await b.open(carol, ALICE, STREAM))[0] is Status.SUCCESS
    b.keys.more.set()
    with pytest.raises(UnknownKeyStream):
        await waits
    assert (await b.get(carol, index=10))[0] is Status.SUCCESS


async def test_the_peer_takes_no_application_s_place_at_its_node(nodes: tuple[Node, Node]) -> None:
    """Whoever comes with the peer's certificate, before the application opened or after the node has restarted."""
    a, b = nodes
    for node in nodes:
        node.push(entry(node.node))
    with pytest.raises(KeyStreamInUse):
        await a.open(BOB, ALICE, STREAM, StreamQos(timeout=50))
    await opened(a, b)
    a.restart()
    a.push(entry(a.node))
    with pytest.raises(UnknownKeyStream):
        await a.get(BOB)
    assert (await a.get(ALICE))[0] is Status.SUCCESS
