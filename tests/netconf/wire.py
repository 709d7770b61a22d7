"""Operations and data as the suite writes them, and what it compares.

Data of module `conformance` are written without namespaces: `<values><word>a</word></values>`; `c` puts the prefixes in.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from lxml import etree
from netconf_front import Client

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE, RpcError

C = "urn:quantum-switch:test:conformance"
DEFAULTS = "urn:ietf:params:xml:ns:yang:ietf-netconf-with-defaults"
TAGGED = "urn:ietf:params:xml:ns:netconf:default:1.0"
MONITORING = "urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"
CAPABILITY = "urn:ietf:params:netconf:capability:"
PREFIXES = f'xmlns:c="{C}" xmlns:nc="{BASE}" xmlns:yang="urn:ietf:params:xml:ns:yang:1" xmlns:wd="{TAGGED}"'
TOPS = ("values", "interfaces", "order", "rules", "top", "server", "state")
# What their lists hold is in the user's order; all other siblings may come in any.
_ORDERED = {"rule", "step"}

# What fixture `behind` is: a command of conformance_side.py and its argument.
Behind = Callable[..., None]
Tree = tuple[str, str, tuple["Tree", ...]]


def c(xml: str) -> str:
    """Data of module `conformance`, with prefixes c, nc (operation), yang (insert) and wd (default) bound."""
    root = etree.fromstring(f'<x xmlns="{C}" {PREFIXES}>{xml}</x>')
    return "".join(etree.tostring(one, encoding="unicode", with_tail=False) for one in root)


def edit(xml: str, options: str = "", target: str = "running") -> str:
    return f"<edit-config><target><{target}/></target>{options}<config>{c(xml)}</config></edit-config>"


def get_config(source: str = "running", inside: str = "") -> str:
    return f"<get-config><source><{source}/></source>{inside}</get-config>"


def copy(source: str, target: str, inside: str = "") -> str:
    """`source`: a datastore's name, or a `config` element."""
    element = source if source.startswith("<") else f"<{source}/>"
    return f"<copy-config><target><{target}/></target><source>{element}</source>{inside}</copy-config>"


def delete_config(target: str) -> str:
    return f"<delete-config><target><{target}/></target></delete-config>"


def validate(source: str) -> str:
    element = source if source.startswith("<") else f"<{source}/>"
    return f"<validate><source>{element}</source></validate>"


def lock(target: str = "running") -> str:
    return f"<lock><target><{target}/></target></lock>"


def unlock(target: str = "running") -> str:
    return f"<unlock><target><{target}/></target></unlock>"


def subtree(xml: str) -> str:
    """A subtree filter on data of module `conformance`."""
    return f"<filter>{c(xml)}</filter>"


def xpath(select: str) -> str:
    """An XPath filter, prefix c bound."""
    return f'<filter type="xpath" xmlns:c="{C}" select="{select}"/>'


def mode(name: str) -> str:
    return f'<with-defaults xmlns="{DEFAULTS}">{name}</with-defaults>'


OURS = subtree("".join(f"<{one}/>" for one in TOPS))


# What is there -------------------------------------------------------------------------------------------------------


def tree(element: etree._Element) -> Tree:
    """Name, text and children of an element, children in an order of their own unless the user orders them."""
    children = sorted(
        (tree(one) for one in element), key=lambda one: (one[0], () if one[0] in _ORDERED else (one[1], one[2]))
    )
    return etree.QName(element).localname, (element.text or "").strip(), tuple(children)


def trees(elements: Sequence[etree._Element]) -> tuple[Tree, ...]:
    """Siblings, as `tree` has them."""
    root = etree.Element("x")
    root.extend(etree.fromstring(etree.tostring(one)) for one in elements)
    return tree(root)[2]


def data(content: Sequence[etree._Element]) -> list[etree._Element]:
    """What stands in the one `data` element of a reply, of module `conformance`."""
    assert [one.tag for one in content] == [f"{{{BASE}}}data"]
    return [one for one in content[0] if etree.QName(one).namespace == C]


def expected(xml: str) -> tuple[Tree, ...]:
    return trees(list(etree.fromstring(f'<x xmlns="{C}" {PREFIXES}>{xml}</x>')))


def shows(content: Sequence[etree._Element], xml: str) -> None:
    """Asserts what a reply holds of module `conformance`."""
    assert trees(data(content)) == expected(xml), "".join(etree.tostring(one, encoding="unicode") for one in content)


