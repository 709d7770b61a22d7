"""The events of sysrepo for one NETCONF session (RFC 5277): stored ones where a start is given, then those that happen.

sysrepo's threads call back while the sender waits: they print the event and put it down, nothing else. A task on the loop
takes it from there, asks the filter in a worker thread, and hands it to the session. sysrepo applies NACM to live and to
stored events alike, since the subscriptions belong to the user's session.
"""

import asyncio
import contextlib
import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import libyang
import sysrepo
from _sysrepo import ffi, lib

from qswitch.protocol.netconf import RpcFailed

from . import errors
from .datastore import Datastore, UserSession
from .filters import Filter
from .schema import Schema

if TYPE_CHECKING:
    from .server import Server
    from .session import Session

log = logging.getLogger(__name__)

MODULE = "nc-notifications"
_OWN = "ietf-netconf-notifications"
_NAMESPACE = "urn:ietf:params:xml:ns:netmod:notification"
_REPLAY_COMPLETE = f'<replayComplete xmlns="{_NAMESPACE}"/>'.encode()
_NOTIFICATION_COMPLETE = f'<notificationComplete xmlns="{_NAMESPACE}"/>'.encode()

# A sender takes the time of an event, then stores and sends it: after this long it has.
_SENT_SECONDS = 0.05
# Of events that wait for a client which takes the replay slowly.
_MOST_WAITING_BYTES = 16 * 1024 * 1024
_NANO = 1_000_000_000
# Each takes a thread of sysrepo, whose locks have room for some dozens of them.
_MOST_REPLAYING, _REPLAY_WAIT_SECONDS = 8, 5.0
_replaying = threading.BoundedSemaphore(_MOST_REPLAYING)
_asking = threading.BoundedSemaphore(2 * _MOST_REPLAYING)  # who waits holds a thread of the operations
_AT_ONCE = 20  # events, before others have their turn
_LONGEST_WAIT_SECONDS = 3600.0  # the clock may be set meanwhile
# Where a filter starts, if every one of its paths starts with a module.
_PATH_STARTS = re.compile(r"(?:^|\|)\s*/([\w.-]+):")

_SIGNATURE = (
    "void(sr_session_ctx_t *, uint32_t, const sr_ev_notif_type_t, const struct lyd_node *, struct timespec *, void *)"
)


Period = tuple[int | None, int | None]  # start and stop, nanoseconds since 1970


class Event(NamedTuple):
    """Nanoseconds since 1970, and the content of a notification as XML."""

    time: int
    text: bytes
    module: str


