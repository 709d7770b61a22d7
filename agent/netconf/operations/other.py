"""Every operation the table does not list: refused, with the reason that RFC 6241 has for it."""

from qswitch.protocol.netconf import BASE, split_name

from ..errors import refused
from .call import Call


def perform(call: Call) -> bytes:
    namespace, name = split_name(call.operation)
    if namespace != BASE and not call.user.schema.module_of(namespace):
        where = ("bad-element", name), ("bad-namespace", namespace)
        raise refused("unknown-namespace", f"no module has the namespace of '{name}'", *where)
    raise refused("operation-not-supported", f"'{name}' is not offered", ("bad-element", name))
