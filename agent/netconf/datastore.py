"""The node's datastores as a NETCONF server sees them: sysrepo under the rules of NACM.

Everything here blocks and runs in worker threads. Data go from libyang's printer into the reply as text; nothing is
turned into Python values on the way. One `UserSession` serves one NETCONF session, one call at a time.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import libyang
import sysrepo
from _libyang import ffi as ly_ffi, lib as ly
from _sysrepo import ffi, lib
from sysrepo.session import SysrepoSession

from qswitch.protocol.netconf import RpcFailed

from . import errors, nacm, payload
from .filters import Filter
from .rules import UNASKED, Rules
from .schema import Schema
from .superset import Names

log = logging.getLogger(__name__)

# with-defaults modes (RFC 6243) -> flags of libyang's printer.
WITH_DEFAULTS: dict[str, int] = {
    "explicit": ly.LYD_PRINT_WD_EXPLICIT,
    "report-all": ly.LYD_PRINT_WD_ALL,
    "report-all-tagged": ly.LYD_PRINT_WD_ALL_TAG,
    "trim": ly.LYD_PRINT_WD_TRIM,
}
# Reading operational (sysrepo_types.h).
NO_STATE, NO_CONFIG, WITH_ORIGIN = lib.SR_OPER_NO_STATE, lib.SR_OPER_NO_CONFIG, 0x10
_HOLDER_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """How data are read and printed."""

    with_defaults: str = "explicit"
    depth: int = 0  # levels below what is selected; 0: all
    options: int = 0  # of the above, for operational


class Datastore:
    """The connection of the process, and NACM. Whoever needs a session gets one: each serves one thread at a time."""

    def __init__(self) -> None:
        """Connects. Raises sysrepo.SysrepoError when there is no usable repository."""
        self._connection = sysrepo.SysrepoConnection()
        # NACM is set up once in a process, on a session that stays (netconf_acm.h).
        self._nacm = self._connection.start_session("running")
        self._nacm.init_nacm("nobody")
        nacm.count(self._nacm)
        self.rules = Rules(self)
        self.refresh()

    def refresh(self) -> None:
        """Reads the modules anew: at the start, and after they have changed."""
        with self.start_session() as session, session.get_ly_ctx() as context:
            self.schema = Schema(context, self._content_id())

    def stop(self) -> None:
        self.rules.stop()
        self._nacm.stop()
        self._connection.disconnect()

    def open(self, user: str, session_id: int) -> "UserSession":
        """A session with the rights of a NETCONF user."""
        session = self._connection.start_session("running")
        _originator(session, session_id, user)
        return UserSession(self, session, user)

    def start_session(self) -> SysrepoSession:
        """An unrestricted session, for what the server provides itself."""
        return self._connection.start_session("running")

    def _content_id(self) -> str:
        """Of the YANG library (RFC 8525): changes when the set of modules does."""
        with self._connection.start_session("operational") as session:
            found = session.get_data("/ietf-yang-library:yang-library/content-id")
        return str(found.get("yang-library", {}).get("content-id", ""))

    def read_own(self, xpath: str) -> dict[str, Any]:
        """Running configuration, unrestricted, as Python values; empty when there is none. Raises sysrepo.SysrepoError."""
        with self.start_session() as session:
            try:
                found: dict[str, Any] = session.get_data(xpath)
            except sysrepo.SysrepoNotFoundError:
                return {}
        return found

    def export_running(self) -> bytes:
        """All of running, unrestricted."""
        with self._connection.start_session("running") as session, _data(session, "/*") as data:
            return _printed(data, WITH_DEFAULTS["explicit"])

    def reset_candidate(self) -> None:
        """Lets candidate be as running again. Raises sysrepo.SysrepoError."""
        with self._connection.start_session("candidate") as session:
            session.copy_config("running")

    def import_running(self, config: bytes) -> None:
        """Replaces running by what was exported. Raises sysrepo.SysrepoError."""
        with self._connection.start_session("running") as session:
            _replace(session, config)


def _originator(session: SysrepoSession, session_id: int, user: str) -> None:
    """Says who edits, as sysrepo has it for netconf-config-change: under this name only. (The binding pushes too much.)"""
    lib.sr_session_set_orig_name(session.cdata, b"netopeer2")
    number, name = session_id.to_bytes(4, sys.byteorder), user.encode() + b"\0"
    for data in number, name:
        lib.sr_session_push_orig_data(session.cdata, len(data), ffi.from_buffer(data))


class UserSession:
    """What one NETCONF session may do to the datastores. All errors are RpcFailed."""

    def __init__(self, datastore: Datastore, session: SysrepoSession, user: str) -> None:
        self.session = session
        self._datastore = datastore
        self._user = user.encode()
        # The end of a confirmed commit comes on a thread of its own.
        self._mutex = threading.RLock()
        lib.sr_nacm_set_user(session.cdata, self._user)

    @property
    def schema(self) -> Schema:
        return self._datastore.schema

    @property
    def names(self) -> Names:
        return self.schema.names

    def stop(self) -> None:
        """Ends the session; sysrepo releases its locks and subscriptions."""
        with self._mutex:
            self.session.stop()

    def read(self, datastore: str, selected: Filter, how: Reading = Reading()) -> bytes:
        """What the user may read, as XML; nothing selected gives nothing."""
        if selected.xpath is None:
            return b""
        with self._errors():
            self.session.switch_datastore(datastore)
            depth = how.depth if selected.exact else 0
            with _data(self.session, selected.xpath, replace(how, depth=depth)) as data:
                # A container whose content is too deep is there all the same.
                empty = ly.LYD_PRINT_EMPTY_CONT if how.depth else 0
                text = _printed(data, WITH_DEFAULTS[how.with_defaults] | empty)
        return selected.narrow(text, how.depth)

    def edit(self, datastore: str, config: bytes, default_operation: str, *, test: bool, change: bool) -> None:
        """One edit-config, all or nothing: YANG validation if `test`, the change itself if `change`."""
        with self._errors():
            self.session.switch_datastore(datastore)
            with self._parsed(config) as edit:
                try:
                    if edit is not None:
                        self.session.edit_batch_ly(edit, default_operation)
                    if test:
                        self.session.validate()
                    if change:
                        self.session.apply_changes()
                except sysrepo.SysrepoError as error:
                    # The errors are read before the clean-up overwrites them.
                    failed = self._failed(error)
                    self.session.discard_changes()
                    raise failed if edit is None else self._located(failed, edit) from error
                finally:
                    self.session.discard_changes()

    def may_edit(self, config: bytes, default_operation: str) -> None:
        """Raises RpcFailed where access control forbids an edit that is only to be tried.

        Sysrepo asks its rules of changes alone, so one is made in candidate, and undone; not while others work there.
        """
        if self.lock("candidate"):
            try:
                self.edit("candidate", config, default_operation, test=False, change=True)
            finally:
                self.discard()
                self.unlock("candidate")

    def validate(self, datastore: str) -> None:
        """YANG validation of a whole datastore."""
        with self._errors():
            self.session.switch_datastore(datastore)
            self.session.validate()

    def validate_config(self, config: bytes) -> None:
        """YANG validation of a complete configuration that stands nowhere."""
        with self._errors(), self.session.get_ly_ctx() as context:
            tree = payload.parse_whole(context, config, self.schema, valid=True)
            if tree is not None:
                tree.free()

    def copy(self, source: str, target: str, *, unrestricted: bool = False) -> None:
        """Replaces one datastore by another."""
        with self._errors(), self._unrestricted() if unrestricted else contextlib.nullcontext():
            self.session.switch_datastore(target)
            self.session.copy_config(source)

    def commit(self) -> None:
        """Replaces running by candidate."""
        self.copy("candidate", "running")

    def discard(self) -> None:
        """Lets candidate be as running again; that takes no rights to what was changed in it (RFC 8341 clause 3.2.9)."""
        self.copy("running", "candidate", unrestricted=True)

    def replace(self, target: str, config: bytes) -> None:
        """Replaces a datastore by a complete configuration; an empty one leaves nothing."""
        with self._errors(), self.session.get_ly_ctx() as context:
            self.session.switch_datastore(target)
            tree = payload.parse_whole(context, config, self.schema) if config else None
            self.session.replace_config_ly(tree, None)  # which frees the tree

    def import_running(self, config: bytes) -> None:
        """Replaces running, unrestricted, by what was exported: for a session that has it locked.

        Raises TimeoutError when the session is busy, sysrepo.SysrepoError.
        """
        if not self._mutex.acquire(timeout=_HOLDER_SECONDS):
            raise TimeoutError("the session that has running locked is busy")
        try:
            with self._unrestricted():
                self.session.switch_datastore("running")
                _replace(self.session, config)
        finally:
            self._mutex.release()

    def lock(self, datastore: str) -> bool:
        """Locks a whole datastore; False when a session of any process holds a part of it, or it has been changed."""
        with self._errors():
            self.session.switch_datastore(datastore)
            try:
                self.session.lock()
            except (sysrepo.SysrepoLockedError, sysrepo.SysrepoUnsupportedError):
                return False
            return True

    def unlock(self, datastore: str) -> None:
        with self._errors():
            self.session.switch_datastore(datastore)
            self.session.unlock()

    def may_execute(self, module: str, name: str) -> None:
        """Raises RpcFailed `access-denied` when NACM forbids the operation (RFC 8341 clause 3.4.4)."""
        user = self._user.decode()
        if name in UNASKED and not self._datastore.rules.may_execute(user, module, name):
            # Sysrepo counts what it denies itself; this operation is nobody's who is in no group.
            with contextlib.suppress(RpcFailed), self._as(b""):
                self._check("/ietf-netconf:delete-config")
            raise errors.refused("access-denied", f"a rule denies '{name}' to user '{user}'")
        self._check(f"/{module}:{name}")

    def _located(self, failed: RpcFailed, edit: libyang.DNode) -> RpcFailed:
        def there(xpath: str) -> set[str]:
            with self._unrestricted(), _data(self.session, xpath) as data:
                return set() if data is None else {payload.path_of(one) for one in payload.nodes(data)}

        return self._discreet(payload.located(failed, edit, self.schema, there))

    def _discreet(self, failed: RpcFailed) -> RpcFailed:
        """The failure, without telling what is there to somebody who may not change it (RFC 8341 clause 3.2.5)."""
        with self.session.get_ly_ctx() as context:
            for error in failed.errors:
                how = {"data-exists": "create", "data-missing": "delete"}.get(error.tag, "")
                if not how or error.app_tag or not error.path:
                    continue
                if not self._datastore.rules.may_change(self._user.decode(), how, error.path, context):
                    return errors.denied(error)
        return failed

    def _check(self, path: str) -> None:
        with self._errors(), self.session.get_ly_ctx() as context:
            try:
                call = context.create_data_path(path)
            except libyang.LibyangError:
                return  # the module has no such operation, or its feature is off
            try:
                nacm.check(self.session, call)
            finally:
                call.free()

    def execute(self, operation: bytes, kind: libyang.util.DataType) -> bytes:
        """An RPC or action that some program of the node serves; its output as XML."""
        with self._errors(), self.session.get_ly_ctx() as context:
            call = payload.parse_operation(context, operation, kind, self.schema)
            try:
                self.session.switch_datastore("operational")
                output = _send(self.session, call.root())
                try:
                    return _printed_output(_node(context, output[0]), call)
                finally:
                    if output[0]:
                        lib.sr_release_data(output[0])
            finally:
                call.root().free()

    @contextlib.contextmanager
    def _parsed(self, config: bytes) -> Iterator[libyang.DNode | None]:
        with self.session.get_ly_ctx() as context:
            tree = payload.parse_edit(context, config, self.schema)
            try:
                yield tree
            finally:
                if tree is not None:
                    tree.free()

    def _unrestricted(self) -> contextlib.AbstractContextManager[None]:
        return self._as(ffi.NULL)

    @contextlib.contextmanager
    def _as(self, user: Any) -> Iterator[None]:
        with self._mutex:
            lib.sr_nacm_set_user(self.session.cdata, user)
            try:
                yield
            finally:
                lib.sr_nacm_set_user(self.session.cdata, self._user)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        with self._mutex:
            try:
                yield
            except sysrepo.SysrepoError as error:
                raise self._failed(error) from error
            except libyang.LibyangError as error:
                raise errors.from_libyang(error, self.schema.namespace_of, self.schema.musts) from error

    def _failed(self, error: sysrepo.SysrepoError) -> RpcFailed:
        return errors.from_sysrepo(error, self.session, self.schema.namespace_of, self.schema.musts)


@contextlib.contextmanager
def _data(session: SysrepoSession, xpath: str, how: Reading = Reading()) -> Iterator[libyang.DNode | None]:
    """What a path selects; None when that is nothing. The binding's own call knows no origin."""
    found = ffi.new("sr_data_t **")
    options = how.options if session.get_datastore() == "operational" else 0
    code = lib.sr_get_data(session.cdata, xpath.encode(), how.depth, 0, options, found)
    if code == lib.SR_ERR_NOT_FOUND:
        yield None
        return
    sysrepo.errors.check_call(lambda: code)
    try:
        with session.get_ly_ctx() as context:
            yield _node(context, found[0])
    finally:
        if found[0]:
            lib.sr_release_data(found[0])


