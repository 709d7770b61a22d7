"""What holds of whatever a client sends as configuration: it becomes a data tree, or errors that can be sent."""

from collections.abc import Callable

import libyang
from filter_properties import CONTEXT, SCHEMA

from qswitch.agent.netconf import payload
from qswitch.agent.netconf.operations.call import children
from qswitch.protocol.netconf import Attributes, NetconfError, RpcFailed, build_error_reply, parse_reply, parse_xml


def check_edit(message: bytes) -> None:
    """Reads the children of a `config` element as an edit, and as a whole configuration."""
    try:
        config = children(parse_xml(message))
    except NetconfError:
        return
    _check(lambda: payload.parse_edit(CONTEXT, config, SCHEMA))
    _check(lambda: payload.parse_whole(CONTEXT, config, SCHEMA))


def _check(parse: Callable[[], libyang.DNode | None]) -> None:
    try:
        tree = parse()
    except RpcFailed as failed:
        sent = parse_reply(build_error_reply(Attributes(), failed.errors)).errors
        assert [one.tag for one in sent] == [one.tag for one in failed.errors]
        assert all(one.tag for one in sent)
        return
    if tree is not None:
        tree.free()
