"""The one stream of events, as `/netconf/streams` describes it (RFC 5277 clause 3.2.5)."""

import os
from pathlib import Path
from typing import Any

from .datastore import Datastore
from .eventlog import EventLog
from .subscriptions import MODULE, rfc3339

STREAM = "NETCONF"


class Streams:
    """Provides the description while it exists; nothing where the module is not installed."""

    def __init__(self, datastore: Datastore) -> None:
        self._log = EventLog(Path(os.environ["SYSREPO_REPOSITORY_PATH"]))
        self._session = datastore.start_session()
        if datastore.schema.namespace_of(MODULE):
            self._session.subscribe_oper_data_request(MODULE, f"/{MODULE}:netconf/streams", self._provide)

    def stop(self) -> None:
        self._session.stop()

    def _provide(self, _xpath: str, _private: Any) -> dict[str, Any]:
        """On a thread of sysrepo."""
        created, aged = self._log.created_ns, self._log.aged_ns
        stream = {"name": STREAM, "description": "All events of this node.", "replaySupport": created is not None}
        times = {"replayLogCreationTime": created, "replayLogAgedTime": aged}
        stream |= {name: rfc3339(time) for name, time in times.items() if time is not None}
        return {"netconf": {"streams": {"stream": [stream]}}}
