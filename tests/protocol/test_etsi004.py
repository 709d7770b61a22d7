"""The 004 codecs: tables of octets and values run both ways, bad input, random input."""

import contextlib
import struct
import uuid
from dataclasses import dataclass

import pytest
from hypothesis import given, strategies as st

from qswitch.protocol.etsi004 import (
    MAX_KEY_CHUNK_SIZE,
    MAX_METADATA_SIZE,
    MAX_REPLY_FRAME,
    MAX_REQUEST_PAYLOAD,
    NEXT_INDEX,
    NULL_KSID,
    ClientCodec,
    ClientEvent,
    Close,
    CloseReply,
    Dialect,
    GetKey,
    GetKeyReply,
    OpenConnect,
    OpenConnectReply,
    ProtocolError,
    Qos,
    ReceivedKey,
    Reply,
    Request,
    ServerCodec,
    Status,
)

KSID = "00112233-4455-4677-8899-aabbccddeeff"
OCTETS = bytes.fromhex("00112233445546778899aabbccddeeff")
QOS = Qos(32, 1000, 100, 7, 3, 5000, 60, "application/json")
QOS_OCTETS = struct.pack("!7I", 32, 1000, 100, 7, 3, 5000, 60)
MIME_C = b"application/json\0"
MIME_P = b"application/json" + bytes(240)
KEY = bytes(range(1, 33))
A, B = "qkd://node-a/app", "qkd://node-b/äpp"
URIS = A.encode() + b"\0" + B.encode() + b"\0"


def u32(*numbers: int) -> bytes:
    return struct.pack(f"!{len(numbers)}I", *numbers)


def frame(dialect: Dialect, service: int, payload: bytes) -> bytes:
    return bytes((*dialect.value, service)) + u32(len(payload)) + payload


C, P = Dialect.C, Dialect.P
LONGEST = Qos(metadata_mimetype="m" * 255)

REQUESTS = [
    (C, OpenConnect(A, B, QOS, None, C), frame(C, 2, URIS + QOS_OCTETS + MIME_C + bytes(16))),
    (C, OpenConnect(A, B, QOS, KSID, C), frame(C, 2, URIS + QOS_OCTETS + MIME_C + OCTETS)),
    (C, OpenConnect("", "", Qos(metadata_mimetype=""), None, C), frame(C, 2, bytes(2 + 28 + 1 + 16))),
    (C, OpenConnect(A, B, LONGEST, KSID, C), frame(C, 2, URIS + bytes(28) + b"m" * 255 + b"\0" + OCTETS)),
    (P, OpenConnect(A, B, LONGEST, KSID, P), frame(P, 2, URIS + bytes(28) + b"m" * 255 + b"\0" + OCTETS)),
    (P, OpenConnect(A, B, QOS, None, P), frame(P, 2, URIS + QOS_OCTETS + MIME_P + bytes(16))),
    (P, OpenConnect(A, B, QOS, KSID, P), frame(P, 2, URIS + QOS_OCTETS + MIME_P + OCTETS)),
    (C, GetKey(KSID, 5, 0), frame(C, 4, OCTETS + u32(5, 0))),
    (C, GetKey(KSID, 5, 64), frame(C, 4, OCTETS + u32(5, 64) + bytes(64))),
    (P, GetKey(KSID, 0, 0), frame(P, 4, OCTETS + u32(0, 0))),
    (P, GetKey(KSID, 7, 1024), frame(P, 4, OCTETS + u32(7, 1024))),
    (P, GetKey(KSID, None, 64), frame(P, 4, OCTETS + u32(NEXT_INDEX, 64))),
    (C, Close(KSID), frame(C, 8, OCTETS)),
    (P, Close(KSID), frame(P, 8, OCTETS)),
]


@dataclass
class Case:
    dialect: Dialect
    request: Request
    reply: Reply
    octets: bytes
    key: bytes = b""

    @property
    def event(self) -> ClientEvent:
        return ReceivedKey(self.reply, bytearray(self.key)) if isinstance(self.reply, GetKeyReply) else self.reply