class Subscription:
    """What one create-subscription asked for, until its stop time or the end of the session."""

    def __init__(self, server: "Server", session: "Session", wanted: Filter | None, period: Period) -> None:
        """Subscribes; blocks. Raises RpcFailed; nothing is left then.

        Live events come first, so that no event falls between those and the stored ones; what is both is sent once. No stop
        time is told to sysrepo: where it ends a subscription by itself while somebody sends, both wait 10 s for each other.
        """
        self._server, self._session, self._wanted = server, session, wanted
        start, self._stop = period
        self._events: deque[Event] = deque()  # live, put down by a thread of sysrepo
        self._put = self._taken = 0  # octets: each has one thread that writes it
        self._stored: list[Event] = []
        self._wake, self._replayed = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log: _Source | None = None
        self._replay = start is not None
        self._since = self._until = time.time_ns()
        self._modules = _modules(server.datastore.schema, wanted)
        self._unfinished = len(self._modules)
        try:
            if self._stop is None or self._stop > self._since:
                server.feeds.join(session.user, self)
            if start is not None:
                self._until = min(self._stop or time.time_ns(), time.time_ns())
                time.sleep(_SENT_SECONDS)
                self._log = _Source(server.datastore, session.user, self._modules, self._was_stored, self.missed, start)
        except BaseException:
            self.stop()
            raise

    @property
    def modules(self) -> frozenset[str]:
        """Whose events may be wanted."""
        return self._modules

    def start(self) -> None:
        """Begins to send. On the loop, after the reply."""
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Ends it; once this returns, nothing is delivered any more. Blocks."""
        if self._task is not None:
            self._server.on_loop(self._task.cancel)
        self._release()

    def _release(self) -> None:
        self._server.feeds.leave(self)
        if self._log is not None:
            self._log.stop()

    # On threads of sysrepo

    def happened(self, event: Event) -> None:
        """A live event of any module."""
        if event.module in self._modules:
            self._events.append(event)
            self._put += len(event.text)
            if self._put - self._taken > _MOST_WAITING_BYTES:
                self._server.on_loop(self._session.end, "dropped", "the client does not read")
            self._server.on_loop(self._wake.set)

    def _was_stored(self, kind: int, event: Event) -> None:
        if kind == lib.SR_EV_NOTIF_REPLAY:
            self._stored.append(event)
        elif kind == lib.SR_EV_NOTIF_REPLAY_COMPLETE:
            self._unfinished -= 1
            if not self._unfinished:
                self._server.on_loop(self._replayed.set)

    def missed(self, error: BaseException) -> None:
        """Better no session than one that misses events and does not know."""
        log.error("an event cannot be read session=%d", self._session.id, exc_info=error)
        self._server.on_loop(self._session.end, "other", "an event cannot be read")

    # On the loop

    async def _run(self) -> None:
        try:
            seen = await self._send_stored() if self._replay else set()
            while (left := self._seconds_left()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), min(left, _LONGEST_WAIT_SECONDS))
                self._wake.clear()
                await self._send([event for event in self._take() if event not in seen])
            await self._server.call(self._release)
            await self._send([event for event in self._take() if event not in seen])
            self._tell(_NOTIFICATION_COMPLETE)
            self._session.unsubscribed()
        except RpcFailed as failed:
            self._session.end("other", f"its filter cannot be evaluated: {failed}")
        except Exception:
            log.exception("subscription failed session=%d", self._session.id)
            self._session.end("other", "its subscription failed")

    def _seconds_left(self) -> float:
        """Until the last event has come that is older than the stop time."""
        return math.inf if self._stop is None else (self._stop - time.time_ns()) / _NANO + _SENT_SECONDS

    async def _send_stored(self) -> set[Event]:
        """Sends the log up to `until`, in order of time; those of its events that may come live, too."""
        await self._replayed.wait()
        assert self._log is not None
        await self._server.call(self._log.stop)
        stored, self._stored = [event for event in self._stored if event.time < self._until], []
        seen = {event for event in stored if event.time >= self._since}
        # Some modules store nothing: what they told while the log was read has its place in it.
        early = [event for event in self._take() if event not in seen]
        stored += [event for event in early if event.time < self._until]
        await self._send(sorted(stored, key=lambda event: event.time), at_its_pace=True)
        self._tell(_REPLAY_COMPLETE)
        await self._send([event for event in early if event.time >= self._until])
        return seen

    def _take(self) -> list[Event]:
        events = [self._events.popleft() for _ in range(len(self._events))]
        self._taken += sum(len(event.text) for event in events)
        return [event for event in events if self._stop is None or event.time < self._stop]

    async def _send(self, events: list[Event], at_its_pace: bool = False) -> None:
        for first in range(0, len(events), _AT_ONCE):
            some = events[first : first + _AT_ONCE]
            if self._wanted is not None:
                some = await self._server.evaluate(_matching, self._wanted, some)
            for event in some:
                if at_its_pace:
                    await self._session.room()
                self._session.notify(rfc3339(event.time), event.text)
            await asyncio.sleep(0)

    def _tell(self, text: bytes) -> None:
        self._session.notify(rfc3339(time.time_ns()), text)


class Feeds:
    """Live events for all subscriptions: of one user's one source, since sysrepo serves but so many at once."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._mutex = threading.Lock()
        self._feeds: dict[tuple[str, bool, str], _Feed] = {}

    def join(self, user: str, one: Subscription) -> None:
        """From now on it hears all that happens. Blocks; raises RpcFailed."""
        schema = self._datastore.schema
        own = _OWN in one.modules  # while anybody hears these, sysrepo computes what every edit changes
        key = user, own, schema.content_id
        with self._mutex:
            feed = self._feeds.get(key)
            if feed is None:
                modules = frozenset(name for name in schema.notifying if name != MODULE and (own or name != _OWN))
                feed = self._feeds[key] = _Feed()
                try:
                    feed.source = _Source(self._datastore, user, modules, feed.happened, feed.missed)
                except BaseException:
                    del self._feeds[key]
                    raise
            feed.subscriptions |= {one}

    def leave(self, one: Subscription) -> None:
        """It hears nothing that happens from now on. Blocks."""
        with self._mutex:
            for key, feed in list(self._feeds.items()):
                feed.subscriptions -= {one}
                if not feed.subscriptions and feed.source is not None:
                    del self._feeds[key]
                    feed.source.stop()


