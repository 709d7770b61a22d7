"""CLOSE: what it ends, and what it must leave to the other side."""

import pytest
from etsi004_callers import CALLERS, CLOSE, Qos, frame, ksid_octets
from etsi004_network import Network, Pair, Pairs, until


def closed_by_a(pair: Pair, network: Network, qos: Qos | None = None) -> tuple[str, list[bytes]]:
    """A stream of which A has read four chunks and closed; both nodes have heard of it."""
    ksid = pair.opened(qos)
    until(lambda: network.stored("b", ksid) >= 20)
    ones = [pair.a.get(ksid, index).key for index in range(4)]
    assert pair.a.close(ksid) == 0
    until(lambda: not network.peer_attached("b", ksid))
    return ksid, ones


def test_the_other_reads_on(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: key not used yet is kept until the peer has closed too: it reads what was reserved."""
    ksid, ones = closed_by_a(pair, network)
    assert [pair.b.get(ksid, index).key for index in range(4)] == ones
    assert [pair.b.get(ksid, index).status for index in range(4, 20)] == [0] * 16


def test_nothing_more_is_allocated(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: after CLOSE no key is allocated to the KSID any more: beyond what is reserved the peer gets 3."""
    ksid, _ = closed_by_a(pair, network)
    reserved = network.stored("b", ksid)
    assert [pair.b.get(ksid, index).status for index in (0, reserved - 1)] == [0, 0]
    assert [pair.b.get(ksid, reserved + beyond).status for beyond in (0, 1, 40)] == [3, 3, 3]


def test_discarded_when_both_have_closed(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: once the peer has closed as well, what nobody read is discarded at both ends."""
    ksid, _ = closed_by_a(pair, network)
    assert pair.b.close(ksid) == 0
    until(lambda: network.stored("a", ksid) == network.stored("b", ksid) == 0)
    assert [pair.a.get(ksid, 9).status, pair.b.get(ksid, 9).status] == [3, 3]


def test_discarded_at_ttl(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: … or until TTL: a peer that never closes does not keep it for ever."""
    ksid, _ = closed_by_a(pair, network, Qos(ttl=1))
    until(lambda: network.stored("b", ksid) == 0)
    assert pair.b.get(ksid, 9).status != 0


def test_one_s_own_end_is_over(pair: Pair) -> None:
    """Clause 6.1, table 1: CLOSE ends the association: this side gets nothing more of it."""
    ksid = pair.opened()
    assert pair.a.get(ksid, 0).status == pair.a.close(ksid) == 0
    assert [pair.a.get(ksid, index).status for index in (0, 1)] == [3, 3]


def test_closed_again(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: CLOSE always returns a status; 0 for a stream that is closed, and nobody is told twice."""
    ksid = pair.opened()
    assert [pair.a.close(ksid) for _ in range(3)] == [0] * 3
    assert network.departures("a", ksid) == 1


@pytest.mark.parametrize("at", ["a", "b"])
def test_nobody_else_closes_it(pair: Pair, network: Network, dialect: str, at: str) -> None:
    """Clause 6.1, table 1: an application closes its own association, and no other's."""
    ksid = pair.opened()
    third = CALLERS[dialect](network.identity(at, "eve"))
    assert third.close(ksid) == 3
    third.leave()
    assert pair.a.get(ksid, 0).key == pair.b.get(ksid, 0).key != b""


def test_a_peer_that_waits_is_told(pairs: Pairs, network: Network) -> None:
    """Clause 6.1, table 1: GET_KEY that waits for key ends with 3 when the peer closes: there will be none."""
    pair = pairs(link=network.dry_link())
    ksid = pair.opened()
    waiting = network.later(pair.b.get, ksid, 0)
    until(lambda: network.waits("b", ksid))
    assert pair.a.close(ksid) == 0
    assert waiting.result(5).status == 3


def test_closing_before_the_peer_came(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: who closes before the peer came has closed; the peer, who comes later, waits for it in vain."""
    opened = pair.a.open(*pair.uris, Qos())
    assert opened.ksid and pair.a.close(opened.ksid) == 0
    assert pair.b.open(*pair.uris, Qos(timeout=500), opened.ksid).status == 6


def test_opened_again(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: a KSID that both have closed may be opened again; its key is other key."""
    ksid = pair.opened()
    before = {pair.a.get(ksid, index).key for index in range(5)}
    assert pair.a.close(ksid) == pair.b.close(ksid) == 0
    early = network.later(pair.a.open, *pair.uris, Qos(), ksid)
    assert pair.b.open(*pair.uris, Qos(), ksid).status == early.result(10).status == 0
    after = [pair.a.get(ksid, index).key for index in range(5)]
    assert after == [pair.b.get(ksid, index).key for index in range(5)] and not before & set(after)


@pytest.mark.parametrize("over", ["a", "b", "ab"])
def test_opened_again_when_it_was_over_already(pair: Pair, network: Network, over: str) -> None:
    """Clause 6.1, table 1: the same where an end, or both, have seen that both have closed: the controller begins the stream
    anew, whoever has opened it meanwhile."""
    ksid = pair.opened()
    until(lambda: network.peer_seen("a", ksid) and network.peer_seen("b", ksid))
    with network.only_refreshing(over):
        assert pair.a.close(ksid) == pair.b.close(ksid) == 0
        until(lambda: all(network.over(node, ksid) for node in over))
        early = network.later(pair.a.open, *pair.uris, Qos(), ksid)
        until(lambda: network.on("a", ksid))
        assert pair.b.open(*pair.uris, Qos(), ksid).status == early.result(10).status == 0
    assert [pair.a.get(ksid, index).key for index in range(5)] == [pair.b.get(ksid, index).key for index in range(5)]


def test_closing_and_hanging_up(pair: Pair, network: Network) -> None:
    """Clause 6.1, table 1: CLOSE ends the association also of a caller who does not wait for the reply."""
    ksid = pair.opened()
    with pair.a.who.connect(False) as connection:
        connection.sendall(frame(pair.a.version, CLOSE, ksid_octets(ksid)))
    until(lambda: not network.peer_attached("b", ksid))
