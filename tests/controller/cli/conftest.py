"""The API over TLS, served once; a fresh network behind it for each test."""

from collections.abc import Iterator

import pytest
from held_network import Served, serve


@pytest.fixture(scope="session")
def _server() -> Iterator[Served]:
    with serve() as one:
        yield one


@pytest.fixture
def served(_server: Served) -> Served:
    _server.network.reset()
    return _server
