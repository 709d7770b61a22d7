"""What every operation gets, and how its parameters are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lxml import etree

from qswitch.protocol.netconf import BASE, split_name

from ..datastore import UserSession
from ..errors import refused

if TYPE_CHECKING:
    from ..server import Server
    from ..session import Session

OK = b"<ok/>"
DATASTORES = ("running", "startup")


@dataclass(slots=True)
class Call:
    """One operation of one session."""

    server: "Server"
    session: "Session"
    user: UserSession
    operation: etree._Element
    then: Callable[[], None] | None = None  # done on the loop after the reply


Operation = Callable[[Call], bytes]


def parameter(call: Call, name: str, namespace: str = "") -> etree._Element | None:
    """A child of the operation, in its namespace unless told otherwise.

    ncclient lets its users forget the namespace of `config` and `filter`, so none is as good.
    """
    found = call.operation.find(f"{{{namespace or split_name(call.operation)[0]}}}{name}")
    return call.operation.find(name) if found is None else found


def text(call: Call, name: str, default: str, allowed: tuple[str, ...] = (), namespace: str = "") -> str:
    """A parameter's text. Raises RpcFailed when it is none of the allowed ones."""
    element = parameter(call, name, namespace)
    value = default if element is None else (element.text or "").strip()
    if allowed and value not in allowed:
        raise refused("invalid-value", f"{name} '{value}' is none of {', '.join(allowed)}", ("bad-element", name))
    return value


def place(call: Call, name: str) -> etree._Element:
    """What stands in `source` or `target`. Raises RpcFailed when nothing does."""
    element = parameter(call, name)
    inside = [] if element is None else list(element)
    if len(inside) != 1:
        raise refused("missing-element", f"'{name}' must name one datastore", ("bad-element", name))
    return inside[0]


def datastore(call: Call, name: str, allowed: tuple[str, ...] = DATASTORES) -> str:
    """The datastore in `source` or `target`. Raises RpcFailed for one that is not offered there."""
    namespace, found = split_name(place(call, name))
    if namespace != BASE or found not in allowed:
        raise refused("operation-not-supported", f"'{found}' cannot be the {name} here", ("bad-element", found))
    return found


def children(element: etree._Element) -> bytes:
    """The children of a `config` element as XML text with every prefix in scope declared."""
    return b"".join(etree.tostring(child, with_tail=False) for child in element)
