"""What a client can do wrong on a NETCONF session: hellos, frames, messages, and seeded damage to good ones."""

import random
from collections.abc import Sequence

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE, BASE_1_0, BASE_1_1, Framing, Hello

HELLO = netconf.build_hello(Hello((BASE_1_0, BASE_1_1)))
DEPTH = 10_000
MEBIBYTE = 1 << 20

_LAUGHS = b"<!DOCTYPE a [<!ENTITY l0 'ha'>%b]>" % b"".join(
    b"<!ENTITY l%d '%b'>" % (level, b"&l%d;" % (level - 1) * 10) for level in range(1, 10)
)


def hello(inside: bytes = b"", capability: str = BASE_1_1, namespace: str = BASE) -> bytes:
    return b'<hello xmlns="%b"><capabilities><capability>%b</capability></capabilities>%b</hello>' % (
        namespace.encode(),
        capability.encode(),
        inside,
    )


def rpc(inside: bytes = b"<get-config><source><running/></source></get-config>", attributes: bytes = b"") -> bytes:
    return b'<rpc xmlns="%b" message-id="1"%b>%b</rpc>' % (BASE.encode(), attributes, inside)


# In place of a hello: the session is over (RFC 6241 clause 8.1).
HELLOS = {
    "nothing": b"",
    "no XML": b"hello?",
    "an rpc": rpc(),
    "a session-id": hello(b"<session-id>7</session-id>"),
    "a session-id without end": hello(b"<session-id>%b</session-id>" % (b"9" * 5000)),
    "no common version": hello(capability="urn:ietf:params:netconf:base:9.9"),
    "no namespace": hello(namespace=""),
    "another namespace": hello(namespace="urn:ietf:params:xml:ns:netconf:base:1.1"),
    "no UTF-8": hello(b"\xff\xfe\xc0\x80"),
    "another encoding": hello().decode().encode("utf-16"),
    "NULs": hello(b"\0\0"),
    "cut off": hello()[:-10],
    "billion laughs": _LAUGHS + hello(b"<a>&l9;</a>"),
    "a file of the host": b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + hello(b"<a>&f;</a>"),
    "deep": hello(b"<a>" * DEPTH + b"</a>" * DEPTH),
    "a long attribute": hello(b'<a b="%b"/>' % (b"x" * 9 * MEBIBYTE)),
    "too long": hello(b"<a/>" * 3 * MEBIBYTE),
}

# Instead of a chunk of base:1.1: the session is over, too (RFC 6242 clause 4.2).
FRAMES = {
    "no chunk": b"<rpc/>]]>]]>",
    "no line feed": b"#4\n<a/>\n##\n",
    "size 0": b"\n#0\n\n##\n",
    "leading zero": b"\n#04\n<a/>\n##\n",
    "no number": b"\n#four\n<a/>\n##\n",
    "negative": b"\n#-4\n<a/>\n##\n",
    "carriage return": b"\r\n#4\r\n<a/>\r\n##\r\n",
    "larger than a chunk may be": b"\n#4294967296\n",
    "larger than a message may be": b"\n#4294967295\n",
    "a header without end": b"\n#" + b"1" * 100_000,
    "an end without chunks": b"\n##\n",
    "wrong size": b"\n#5\n<a/>\n##\n",
    "chunks without end": b"\n#65536\n%b" % (b"x" * 65536) * 200,
    "NULs": b"\0" * 1000,
}

# Well framed; what is answered (RFC 6241 appendix A), and the session goes on.
MESSAGES = {
    "no XML": (b"x", "malformed-message"),
    "no UTF-8": (rpc(b"<get>\xc3\x28</get>"), "malformed-message"),
    "another encoding": (b'<?xml version="1.0" encoding="iso-8859-1"?>' + rpc(b"<g\xe9t/>"), "malformed-message"),
    "NULs": (rpc(b"<get>\0</get>"), "malformed-message"),
    "a control character": (rpc(b"<get>&#1;</get>"), "malformed-message"),
    "no namespace": (b'<rpc message-id="1"><get/></rpc>', "malformed-message"),
    "another namespace": (b'<rpc xmlns="urn:x" message-id="1"><get/></rpc>', "malformed-message"),
    "a prefix that nobody bound": (rpc(b"<nc:get/>"), "malformed-message"),
    "an error that a warning hides": (rpc(b'<nc:get/><a xmlns=";"/>'), "malformed-message"),
    "a second document": (rpc() * 2, "malformed-message"),
    "deep": (rpc(b"<a>" * DEPTH + b"</a>" * DEPTH), "malformed-message"),
    "billion laughs": (_LAUGHS + rpc(b"<get>&l9;</get>"), "malformed-message"),
    "billion laughs in an attribute": (_LAUGHS + rpc(attributes=b' a="&l9;"'), "malformed-message"),
    "a file of the host": (
        b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + rpc(b"<get>&f;</get>"),
        "malformed-message",
    ),
    "a long attribute": (rpc(attributes=b' a="%b"' % (b"x" * 7 * MEBIBYTE)), ""),
    "many attributes": (rpc(attributes=b"".join(b' a%d=""' % i for i in range(40_000))), "too-big"),
    "many namespaces": (rpc(attributes=b"".join(b' xmlns:a%d="urn:%d"' % (i, i) for i in range(40_000))), "too-big"),
    "wide": (rpc(b"<a/>" * MEBIBYTE), "operation-failed"),
    "many comments": (rpc(b"<!---->" * MEBIBYTE + b"<get-config><source><running/></source></get-config>"), ""),
    "no message-id": (b'<rpc xmlns="%b"><get/></rpc>' % BASE.encode(), "missing-attribute"),
    "no operation": (rpc(b""), "operation-failed"),
    "an unknown operation": (rpc(b"<make-coffee/>"), "operation-not-supported"),
    "many attributes inside": (
        rpc(b"<get-config><source><running/></source><filter><qkd_node xmlns='%b' %b/></filter></get-config>")
        % (b"urn:etsi:qkd:yang:etsi-qkd-node", b" ".join(b'a%d=""' % i for i in range(40_000))),
        "too-big",
    ),
}

