"""The operations a session may ask for: one table from (namespace, name) to the function that does it.

A function gets a `Call`, runs in a worker thread, may block, and returns the content of its reply as XML text. What it
refuses it raises as RpcFailed. NACM's rule about executing an operation is asked before the function is called.
"""

from collections.abc import Collection

from qswitch.protocol.netconf import BASE, MONITORING, NMDA, NOTIFICATION, YANG, split_name

from ..errors import refused
from . import committing, configuration, events, locking, nmda, other, reading, sessions
from .call import Call, Operation

__all__ = ["OPERATIONS", "Call", "perform"]

OPERATIONS: dict[tuple[str, str], Operation] = {
    (BASE, "get"): reading.get,
    (BASE, "get-config"): reading.get_config,
    (MONITORING, "get-schema"): reading.get_schema,
    (BASE, "edit-config"): configuration.edit_config,
    (BASE, "copy-config"): configuration.copy_config,
    (BASE, "delete-config"): configuration.delete_config,
    (BASE, "validate"): configuration.validate,
    (BASE, "commit"): committing.commit,
    (BASE, "cancel-commit"): committing.cancel_commit,
    (BASE, "discard-changes"): committing.discard_changes,
    (BASE, "lock"): locking.lock,
    (BASE, "unlock"): locking.unlock,
    (BASE, "close-session"): sessions.close_session,
    (BASE, "kill-session"): sessions.kill_session,
    (NOTIFICATION, "create-subscription"): events.create_subscription,
    (NMDA, "get-data"): nmda.get_data,
    (NMDA, "edit-data"): nmda.edit_data,
    (YANG, "action"): other.action,
}


def perform(call: Call) -> bytes:
    """Does an operation. Raises RpcFailed."""
    namespace, name = split_name(call.operation)
    operation = OPERATIONS.get((namespace, name))
    if operation is None:
        return other.perform(call)
    module = call.user.schema.module_of(namespace)
    # Closing one's own session is always allowed (RFC 8341 clause 3.2.4).
    if module and operation is not sessions.close_session:
        call.user.may_execute(module, name)
    if (parameters := call.user.schema.operations_of(namespace).get(name)) is not None:
        _know(call, parameters)
    return operation(call)


def _know(call: Call, parameters: Collection[tuple[str, str]]) -> None:
    """Raises RpcFailed for a parameter that the operation does not have; `parameter` says which namespaces are as good."""
    for child in call.operation:
        namespace, name = split_name(child)
        module = call.user.schema.module_of(namespace)
        if not any(name == known and (namespace in ("", BASE) or module == owner) for owner, known in parameters):
            raise refused("unknown-element", f"there is no parameter '{name}'", ("bad-element", name))
