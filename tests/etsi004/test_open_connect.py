"""OPEN_CONNECT: what tables 1 and 2 say of it, and whom it lets in."""

import time
import uuid

import pytest
from etsi004_callers import CALLERS, UNSPECIFIED, Qos
from etsi004_network import FREE_BPS, Network, Pair, Pairs, until
from key_managers import node_id

from qswitch.agent.model import Admission

# KSID ----------------------------------------------------------------------------------------------------------------


def test_null_ksid(pair: Pair) -> None:
    """Clause 6.1, table 1: for a null KSID the key manager makes one, a UUID of version 4, another for every call."""
    made = [pair.a.open(*pair.uris, Qos()).ksid for _ in range(3)]
    assert len(set(made)) == 3
    assert {uuid.UUID(one).version for one in made if one} == {4}


def test_many_ksids(pair: Pair) -> None:
    """Clause 6.1, consideration 1: an application has as many KSIDs as it wants, each with key of its own."""
    ksids = [pair.opened() for _ in range(4)]
    assert len({pair.a.get(ksid, 0).key for ksid in ksids}) == 4


def test_the_peer_s_arrival_is_no_use_by_another(pair: Pair) -> None:
    """Clause 6.1, table 1, note: a KSID that one's own peer has established is joined, not in use."""
    ksid = pair.opened()
    assert pair.b.open(*pair.uris, ksid=ksid).status == 0  # and again, as after a crash


@pytest.mark.parametrize("at", ["a", "b", "c"])
def test_status_5(network: Network, pair: Pair, dialect: str, at: str) -> None:
    """Clause 6.1, table 2: 5 for a KSID that other applications use, at any node; theirs goes on."""
    ksid = pair.opened()
    third = CALLERS[dialect](network.identity(at, "eve"))
    for destination in pair.uris:
        assert third.open(third.who.uri, destination, Qos(timeout=2000), ksid).status == 5
    assert third.get(ksid, 0).status == 3
    third.leave()
    assert pair.a.get(ksid, 0).key == pair.b.get(ksid, 0).key != b""


# Waiting for the peer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
def test_blocks_until_the_peer_is_there(pair: Pair, network: Network, ksid: str, first: int) -> None:
    """Clause 6.1, table 1: a call with a KSID is not answered before the peer is connected."""
    ends = (pair.a, pair.b)
    early = network.later(ends[first].open, *pair.uris, Qos(), ksid)
    until(lambda: network.on("ab"[first], ksid))
    assert not early.done()
    assert ends[1 - first].open(*pair.uris, Qos(), ksid).status == 0
    assert early.result(10).status == 0


@pytest.mark.parametrize("alone", [0, 1])
def test_status_6(pair: Pair, ksid: str, alone: int) -> None:
    """Clause 6.1, table 2: 6 once Timeout, in ms, has run out, no sooner and not much later; then the KSID is free."""
    start = time.monotonic()
    assert (pair.a, pair.b)[alone].open(*pair.uris, Qos(timeout=400), ksid).status == 6
    assert 0.4 <= time.monotonic() - start < 3
    first = pair.a.open(*pair.uris, Qos())
    assert first.ksid and pair.b.open(*pair.uris, ksid=first.ksid).status == 0


def test_a_timeout_leaves_nothing_connected(pair: Pair, network: Network, ksid: str) -> None:
    """Clause 6.1, table 2: who got 6 is not connected; later both open with the same KSID."""
    assert pair.a.open(*pair.uris, Qos(timeout=300), ksid).status == 6
    until(lambda: not network.on("a", ksid) and not network.peer_attached("b", ksid))
    assert pair.b.open(*pair.uris, Qos(timeout=300), ksid).status == 6
    early = network.later(pair.a.open, *pair.uris, Qos(), ksid)
    assert pair.b.open(*pair.uris, Qos(), ksid).status == early.result(10).status == 0


def test_status_1(pair: Pair) -> None:
    """Clause 6.1, table 2: 1 when connected but the peer is not there yet; it carries KSID and QoS. Clients of P get 0."""
    reply = pair.a.open(*pair.uris, Qos(chunk=40))
    assert reply.status == pair.a.absent and reply.ksid and reply.qos and reply.qos.chunk == 40


def test_status_0(pair: Pair) -> None:
    """Clause 6.1, table 2: 0 is success: the peer is there."""
    opened = pair.a.open(*pair.uris, Qos())
    reply = pair.b.open(*pair.uris, Qos(), opened.ksid)
    assert (reply.status, reply.ksid) == (0, opened.ksid)


@pytest.mark.parametrize("far", ["a", "nowhere"])
def test_status_4(network: Network, dialect: str, far: str) -> None:
    """Clause 6.1, table 2: 4 when no QKD connection joins the two."""
    caller = CALLERS[dialect](network.identity("a", "alone"))
    assert caller.open(caller.who.uri, f"qkd://{node_id('a') if far == 'a' else far}/nobody", Qos()).status == 4
    caller.leave()


