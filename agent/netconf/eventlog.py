"""How much of what happened is kept for replay (RFC 5277 clause 3.3).

sysrepo keeps every event of the modules that yang.REPLAY lists, in files of at most 1 MiB whose names end with the times of
their first and last event, and drops none. Here the oldest files go, whichever engine serves.
"""

import asyncio
import logging
import os
import time
from collections import defaultdict
from pathlib import Path

from qswitch import yang

log = logging.getLogger(__name__)

KEPT_BYTES = 4 * 1024 * 1024  # of each module
KEPT_SECONDS = 30 * 24 * 3600
_EVERY_SECONDS = 3600.0


class EventLog:
    """The files of a repository that hold events."""

    def __init__(self, repository: Path) -> None:
        self._folder = repository / "data" / "notif"
        self._aged = repository / "replay-aged"  # its time is that of the last event that was dropped

    @property
    def created_ns(self) -> int | None:
        """Since when events are stored; None where they are not. Nanoseconds since 1970, as the next."""
        switched_on = [self._folder / f"{module}.replay" for module in yang.REPLAY]
        return min((file.stat().st_mtime_ns for file in switched_on if file.exists()), default=None)

    @property
    def aged_ns(self) -> int | None:
        """When the last event happened that was dropped; None while none was."""
        return self._aged.stat().st_mtime_ns if self._aged.exists() else None

    async def keep(self) -> None:
        """Drops what is too old or too much, now and every hour."""
        while True:
            try:
                await asyncio.to_thread(self.trim, time.time())
            except OSError as error:
                log.warning("stored events not dropped error=%s", error)
            await asyncio.sleep(_EVERY_SECONDS)

    def trim(self, now: float) -> None:
        """Drops the oldest files of each module; never the newest, which sysrepo may be writing."""
        modules: dict[str, list[tuple[int, Path]]] = defaultdict(list)
        for file in self._folder.glob("*.notif.*-*"):
            modules[file.name.partition(".notif.")[0]].append((int(file.name.rpartition("-")[2]), file))
        for files in modules.values():
            size = 0
            for number, (until, file) in enumerate(sorted(files, reverse=True)):
                size += file.stat().st_size
                if number and (size > KEPT_BYTES or until < now - KEPT_SECONDS):
                    self._drop(file, until)

    def _drop(self, file: Path, until: int) -> None:
        log.info("stored events dropped file=%s", file.name)
        file.unlink()
        if (self.aged_ns or 0) < until * 1_000_000_000:
            self._aged.touch()
            os.utime(self._aged, (until, until))
