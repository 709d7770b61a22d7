"""create-subscription (RFC 5277 clause 2.1.1): the stream NETCONF, from now on.

Events are not stored for replay: after a gap a client reads what is so.
"""

from ..errors import refused
from ..filters import to_xpath
from ..subscriptions import Subscription
from .call import OK, Call, parameter, text


def create_subscription(call: Call) -> bytes:
    if call.session.subscription is not None:
        raise refused("in-use", "this session has a subscription already")
    if (stream := text(call, "stream", "NETCONF")) != "NETCONF":
        raise refused("invalid-value", f"there is no stream '{stream}'", ("bad-element", "stream"))
    for name in "startTime", "stopTime":
        if parameter(call, name) is not None:
            raise refused("operation-not-supported", "events are not stored: no replay", ("bad-element", name))
    element = parameter(call, "filter")
    xpath = None if element is None else to_xpath(element, call.user.names)
    if element is not None and xpath is None:
        raise refused("invalid-value", "the filter can select no event", ("bad-element", "filter"))
    server, session = call.server, call.session
    session.subscription = Subscription(call.user, xpath, lambda time, event: server.on_loop(session.notify, time, event))
    return OK
