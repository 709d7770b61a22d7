"""close-session and kill-session (RFC 6241 clauses 7.8 and 7.9)."""

from ..errors import refused
from .call import OK, Call, parameter, text

_KILL_SECONDS = 10.0


def close_session(call: Call) -> bytes:
    call.then = call.session.close
    return OK


def kill_session(call: Call) -> bytes:
    """Answers once the killed session has released its locks."""
    if parameter(call, "session-id") is None:
        raise refused("missing-element", "which session?", ("bad-element", "session-id"))
    wanted = text(call, "session-id", "")
    if not (wanted.isascii() and wanted.isdigit()) or int(wanted) == call.session.id:
        raise refused("invalid-value", f"session-id '{wanted}' is no other session", ("bad-element", "session-id"))
    try:
        found = call.server.kill(int(wanted), call.session.id, _KILL_SECONDS)
    except TimeoutError as error:
        raise refused("operation-failed", f"session {wanted} has not ended within {_KILL_SECONDS:g} s") from error
    if not found:
        raise refused("invalid-value", f"there is no session {wanted}", ("bad-element", "session-id"))
    return OK
