"""The node's datastores as a NETCONF server sees them: sysrepo under the rules of NACM.

Everything here blocks and runs in worker threads. Data go from libyang's printer into the reply as text; nothing is
turned into Python values on the way. One `UserSession` serves one NETCONF session, one call at a time.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import libyang
import sysrepo
from _sysrepo import ffi, lib
from sysrepo.session import SysrepoSession

from . import errors
from .filters import Names
from .schema import Schema

log = logging.getLogger(__name__)

# with-defaults modes (RFC 6243) -> printer arguments; "explicit" is what libyang prints by itself.
WITH_DEFAULTS: dict[str, dict[str, bool]] = {
    "explicit": {},
    "report-all": {"include_implicit_defaults": True},
    "trim": {"trim_default_values": True},
}


class Datastore:
    """The connection of the process, its unrestricted session for the server's own needs, and NACM."""

    def __init__(self) -> None:
        """Connects. Raises sysrepo.SysrepoError when there is no usable repository."""
        self._connection = sysrepo.SysrepoConnection()
        self.own = self._connection.start_session("running")
        # NACM is set up once in a process, on a session that stays (netconf_acm.h).
        self._nacm = self._connection.start_session("running")
        self._nacm.init_nacm("nobody")
        with self.own.get_ly_ctx() as context:
            self.schema = Schema(context)
        self.capabilities = self.schema.capabilities(self._content_id())

    def stop(self) -> None:
        for session in (self.own, self._nacm):
            session.stop()
        self._connection.disconnect()

    def open(self, user: str, session_id: int) -> "UserSession":
        """A session with the rights of a NETCONF user."""
        session = self._connection.start_session("running")
        session.set_extra_info("netconf", session_id, user)
        lib.sr_nacm_set_user(session.cdata, user.encode())
        return UserSession(session, self.schema)

    def start_session(self) -> SysrepoSession:
        """An unrestricted session, for what the server provides itself."""
        return self._connection.start_session("running")

    def _content_id(self) -> str:
        """Of the YANG library (RFC 8525): changes when the set of modules does."""
        with self._connection.start_session("operational") as session:
            found = session.get_data("/ietf-yang-library:yang-library/content-id")
        return str(found.get("yang-library", {}).get("content-id", ""))

    def read_own(self, xpath: str) -> dict[str, Any]:
        """Running configuration, unrestricted, as Python values; empty when there is none."""
        try:
            found: dict[str, Any] = self.own.get_data(xpath)
        except (sysrepo.SysrepoNotFoundError, sysrepo.SysrepoLyError):
            return {}
        return found


class UserSession:
    """What one NETCONF session may do to the datastores. All errors are RpcFailed."""

    def __init__(self, session: SysrepoSession, schema: Schema) -> None:
        self.session = session
        self.schema = schema

    @property
    def names(self) -> Names:
        return self.schema.names

    def stop(self) -> None:
        """Ends the session; sysrepo releases its locks and subscriptions."""
        self.session.stop()

    def read(self, datastore: str, xpath: str | None, with_defaults: str = "explicit") -> bytes:
        """What the user may read, as XML; nothing selected gives nothing."""
        if xpath is None:
            return b""
        with self._errors():
            self.session.switch_datastore(datastore)
            try:
                with self.session.get_data_ly(xpath) as data:
                    printing = WITH_DEFAULTS[with_defaults]
                    text: str | None = data.print_mem("xml", with_siblings=True, pretty=False, **printing)
                    return (text or "").encode()  # None: only defaults, all trimmed
            except sysrepo.SysrepoNotFoundError:
                return b""

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
                    raise errors.from_sysrepo(error, self.session, self.schema.namespace_of) from error
                finally:
                    self.session.discard_changes()

    def validate(self, datastore: str) -> None:
        """YANG validation of a whole datastore."""
        with self._errors():
            self.session.switch_datastore(datastore)
            self.session.validate()

    def validate_config(self, config: bytes) -> None:
        """YANG validation of a complete configuration that stands nowhere."""
        with self._errors(), self._parsed(config, parse_only=False, opaq=False, strict=True, no_state=True):
            pass

    def copy(self, source: str, target: str) -> None:
        """Replaces one datastore by another."""
        with self._errors():
            self.session.switch_datastore(target)
            self.session.copy_config(source)

    def clear(self, target: str) -> None:
        """Empties a datastore."""
        with self._errors():
            self.session.switch_datastore(target)
            self.session.replace_config_ly(None, None)

    def lock(self, datastore: str) -> bool:
        """Locks a whole datastore; False when a session of any process holds a part of it."""
        with self._errors():
            self.session.switch_datastore(datastore)
            try:
                self.session.lock()
            except sysrepo.SysrepoLockedError:
                return False
            return True

    def unlock(self, datastore: str) -> None:
        with self._errors():
            self.session.switch_datastore(datastore)
            self.session.unlock()

    def may_execute(self, module: str, name: str) -> None:
        """Raises RpcFailed `access-denied` when NACM forbids the operation (RFC 8341 clause 3.1.3).

        Only for operations that this server does itself: sysrepo checks before it looks for someone who serves the
        operation, and that nobody does is a yes.
        """
        with self._errors(), self.session.get_ly_ctx() as context:
            try:
                call = context.create_data_path(f"/{module}:{name}")
            except libyang.LibyangError:
                return  # the module has no such operation, or its feature is off
            try:
                self.session.switch_datastore("operational")
                _try(self.session, call)
            except sysrepo.SysrepoUnauthorizedError:
                raise
            except sysrepo.SysrepoError:
                pass
            finally:
                call.free()

    @contextlib.contextmanager
    def _parsed(self, config: bytes, **how: bool) -> Iterator[libyang.DNode | None]:
        """The data tree of an edit. Opaque nodes let `delete` name a leaf without its value; sysrepo checks the rest."""
        options = {"parse_only": True, "opaq": True, **how}
        with self.session.get_ly_ctx() as context:
            tree = context.parse_data_mem(config, "xml", **options)
            try:
                yield tree
            finally:
                if tree is not None:
                    tree.free()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sysrepo.SysrepoError as error:
            raise errors.from_sysrepo(error, self.session, self.schema.namespace_of) from error
        except libyang.LibyangError as error:
            raise errors.from_libyang(error, self.schema.namespace_of) from error


def _try(session: SysrepoSession, operation: libyang.DNode) -> None:
    """Sends an RPC without caring for its output. Raises sysrepo.SysrepoError."""
    output = ffi.new("sr_data_t **")
    try:
        tree = ffi.cast("struct lyd_node *", operation.cdata)
        sysrepo.errors.check_call(lib.sr_rpc_send_tree, session.cdata, tree, 0, output)
    finally:
        if output[0]:
            lib.sr_release_data(output[0])
