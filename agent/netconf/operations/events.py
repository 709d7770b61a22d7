"""create-subscription (RFC 5277 clause 2.1.1): the stream NETCONF, with replay, beside other operations (clause 6)."""

import re
import time
from datetime import datetime

from qswitch.protocol.netconf import RpcFailed

from ..errors import refused
from ..filters import parse
from ..streams import STREAM
from ..subscriptions import Period, Subscription
from .call import OK, Call, parameter, text

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


def create_subscription(call: Call) -> bytes:
    session = call.session
    if session.subscription is not None:
        raise refused("operation-failed", "this session has a subscription already")  # the tag of clause 6.5
    if (stream := text(call, "stream", STREAM)) != STREAM:
        raise refused("invalid-value", f"there is no stream '{stream}'", ("bad-element", "stream"))
    element = parameter(call, "filter")
    wanted = None if element is None else parse(element, call.user.names)
    session.subscription = Subscription(call.server, session, wanted, _period(call))
    call.then = session.subscription.start
    return OK


def _period(call: Call) -> Period:
    start, stop = _time(call, "startTime"), _time(call, "stopTime")
    if start is None and stop is not None:
        raise refused("missing-element", "a stopTime needs a startTime", ("bad-element", "startTime"))
    if start is not None and start > time.time_ns():
        raise _bad("startTime", "lies in the future")
    if start is not None and stop is not None and stop <= start:
        raise _bad("stopTime", "does not come after startTime")
    return start, stop


def _time(call: Call, name: str) -> int | None:
    """A time of RFC 3339; those before 1970 are as good as its first moment."""
    if parameter(call, name) is None:
        return None
    value = text(call, name, "")
    if (match := _TIME.fullmatch(value)) is None:
        raise _bad(name, f"'{value}' is no time of RFC 3339")
    try:
        seconds = int(datetime.fromisoformat(match[1] + match[3]).timestamp())
    except ValueError as error:
        raise _bad(name, f"'{value}' is no time: {error}") from error
    return max(seconds * 1_000_000_000 + int((match[2] or "")[:9].ljust(9, "0")), 1)


def _bad(name: str, what: str) -> RpcFailed:
    return refused("bad-element", f"{name} {what}", ("bad-element", name))
