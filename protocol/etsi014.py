"""ETSI GS QKD 014 v1.1.1: paths, queries and JSON bodies of the REST interface, as values. Bytes in, values out.

Members that the standard does not name are ignored, as clients of other editions send some. What breaks a rule is a
BadRequest that names the input and the rule. `Limits` are a server's own; the standard bounds nothing.
"""

import re
import uuid
from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, unquote

import msgspec

from .etsi015 import MAX_DISJOINT_PATHS

PREFIX = "/api/v1/keys/"
MAX_SAE_ID = 256
"""Characters of an SAE id; the standard leaves its form open."""


class BadRequest(ValueError):
    """What the caller sent breaks a rule; the text names both. `details` are members of the Error body's list."""

    def __init__(self, message: str, *details: Mapping[str, str]) -> None:
        super().__init__(message)
        self.details = details


class Method(StrEnum):
    STATUS = "status"
    ENC_KEYS = "enc_keys"
    DEC_KEYS = "dec_keys"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server allows: sizes in bits, `number` keys in one request, `stored` of a pair, `slaves` beside the first."""

    key_size: int = 256
    min_key_size: int = 64
    max_key_size: int = 8192
    number: int = 128
    stored: int = 10_000
    slaves: int = 8


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """Get status' answer (clause 6.1)."""

    source_KME_ID: str
    target_KME_ID: str
    master_SAE_ID: str
    slave_SAE_ID: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int
    status_extension: dict[str, Any] | None = None


DISJOINT_PATHS = "qswitch_disjoint_paths"
"""The one extension_mandatory that is known: its key is relayed over so many paths that share no node between the ends."""


class KeyRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Get key's request (clause 6.2); None is for the server to choose."""

    number: Annotated[int, msgspec.Meta(ge=1)] | None = None
    size: Annotated[int, msgspec.Meta(ge=1)] | None = None
    additional_slave_SAE_IDs: list[Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SAE_ID)]] | None = None
    extension_mandatory: list[dict[str, Any]] | None = None
    extension_optional: list[dict[str, Any]] | None = None


class KeyId(msgspec.Struct, frozen=True):
    key_ID: str


class KeyIds(msgspec.Struct, frozen=True):
    """The request of Get key with key IDs (clause 6.4)."""

    key_IDs: Annotated[list[KeyId], msgspec.Meta(min_length=1)]


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Clause 6.5."""

    message: str
    details: Sequence[Mapping[str, str]] = ()


_requests = msgspec.json.Decoder(KeyRequest)
_ids = msgspec.json.Decoder(KeyIds)
_encoder = msgspec.json.Encoder()


# Requests ------------------------------------------------------------------------------------------------------------


def parse_path(path: str) -> tuple[str, Method] | None:
    """The SAE id and the method of a path without its query; None for one that the standard does not have.

    Raises BadRequest for an SAE id that cannot be one.
    """
    if not path.startswith(PREFIX):
        return None
    encoded, slash, name = path[len(PREFIX) :].rpartition("/")
    if not slash or name not in set(Method):
        return None
    try:
        sae_id = unquote(encoded, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest(f"SAE ID in the path: '{encoded}' is no URL-encoded UTF-8") from error
    if not 0 < len(sae_id) <= MAX_SAE_ID:
        raise BadRequest(f"SAE ID in the path: has {len(sae_id)} characters, must have 1 to {MAX_SAE_ID}")
    return sae_id, Method(name)


def build_path(sae_id: str, method: Method) -> str:
    return f"{PREFIX}{quote(sae_id, safe='')}/{method}"


def parse_key_query(query: str) -> KeyRequest:
    """Get key by GET: only number and size can be said. Raises BadRequest."""
    values = _query(query)
    return KeyRequest(number=_number(values, "number"), size=_number(values, "size"))


def parse_key_request(body: bytes) -> KeyRequest:
    """Get key by POST; an empty body asks for what a query without parameters asks for. Raises BadRequest."""
    return _decoded(_requests, body, "Key request") if body.strip() else KeyRequest()


def parse_id_query(query: str) -> list[str]:
    """Get key with key IDs by GET: one id. Raises BadRequest."""
    values = _query(query)
    if "key_ID" not in values:
        raise BadRequest("key_ID: is missing from the query")
    return [key_id(values["key_ID"])]


def parse_key_ids(body: bytes, limit: int) -> list[str]:
    """Get key with key IDs by POST. Raises BadRequest, also for more ids than `limit` and for one that comes twice."""
    ids = [key_id(one.key_ID) for one in _decoded(_ids, body, "Key IDs").key_IDs]
    if len(ids) > limit:
        raise BadRequest(f"key_IDs: has {len(ids)} entries, must have at most {limit}")
    if len(set(ids)) < len(ids):
        raise BadRequest("key_IDs: names a key twice")
    return ids


def key_id(text: str) -> str:
    """A key id in its canonical form. Raises BadRequest for what is no UUID."""
    if not re.fullmatch("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text):
        raise BadRequest(f"key_ID: '{text[:64]}' is no UUID")
    return str(uuid.UUID(text))


def _query(query: str) -> dict[str, str]:
    try:
        values = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise BadRequest(f"query: cannot be read: {error}") from error
    for name in ("number", "size", "key_ID"):
        if len(values.get(name, ())) > 1:
            raise BadRequest(f"{name}: comes more than once in the query")
    return {name: one[0] for name, one in values.items()}


def _number(values: Mapping[str, str], name: str) -> int | None:
    if name not in values:
        return None
    if not re.fullmatch("[0-9]{1,9}", values[name]) or int(values[name]) < 1:
        raise BadRequest(f"{name}: '{values[name][:32]}' must be a whole number from 1 on")
    return int(values[name])


def _decoded[T](decoder: "msgspec.json.Decoder[T]", body: bytes, what: str) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"{what}: {error}") from error


def check(request: KeyRequest, limits: Limits) -> tuple[int, int]:
    """(number, size in bits) of what is asked for. Raises BadRequest, with the standard's own words where it has some."""
    names = {name for one in request.extension_mandatory or () for name in one}
    if unknown := sorted(names - {DISJOINT_PATHS}):
        told = [{name: "is not supported"} for name in unknown]
        raise BadRequest("not all extension_mandatory parameters are supported", *told)
    number, size = request.number or 1, request.size or limits.key_size
    if number > limits.number:
        raise BadRequest(f"number: {number} must be at most {limits.number}")
    if size % 8:
        raise BadRequest("size shall be a multiple of 8", {"size": f"{size} is no multiple of 8"})
    if not limits.min_key_size <= size <= limits.max_key_size:
        raise BadRequest(f"size: {size} must be within {limits.min_key_size} and {limits.max_key_size} bits")
    if len(request.additional_slave_SAE_IDs or ()) > limits.slaves:
        raise BadRequest(f"additional_slave_SAE_IDs: has more entries than {limits.slaves}")
    return number, size


