"""Whole emulated networks, started once for each NETCONF engine and shared: every daemon is the real one."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qswitch.integration import layout
from qswitch.integration.emulation import Emulation


def _up(name: str, engine: str) -> Iterator[Emulation]:
    with tempfile.TemporaryDirectory(prefix=f"qswitch-{name}-") as directory:
        emulation = Emulation.create(layout.load(name), Path(directory) / name, engine)
        try:
            emulation.verbose = True  # logs are searched for key
            asyncio.run(emulation.start(print))
            yield emulation
        finally:
            killed = asyncio.run(emulation.down())
        assert not killed, f"did not end when asked: {killed}"


@pytest.fixture(scope="session")
def madrid(engine: str) -> Iterator[Emulation]:
    """Nine nodes; tests leave its fibres and nodes as they found them."""
    yield from _up("madrid", engine)


@pytest.fixture(scope="module")
def triangle(engine: str) -> Iterator[Emulation]:
    """Four nodes for tests that break things."""
    yield from _up("triangle", engine)
