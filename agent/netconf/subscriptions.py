"""Notifications of sysrepo for one NETCONF session (RFC 5277).

The callback runs on a thread of sysrepo, while the sender waits: it prints the event and hands the text on, nothing else.
Sysrepo applies NACM, since the subscription belongs to the user's session.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import libyang
import sysrepo
from _sysrepo import ffi, lib
from sysrepo.session import SysrepoSession

from . import errors
from .datastore import UserSession

log = logging.getLogger(__name__)

# While anybody subscribes to it, sysrepo computes netconf-config-change for every edit, which then takes many times as
# long. So it comes only to those whose filter names it.
_ON_DEMAND = frozenset({"ietf-netconf-notifications"})

Deliver = Callable[[str, bytes], None]  # RFC 3339 time, event as XML; called on a thread of sysrepo

_SIGNATURE = (
    "void(sr_session_ctx_t *, uint32_t, const sr_ev_notif_type_t, const struct lyd_node *, struct timespec *, void *)"
)


class Subscription:
    """All notifications of the repository, or those that an XPath selects something in."""

    def __init__(self, user: UserSession, xpath: str | None, deliver: Deliver) -> None:
        """Subscribes. Raises RpcFailed; nothing is left then."""
        self._user = user
        self._xpath = xpath
        self._deliver = deliver
        # Held here: sysrepo calls it until the subscription ends.
        self._callback = ffi.callback(_SIGNATURE, self._called, onerror=_failed)
        self._context = ffi.new("sr_subscription_ctx_t **")
        try:
            for module in self._modules():
                self._subscribe(module)
        except sysrepo.SysrepoError as error:
            failed = errors.from_sysrepo(error, user.session, user.schema.namespace_of)
            self.stop()
            raise failed from error

    def stop(self) -> None:
        """Ends it; once this returns, nothing is delivered any more."""
        if self._context[0]:
            lib.sr_unsubscribe(self._context[0])
            self._context[0] = ffi.NULL

    def _modules(self) -> tuple[str, ...]:
        """Of a filter that names modules, only those."""
        modules = self._user.schema.notifying
        named = tuple(name for name in modules if f"/{name}:" in (self._xpath or ""))
        return named or tuple(name for name in modules if name not in _ON_DEMAND)

    def _subscribe(self, module: str) -> None:
        session = self._user.session.cdata
        code = lib.sr_notif_subscribe_tree(
            session, module.encode(), ffi.NULL, ffi.NULL, ffi.NULL, self._callback, ffi.NULL, 0, self._context
        )
        if code != lib.SR_ERR_OK:
            raise sysrepo.SysrepoError.new(f"cannot subscribe to {module}", code)

    def _called(self, session: Any, _id: int, kind: int, event: Any, timestamp: Any, _private: Any) -> None:
        if kind not in (lib.SR_EV_NOTIF_REALTIME, lib.SR_EV_NOTIF_REPLAY) or not event:
            return
        with SysrepoSession(session, True).get_ly_ctx() as context:
            tree = libyang.DNode.new(context, event).root()
            if self._xpath is not None and not tree.eval_xpath(self._xpath):
                return
            text = tree.print_mem("xml", pretty=False)
        self._deliver(rfc3339(timestamp.tv_sec, timestamp.tv_nsec), text.encode())


def rfc3339(seconds: int, nanoseconds: int) -> str:
    """A time in UTC with microseconds."""
    time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _failed(_kind: Any, error: BaseException, _traceback: Any) -> None:
    """Nothing may be raised into C."""
    log.error("notification lost", exc_info=error)
