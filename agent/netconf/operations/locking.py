"""lock and unlock (RFC 6241 clauses 7.5 and 7.6). A lock ends with its session at the latest."""

from ..errors import refused
from .call import OK, Call, datastore


def lock(call: Call) -> bytes:
    target = datastore(call, "target")
    if target == "running" and (other := call.server.confirmed.held_by_other(call.session)) is not None:
        raise refused("lock-denied", f"session {other} has a commit to confirm", ("session-id", str(other)))
    holder = call.server.locks.take(target, call.session.id)
    if holder is not None:
        raise refused("lock-denied", f"'{target}' is locked by session {holder}", ("session-id", str(holder)))
    locked = False
    try:
        locked = call.user.lock(target)
    finally:
        if not locked:
            call.server.locks.give(target, call.session.id)
    if not locked:
        # 0 stands for a holder that is no NETCONF session; sysrepo also refuses a candidate that has been changed.
        reason = "has been changed, or is locked by" if target == "candidate" else "is locked by"
        raise refused("lock-denied", f"'{target}' {reason} another program of the node", ("session-id", "0"))
    return OK


def unlock(call: Call) -> bytes:
    target = datastore(call, "target")
    if not call.server.locks.give(target, call.session.id):
        raise refused("operation-failed", f"this session holds no lock on '{target}'")
    call.user.unlock(target)
    return OK