_SUBSCRIBE = '<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0">{}</create-subscription>'
_SCHEMA = '<get-schema xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring">{}</get-schema>'
_DATA = (
    '<get-data xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-nmda" '
    'xmlns:ds="urn:ietf:params:xml:ns:yang:ietf-datastores"><datastore>{}</datastore></get-data>'
)
_EDIT = (
    "<edit-config><target><candidate/></target><default-operation>replace</default-operation>"
    "<config>{}</config></edit-config>"
)

# Operations whose parameters are wrong; what is answered, and the session goes on.
PARAMETERS = {
    "no target": ("<edit-config/>", "missing-element"),
    "no datastore": ("<lock><target/></lock>", "missing-element"),
    "a strange datastore": ("<lock><target><x/></target></lock>", "operation-not-supported"),
    "an xpath filter without": ('<get><filter type="xpath"/></get>', "missing-attribute"),
    "a strange top": (_EDIT.format('<x xmlns="urn:none"/>'), "unknown-namespace"),
    "a name beyond ASCII": (
        _EDIT.format('<nacm xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-acm"><é/><enable-nacm>x</enable-nacm></nacm>'),
        "unknown-element",
    ),
    "an rpc beyond ASCII": ('<é xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"/>', "operation-not-supported"),
    "a time-out that is none": ("<commit><confirmed/><confirm-timeout>x</confirm-timeout></commit>", "invalid-value"),
    "a persist without confirmed": ("<commit><persist>x</persist></commit>", "invalid-value"),
    "no session": ("<kill-session/>", "missing-element"),
    "a session of a negative number": ("<kill-session><session-id>-1</session-id></kill-session>", "invalid-value"),
    "a schema out of a file": (_SCHEMA.format("<identifier>../../etc/passwd</identifier>"), "invalid-value"),
    "no schema": (_SCHEMA.format(""), "missing-element"),
    "no time": (_SUBSCRIBE.format("<startTime>x</startTime>"), "bad-element"),
    "month 13": (_SUBSCRIBE.format("<startTime>2026-13-45T00:00:00Z</startTime>"), "bad-element"),
    "the end of time": (_SUBSCRIBE.format("<startTime>9999-12-31T23:59:59-14:00</startTime>"), "bad-element"),
    "a stop without a start": (_SUBSCRIBE.format("<stopTime>2020-01-01T00:00:00Z</stopTime>"), "missing-element"),
    "a datastore of no NMDA server": (_DATA.format("ds:x"), "invalid-value"),
    "a datastore of another module": (_DATA.format("ds:factory-default"), "invalid-value"),
    "no action": ('<action xmlns="urn:ietf:params:xml:ns:yang:1"/>', "missing-element"),
    "an rpc of no use": ('<x xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"/>', "operation-not-supported"),
}


def damaged(dice: random.Random, seeds: Sequence[bytes]) -> list[bytes]:
    """A session's bytes, of a good hello and some good messages, damaged here and there and cut into pieces."""
    framing = Framing()
    parts = [framing.frame(HELLO)]
    framing.use_chunks()
    parts += [framing.frame(dice.choice(seeds)) for _ in range(dice.randrange(1, 6))]
    data = bytearray(b"".join(parts))
    for _ in range(dice.randrange(1, 5)):
        at, size = dice.randrange(len(data)), dice.randrange(1, 12)
        match dice.randrange(5):
            case 0:
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = dice.randbytes(size)
            case 3:
                data[at:at] = data[at : at + 50 * size]
            case _:
                data[at : at + size] = dice.choice([b"]]>]]>", b"\n##\n", b"\n#1\n", b"\0", b"<a>", b"&x;", b"\xff", b'"'])
    pieces = []
    while data:
        size = dice.choice([1, 7, 100, 4000])
        pieces.append(bytes(data[:size]))
        del data[:size]
    return pieces
