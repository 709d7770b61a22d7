"""NETCONF on the wire: framing (RFC 6242), hello, rpc, rpc-reply, rpc-error (RFC 6241) and notification (RFC 5277).

Bytes in, values out, no I/O. A hello always ends with the end-of-message marker; chunks are used only after both hellos
listed base:1.1. The end of a chunked message is found by counting, never by searching the text. No entity, no document
type and no network are ever followed while XML is parsed, and an unfinished message has a limit.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lxml import etree

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
NOTIFICATION = "urn:ietf:params:xml:ns:netconf:notification:1.0"
MONITORING = "urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"
NMDA = "urn:ietf:params:xml:ns:yang:ietf-netconf-nmda"
YANG = "urn:ietf:params:xml:ns:yang:1"

BASE_1_0 = "urn:ietf:params:netconf:base:1.0"
BASE_1_1 = "urn:ietf:params:netconf:base:1.1"

# What a peer may send before a message of its own ends; 500 links with everything known of them are 0.2 MB.
MAX_MESSAGE = 64 * 1024 * 1024

# lxml's stubs know no default namespace.
_DEFAULT: dict[str, str] = {None: BASE}  # type: ignore[dict-item]
_MARKER = b"]]>]]>"
_CHUNK = re.compile(rb"\n#([1-9][0-9]{0,9})\n")
_END = b"\n##\n"
_LONGEST_CHUNK_HEADER = len("\n#4294967295\n")
_LARGEST_CHUNK = 4294967295
_SESSION_ID = re.compile("0{0,20}[1-9][0-9]{0,9}")
# Attributes of an element, and prefixes of a message: lxml's time for some uses of them grows with their square.
_MAX_NAMES = 500
_PREFIX = re.compile(rb"xmlns:([^\s=]+)")
_COMPLAINTS = 100
# Characters that no XML document may hold (XML 1.0 clause 2.2).
_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class NetconfError(Exception):
    """Root of what can be wrong with bytes or messages."""


class FramingError(NetconfError):
    """The byte stream is no NETCONF framing, or a message outgrew the limit: the session cannot go on (RFC 6242, 4.2)."""


class MalformedMessage(NetconfError):
    """A message that is no well-formed XML, or not one of NETCONF's."""


@dataclass(frozen=True, slots=True)
class RpcError:
    """One `rpc-error` (RFC 6241 clause 4.3).

    `info` holds (element, text) pairs, an element of another namespace than the base one in Clark notation. `path` is
    XPath with the prefixes of `namespaces`.
    """

    tag: str
    message: str = ""
    type: str = "application"
    severity: str = "error"
    app_tag: str = ""
    path: str = ""
    info: tuple[tuple[str, str], ...] = ()
    namespaces: Mapping[str, str] = field(default_factory=dict)


