"""Time does not tell a caller of ETSI 004 what is not its own: whose key streams there are, how they are, who else there is.

Where the standard has two answers, status tells (5: somebody else's), and time is compared among those who get the same.
"""

import ssl
import statistics
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

import pytest
from etsi004_callers import CallerC, CallerP, Identity, Qos
from etsi004_network import AB, Network, Pair
from timing import Times, taken, told_apart

from qswitch.agent.model import Admission

ROOM = Qos(timeout=5_000)


class Kept(Identity):
    """One connection for all calls, in either dialect: the time of a handshake would hide that of an answer."""

    @cached_property
    def _kept(self) -> ssl.SSLSocket:
        return super().connect(names_checked=False)

    def connect(self, names_checked: bool) -> ssl.SSLSocket:
        return self._kept


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    one = Network(tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture(params=[CallerC, CallerP], ids=["C", "P"])
def stranger(network: Network, request: pytest.FixtureRequest) -> Iterator[CallerC | CallerP]:
    who = network.identity("a", "mallory")
    caller = request.param(Kept(who.uri, who.certificate, who.key, who.ca, who.port))
    yield caller
    caller.leave()


@pytest.fixture
def others(network: Network) -> Iterator[Pair]:
    """Two applications with a key stream."""
    pair = Pair(network, "P", "b", AB, Admission.ADMITTED)
    yield pair
    pair.leave()


@pytest.fixture
def ksids(network: Network, others: Pair) -> Iterator[dict[str, str]]:
    """Nobody's; two others', one of which is closed at this end."""
    half = Pair(network, "P", "b", AB, Admission.ADMITTED)
    found = {"nobody's": str(uuid.uuid4()), "others'": others.opened(), "closed": half.opened()}
    half.a.close(found["closed"])
    assert others.a.get(found["others'"]).status == 0
    yield found
    half.leave()


async def asked(ways: dict[str, Callable[[], int]], *wants: int) -> Times:
    """In the order of the ways, or of all of them, what they are answered."""

    async def ask(way: Callable[[], int], wanted: int) -> None:
        assert way() == wanted

    answers = wants * len(ways) if len(wants) == 1 else wants
    return await taken({name: partial(ask, way, one) for (name, way), one in zip(ways.items(), answers, strict=True)})


async def alike(ways: dict[str, Callable[[], int]], wanted: int) -> None:
    """Who only sometimes seems apart is not: load does that, and a difference in the code shows every time."""
    for _ in range(2):
        times = await asked(ways, wanted)
        if not (apart := told_apart(times)):
            return
    raise AssertionError((apart, {name: statistics.median(one) for name, one in times.items()}))


async def test_get_key_and_close_of_a_stream_of_others_and_of_none(
    stranger: CallerC | CallerP, ksids: dict[str, str]
) -> None:
    def got(ksid: str) -> int:
        return stranger.get(ksid).status

    await alike({name: partial(got, ksid) for name, ksid in ksids.items()}, 3)
    await alike({name: partial(stranger.close, ksid) for name, ksid in ksids.items()}, 3)


async def test_open_connect_for_others_of_their_stream_and_of_nobodys(
    stranger: CallerC | CallerP, others: Pair, ksids: dict[str, str]
) -> None:
    """Among calls that name a KSID: that one takes longer to read than none, its sender knows."""

    def opened(ksid: str) -> int:
        return stranger.open(*others.uris, ROOM, ksid).status

    await alike({name: partial(opened, ksid) for name, ksid in ksids.items()}, 4)


async def test_open_connect_of_a_stream_of_others_and_of_a_closed_one(
    stranger: CallerC | CallerP, others: Pair, ksids: dict[str, str]
) -> None:
    def opened(ksid: str, peer: str) -> int:
        return stranger.open(stranger.who.uri, peer, ROOM, ksid).status

    nobody = others.uris[1] + "-nobody"
    ways = {
        "others'": partial(opened, ksids["others'"], others.uris[1]),
        "closed": partial(opened, ksids["closed"], others.uris[1]),
        "others' with nobody": partial(opened, ksids["others'"], nobody),
    }
    await alike(ways, 5)


async def test_open_connect_to_an_application_that_is_another_s_peer_and_to_none(
    network: Network, stranger: CallerC | CallerP, others: Pair, ksids: dict[str, str]
) -> None:
    """What the controller answers, the test says; the node must not make a difference before or after."""

    def opened(peer: str) -> int:
        return stranger.open(stranger.who.uri, peer, ROOM).status

    peers = {"another's peer": others.uris[1], "nobody": others.uris[1] + "0", "at no node": "qkd://nowhere/bob"}
    await alike({name: partial(opened, peer) for name, peer in peers.items()}, 4)


async def test_a_difference_would_be_found(network: Network, stranger: CallerC | CallerP, ksids: dict[str, str]) -> None:
    """A fraction of a millisecond of work before one of the answers, as code might do that compares with all it has."""
    table = network.servers["a"].table
    held = table._held

    def slower(caller: frozenset[str], ksid: str) -> object:
        if ksid == ksids["others'"]:
            assert not [one for one in range(2000) if str(one) in caller]
        return held(caller, ksid)

    table._held = slower  # type: ignore[method-assign,assignment]
    times = await asked({name: partial(stranger.close, ksid) for name, ksid in ksids.items()}, 3)
    assert {("nobody's", "others'"), ("others'", "closed")} <= told_apart(times).keys()
