"""What the server announces of itself: the base notifications of RFC 6470, and that of the YANG library (RFC 8525).

All but netconf-config-change, which sysrepo makes of every change while somebody is there to hear it. They go through
sysrepo, so that subscribers of every engine and access control treat them like the node's own. One thread sends them one
after the other; whoever announces something never waits, and what finds the queue full is lost.
"""

import contextlib
import ipaddress
import json
import logging
import queue
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import libyang
import sysrepo

from .datastore import Datastore

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger(__name__)

MODULE = "ietf-netconf-notifications"
_WAITING = 1000
_SEND_MS = 2_000
_STOP_SECONDS = 5.0

Data = dict[str, Any]


class Announcements:
    """What happens may be told from any thread; that returns at once and never raises."""

    def __init__(self, datastore: Datastore) -> None:
        """Starts the sender."""
        self._session = datastore.start_session()
        self._queue: queue.Queue[Data | None] = queue.Queue(_WAITING)
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="announcements", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sends what waits, within reason: a sender that is stuck ends with the process. Blocks."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_STOP_SECONDS)
            self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive():
            self._session.stop()

    def session_started(self, session: "Session") -> None:
        self._announce("netconf-session-start", _who(session))

    def session_ended(self, session: "Session", reason: str, killed_by: int | None = None) -> None:
        """The reason is a termination-reason; only who was killed by a session was killed by somebody."""
        by = {"killed-by": killed_by} if reason == "killed" and killed_by else {}
        self._announce("netconf-session-end", {**_who(session), **by, "termination-reason": reason})

    def confirmed_commit(self, event: str, session: "Session | None", timeout: int | None = None) -> None:
        """The event is a confirm-event; who caused it is said unless nobody did: `timeout`."""
        who = _who(session) if session is not None and event != "timeout" else {}
        seconds = {"timeout": timeout} if timeout is not None and event in ("start", "extend") else {}
        self._announce("netconf-confirmed-commit", {**who, "confirm-event": event, **seconds})

    def capability_change(self, old: Iterable[str], new: Iterable[str], session: "Session | None" = None) -> None:
        """What a hello listed and what it lists from now on; silent when that is the same."""
        before, after = set(old), set(new)
        gone = {_base(one) for one in before - after}
        come = {_base(one) for one in after - before}
        changes = {
            "added-capability": sorted(one for one in after - before if _base(one) not in gone),
            "deleted-capability": sorted(one for one in before - after if _base(one) not in come),
            "modified-capability": sorted(one for one in after - before if _base(one) in gone),
        }
        by: Data = {"server": [None]} if session is None else _who(session)
        if before != after:
            present = {name: value for name, value in changes.items() if value}
            self._announce("netconf-capability-change", {"changed-by": by, **present})

    def library_update(self, content_id: str) -> None:
        """The modules are others than before (RFC 8525 clause 4)."""
        self._announce("yang-library-update", {"content-id": content_id}, "ietf-yang-library")

    def _announce(self, name: str, body: Data, module: str = MODULE) -> None:
        try:
            self._queue.put_nowait({f"{module}:{name}": body})
        except queue.Full:
            self._lost += 1
            log.error("announcement lost name=%s lost=%d", name, self._lost)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            try:
                self._send(json.dumps(data))
            except (sysrepo.SysrepoError, libyang.LibyangError) as error:
                log.warning("announcement not sent name=%s error=%s", next(iter(data)), error)

    def _send(self, text: str) -> None:
        with self._session.get_ly_ctx() as context:
            tree = context.parse_op_mem("json", text, dtype=libyang.util.DataType.NOTIF_YANG)
            try:
                self._session.notification_send_ly(tree, timeout_ms=_SEND_MS)
            finally:
                tree.free()


def _who(session: "Session") -> Data:
    """common-session-parms; the host only when it is known by an address."""
    who: Data = {"username": session.user, "session-id": session.id}
    try:
        ipaddress.ip_address(session.host)
    except ValueError:
        return who
    return {**who, "source-host": session.host}


def _base(capability: str) -> str:
    return capability.partition("?")[0]
