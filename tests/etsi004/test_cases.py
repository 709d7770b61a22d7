"""The five cases of clause 6.2."""

import pytest
from etsi004_callers import UNSPECIFIED, Qos
from etsi004_network import AC, Network, Pair, Pairs, until

SHORT = Qos(timeout=600)


def read(pair: Pair, ksid: str, count: int = 4) -> list[bytes]:
    """So many chunks, the same at both ends."""
    ones = [pair.a.get(ksid, index) for index in range(count)]
    others = [pair.b.get(ksid, index) for index in range(count)]
    assert [one.status for one in ones + others] == [0] * 2 * count
    assert [one.key for one in ones] == [one.key for one in others]
    assert len({one.key for one in ones}) == count
    return [one.key for one in ones]


@pytest.mark.parametrize("mixed", [False, True])
def test_case_1(pairs: Pairs, dialect: str, mixed: bool) -> None:
    """Clause 6.2, case 1: without a KSID A has one at once, tells B, who opens with it; both read the same, both close."""
    pair = pairs({"C": "CP", "P": "PC"}[dialect] if mixed else dialect)
    first = pair.a.open(*pair.uris, Qos(chunk=24, max_bps=50_000, timeout=20_000))
    assert first.status == pair.a.absent and first.ksid
    second = pair.b.open(*pair.uris, ksid=first.ksid)
    assert (second.status, second.ksid) == (0, first.ksid)
    assert {len(key) for key in read(pair, first.ksid)} == {24}
    assert pair.a.close(first.ksid) == pair.b.close(first.ksid) == 0


def test_case_1_get_key_before_the_peer(pair: Pair, network: Network) -> None:
    """Clause 6.2, case 1: A may call GET_KEY before B has connected, and gets its key once B has."""
    first = pair.a.open(*pair.uris, Qos())
    assert first.ksid
    early = network.later(pair.a.get, first.ksid, 0)
    assert pair.b.open(*pair.uris, ksid=first.ksid).status == 0
    late = pair.b.get(first.ksid, 0)
    assert early.result(10).key == late.key and late.status == 0


def test_case_2(pairs: Pairs, network: Network) -> None:
    """Clause 6.2, case 2: the key managers have no key within Timeout, and both sides are told so by GET_KEY."""
    pair = pairs(link=network.dry_link())
    ksid = pair.a.open(*pair.uris, SHORT).ksid
    assert ksid and pair.b.open(*pair.uris, SHORT, ksid).status == 0
    calls = [network.later(one.get, ksid, 0) for one in (pair.a, pair.b)]
    assert [call.result(15).status for call in calls] == [6, 6]


@pytest.mark.parametrize("first", [0, 1])
def test_case_3(pair: Pair, network: Network, ksid: str, first: int) -> None:
    """Clause 6.2, case 3: with a KSID agreed beforehand both open with it, in any order, and no KSID passes between them."""
    ends = (pair.a, pair.b)
    early = network.later(ends[first].open, *pair.uris, Qos(), ksid)
    until(lambda: network.on("ab"[first], ksid))
    late = ends[1 - first].open(*pair.uris, Qos(), ksid)
    assert early.result(10).status == late.status == 0
    assert early.result().ksid == late.ksid == ksid
    read(pair, ksid)


def test_case_4(pairs: Pairs, network: Network, ksid: str) -> None:
    """Clause 6.2, case 4: as case 3, but no key within Timeout: GET_KEY says so at both ends."""
    pair = pairs(link=network.dry_link())
    opening = [network.later(one.open, *pair.uris, SHORT, ksid) for one in (pair.a, pair.b)]
    assert [call.result(15).status for call in opening] == [0, 0]
    calls = [network.later(one.get, ksid, 0) for one in (pair.a, pair.b)]
    assert [call.result(15).status for call in calls] == [6, 6]


@pytest.mark.parametrize("predefined", [False, True])
def test_case_5(pairs: Pairs, network: Network, ksid: str, predefined: bool) -> None:
    """Clause 6.2, case 5: over a network, with a KSID the key server made or one agreed beforehand; Z has A's QoS."""
    pair = pairs(far="c", link=AC)
    asked = Qos(max_bps=40_000)
    if predefined:
        early = network.later(pair.a.open, *pair.uris, asked, ksid)
        until(lambda: network.on("a", ksid))
    else:
        opened = pair.a.open(*pair.uris, asked)
        assert opened.status == pair.a.absent and opened.ksid
        ksid = opened.ksid
    last = pair.b.open(*pair.uris, UNSPECIFIED, ksid)
    assert last.status == 0 and last.qos and (last.qos.chunk, last.qos.max_bps) == (32, 40_000)
    assert not predefined or early.result(10).status == 0
    read(pair, ksid)


def test_case_5_timeout(pairs: Pairs, network: Network, ksid: str) -> None:
    """Clause 6.2, case 5: a time that runs out is an error of the side where it does."""
    pair = pairs(far="c", link=AC)
    assert pair.a.open(*pair.uris, SHORT, ksid).status == 6
    assert pair.b.open(*pair.uris, SHORT, ksid).status == 6