class RpcFailed(NetconfError):
    """An operation that did not succeed; `attributes` are those of the rpc when it could be read that far."""

    def __init__(self, *errors: RpcError, attributes: "Attributes | None" = None) -> None:
        super().__init__("; ".join(f"{one.tag}: {one.message}" if one.message else one.tag for one in errors))
        self.errors = errors
        self.attributes = attributes


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of an rpc, names in Clark notation, with the prefixes they were written with."""

    values: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hello:
    capabilities: tuple[str, ...]
    session_id: int | None = None


@dataclass(frozen=True, slots=True)
class Rpc:
    """One `rpc`: its attributes (a reply carries them all) and the element that names the operation."""

    attributes: Attributes
    operation: etree._Element

    @property
    def name(self) -> tuple[str, str]:
        """Namespace and local name of the operation."""
        return split_name(self.operation)


@dataclass(frozen=True, slots=True)
class RpcReply:
    """One `rpc-reply`: `content` holds its children other than errors."""

    message_id: str | None
    errors: tuple[RpcError, ...]
    content: tuple[etree._Element, ...]


class Framing:
    """One direction-pair of message framing: starts with end-of-message markers, continues with chunks if told to.

    Feed it with `receive`, take out messages with `next_message` until it answers None ("more bytes, please").
    """

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._max = max_message
        self._input = bytearray()
        self._message = bytearray()  # chunks of the unfinished message
        self._missing = 0  # bytes of the current chunk still to come
        self._searched = 0  # the marker does not start before this position
        self._chunks = False
        self._eof = False

    def use_chunks(self) -> None:
        """From the next byte on in both directions: chunks (RFC 6242 clause 4.2)."""
        self._chunks = True

    def receive(self, data: bytes) -> None:
        """Takes bytes of the peer."""
        self._input += data

    def receive_eof(self) -> None:
        """The peer will send no more; an unfinished message is now an error."""
        self._eof = True

    def next_message(self) -> bytes | None:
        """The next complete message, or None when more bytes are needed. Raises FramingError."""
        message = self._next_chunked() if self._chunks else self._next_marked()
        if message is None and self._eof and (self._message or self._missing or bytes(self._input).strip()):
            raise FramingError("the stream ended inside a message")
        return message

    def frame(self, message: bytes) -> bytes:
        """The bytes that carry a message to the peer."""
        if not self._chunks:
            marked = message + _MARKER
            if marked.find(_MARKER) != len(message):
                raise FramingError("a message holds the end-of-message marker, or begins one at its end")
            return marked
        chunks = (message[i : i + _LARGEST_CHUNK] for i in range(0, len(message), _LARGEST_CHUNK))
        return b"".join([*(b"\n#%d\n%b" % (len(chunk), chunk) for chunk in chunks), _END])

    def _next_marked(self) -> bytes | None:
        end = self._input.find(_MARKER, self._searched)
        # Octets that may turn out to be the start of the marker are not yet the message's.
        if (len(self._input) - self._begun_marker() if end < 0 else end) > self._max:
            raise FramingError(f"a message is longer than {self._max} bytes")
        if end < 0:
            self._searched = max(0, len(self._input) - len(_MARKER) + 1)
            return None
        message = bytes(self._input[:end])
        del self._input[: end + len(_MARKER)]
        self._searched = 0
        return message

    def _begun_marker(self) -> int:
        return next((size for size in range(len(_MARKER) - 1, 0, -1) if self._input.endswith(_MARKER[:size])), 0)

    def _next_chunked(self) -> bytes | None:
        while True:
            if self._missing:
                part = self._input[: self._missing]
                self._message += part
                self._missing -= len(part)
                del self._input[: len(part)]
                if self._missing:
                    return None
            if self._input.startswith(_END) and self._message:
                del self._input[: len(_END)]
                message = bytes(self._message)
                self._message.clear()
                return message
            if not self._next_header():
                return None

    def _next_header(self) -> bool:
        header = _CHUNK.match(self._input)
        if header is None:
            self._check_start()
            return False
        self._missing = int(header[1])
        if self._missing > _LARGEST_CHUNK or len(self._message) + self._missing > self._max:
            raise FramingError(f"a message is longer than {min(self._max, _LARGEST_CHUNK)} bytes")
        del self._input[: header.end()]
        return True

    def _check_start(self) -> None:
        """Whether more bytes can still make a header, or the end of chunks, of what is there."""
        start = bytes(self._input[:_LONGEST_CHUNK_HEADER])
        partial_header = re.fullmatch(rb"(\n(#([1-9][0-9]{0,9})?)?)?", start)
        if partial_header or (self._message and _END.startswith(start)):
            return
        raise FramingError(f"no chunk starts with {start!r}")


# XML -----------------------------------------------------------------------------------------------------------------


def parse_xml(message: bytes) -> etree._Element:
    """The root element. Raises MalformedMessage for anything that is no plain XML document in UTF-8 (RFC 6241 clause 3)."""
    # A parser per message: lxml's parsers are not to be shared by threads.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        remove_comments=True, remove_pis=True, encoding="utf-8",
    )  # fmt: skip
    try:
        root = etree.fromstring(message.lstrip(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MalformedMessage(f"no well-formed XML: {error}") from error
    # A later warning makes lxml forget an error about namespaces. It keeps a hundred complaints at most.
    if len(parser.error_log) >= _COMPLAINTS or any(one.level > etree.ErrorLevels.WARNING for one in parser.error_log):
        raise MalformedMessage(f"no well-formed XML: {parser.error_log[0].message}")
    if root.getroottree().docinfo.internalDTD is not None:
        raise MalformedMessage("a document type declaration is not allowed in NETCONF (RFC 6241 clause 3)")
    return root


def split_name(element: etree._Element) -> tuple[str, str]:
    """Namespace ("" when there is none) and local name."""
    name = etree.QName(element)
    return name.namespace or "", name.localname


def printable(text: str) -> str:
    """The text with what XML cannot hold replaced."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _child(parent: etree._Element, name: str, text: str, namespaces: Mapping[str, str] | None = None) -> None:
    """Adds an element of the base namespace, unless the name says which (Clark notation)."""
    full = name if name.startswith("{") else f"{{{BASE}}}{name}"
    element = etree.SubElement(parent, full, nsmap=dict(namespaces) if namespaces else None)
    element.text = printable(text)


