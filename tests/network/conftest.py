"""Networks that are started once for each NETCONF engine, and shared."""

from collections.abc import Iterator

import pytest
from networks import up

from qswitch.integration import layout
from qswitch.integration.emulation import Emulation


@pytest.fixture(scope="session")
def madrid(engine: str) -> Iterator[Emulation]:
    """Nine nodes; tests leave its fibres and nodes as they found them."""
    yield from up(layout.load("madrid"), engine)


@pytest.fixture(scope="module")
def triangle(engine: str) -> Iterator[Emulation]:
    """Four nodes for tests that break things."""
    yield from up(layout.load("triangle"), engine)
