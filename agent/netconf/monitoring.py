"""The server about itself: ietf-netconf-monitoring (RFC 6022), made whenever someone reads it, and what it notices."""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .operations.call import DATASTORES
from .session import COUNTED

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger(__name__)

_MODULE = "ietf-netconf-monitoring"
_CHANGES = "sysrepo-notifications"


class Monitoring:
    """Provides `/netconf-state` while it exists; nothing where the module is not installed."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._session = server.datastore.start_session()
        schema = server.datastore.schema
        if schema.namespace_of(_MODULE):
            self._session.subscribe_oper_data_request(_MODULE, f"/{_MODULE}:netconf-state", self._provide)
        self._session.subscribe_notification(_CHANGES, None, self._modules_changed)

    def stop(self) -> None:
        self._session.stop()

    def _modules_changed(self, _xpath: str, _kind: str, _event: Any, _time: int, _private: Any) -> None:
        """On a thread of sysrepo."""
        self._server.on_loop(self._server.modules_changed)

    def _provide(self, _xpath: str, _private: Any) -> dict[str, Any]:
        """On a thread of sysrepo: reads values, asks nobody."""
        server = self._server
        return {
            "netconf-state": {
                "capabilities": {"capability": list(server.datastore.schema.capabilities)},
                "datastores": {"datastore": [self._datastore(name) for name in DATASTORES]},
                "schemas": {"schema": self._schemas()},
                "sessions": {"session": self._sessions()},
                "statistics": self._statistics(),
            }
        }

    def _datastore(self, name: str) -> dict[str, Any]:
        held = self._server.locks.held().get(name)
        if held is None:
            return {"name": name}
        lock = {"locked-by-session": held[0], "locked-time": held[1].isoformat(timespec="seconds")}
        return {"name": name, "locks": {"global-lock": lock}}

    def _schemas(self) -> list[dict[str, Any]]:
        return [
            {
                "identifier": one.name,
                "version": one.revision,
                "format": "yang",
                "namespace": one.namespace,
                "location": ["NETCONF"],
            }
            for one in self._server.datastore.schema.modules
        ]

    def _sessions(self) -> list[dict[str, Any]]:
        return [
            {
                "session-id": one.id,
                "transport": one.transport,
                "username": one.user,
                "source-host": one.host,
                "login-time": one.login_time.isoformat(timespec="seconds"),
                **_counts(partial(getattr, one)),
            }
            for one in list(self._server.sessions.values())
        ]

    def _statistics(self) -> dict[str, Any]:
        server = self._server
        sessions = list(server.sessions.values())
        return {
            "netconf-start-time": server.started.isoformat(timespec="seconds"),
            "in-sessions": server.counts.in_sessions,
            "in-bad-hellos": server.counts.in_bad_hellos,
            "dropped-sessions": server.counts.dropped_sessions,
            **_counts(lambda name: server.counts.total(name, sessions)),
        }


def _counts(count: Callable[[str], int]) -> dict[str, int]:
    return {name.replace("_", "-"): count(name) for name in COUNTED}
