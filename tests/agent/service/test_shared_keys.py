"""Several clients at one node to whom a key stream's key is given (015: clients_shared_keys_required), over TLS."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from etsi004_callers import CALLERS, Caller, Qos
from etsi004_network import AB, Network, Pair, until

from qswitch.agent.model import Admission, ApplicationStatus, KeyStreamId, Qos as AppQos


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    one = Network(tmp_path_factory.mktemp("nodes"))
    one.start()
    try:
        yield one
    finally:
        one.stop()
    assert not one.failures


@dataclass
class Group:
    """Alice at one node; Bob and Carol at the other share the key."""

    network: Network
    alice: Caller
    bob: Caller
    carol: Caller
    ksid: str
    uris: tuple[str, str, str]

    def joins(self, who: Caller) -> int:
        return who.open(who.who.uri, self.uris[0], Qos(), self.ksid).status

    def share(self, *clients: Caller) -> None:
        """The controller names the clients; returns once the node knows."""
        uris = tuple(one.who.uri for one in clients)
        self.network.change(self.ksid, client_app_ids=uris, qos=AppQos(clients_shared_keys=len(uris) > 1))
        until(lambda: self.network.servers["b"].entries[KeyStreamId(self.ksid)].client_app_ids == uris)
        self.network.wait(self.turn())

    async def turn(self) -> None:
        """What was applied has been seen to."""


@pytest.fixture(params=["C", "P"])
def group(network: Network, request: pytest.FixtureRequest) -> Iterator[Group]:
    pair = Pair(network, request.param, "b", AB, Admission.ADMITTED)
    ksid = pair.opened()
    carol = CALLERS[request.param](network.identity("b", "carol"))
    yield Group(network, pair.a, pair.b, carol, ksid, (*pair.uris, carol.who.uri))
    for one in (pair, carol):
        one.leave()


def test_each_of_the_clients_gets_each_key_once(group: Group) -> None:
    assert group.joins(group.carol) == 5
    group.share(group.bob, group.carol)
    assert group.joins(group.carol) == 0
    keys = [group.alice.get(group.ksid, index).key for index in range(4)]
    assert len(set(keys)) == 4
    for who in (group.bob, group.carol):
        assert [who.get(group.ksid, index).key for index in range(4)] == keys
        assert who.get(group.ksid, 3).key == keys[3]
        assert [who.get(group.ksid, index).status for index in range(3)] == [4, 4, 4]
    until(lambda: group.network.stored("b", group.ksid) > 0)


def test_one_beyond_those_who_are_named_gets_5_and_no_key(group: Group) -> None:
    group.share(group.bob, group.carol)
    dave = CALLERS[group.bob.name](group.network.identity("b", "dave"))
    assert group.joins(dave) == 5
    assert dave.get(group.ksid, 0).status == dave.close(group.ksid) == 3
    moved = CALLERS[group.bob.name](replace(group.carol.who, port=group.alice.who.port))
    assert group.joins(moved) == 5, "at the other end one application reads"
    for one in (dave, moved):
        one.leave()


def test_a_client_that_has_not_opened_gets_no_key(group: Group) -> None:
    group.share(group.bob, group.carol)
    assert group.carol.get(group.ksid, 0).status == 3


def test_the_end_is_open_until_the_last_client_closes(group: Group) -> None:
    group.share(group.bob, group.carol)
    assert group.joins(group.carol) == 0
    key = group.alice.get(group.ksid, 0).key
    assert group.bob.close(group.ksid) == group.bob.close(group.ksid) == 0
    assert group.bob.get(group.ksid, 0).status == 3
    assert group.network.peer_attached("a", group.ksid) and group.network.on("b", group.ksid)
    assert not group.network.departures("b", group.ksid)
    assert group.carol.get(group.ksid, 0).key == key
    assert group.joins(group.bob) == 0 and group.bob.get(group.ksid, 0).key == key  # he had not got it yet
    for one in (group.carol, group.bob):
        assert one.close(group.ksid) == 0
    until(lambda: not group.network.peer_attached("a", group.ksid))
    assert group.network.departures("b", group.ksid) == 1
    state = group.network.servers["b"].table.states()[KeyStreamId(group.ksid)]
    assert state.status is ApplicationStatus.DISCONNECTED


def test_who_is_named_no_longer_gets_no_more(group: Group) -> None:
    group.share(group.bob, group.carol)
    assert group.joins(group.carol) == 0
    assert group.carol.get(group.ksid, 0).key == group.bob.get(group.ksid, 0).key
    group.share(group.bob)
    assert group.carol.get(group.ksid, 1).status == 3 and group.joins(group.carol) == 5
    assert group.bob.get(group.ksid, 0).status == 4, "it is not known any more whose it was"
    assert group.bob.get(group.ksid, 1).key == group.alice.get(group.ksid, 1).key


def test_without_a_ksid_a_further_client_joins_what_its_peer_has_opened(group: Group) -> None:
    group.share(group.bob, group.carol)
    joined = group.carol.open(group.uris[0], group.carol.who.uri, Qos())
    assert (joined.status, joined.ksid) == (0, group.ksid)
