"""Imports go one way: wiring knows everything; codecs, models, state machines, paths and plans know no I/O."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "agent", "controller", "app", "yang", "integration")

# What each package may import of the others.
ALLOWED = {
    "protocol": set[str](),
    "yang": set[str](),
    "agent": {"protocol", "yang"},
    "controller": {"protocol", "yang"},
    "app": {"protocol"},
    "integration": {"protocol", "yang", "agent", "controller", "app"},
}
IO = {
    "asyncio",
    "sysrepo",
    "ncclient",
    "asyncssh",
    "click",
    "fastapi",
    "httpx",
    "uvicorn",
    "sqlite3",
    "ssl",
    "socket",
    "threading",
}
# Modules that decide and never do.
PURE = [
    "protocol/*.py",
    "agent/model.py",
    "agent/errors.py",
    "agent/config.py",
    "agent/link_rules.py",
    "agent/notifications.py",
    "agent/stream_rules.py",
    "agent/yangdata.py",
    "agent/lkms/blocks.py",
    "agent/lkms/delivery.py",
    "agent/lkms/delivery_end.py",
    "agent/lkms/delivery_master.py",
    "agent/lkms/delivery_slave.py",
    "agent/lkms/keys.py",
    "agent/lkms/lines.py",
    "agent/lkms/pool.py",
    "agent/lkms/promises.py",
    "agent/lkms/ranges.py",
    "agent/lkms/relay.py",
    "agent/lkms/relay_pads.py",
    "agent/lkms/relay_source.py",
    "agent/lkms/shares.py",
    "agent/lkms/otp.py",
    "agent/lkms/stream_end.py",
    "agent/lkms/stream_growth.py",
    "agent/lkms/stream_reading.py",
    "agent/lkms/streams.py",
    "agent/lkms/tags.py",
    "app/records.py",
    "controller/assignment.py",
    "controller/model.py",
    "controller/errors.py",
    "controller/topology.py",
    "controller/paths.py",
    "controller/disjoint.py",
    "controller/plan.py",
    "controller/checks.py",
    "controller/southbound/algorithms.py",
    "controller/southbound/capabilities.py",
    "controller/southbound/certificates.py",
    "controller/southbound/clock.py",
    "controller/southbound/modules.py",
]


def _imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, relative ones resolved to qswitch.PACKAGE…"""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parents = path.relative_to(ROOT).parts[: -node.level]
                found.add(".".join(("qswitch", *parents, *([node.module] if node.module else []))))
            else:
                found.add(node.module or "")
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _files(pattern: str) -> list[Path]:
    return sorted(ROOT.glob(pattern))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in _files(f"{package}/**/*.py")
        for name in _imports(path)
        if name.startswith("qswitch.") and name.split(".")[1] not in ALLOWED[package] | {package}
    ]
    assert not wrong


@pytest.mark.parametrize("pattern", PURE)
def test_deciding_modules_do_no_io(pattern: str) -> None:
    paths = _files(pattern)
    assert paths, f"no file matches {pattern}"
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path in paths for name in _imports(path) if name.split(".")[0] in IO]
    assert not wrong


def test_command_line_of_the_controller_needs_no_daemon() -> None:
    heavy = {"networkx", "sysrepo", "ncclient", "asyncssh", "fastapi", "uvicorn"}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in _files("controller/cli/*.py")
        for name in _imports(path)
        if name.split(".")[0] in heavy
    ]
    assert not wrong
