"""Time does not tell a caller of ETSI 004 whether a key stream that is not its own exists."""

import statistics
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from etsi004_callers import CallerC, CallerP, SteadyC
from etsi004_network import AB, Network, Pair
from timing import taken, told_apart

from qswitch.agent.model import Admission


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    one = Network(tmp_path)
    one.start()
    yield one
    one.stop()


STRANGERS: dict[str, type[CallerP] | type[CallerC]] = {"P": CallerP, "C": SteadyC}


async def assert_time_tells_nothing(ways: dict[str, Callable[[], int]], wants: int) -> None:
    async def ask(way: Callable[[], int]) -> None:
        assert way() == wants

    times = await taken({name: partial(ask, way) for name, way in ways.items()})
    assert not told_apart(times), {name: statistics.median(one) for name, one in times.items()}


def ksids(network: Network) -> dict[str, str]:
    """Of two others, one of which is closed at this end; and nobody's."""
    open_one, half = (Pair(network, "P", "b", AB, Admission.ADMITTED) for _ in range(2))
    found = {"others'": open_one.opened(), "closed": half.opened(), "nobody's": str(uuid.uuid4())}
    half.a.close(found["closed"])
    assert open_one.a.get(found["others'"]).status == 0
    return found


@pytest.mark.parametrize("kind", STRANGERS)
async def test_key_of_a_stream_of_others_and_of_none(network: Network, kind: str) -> None:
    stranger = STRANGERS[kind](network.identity("a", "mallory"))
    streams = ksids(network)

    def get(ksid: str) -> int:
        return stranger.get(ksid).status

    await assert_time_tells_nothing({name: partial(get, ksid) for name, ksid in streams.items()}, 3)
    await assert_time_tells_nothing({name: partial(stranger.close, ksid) for name, ksid in streams.items()}, 3)
    stranger.leave()


@pytest.mark.parametrize("kind", STRANGERS)
async def test_opening_in_the_name_of_others_and_of_none_and_with_their_key_stream(network: Network, kind: str) -> None:
    """That a KSID is in use, its status says (5); not by whom, nor what became of the stream."""
    who = network.identity("a", "mallory")
    stranger = STRANGERS[kind](who)
    pair = Pair(network, "P", "b", AB, Admission.ADMITTED)
    streams = {"others'": pair.opened(), **ksids(network)}
    one, other = pair.uris
    nobody = "qkd://" + "0" * 8 + one[len("qkd://") + 8 :]

    def open_(source: str, destination: str, ksid: str | None) -> int:
        return stranger.open(source, destination, ksid=ksid).status

    names = {"others": (one, other), "nobody": (nobody, other), "both": (nobody, nobody + "x")}
    await assert_time_tells_nothing({name: partial(open_, *uris, None) for name, uris in names.items()}, 4)
    ways = {name: partial(open_, *uris, streams["others'"]) for name, uris in names.items()}
    ways["nobody's KSID"] = partial(open_, *names["nobody"], streams["nobody's"])
    await assert_time_tells_nothing(ways, 4)
    known = {name: ksid for name, ksid in streams.items() if name != "nobody's"}
    await assert_time_tells_nothing({name: partial(open_, who.uri, other, ksid) for name, ksid in known.items()}, 5)
    stranger.leave()
