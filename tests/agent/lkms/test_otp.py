"""The one-time pad and its tag."""

import pytest
from hypothesis import given, strategies as st

from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.otp import TAG_KEY, BadTag, seal, unseal


@given(st.binary(max_size=300), st.binary(max_size=50), st.data())
def test_there_and_back_and_no_octet_may_change(payload: bytes, header: bytes, data: st.DataObject) -> None:
    pad = data.draw(st.binary(min_size=TAG_KEY + len(payload), max_size=TAG_KEY + len(payload)))
    ciphertext, tag = seal(Key(pad), header, Key(payload))
    assert bytes(a ^ b for a, b in zip(pad[TAG_KEY:], payload, strict=True)) == ciphertext
    assert unseal(Key(pad), header, ciphertext, tag) == Key(payload)
    place = data.draw(st.integers(0, len(tag) - 1))
    forged = tag[:place] + bytes([tag[place] ^ data.draw(st.integers(1, 255))]) + tag[place + 1 :]
    with pytest.raises(BadTag):
        unseal(Key(pad), header, ciphertext, forged)


def test_changes_are_noticed() -> None:
    pad, payload = Key(bytes(range(1, TAG_KEY + 65))), Key(bytes(64))
    ciphertext, tag = seal(pad, b"header", payload)
    for bad in (
        (b"Header", ciphertext, tag),
        (b"heade", b"r" + ciphertext[1:], tag),
        (b"header", bytes([ciphertext[0] ^ 128]) + ciphertext[1:], tag),
        (b"header", ciphertext[:-1], tag),
        (b"header", ciphertext, tag[:-1]),
        (b"header", ciphertext, b""),
    ):
        with pytest.raises(BadTag):
            unseal(pad, *bad)


def test_a_pad_must_fit() -> None:
    with pytest.raises(ValueError, match="pad of 40"):
        seal(Key(bytes(40)), b"", Key(bytes(9)))
