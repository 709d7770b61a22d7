"""Does to a repository what a node's agent would, for tests: one JSON command per line in, one answer per line out.

A process of its own, since sysrepo takes the repository from the environment once per process.
"""

import json
import sys
from typing import Any

import libyang
import sysrepo


def apply(connection: sysrepo.SysrepoConnection, xml: str) -> None:
    """Writes configuration to running."""
    with connection.start_session() as session, session.get_ly_ctx() as context:
        tree = context.parse_data_mem(xml, "xml", strict=True, parse_only=True)
        try:
            session.edit_batch_ly(tree)
            session.apply_changes()
        finally:
            tree.free()


def notify(connection: sysrepo.SysrepoConnection, xml: str) -> None:
    """Sends a notification, and waits until every subscriber has it: the next one comes after it, whatever its module."""
    with connection.start_session() as session, session.get_ly_ctx() as context:
        tree = context.parse_op_mem("xml", xml, dtype=libyang.util.DataType.NOTIF_YANG)
        try:
            session.notification_send_ly(tree, wait=True)
        finally:
            tree.free()


def _nothing(_event: str, _id: int, _changes: Any, _private: Any) -> None: ...


class Side:
    """What lasts from one command to the next."""

    def __init__(self) -> None:
        self.connection = sysrepo.SysrepoConnection()
        self.session = self.connection.start_session()

    def do(self, command: str, argument: str) -> None:
        match command:
            case "apply":
                apply(self.connection, argument)
            case "notify":
                notify(self.connection, argument)
            case "lock":
                self.session.lock()
            case "unlock":
                self.session.unlock()
            case "follow":
                self.session.subscribe_module_change("etsi-qkd-sdn-node", None, _nothing, done_only=True)
            case "refuse":
                self.refuse(argument)

    def refuse(self, text: str) -> None:
        """From now on no change of a link is accepted, for the given reason."""

        def refuse(event: str, _id: int, _changes: Any, _private: Any) -> None:
            if event == "change":
                raise sysrepo.SysrepoValidationFailedError(text)

        links = "/etsi-qkd-sdn-node:qkd_node/qkd_links/qkd_link"
        self.session.subscribe_module_change("etsi-qkd-sdn-node", links, refuse)


def main(side: Side) -> None:
    for line in sys.stdin:
        command, argument = json.loads(line)
        try:
            side.do(command, argument)
        except (sysrepo.SysrepoError, libyang.LibyangError) as error:
            print(json.dumps(str(error)), flush=True)
        else:
            print("null", flush=True)
    side.session.stop()
    side.connection.disconnect()


if __name__ == "__main__":
    main(Side())
