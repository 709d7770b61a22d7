"""What every operation gets, and how its parameters are read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lxml import etree

from qswitch.protocol.netconf import BASE, NMDA, split_name

from ..datastore import WITH_DEFAULTS, UserSession
from ..errors import refused
from ..filters import Filter, parse

if TYPE_CHECKING:
    from ..server import Server
    from ..session import Session

OK = b"<ok/>"
DATASTORES = ("running", "candidate", "startup")
_WITH_DEFAULTS = "urn:ietf:params:xml:ns:yang:ietf-netconf-with-defaults"
_IDENTITIES = "urn:ietf:params:xml:ns:yang:ietf-datastores"


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

    ncclient lets its users forget the namespace of `config` and `filter`, and has the base one for a subscription's filter:
    both are as good.
    """
    wanted = (f"{{{namespace or split_name(call.operation)[0]}}}{name}", name, f"{{{BASE}}}{name}")
    return next((found for one in wanted if (found := call.operation.find(one)) is not None), None)


def text(call: Call, name: str, default: str, allowed: tuple[str, ...] = (), namespace: str = "") -> str:
    """A parameter's text. Raises RpcFailed when it is none of the allowed ones."""
    element = parameter(call, name, namespace)
    value = default if element is None else (element.text or "").strip()
    if allowed and value not in allowed:
        raise refused("invalid-value", f"{name} '{value}' is none of {', '.join(allowed)}", ("bad-element", name))
    return value


def number(call: Call, name: str, default: int, least: int, most: int) -> int:
    """A parameter that is a number. Raises RpcFailed when it is none, or out of range."""
    value = text(call, name, str(default))
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        raise refused("invalid-value", f"{name} '{value}' is no number from {least} to {most}", ("bad-element", name))
    return int(value)


def place(call: Call, name: str) -> etree._Element:
    """What stands in `source` or `target`. Raises RpcFailed when nothing does."""
    element = parameter(call, name)
    inside = [] if element is None else list(element)
    if not inside:
        raise refused("missing-element", f"'{name}' must name a datastore", ("bad-element", name))
    if len(inside) > 1:
        raise refused("bad-element", f"'{name}' must name one datastore", ("bad-element", split_name(inside[1])[1]))
    return inside[0]


def datastore(call: Call, name: str, allowed: tuple[str, ...] = DATASTORES) -> str:
    """The datastore in `source` or `target`, by name or (RFC 8526 clause 3.2) by identity.

    Raises RpcFailed for one that is not offered there.
    """
    element = place(call, name)
    if split_name(element) == (NMDA, "datastore"):
        return identified(element, allowed)
    namespace, found = split_name(element)
    if namespace != BASE or found not in allowed:
        raise refused("operation-not-supported", f"'{found}' cannot be the {name} here", ("bad-element", found))
    return found


def identified(element: etree._Element | None, allowed: tuple[str, ...]) -> str:
    """The datastore that an identity names. Raises RpcFailed when it is none that is allowed."""
    if element is None:
        raise refused("missing-element", "a datastore must be named", ("bad-element", "datastore"))
    prefix, _, found = (element.text or "").strip().rpartition(":")
    if element.nsmap.get(prefix or None, prefix) not in (_IDENTITIES, "ietf-datastores") or found not in allowed:
        raise refused("invalid-value", f"'{element.text}' is no datastore to do this on", ("bad-element", "datastore"))
    return found


def selection(call: Call) -> Filter:
    """What `filter` selects; without one, everything."""
    element = parameter(call, "filter")
    return Filter.everything() if element is None else parse(element, call.user.names)


def with_defaults(call: Call) -> str:
    """The mode of RFC 6243 that is asked for, else the basic one. Raises RpcFailed."""
    return text(call, "with-defaults", "explicit", tuple(WITH_DEFAULTS), _WITH_DEFAULTS)


def children(element: Iterable[etree._Element]) -> bytes:
    """The children of a `config` element as XML text with every prefix in scope declared."""
    return b"".join(etree.tostring(child, encoding="UTF-8", with_tail=False) for child in element)


def configuration(call: Call) -> etree._Element:
    """The `config` of an edit. Raises RpcFailed when there is none."""
    config = parameter(call, "config")
    if config is None:
        if parameter(call, "url") is not None:
            raise refused("operation-not-supported", "configuration cannot be fetched from a url", ("bad-element", "url"))
        raise refused("missing-element", "an edit needs a config", ("bad-element", "config"))
    know(call, config)
    return config


def know(call: Call, config: etree._Element) -> None:
    """Raises RpcFailed for data of no module: libyang would take them for opaque."""
    for child in config:
        namespace, name = split_name(child)
        element, module = ("bad-element", name), call.user.schema.module_of(namespace)
        if not module:
            where = element, ("bad-namespace", namespace)
            raise refused("unknown-namespace", f"no module has the namespace '{namespace}' of '{name}'", *where)
        if module not in call.user.names.modules_with(name):
            raise refused("unknown-element", f"module {module} has no '{name}' at the top", element)
