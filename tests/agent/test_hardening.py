"""What the operating system would let out of a process, and does not."""

import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(("before", "most", "after"), [(256, 2048, 2048), (256, 20_000, 16_384), (18_000, 20_000, 18_000)])
def test_a_process_takes_the_descriptors_that_its_servers_need(before: int, most: int, after: int) -> None:
    """256 connections are let in for each caller: of the usual 1024 descriptors, four callers would leave none."""
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({before}, {most}))
from qswitch.agent import hardening
hardening.take_descriptors()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == f"({after}, {most})\n", done.stderr