# QoS -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        pytest.param(Qos(chunk=0), 32, id="unspecified"),
        pytest.param(Qos(chunk=1), 1, id="least"),
        pytest.param(Qos(chunk=16_000), 16_000, id="largest"),
    ],
)
def test_key_chunk_size(pair: Pair, asked: Qos, offered: int) -> None:
    """Clause 6.1, table 2: Key_chunk_size is in octets, and every key has it; unspecified, the key manager picks one."""
    opened = pair.a.open(*pair.uris, asked)
    assert opened.qos and opened.qos.chunk == offered and opened.ksid
    assert pair.b.open(*pair.uris, asked, opened.ksid).status == 0
    keys = [end.get(opened.ksid, index).key for end in (pair.a, pair.b) for index in range(2)]
    assert [len(key) for key in keys] == [offered] * 4
    assert keys[:2] == keys[2:]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(Qos(max_bps=50_000), id="max_bps"),
        pytest.param(Qos(min_bps=1000), id="min_bps"),
        pytest.param(Qos(jitter=700), id="jitter"),
        pytest.param(Qos(priority=3), id="priority"),
        pytest.param(Qos(timeout=7000), id="timeout"),
        pytest.param(Qos(ttl=900), id="ttl"),
        pytest.param(Qos(mimetype=""), id="no-metadata"),
        pytest.param(Qos(48, 90_000, 500, 700, 3, 8000, 60), id="all"),
    ],
)
def test_qos_is_returned(pair: Pair, asked: Qos) -> None:
    """Clause 6.1, table 2: the QoS returned is the one that holds; what can be had is not changed."""
    assert pair.a.open(*pair.uris, asked).qos == asked


def test_unspecified_qos(pair: Pair) -> None:
    """Clause 6.1, table 2: for a null field the key manager picks a value; 0 is no limit, but a size and a time there is."""
    opened = pair.a.open(*pair.uris, UNSPECIFIED)
    assert opened.status == pair.a.absent and opened.qos
    assert opened.qos.chunk == 32 and opened.qos.mimetype == "application/json"
    # Clients of P give up after 5 s.
    assert opened.qos.timeout == (4500 if pair.a.name == "P" else 10_000)


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        pytest.param(Qos(chunk=16_001), Qos(chunk=16_000), id="chunk"),
        pytest.param(Qos(chunk=2**32 - 1), Qos(chunk=16_000), id="chunk-largest"),
        pytest.param(Qos(max_bps=100, min_bps=200), Qos(max_bps=100, min_bps=100), id="min-above-max"),
        pytest.param(Qos(mimetype="text/xml"), Qos(), id="mimetype"),
        pytest.param(Qos(mimetype="x" * 254), Qos(), id="mimetype-long"),
    ],
)
def test_status_7(pair: Pair, asked: Qos, nearest: Qos) -> None:
    """Clause 6.1, table 2: 7 for a QoS that cannot be had, with the nearest that can; that one is then accepted."""
    refused = pair.a.open(*pair.uris, asked)
    assert (refused.status, refused.qos, refused.ksid) == (7, nearest, None)
    assert pair.a.open(*pair.uris, nearest).status == pair.a.absent


def test_a_counter_proposal_opens_nothing(pair: Pair, network: Network, ksid: str) -> None:
    """Clause 6.1, table 2: 7 is a failure: no stream is left open, and no controller is asked."""
    assert pair.a.open(*pair.uris, Qos(mimetype="text/xml"), ksid).status == 7
    assert not network.registrations("a", pair.uris[0])
    assert pair.a.get(ksid, 0).status == pair.a.close(ksid) == 3


