"""Key streams as applications see them, decided: the state machine as one table, who may do what, QoS, metadata. No I/O.

`Phase` is how far this end of a key stream has come; whether the peer has come as well is the key manager's to know. A
pair that `TRANSITIONS` lacks is refused: to OPEN_CONNECT it means that the entry is stale and the controller is asked anew,
to GET_KEY and CLOSE that the caller has no such stream.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum, auto
from urllib.parse import urlsplit

from qswitch.protocol import etsi004
from qswitch.protocol.etsi015 import MAX_DISJOINT_PATHS

from .errors import InvalidValue, KeyStreamInUse, NoConnection, NodeError, QosNotMet, Unauthorised
from .model import Admission, ApplicationConfig, ApplicationStatus, Configuration, KeyStreamId, NodeId, Qos

JSON = "application/json"
DEFAULT_CHUNK_SIZE = 32  # octets: a key of 256 bits
DEFAULT_TIMEOUT_SECONDS = 10.0
# Clients of dialect P close the connection after 5 s: an answer is to be there before.
DEFAULT_TIMEOUT_P_SECONDS = 4.5


class Phase(Enum):
    CONFIGURED = auto()  # the controller's entry is here, the application is not
    RECOVERED = auto()  # as CONFIGURED, but from before this process: the application may have opened it then
    ATTACHED = auto()
    CLOSED = auto()  # by the local application; the peer may still read what is reserved (004 clause 6.1)
    FINISHED = auto()  # closed at both ends, erased
    REFUSED = auto()  # not admitted by the controller
    EXPIRED = auto()  # past its expiration_time, erased


class StreamEvent(Enum):
    ADMIT = auto()
    REFUSE = auto()
    OPEN = auto()
    GIVE_UP = auto()  # the peer did not come before OPEN_CONNECT timed out
    GET_KEY = auto()
    CLOSE = auto()
    PEER_CLOSED = auto()
    EXPIRE = auto()


# (phase, event) -> (phase, whether the controller is told that the application has gone).
TRANSITIONS: dict[tuple[Phase, StreamEvent], tuple[Phase, bool]] = {
    (Phase.CONFIGURED, StreamEvent.ADMIT): (Phase.CONFIGURED, False),
    (Phase.CONFIGURED, StreamEvent.REFUSE): (Phase.REFUSED, False),
    (Phase.CONFIGURED, StreamEvent.OPEN): (Phase.ATTACHED, False),
    (Phase.CONFIGURED, StreamEvent.EXPIRE): (Phase.EXPIRED, True),
    (Phase.RECOVERED, StreamEvent.ADMIT): (Phase.RECOVERED, False),
    (Phase.RECOVERED, StreamEvent.REFUSE): (Phase.REFUSED, False),
    (Phase.RECOVERED, StreamEvent.OPEN): (Phase.ATTACHED, False),
    (Phase.RECOVERED, StreamEvent.GET_KEY): (Phase.ATTACHED, False),
    (Phase.RECOVERED, StreamEvent.CLOSE): (Phase.CLOSED, True),
    (Phase.RECOVERED, StreamEvent.EXPIRE): (Phase.EXPIRED, True),
    (Phase.ATTACHED, StreamEvent.ADMIT): (Phase.ATTACHED, False),
    (Phase.ATTACHED, StreamEvent.REFUSE): (Phase.REFUSED, False),
    (Phase.ATTACHED, StreamEvent.OPEN): (Phase.ATTACHED, False),  # the application crashed and came back
    (Phase.ATTACHED, StreamEvent.GIVE_UP): (Phase.CONFIGURED, False),
    (Phase.ATTACHED, StreamEvent.GET_KEY): (Phase.ATTACHED, False),
    (Phase.ATTACHED, StreamEvent.CLOSE): (Phase.CLOSED, True),
    (Phase.ATTACHED, StreamEvent.EXPIRE): (Phase.EXPIRED, True),
    (Phase.CLOSED, StreamEvent.ADMIT): (Phase.CLOSED, False),
    (Phase.CLOSED, StreamEvent.REFUSE): (Phase.REFUSED, False),
    (Phase.CLOSED, StreamEvent.OPEN): (Phase.ATTACHED, False),
    (Phase.CLOSED, StreamEvent.CLOSE): (Phase.CLOSED, False),
    (Phase.CLOSED, StreamEvent.PEER_CLOSED): (Phase.FINISHED, False),
    (Phase.CLOSED, StreamEvent.EXPIRE): (Phase.EXPIRED, False),
    (Phase.FINISHED, StreamEvent.ADMIT): (Phase.FINISHED, False),
    (Phase.FINISHED, StreamEvent.REFUSE): (Phase.REFUSED, False),
    (Phase.FINISHED, StreamEvent.CLOSE): (Phase.FINISHED, False),
    (Phase.FINISHED, StreamEvent.EXPIRE): (Phase.EXPIRED, False),
    (Phase.REFUSED, StreamEvent.ADMIT): (Phase.CONFIGURED, False),
    (Phase.REFUSED, StreamEvent.REFUSE): (Phase.REFUSED, False),
    (Phase.EXPIRED, StreamEvent.ADMIT): (Phase.CONFIGURED, False),  # its time was extended
    (Phase.EXPIRED, StreamEvent.REFUSE): (Phase.REFUSED, False),
    (Phase.EXPIRED, StreamEvent.CLOSE): (Phase.EXPIRED, False),
}

# 015's ZOMBIE, what is left of an application that nobody accounts for, does not occur: a controller made every entry.
STATUS: dict[Phase, ApplicationStatus] = {
    Phase.CONFIGURED: ApplicationStatus.DISCONNECTED,
    Phase.RECOVERED: ApplicationStatus.DISCONNECTED,
    Phase.ATTACHED: ApplicationStatus.ON,
    Phase.CLOSED: ApplicationStatus.DISCONNECTED,
    Phase.FINISHED: ApplicationStatus.DISCONNECTED,
    Phase.REFUSED: ApplicationStatus.DISCONNECTED,
    Phase.EXPIRED: ApplicationStatus.OUT_OF_TIME,
}

# Phases in which the key manager keeps the stream.
KEPT = frozenset({Phase.CONFIGURED, Phase.RECOVERED, Phase.ATTACHED, Phase.CLOSED})


# Entries -------------------------------------------------------------------------------------------------------------


def check(configuration: Configuration) -> None:
    """Raises InvalidValue for a `qkd_app` that this node cannot serve."""
    for one in configuration.applications.values():
        path = f"/etsi-qkd-sdn-node:qkd_node/qkd_applications/qkd_app[app_id='{one.ksid}']"
        if one.local_node not in (None, configuration.node):
            raise InvalidValue(f"{path}/local_qkdn_id", str(one.local_node), f"this node is {configuration.node}")
        if one.remote_node == configuration.node:
            raise InvalidValue(f"{path}/remote_qkdn_id", one.remote_node, "the peer is at another node")
        for name in one.backing_links if one.disjoint_paths > 1 else ():
            link = configuration.links.get(name)
            if link is not None and len(link.components) < one.disjoint_paths:
                raise InvalidValue(f"{path}/backing_qkdl_id", name, f"is no link over {one.disjoint_paths} disjoint paths")


def admission(entry: ApplicationConfig) -> StreamEvent:
    return StreamEvent.ADMIT if entry.admission is Admission.ADMITTED else StreamEvent.REFUSE


def refusal(entry: ApplicationConfig) -> NodeError:
    """What an application is told of an entry that the controller did not admit."""
    reason = entry.admission_reason or entry.admission.value
    match entry.admission:
        case Admission.KSID_IN_USE:
            return KeyStreamInUse(entry.ksid)
        case Admission.QOS_NOT_MET:
            return QosNotMet(reason, entry.qos)
        case _:
            return NoConnection(reason)


def members(entry: ApplicationConfig) -> frozenset[str]:
    """The applications of a key stream, at whichever node."""
    return frozenset((entry.server_app_id, *entry.client_app_ids)) - {None}  # type: ignore[return-value]


def home(uri: str) -> NodeId | None:
    """The node where an application lives, by its URI; None for a name that does not say."""
    try:
        return NodeId(str(uuid.UUID(urlsplit(uri).netloc)))
    except ValueError:
        return None


def sharing(entry: ApplicationConfig, node: NodeId) -> frozenset[str]:
    """The clients of this node to whom all key of the stream is given, each once (015: clients_shared_keys_required).

    None at the end of the server application, and none when there is but one client. A client whose name does not say
    where it lives may be at either node.
    """
    if not entry.qos.clients_shared_keys or entry.server_app_id is None or home(entry.server_app_id) == node:
        return frozenset()
    here = frozenset(one for one in entry.client_app_ids if home(one) in (None, node))
    return here if len(here) > 1 else frozenset()


PATHS = "disjoint-paths"


def without_paths(uri: str) -> tuple[str, int]:
    """The name of an application without what a caller adds to it to ask for node-disjoint paths, and how many it asks for:
    `qkd://NODE/app?disjoint-paths=2`. Raises InvalidValue."""
    name, found, query = uri.partition("?")
    parts = query.split("&") if found else []
    asked = [one.partition("=")[2] for one in parts if one.partition("=")[0] == PATHS]
    if not asked:
        return uri, 1
    for one in asked:
        if one not in map(str, range(1, MAX_DISJOINT_PATHS + 1)):
            raise InvalidValue(PATHS, one, f"must be from 1 to {MAX_DISJOINT_PATHS}")
    rest = [one for one in parts if one.partition("=")[0] != PATHS]
    return "?".join([name, "&".join(rest)] if rest else [name]), max(map(int, asked))


def check_paths(entry: ApplicationConfig, asked: int) -> None:
    """Raises NoConnection when the controller's entry promises fewer paths than the caller wants: one that knows nothing of
    them, or whoever opened the stream, did not ask for so many."""
    if entry.disjoint_paths < asked:
        promised = "a single path" if entry.disjoint_paths == 1 else f"{entry.disjoint_paths} disjoint paths"
        raise NoConnection(f"key stream {entry.ksid} is over {promised}, {asked} disjoint ones are asked for")


# OPEN_CONNECT --------------------------------------------------------------------------------------------------------


def parties(caller: Collection[str], source: str, destination: str) -> tuple[str, str]:
    """(the caller's own name, the peer's): either order of source and destination is used in practice.

    Raises Unauthorised when the caller's certificate names neither, InvalidValue when one is empty or both are the same.
    """
    for name, value in (("source", source), ("destination", destination)):
        if not value:
            raise InvalidValue(name, value, "both applications are named")
    if source == destination:
        raise InvalidValue("destination", destination, "an application has no key stream with itself")
    if source in caller:
        return source, destination
    if destination in caller:
        return destination, source
    raise Unauthorised(", ".join(sorted(caller)), f"open a key stream of {source} and {destination}")


def counter_proposal(qos: etsi004.Qos) -> etsi004.Qos | None:
    """The nearest QoS that can be had (004 status 7); None when this one can."""
    nearest = qos
    if qos.key_chunk_size > etsi004.MAX_KEY_CHUNK_SIZE:
        nearest = replace(nearest, key_chunk_size=etsi004.MAX_KEY_CHUNK_SIZE)
    if 0 < qos.max_bps < qos.min_bps:
        nearest = replace(nearest, min_bps=qos.max_bps)
    if qos.metadata_mimetype.lower() not in ("", JSON):
        nearest = replace(nearest, metadata_mimetype=JSON)
    return None if nearest == qos else nearest


def of_network(qos: etsi004.Qos, offered: Qos) -> etsi004.Qos:
    """The nearest QoS that the network can give (004 status 7)."""
    return replace(qos, max_bps=offered.max_bandwidth_bps or qos.max_bps, min_bps=offered.min_bandwidth_bps or qos.min_bps)


def timeout_seconds(qos: etsi004.Qos, dialect: etsi004.Dialect) -> float:
    """004's Timeout; 0 is unspecified."""
    if qos.timeout:
        return qos.timeout / 1000
    return DEFAULT_TIMEOUT_P_SECONDS if dialect is etsi004.Dialect.P else DEFAULT_TIMEOUT_SECONDS


