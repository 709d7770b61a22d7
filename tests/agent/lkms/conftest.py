"""A network of key managers for a test, stopped after it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from key_managers import Net

from qswitch.integration.identities import Authority


@pytest.fixture
async def net(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[Net]:
    one = Net(tmp_path, Authority("tests"), unused_tcp_port_factory)
    yield one
    for node in one.nodes.values():
        await node.keys.stop()
