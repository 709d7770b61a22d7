"""What the operating system would let out of a process, and does not."""

import subprocess
import sys

PROGRAM = """
import ctypes, os, resource, subprocess
from qswitch.agent import hardening
hardening.harden()
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0, "dumpable"
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
if os.getuid() == 0:
    os.setuid(65534)
child = subprocess.run(["cat", f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/mem"], capture_output=True)
assert child.returncode and not child.stdout, "another process of the user reads it"
print("ok")
"""


def test_a_process_is_not_dumped_and_not_read_by_others_of_its_user() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "ok\n", done.stderr
