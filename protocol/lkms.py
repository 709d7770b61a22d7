"""Messages between two key managers: MessagePack arrays behind a 4-octet length. No message but `Relay` and
`KeyAlloc` ever carries key, and those only under a one-time pad.

Bytes in, messages out: `Codec.receive`, `Codec.next_message`, `build`. A message that is too long, unreadable or unknown
is a ProtocolError, after which the session is worth nothing and is closed. What the messages mean, and in which order they
may come, is decided in agent/lkms; numbers and sizes are bounded here.

Messages that move state (`StateMessage`) travel in an envelope only, `Tagged`, many in one, under a one-time tag. Outside
of one stand `Relay`, which has a tag of its own, and *hints*: they ask for something to be said, which is then said in an
envelope, or tell which key the receiver may try to tag with. Nobody becomes the owner of key, uses key or releases it
because of a hint: a forged one costs messages with their tags, what is on its way while the ends meet again, or the session;
and an end that is full, and kept from meeting the other, some of its oldest blocks.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

VERSION = 3
MAX_MESSAGE = 1 << 20
"""Octets of one message without its length."""
MAX_ENVELOPE = 256 * 1024
"""Octets of messages in one envelope, of several; a single one may have more."""
MAX_OFFERED = 256
"""Blocks that one Offer names."""
MAX_BATCH = 64
"""Blocks that one Relay brings."""
NONCE_OCTETS = 16

Id = Annotated[str, msgspec.Meta(max_length=36)]  # a UUID in canonical text form
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_MESSAGE)]
BlockSize = Annotated[int, msgspec.Meta(ge=1, le=MAX_MESSAGE)]
Index = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
Attachment = Annotated[int, msgspec.Meta(ge=0, le=2)]
Range = tuple[Number, Number]
"""First and last number, both included."""


class ProtocolError(ValueError):
    """The octets are no message of this protocol."""


class Segment(NamedTuple):
    """`length` octets of block `block` of link `link`, from `offset` on; offsets count from the start of the whole block."""

    link: Id
    block: Number
    offset: Size
    length: Size


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Root of the messages; the first member of the array is the class's name."""


class Hello(Message, frozen=True, tag="hello"):
    """The first message of each end. With both nonces, fresh and random, an envelope counts in this one session."""

    version: int
    nonce: Annotated[bytes, msgspec.Meta(min_length=NONCE_OCTETS, max_length=NONCE_OCTETS)]


class Ping(Message, frozen=True, tag="ping"):
    """Says that the sender lives."""


# Links ---------------------------------------------------------------------------------------------------------------


class LinkHello(Message, frozen=True, tag="link-hello"):
    """From the end with the higher id: the link is ready here; send LinkSync."""

    link: Id


class LinkSync(Message, frozen=True, tag="link-sync"):
    """All that the sender holds of a link. The end with the lower id asks, the other answers with `reply` and the
    same epoch.

    `partial` lists blocks of which a part is used up: octets from the first to below the second number are left. `swapped`
    lists blocks whose owner is, for the sender, not the one that their number's parity says. No number up to `high` will
    ever come anew.
    """

    link: Id
    epoch: Number
    reply: bool
    high: Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)]
    held: Sequence[Range]
    partial: Sequence[tuple[Number, Size, Size]]
    swapped: Sequence[Range]
    full: bool


class Offer(Message, frozen=True, tag="offer"):
    """A hint: blocks that the sender holds and does not own, with what is left of them, so that the receiver may tag with
    those that are its own before the two ends have met.

    No number up to `high` will ever come anew at the sender. `asks`: it has not had the receiver's Offer. `short`: it has
    no key to tag anything with.
    """

    link: Id
    high: Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)]
    blocks: Annotated[Sequence[tuple[Number, Size, Size]], msgspec.Meta(max_length=MAX_OFFERED)]
    asks: bool
    short: bool


class Have(Message, frozen=True, tag="have"):
    """Blocks that the sender durably holds as well from now on. `full`: it takes no more for now. `hops`: trusted nodes
    that the key of a virtual link passed through."""

    link: Id
    blocks: Sequence[Range]
    full: bool
    hops: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


class Lost(Message, frozen=True, tag="lost"):
    """Blocks that the sender burnt."""

    link: Id
    blocks: Sequence[Range]


class Want(Message, frozen=True, tag="want"):
    """The sender runs short of blocks of its own; the peer may give some of its."""

    link: Id


class Lack(Message, frozen=True, tag="lack"):
    """What consumers at the sender wait for in vain, in octets: what they have been promised and not had, and what is waited
    for at the highest `priority` there is. Holds until the next one."""

    link: Id
    owed: Size = 0
    waited: Size = 0
    priority: Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)] = 0