def test_status_7_of_the_network(pairs: Pairs) -> None:
    """Clause 6.1, table 2: 7 as well when the network has no room for Min_bps."""
    pair = pairs(admission=Admission.QOS_NOT_MET)
    assert pair.a.open(*pair.uris, Qos(min_bps=10**9)).status == 7


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        pytest.param(Qos(min_bps=10**9, ttl=9), Qos(min_bps=FREE_BPS * 95 // 100, ttl=9), id="min"),
        pytest.param(Qos(max_bps=2 * 10**9, min_bps=10**9), Qos(max_bps=2 * 10**9, min_bps=FREE_BPS * 95 // 100), id="both"),
        pytest.param(Qos(max_bps=10**9), Qos(max_bps=FREE_BPS * 95 // 100), id="max"),
    ],
)
def test_counter_proposal_of_the_network(pairs: Pairs, asked: Qos, nearest: Qos) -> None:
    """Clause 6.1, table 2: the QoS returned with 7 is one that the network can offer, and then takes."""
    pair = pairs(admission=Admission.QOS_NOT_MET)
    refused = pair.a.open(*pair.uris, asked)
    assert (refused.status, refused.qos, refused.ksid) == (7, nearest, None)


@pytest.mark.parametrize("spelling", ["application/json", "Application/JSON"])
def test_json_is_never_refused(pair: Pair, spelling: str) -> None:
    """Clause 6.1, table 2: application/json is supported always."""
    opened = pair.a.open(*pair.uris, Qos(mimetype=spelling))
    assert opened.status == pair.a.absent and opened.qos and opened.qos.mimetype == spelling


ELSEWHERE = Qos(chunk=99, max_bps=7, min_bps=5, jitter=3, priority=9, timeout=10_000, ttl=3)


@pytest.mark.parametrize("second", [UNSPECIFIED, ELSEWHERE], ids=["none", "other"])
@pytest.mark.parametrize(
    "member",
    [
        "chunk",
        "max_bps",
        "min_bps",
        "ttl",
        "priority",
        "jitter",
        "timeout",
    ],
)
def test_the_first_qos_counts(pair: Pair, second: Qos, member: str) -> None:
    """Clause 6.1, table 1, note: who joins a KSID gets the QoS that is registered for it, whatever QoS it sent."""
    first = pair.a.open(*pair.uris, Qos(48, 90_000, 500, 700, 3, 8000, 60))
    joined = pair.b.open(*pair.uris, second, first.ksid)
    assert joined.status == 0 and first.qos and joined.qos
    assert getattr(joined.qos, member) == getattr(first.qos, member)


@pytest.mark.parametrize("member", ["max_bps", "min_bps", "ttl", "priority", "jitter"])
def test_the_first_qos_counts_where_it_names_nothing(pair: Pair, member: str) -> None:
    """Clause 6.1, table 1, note: what is registered may be that there is no limit; the second peer sets none either."""
    first = pair.a.open(*pair.uris, UNSPECIFIED)
    joined = pair.b.open(*pair.uris, ELSEWHERE, first.ksid)
    assert joined.status == 0 and first.qos and joined.qos
    assert getattr(joined.qos, member) == getattr(first.qos, member) == 0


@pytest.mark.parametrize("asked", [Qos(max_bps=100, min_bps=200)], ids=["min-above-max"])
def test_who_joins_is_not_refused_for_its_rates(pair: Pair, asked: Qos) -> None:
    """Clause 6.1, table 1, note: whatever rates the second peer sends, the registered ones are returned."""
    first = pair.a.open(*pair.uris, Qos(max_bps=90_000))
    joined = pair.b.open(*pair.uris, asked, first.ksid)
    assert joined.status == 0 and joined.qos and (joined.qos.max_bps, joined.qos.min_bps) == (90_000, 0)


def test_who_joins_sets_no_limit_to_what_it_reads(pair: Pair) -> None:
    """Clause 6.1, table 1, note: a joiner's own Max_bps is none of the stream's."""
    first = pair.a.open(*pair.uris, UNSPECIFIED)
    assert first.ksid and pair.b.open(*pair.uris, Qos(max_bps=8), first.ksid).status == 0
    assert [pair.b.get(first.ksid, index).status for index in range(8)] == [0] * 8


# Who calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_source_and_destination(pair: Pair, swapped: bool) -> None:
    """Clause 6.1, table 2: source and destination are two URIs; the second peer repeats them, or has them the other way."""
    first = pair.a.open(*pair.uris, Qos())
    uris = reversed(pair.uris) if swapped else pair.uris
    assert pair.b.open(*uris, ksid=first.ksid).status == 0


def test_the_certificate_is_the_source(network: Network, pair: Pair, dialect: str) -> None:
    """Clause 6.1, table 2: source is the application that calls: a name that its certificate lacks is refused."""
    ksid = pair.opened()
    thief = CALLERS[dialect](network.identity("a", "eve"))
    for known in (None, ksid, str(uuid.uuid4())):
        assert thief.open(*pair.uris, Qos(), known).status == 4
    assert not network.registrations("a", thief.who.uri)
    assert thief.get(ksid, 0).status == thief.close(ksid) == 3
    thief.leave()
    assert pair.a.get(ksid, 0).status == 0


def test_each_end_at_its_own_node(pair: Pair, network: Network, dialect: str) -> None:
    """Clause 6.1, table 1: a KSID is reserved at both ends: an application at the other's node has no part in it."""
    ksid = pair.opened()
    there = pair.b.who
    port = network.servers["a"].service.endpoint.port
    moved = CALLERS[dialect](type(there)(there.uri, there.certificate, there.key, there.ca, port))
    assert moved.open(*pair.uris, Qos(timeout=500), ksid).status == 5
    assert moved.get(ksid, 0).status == 3
    moved.leave()


@pytest.mark.parametrize("uris", [("", "x"), ("x", ""), ("x", "x")])
def test_both_applications_are_named(network: Network, dialect: str, uris: tuple[str, str]) -> None:
    """Clause 6.1, table 2: source and destination are two applications."""
    caller = CALLERS[dialect](network.identity("a", "odd"))
    source, destination = (one.replace("x", caller.who.uri) for one in uris)
    assert caller.open(source, destination, Qos()).status == 4
    caller.leave()


def test_an_application_that_crashed(pair: Pair) -> None:
    """Clause 6.1, table 1: an application may open its stream again; chunks that it read before are not given again."""
    ksid = pair.opened()
    first = [pair.a.get(ksid, index).key for index in range(3)]
    pair.a.leave()
    assert pair.a.open(*pair.uris, Qos(), ksid).status == 0
    again = pair.a.get(ksid)
    assert again.status == 0 and again.key not in first and again.key == pair.b.get(ksid, again.index).key
