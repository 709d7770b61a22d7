"""The one stream of events (RFC 5277 clause 3.2.5), and how much of it is kept for replay.

sysrepo keeps every event of the modules that yang.REPLAY lists, in files of at most 1 MiB whose names end with the times of
their first and last event, and drops none. Here the oldest files go.
"""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qswitch import yang

from .subscriptions import MODULE, rfc3339

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger(__name__)

STREAM = "NETCONF"
KEPT_BYTES = 4 * 1024 * 1024  # of each module
KEPT_SECONDS = 30 * 24 * 3600
_EVERY_SECONDS = 3600.0
_NANO = 1_000_000_000


class Streams:
    """Provides `/netconf/streams` while it exists, and keeps the log within its bounds."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._log = Log(Path(os.environ["SYSREPO_REPOSITORY_PATH"]))
        self._session = server.datastore.start_session()
        if server.datastore.schema.namespace_of(MODULE):
            self._session.subscribe_oper_data_request(MODULE, f"/{MODULE}:netconf/streams", self._provide)

    def stop(self) -> None:
        self._session.stop()

    async def keep(self) -> None:
        """Drops what is too old, or too much, for ever."""
        while True:
            try:
                await self._server.call(self._log.trim, time.time())
            except OSError as error:
                log.warning("stored events not dropped error=%s", error)
            await asyncio.sleep(_EVERY_SECONDS)

    def _provide(self, _xpath: str, _private: Any) -> dict[str, Any]:
        """On a thread of sysrepo."""
        stream = {"name": STREAM, "description": "All events of this node.", **self._log.state()}
        return {"netconf": {"streams": {"stream": [stream]}}}


class Log:
    """The files of sysrepo that hold events."""

    def __init__(self, repository: Path) -> None:
        self._folder = repository / "data" / "notif"
        self._aged = repository / "replay-aged"  # its time is that of the last event that was dropped

    def trim(self, now: float) -> None:
        """Drops the oldest files of a module; never the newest, which sysrepo may be writing."""
        for module in yang.REPLAY:
            size = 0
            for number, (until, file) in enumerate(self._files(module)):
                size += file.stat().st_size
                if number and (size > KEPT_BYTES or until < now - KEPT_SECONDS):
                    file.unlink()
                    self._mark(until)
                    log.info("stored events dropped module=%s until=%d", module, until)

    def state(self) -> dict[str, Any]:
        """What RFC 5277 has a server say of its log."""
        switched_on = [self._folder / f"{module}.replay" for module in yang.REPLAY]
        made = [file.stat().st_mtime_ns for file in switched_on if file.exists()]
        if not made:
            return {"replaySupport": False}
        aged = {"replayLogAgedTime": rfc3339(self._aged.stat().st_mtime_ns)} if self._aged.exists() else {}
        return {"replaySupport": True, "replayLogCreationTime": rfc3339(min(made)), **aged}

    def _files(self, module: str) -> list[tuple[int, Path]]:
        """Time of the last event and file, newest first."""
        files = self._folder.glob(f"{module}.notif.*-*")
        return sorted(((int(file.name.rpartition("-")[2]), file) for file in files), reverse=True)

    def _mark(self, until: int) -> None:
        if not self._aged.exists() or self._aged.stat().st_mtime < until:
            self._aged.touch()
            os.utime(self._aged, (until, until))