def opened(dialect: Dialect) -> OpenConnect:
    return OpenConnect(A, B, QOS, None, dialect)


def open_reply(dialect: Dialect, status: int) -> bytes:
    return frame(dialect, 3, u32(status) + QOS_OCTETS + (MIME_C if dialect is C else MIME_P) + OCTETS)


TOO_SMALL = GetKeyReply(Status.METADATA_TOO_SMALL, 0, needed_metadata_size=33)
REPLIES = [
    *(
        Case(dialect, opened(dialect), OpenConnectReply(status, QOS, KSID), open_reply(dialect, status))
        for dialect in Dialect
        for status in (Status.SUCCESS, Status.PEER_ABSENT, Status.KSID_IN_USE, Status.TIMEOUT, Status.QOS_NOT_MET)
    ),
    Case(
        C,
        GetKey(KSID, 5, 64),
        GetKeyReply(Status.SUCCESS, 5, b'{"age": 1}'),
        frame(C, 5, u32(0, 5, 32) + KEY + u32(10) + b'{"age": 1}'),
        KEY,
    ),
    Case(P, GetKey(KSID, 5), GetKeyReply(Status.SUCCESS, 5), frame(P, 5, u32(0, 5, 32) + KEY + u32(0)), KEY),
    Case(P, GetKey(KSID, 0), GetKeyReply(Status.INSUFFICIENT_KEY, 0), frame(P, 5, u32(2, 0, 0, 0))),
    Case(C, GetKey(KSID, 0, 8), GetKeyReply(Status.TIMEOUT, 0), frame(C, 5, u32(6, 0, 0, 0))),
    Case(P, GetKey(KSID, 0, 8), TOO_SMALL, frame(P, 5, u32(8, 33, 0, 0))),
    Case(C, GetKey(KSID, 0, 8), TOO_SMALL, frame(C, 5, u32(8, 0, 0, 33) + bytes(33))),
    Case(C, Close(KSID), CloseReply(Status.SUCCESS), frame(C, 9, u32(0))),
    Case(P, Close(KSID), CloseReply(Status.PEER_NOT_CONNECTED), frame(P, 9, u32(3))),
]


def asking(dialect: Dialect, request: Request) -> ServerCodec:
    """A server that has just given out the request."""
    server = ServerCodec()
    server.receive(ClientCodec(dialect).send(request))
    assert server.next_event() == request
    return server


@pytest.mark.parametrize(("dialect", "request_", "octets"), REQUESTS)
def test_requests_both_ways(dialect: Dialect, request_: Request, octets: bytes) -> None:
    assert ClientCodec(dialect).send(request_) == octets
    server = ServerCodec()
    for octet in octets[:-1]:
        server.receive(bytes((octet,)))
        assert server.next_event() is None
    server.receive(octets[-1:] + octets[:5])  # with the start of the next
    assert server.next_event() == request_
    assert (server.dialect, server.buffered) == (dialect, 5)


@pytest.mark.parametrize("case", REPLIES)
def test_replies_both_ways(case: Case) -> None:
    assert asking(case.dialect, case.request).send(case.reply, case.key) == case.octets
    client = ClientCodec(case.dialect)
    for octet in case.octets[:-1]:
        client.receive(bytes((octet,)))
        assert client.next_event() is None
    client.receive(case.octets[-1:] + b"\2")
    assert client.next_event() == case.event
    assert client.buffered == 1


def test_pipelined_requests_come_one_by_one() -> None:
    server = ServerCodec()
    server.receive(b"".join(octets for _, _, octets in REQUESTS))
    for _, expected, _ in REQUESTS:
        assert server.next_event() == expected
        with pytest.raises(RuntimeError):
            server.next_event()
        match expected:
            case OpenConnect():
                server.send(OpenConnectReply(Status.SUCCESS, QOS, KSID))
            case GetKey():
                server.send(GetKeyReply(Status.SUCCESS, 0), KEY)
            case Close():
                server.send(CloseReply(Status.SUCCESS))
    assert server.next_event() is None
    server.receive_end()


