"""What a process asks of the operating system: to let no key out of its memory, and to give it the descriptors it needs."""

import ctypes
import logging
import resource

log = logging.getLogger(__name__)

PR_SET_DUMPABLE = 4
DESCRIPTORS = 16_384
"""Twice 4096 for the connections that the servers let in, and room for sessions, files, and who has not said who it is."""
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4


def harden() -> None:
    """No core file, no reading of memory by other processes of the user, and no swapping where the limits allow that."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Below a finite limit, whatever is allocated beyond it would fail: better swapped than ended.
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    if unlimited and library.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT):
        log.warning("memory not locked errno=%d", ctypes.get_errno())


def take_descriptors() -> None:
    """Two servers that take in thousands of connections would leave none of the usual 1024 to sessions and files."""
    have, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(have, min(most, DESCRIPTORS)), most))
