"""Configuration as clients send it, made data trees. What is wrong with it is found here (RFC 7950 clause 8.3.1).

Libyang is told to be strict, since then it says what is wrong, and exactly where. Two things that a client may write are
too much for it: a leaf that is to be deleted without its value, and "1" for "true" in a tag of RFC 6243.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import libyang
from _libyang import ffi, lib
from libyang.data import data_type
from lxml import etree

from qswitch.protocol.netconf import BASE, RpcError, RpcFailed, split_name

from . import errors
from .schema import Schema

_STRICT = lib.LYD_PARSE_STRICT | lib.LYD_PARSE_NO_STATE
_DEFAULT = "urn:ietf:params:xml:ns:netconf:default:1.0"
_TAG_VALUES = {"1": "true", "0": "false"}


def parse_edit(context: libyang.Context, config: bytes, schema: Schema) -> libyang.DNode | None:
    """The tree of an edit, which whoever calls frees. Raises RpcFailed."""
    try:
        tree = _parse(context, config, schema, _STRICT | lib.LYD_PARSE_ONLY)
    except RpcFailed as failed:
        tagged = _plainly_tagged(config)
        plain = _without_bare_leafs(context, tagged, schema)
        if plain == config:
            raise failed
        tree = _parse(context, plain, schema, _STRICT | lib.LYD_PARSE_ONLY)
        if plain != tagged:
            _free(_checked(tree, schema))
            return _parse(context, tagged, schema, lib.LYD_PARSE_ONLY | lib.LYD_PARSE_OPAQ)
    return _checked(tree, schema)


def parse_whole(context: libyang.Context, config: bytes, schema: Schema, *, valid: bool = False) -> libyang.DNode | None:
    """The tree of a whole configuration, which whoever calls frees. Raises RpcFailed, `valid`: if it is none in itself."""
    tree = _parse(context, _plainly_tagged(config), schema, _STRICT if valid else _STRICT | lib.LYD_PARSE_ONLY)
    return _checked(tree, schema, whole=True)


def parse_operation(
    context: libyang.Context, operation: bytes, kind: libyang.util.DataType, schema: Schema
) -> libyang.DNode:
    """An RPC or action, in a tree whose root whoever calls frees. Raises RpcFailed."""
    tree, found = ffi.new("struct lyd_node **"), ffi.new("struct lyd_node **")
    with _source(operation) as source:
        how = lib.LYD_XML, data_type(kind), lib.LYD_PARSE_STRICT
        if lib.lyd_parse_op(context.cdata, ffi.NULL, source, *how, tree, found) != lib.LY_SUCCESS:
            lib.lyd_free_all(tree[0])
            raise _failed(context, operation, schema)
    return libyang.DNode.new(context, found[0])


def _parse(context: libyang.Context, config: bytes, schema: Schema, flags: int) -> libyang.DNode | None:
    tree = ffi.new("struct lyd_node **")
    with _source(config) as source:
        how = lib.LYD_XML, flags, lib.LYD_VALIDATE_NO_STATE
        if lib.lyd_parse_data(context.cdata, ffi.NULL, source, *how, tree) != lib.LY_SUCCESS:
            raise _failed(context, config, schema)
    return libyang.DNode.new(context, tree[0]) if tree[0] else None


@contextlib.contextmanager
def _source(text: bytes) -> Iterator[Any]:
    held, source = ffi.new("char[]", text), ffi.new("struct ly_in **")
    lib.ly_in_new_memory(held, source)
    try:
        yield source[0]
    finally:
        lib.ly_in_free(source[0], 0)


def _free(tree: libyang.DNode | None) -> None:
    if tree is not None:
        tree.free()


def _failed(context: libyang.Context, text: bytes, schema: Schema) -> RpcFailed:
    failed = errors.from_context(context, schema.namespace_of, schema.musts)
    return RpcFailed(*(_named(one, text) for one in failed.errors))


def _named(error: RpcError, text: bytes) -> RpcError:
    """With the name of the element that has an unknown namespace."""
    known = dict(error.info)
    if error.tag != "unknown-namespace" or "bad-element" in known:
        return error
    names = [split_name(one) for one in _elements(text).iter()]
    name = next((name for namespace, name in names if namespace == known.get("bad-namespace")), "")
    return replace(error, info=(*error.info, ("bad-element", name)))


# The two things ------------------------------------------------------------------------------------------------------


def _elements(text: bytes) -> etree._Element:
    return etree.fromstring(b"<x>%b</x>" % text)


def _inside(root: etree._Element) -> bytes:
    return b"".join(etree.tostring(one, encoding="UTF-8", with_tail=False) for one in root)


def _plainly_tagged(config: bytes) -> bytes:
    """With "true" and "false" in tags."""
    if _DEFAULT.encode() not in config:
        return config
    root = _elements(config)
    for one in root.iter():
        if value := _TAG_VALUES.get(one.get(f"{{{_DEFAULT}}}default") or ""):
            one.set(f"{{{_DEFAULT}}}default", value)
    return _inside(root)


def _without_bare_leafs(context: libyang.Context, config: bytes, schema: Schema) -> bytes:
    """Without leafs that are to be deleted and have no value."""
    root = _elements(config)
    leafs: dict[str, bool] = {}
    bare = [one for one in root.iter() if one.get(f"{{{BASE}}}operation") in ("delete", "remove") and _is_empty(one)]
    found = False
    for one in bare:
        names = [split_name(above) for above in (one, *one.iterancestors())][-2::-1]
        path = "".join(f"/{schema.module_of(namespace)}:{name}" for namespace, name in names)
        if path not in leafs:
            leafs[path] = _may_be_bare(context, path)
        parent = one.getparent()
        if leafs[path] and parent is not None:
            parent.remove(one)
            found = True
    return _inside(root) if found else config


def _is_empty(element: etree._Element) -> bool:
    return len(element) == 0 and not (element.text or "").strip()


def _may_be_bare(context: libyang.Context, path: str) -> bool:
    """Whether one node of the schema is named without a key or value."""
    # The binding's own search loses memory when nothing is found, and a client may name what is not there without end.
    found = ffi.new("struct ly_set **")
    if lib.lys_find_xpath(context.cdata, ffi.NULL, path.encode(), 0, found) != lib.LY_SUCCESS:
        return False
    try:
        kinds = [found[0].snodes[i].nodetype for i in range(found[0].count)]
    finally:
        lib.ly_set_free(found[0], ffi.NULL)
    return bool(kinds) and not any(kind & (lib.LYS_LIST | lib.LYS_LEAFLIST) for kind in kinds)


# What libyang does not look at ---------------------------------------------------------------------------------------


def _checked(tree: libyang.DNode | None, schema: Schema, *, whole: bool = False) -> libyang.DNode | None:
    """The tree. Frees it and raises RpcFailed when it has what no configuration has."""
    if tree is None:
        return None
    try:
        for message, tag, node, attribute in _wrong(tree, whole=whole):
            raise errors.at(tag, message, path_of(node), schema.namespace_of, attribute)
    except RpcFailed:
        tree.free()
        raise
    return tree


def _wrong(tree: libyang.DNode, *, whole: bool) -> Iterator[tuple[str, str, Any, str]]:
    """What is wrong, by which error-tag, where, and with which attribute."""
    seen: dict[Any, Any] = {}  # parent and leaf; parent and choice -> case
    for node in nodes(tree):
        if not (here := node.schema):
            continue  # in anydata
        if node.meta:
            yield from _wrong_attributes(libyang.DNode.new(tree.context, node), whole=whole)
        if (
            here.nodetype & (lib.LYS_LEAF | lib.LYS_LEAFLIST)
            and node.flags & lib.LYD_DEFAULT
            and not lib.lyd_is_default(node)
        ):
            yield "what is tagged as default is another value", "invalid-value", node, ""
        if here.nodetype == lib.LYS_LEAF and seen.setdefault((node.parent, here), node) != node:
            yield "a leaf stands twice", "bad-element", node, ""
        case = here.parent
        if case and case.nodetype == lib.LYS_CASE and seen.setdefault((node.parent, case.parent), case) != case:
            yield "data of two cases of one choice", "bad-element", node, ""


def _wrong_attributes(node: libyang.DNode, *, whole: bool) -> Iterator[tuple[str, str, Any, str]]:
    place, here = node.meta(), node.schema()
    for name in ("operation", "insert") if whole else ():
        if name in place:
            yield "a whole configuration is no edit", "unknown-attribute", node.cdata, name
    if "insert" not in place:
        return
    if not isinstance(here, libyang.SList | libyang.SLeafList) or not here.ordered():
        yield "its order is not the user's", "unknown-attribute", node.cdata, "insert"
    beside = "key" if isinstance(here, libyang.SList) else "value"
    if place["insert"] in ("before", "after") and beside not in place:
        yield f"'{place['insert']}' needs '{beside}'", "missing-attribute", node.cdata, beside


def nodes(tree: libyang.DNode) -> Iterator[Any]:
    """A tree's nodes, with the siblings of its first one."""
    return _below(tree.first_sibling().cdata)


