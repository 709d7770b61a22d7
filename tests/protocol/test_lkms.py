"""Messages between key managers: there and back, in pieces, and what is no message."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, strategies as st

from qswitch.protocol import lkms
from qswitch.protocol.lkms import (
    AnyMessage,
    Codec,
    ProtocolError,
    Segment,
    StateMessage,
    WireMessage,
    build,
    build_body,
    build_state,
    parse_body,
    relay_header,
    tagged_header,
)

LINK = "11111111-1111-4111-8111-111111111111"
KSID = "22222222-2222-4222-8222-222222222222"
SEGMENTS = (Segment(LINK, (1 << 63) - 1, 0, 4096), Segment(LINK, 0, 4064, 32))

MESSAGES: list[WireMessage] = [
    lkms.Hello(lkms.VERSION, bytes(16)),
    lkms.Ping(),
    lkms.LinkHello(LINK),
    lkms.Offer(LINK, -1, ((0, 0, 4096), (2, 100, 4064)), True, False),
    lkms.Want(LINK),
    lkms.Lack(LINK, 4096, 1 << 20, (1 << 32) - 1),
    lkms.StreamHello(KSID, (LINK,)),
    lkms.KeyHello(KSID, (LINK,)),
    lkms.Relay(LINK, 1, ((10, 4096),), SEGMENTS, bytes(4096), bytes(16)),
    lkms.Tagged(7, SEGMENTS[1], b"body", bytes(16)),
]
STATES: list[StateMessage] = [
    lkms.LinkSync(LINK, 7, True, -1, ((0, 3), (6, 6)), ((2, 100, 4096),), ((3, 3),), False),
    lkms.Have(LINK, ((0, 3),), True, 2),
    lkms.Lost(LINK, ((5, 5),)),
    lkms.Give(LINK, ()),
    lkms.StreamSync(KSID, 1, (1 << 63) - 1, 32, 1, 1 << 32),
    lkms.StreamState(KSID, 1, 0, 2, 64, 128, True),
    lkms.Attach(KSID, 1, 32),
    lkms.Need(KSID, 1 << 32),
    lkms.Alloc(KSID, 5, 32, 64, 129, SEGMENTS),
    lkms.AllocAck(KSID, 5, 193),
    lkms.KeySync(KSID, 3, (LINK, KSID)),
    lkms.KeyMeet(KSID, 3, (LINK,), (KSID,), 10_000),
    lkms.KeyMet(KSID, 3, (), 0),
    lkms.KeyAlloc(KSID, 1, 32, (LINK,), SEGMENTS, True),
    lkms.KeyAlloc(KSID, 2, 32, (LINK,), SEGMENTS, False, bytes(32), bytes(16)),
    lkms.KeyAck(KSID, 2, 9_998),
    lkms.KeyTaken(KSID, (LINK,)),
    lkms.KeyDrop(KSID, (LINK,)),
    lkms.RelayNack(LINK, (10, 12), "no key", (LINK,)),
]


def all_of(codec: Codec) -> list[WireMessage]:
    found = []
    while (message := codec.next_message()) is not None:
        found.append(message)
    return found


def test_every_kind_of_message_is_tried() -> None:
    assert {type(message) for message in MESSAGES} == set(WireMessage.__args__)
    assert {type(message) for message in STATES} == set(StateMessage.__args__)
    assert {*WireMessage.__args__, *StateMessage.__args__} == set(AnyMessage.__args__)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_there_and_back(message: WireMessage) -> None:
    codec = Codec()
    codec.receive(build(message) + b"\0\0")
    (back,) = all_of(codec)
    assert build(back) == build(message)
    assert type(back) is type(message)


def test_what_moves_state_travels_in_an_envelope_only() -> None:
    body = build_body([build_state(one) for one in STATES])
    assert build_body([build_state(one) for one in parse_body(body)]) == body
    assert [type(one) for one in parse_body(body)] == [type(one) for one in STATES]
    for one in STATES:
        codec, octets = Codec(), build_state(one)
        codec.receive(len(octets).to_bytes(4) + octets)
        with pytest.raises(ProtocolError):
            codec.next_message()
    for other in MESSAGES:
        with pytest.raises(ProtocolError):
            parse_body(build_body([build(other)[4:]]))
    for bad in (b"", body[:-1], body + b"x", b"\xdd\xff\xff\xff\xff"):
        with pytest.raises(ProtocolError):
            parse_body(bad)
    with pytest.raises(ProtocolError):
        build_state(lkms.KeyAlloc(KSID, 1, 32, (LINK,), (), True, bytes(lkms.MAX_MESSAGE)))


def test_the_tag_of_an_envelope_covers_the_session_and_the_place() -> None:
    headers = [
        tagged_header(*nonces, number, key)
        for nonces in ((b"a" * 16, b"b" * 16), (b"b" * 16, b"a" * 16), (b"a" * 16, b"c" * 16))
        for number in (0, 1)
        for key in SEGMENTS
    ]
    assert len(set(headers)) == len(headers)


def test_in_any_pieces() -> None:
    data = b"".join(map(build, MESSAGES))
    whole, pieces = Codec(), Codec()
    whole.receive(data)
    found = []
    for octet in data:
        pieces.receive(bytes([octet]))
        found += all_of(pieces)
    assert found == all_of(whole)
    assert len(found) == len(MESSAGES)


def test_values_out_of_bounds_are_refused() -> None:
    bad = [
        ["want", "x" * 37],
        ["hello", 2, b"short"],
        ["offer", LINK, -2, [], False, False],
        ["offer", LINK, 0, [[0, 0, 1]] * 257, False, False],
        ["tagged", 0, [LINK, -1, 0, 1], b"", b""],
        ["relay", LINK, 0, [[0, 1]] * 65, [], b"", b""],
        ["relay", LINK, 0, [[0, 0]], [], b"", b""],
        ["nonsense", LINK],
        {"link": LINK},
    ]
    for one in bad:
        codec, body = Codec(), msgspec.msgpack.encode(one)
        codec.receive(len(body).to_bytes(4) + body)
        with pytest.raises(ProtocolError):
            codec.next_message()
    worse = [
        ["alloc", KSID, 5, 32, 0, 0, []],
        ["alloc", KSID, 5, 32, 0, 1, [[LINK, -1, 0, 1]]],
        ["attach", KSID, 3, 0],
        ["need", KSID, (1 << 32) + 1],
        ["have", LINK, [[0, 1 << 63]], False, 0],
    ]
    for one in worse:
        with pytest.raises(ProtocolError):
            parse_body(msgspec.msgpack.encode([one]))


def test_a_long_message_is_refused_before_it_is_there() -> None:
    codec = Codec()
    codec.receive((lkms.MAX_MESSAGE + 1).to_bytes(4))
    with pytest.raises(ProtocolError):
        codec.next_message()
    with pytest.raises(ProtocolError):
        build(lkms.Relay(LINK, 0, (), (), bytes(lkms.MAX_MESSAGE), b""))


@given(st.binary(max_size=200), st.booleans())
def test_any_octets_are_messages_or_refused(data: bytes, framed: bool) -> None:
    codec = Codec()
    codec.receive(len(data).to_bytes(4) + data if framed else data)
    with suppress(ProtocolError):
        all_of(codec)
    with suppress(ProtocolError):
        parse_body(data)


def test_the_tag_covers_all_but_the_ciphertext() -> None:
    one = lkms.Relay(LINK, 1, ((10, 4096),), SEGMENTS, b"", b"")
    others = [
        lkms.Relay(KSID, 1, ((10, 4096),), SEGMENTS, b"", b""),
        lkms.Relay(LINK, 2, ((10, 4096),), SEGMENTS, b"", b""),
        lkms.Relay(LINK, 1, ((12, 4096),), SEGMENTS, b"", b""),
        lkms.Relay(LINK, 1, ((10, 4096),), SEGMENTS[:1], b"", b""),
    ]
    assert relay_header(one) not in map(relay_header, others)
    back = Codec()
    back.receive(build(one))
    received = back.next_message()
    assert isinstance(received, lkms.Relay)
    assert relay_header(received) == relay_header(one), "both ends compute the same octets"
