"""Sets up a node's sysrepo repository at its first start: modules, access rules, NETCONF server, the node itself.

Afterwards the datastore decides: a repository that is set up is only looked at. The marker that says so is written last,
so that an interrupted setup is done again from the start. All work is done by sysrepo's own tools in processes of their
own; this one stays free of any connection until the datastore opens it.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qswitch import yang

from . import access, first_start
from .config import AgentConfig, RepositoryConfig
from .errors import ConfigurationError, DatastoreFailed

log = logging.getLogger(__name__)

MARKER = "qswitch.json"
_SHARED_MEMORY = Path("/dev/shm")
_TOOL_SECONDS = 60.0

Data = dict[str, Any]


def environment(config: RepositoryConfig) -> dict[str, str]:
    """What tells sysrepo, in this process or a child, which repository is meant."""
    return {"SYSREPO_REPOSITORY_PATH": str(config.path), "SYSREPO_SHM_PREFIX": config.shm_prefix}


def enter(config: RepositoryConfig) -> None:
    """Makes every later connection of this process one to this repository."""
    os.environ.update(environment(config))


def prepare(config: AgentConfig) -> None:
    """Sets the repository up unless it is, and enters it.

    Raises ConfigurationError when the place belongs to something else, DatastoreFailed when sysrepo's tools fail.
    """
    enter(config.repository)
    path = config.repository.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        found = _marker(path)
        if found is None:
            _clear(config)
            _set_up(config)
        else:
            _check(config, found)


def _marker(path: Path) -> Data | None:
    """What the last complete setup wrote; None when there was none."""
    try:
        found: Data = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigurationError(str(path / MARKER), f"is not readable: {error}") from error
    return found


def _check(config: AgentConfig, marker: Data) -> None:
    if marker.get("node") != config.node:
        problem = f"[node] repository: {config.repository.path} belongs to node {marker.get('node')}, not {config.node}"
        raise ConfigurationError(str(config.file), problem)
    modules = _modules()
    if marker.get("modules") != modules:
        _upgrade(config, marker.get("modules", {}), modules)
        _mark(config)


def _set_up(config: AgentConfig) -> None:
    log.info("setting up repository path=%s", config.repository.path)
    config.repository.path.mkdir(mode=0o755, exist_ok=True)
    _install(config)
    text = json.dumps(access.rules(config.netconf.users) | first_start.server(config))
    for datastore in ("startup", "running"):
        tool(config.repository, ["sysrepocfg", "-E", "-d", datastore, "-f", "json"], text)
    _mark(config)


def _install(config: AgentConfig) -> None:
    """All modules in one call, which takes a tenth of the time that one call for each would."""
    node = config.repository.path.with_name(f".{config.repository.path.name}.json")
    node.write_text(json.dumps(first_start.node(config)), encoding="utf-8")
    _add(config, {yang.NODE: node})  # its mandatory leaf must be there from the first moment
    node.unlink()


def _upgrade(config: AgentConfig, old: dict[str, str], new: dict[str, str]) -> None:
    """Brings modules that changed with this version of the software into the repository; their data stay."""
    log.info("upgrading modules path=%s", config.repository.path)
    for module in (*yang.SERVER, *yang.QKD):
        if _is_ours(module) and module.name in old and old[module.name] != new[module.name]:
            tool(config.repository, ["sysrepoctl", "-s", _search_path(), "-U", str(module.file)])
    _add(config, {})


def _add(config: AgentConfig, initial: Mapping[str, Path]) -> None:
    """Installs what is not there yet, modules and features, and has events stored."""
    arguments = ["sysrepoctl", "-s", _search_path()]
    for module in (yang.Module("ietf-netconf", yang.NETCONF_FEATURES), *yang.SERVER, *yang.QKD):
        arguments += ["-i", str(module.file), *_features(module.features)]
        arguments += ["-I", str(initial[module.name])] if module.name in initial else []
    tool(config.repository, arguments)
    for name in yang.REPLAY:
        tool(config.repository, ["sysrepoctl", "-c", name, "-r", "on"])


def _search_path() -> str:
    return ":".join(map(str, yang.SEARCH))


def _features(names: Sequence[str]) -> list[str]:
    return [argument for name in names for argument in ("-e", name)]


def _modules() -> dict[str, str]:
    """What a node implements now: this project's modules by the digest of their text, those of others by their file."""
    return {module.name: _version(module) for module in (*yang.SERVER, *yang.QKD)}


def _version(module: yang.Module) -> str:
    file = module.file
    return hashlib.sha256(file.read_bytes()).hexdigest() if _is_ours(module) else file.name


def _is_ours(module: yang.Module) -> bool:
    return module.file.parent == yang.FOLDER


def _mark(config: AgentConfig) -> None:
    marker = config.repository.path / MARKER
    text = json.dumps({"node": config.node, "modules": _modules()}, indent=1)
    part = marker.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(marker)


# The place -----------------------------------------------------------------------------------------------------------


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time changes the modules of a repository; the lock goes with the process."""
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear(config: AgentConfig) -> None:
    """Removes what an interrupted setup, or a repository that stood at this place before, left behind."""
    path, prefix = config.repository.path, config.repository.shm_prefix
    left = [*_SHARED_MEMORY.glob(f"{prefix}_*"), *_SHARED_MEMORY.glob(f"{prefix}sub_*")]
    if (user := _user_of(left)) is not None:
        problem = f"[node] shm_prefix: '{prefix}' is in use by another repository (process {user})"
        raise ConfigurationError(str(config.file), problem)
    if path.exists() and any(path.iterdir()) and not (path / "sr_main_lock").exists():
        raise ConfigurationError(str(config.file), f"[node] repository: {path} holds something else than a repository")
    for file in left:
        file.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _user_of(files: Sequence[Path]) -> int | None:
    """A process that has one of the files mapped, of those that we may look at."""
    names = [os.fsencode(file) for file in files]
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_bytes() if names else b""
        except OSError:
            continue
        if any(name in text for name in names):
            return int(maps.parent.name)
    return None


def tool(config: RepositoryConfig, command: Sequence[str], text: str = "") -> str:
    """Runs one of sysrepo's tools; what it prints. Secrets go by standard input only. Raises DatastoreFailed."""
    try:
        done = subprocess.run(
            command,
            input=text,
            cwd=yang.FOLDER,  # libyang searches the current folder, with all below it
            env={**os.environ, **environment(config)},
            capture_output=True,
            encoding="utf-8",
            timeout=_TOOL_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise DatastoreFailed(f"'{command[0]}' is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise DatastoreFailed(f"'{command[0]}' did not end within {_TOOL_SECONDS:g} s") from error
    if done.returncode:
        raise DatastoreFailed(f"'{command[0]} {command[1]}' failed: {_reason(done.stderr)}")
    return done.stdout


def _reason(output: str) -> str:
    return "; ".join(line.strip() for line in output.splitlines() if line.strip())[:1000] or "without a word"
