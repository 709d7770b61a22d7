"""Operations the table does not list: RPCs and actions of the modules go to whatever program of the node serves them."""

from libyang.util import DataType
from lxml import etree

from qswitch.protocol.netconf import BASE, split_name

from ..errors import refused
from .call import OK, Call, children


def perform(call: Call) -> bytes:
    """Executes an RPC. NACM is sysrepo's to ask. Raises RpcFailed."""
    namespace, name = split_name(call.operation)
    if namespace != BASE and not call.user.schema.module_of(namespace):
        where = ("bad-element", name), ("bad-namespace", namespace)
        raise refused("unknown-namespace", f"no module has the namespace of '{name}'", *where)
    if namespace == BASE or name not in call.user.schema.operations_of(namespace):
        raise refused("operation-not-supported", f"'{name}' is not offered", ("bad-element", name))
    return call.user.execute(etree.tostring(call.operation, encoding="UTF-8", with_tail=False), DataType.RPC_YANG) or OK


def action(call: Call) -> bytes:
    """`action` of YANG 1.1 (RFC 7950 clause 7.15.2): holds the path to one action."""
    if len(call.operation) != 1:
        raise refused("missing-element", "an action holds the path to one action node", ("bad-element", "action"))
    return call.user.execute(children(call.operation), DataType.RPC_YANG) or OK