def test_c_clients_that_offer_a_key_type_and_role_want_no_metadata() -> None:
    server = ServerCodec()
    server.receive(frame(C, 4, OCTETS + u32(1, 2) + b"\0\x11"))
    assert server.next_event() == GetKey(KSID, 1, 0)
    assert server.send(GetKeyReply(Status.SUCCESS, 1), KEY) == frame(C, 5, u32(0, 1, 32) + KEY + u32(0))


def test_a_null_ksid_that_names_a_stream_is_an_unknown_one() -> None:
    server = ServerCodec()
    server.receive(frame(P, 8, bytes(16)))
    assert server.next_event() == Close(NULL_KSID)


@pytest.mark.parametrize("dialect", Dialect)
def test_errors_of_status_alone_are_understood(dialect: Dialect) -> None:
    client = ClientCodec(dialect)
    client.receive(frame(dialect, 3, u32(5)) + frame(dialect, 5, u32(3)) + frame(P, 5, u32(8, 40)) * (dialect is P))
    event = client.next_event()
    assert isinstance(event, OpenConnectReply) and event.status is Status.KSID_IN_USE and event.ksid is None
    assert client.next_event() == ReceivedKey(GetKeyReply(Status.PEER_NOT_CONNECTED, 0), bytearray())
    if dialect is P:
        expected = GetKeyReply(Status.METADATA_TOO_SMALL, 0, needed_metadata_size=40)
        assert client.next_event() == ReceivedKey(expected, bytearray())


OPEN_C = URIS + QOS_OCTETS + MIME_C + OCTETS
BAD_REQUESTS = {
    "four gibibytes": bytes((2, 1, 1, 2)) + u32(0xFFFF_FFFF),
    "just too long": bytes((2, 1, 1, 2)) + u32(MAX_REQUEST_PAYLOAD + 1),
    "stop the server": frame(C, 0xFF, b""),
    "a reply": frame(C, 3, b""),
    "empty open": frame(C, 2, b""),
    "open without NUL": frame(C, 2, b"qkd://a"),
    "open cut short": frame(C, 2, OPEN_C[:-1]),
    "open with a tail": frame(C, 2, OPEN_C + b"\0"),
    "open not UTF-8": frame(C, 2, b"\xff\0\0" + QOS_OCTETS + MIME_C + OCTETS),
    "metadata type too long": frame(C, 2, URIS + QOS_OCTETS + b"m" * 300 + b"\0" + OCTETS),
    "metadata type without NUL": frame(P, 2, URIS + QOS_OCTETS + b"m" * 256 + OCTETS),
    "get key cut short": frame(P, 4, OCTETS + u32(0)),
    "get key with less metadata than said": frame(C, 4, OCTETS + u32(0, 9) + bytes(8)),
    "get key with more metadata than said": frame(C, 4, OCTETS + u32(0, 9) + bytes(10)),
    "close cut short": frame(C, 8, OCTETS[:-1]),
    "close with a tail": frame(C, 8, OCTETS + b"\0"),
}