class _Feed:
    """A source, and who hears it; the set is replaced, never changed, so that sysrepo's thread needs no lock."""

    def __init__(self) -> None:
        self.source: _Source | None = None
        self.subscriptions: frozenset[Subscription] = frozenset()

    def happened(self, kind: int, event: Event) -> None:
        if kind == lib.SR_EV_NOTIF_REALTIME:
            for one in self.subscriptions:
                one.happened(event)

    def missed(self, error: BaseException) -> None:
        for one in self.subscriptions:
            one.missed(error)


class _Source:
    """Subscriptions to several modules with the rights of a user; sysrepo calls for all of them on one thread."""

    def __init__(
        self,
        datastore: Datastore,
        user: str,
        modules: Collection[str],
        take: Callable[[int, Event], None],
        lost: Callable[[BaseException], None],
        start: int | None = None,
    ) -> None:
        """Subscribes; from a start on, also to what is stored. Raises RpcFailed; nothing is left then."""
        self._take, self._lost = take, lost
        self._mutex = threading.Lock()
        self._replays = start is not None
        if self._replays and not _may_replay():
            raise errors.refused("resource-denied", "too many replays at once")
        # Of its own: the session of a client's operations is not always its user's while they look at rules.
        self._user: UserSession | None = datastore.open(user, 0)
        # Held here: sysrepo calls them until the subscriptions end.
        self._callbacks = [ffi.callback(_SIGNATURE, partial(self._called, one), onerror=self._failed) for one in modules]
        self._context = ffi.new("sr_subscription_ctx_t **")
        since, session = _timespec(start), self._user.session
        for module, callback in zip(modules, self._callbacks, strict=True):
            names, rest = (module.encode(), ffi.NULL), (callback, ffi.NULL, 0, self._context)
            code = lib.sr_notif_subscribe_tree(session.cdata, *names, since, ffi.NULL, *rest)
            if code != lib.SR_ERR_OK:
                error = sysrepo.SysrepoError.new(f"cannot subscribe to {module}", code)
                failed = errors.from_sysrepo(error, session, datastore.schema.namespace_of)
                self.stop()
                raise failed

    def stop(self) -> None:
        """Once this returns, nothing is called any more."""
        with self._mutex:
            if self._user is None:
                return
            if self._context[0]:
                lib.sr_unsubscribe(self._context[0])
            self._user.stop()
            self._user = None
            if self._replays:
                _replaying.release()

    def _failed(self, _kind: Any, error: BaseException, _traceback: Any) -> None:
        """Nothing may be raised into C."""
        self._lost(error)

    def _called(self, module: str, _session: Any, _id: int, kind: int, event: Any, timestamp: Any, _private: Any) -> None:
        text = ""
        if event:
            # The context is the caller's for as long as this takes; sysrepo has but so many holders of it.
            text = libyang.DNode.new(None, event).root().print_mem("xml", pretty=False)
        self._take(kind, Event(timestamp.tv_sec * _NANO + timestamp.tv_nsec, text.encode(), module))


def _modules(schema: Schema, wanted: Filter | None) -> frozenset[str]:
    """Of a filter whose paths name modules, only those."""
    modules = frozenset(name for name in schema.notifying if name != MODULE)
    xpath = (wanted.xpath if wanted is not None else None) or ""
    starts = _PATH_STARTS.findall(xpath)
    all_named = len(starts) == xpath.count("|") + 1
    return (modules & frozenset(starts) if all_named else frozenset()) or modules


def _may_replay() -> bool:
    if not _asking.acquire(blocking=False):
        return False
    try:
        return _replaying.acquire(timeout=_REPLAY_WAIT_SECONDS)
    finally:
        _asking.release()


def _matching(wanted: Filter, events: list[Event]) -> list[Event]:
    return [event for event in events if wanted.matches(event.text)]


def _timespec(nanoseconds: int | None) -> Any:
    if nanoseconds is None:
        return ffi.NULL
    return ffi.new("struct timespec *", {"tv_sec": nanoseconds // _NANO, "tv_nsec": nanoseconds % _NANO})


def rfc3339(nanoseconds: int) -> str:
    """A time in UTC with microseconds."""
    seconds, rest = divmod(nanoseconds, _NANO)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"
