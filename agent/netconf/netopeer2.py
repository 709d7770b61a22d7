"""The installed netopeer2: whether it can serve this node, the modules it needs, and a server that was left behind.

netopeer2 comes with a list of the modules and features that its version needs, and with scripts that install them. Only
the list is taken. The scripts make a call for each module, look for sysrepo's tools in a log-in shell, and would add a host
key and an endpoint for the whole world where the node's own stand; here the missing modules go in by one call, and what
netopeer2 is configured with is what `qkd-agent prepare` wrote, which both engines read.
"""

import contextlib
import logging
import os
import re
import select
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qswitch import yang

from ..config import FrontConfig, RepositoryConfig
from ..errors import ConfigurationError
from ..repository import alone, tool
from . import versions

log = logging.getLogger(__name__)

PROGRAM = "netopeer2-server"
_LISTS = ("common.sh", "setup.sh")
_LISTED = re.compile(r'^"([\w.-]+)@(\d{4}-\d\d-\d\d)\.yang((?: -e [\w-]+)*)"', re.MULTILINE)
# On the list, but nothing in netopeer2 needs them, and each would let a node be configured to let in too many.
_UNWANTED = frozenset({"local-user-auth-none", "tls10", "tls11", "crypt-hash-md5"})
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Module:
    """A module with the features that are needed, or that are on."""

    name: str
    revision: str
    features: frozenset[str]


def find() -> Path | None:
    """The program, as it is called."""
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


def program() -> Path:
    """The same. Raises ConfigurationError when there is none."""
    if (found := find()) is None:
        raise ConfigurationError("engine netopeer2", f"'{PROGRAM}' is not on PATH; install it or use --engine builtin")
    return found


def check(program: Path) -> str:
    """The version of netopeer2. Raises ConfigurationError when it cannot run with the sysrepo that is here."""
    versions.check_libraries(program)
    words = versions.said(str(program), "-V").strip()
    if not words.startswith(PROGRAM):
        raise ConfigurationError(str(program), f"cannot run here: {words or 'it says nothing of its version'}")
    return words.removeprefix(PROGRAM).strip()


# Modules ---------------------------------------------------------------------------------------------------------------


def install(program: Path, front: FrontConfig) -> None:
    """Brings what netopeer2 needs into the node's repository; what is there stays, with its data.

    Raises ConfigurationError that names the folders in which a list or a module was missed, DatastoreFailed when sysrepo
    refuses.
    """
    needed = _needed(program)
    with alone(front.repository.path):
        here = _installed(front.repository)
        missing = [one for one in needed if one.name not in here]
        older = [one for one in needed if one.name in here and here[one.name].revision < one.revision]
        files = _files([*missing, *older], (*front.modules, *_folders(program, "yang/modules")))
        if missing:
            log.info("installing modules names=%s", ",".join(one.name for one in missing))
            _sysrepoctl(front, [part for one in missing for part in ("-i", files[one.name], *_features(one.features))])
        if older:
            log.info("updating modules names=%s", ",".join(one.name for one in older))
            _sysrepoctl(front, [part for one in older for part in ("-U", files[one.name])])
        here = _installed(front.repository)
        for one in needed:
            if off := one.features - here[one.name].features:
                tool(front.repository, ["sysrepoctl", "-c", one.name, *_features(off)])


def _needed(program: Path) -> list[Module]:
    """The list of this version of netopeer2."""
    folders = [one for root in _folders(program, "netopeer2") for one in (root / "scripts", root)]
    for file in (folder / name for folder in folders for name in _LISTS):
        if file.exists() and (found := _LISTED.findall(file.read_text(encoding="utf-8", errors="replace"))):
            return [
                Module(name, revision, frozenset(part for part in features.split() if part != "-e") - _UNWANTED)
                for name, revision, features in found
            ]
    problem = f"its list of modules ({' or '.join(_LISTS)}) is in none of {', '.join(map(str, folders))}"
    raise ConfigurationError(str(program), problem)


