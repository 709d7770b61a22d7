"""What the server knows of the YANG modules in the repository: names, namespaces, capabilities, sources.

A value of its time: it is read at the start, and anew when modules have changed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import libyang
from libyang.schema import SNode, SNotif

from qswitch.protocol.netconf import BASE_1_0, BASE_1_1

from .superset import Names, Node

_CAPABILITY = "urn:ietf:params:netconf:capability:"
# Offered by operations/; each is tested there.
CAPABILITIES = (
    BASE_1_0,
    BASE_1_1,
    f"{_CAPABILITY}writable-running:1.0",
    f"{_CAPABILITY}candidate:1.0",
    f"{_CAPABILITY}confirmed-commit:1.1",
    f"{_CAPABILITY}rollback-on-error:1.0",
    f"{_CAPABILITY}validate:1.1",
    f"{_CAPABILITY}startup:1.0",
    f"{_CAPABILITY}xpath:1.0",
    f"{_CAPABILITY}notification:1.0",
    f"{_CAPABILITY}interleave:1.0",
    f"{_CAPABILITY}with-defaults:1.0?basic-mode=explicit&also-supported=report-all,report-all-tagged,trim",
    f"{_CAPABILITY}with-operational-defaults:1.0?basic-mode=report-all&also-supported=explicit,report-all-tagged,trim",
)

_INNER = (SNode.CONTAINER, SNode.LIST, SNode.NOTIF)
_LEAVES = (SNode.LEAF, SNode.LEAFLIST)
_DATA = (*_INNER, *_LEAVES, SNode.ANYDATA, SNode.ANYXML)


@dataclass(frozen=True, slots=True)
class Module:
    """One YANG module of the repository."""

    name: str
    revision: str
    namespace: str
    implemented: bool
    features: tuple[str, ...]
    notifications: bool  # whether it defines any
    operations: Mapping[str, frozenset[tuple[str, str]]]  # its RPCs, with module and name of each parameter


class Schema:
    """The modules of a libyang context, and what a hello says of them."""

    def __init__(self, context: libyang.Context, content_id: str) -> None:
        self.modules = tuple(_module(one) for one in context)
        self._by_name = {one.name: one for one in self.modules if one.implemented}
        self._by_namespace = {one.namespace: one.name for one in self.modules if one.implemented}
        top = [node for one in context if one.implemented() for node in one.children(types=_DATA)]
        namespaces = {one.name: one.namespace for one in self._by_name.values()}
        self.names = Names(self._by_namespace, namespaces, Node(_children(top)))
        self.musts = dict(words for node in top for one in node.iter_tree() for words in _musts(one))
        self.content_id = content_id
        self.capabilities = self._capabilities(content_id)

    def namespace_of(self, module: str) -> str:
        """Of an implemented module; "" when there is none."""
        found = self._by_name.get(module)
        return found.namespace if found else ""

    def module_of(self, namespace: str) -> str:
        """The implemented module of a namespace; "" when there is none."""
        return self._by_namespace.get(namespace, "")

    def operations_of(self, namespace: str) -> Mapping[str, frozenset[tuple[str, str]]]:
        """The RPCs of the implemented module that has the namespace: names, with module and name of each parameter."""
        module = self._by_name.get(self.module_of(namespace))
        return module.operations if module else {}

    @property
    def notifying(self) -> tuple[str, ...]:
        """Modules that define notifications."""
        return tuple(one.name for one in self._by_name.values() if one.notifications)

    def _capabilities(self, content_id: str) -> tuple[str, ...]:
        """What a hello lists: protocol, YANG library (RFC 8526) and modules (RFC 7950 clause 5.6.4)."""
        library = self._by_name.get("ietf-yang-library")
        revision = library.revision if library else ""
        yang_library = f"{_CAPABILITY}yang-library:1.1?revision={revision}&content-id={content_id}"
        return (*CAPABILITIES, *((yang_library,) if library else ()), *map(_capability, self._by_name.values()))


def _capability(module: Module) -> str:
    revision = f"&revision={module.revision}" if module.revision else ""
    features = f"&features={','.join(module.features)}" if module.features else ""
    return f"{module.namespace}?module={module.name}{revision}{features}"


def _module(module: libyang.Module) -> Module:
    implemented = module.implemented()
    nodes = list(module.children()) if implemented else []
    events = [node for node in nodes if isinstance(node, SNotif)]
    return Module(
        name=module.name(),
        revision=next((revision.date() for revision in module.revisions()), ""),
        namespace=libyang.util.c2str(module.cdata.ns),
        implemented=implemented,
        features=tuple(feature.name() for feature in module.features() if feature.state()),
        notifications=bool(events) or any(map(_notifies, nodes)),
        operations={node.name(): _parameters(node) for node in nodes if isinstance(node, libyang.SRpc)},
    )


def _parameters(operation: libyang.SRpc) -> frozenset[tuple[str, str]]:
    nodes = operation.input().children(types=_DATA) if operation.input() else ()
    return frozenset((one.module().name(), one.name()) for one in nodes)


def _children(nodes: Iterable[libyang.SNode], event: bool = False) -> dict[str, dict[str, Node]]:
    found: dict[str, dict[str, Node]] = {}
    for node in nodes:
        found.setdefault(node.name(), {})[node.module().name()] = _node(node, event or isinstance(node, SNotif))
    return found


def _node(node: libyang.SNode, event: bool) -> Node:
    """What filters need to know of a data node or notification."""
    kind = node.nodetype()
    if kind not in _INNER:
        return Node(leaf=kind in _LEAVES, opaque=kind not in _LEAVES, event=event)
    keys = frozenset(map(libyang.SNode.name, node.keys() if kind == SNode.LIST else ()))
    return Node(_children(node.children(types=_DATA), event), keys, event=event)


def _musts(node: SNode) -> Iterator[tuple[str, str]]:
    """What libyang says when a `must` is not satisfied that has words or an app-tag of its own, and the app-tag."""
    for must in node.musts():
        app_tag, words = libyang.util.c2str(must.cdata.eapptag), must.error_message()
        if app_tag or words:
            yield words or f'Must condition "{must.condition()}" not satisfied.', app_tag or "must-violation"


def _notifies(node: libyang.SNode) -> bool:
    """Whether a data node has a notification somewhere below."""
    if not isinstance(node, libyang.SContainer | libyang.SList):
        return False
    return any(isinstance(child, SNotif) or _notifies(child) for child in node.children())


def source(context: libyang.Context, name: str) -> str:
    """The YANG text of a module. Raises libyang.LibyangError when there is none."""
    text: str = context.get_module(name).print_mem("yang")
    return text