def _text(parent: etree._Element, name: str) -> str:
    return (parent.findtext(f"{{{BASE}}}{name}") or "").strip()


# Messages ------------------------------------------------------------------------------------------------------------


def build_hello(hello: Hello) -> bytes:
    """A hello; the server's carries the session-id (RFC 6241 clause 8.1)."""
    root = etree.Element(f"{{{BASE}}}hello", nsmap=_DEFAULT)
    capabilities = etree.SubElement(root, f"{{{BASE}}}capabilities")
    for one in hello.capabilities:
        _child(capabilities, "capability", one)
    if hello.session_id is not None:
        _child(root, "session-id", str(hello.session_id))
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True)


def parse_hello(message: bytes) -> Hello:
    """Reads a hello. Raises MalformedMessage when it is none."""
    root = parse_xml(message)
    if split_name(root) != (BASE, "hello"):
        raise MalformedMessage(f"a hello was expected, not '{root.tag}'")
    found = root.iterfind(f"{{{BASE}}}capabilities/{{{BASE}}}capability")
    capabilities = tuple((one.text or "").strip() for one in found)
    session_id = _text(root, "session-id")
    if session_id and not (_SESSION_ID.fullmatch(session_id) and int(session_id) < 2**32):
        raise MalformedMessage(f"'{session_id}' is no session-id")
    return Hello(capabilities, int(session_id) if session_id else None)


def build_rpc(message_id: str, operation: bytes) -> bytes:
    """An rpc around one operation that is already XML and declares its own namespaces."""
    return _wrap("rpc", Attributes({"message-id": message_id}), operation)


def parse_rpc(message: bytes) -> Rpc:
    """Reads an rpc. Raises MalformedMessage when it is no XML or no rpc, RpcFailed when it is one with a defect."""
    root = parse_xml(message)
    if split_name(root) != (BASE, "rpc"):
        raise MalformedMessage(f"an rpc was expected, not '{root.tag}'")
    if _is_crowded(message, root):
        message_id = root.get("message-id")
        known = {} if message_id is None else {"message-id": message_id}
        error = RpcError("too-big", f"more than {_MAX_NAMES} attributes of an element, or prefixes", "rpc")
        raise RpcFailed(error, attributes=Attributes(known))
    attributes = _attributes(root)
    if "message-id" not in attributes.values:
        error = RpcError(
            "missing-attribute",
            "an rpc needs a message-id",
            "rpc",
            info=(("bad-attribute", "message-id"), ("bad-element", "rpc")),
        )
        raise RpcFailed(error, attributes=attributes)
    if len(root) != 1:
        error = RpcError("operation-failed", f"an rpc holds one operation, this one {len(root)}", "protocol")
        raise RpcFailed(error, attributes=attributes)
    return Rpc(attributes, root[0])


def _is_crowded(message: bytes, root: etree._Element) -> bool:
    """Whether there are more attributes or prefixes than anyone needs, in a time that is linear."""
    if message.count(b"xmlns:") > _MAX_NAMES and len(set(_PREFIX.findall(message))) > _MAX_NAMES:
        return True
    return message.count(b"=") > _MAX_NAMES and any(len(one.attrib) > _MAX_NAMES for one in root.iter())