async def holds(client: Client, xml: str, datastore: str = "running") -> None:
    """Asserts what a datastore holds of module `conformance`."""
    shows(await client.ok(get_config(datastore, OURS)), xml)


async def becomes(client: Client, xml: str, datastore: str = "running", seconds: float = 10) -> None:
    """Asserts what a datastore holds before long."""
    deadline = time.monotonic() + seconds
    while True:
        found = data(await client.ok(get_config(datastore, OURS)))
        if trees(found) == expected(xml):
            return
        assert time.monotonic() < deadline, "".join(etree.tostring(one, encoding="unicode") for one in found)
        await asyncio.sleep(0.02)


async def stays(client: Client, xml: str, seconds: float) -> None:
    """Asserts what a datastore holds all the time: for what must not happen later."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await holds(client, xml)
        await asyncio.sleep(0.05)


async def succeeds(client: Client, operation: str, seconds: float = 10) -> None:
    """Asks until the answer is yes: for what another session's end sets free."""
    deadline = time.monotonic() + seconds
    while (reply := await client.rpc(operation)).errors:
        assert time.monotonic() < deadline, reply.errors
        await asyncio.sleep(0.02)


# Bytes ---------------------------------------------------------------------------------------------------------------


async def element(client: Client) -> etree._Element:
    """The next message of the server."""
    return etree.fromstring(await client.receive())


async def ask(client: Client, message: str) -> etree._Element:
    """Sends a whole message and waits for the next one of the server."""
    client.send(message.encode())
    return await element(client)


def session_id(client: Client) -> int:
    assert client.hello is not None
    assert client.hello.session_id is not None
    return client.hello.session_id


def capabilities(client: Client) -> tuple[str, ...]:
    assert client.hello is not None
    return client.hello.capabilities


def offers(client: Client, name: str) -> bool:
    """Whether the hello lists a capability, such as "candidate:1.0"."""
    return any(one.partition("?")[0] == CAPABILITY + name for one in capabilities(client))


async def is_over(client: Client) -> None:
    """Asserts that the server ends the session, whatever it says before."""
    try:
        while True:
            await client.receive()
    except (EOFError, ConnectionError, netconf.FramingError):
        return


# Errors (RFC 6241 appendix A): tag -> types it may have, and what its error-info must hold -----------------------------

_ANY = ("transport", "rpc", "protocol", "application")
_HIGH = ("protocol", "application")
_ATTRIBUTE = ("rpc", "protocol", "application")
_BOTH = ("bad-attribute", "bad-element")

APPENDIX_A: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "in-use": (_HIGH, ()),
    "invalid-value": (_HIGH, ()),
    "too-big": (_ANY, ()),
    "missing-attribute": (_ATTRIBUTE, _BOTH),
    "bad-attribute": (_ATTRIBUTE, _BOTH),
    "unknown-attribute": (_ATTRIBUTE, _BOTH),
    "missing-element": (_HIGH, ("bad-element",)),
    "bad-element": (_HIGH, ("bad-element",)),
    "unknown-element": (_HIGH, ("bad-element",)),
    "unknown-namespace": (_HIGH, ("bad-element", "bad-namespace")),
    "access-denied": (_HIGH, ()),
    "lock-denied": (("protocol",), ("session-id",)),
    "resource-denied": (_ANY, ()),
    "rollback-failed": (_HIGH, ()),
    "data-exists": (("application",), ()),
    "data-missing": (("application",), ()),
    "operation-not-supported": (_HIGH, ()),
    "operation-failed": (_ATTRIBUTE, ()),
    "malformed-message": (("rpc",), ()),
}


def by_the_book(error: RpcError) -> RpcError:
    """The error, after a look at what appendix A says of its tag."""
    types, info = APPENDIX_A[error.tag]
    assert error.severity == "error"
    assert error.type in types, error
    assert {name for name, _ in error.info} >= set(info), error
    return error


async def refused(client: Client, operation: str, *tags: str) -> RpcError:
    """The error of an operation that has one of the tags (any when none is given); all are as appendix A says."""
    reply = await client.rpc(operation)
    assert reply.errors, reply
    errors = [by_the_book(one) for one in reply.errors]
    found = next((one for one in errors if not tags or one.tag in tags), None)
    assert found is not None, errors
    return found