class Give(Message, frozen=True, tag="give"):
    """Blocks that belong to the receiver from now on."""

    link: Id
    blocks: Sequence[Range]


# Key streams ---------------------------------------------------------------------------------------------------------


class StreamHello(Message, frozen=True, tag="stream-hello"):
    """From the follower: the stream is ready here, or an allocation could not be taken; send StreamSync.

    `links` are those whose key could not be taken: their ends must meet again, too.
    """

    ksid: Id
    links: Sequence[Id] = ()


class StreamSync(Message, frozen=True, tag="stream-sync"):
    """From the leader: how the stream stands. 0 as chunk size: not known yet. Until the answer nothing else counts.

    An odd incarnation began with both applications anew, and counts chunks from 0; an even one began since an end has lost
    the one before, and counts from where either end had come to: from `first`, or from more, which the answer tells.
    """

    ksid: Id
    epoch: Number
    incarnation: Number
    chunk_size: Size
    attachment: Attachment
    first: Index


class StreamState(Message, frozen=True, tag="stream-state"):
    """The follower's answer: it holds, or held, all chunks below `next_index` of this incarnation, and no other. `anew`: it
    has not heard of this incarnation before, or has lost it."""

    ksid: Id
    epoch: Number
    chunk_size: Size
    attachment: Attachment
    next_index: Index
    upto: Index
    anew: bool


class Attach(Message, frozen=True, tag="attach"):
    """The application at the sender's end: 0 never came, 1 is connected, 2 has closed. `heard`: so many of these messages
    came from the follower since the ends met."""

    ksid: Id
    attachment: Attachment
    chunk_size: Size
    heard: Number = 0


class Need(Message, frozen=True, tag="need"):
    """From the follower: allocate chunks up to, not including, `upto`."""

    ksid: Id
    upto: Index


class Alloc(Message, frozen=True, tag="alloc"):
    """From the leader: `segments` in this order are the octets of chunks `first` … `first + count - 1`."""

    ksid: Id
    incarnation: Number
    chunk_size: Size
    first: Index
    count: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    segments: Sequence[Segment]


class AllocAck(Message, frozen=True, tag="alloc-ack"):
    """From the follower: all chunks below `next_index` are durable here."""

    ksid: Id
    incarnation: Number
    next_index: Index


# Keys with an id -----------------------------------------------------------------------------------------------------


class KeyHello(Message, frozen=True, tag="key-hello"):
    """From the end with the higher node id: the association is ready here, or an allocation was not taken; send KeySync.

    `links` are those whose key could not be taken: their ends must meet again, too.
    """

    ksid: Id
    links: Sequence[Id] = ()


class KeySync(Message, frozen=True, tag="key-sync"):
    """From the lower end: the keys it has put by and not delivered yet. Until the answer nothing else counts."""

    ksid: Id
    epoch: Number
    stock: Sequence[Id]


class KeyMeet(Message, frozen=True, tag="key-meet"):
    """The higher end's answer: the keys it has put by; which of the other's are not here; how many more it takes."""

    ksid: Id
    epoch: Number
    stock: Sequence[Id]
    missing: Sequence[Id]
    room: Number


class KeyMet(Message, frozen=True, tag="key-met"):
    """The lower end's last word: which of the keys that the higher one has put by are not here, and its room."""

    ksid: Id
    epoch: Number
    missing: Sequence[Id]
    room: Number


class KeyAlloc(Message, frozen=True, tag="key-alloc"):
    """`segments` in this order are the octets of the keys `ids`, each of `size` octets; `number` counts these messages.

    `stock`: the sender puts them by and says later that one was delivered. With a `tag` the segments are a pad instead: 32
    octets for the tag, then one for each octet of `sealed`, which is keys that other nodes get as well.
    """

    ksid: Id
    number: Number
    size: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    ids: Annotated[Sequence[Id], msgspec.Meta(min_length=1, max_length=1024)]
    segments: Sequence[Segment]
    stock: bool
    sealed: bytes = b""
    tag: bytes = b""


class KeyAck(Message, frozen=True, tag="key-ack"):
    """All keys up to allocation `number` are durable here, and there is room for so many more."""

    ksid: Id
    number: Number
    room: Number


class KeyTaken(Message, frozen=True, tag="key-taken"):
    """The sender has delivered these keys: their time to live begins."""

    ksid: Id
    ids: Sequence[Id]