def requested(qos: etsi004.Qos) -> Qos:
    """What the controller is asked for. 004's jitter is in bit/s, 015's in ms: it has a leaf of its own."""
    return Qos(
        max_bandwidth_bps=qos.max_bps or None,
        min_bandwidth_bps=qos.min_bps or None,
        ttl_seconds=qos.ttl or None,
        jitter_bps=qos.jitter or None,
        timeout_ms=qos.timeout or None,
    )


def offered(entry: ApplicationConfig, asked: etsi004.Qos, chunk_size: int, timeout: float) -> etsi004.Qos:
    """The QoS of a stream as it is: what is registered counts, whatever this caller asked for (004 clause 6.2.2)."""
    return replace(
        asked,
        key_chunk_size=chunk_size,
        max_bps=entry.qos.max_bandwidth_bps or asked.max_bps,
        min_bps=entry.qos.min_bandwidth_bps or asked.min_bps,
        jitter=entry.qos.jitter_bps or asked.jitter,
        priority=entry.priority or asked.priority,
        ttl=entry.qos.ttl_seconds or asked.ttl,
        timeout=round(timeout * 1000),
    )


def joins(entry: ApplicationConfig, me: str) -> bool:
    """Whether an application comes to a key stream that another has registered."""
    return entry.server_app_id not in (None, me)


