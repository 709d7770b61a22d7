"""The node's datastore: what controllers configure comes in, what the node is goes out. Sysrepo under an asyncio loop.

Sysrepo's calls block, so none is made on the loop: each concern (configuration, state, notifications, startup) has a
session and a thread of its own, and none of them waits for another. The callback of a change reads the pending tree, asks
the loop whether it may be (`check`), and returns; whatever a change leads to happens after it (`apply`). It calls
sysrepo through the session it is given only, never through another one.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import libyang
import sysrepo
from _sysrepo import lib
from libyang.util import DataType
from sysrepo.session import SysrepoSession

from qswitch import yang

from . import notifications, repository, yangdata
from .config import AgentConfig
from .errors import ConfigurationError, DatastoreFailed, InvalidValue, NodeError, edge
from .model import Configuration, Interface, InterfaceId, NodeState, Notification

log = logging.getLogger(__name__)

Check = Callable[[Configuration], None]
Apply = Callable[[Configuration, Configuration], None]

CHECK_SECONDS = 4.0  # within the 5 s after which sysrepo gives a callback up
NOTIFY_MS = 2_000  # how long one notification may wait for its subscribers
WAITING_NOTIFICATIONS = 1_000
_SAVE_AGAIN_SECONDS = 1.0
_SAVE_LAST_SECONDS = (0.1, 0.3, 1.0, 2.0)


class Datastore:
    """One connection to the node's repository. Use it from one loop: `start` once, then the others, `stop` at the end."""

    def __init__(self, config: AgentConfig, interfaces: Sequence[Interface]) -> None:
        self._config = config
        self._interfaces = interfaces
        self.gone: frozenset[InterfaceId] = frozenset()  # interfaces the node had before this start
        self._connection: sysrepo.SysrepoConnection | None = None
        self._sessions: dict[str, SysrepoSession] = {}
        self._threads: dict[str, concurrent.futures.ThreadPoolExecutor] = {}
        self._running: _Running | None = None
        self._state: _State | None = None
        self._outbox = _Outbox()
        self._tasks: list[asyncio.Task[None]] = []
        self._unsaved = asyncio.Event()

    async def start(self, check: Check, apply: Apply) -> Configuration:
        """Opens the repository and returns what is configured.

        From now on `check` is asked about every edit, on the loop: a NodeError refuses the edit with its text. `apply`
        is called on the loop, with the old and the new configuration, after an edit is in. Raises DatastoreFailed when
        there is no usable repository, ConfigurationError when it is another node's.
        """
        loop = asyncio.get_running_loop()

        def changed(old: Configuration, new: Configuration) -> None:
            apply(old, new)
            self._unsaved.set()

        self._running = _Running(loop, check, changed)
        current = self._running.begin(await self._in("running", self._open))
        try:
            check(current)
        except NodeError as error:  # edited while no agent ran: there is no one left to refuse it to
            log.error("configuration breaks a rule error=%s", error)
        self._state = _State(self._sessions["state"])
        self._unsaved.set()  # an earlier process may have ended between an edit and its copy to startup
        self._tasks = [loop.create_task(self._save()), loop.create_task(self._send())]
        return current

    async def push(self, state: NodeState) -> None:
        """Brings the operational datastore to `state`, in one transaction; only differences are written.

        What cannot be written now (sysrepo says why in the log) is written with the next push.
        """
        if self._state is None:
            raise DatastoreFailed("is not open")
        try:
            await self._in("state", self._state.write, state)
        except DatastoreFailed as error:
            log.error("state not pushed error=%s", error)

    async def notify(self, notification: Notification) -> None:
        """Queues a notification to all subscribers; returns at once. When subscribers are stuck, the oldest are dropped."""
        self._outbox.put(notification)

    async def stop(self) -> None:
        """Sends what is queued, saves what is not saved, disconnects. Harmless when nothing was started, also twice."""
        if self._tasks:
            await self._outbox.drained(NOTIFY_MS / 1000)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks = []
        for concern in tuple(self._threads):  # what a cancelled task was waiting for goes on in its thread
            await self._in(concern, lambda: None)
        if self._connection is not None:
            if self._unsaved.is_set():
                await self._save_last()
            await self._in("running", self._close)
        for thread in self._threads.values():
            thread.shutdown(wait=False)
        self._threads.clear()

    # In threads --------------------------------------------------------------------------------------------------------

    async def _in[**P, R](self, concern: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a blocking call in the thread of its concern."""
        thread = self._threads.get(concern)
        if thread is None:
            thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"sysrepo-{concern}")
            self._threads[concern] = thread
        return await asyncio.get_running_loop().run_in_executor(thread, lambda: function(*args, **kwargs))

    def _open(self) -> Configuration:
        repository.enter(self._config.repository)
        assert self._running is not None
        with mapped("opening the repository"):
            self._connection = sysrepo.SysrepoConnection()
            datastores = {"running": "running", "state": "operational", "events": "running", "startup": "startup"}
            self._sessions = {name: self._connection.start_session(one) for name, one in datastores.items()}
            session = self._sessions["running"]
            data = read(session)
            self._check_identity(data)
            self._write_node(session, data)
            return self._running.subscribe(session)

    def _close(self) -> None:
        assert self._connection is not None
        with mapped("closing the repository"):
            for session in self._sessions.values():
                session.stop()
            self._connection.disconnect()
        self._sessions, self._connection, self._state = {}, None, None

    def _check_identity(self, data: yangdata.Data) -> None:
        found = str(data.get("qkdn_id", "nobody")).lower()
        if found != self._config.node:
            file, path = str(self._config.file), self._config.repository.path
            raise ConfigurationError(file, f"[node] qkdn_id: {path} is the repository of node {found}")

    def _write_node(self, session: SysrepoSession, data: yangdata.Data) -> None:
        """Version and devices are what they are at this start; the rest of the node is the controllers' to change."""
        have = {one.interface: one for one in yangdata.interfaces(data)}
        want = {one.interface: one for one in self._interfaces}
        self.gone = frozenset(have.keys() - want.keys())
        for interface in have.keys() - {key for key, one in have.items() if want.get(key) == one}:
            session.delete_item(f"{yangdata.ROOT}/{yangdata.INTERFACE}[qkdi_id='{interface}']")
        session.apply_changes()  # apart from what follows, or a changed device would be merged with its old description
        members: yangdata.Data = {}
        if data.get("qkdn_version") != (installed := version("quantum-switch")):
            members["qkdn_version"] = installed
        if changed := [yangdata.interface_data(one) for key, one in want.items() if have.get(key) != one]:
            members["qkd_interfaces"] = {"qkd_interface": changed}
        if members:
            _edit(session, members)
            session.apply_changes()

    # Startup follows running -------------------------------------------------------------------------------------------

    async def _save(self) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            try:
                await self._in("startup", self._copy_to_startup)
            except Exception as error:  # whatever it is: this must not be the last copy
                log.warning("startup not saved error=%s", error, exc_info=not isinstance(error, DatastoreFailed))
                self._unsaved.set()
                await asyncio.sleep(_SAVE_AGAIN_SECONDS)
            except asyncio.CancelledError:  # the thread may not even have begun
                self._unsaved.set()
                raise

    async def _save_last(self) -> None:
        """Before the end. What cannot be saved within some seconds (somebody has startup locked), the next start saves."""
        for pause in (*_SAVE_LAST_SECONDS, None):
            try:
                await self._in("startup", self._copy_to_startup)
                return
            except DatastoreFailed as error:
                log.warning("startup not saved at the end again=%s error=%s", pause is not None, error)
                if pause is not None:
                    await asyncio.sleep(pause)

    def _copy_to_startup(self) -> None:
        with mapped("copying running to startup"):
            self._sessions["startup"].copy_config("running", yang.NODE)

    # Notifications -----------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            notification = await self._outbox.get()
            try:
                await self._in("events", self._send_one, notification)
            except DatastoreFailed as error:
                log.warning("notification not delivered type=%s error=%s", type(notification).__name__, error)
            except Exception:  # whatever it is: controllers are to hear of the next one
                log.exception("notification not built type=%s", type(notification).__name__)
            finally:
                self._outbox.done()

    def _send_one(self, notification: Notification) -> None:
        session = self._sessions["events"]
        text = json.dumps(notifications.build(notification, self._config.node))
        with mapped("sending a notification"), session.get_ly_ctx() as context:
            tree = context.parse_op_mem("json", text, dtype=DataType.NOTIF_YANG, strict=True)
            try:
                session.notification_send_ly(tree, timeout_ms=NOTIFY_MS)
            finally:
                tree.free()


class _Running:
    """Edits of the running datastore, as sysrepo's thread hands them over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, check: Check, apply: Apply) -> None:
        self._loop, self._check, self._apply = loop, check, apply
        self._begun = False
        self._current: Configuration | None = None
        self._pending: dict[int, Configuration] = {}

    def subscribe(self, session: SysrepoSession) -> Configuration:
        """Subscribes, then reads: an edit in between is seen twice, which is harmless, and none is missed."""
        session.subscribe_module_change_unsafe(yang.NODE, yangdata.ROOT, self._changed)
        data = read(session)
        for link in yangdata.drop_untyped(data):
            log.error("link without a type is left alone link=%s", link)
        return yangdata.configuration(data)

    def begin(self, read_before: Configuration) -> Configuration:
        """On the loop, with what `subscribe` read, unless a later edit has come in meanwhile."""
        self._begun, self._current = True, self._current or read_before
        return self._current

    def _changed(self, session: SysrepoSession, event: str, request: int, _private: Any) -> None:
        """In sysrepo's thread. The session is gone when this returns."""
        if event == "change":
            try:
                self._pending[request] = self._checked(yangdata.configuration(read(session)))
            except NodeError as error:
                log.info("edit refused error=%s", error)
                raise sysrepo.SysrepoError.new(str(error), getattr(lib, edge(error).sysrepo)) from error
        elif event == "done":
            self._loop.call_soon_threadsafe(self._adopt, self._pending.pop(request))
        else:
            self._pending.pop(request, None)

    def _checked(self, new: Configuration) -> Configuration:
        """The check is made on the loop, whose state it may look at."""

        async def ask() -> None:
            if self._current is not None:
                check_fixed(self._current, new)
            self._check(new)

        answer = asyncio.run_coroutine_threadsafe(ask(), self._loop)
        try:
            answer.result(CHECK_SECONDS)
        except TimeoutError as error:
            answer.cancel()
            raise DatastoreFailed(f"the agent did not answer within {CHECK_SECONDS:g} s") from error
        return new

    def _adopt(self, new: Configuration) -> None:
        old, self._current = self._current, new
        if self._begun and old is not None and new != old:
            log.info("configuration changed links=%d applications=%d", len(new.links), len(new.applications))
            self._apply(old, new)


class _State:
    """The pushed part of the operational datastore; its session owns what it pushed, and takes it along when it ends."""

    def __init__(self, session: SysrepoSession) -> None:
        self._session = session
        self._pushed: Mapping[str, yangdata.Entry] = {}

    def write(self, state: NodeState) -> None:
        """In its thread. Raises DatastoreFailed, with nothing written."""
        wanted = yangdata.state(state)
        deletions, settings = yangdata.changes(self._pushed, wanted)
        if not deletions and not settings:
            return
        with mapped("pushing state"):
            try:
                for path in deletions:
                    self._session.delete_item(path)
                for path, value in settings.items():
                    self._session.set_item(path, value)
                self._session.apply_changes()
            except sysrepo.SysrepoError:
                self._session.discard_changes()
                raise
        self._pushed = wanted


class _Outbox:
    """Notifications on their way out; bounded."""

    def __init__(self) -> None:
        self._waiting: deque[Notification] = deque()
        self._filled, self._empty = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self.dropped = 0

    def put(self, notification: Notification) -> None:
        if len(self._waiting) >= WAITING_NOTIFICATIONS:
            lost = self._waiting.popleft()
            self.dropped += 1
            log.error("notification dropped type=%s dropped=%d", type(lost).__name__, self.dropped)
        self._waiting.append(notification)
        self._filled.set()
        self._empty.clear()

    async def get(self) -> Notification:
        await self._filled.wait()
        notification = self._waiting.popleft()
        if not self._waiting:
            self._filled.clear()
        return notification

    def done(self) -> None:
        if not self._waiting:
            self._empty.set()

    async def drained(self, seconds: float) -> None:
        """Waits until all were sent, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()


def check_fixed(old: Configuration, new: Configuration) -> None:
    """Refuses edits of what only the node itself can say: its id and its devices."""
    if new.node != old.node:
        raise InvalidValue(f"{yangdata.ROOT}/qkdn_id", new.node, f"this node is {old.node}")
    if new.interfaces != old.interfaces:
        keys = new.interfaces.keys() | old.interfaces.keys()
        differing = sorted(key for key in keys if new.interfaces.get(key) != old.interfaces.get(key))
        path = f"{yangdata.ROOT}/{yangdata.INTERFACE}[qkdi_id='{differing[0]}']"
        raise InvalidValue(path, str(differing[0]), "interfaces are what devices the node has; they are not configured")


def read(session: SysrepoSession) -> yangdata.Data:
    """The members of `qkd_node` in the datastore of a session (in a callback: as they will be); empty when there is none."""
    try:
        with session.get_data_ly(yangdata.ROOT) as tree:
            text = tree.print_mem("json", with_siblings=True, pretty=False)
    except sysrepo.SysrepoNotFoundError:
        return {}
    found: yangdata.Data = json.loads(text).get(f"{yang.NODE}:qkd_node", {})
    return found


def _edit(session: SysrepoSession, members: yangdata.Data) -> None:
    """Merges members of `qkd_node` into the session's pending changes."""
    with session.get_ly_ctx() as context:
        text = json.dumps({f"{yang.NODE}:qkd_node": members})
        tree = context.parse_data_mem(text, "json", parse_only=True, strict=True)
        try:
            session.edit_batch_ly(tree, "merge")
        finally:
            tree.free()


@contextlib.contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turns errors of the libraries into DatastoreFailed that says what was being done."""
    try:
        yield
    except (sysrepo.SysrepoError, libyang.LibyangError) as error:
        raise DatastoreFailed(f"{what}: {error}") from error
