"""Words of ETSI GS QKD 015 that both ends of the control interface use: ids, identities, quality of service.

The values of an enumeration are the names of the identities in `etsi-qkd-node-types`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

# UUIDs in canonical lower-case text form, so that they compare as strings; which of two ids is "lower" is string order.
NodeId = NewType("NodeId", str)
LinkId = NewType("LinkId", str)
KeyStreamId = NewType("KeyStreamId", str)  # the `app_id` of 015, the Key_stream_ID of 004
InterfaceId = NewType("InterfaceId", int)


MAX_DISJOINT_PATHS = 8
"""Of one link, and that an application may ask for."""


class NodeStatus(StrEnum):
    NEW = "NEW"
    OPERATING = "OPERATING"
    DOWN = "DOWN"
    FAILURE = "FAILURE"
    OUT = "OUT"


class LinkType(StrEnum):
    VIRTUAL = "VIRT"
    PHYSICAL = "PHYS"


class LinkStatus(StrEnum):
    """ACTIVE generates key; PASSIVE does not but has key stored; PENDING waits for activation; OFF has and makes none."""

    ACTIVE = "ACTIVE"
    PASSIVE = "PASSIVE"
    PENDING = "PENDING"
    OFF = "OFF"


class Role(StrEnum):
    TRANSMITTER = "TRANSMITTER"
    RECEIVER = "RECEIVER"
    TRANSCEIVER = "TRANSCEIVER"


class Technology(StrEnum):
    CV_QKD = "CV-QKD"
    DV_QKD = "DV-QKD"
    DV_QKD_COW = "DV-QKD-COW"
    DV_QKD_2WS = "DV-QKD-2Ws"


class InterfaceStatus(StrEnum):
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    FAILED = "FAILED"


class ApplicationType(StrEnum):
    CLIENT = "CLIENT"
    INTERNAL = "INTERNAL"


class ApplicationStatus(StrEnum):
    ON = "ON"
    DISCONNECTED = "DISCONNECTED"
    OUT_OF_TIME = "OUT-OF-TIME"
    ZOMBIE = "ZOMBIE"


class Admission(StrEnum):
    """The controller's answer to a registration (extension `admission`)."""

    ADMITTED = "admitted"
    KSID_IN_USE = "ksid-in-use"
    NO_CONNECTION = "no-connection"
    QOS_NOT_MET = "qos-not-met"


class Severity(StrEnum):
    MAJOR = "MAJOR"
    MINOR = "MINOR"


@dataclass(frozen=True, slots=True)
class Qos:
    """`app_qos` of 015, and (extension) what an application of 004 asked for that 015 lacks. None means unspecified."""

    max_bandwidth_bps: int | None = None
    min_bandwidth_bps: int | None = None
    jitter_ms: int | None = None
    ttl_seconds: int | None = None
    clients_shared_path: bool = False
    clients_shared_keys: bool = False
    jitter_bps: int | None = None
    timeout_ms: int | None = None


UNSPECIFIED = Qos()