def joining(qos: etsi004.Qos) -> etsi004.Qos:
    """What counts of the QoS of who joins: what is registered holds, no limit included (004 clause 6.1, table 1)."""
    return replace(qos, max_bps=0, min_bps=0, jitter=0, priority=0, ttl=0)


def updated(registered: Qos, asked: Qos) -> Qos:
    """What an application that opens its stream again is to have: what it does not name stays."""
    named = ("max_bandwidth_bps", "min_bandwidth_bps", "ttl_seconds", "jitter_bps", "timeout_ms")
    return replace(registered, **{name: value for name in named if (value := getattr(asked, name)) is not None})


def is_update(entry: ApplicationConfig, qos: Qos) -> bool:
    """Whether an application that opens its stream again asks for other rates than are registered."""
    asked = (qos.max_bandwidth_bps, qos.min_bandwidth_bps)
    registered = (entry.qos.max_bandwidth_bps, entry.qos.min_bandwidth_bps)
    return any(new is not None and new != old for new, old in zip(asked, registered, strict=True))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stream that an OPEN_CONNECT without a KSID might mean."""

    ksid: KeyStreamId
    members: frozenset[str]
    phase: Phase
    peer_attached: bool
    age: int  # rises with every new entry


def pairing(me: str, peer: str, candidates: Collection[Candidate]) -> KeyStreamId | None:
    """The stream the peer has opened for us: same two applications, nobody here has it yet.

    Of several the peer may have given up all but the newest one it is attached to.
    """
    fitting = [one for one in candidates if one.phase is Phase.CONFIGURED and {me, peer} <= one.members]
    return max(fitting, key=lambda one: (one.peer_attached, one.age)).ksid if fitting else None


# GET_KEY -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bucket:
    """Lets `rate_bps` through on average. Bursts of a second, and of four chunks at the least, are within the rate.

    What is on its way when the bucket runs dry is let through and makes later calls wait longer.
    """

    level_bits: float = float("inf")
    at: float = 0.0

    def has(self, bits: int, rate_bps: int, now: float) -> bool:
        depth = max(rate_bps, 4 * bits)
        self.level_bits = min(depth, self.level_bits + rate_bps * (now - self.at))
        self.at = now
        return self.level_bits >= bits

    def take(self, bits: int) -> None:
        self.level_bits -= bits


def metadata(age_ms: int, hops: int) -> bytes:
    """004 table 3: a JSON object of at most METADATA_SIZE octets."""
    return b'{"age":%d,"hops":%d}' % (min(max(age_ms, 0), 2**32 - 1), min(max(hops, 0), 2**16 - 1))


# Room for any values, so that whether it suffices is known before key is touched (004 status 8 consumes none).
METADATA_SIZE = len(metadata(2**32, 2**16))