def disjoint_paths(request: KeyRequest) -> int:
    """Over how many node-disjoint paths the keys must come, by the mandatory extension of ours. Raises BadRequest."""
    asked = [one[DISJOINT_PATHS] for one in request.extension_mandatory or () if DISJOINT_PATHS in one]
    for one in asked:
        if type(one) is not int or not 1 <= one <= MAX_DISJOINT_PATHS:
            raise BadRequest(f"{DISJOINT_PATHS}: must be a whole number from 1 to {MAX_DISJOINT_PATHS}")
    return max(asked, default=1)


# Answers -------------------------------------------------------------------------------------------------------------


def build(value: Status | KeyRequest | KeyIds | ErrorBody) -> bytes:
    return _encoder.encode(value)


def build_container(keys: Iterable[tuple[str, memoryview | bytes | bytearray]]) -> bytearray:
    """A Key container. The caller wipes it; the short-lived copy in Base64 that Python makes of each key cannot be."""
    body = bytearray(b'{"keys":[')
    for number, (name, material) in enumerate(keys):
        body += b'%s{"key_ID":"%s","key":"' % (b"," if number else b"", name.encode())
        body += b2a_base64(material, newline=False)
        body += b'"}'
    body += b"]}"
    return body


class _ReceivedKey(msgspec.Struct, frozen=True):
    key_ID: str
    key: bytes  # Base64 in JSON

    def __repr__(self) -> str:
        return f"<key {self.key_ID}>"


class _Container(msgspec.Struct, frozen=True):
    keys: list[_ReceivedKey]


_containers = msgspec.json.Decoder(_Container)
_statuses = msgspec.json.Decoder(Status)
_errors = msgspec.json.Decoder(ErrorBody)


def parse_container(body: bytes | bytearray) -> dict[str, bytearray]:
    """Keys by their ids, in their order; Base64 as RFC 4648 has it. Raises BadRequest for what is none."""
    return {one.key_ID: bytearray(one.key) for one in _decoded(_containers, bytes(body), "Key container").keys}


def parse_status(body: bytes) -> Status:
    return _decoded(_statuses, body, "Status")


def parse_error(body: bytes) -> ErrorBody:
    return _decoded(_errors, body, "Error")
