"""One prepared repository with one serving process for each test module."""

from collections.abc import Iterator

import pytest
from netconf_front import Front, serving


@pytest.fixture(scope="module")
def front(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A prepared repository and a serving process, for each engine under test."""
    with serving(tmp_path_factory.mktemp("front"), ("controller", "monitor"), engine=engine) as front:
        yield front
