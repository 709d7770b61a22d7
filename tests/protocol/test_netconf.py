"""The NETCONF codec: tables both ways, whole and byte by byte, then bad input, then anything at all."""

import contextlib
import time

import pytest
from hypothesis import given, strategies as st
from lxml import etree

from qswitch.protocol import netconf
from qswitch.protocol.netconf import (
    Attributes,
    Framing,
    FramingError,
    Hello,
    MalformedMessage,
    NetconfError,
    RpcError,
    RpcFailed,
)

MARKED = b"<a/>]]>]]><b/>]]>]]>"
CHUNKED = b"\n#2\n<a\n#2\n/>\n##\n\n#4\n<b/>\n##\n"


def messages(framing: Framing, data: bytes, step: int) -> list[bytes]:
    found = []
    for at in range(0, len(data), step):
        framing.receive(data[at : at + step])
        while (message := framing.next_message()) is not None:
            found.append(message)
    return found


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize(("chunks", "data"), [(False, MARKED), (True, CHUNKED)])
def test_messages_come_out_however_the_bytes_arrive(chunks: bool, data: bytes, step: int) -> None:
    framing = Framing()
    if chunks:
        framing.use_chunks()
    assert messages(framing, data, step) == [b"<a/>", b"<b/>"]
    framing.receive_eof()
    assert framing.next_message() is None


def test_what_follows_the_hello_in_one_read_is_chunked() -> None:
    framing = Framing()
    framing.receive(b"<hello/>]]>]]>" + CHUNKED)
    assert framing.next_message() == b"<hello/>"
    framing.use_chunks()
    assert [framing.next_message(), framing.next_message(), framing.next_message()] == [b"<a/>", b"<b/>", None]


def test_a_chunk_may_hold_the_marker_and_the_end_of_chunks() -> None:
    text = b"<a>]]>]]>\n##\n\n#4\n</a>"
    ours, theirs = Framing(), Framing()
    for one in ours, theirs:
        one.use_chunks()
    theirs.receive(ours.frame(text))
    assert theirs.next_message() == text


@pytest.mark.parametrize("text", [b"<a>]]>]]></a>", b"<a/>]]>"])
def test_a_marker_cannot_be_sent_inside_a_message(text: bytes) -> None:
    with pytest.raises(FramingError, match="end-of-message marker"):
        Framing().frame(text)


NC = b'xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"'


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=5), st.integers(1, 50))
def test_chunks_carry_any_bytes(texts: list[bytes], step: int) -> None:
    ours, theirs = Framing(), Framing()
    for one in ours, theirs:
        one.use_chunks()
    assert messages(theirs, b"".join(ours.frame(text) for text in texts), step) == texts


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\n\n",
        b"\n#0\n",
        b"\n#01\n",
        b"\n##\n",
        b"\n#a\n",
        b"\n#12345678901\n",
        b"\n#4294967296\n",
        b"\n#2\nabX",
        b"\n#2\nab\n#x",
    ],
)
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    framing = Framing()
    framing.use_chunks()
    framing.receive(data)
    with pytest.raises(FramingError):
        framing.next_message()


@pytest.mark.parametrize("data", [b"\n#5\n", b"\n#3\nabc\n#3\n", b"\n#3\nabc\n#3\ndef\n##\n"])
def test_a_chunked_message_is_limited_before_it_has_arrived(data: bytes) -> None:
    framing = Framing(max_message=4)
    framing.use_chunks()
    framing.receive(data)
    with pytest.raises(FramingError, match="longer than 4 bytes"):
        framing.next_message()


@pytest.mark.parametrize("data", [b"12345", b"12345]]>]]>"])
def test_a_marked_message_is_limited(data: bytes) -> None:
    framing = Framing(max_message=4)
    framing.receive(data)
    with pytest.raises(FramingError, match="longer than 4 bytes"):
        framing.next_message()


@pytest.mark.parametrize("step", range(1, 8))
def test_a_marker_in_pieces_does_not_count_as_message(step: int) -> None:
    assert messages(Framing(max_message=4), MARKED, step) == [b"<a/>", b"<b/>"]


@pytest.mark.parametrize(("chunks", "data"), [(False, b"<a/>]]>]]"), (True, b"\n#9\n<a/>"), (True, b"\n#4\n<a/>")])
def test_the_end_inside_a_message_is_an_error(chunks: bool, data: bytes) -> None:
    framing = Framing()
    if chunks:
        framing.use_chunks()
    framing.receive(data)
    assert framing.next_message() is None
    framing.receive_eof()
    with pytest.raises(FramingError, match="ended inside"):
        framing.next_message()


@given(st.booleans(), st.lists(st.binary(max_size=30)))
def test_any_bytes_are_framed_or_refused(chunks: bool, parts: list[bytes]) -> None:
    framing = Framing(max_message=100)
    if chunks:
        framing.use_chunks()
    with contextlib.suppress(FramingError):
        for part in parts:
            framing.receive(part)
            while framing.next_message() is not None:
                pass


@pytest.mark.parametrize("hello", [Hello((netconf.BASE_1_0, netconf.BASE_1_1), 7), Hello(("urn:x?a=b&c=d",)), Hello(())])
def test_hello_both_ways(hello: Hello) -> None:
    assert netconf.parse_hello(netconf.build_hello(hello)) == hello


def test_every_attribute_of_an_rpc_comes_back() -> None:
    rpc = netconf.parse_rpc(
        b'<nc:rpc xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="&lt;1&gt;"'
        b' user="fred" xmlns:x="urn:x" x:y="z"><nc:close-session/></nc:rpc>'
    )
    assert rpc.name == (netconf.BASE, "close-session")
    root = etree.fromstring(netconf.build_reply(rpc.attributes))
    assert dict(root.attrib) == {"message-id": "<1>", "user": "fred", "{urn:x}y": "z"}
    assert netconf.split_name(root[0]) == (netconf.BASE, "ok")