def _below(node: Any) -> Iterator[Any]:
    while node:
        yield node
        yield from _below(lib.lyd_child(node)) if node.schema else ()
        node = node.next


def path_of(node: Any) -> str:
    """Libyang's data path of a node."""
    text = lib.lyd_path(node, lib.LYD_PATH_STD, ffi.NULL, 0)
    if text == ffi.NULL:  # no literal of XPath holds a value with both kinds of quotes
        above = path_of(ffi.cast("struct lyd_node *", node.parent)) if node.parent else ""
        return f"{above}/{libyang.util.c2str(node.schema.module.name)}:{libyang.util.c2str(node.schema.name)}"
    try:
        return str(ffi.string(text).decode())
    finally:
        lib.free(text)


def located(failed: RpcFailed, tree: libyang.DNode, schema: Schema, there: Callable[[str], Collection[str]]) -> RpcFailed:
    """The failure of an edit, with the path of the node that sysrepo only names.

    `there`: of an XPath, the paths of the instances that the datastore has.
    """
    return RpcFailed(*(_located(one, tree, schema, there) for one in failed.errors))


def _located(error: RpcError, tree: libyang.DNode, schema: Schema, there: Callable[[str], Collection[str]]) -> RpcError:
    name = errors.named_node(error)
    if not name:
        return error
    how = {"data-exists": "create", "data-missing": "delete"}.get(error.tag, "")
    named = [one for one in _operations(tree.context, tree.first_sibling().cdata, "") if errors.last_name(one[0]) == name]
    paths = [path for path, operation in named if operation == how] or [path for path, _ in named]
    if len(paths) > 1 and how:
        instances = there(" | ".join(dict.fromkeys(map(errors.without_predicates, paths))))
        paths = [path for path in paths if (path in instances) == (how == "create")]
    return errors.with_path(error, paths[0], schema.namespace_of) if paths else error


def _operations(context: libyang.Context, node: Any, above: str) -> Iterator[tuple[str, str]]:
    """Path and operation of a tree's nodes, in their order; only a deletion is not in the schema's terms."""
    while node:
        own = libyang.DNode.new(context, node).meta().get("operation") if node.schema and node.meta else None
        operation = own or above or ("" if node.schema else "delete")
        yield path_of(node), operation
        yield from _operations(context, lib.lyd_child(node), operation) if node.schema else ()
        node = node.next
