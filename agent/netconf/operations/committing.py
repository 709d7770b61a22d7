"""commit, cancel-commit and discard-changes (RFC 6241 clauses 8.3 and 8.4)."""

from ..confirmed import Request
from ..errors import refused
from .call import OK, Call, number, parameter, text

_LONGEST = 2**32 - 1


def commit(call: Call) -> bytes:
    for name in "running", "candidate":
        _free(call, name)
    request = Request(
        confirmed=parameter(call, "confirmed") is not None,
        timeout_seconds=number(call, "confirm-timeout", 600, 1, _LONGEST),
        persist=_given(call, "persist"),
        persist_id=_given(call, "persist-id"),
    )
    if request.persist is not None and not request.confirmed:
        raise refused("invalid-value", "persist goes with confirmed", ("bad-element", "persist"))
    call.server.confirmed.commit(call.session, call.user, request)
    return OK


def cancel_commit(call: Call) -> bytes:
    _free(call, "running")
    call.server.confirmed.cancel(call.session, _given(call, "persist-id"))
    return OK


def discard_changes(call: Call) -> bytes:
    _free(call, "candidate")
    call.user.discard()
    return OK


def _given(call: Call, name: str) -> str | None:
    return None if parameter(call, name) is None else text(call, name, "")


def _free(call: Call, name: str) -> None:
    """Raises RpcFailed while another session has a datastore locked."""
    holder, _ = call.server.locks.held().get(name, (call.session.id, None))
    if holder != call.session.id:
        raise refused("in-use", f"'{name}' is locked by session {holder}")
