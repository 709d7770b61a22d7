"""Whole emulated networks, for as long as a fixture lasts: every daemon is the real one."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qswitch.integration.emulation import Emulation
from qswitch.integration.layout import Layout


def up(layout: Layout, engine: str) -> Iterator[Emulation]:
    """Its logs are as talkative as can be, to be searched for key. Fails when a daemon does not end as it is asked to."""
    with tempfile.TemporaryDirectory(prefix=f"qswitch-{layout.name}-") as directory:
        network = Emulation.create(layout, Path(directory) / layout.name, engine)
        network.verbose = True
        try:
            asyncio.run(network.start(print))
            yield network
        finally:
            killed = asyncio.run(network.down())
        assert not killed, f"did not end when asked: {killed}"
