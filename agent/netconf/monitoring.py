"""The server about itself: ietf-netconf-monitoring (RFC 6022), and that its own configuration is in effect.

Monitoring data are made whenever someone reads them. Configuration counts as in effect, and so is part of the operational
datastore that `get` reads, only while someone has subscribed to its changes.
"""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger(__name__)

_MODULE = "ietf-netconf-monitoring"
_CONFIGURATION = ("ietf-netconf-server", "ietf-keystore")


def _changed(_event: str, _id: int, _changes: Any, _private: Any) -> None:
    """Users are read at every log-in, the rest when the server starts: nothing to do."""


class Monitoring:
    """Provides `/netconf-state` while it exists; nothing where the module is not installed."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._session = server.datastore.start_session()
        schema = server.datastore.schema
        for module in filter(schema.namespace_of, _CONFIGURATION):
            self._session.subscribe_module_change(module, None, _changed, done_only=True)
        if schema.namespace_of(_MODULE):
            self._session.subscribe_oper_data_request(_MODULE, f"/{_MODULE}:netconf-state", self._provide)

    def stop(self) -> None:
        self._session.stop()

    def _provide(self, _xpath: str, _private: Any) -> dict[str, Any]:
        """On a thread of sysrepo: reads values, asks nobody."""
        server = self._server
        return {
            "netconf-state": {
                "capabilities": {"capability": list(server.datastore.capabilities)},
                "datastores": {"datastore": [self._datastore(name) for name in ("running", "startup")]},
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
                "transport": "netconf-ssh",
                "username": one.user,
                "source-host": one.host,
                "login-time": one.login_time.isoformat(timespec="seconds"),
                "in-rpcs": one.in_rpcs,
                "in-bad-rpcs": one.in_bad_rpcs,
                "out-rpc-errors": one.out_rpc_errors,
                "out-notifications": one.out_notifications,
            }
            for one in list(self._server.sessions.values())
        ]

    def _statistics(self) -> dict[str, Any]:
        started = self._server.started.isoformat(timespec="seconds")
        return {"netconf-start-time": started, "in-sessions": self._server.in_sessions}
