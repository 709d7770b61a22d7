"""One network for the whole suite, new applications for every case; every case runs in both encodings and names its clause.

Sentences are of ETSI GS QKD 004 v2.1.1, in words of ours. Where it leaves room, docs/applications.md says what nodes do.
"""

import re
import uuid
from collections.abc import Iterator

import pytest
from etsi004_network import AB, Network, Pair, Pairs

from qswitch.agent.model import Admission, LinkId

CLAUSE = re.compile(r"(Clause [456](\.\d)*(, (table [123]|note|consideration \d|case \d))*|Wire): ")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        function = getattr(item, "function", None)
        if "etsi004" in item.path.parts and not CLAUSE.match(getattr(function, "__doc__", None) or ""):
            raise pytest.UsageError(f"{item.nodeid}: its first words are to name the clause")


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    one = Network(tmp_path_factory.mktemp("nodes"))
    one.start()
    try:
        yield one
    finally:
        one.stop()
    assert not one.failures
    assert not [alarm for server in one.servers.values() for alarm in server.node.seen.alarms]


@pytest.fixture(params=["C", "P"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pairs(network: Network, dialect: str) -> Iterator[Pairs]:
    """Makes pairs of applications."""
    made: list[Pair] = []

    def make(kinds: str = dialect, far: str = "b", link: LinkId = AB, admission: Admission = Admission.ADMITTED) -> Pair:
        made.append(Pair(network, kinds, far, link, admission))
        return made[-1]

    yield make
    for one in made:
        one.leave()


@pytest.fixture
def pair(pairs: Pairs) -> Pair:
    return pairs()


@pytest.fixture
def ksid() -> str:
    """Agreed beforehand."""
    return str(uuid.uuid4())
