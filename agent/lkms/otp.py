"""One-time pad and one-time authenticator: what protects relayed key on one hop, whatever an attacker can compute.

A pad is fresh key of the hop's link: 32 octets for the tag, then one for each octet of payload. The tag is Poly1305
(RFC 8439) under those 32 octets, used for this one message: the Carter–Wegman construction, with which a forgery
succeeds with at most 8·⌈L/16⌉ / 2^106 per try. The caller takes care that a pad is never used twice, and burns it
when a message fails.

The XOR goes through Python integers: fast, but their memory is freed without being overwritten.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from .keys import Key

TAG_KEY = 32
"""Octets of a pad that are used up by the tag."""


class BadTag(Exception):
    """The message is not what its sender wrote."""


def seal(pad: Key, header: bytes, payload: Key) -> tuple[bytes, bytes]:
    """Ciphertext and tag. `pad` has exactly TAG_KEY octets more than the payload; ValueError otherwise."""
    mask = _split(pad, len(payload))
    ciphertext = _xor(payload.view(), mask)
    return ciphertext, Poly1305.generate_tag(bytes(pad.view()[:TAG_KEY]), _covered(header, ciphertext))


def unseal(pad: Key, header: bytes, ciphertext: bytes, tag: bytes) -> Key:
    """The payload. Raises BadTag, also for lengths that do not fit."""
    if len(pad) != TAG_KEY + len(ciphertext):
        raise BadTag("pad and ciphertext differ in length")
    try:
        Poly1305.verify_tag(bytes(pad.view()[:TAG_KEY]), _covered(header, ciphertext), tag)
    except InvalidSignature as error:
        raise BadTag("tag does not match") from error
    return Key(bytearray(_xor(memoryview(ciphertext), _split(pad, len(ciphertext)))))


def sign(key: Key, header: bytes, body: bytes) -> bytes:
    """The tag of what travels in clear. `key` has TAG_KEY octets, and is used for this alone."""
    return Poly1305.generate_tag(bytes(key.view()), _covered(header, body))


def check(key: Key, header: bytes, body: bytes, tag: bytes) -> None:
    """Raises BadTag for what was not signed so."""
    try:
        Poly1305.verify_tag(bytes(key.view()), _covered(header, body), tag)
    except InvalidSignature as error:
        raise BadTag("tag does not match") from error


def mark(key: Key, number: int, block: Key) -> bytes:
    """The tag of a block of key that travels in shares. `key` has TAG_KEY octets, and is used for this alone."""
    made = Poly1305(bytes(key.view()))
    made.update(number.to_bytes(8))
    made.update(block.view())
    return made.finalize()


def added(one: Key, other: Key) -> Key:
    """The XOR of two keys of the same length; both stay."""
    if len(one) != len(other):
        raise ValueError(f"keys of {len(one)} and {len(other)} octets")
    return Key(bytearray(_xor(one.view(), other.view())))


def _split(pad: Key, length: int) -> memoryview:
    if len(pad) != TAG_KEY + length:
        raise ValueError(f"pad of {len(pad)} octets for {length} octets of payload")
    return pad.view()[TAG_KEY:]


def _covered(header: bytes, ciphertext: bytes) -> bytes:
    return len(header).to_bytes(8) + header + ciphertext


def _xor(one: memoryview, other: memoryview) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))
