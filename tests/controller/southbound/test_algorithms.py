"""SSH_MSG_KEXINIT as lists, and what two of them agree on."""

import pytest

from qswitch.controller.southbound.algorithms import KINDS, agreed, missing, parse_kexinit


def message(*lists: str, number: int = 20) -> bytes:
    names = b"".join(len(one).to_bytes(4) + one.encode() for one in (*lists, *[""] * (10 - len(lists))))
    return bytes([number]) + b"c" * 16 + names + b"\0" + b"\0" * 4


OURS = ("new,old,ext-info-c", "ed25519", "gcm,ctr", "gcm,ctr", "mac", "mac", "none", "none")


def ours(**other: str) -> bytes:
    return message(*(other.get(kind.replace(" ", "_"), one) for kind, one in zip(KINDS, OURS, strict=True)))


def test_lists_without_what_is_no_algorithm() -> None:
    offer = parse_kexinit(ours())
    assert offer["key exchange"] == ("new", "old")
    assert offer["compression from the node"] == ("none",)
    assert list(offer) == list(KINDS)


@pytest.mark.parametrize("bad", [b"", message(number=21)])
def test_no_such_message_is_no_offer(bad: bytes) -> None:
    assert parse_kexinit(bad) == {}


def test_the_clients_first_choice_counts() -> None:
    client, server = parse_kexinit(ours()), parse_kexinit(ours(key_exchange="old,new"))
    assert agreed(client, server)["key exchange"] == "new"
    assert missing(client, server) is None


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ({"key_exchange": "ancient"}, "key exchange"),
        ({"host_key": "rsa"}, "host key"),
        ({"cipher_from_the_node": "cbc"}, "cipher from the node"),
        ({"MAC_to_the_node": "md5", "cipher_to_the_node": "ctr"}, "MAC to the node"),
        ({"MAC_to_the_node": "md5"}, None),  # a cipher that authenticates needs none
    ],
)
def test_the_first_kind_without_anything_in_common(other: dict[str, str], kind: str | None) -> None:
    assert missing(parse_kexinit(ours()), parse_kexinit(ours(**other))) == kind


def test_nothing_is_missing_before_both_have_spoken() -> None:
    assert missing(parse_kexinit(ours()), {}) is None
