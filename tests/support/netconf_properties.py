"""What holds of the NETCONF codec whatever the bytes; hypothesis and the coverage-guided fuzzer both hold it to that.

A function here returns quietly or fails: by an AssertionError, or by an exception that is none of the codec's own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qswitch.protocol import netconf
from qswitch.protocol.netconf import Framing, FramingError, NetconfError, RpcFailed

LIMIT = 200  # octets of a message: small, so that generated streams reach it


@dataclass
class Outcome:
    """What a stream of bytes was taken for."""

    messages: list[bytes] = field(default_factory=list)
    refused: bool = False


def receive(pieces: Iterable[bytes], chunks: bool) -> Outcome:
    """Feeds a framing piece by piece, then the end; in between it may hold no more than a message and a piece."""
    framing, outcome = Framing(LIMIT), Outcome()
    if chunks:
        framing.use_chunks()
    try:
        for piece in pieces:
            framing.receive(piece)
            _take(framing, outcome)
            assert _held(framing) <= LIMIT + 13, "more is held than a message and a chunk's header"
        framing.receive_eof()
        _take(framing, outcome)
    except FramingError:
        outcome.refused = True
    return outcome


def _take(framing: Framing, outcome: Outcome) -> None:
    while (message := framing.next_message()) is not None:
        assert len(message) <= LIMIT
        outcome.messages.append(message)


def _held(framing: Framing) -> int:
    return sum(len(one) for one in vars(framing).values() if isinstance(one, bytearray))


def split(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The data in pieces of these sizes, over and over."""
    pieces, at = [], 0
    while at < len(data):
        size = max(1, sizes[len(pieces) % len(sizes)])
        pieces.append(data[at : at + size])
        at += size
    return pieces


def check_framing(data: bytes, chunks: bool, sizes: Sequence[int]) -> None:
    """Packet boundaries change nothing, and every message taken out can be sent and taken out again."""
    whole = receive([data] if data else [], chunks)
    assert receive(split(data, sizes), chunks) == whole
    sender = Framing(LIMIT)
    if chunks:
        sender.use_chunks()
    again = receive([sender.frame(message) for message in whole.messages], chunks)
    assert again == Outcome(whole.messages)


def check_message(message: bytes) -> None:
    """Every parser gives a value or an error of the codec, and what it understood it can write and read again."""
    for check in (_check_rpc, _check_hello, _check_reply, netconf.parse_notification):
        try:
            check(message)
        except NetconfError:
            continue


def _check_rpc(message: bytes) -> None:
    try:
        rpc = netconf.parse_rpc(message)
    except RpcFailed as failed:
        assert failed.attributes is not None, "the reply to an rpc carries its attributes"
        reply = netconf.parse_reply(netconf.build_error_reply(failed.attributes, failed.errors))
        assert reply.errors == failed.errors
        return
    namespace, name = rpc.name
    assert name, namespace
    reply = netconf.parse_xml(netconf.build_reply(rpc.attributes))
    assert dict(reply.attrib) == rpc.attributes.values


def _check_hello(message: bytes) -> None:
    hello = netconf.parse_hello(message)
    assert netconf.parse_hello(netconf.build_hello(hello)) == hello


def _check_reply(message: bytes) -> None:
    reply = netconf.parse_reply(message)
    for error in reply.errors:
        assert netconf.parse_xml(netconf.build_error(error)).tag == f"{{{netconf.BASE}}}rpc-error"