def _folders(program: Path, below: str) -> tuple[Path, ...]:
    """Where an installation keeps its data: beside the program, beside what a link to it leads to, then the system's."""
    prefixes = dict.fromkeys((program.absolute().parent.parent, program.resolve().parent.parent, Path("/usr")))
    return tuple(prefix / "share" / below for prefix in prefixes)


def _installed(repository: RepositoryConfig) -> dict[str, Module]:
    """The modules that the repository implements."""
    rows = (line.split("|") for line in tool(repository, ["sysrepoctl", "-l"]).splitlines())
    cells = [[cell.strip() for cell in row] for row in rows if len(row) > 3]
    return {one[0]: Module(one[0], one[1], frozenset(one[-1].split())) for one in cells if one[2].startswith("I")}


def _files(modules: Sequence[Module], roots: Sequence[Path]) -> dict[str, str]:
    """The file of each module: of its revision, or the next newer one there is."""
    folders = [*(folder for root in roots for folder in (root, root / "netopeer2", root / "libnetconf2")), *yang.SEARCH]
    found, absent = {}, []
    for one in modules:
        name = f"{one.name}@{one.revision}.yang"
        fitting = (file for folder in folders for file in folder.glob(f"{one.name}@*.yang") if file.name >= name)
        if (file := min(fitting, key=lambda file: file.name, default=None)) is None:
            absent.append(name)
        else:
            found[one.name] = str(file)
    if absent:
        places = ", ".join(str(one) for one in dict.fromkeys(folders))
        raise ConfigurationError(PROGRAM, f"needs {', '.join(absent)}, in none of {places}; see [netconf.netopeer2] modules")
    return found


def _sysrepoctl(front: FrontConfig, arguments: list[str]) -> None:
    folders = dict.fromkeys([*(str(Path(one).parent) for one in arguments if one.endswith(".yang")), *map(str, yang.SEARCH)])
    tool(front.repository, ["sysrepoctl", "-s", ":".join(folders), *arguments])


def _features(names: frozenset[str]) -> list[str]:
    return [part for name in sorted(names) for part in ("-e", name)]


# A server that was left behind -----------------------------------------------------------------------------------------


def end_left(pid_file: Path, repository: RepositoryConfig) -> None:
    """Ends a netopeer2 that an earlier front end could not take with it; any other process is left alone.

    The kernel sends it SIGTERM when its parent goes, but not to a program with file capabilities, nor does one that
    hangs follow. The process is held by a descriptor from before it is looked at, so that no other can take its number.
    """
    try:
        pid = int(pid_file.read_text())
        process = os.pidfd_open(pid)
    except (OSError, ValueError):
        pid_file.unlink(missing_ok=True)
        return
    try:
        if _serves(pid, repository):
            log.warning("netopeer2 was left behind by an earlier front end, ending it pid=%d", pid)
            _end(process)
    finally:
        os.close(process)
        pid_file.unlink(missing_ok=True)


def _serves(pid: int, repository: RepositoryConfig) -> bool:
    """Whether the process is netopeer2, on this repository; what cannot be looked at is not."""
    try:
        place = Path(f"/proc/{pid}")
        named = any(PROGRAM in Path(name).name for name in _program_names(place))
        environment = (place / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return named and b"SYSREPO_REPOSITORY_PATH=" + os.fsencode(repository.path) in environment


def _program_names(place: Path) -> Iterator[str]:
    """Of the file that runs (a distribution may have wrapped it), or of the script that an interpreter runs."""
    yield str((place / "exe").readlink())
    yield from (os.fsdecode(one) for one in (place / "cmdline").read_bytes().split(b"\0")[1:2])


def _end(process: int) -> None:
    """By signals, once it had the time to end as it was told: it takes a second SIGTERM for an order to drop everything."""
    for number, seconds in ((0, 1), (signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
        if select.select([process], [], [], seconds)[0]:
            return
