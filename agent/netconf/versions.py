"""What runs here: versions for `--version`, and whether a program can share a repository with this one.

Sysrepo's processes meet in shared memory whose layout goes with the library's SO number, so the number must be one and
the same for all of them.
"""

import importlib.util
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from ..errors import ConfigurationError

_SHARED = {"libsysrepo": "sysrepo", "libyang": "libyang"}  # library -> Python package
_LINE = re.compile(r"^\s*(lib[\w+-]+)\.so\.(\d+)\S* => (not found|\S+)", re.MULTILINE)


def said(*command: str) -> str:
    """What a command prints; "" when it cannot be run. Its exit code is not asked for."""
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def libraries(file: Path) -> dict[str, str]:
    """The shared libraries of a program or extension, as name -> SO version; nothing for a script."""
    return {name: _so_version(number, path) for name, number, path in _LINE.findall(said("ldd", str(file)))}


def _so_version(number: str, path: str) -> str:
    """The whole version stands in the name of the file that the SO name leads to, if there is one."""
    return Path(path).resolve().name.partition(".so.")[2] or number


def bindings() -> Path:
    """The extension through which this program uses sysrepo; it is not loaded for that."""
    found = importlib.util.find_spec("_sysrepo")
    assert found is not None and found.origin is not None
    return Path(found.origin)


def check_libraries(program: Path) -> None:
    """Raises ConfigurationError when the program's sysrepo or libyang is another than ours."""
    ours, theirs = libraries(bindings()), libraries(program)
    for name in _SHARED:
        mine, other = (one.get(name, "").partition(".")[0] for one in (ours, theirs))
        if mine and other and mine != other:
            problem = f"uses {name}.so.{other} where this software uses {name}.so.{mine}; install a netopeer2 built for that"
            raise ConfigurationError(str(program), problem)


def report(netopeer2: str) -> str:
    """The text of `--version`; `netopeer2` is the program's name."""
    found = libraries(bindings())
    program = shutil.which(netopeer2)
    lines = [
        f"qkd-netconf {version('quantum-switch')}",
        *(f"{name} SO {found.get(name, 'not found')}, bindings {version(of)}" for name, of in _SHARED.items()),
        f"asyncssh {version('asyncssh')}",
        said(program, "-V").strip() if program else f"{netopeer2} not on PATH",
    ]
    return "\n".join(lines)
