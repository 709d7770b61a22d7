"""What sysrepo's Python binding leaves out of its access control (sysrepo/netconf_acm.h, sysrepo/error_format.h).

Its C interface checks an operation without sending it, counts what was denied, and says where.
"""

import ctypes
from pathlib import Path
from typing import Any

import libyang
import sysrepo
from _sysrepo import ffi
from sysrepo.session import SysrepoSession

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
