"""GET_KEY: index, status and metadata, and Timeout and TTL as far as they govern it."""

import json
import struct
import time

import pytest
from etsi004_callers import CALLERS, GET_KEY, NEXT, Qos, frame, ksid_octets
from etsi004_network import AC, Network, Pair, Pairs, until

AHEAD = 1024  # chunks beyond the last one read that may be asked for

# Index ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 16, 33, 4096])
def test_exactly_a_chunk(pair: Pair, size: int) -> None:
    """Clause 6.1, table 1: each call gives exactly Key_chunk_size octets."""
    ksid = pair.opened(Qos(chunk=size))
    assert [len(pair.a.get(ksid, index).key) for index in range(4)] == [size] * 4


def test_the_index_is_a_position(pair: Pair) -> None:
    """Clause 6.1, table 2: an index names the same chunk at both ends, in whatever order they read."""
    ksid = pair.opened()
    ones = {index: pair.a.get(ksid, index).key for index in (0, 1, 2, 3, 4, 5)}
    others = {index: pair.b.get(ksid, index).key for index in (5, 0, 3, 1, 4, 2)}
    assert ones == others and len(set(ones.values())) == 6


def test_the_index_is_returned(pair: Pair) -> None:
    """Clause 6.1, table 1: the index returned is that of the chunk delivered."""
    ksid = pair.opened()
    assert [pair.a.get(ksid, index).index for index in (0, 1, 7)] == [0, 1, 7]


def test_the_next_one(pair: Pair) -> None:
    """Clause 6.1, table 1: index is in and out; 2^32 - 1 is read as "the next one", and the reply says which that is."""
    ksid = pair.opened()
    ones = [pair.a.get(ksid, NEXT) for _ in range(4)]
    assert [one.index for one in ones] == [0, 1, 2, 3]
    assert [one.key for one in ones] == [pair.b.get(ksid, index).key for index in range(4)]
    pair.a.get(ksid, 9)
    assert pair.a.get(ksid, NEXT).index == 10