def test_result_text_is_embedded_as_it_is() -> None:
    reply = netconf.build_reply(Attributes({"message-id": "1"}), b'<data><t xmlns="urn:t">x</t></data>')
    parsed = netconf.parse_reply(reply)
    assert parsed.message_id == "1"
    assert parsed.errors == ()
    assert parsed.content[0][0].tag == "{urn:t}t"


@pytest.mark.parametrize(
    "error",
    [
        RpcError("lock-denied", "held", "protocol", info=(("session-id", "4"),)),
        RpcError("invalid-value", "no <uuid> & more", path="/q:qkd_node/q:x[q:k='1']", namespaces={"q": "urn:q"}),
        RpcError("operation-failed", app_tag="must-violation", severity="warning"),
    ],
)
def test_errors_both_ways(error: RpcError) -> None:
    reply = netconf.parse_reply(netconf.build_error_reply(Attributes({"message-id": "1"}), [error]))
    assert reply.errors == (error,)


def test_an_error_text_that_xml_cannot_hold_is_cleaned() -> None:
    assert b"a\xef\xbf\xbdb" in netconf.build_error(RpcError("operation-failed", "a\x00b"))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"<rpc",
        b"<rpc/>",
        b'<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"/>',
        b'<!DOCTYPE rpc [<!ENTITY x "y">]><rpc %b message-id="1"><a>&x;</a></rpc>' % NC,
        b'<!DOCTYPE rpc SYSTEM "file:///etc/passwd"><rpc %b message-id="1"><a/></rpc>' % NC,
        b"<a/>" * 2,
        b"\xff\xfe\x00",
        b'<rpc %b message-id="\xe9"><a/></rpc>' % NC,
        b'<?xml version="1.0" encoding="iso-8859-1"?><rpc %b message-id="\xe9"><a/></rpc>' % NC,
        b'<a:rpc xmlns:a="urn:}rpc" message-id="1"><a/></a:rpc>',
        b'<rpc %b message-id="1" xmlns:a="urn:}" a:x=""><a/></rpc>' % NC,
        # A warning (of a namespace that is relative) after the error makes lxml forget the error.
        b'<rpc %b message-id="1" xmlns:1="urn:a"><a xmlns=";"/></rpc>' % NC,
        b'<rpc %b message-id="1"><a:get/><a xmlns=";"/></rpc>' % NC,
        b'<rpc %b message-id="1">%b<a:get/><a xmlns=";"/></rpc>' % (NC, b'<a xmlns=";"/>' * 200),
        (b'<rpc %b message-id="1"><a/></rpc>' % NC).decode().encode("utf-16"),
    ],
)
def test_what_is_no_rpc_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        netconf.parse_rpc(message)


def test_a_missing_message_id_is_named() -> None:
    with pytest.raises(RpcFailed) as caught:
        netconf.parse_rpc(b'<rpc xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" user="x"><get/></rpc>')
    assert caught.value.errors[0].tag == "missing-attribute"
    assert ("bad-attribute", "message-id") in caught.value.errors[0].info
    assert caught.value.attributes == Attributes({"user": "x"})


MANY = b" ".join(b'a%d=""' % i for i in range(40000))
PREFIXES = b" ".join(b'xmlns:a%d="urn:a"' % i for i in range(40000))


@pytest.mark.parametrize(
    "message",
    [
        b'<rpc %b message-id="7" %b><get/></rpc>' % (NC, MANY),
        b'<rpc %b message-id="7"><get><a %b/></get></rpc>' % (NC, MANY),
        b'<rpc %b message-id="7" %b><get/></rpc>' % (NC, PREFIXES),
        b'<rpc %b message-id="7"><get><a %b/></get></rpc>' % (NC, PREFIXES.replace(b"=", b"\n=")),
    ],
)
def test_names_without_number_are_refused_at_once(message: bytes) -> None:
    # Taking out so many attributes, or writing what stands below so many prefixes, takes lxml six seconds.
    started = time.perf_counter()
    with pytest.raises(RpcFailed) as caught:
        netconf.parse_rpc(message)
    assert time.perf_counter() - started < 1
    assert caught.value.errors[0].tag == "too-big"
    assert caught.value.attributes == Attributes({"message-id": "7"})


@pytest.mark.parametrize("session_id", ["0", "-1", "4294967296", "9" * 5000, "\u0663", "1 2"])
def test_what_is_no_session_id_is_malformed(session_id: str) -> None:
    with pytest.raises(MalformedMessage, match="no session-id"):
        netconf.parse_hello(b"<hello %b><session-id>%b</session-id></hello>" % (NC, session_id.encode()))


def test_notification_both_ways() -> None:
    message = netconf.build_notification("2026-11-23T10:00:00Z", b'<event xmlns="urn:e">x</event>')
    event_time, event = netconf.parse_notification(message)
    assert (event_time, event.tag, event.text) == ("2026-11-23T10:00:00Z", "{urn:e}event", "x")


PARSERS = [netconf.parse_hello, netconf.parse_rpc, netconf.parse_reply, netconf.parse_notification]


@given(
    st.sampled_from(PARSERS),
    st.one_of(st.binary(max_size=60), st.text(alphabet="<>/a='\" &;!]", max_size=60).map(str.encode)),
)
def test_any_text_is_parsed_or_refused(parse: object, message: bytes) -> None:
    assert callable(parse)
    with contextlib.suppress(NetconfError):
        parse(message)