def _attributes(root: etree._Element) -> Attributes:
    """With every prefix it declares: those are attributes, too (RFC 6241 clause 4.1)."""
    values = {str(name): str(value) for name, value in root.attrib.items()}
    return Attributes(values, {prefix: uri for prefix, uri in root.nsmap.items() if prefix})


def build_reply(attributes: Attributes, content: bytes = b"<ok/>") -> bytes:
    """An rpc-reply with the rpc's attributes; the content is XML text, of the base namespace where it declares no other."""
    return _wrap("rpc-reply", attributes, content)


def build_error_reply(attributes: Attributes, errors: Iterable[RpcError]) -> bytes:
    """An rpc-reply with errors."""
    return _wrap("rpc-reply", attributes, b"".join(build_error(one) for one in errors))


def build_error(error: RpcError) -> bytes:
    """One rpc-error element."""
    root = etree.Element(f"{{{BASE}}}rpc-error", nsmap=_DEFAULT)
    _child(root, "error-type", error.type)
    _child(root, "error-tag", error.tag)
    _child(root, "error-severity", error.severity)
    if error.app_tag:
        _child(root, "error-app-tag", error.app_tag)
    if error.path:
        _child(root, "error-path", error.path, error.namespaces)
    if error.message:
        _child(root, "error-message", error.message)
        root[-1].set("{http://www.w3.org/XML/1998/namespace}lang", "en")
    if error.info:
        info = etree.SubElement(root, f"{{{BASE}}}error-info")
        for name, text in error.info:
            _child(info, name, text)
    return etree.tostring(root, encoding="UTF-8")


def parse_error(element: etree._Element) -> RpcError:
    """Reads one rpc-error element; what it lacks stays empty."""
    info = element.find(f"{{{BASE}}}error-info")
    pairs = () if info is None else tuple((split_name(one)[1], (one.text or "").strip()) for one in info)
    path = element.find(f"{{{BASE}}}error-path")
    names = {} if path is None else {prefix: uri for prefix, uri in path.nsmap.items() if prefix}
    return RpcError(
        tag=_text(element, "error-tag"),
        message=_text(element, "error-message"),
        type=_text(element, "error-type"),
        severity=_text(element, "error-severity"),
        app_tag=_text(element, "error-app-tag"),
        path=_text(element, "error-path"),
        info=pairs,
        namespaces=names,
    )


def parse_reply(message: bytes) -> RpcReply:
    """Reads an rpc-reply. Raises MalformedMessage when it is none."""
    root = parse_xml(message)
    if split_name(root) != (BASE, "rpc-reply"):
        raise MalformedMessage(f"an rpc-reply was expected, not '{root.tag}'")
    errors = tuple(parse_error(one) for one in root.iterfind(f"{{{BASE}}}rpc-error"))
    content = tuple(one for one in root if split_name(one) != (BASE, "rpc-error"))
    return RpcReply(root.get("message-id"), errors, content)


def build_notification(event_time: str, content: bytes) -> bytes:
    """A notification (RFC 5277 clause 2.2.1) of an event, already XML with its own namespaces, at an RFC 3339 time."""
    return b'<notification xmlns="%b"><eventTime>%b</eventTime>%b</notification>' % (
        NOTIFICATION.encode(),
        event_time.encode(),
        content,
    )


def parse_notification(message: bytes) -> tuple[str, etree._Element]:
    """The RFC 3339 time and the event of a notification. Raises MalformedMessage when it is none."""
    root = parse_xml(message)
    time = root.findtext(f"{{{NOTIFICATION}}}eventTime")
    events = [one for one in root if split_name(one) != (NOTIFICATION, "eventTime")]
    if split_name(root) != (NOTIFICATION, "notification") or time is None or len(events) != 1:
        raise MalformedMessage(f"a notification was expected, not '{root.tag}'")
    return time.strip(), events[0]


def _wrap(name: str, attributes: Attributes, content: bytes) -> bytes:
    """An element of the base namespace around content that is XML text already, so that no big result is parsed again."""
    root = etree.Element(f"{{{BASE}}}{name}", dict(attributes.values), nsmap={**_DEFAULT, **attributes.prefixes})
    start = etree.tostring(root, encoding="UTF-8").removesuffix(b"/>")
    return b"%b>%b</%b>" % (start, content, name.encode())