def _node(context: libyang.Context, data: Any) -> libyang.DNode | None:
    """The tree that sysrepo hands over, as the other binding has it."""
    if not data or not data.tree:
        return None
    return libyang.DNode.new(context, ly_ffi.cast("struct lyd_node *", data.tree)).root()


def _printed(tree: libyang.DNode | None, flags: int) -> bytes:
    if tree is None:
        return b""
    text = ly_ffi.new("char **")
    if ly.lyd_print_mem(text, tree.cdata, ly.LYD_XML, ly.LYD_PRINT_SHRINK | ly.LYD_PRINT_SIBLINGS | flags) != ly.LY_SUCCESS:
        raise tree.context.error("cannot print data")
    try:
        return ly_ffi.string(text[0]) if text[0] else b""  # nothing: only defaults, all trimmed
    finally:
        ly.free(text[0])


def _printed_output(tree: libyang.DNode | None, call: libyang.DNode) -> bytes:
    """The children of an operation's output: what a reply holds in place of `ok`."""
    operation = tree and tree.find_path(call.path())
    return b"".join(child.print_mem("xml", pretty=False).encode() for child in operation or ())


def _replace(session: SysrepoSession, config: bytes) -> None:
    """Replaces a session's datastore by what was exported. Raises sysrepo.SysrepoError, libyang.LibyangError."""
    with session.get_ly_ctx() as context:
        tree = context.parse_data_mem(config, "xml", parse_only=True) if config else None
        session.replace_config_ly(tree, None)


def _send(session: SysrepoSession, operation: libyang.DNode) -> Any:
    """Sends an operation; a pointer to its output, which the caller releases. Raises sysrepo.SysrepoError."""
    output = ffi.new("sr_data_t **")
    tree = ffi.cast("struct lyd_node *", operation.cdata)
    try:
        sysrepo.errors.check_call(lib.sr_rpc_send_tree, session.cdata, tree, 0, output)
    except sysrepo.SysrepoError:
        if output[0]:
            lib.sr_release_data(output[0])
        raise
    return output
