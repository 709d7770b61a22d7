"""Time does not tell a caller of ETSI 004 whether a key stream that is not its own exists."""

import statistics
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from etsi004_callers import CALLERS, Caller
from etsi004_network import AB, Network, Pair
from timing import Times, taken, told_apart

from qswitch.agent.model import Admission


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    one = Network(tmp_path)
    one.start()
    yield one
    one.stop()


async def asked(ways: dict[str, Callable[[], int]], wants: int) -> Times:
    async def ask(way: Callable[[], int]) -> None:
        assert way() == wants

    return await taken({name: partial(ask, way) for name, way in ways.items()})


def ksids(network: Network, caller: Caller, kind: str) -> dict[str, str]:
    """Nobody's; two others', one of which is closed at this end; one that the caller itself has closed."""
    open_one, half = (Pair(network, kind, "b", AB, Admission.ADMITTED) for _ in range(2))
    found = {"nobody's": str(uuid.uuid4()), "others'": open_one.opened(), "closed": half.opened()}
    half.a.close(found["closed"])
    assert open_one.a.get(found["others'"]).status == 0
    return found


@pytest.mark.parametrize("kind", "P")
async def test_key_of_a_stream_of_others_and_of_none(network: Network, kind: str) -> None:
    stranger = CALLERS[kind](network.identity("a", "mallory"))
    streams = ksids(network, stranger, kind)
    times = await asked({name: partial(lambda ksid: stranger.get(ksid).status, ksid) for name, ksid in streams.items()}, 3)
    assert not told_apart(times), {name: statistics.median(one) for name, one in times.items()}
    times = await asked({name: partial(stranger.close, ksid) for name, ksid in streams.items()}, 3)
    assert not told_apart(times), {name: statistics.median(one) for name, one in times.items()}
    stranger.leave()