def test_the_last_one_again(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: (a gap) the chunk delivered last is delivered again, since its reply may be lost; at no cost."""
    ksid = pair.opened()
    first = pair.a.get(ksid, 3)
    spent = network.consumed("a", ksid)
    assert [pair.a.get(ksid, 3).key for _ in range(3)] == [first.key] * 3
    assert network.consumed("a", ksid) == spent == 256
    pair.a.leave()
    assert pair.a.get(ksid, 3).key == first.key  # on another connection too


def test_older_ones_are_gone(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: (a gap) a chunk is delivered once; after the next one it is gone, and none is spent on asking."""
    ksid = pair.opened()
    for index in (0, 1, 2):
        assert pair.a.get(ksid, index).status == 0
    spent = network.consumed("a", ksid)
    assert [pair.a.get(ksid, index).status for index in (0, 1)] == [4, 4]
    assert [pair.a.get(ksid, index).key for index in (0, 1)] == [b"", b""]
    assert network.consumed("a", ksid) == spent
    assert pair.a.get(ksid, 3).status == 0


def test_gaps(pair: Pair) -> None:
    """Clause 6.1, table 1: (a gap) indexes may be skipped; what was skipped can be read later, at both ends."""
    ksid = pair.opened()
    order = (0, 20, 5, 19, 6)
    ones = {index: pair.a.get(ksid, index).key for index in order}
    assert ones == {index: pair.b.get(ksid, index).key for index in sorted(order)}
    assert len(set(ones.values())) == len(order)


def test_far_ahead(pair: Pair) -> None:
    """Clause 6.1, table 1: (a gap) up to 1024 chunks may be skipped: all of them are then reserved."""
    ksid = pair.opened(Qos(chunk=8))
    assert pair.a.get(ksid, 0).status == 0
    far = pair.a.get(ksid, AHEAD)
    assert far.status == 0 and far.key == pair.b.get(ksid, AHEAD).key


@pytest.mark.parametrize("index", [AHEAD, 100_000, NEXT - 1])
def test_too_far_ahead(pair: Pair, index: int) -> None:
    """Clause 6.1, table 2: 2 for an index so far ahead that the key up to it is not to be had; nothing is spent."""
    ksid = pair.opened(Qos(chunk=8))
    assert pair.a.get(ksid, index).status == 2
    assert pair.a.get(ksid, 0).key == pair.b.get(ksid, 0).key != b""


# Status --------------------------------------------------------------------------------------------------------------


def test_status_2(pair: Pair) -> None:
    """Clause 6.1, table 2: 2 when more is asked for than Max_bps lets have; the last one may still be read again."""
    ksid = pair.opened(Qos(max_bps=256))
    statuses = [pair.a.get(ksid, index).status for index in range(6)]
    assert statuses[:4] == [0] * 4 and statuses[-1] == 2
    last = max(index for index, status in enumerate(statuses) if not status)
    assert pair.a.get(ksid, last).status == 0


def test_status_3_no_peer(pair: Pair) -> None:
    """Clause 6.1, table 2: 3 while the peer has not connected; once it has there is key."""
    opened = pair.a.open(*pair.uris, Qos())
    assert opened.ksid
    assert pair.a.get(opened.ksid, 0).status == 3
    assert pair.b.open(*pair.uris, ksid=opened.ksid).status == 0
    assert pair.a.get(opened.ksid, 0).status == 0


def test_status_3_no_stream(pair: Pair, ksid: str) -> None:
    """Clause 6.1, table 2: (a gap) 3 for a KSID that is not open, and for null."""
    pair.opened()
    nothing = "00000000-0000-0000-0000-000000000000"
    assert [pair.a.get(one, 0).status for one in (ksid, nothing)] == [3, 3]
    assert [pair.a.close(one) for one in (ksid, nothing)] == [3, 3]


def test_nobody_else_s(pair: Pair, network: Network, dialect: str) -> None:
    """Clause 6.1, consideration 2: a KSID says nothing of the key: knowing it gives nobody else any."""
    ksid = pair.opened()
    third = CALLERS[dialect](network.identity("a", "eve"))
    assert (third.get(ksid, 0).status, third.get(ksid, 0).key, third.close(ksid)) == (3, b"", 3)
    third.leave()
    assert pair.a.get(ksid, 0).status == 0


@pytest.mark.parametrize("which", [0, 1])
def test_timeout(pairs: Pairs, network: Network, which: int) -> None:
    """Clause 6.1, table 2: Timeout of OPEN_CONNECT, in ms, governs GET_KEY at both sides: the opener's; 6, no sooner."""
    pair = pairs(link=network.dry_link())
    opened = pair.a.open(*pair.uris, Qos(timeout=500))
    assert opened.ksid
    assert pair.b.open(*pair.uris, Qos(timeout=9000), opened.ksid).status == 0
    start = time.monotonic()
    assert (pair.a, pair.b)[which].get(opened.ksid, 0).status == 6
    assert 0.49 <= time.monotonic() - start < 3  # the loop counts whole milliseconds


def test_a_timeout_spends_nothing(pairs: Pairs, network: Network) -> None:
    """Clause 6.1, table 2: after 6 the same index gives its key, once there is some."""
    link = network.dry_link()
    pair = pairs(link=link)
    ksid = pair.opened(Qos(timeout=400))
    assert pair.a.get(ksid, 0).status == 6
    network.feed(link)
    until(lambda: network.stored("a", ksid) > 0)
    got = pair.a.get(ksid, 0)
    assert got.status == 0 and (got.index, got.key) == (0, pair.b.get(ksid, 0).key)


def test_waiting_for_key(pairs: Pairs, network: Network) -> None:
    """Clause 6.1, table 2: within Timeout the call waits for key, and is then answered with it."""
    link = network.dry_link()
    pair = pairs(link=link)
    ksid = pair.opened()
    calls = [network.later(one.get, ksid, 0) for one in (pair.a, pair.b)]
    network.feed(link)
    ones = [call.result(10) for call in calls]
    assert [one.status for one in ones] == [0, 0] and ones[0].key == ones[1].key


# Time to live --------------------------------------------------------------------------------------------------------


def test_ttl(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 2: after TTL, in s, what was reserved and not read is erased at both ends, later key not."""
    ksid = pair.opened(Qos(ttl=1))
    assert pair.a.get(ksid, 0).status == 0
    until(lambda: network.stored("a", ksid) > 40 and network.stored("b", ksid) > 40)
    until(lambda: network.stored("a", ksid) == network.stored("b", ksid) == 0)
    assert [pair.a.get(ksid, 5).status, pair.b.get(ksid, 5).status] == [4, 4]
    fresh = pair.a.get(ksid, NEXT)
    assert fresh.status == 0 and fresh.key == pair.b.get(ksid, fresh.index).key


# Metadata ------------------------------------------------------------------------------------------------------------


def test_no_room_no_metadata(pair: Pair) -> None:
    """Clause 6.1, table 1: with a Metadata_size of 0 the key comes without metadata."""
    got = pair.a.get(pair.opened(), 0, 0)
    assert (got.status, len(got.key), got.metadata) == (0, 32, b"")


def test_metadata(pair: Pair) -> None:
    """Clause 6.1, table 3: a JSON object with age in ms, since the key was there, and hops, 0 over a direct link."""
    got = pair.a.get(pair.opened(), 0, 256)
    about = json.loads(got.metadata)
    assert set(about) >= {"age", "hops"} and all(type(one) is int for one in about.values())
    assert about["hops"] == 0 and 0 <= about["age"] < 600_000


def test_age_grows(pair: Pair) -> None:
    """Clause 6.1, table 3: age counts on while the chunk waits."""
    ksid = pair.opened()
    first = json.loads(pair.a.get(ksid, 0, 64).metadata)["age"]
    start = time.monotonic()
    until(lambda: time.monotonic() - start > 0.05)
    again = json.loads(pair.a.get(ksid, 0, 64).metadata)["age"]
    assert again - first >= 50


def test_hops(pairs: Pairs) -> None:
    """Clause 6.1, table 3: hops is the number of trusted nodes that the key came through, at both ends."""
    pair = pairs(far="c", link=AC)
    ksid = pair.opened()
    assert [json.loads(end.get(ksid, 0, 64).metadata)["hops"] for end in (pair.a, pair.b)] == [1, 1]


ROOM: dict[str, tuple[int, ...]] = {"C": (1, 3, 10), "P": (1, 2, 10)}  # 2 is what clients of C always offer


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("after", ["needed", "none"])
def test_status_8(pair: Pair, network: Network, which: int, after: str) -> None:
    """Clause 6.1, table 2: 8 for too little room, with the size needed and no key; with that size, or 0, it is then had."""
    ksid = pair.opened()
    small = pair.a.get(ksid, 0, ROOM[pair.a.name][which])
    assert (small.status, small.key) == (8, b"") and 0 < small.needed <= 256
    assert network.consumed("a", ksid) == 0
    got = pair.a.get(ksid, 0, small.needed if after == "needed" else 0)
    assert got.status == 0 and bool(got.metadata) is (after == "needed")
    assert got.key == pair.b.get(ksid, 0).key


def test_status_8_of_the_next_one(pair: Pair) -> None:
    """Clause 6.1, table 2: 8 moves nothing on: "the next one" is the same as before."""
    ksid = pair.opened()
    assert [pair.a.get(ksid, NEXT, 3).status for _ in range(3)] == [8] * 3
    assert pair.a.get(ksid, NEXT, 0).index == 0


def test_no_mimetype_no_metadata(pair: Pair) -> None:
    """Clause 6.1, table 2: whose Metadata_mimetype is empty gets none, whatever room there is."""
    ksid = pair.opened(Qos(mimetype=""))
    assert [pair.a.get(ksid, 0, room).metadata for room in (0, 3, 256)] == [b""] * 3
    assert pair.a.get(ksid, 0, 3).status == 0


# Callers that leave --------------------------------------------------------------------------------------------------


def test_who_hangs_up_loses_nothing(pairs: Pairs, network: Network) -> None:
    """Clause 6.1, table 1: a call that its caller has given up takes no chunk: the next call has the same one."""
    link = network.dry_link()
    pair = pairs(link=link)
    ksid = pair.opened()
    connection = pair.a.who.connect(names_checked=False)
    connection.sendall(frame(pair.a.version, GET_KEY, ksid_octets(ksid) + struct.pack("!2I", NEXT, 0)))
    until(lambda: network.waits("a", ksid))
    connection.close()
    until(lambda: not network.waits("a", ksid))
    network.feed(link)
    got = pair.a.get(ksid, NEXT)
    assert (got.status, got.index) == (0, 0) and got.key == pair.b.get(ksid, 0).key
