"""014's bodies, queries and paths: there and back, what is ignored, and what is refused by name and rule."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from qswitch.protocol import etsi014
from qswitch.protocol.etsi014 import BadRequest, ErrorBody, KeyRequest, Limits, Method, Status, build, build_path, parse_path

ID = "0123abcd-4567-489a-8bcd-0123456789ab"
OTHER = "0123abcd-4567-489a-8bcd-0123456789ac"


@given(st.text(min_size=1, max_size=60), st.sampled_from(Method))
def test_any_sae_id_goes_through_a_path(sae_id: str, method: Method) -> None:
    assert parse_path(build_path(sae_id, method)) == (sae_id, method)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v1/keys/alice/enc_keys", ("alice", Method.ENC_KEYS)),
        ("/api/v1/keys/qkd%3A%2F%2Fn%2Fa/status", ("qkd://n/a", Method.STATUS)),
        ("/api/v1/keys/qkd://n/a/dec_keys", ("qkd://n/a", Method.DEC_KEYS)),
        ("/api/v1/keys/alice/other", None),
        ("/api/v1/keys/enc_keys", None),
        ("/api/v2/keys/alice/enc_keys", None),
        ("/", None),
    ],
)
def test_paths(path: str, found: object) -> None:
    assert parse_path(path) == found


@pytest.mark.parametrize("path", ["/api/v1/keys/%ff/status", "/api/v1/keys//status", f"/api/v1/keys/{'a' * 257}/status"])
def test_what_is_no_sae_id(path: str) -> None:
    with pytest.raises(BadRequest, match="SAE ID"):
        parse_path(path)


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        (b"", KeyRequest()),
        (b" {}", KeyRequest()),
        (b'{"number": 3, "size": 1024}', KeyRequest(3, 1024)),
        (
            b'{"number": null, "unheard_of": [1], "extension_optional": [{"x_y": 1}]}',
            KeyRequest(extension_optional=[{"x_y": 1}]),
        ),
        (b'{"additional_slave_SAE_IDs": ["b", "c"]}', KeyRequest(additional_slave_SAE_IDs=["b", "c"])),
    ],
)
def test_key_requests(body: bytes, request_: KeyRequest) -> None:
    assert etsi014.parse_key_request(body) == request_
    assert etsi014.parse_key_request(build(request_)) == request_


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"number": "3"}', r"\$\.number"),
        (b'{"number": 0}', r">= 1.*\$\.number"),
        (b'{"size": 12.5}', r"\$\.size"),
        (b'{"additional_slave_SAE_IDs": [7]}', r"\$\.additional_slave_SAE_IDs\[0\]"),
        (b"[]", "Expected `object`"),
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "Key request"),
    ],
)
def test_what_is_no_key_request(body: bytes, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        etsi014.parse_key_request(body)


def test_queries() -> None:
    assert etsi014.parse_key_query("") == KeyRequest()
    assert etsi014.parse_key_query("number=2&size=512&other=x") == KeyRequest(2, 512)
    assert etsi014.parse_id_query(f"key_ID={ID.upper()}") == [ID]
    for query, named in (("number=0", "number"), ("size=-8", "size"), ("number=1&number=2", "number"), ("size=٣", "size")):
        with pytest.raises(BadRequest, match=named):
            etsi014.parse_key_query(query)
    for query in ("", "key_ID=1", f"key_ID={ID}&key_ID={OTHER}"):
        with pytest.raises(BadRequest, match="key_ID"):
            etsi014.parse_id_query(query)


def test_key_ids() -> None:
    body = json.dumps({"key_IDs": [{"key_ID": ID, "key_ID_extension": {}}, {"key_ID": OTHER.upper()}]}).encode()
    assert etsi014.parse_key_ids(body, 2) == [ID, OTHER]
    twice = json.dumps({"key_IDs": [{"key_ID": ID}, {"key_ID": ID.upper()}]}).encode()
    for wrong, limit in ((body, 1), (twice, 2), (b"{}", 2), (b'{"key_IDs": []}', 2), (b'{"key_IDs": [{"key_ID": "x"}]}', 2)):
        with pytest.raises(BadRequest, match="key_ID"):
            etsi014.parse_key_ids(wrong, limit)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (KeyRequest(size=257), "size shall be a multiple of 8"),
        (KeyRequest(size=56), "size: 56 must be within 64 and 8192 bits"),
        (KeyRequest(size=8200), "size: 8200 must be within 64 and 8192 bits"),
        (KeyRequest(number=129), "number: 129 must be at most 128"),
        (KeyRequest(extension_mandatory=[{"acme_x": 1}]), "not all extension_mandatory parameters are supported"),
        (KeyRequest(additional_slave_SAE_IDs=["s"] * 9), "additional_slave_SAE_IDs"),
    ],
)
def test_what_is_asked_for_in_vain(asked: KeyRequest, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        etsi014.check(asked, Limits())
    assert words in str(refused.value)


def test_what_may_be_asked_for() -> None:
    assert etsi014.check(KeyRequest(), Limits()) == (1, 256)
    assert etsi014.check(KeyRequest(128, 8192, ["b"], [], [{"acme_x": 1}]), Limits()) == (128, 8192)


def test_our_extension_has_a_vendor_s_prefix() -> None:
    """014 has it of the name of every extension, so that those of two vendors never meet."""
    assert etsi014.DISJOINT_PATHS.startswith("qswitch_")
    assert etsi014.disjoint_paths(KeyRequest(extension_mandatory=[{"qswitch_disjoint_paths": 2}])) == 2


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
def test_containers_there_and_back(keys: list[bytes]) -> None:
    body = etsi014.build_container((str(number), key) for number, key in enumerate(keys))
    assert etsi014.parse_container(body) == {str(number): bytearray(key) for number, key in enumerate(keys)}


def test_the_members_have_the_standard_s_names() -> None:
    status = Status("a", "b", "m", "s", 256, 7, 100, 10, 1024, 64, 0)
    assert set(json.loads(build(status))) == {
        "source_KME_ID", "target_KME_ID", "master_SAE_ID", "slave_SAE_ID", "key_size", "stored_key_count", "max_key_count",
        "max_key_per_request", "max_key_size", "min_key_size", "max_SAE_ID_count",
    }  # fmt: skip
    assert etsi014.parse_status(build(status)) == status
    assert json.loads(build(ErrorBody("why"))) == {"message": "why"}
    assert etsi014.parse_error(b'{"message": "why", "details": [{"a": "b"}]}') == ErrorBody("why", [{"a": "b"}])


@given(st.binary(max_size=80))
def test_any_octets_are_parsed_or_refused(octets: bytes) -> None:
    for parse in (etsi014.parse_key_request, lambda body: etsi014.parse_key_ids(body, 3), etsi014.parse_container):
        try:
            parse(octets)
        except BadRequest as error:
            assert str(error)
