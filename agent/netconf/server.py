"""What the sessions of the server share: who may have one, locks, the pool of threads, and one another.

The loop carries bytes; whatever touches sysrepo runs in a pool of threads.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from ..config import RECOVERY_USER
from .announcements import Announcements
from .confirmed import ConfirmedCommit
from .datastore import Datastore
from .filters import Filter, evaluators, subscribers
from .monitoring import Monitoring
from .session import COUNTED, Session, Stream
from .streams import Streams
from .subscriptions import Feeds

log = logging.getLogger(__name__)

_MAX_REQUEST = 8 << 20  # octets; what a session may make the server hold before it has said anything that counts
_THREADS = 32
_LOOK_SECONDS = 1.0  # how exact the idle time-out is


@dataclass(frozen=True, slots=True)
class Limits:
    """What sessions are held to; 0 seconds of idleness mean no limit."""

    sessions: int = 500
    sessions_of_user: int = 250
    idle_seconds: float = 0
    hello_seconds: float = 30


class Server:
    """All sessions of the process."""

    def __init__(self, datastore: Datastore, max_message: int = _MAX_REQUEST) -> None:
        self.datastore = datastore
        self.max_message = max_message
        self.limits = Limits()
        self.started = datetime.now(UTC)
        self.sessions: dict[int, Session] = {}
        self.locks = Locks()
        self.counts = Counts()
        self.confirmed = ConfirmedCommit(self)
        self.feeds = Feeds(datastore)
        self._pool = ThreadPoolExecutor(_THREADS, "netconf")
        # Of its own: an operation may wait in the pool for another session's end.
        self._releasing = ThreadPoolExecutor(2, "netconf-release")
        # What a subscriber's filter costs is for its author to decide.
        self._filtering = {costly: ThreadPoolExecutor(4, "netconf-filter") for costly in (False, True)}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._stops: list[Callable[[], None]] = []  # of what has been started, in order
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Undoes what an earlier process has left unconfirmed, and provides what is to be known of this one."""
        self.announcements = await self.call(Announcements, self.datastore)
        self._stops.append(self.announcements.stop)
        await self.call(self.confirmed.recover)
        self._stops.append((await self.call(Streams, self.datastore)).stop)
        self._stops.append((await self.call(Monitoring, self)).stop)
        self._stops.append(self.confirmed.stop)
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Ends all sessions; a commit that nobody confirmed is undone."""
        if self._looking is not None:
            self._looking.cancel()
        for session in list(self.sessions.values()):
            session.end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        for stop in reversed(self._stops):
            await self.call(stop)
        for one in evaluators, subscribers:
            one.stop()
        for pool in self._pool, self._releasing, *self._filtering.values():
            pool.shutdown(wait=False, cancel_futures=True)

    async def call[**P, T](self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a blocking function in a thread."""
        return await self._loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def turn(self, user: str) -> asyncio.Semaphore:
        """What a user's operations hold while they run: nobody has more than half of the threads."""
        return self._turns.setdefault(user, asyncio.Semaphore(_THREADS // 2))

    async def release[**P, T](self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for the end of a session, which never waits for operations of others."""
        return await self._loop.run_in_executor(self._releasing, lambda: function(*args, **kwargs))

    async def evaluate[*A, T](self, function: Callable[[Filter, *A], T], wanted: Filter, *args: *A) -> T:
        """The same for what a filter selects: beside the operations, and the costly ones beside the others."""
        return await self._loop.run_in_executor(self._filtering[wanted.costly], lambda: function(wanted, *args))

    def on_loop(self, function: Callable[..., object], *args: object) -> None:
        """Runs a function on the loop, from any thread; after the end of the loop, nothing."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def refusal(self, user: str) -> str | None:
        """Why no session of this user is taken now; None when it is."""
        if user == RECOVERY_USER:  # whatever the datastore says: it would be above all access control
            return f"'{user}' is no user of a node"
        of_user = sum(session.user == user for session in self.sessions.values())
        if len(self.sessions) >= self.limits.sessions or of_user >= self.limits.sessions_of_user:
            return "too many sessions are open"
        return None

    async def serve(self, stream: Stream) -> str:
        """Runs one session to its end, and says why it ended. Who calls it has asked `refusal`."""
        session = Session(self, self.counts.next_session(), stream)
        self.sessions[session.id] = session
        task = asyncio.create_task(session.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait([task])
        return session.reason

    def kill(self, session_id: int, by: int, wait: float) -> bool:
        """Ends another session and waits until its locks are free; False when there is none. From a worker thread."""
        session = self.sessions.get(session_id)
        if session is None:
            return False

        async def end() -> None:
            session.end("killed", f"killed by session {by}", by)
            await asyncio.wait_for(session.ended.wait(), wait)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        return True

    async def forget(self, session: Session) -> None:
        """A session is over and has released what it held of the datastores."""
        await self.release(self.confirmed.session_over, session)
        self.locks.release(session.id)
        self.sessions.pop(session.id, None)
        self.counts.add(session)

    def modules_changed(self) -> None:
        """Modules were installed, removed or changed: what is offered from now on, and that it changed. On the loop."""
        task = asyncio.create_task(self._read_modules())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_modules(self) -> None:
        before = self.datastore.schema
        await self.call(self.datastore.refresh)
        after = self.datastore.schema
        if after.content_id != before.content_id:
            log.info("modules changed content-id=%s", after.content_id)
            self.announcements.capability_change(before.capabilities, after.capabilities)
            self.announcements.library_update(after.content_id)

    async def _look(self) -> None:
        """Ends sessions that have been silent for too long."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._loop.time()
            for session in list(self.sessions.values()):
                most = self.limits.idle_seconds if session.idle_seconds is None else session.idle_seconds
                if 0 < most < session.idle(now):
                    session.end("timeout", f"silent for {most:g} s")


class Counts:
    """The statistics of the whole server (RFC 6022 clause 2.1.5)."""

    def __init__(self) -> None:
        self.in_sessions = self.in_bad_hellos = self.dropped_sessions = 0
        self._ended = dict.fromkeys(COUNTED, 0)

    def next_session(self) -> int:
        """The number of one more session, which is its id."""
        self.in_sessions += 1
        return self.in_sessions

    def add(self, session: Session) -> None:
        """A session has ended."""
        self.in_bad_hellos += session.reason == "bad-hello"
        self.dropped_sessions += session.reason not in ("closed", "killed", "bad-hello")
        for name in COUNTED:
            self._ended[name] += getattr(session, name)

    def total(self, name: str, sessions: list[Session]) -> int:
        """A count over the sessions that have ended and those that have not."""
        return self._ended[name] + sum(int(getattr(one, name)) for one in sessions)


class Locks:
    """Which session holds which datastore, so that `lock-denied` can name it. For any thread."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, datetime]] = {}
        self._mutex = threading.Lock()

    def take(self, datastore: str, session_id: int) -> int | None:
        """Takes a lock; else the id of the session that has it."""
        with self._mutex:
            held = self._held.get(datastore)
            if held is not None:
                return held[0]
            self._held[datastore] = (session_id, datetime.now(UTC))
            return None

    def give(self, datastore: str, session_id: int) -> bool:
        """Gives a lock back; False when the session does not hold it."""
        with self._mutex:
            held = self._held.get(datastore)
            if held is None or held[0] != session_id:
                return False
            del self._held[datastore]
            return True

    def release(self, session_id: int) -> None:
        """Gives back all a session holds."""
        with self._mutex:
            self._held = {name: held for name, held in self._held.items() if held[0] != session_id}

    def held(self) -> dict[str, tuple[int, datetime]]:
        """Datastore -> holder and time."""
        with self._mutex:
            return dict(self._held)
