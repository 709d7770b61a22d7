"""The file transfer's format: what was changed, moved or made up does not open."""

import contextlib
import json
import os
from dataclasses import asdict, replace

import pytest
from hypothesis import given, strategies as st

from qswitch.app.records import (
    MAX_HEADER,
    PREAMBLE_SIZE,
    RECORD_HEADER_SIZE,
    RECORD_SIZE,
    BadTransfer,
    FileHeader,
    Kind,
    Record,
    build_preamble,
    check_name,
    parse_preamble,
    seal,
    unseal,
)

HEADER = FileHeader("00112233-4455-4677-8899-aabbccddeeff", "qkd://a/app", "qkd://b/app", "plan.pdf", 3 * RECORD_SIZE, 5000)


def test_headers_come_back() -> None:
    octets = HEADER.build()
    assert FileHeader.parse(octets) == HEADER
    preamble = build_preamble(octets)
    assert parse_preamble(preamble[:PREAMBLE_SIZE]) == len(octets) == len(preamble) - PREAMBLE_SIZE


@pytest.mark.parametrize(("size", "records"), [(0, 1), (1, 1), (RECORD_SIZE, 1), (RECORD_SIZE + 1, 2), (3 * RECORD_SIZE, 3)])
def test_how_many_records_a_file_takes(size: int, records: int) -> None:
    assert replace(HEADER, size=size).records == records


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".profile", "a/b", "../a", "a\\b", "/etc/passwd", "a\0", "a\n", "é" * 128, "\ud800"]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(BadTransfer):
        check_name(name)
    with pytest.raises(BadTransfer):
        FileHeader.parse(json.dumps(asdict(HEADER) | {"name": name}).encode())


@pytest.mark.parametrize("name", ["plan.pdf", "ünïcode (2).tar.gz", "é" * 127])
def test_plain_names_are_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": True},
        {"size": 1.5},
        {"size": 1 << 60},
        {"timeout_ms": 1 << 40},
        {"ksid": "x"},
        {"ksid": None},
        {"source": "qkd://a\n"},
        {"more": 1},
    ],
)
def test_headers_with_other_values_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadTransfer):
        FileHeader.parse(json.dumps(asdict(HEADER) | change).encode())


@given(st.binary(max_size=200))
def test_random_headers_are_refused(octets: bytes) -> None:
    with pytest.raises(BadTransfer):
        FileHeader.parse(octets)


@given(st.binary(min_size=4, max_size=4), st.booleans())
def test_random_preambles_are_refused_or_give_a_bounded_length(octets: bytes, right: bool) -> None:
    with contextlib.suppress(BadTransfer):
        assert parse_preamble((b"QKDFILE1" if right else b"QKDFILE2") + octets) <= MAX_HEADER


def test_a_header_without_end_is_refused() -> None:
    with pytest.raises(BadTransfer):
        parse_preamble(b"QKDFILE1" + (MAX_HEADER + 1).to_bytes(4))


def test_only_what_was_sealed_opens() -> None:
    key, header = bytearray(os.urandom(32)), HEADER.build()
    octets = seal(key, header, 1, 7, Kind.MORE, b"content")
    record, ciphertext = Record.parse(octets[:RECORD_HEADER_SIZE]), octets[RECORD_HEADER_SIZE:]
    assert b"content" not in octets
    assert unseal(key, header, record, ciphertext) == b"content"
    for other_key, other_header, other_record, other_text in (
        (bytearray(32), header, record, ciphertext),
        (key, header + b" ", record, ciphertext),
        (key, header, replace(record, number=2), ciphertext),
        (key, header, replace(record, index=8), ciphertext),
        (key, header, replace(record, kind=Kind.LAST), ciphertext),
        (key, header, record, bytes((ciphertext[0] ^ 1,)) + ciphertext[1:]),
        (key, header, record, ciphertext[:-1]),
    ):
        with pytest.raises(BadTransfer):
            unseal(other_key, other_header, other_record, other_text)


def test_keys_of_another_length_seal_nothing() -> None:
    with pytest.raises(BadTransfer, match="chunks of 16"):
        seal(bytearray(16), b"", 0, 0, Kind.LAST, b"")


@pytest.mark.parametrize(
    "record", [bytes(13), Record(0, 0, Kind.MORE, RECORD_SIZE + 17).build(), b"\0" * 8 + b"\3" + b"\0\0\0\x20"]
)
def test_record_headers_out_of_bounds_are_refused(record: bytes) -> None:
    with pytest.raises(BadTransfer):
        Record.parse(record)
