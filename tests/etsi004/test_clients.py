"""What the clients in use do, and the server must live with: their habits and their defects."""

import json
import socket
import ssl
import struct
import time
import uuid

import pytest
from etsi004_callers import CLOSE, GET_KEY, OPEN_CONNECT, UNSPECIFIED, CallerC, CallerP, Fields, Qos, frame, ksid_octets
from etsi004_network import Network, Pair, Pairs, until

ONE_RECORD = 16_384


@pytest.fixture
def dialect() -> str:
    """The cases of this file name their own."""
    return "C"


def refused_calls(pair: Pair, ksid: str) -> list[int]:
    """Every call in a state in which it fails; a client of C parses all fields of every reply."""
    dead = str(uuid.uuid4())
    return [
        pair.a.open(*pair.uris, Qos(mimetype="text/xml")).status,
        pair.a.open("qkd://x/y", pair.uris[1]).status,
        pair.a.open(pair.uris[0], "qkd://nowhere/x", Qos(timeout=900)).status,
        pair.a.open(*pair.uris, Qos(timeout=100), dead).status,
        pair.a.get(dead, 0).status,
        pair.a.get(ksid, 100_000).status,
        pair.a.get(ksid, 0, 3).status,
        pair.a.close(dead),
    ]


@pytest.mark.parametrize("kind", ["C", "P"])
def test_replies_are_whole(pairs: Pairs, kind: str) -> None:
    """Wire: a failure is answered with the whole layout: clients of C parse all of it, clients of P its status only."""
    pair = pairs(kind)
    assert refused_calls(pair, pair.opened()) == [7, 4, 4, 6, 3, 2, 8, 3]


def test_a_connection_per_call(pairs: Pairs) -> None:
    """Wire: clients of C make a connection for each call and leave it open until their process ends."""
    pair = pairs("C")
    ksid = pair.opened()
    assert [pair.a.get(ksid, index).status for index in range(20)] == [0] * 20
    assert isinstance(pair.a, CallerC) and len(pair.a._left) == 21


def test_one_connection_for_all_calls(pairs: Pairs) -> None:
    """Wire: clients of P make all calls on one connection; a stream outlives it."""
    pair = pairs("P")
    ksid = pair.opened()
    assert [pair.a.get(ksid, index).status for index in range(20)] == [0] * 20
    assert isinstance(pair.a, CallerP)
    before = pair.a._connection
    assert pair.a.get(ksid, 20).status == 0 and pair.a._connection is before
    pair.a.leave()
    assert pair.a.get(ksid, 21).key == pair.b.get(ksid, 21).key != b""


def test_many_calls_on_a_connection_of_c(pairs: Pairs) -> None:
    """Wire: whoever makes several calls in the encoding of C on one connection is answered on it."""
    pair = pairs("C")
    ksid = pair.opened()
    with pair.a.who.connect(names_checked=False) as connection:
        for index in range(3):
            payload = ksid_octets(ksid) + struct.pack("!2I", index, 2) + b"\0\0"
            connection.sendall(frame((2, 1, 1), GET_KEY, payload))
            assert connection.recv(8)[3] == GET_KEY + 1
            reply = Fields(connection.recv(ONE_RECORD))
            assert (reply.u32(), reply.u32(), reply.u32()) == (0, index, 32)


def test_a_reply_is_one_record(pairs: Pairs) -> None:
    """Wire: clients of C lose what comes in a second TLS record: the largest key and its metadata come in one."""
    pair = pairs("C")
    ksid = pair.opened(Qos(chunk=16_000))
    got = pair.a.get(ksid, 0, 256)
    assert len(got.key) == 16_000 and json.loads(got.metadata)["hops"] == 0
    assert got.key == pair.b.get(ksid, 0).key


def test_type_and_role(pairs: Pairs) -> None:
    """Wire: clients of C always offer two octets, a key type and role: they get their key, and not status 8."""
    pair = pairs("C")
    got = pair.a.get(pair.opened(), 0, 2)
    assert (got.status, len(got.key), got.metadata) == (0, 32, b"")


@pytest.mark.parametrize("room", [33, 64])
def test_the_room_that_clients_of_p_have(pairs: Pairs, room: int) -> None:
    """Wire: the metadata fits the 33 octets of clients of P, which take an object of integers, without a NUL."""
    pair = pairs("P")
    got = pair.a.get(pair.opened(), 0, room)
    assert got.status == 0 and len(got.metadata) <= 33 and json.loads(got.metadata).keys() == {"age", "hops"}


def test_never_1_to_clients_of_p(pairs: Pairs) -> None:
    """Wire: clients of P take status 1 for a failure and drop the KSID: they get 0, and their stream is there."""
    pair = pairs("P")
    opened = pair.a.open(*pair.uris, Qos())
    assert opened.status == 0 and opened.ksid
    assert pair.b.open(*pair.uris, ksid=opened.ksid).status == 0
    assert pair.a.get(opened.ksid, 0).status == 0


def test_an_answer_within_5_s(pairs: Pairs, ksid: str) -> None:
    """Wire: clients of P hang up after 5 s: with an unspecified Timeout they are answered before."""
    pair = pairs("P")
    start = time.monotonic()
    assert pair.a.open(*pair.uris, UNSPECIFIED, ksid).status == 6
    assert 4 < time.monotonic() - start < 5


