"""Confirmed commit (RFC 6241 clause 8.4): what is not confirmed in time is undone, whatever becomes of session or process.

At most one is under way. Before it changes anything, running is kept in a file beside the repository's own (and as well
protected), which goes once the commit is confirmed or undone: a process that finds it at its start undoes the commit.
"""

import logging
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import libyang
import sysrepo

from .errors import refused

if TYPE_CHECKING:
    from .datastore import UserSession
    from .server import Server
    from .session import Session

log = logging.getLogger(__name__)

_NOBODY = 0  # the owner of what an earlier process has left
_RETRY_SECONDS = 0.2  # while another program holds the datastore


@dataclass(frozen=True, slots=True)
class Request:
    """The parameters of a commit."""

    confirmed: bool = False
    timeout_seconds: int = 600
    persist: str | None = None
    persist_id: str | None = None


@dataclass(slots=True)
class _Pending:
    owner: int  # id of the session that may confirm, and whose end undoes the commit unless there is a token
    token: str | None
    timer: threading.Timer


class ConfirmedCommit:
    """The confirmed commit of a server, if there is one. For any thread."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._pending: _Pending | None = None
        self._mutex = threading.RLock()
        self._file = Path(os.environ["SYSREPO_REPOSITORY_PATH"]) / "confirmed-commit.xml"

    def commit(self, session: "Session", user: "UserSession", request: Request) -> None:
        """Copies candidate to running; starts, extends or completes a confirmed commit. Raises RpcFailed."""
        with self._mutex:
            self._check(session, request.persist_id)
            if not request.confirmed:
                user.commit()
                if self._pending is not None:
                    self._end("complete", session)
                return
            extends = self._pending is not None
            if not extends:
                self._keep()
            try:
                user.commit()
            except BaseException:
                if not extends:
                    self._file.unlink(missing_ok=True)
                raise
            self._arm(session.id, request.persist, request.timeout_seconds)
            event = "extend" if extends else "start"
            self._server.announcements.confirmed_commit(event, session, request.timeout_seconds)

    def cancel(self, session: "Session", persist_id: str | None) -> None:
        """Undoes it now. Raises RpcFailed when there is none, or not for this session."""
        with self._mutex:
            self._check(session, persist_id)
            if self._pending is None:
                raise refused("operation-failed", "no confirmed commit is under way")
            if not self._undo("cancel", session):
                raise refused("in-use", "running is locked: the commit cannot be undone now")

    def held_by_other(self, session: "Session") -> int | None:
        """The session whose confirmed commit keeps others from locking running; None when there is none."""
        with self._mutex:
            pending = self._pending
            return None if pending is None or pending.owner == session.id else pending.owner

    def session_over(self, session: "Session") -> None:
        """A session has ended: so has its commit, unless it was to persist."""
        with self._mutex:
            pending = self._pending
            ends = pending is not None and pending.owner == session.id and pending.token is None
            if ends and not self._undo("cancel", session):
                self._arm(session.id, None, _RETRY_SECONDS)

    def stop(self) -> None:
        """The server ends."""
        with self._mutex:
            if self._pending is not None:
                self._undo("cancel", None)
            if self._pending is not None:  # the file is left: the next process tries again
                self._pending.timer.cancel()

    def recover(self) -> None:
        """Undoes what an earlier process could not, as soon as running can be had, and what was left in candidate."""
        if self._file.exists():
            log.warning("undoing a commit that nobody confirmed file=%s", self._file)
            with self._mutex:
                if not self._undo("timeout", None):
                    self._arm(_NOBODY, None, _RETRY_SECONDS)
        try:
            self._server.datastore.reset_candidate()
        except sysrepo.SysrepoError as error:
            log.warning("candidate keeps what it has problem=%s", error)

    def _check(self, session: "Session", persist_id: str | None) -> None:
        """Whether the session may go on with what is under way."""
        pending = self._pending
        if persist_id is not None:
            known = pending is not None and pending.token is not None
            if not known or not secrets.compare_digest((pending.token or "").encode(), persist_id.encode()):  # type: ignore[union-attr]
                raise refused("invalid-value", "persist-id names no confirmed commit", ("bad-element", "persist-id"))
        elif pending is not None and (pending.token is not None or pending.owner != session.id):
            raise refused("in-use", "a confirmed commit of another session, or with a persist-id, is under way")

    def _arm(self, owner: int, token: str | None, seconds: float) -> None:
        if self._pending is not None:
            self._pending.timer.cancel()
        timer = threading.Timer(seconds, lambda: self._expired(pending))
        timer.daemon = True
        self._pending = pending = _Pending(owner, token, timer)
        timer.start()

    def _expired(self, pending: _Pending) -> None:
        """On the timer's thread; of a commit that was confirmed or extended meanwhile, nothing is due."""
        with self._mutex:
            if self._pending is pending and not self._undo("timeout", None):
                self._arm(pending.owner, pending.token, _RETRY_SECONDS)

    def _undo(self, event: str, session: "Session | None") -> bool:
        """Back to what was; False when running cannot be had now."""
        try:
            self._restore()
        except (libyang.LibyangError, FileNotFoundError) as error:
            broken = self._file.with_suffix(".broken")
            log.critical("a commit cannot be undone, its record cannot be read file=%s problem=%s", broken, error)
            if self._file.exists():
                self._file.rename(broken)
        except (sysrepo.SysrepoError, OSError) as error:
            log.warning("a commit cannot be undone yet problem=%s", error)
            return False
        self._end(event, session)
        return True

    def _end(self, event: str, session: "Session | None") -> None:
        if self._pending is not None:
            self._pending.timer.cancel()
            self._pending = None
        self._file.unlink(missing_ok=True)
        # What ends with the server has no user to name; whoever listens is about to lose the server anyway.
        if session is not None or event == "timeout":
            self._server.announcements.confirmed_commit(event, session, None)

    def _keep(self) -> None:
        text = self._server.datastore.export_running()
        part = self._file.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._file)

    def _restore(self) -> None:
        """Through the session that has running locked, where one has: sysrepo lets no other write."""
        text = self._file.read_bytes()
        holder = self._server.locks.held().get("running")
        session = self._server.sessions.get(holder[0]) if holder else None
        if session is not None and session.datastores is not None:
            session.datastores.import_running(text)
        else:
            self._server.datastore.import_running(text)
        self._file.unlink(missing_ok=True)