@pytest.mark.parametrize("octets", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_bad_requests_are_refused(octets: bytes) -> None:
    server = ServerCodec()
    server.receive(octets)
    with pytest.raises(ProtocolError):
        server.next_event()


@pytest.mark.parametrize(
    "octets",
    [
        frame(P, 5, u32(0, 0, 9) + bytes(8)),
        frame(P, 3, u32(0)),
        frame(P, 9, u32(9)),
        frame(P, 4, OCTETS + u32(0, 0)),
        bytes((1, 0, 1, 5)) + u32(1 << 30),
    ],
)
def test_bad_replies_are_refused(octets: bytes) -> None:
    client = ClientCodec(P)
    client.receive(octets)
    with pytest.raises(ProtocolError):
        client.next_event()


def test_an_end_inside_a_frame_is_noticed() -> None:
    server = ServerCodec()
    server.receive(b"\2\1\1")
    assert server.next_event() is None
    with pytest.raises(ProtocolError):
        server.receive_end()


@pytest.mark.parametrize("dialect", Dialect)
def test_the_largest_reply_fits_one_tls_record(dialect: Dialect) -> None:
    server = asking(dialect, GetKey(KSID, 0, MAX_METADATA_SIZE))
    reply = GetKeyReply(Status.SUCCESS, 0, bytes(MAX_METADATA_SIZE))
    with pytest.raises(ValueError, match="more than"):
        server.send(reply, bytes(MAX_REPLY_FRAME))
    assert len(server.send(reply, bytes(MAX_KEY_CHUNK_SIZE))) <= MAX_REPLY_FRAME


def test_replies_that_do_not_fit_the_request_are_refused() -> None:
    server = asking(P, GetKey(KSID, 0, 8))
    with pytest.raises(ValueError, match="room for 8"):
        server.send(GetKeyReply(Status.SUCCESS, 0, bytes(9)), KEY)
    with pytest.raises(TypeError):
        server.send(CloseReply(Status.SUCCESS))
    server.send(GetKeyReply(Status.SUCCESS, 0), KEY)
    with pytest.raises(RuntimeError):
        server.send(GetKeyReply(Status.SUCCESS, 0), KEY)


@pytest.mark.parametrize("bad", [{"ttl": -1}, {"max_bps": 1 << 32}, {"metadata_mimetype": "m" * 256}])
def test_a_qos_that_has_no_encoding_is_no_value(bad: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=r"at most|not within"):
        Qos(**bad)  # type: ignore[arg-type]


def test_keys_do_not_show() -> None:
    event = ReceivedKey(GetKeyReply(Status.SUCCESS, 0), bytearray(KEY))
    assert KEY.hex() not in repr(event) and repr(KEY) not in repr(event)


u32s = st.integers(0, 0xFFFF_FFFF)
uris = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=40)
mimetypes = st.text(st.characters(codec="ascii", blacklist_characters="\0"), max_size=255)
ksids = st.uuids().map(str).filter(lambda text: uuid.UUID(text).int != 0)


@given(uris, uris, st.lists(u32s, min_size=7, max_size=7), mimetypes, st.none() | ksids, st.sampled_from(Dialect))
def test_any_open_connect_comes_back(
    source: str, destination: str, numbers: list[int], mimetype: str, ksid: str | None, dialect: Dialect
) -> None:
    request = OpenConnect(source, destination, Qos(*numbers, metadata_mimetype=mimetype), ksid, dialect)  # type: ignore[misc]
    server = asking(dialect, request)
    reply = OpenConnectReply(Status.SUCCESS, request.qos, ksid)
    client = ClientCodec(dialect)
    client.receive(server.send(reply))
    assert client.next_event() == reply


headers = st.tuples(st.sampled_from([b"\2\1\1", b"\1\0\1"]), st.sampled_from([2, 4, 8, 3, 5, 9]), st.binary(max_size=400))
framed = headers.map(lambda parts: parts[0] + bytes((parts[1],)) + u32(len(parts[2])) + parts[2])


@given(st.lists(st.binary(max_size=64) | framed, max_size=6))
def test_random_octets_parse_or_are_refused(pieces: list[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        server = ServerCodec()
        for piece in pieces:
            server.receive(piece)
            match server.next_event():
                case OpenConnect(_, _, qos, ksid):
                    server.send(OpenConnectReply(Status.SUCCESS, qos, ksid))
                case GetKey():
                    server.send(GetKeyReply(Status.SUCCESS, 0), KEY)
                case Close():
                    server.send(CloseReply(Status.SUCCESS))
    for dialect in Dialect:
        with contextlib.suppress(ProtocolError):
            client = ClientCodec(dialect)
            for piece in pieces:
                client.receive(piece)
                client.next_event()
