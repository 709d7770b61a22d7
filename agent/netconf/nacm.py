"""Access control where sysrepo, or its Python binding, leaves something out (RFC 8341).

Sysrepo decides on data, notifications and most operations. It never asks a rule about executing get, get-config and
get-data, which clause 3.4.4 does not except: `Execution` does. Its C interface checks an operation without sending it,
counts what was denied, and says where; the binding lacks that (sysrepo/netconf_acm.h, sysrepo/error_format.h).
"""

import ctypes
import grp
import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libyang
import sysrepo
from _sysrepo import ffi
from sysrepo.session import SysrepoSession

if TYPE_CHECKING:
    from .datastore import Datastore

UNCHECKED = ("get", "get-config", "get-data")
_MODULE = "ietf-netconf-acm"
_PATH_AT = 3  # of the pieces that describe a NETCONF error

# The very library that the binding has loaded.
_maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
_sysrepo = ctypes.CDLL(next(line.split(maxsplit=5)[5] for line in _maps if "/libsysrepo.so" in line))


def _pointer(value: Any) -> ctypes.c_void_p:
    """A pointer of another binding."""
    return ctypes.c_void_p(int(ffi.cast("uintptr_t", value)))


def check(session: SysrepoSession, operation: libyang.DNode) -> None:
    """Raises sysrepo.SysrepoUnauthorizedError when the session's user may not execute an operation."""
    arguments = _pointer(session.cdata), _pointer(ffi.cast("void *", operation.cdata))
    sysrepo.errors.check_call(_sysrepo.sr_nacm_check_operation, *arguments)


def count(session: SysrepoSession) -> None:
    """From now on the operational datastore has the counters of what this process denied, as long as the session lives."""
    subscription = ctypes.c_void_p()
    options = ctypes.c_uint32(0)
    sysrepo.errors.check_call(
        _sysrepo.sr_nacm_glob_stats_subscribe, _pointer(session.cdata), options, ctypes.byref(subscription)
    )


def denied_at(error: Any) -> str:
    """The data path in a `sr_error_info_err_t` by which sysrepo denied access; "" when there is none."""
    size, data = ctypes.c_uint32(), ctypes.c_void_p()
    if not error.error_format:
        return ""
    where = _pointer(ffi.addressof(error)), ctypes.c_uint32(_PATH_AT)
    if _sysrepo.sr_get_error_data(*where, ctypes.byref(size), ctypes.byref(data)):
        return ""
    return ctypes.string_at(data, size.value).rstrip(b"\0").decode()


class Execution:
    """Who may execute what, by the rules of the running datastore; they are read again once they have changed."""

    def __init__(self, datastore: "Datastore") -> None:
        self._datastore = datastore
        self._changes = 0
        self._known: tuple[int, Mapping[str, Any]] = (-1, {})  # the number of changes before it was read
        self._session = datastore.start_session()
        self._session.subscribe_module_change(_MODULE, None, self._changed, done_only=True)

    def stop(self) -> None:
        self._session.stop()

    def permits(self, user: str, module: str, name: str) -> bool:
        """Whether an operation without `default-deny-all` may be executed (RFC 8341 clause 3.4.4)."""
        rules = self._rules()
        if not rules.get("enable-nacm", True):
            return True
        groups = _groups(rules, user)
        for one in _matching(rules, groups):
            if _applies(one, module, name):
                return bool(one["action"] == "permit")
        return bool(rules.get("exec-default", "permit") == "permit")

    def _changed(self, _event: str, _id: int, _changes: Any, _private: Any) -> None:
        self._changes += 1

    def _rules(self) -> Mapping[str, Any]:
        changes, rules = self._changes, self._known[1]
        if self._known[0] != changes:
            rules = self._datastore.read_own(f"/{_MODULE}:nacm").get("nacm", {})
            self._known = changes, rules
        return rules


def _groups(rules: Mapping[str, Any], user: str) -> set[str]:
    own = {one["name"] for one in rules.get("groups", {}).get("group", ()) if user in one.get("user-name", ())}
    return own | (_external_groups(user) if rules.get("enable-external-groups", True) else set())


def _external_groups(user: str) -> set[str]:
    """The groups that the operating system has the user in."""
    try:
        gids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
        return {grp.getgrgid(one).gr_name for one in gids}
    except KeyError:
        return set()


def _matching(rules: Mapping[str, Any], groups: set[str]) -> Iterable[Mapping[str, Any]]:
    """The rules for members of the groups, in order. To a user without a group no list applies, not even that of '*'."""
    for one in rules.get("rule-list", ()) if groups else ():
        if {"*", *groups} & set(one.get("group", ())):
            yield from one.get("rule", ())


def _applies(rule: Mapping[str, Any], module: str, name: str) -> bool:
    if "path" in rule or "notification-name" in rule or rule.get("rpc-name", "*") not in ("*", name):
        return False
    operations = str(rule.get("access-operations", "*")).split()
    return rule.get("module-name", "*") in ("*", module) and ("*" in operations or "exec" in operations)