class KeyDrop(Message, frozen=True, tag="key-drop"):
    """The sender never will deliver these keys: they are to be erased."""

    ksid: Id
    ids: Sequence[Id]


# Relay ---------------------------------------------------------------------------------------------------------------


class Relay(Message, frozen=True, tag="relay"):
    """Key of a virtual link on one hop: the blocks one after the other, XOR a pad, with a one-time tag over all of it.

    `pad` names the octets of the link between the two nodes of this hop: 32 for the tag, then one for each octet of key.
    With `shares` above 1 it is no key but one of so many shares, which make key together: each block with 32 octets more,
    and `marks` has, for each block, its tag under what those are together.
    """

    link: Id
    hops: Annotated[int, msgspec.Meta(ge=0, le=255)]
    blocks: Annotated[Sequence[tuple[Number, BlockSize]], msgspec.Meta(max_length=MAX_BATCH)]
    pad: Sequence[Segment]
    ciphertext: bytes
    tag: bytes
    shares: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    marks: Sequence[Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]] = ()


class RelayNack(Message, frozen=True, tag="relay-nack"):
    """These blocks did not arrive and never will. `links`: the links whose pads the sender of this could not take."""

    link: Id
    blocks: Sequence[Number]
    reason: Annotated[str, msgspec.Meta(max_length=200)]
    links: Sequence[Id] = ()


# Envelopes -----------------------------------------------------------------------------------------------------------


class Tagged(Message, frozen=True, tag="tagged"):
    """State messages, and a one-time tag over them. `number` counts the envelopes of this direction of the session.

    `key` names a run of tag keys, each used for one envelope: the first time it is named its first, then the next.
    """

    number: Number
    key: Segment
    body: bytes
    tag: bytes


StateMessage = (
    LinkSync
    | Have
    | Lost
    | Give
    | StreamSync
    | StreamState
    | Attach
    | Need
    | Alloc
    | AllocAck
    | KeySync
    | KeyMeet
    | KeyMet
    | KeyAlloc
    | KeyAck
    | KeyTaken
    | KeyDrop
    | RelayNack
)
Hint = Hello | Ping | LinkHello | Offer | Want | Lack | StreamHello | KeyHello
WireMessage = Hint | Relay | Tagged
AnyMessage = WireMessage | StateMessage

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[WireMessage] = msgspec.msgpack.Decoder(WireMessage)
_body_decoder: msgspec.msgpack.Decoder[list[StateMessage]] = msgspec.msgpack.Decoder(list[StateMessage])


def build(message: WireMessage) -> bytes:
    """The octets of a message, length included."""
    body = _encoder.encode(message)
    if len(body) > MAX_MESSAGE:
        raise ProtocolError(f"message of {len(body)} octets, the limit is {MAX_MESSAGE}")
    return len(body).to_bytes(4) + body


def build_state(message: StateMessage) -> bytes:
    """One of the messages of a body."""
    octets = _encoder.encode(message)
    if len(octets) > MAX_MESSAGE - 1024:  # which is more than the rest of an envelope has
        raise ProtocolError(f"message of {len(octets)} octets does not fit an envelope")
    return octets


def build_body(messages: Sequence[bytes]) -> bytes:
    """What an envelope of these messages holds: a MessagePack array of them."""
    return b"\xdd" + len(messages).to_bytes(4) + b"".join(messages)


def parse_body(body: bytes) -> list[StateMessage]:
    """Raises ProtocolError."""
    try:
        return _body_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"unreadable envelope: {error}") from error


def tagged_header(receiver: bytes, sender: bytes, number: int, key: Segment) -> bytes:
    """What the tag of an envelope covers beside its body: the nonces of both ends, its place, its key."""
    return _encoder.encode((receiver, sender, number, key))


def alloc_header(message: KeyAlloc) -> bytes:
    """What the tag of an allocation under a pad covers beside what is sealed."""
    return _encoder.encode((message.ksid, message.number, message.size, message.ids, message.segments))


def relay_header(message: Relay) -> bytes:
    """What the tag of a relay message covers beside its ciphertext."""
    return _encoder.encode((message.link, message.hops, message.blocks, message.pad, message.shares, message.marks))


class Codec:
    """Octets of one session in, messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> None:
        self._buffer += data

    def next_message(self) -> WireMessage | None:
        """The next whole message; None when more octets are needed. Raises ProtocolError."""
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4])
        if length > MAX_MESSAGE:
            raise ProtocolError(f"message of {length} octets, the limit is {MAX_MESSAGE}")
        if len(self._buffer) < 4 + length:
            return None
        body = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        try:
            return _decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ProtocolError(f"unreadable message: {error}") from error
