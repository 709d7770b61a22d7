"""Configuration as clients send it, made data trees. What is wrong with it is found here (RFC 7950 clause 8.3.1).

Libyang is told to be strict, since then it says what is wrong, and exactly where. Two things that a client may write are
too much for it: a leaf that is to be deleted without its value, and "1" for "true" in a tag of RFC 6243.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import libyang
from _libyang import ffi, lib
from lxml import etree

from qswitch.protocol.netconf import BASE, RpcError, RpcFailed, split_name

from . import errors
from .schema import Schema

_STRICT = lib.LYD_PARSE_STRICT | lib.LYD_PARSE_NO_STATE
_TAG = "{urn:ietf:params:xml:ns:netconf:default:1.0}default"
_YANG = b"urn:ietf:params:xml:ns:yang:1"
_TAG_VALUES = {"1": "true", "0": "false"}


def parse(context: libyang.Context, config: bytes, schema: Schema, *, complete: bool = False) -> libyang.DNode | None:
    """The tree of an edit, or of a whole configuration that is valid as it stands (`complete`). Raises RpcFailed.

    Whoever calls frees it.
    """
    flags = _STRICT if complete else _STRICT | lib.LYD_PARSE_ONLY
    try:
        tree = _parse(context, config, schema, flags)
    except RpcFailed as failed:
        plain, whole = _relieved(config)
        if plain is None:
            raise RpcFailed(*(_named(one, config) for one in failed.errors)) from failed
        _free(_parse(context, plain, schema, flags))
        return _parse(context, whole, schema, lib.LYD_PARSE_ONLY | lib.LYD_PARSE_OPAQ)
    try:
        _check(tree, config, schema)
    except RpcFailed:
        _free(tree)
        raise
    return tree


def _parse(context: libyang.Context, config: bytes, schema: Schema, flags: int) -> libyang.DNode | None:
    text, source, tree = ffi.new("char[]", config), ffi.new("struct ly_in **"), ffi.new("struct lyd_node **")
    lib.ly_in_new_memory(text, source)
    try:
        code = lib.lyd_parse_data(context.cdata, ffi.NULL, source[0], lib.LYD_XML, flags, lib.LYD_VALIDATE_NO_STATE, tree)
    finally:
        lib.ly_in_free(source[0], 0)
    if code != lib.LY_SUCCESS:
        raise errors.from_context(context, schema.namespace_of, schema.musts)
    return libyang.DNode.new(context, tree[0]) if tree[0] else None


def _free(tree: libyang.DNode | None) -> None:
    if tree is not None:
        tree.free()


def _relieved(config: bytes) -> tuple[bytes | None, bytes]:
    """A configuration without the two things, None when it has neither; and with the first alone."""
    root = etree.fromstring(b"<x>%b</x>" % config)
    tagged = [one for one in root.iter() if one.get(_TAG) in _TAG_VALUES]
    for one in tagged:
        one.set(_TAG, _TAG_VALUES[str(one.get(_TAG))])
    whole = _inside(root)
    bare = [one for one in root.iter() if one.get(f"{{{BASE}}}operation") in ("delete", "remove") and _is_empty(one)]
    for one in bare:
        parent = one.getparent()
        if parent is not None:
            parent.remove(one)
    return (_inside(root) if tagged or bare else None), whole


def _named(error: RpcError, config: bytes) -> RpcError:
    """With the name of the element that has an unknown namespace."""
    known = dict(error.info)
    if error.tag != "unknown-namespace" or "bad-element" in known:
        return error
    names = [split_name(one) for one in etree.fromstring(b"<x>%b</x>" % config).iter()]
    name = next((name for namespace, name in names if namespace == known.get("bad-namespace")), "")
    return replace(error, info=(*error.info, ("bad-element", name)))


def _is_empty(element: etree._Element) -> bool:
    return len(element) == 0 and not (element.text or "").strip()


def _inside(root: etree._Element) -> bytes:
    return b"".join(etree.tostring(one, with_tail=False) for one in root)


# What libyang does not look at ---------------------------------------------------------------------------------------


def _check(tree: libyang.DNode | None, config: bytes, schema: Schema) -> None:
    """Raises RpcFailed for tags on what is no default, for wrong places to insert, and for two cases of one choice."""
    tagged, inserting = _TAG[1:].split("}")[0].encode() in config, _YANG in config
    choosing = any(one.encode() in config for one in schema.choosing)
    if tree is None or not (tagged or inserting or choosing):
        return
    chosen: dict[Any, Any] = {}
    for node in _nodes(tree.first_sibling().cdata):
        if tagged and node.flags & lib.LYD_DEFAULT and _is_term(node) and not lib.lyd_is_default(node):
            raise _refused("invalid-value", "what is tagged as default is another value", node, schema)
        if inserting:
            _check_place(libyang.DNode.new(tree.context, node), schema)
        case = node.schema.parent if choosing and node.schema else ffi.NULL
        if case and case.nodetype == lib.LYS_CASE and chosen.setdefault((node.parent, case.parent), case) != case:
            raise _refused("bad-element", "data of two cases of one choice", node, schema)


def _check_place(node: libyang.DNode, schema: Schema) -> None:
    place = node.meta()
    if "insert" not in place:
        return
    ordered = getattr(node.schema(), "ordered", None)
    if ordered is None or not ordered():
        raise _refused("unknown-attribute", "its order is not the user's", node.cdata, schema, "insert")
    beside = "key" if isinstance(node.schema(), libyang.SList) else "value"
    if place["insert"] in ("before", "after") and beside not in place:
        raise _refused("missing-attribute", f"'{place['insert']}' needs '{beside}'", node.cdata, schema, beside)


def _nodes(node: Any) -> Iterator[Any]:
    """A tree's nodes, with the siblings of its first one."""
    while node:
        yield node
        if node.schema:
            yield from _nodes(lib.lyd_child(node))
        node = node.next


def _is_term(node: Any) -> bool:
    return bool(node.schema) and bool(node.schema.nodetype & (lib.LYS_LEAF | lib.LYS_LEAFLIST))


def _refused(tag: str, message: str, node: Any, schema: Schema, attribute: str = "") -> RpcFailed:
    return errors.at(tag, message, path_of(node), schema.namespace_of, attribute)


def path_of(node: Any) -> str:
    """Libyang's data path of a node."""
    text = lib.lyd_path(node, lib.LYD_PATH_STD, ffi.NULL, 0)
    try:
        return str(ffi.string(text).decode())
    finally:
        lib.free(text)


def located(failed: RpcFailed, tree: libyang.DNode, schema: Schema) -> RpcFailed:
    """The failure of an edit, with the path of the node that sysrepo only names, where the edit has one such node."""
    paths: dict[str, list[str]] = {}
    for node in _nodes(tree.first_sibling().cdata):
        path = path_of(node)
        paths.setdefault(errors.last_name(path), []).append(path)
    return errors.with_paths(
        failed, {name: found[0] for name, found in paths.items() if len(found) == 1}, schema.namespace_of
    )
