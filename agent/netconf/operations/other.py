"""Every other operation: RPCs of YANG modules, which whoever subscribed to them in sysrepo serves."""

from lxml import etree

from qswitch.protocol.netconf import BASE, split_name

from ..errors import refused
from .call import OK, Call


def perform(call: Call) -> bytes:
    namespace, name = split_name(call.operation)
    if namespace == BASE:
        raise refused("operation-not-supported", f"'{name}' is not offered", ("bad-element", name))
    if not call.user.schema.module_of(namespace):
        where = ("bad-element", name), ("bad-namespace", namespace)
        raise refused("unknown-namespace", f"no module has the namespace of '{name}'", *where)
    return call.user.execute(etree.tostring(call.operation)) or OK