def test_null_ksids_pair_up(pairs: Pairs) -> None:
    """Wire: wg-Qrotator's peers both send a null KSID, and QoS fields of 0: they are given one stream."""
    pair = pairs("C")
    asked = Qos(chunk=32, max_bps=32, min_bps=32, timeout=0)
    ones = [end.open(*pair.uris, asked) for end in (pair.a, pair.b)]
    assert [one.status for one in ones] == [1, 0] and ones[0].ksid == ones[1].ksid
    assert pair.a.get(str(ones[0].ksid), 0, 2).key == pair.b.get(str(ones[0].ksid), 0, 2).key != b""


def test_a_request_that_waits_for_the_handshake(pairs: Pairs) -> None:
    """Wire: clients of C, with Nagle's algorithm on, are acknowledged the handshake at once, not after 40 ms."""
    pair = pairs("C")
    ksid, took = pair.opened(), list[float]()
    for index in range(20):
        start = time.monotonic()
        assert pair.a.get(ksid, index).status == 0
        took.append(time.monotonic() - start)
    assert min(took) < 0.025


@pytest.mark.parametrize("kinds", ["CP", "PC"])
def test_one_of_each(pairs: Pairs, kinds: str) -> None:
    """Wire: the ends of a stream may speak different encodings, also of the largest key."""
    pair = pairs(kinds)
    ksid = pair.opened(Qos(chunk=16_000))
    assert [pair.a.get(ksid, index).key for index in range(3)] == [pair.b.get(ksid, index).key for index in range(3)]


def test_a_type_of_255_octets(pairs: Pairs) -> None:
    """Wire: a Metadata_mimetype of 255 octets encodes alike in both; each client understands its refusal."""
    for kind in "CP":
        pair = pairs(kind)
        assert pair.a.open(*pair.uris, Qos(mimetype="x" * 255)).status == 7


def test_header_and_payload_apart(pairs: Pairs) -> None:
    """Wire: a request may come in any pieces."""
    pair = pairs("C")
    ksid = pair.opened()
    octets = frame((2, 1, 1), CLOSE, ksid_octets(ksid))
    with pair.a.who.connect(names_checked=False) as connection:
        for octet in octets:
            connection.sendall(bytes((octet,)))
        assert connection.recv(64)[3] == CLOSE + 1


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\2\1", id="half-a-header"),
        pytest.param(frame((2, 1, 1), OPEN_CONNECT, bytes(200))[:100], id="half-a-payload"),
        pytest.param(frame((2, 1, 1), 0xFF, b""), id="close-server"),
        pytest.param(frame((2, 1, 1), OPEN_CONNECT, b"no terminating octet"), id="no-nul"),
        pytest.param(frame((2, 1, 1), GET_KEY, bytes(7)), id="short"),
        pytest.param(frame((2, 1, 1), GET_KEY, bytes(24) + bytes(9)), id="long"),
        pytest.param(b"\x16\x03\x01" * 50, id="garbage"),
    ],
)
def test_others_are_served_on(pairs: Pairs, octets: bytes) -> None:
    """Wire: who says nothing, half of something, or nonsense loses its connection; the C example's server ended then."""
    pair = pairs("C")
    ksid = pair.opened()
    connection = pair.a.who.connect(names_checked=False)
    if octets:
        connection.sendall(octets)
    connection.close()
    assert pair.a.get(ksid, 0).key == pair.b.get(ksid, 0).key != b""


def test_plain_tcp(pairs: Pairs) -> None:
    """Wire: without TLS, which the P code takes when it has no certificates, nothing is answered."""
    pair = pairs("P")
    ksid = pair.opened()
    with socket.create_connection(("127.0.0.1", pair.a.who.port), timeout=10) as connection:
        connection.sendall(frame((1, 0, 1), GET_KEY, ksid_octets(ksid) + struct.pack("!2I", 0, 0)))
        got = connection.recv(64)
    assert len(got) < 32  # an alert of TLS at the most


def test_without_a_certificate(pairs: Pairs, network: Network) -> None:
    """Wire: clients of C send a certificate only when told to: without one they get nothing."""
    pair = pairs("C")
    ksid = pair.opened()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(pair.a.who.ca)
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection(("127.0.0.1", pair.a.who.port), timeout=10) as raw,
        context.wrap_socket(raw) as connection,
    ):
        connection.sendall(frame((2, 1, 1), CLOSE, ksid_octets(ksid)))
        if not connection.recv(64):
            raise ConnectionError
    assert network.on("a", ksid)


def test_an_idle_connection_holds_up_nobody(pairs: Pairs, network: Network) -> None:
    """Wire: a connection that waits, or says nothing, delays no other one."""
    pair = pairs("C")
    ksid = pair.opened()
    with pair.a.who.connect(names_checked=False):
        waiting = network.later(pair.a.open, *pair.uris, Qos(timeout=2500), str(uuid.uuid4()))
        until(lambda: network.registrations("a", pair.uris[0]) == 2)
        assert pair.b.get(ksid, 0).status == 0 and not waiting.done()
        assert waiting.result(5).status == 6
