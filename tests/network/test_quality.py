"""The quality of service of key streams in a whole network: what is offered instead, and what who joins is told."""

from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from applications import QOS, application, client, pair, rest_client
from lxml import etree
from stock_client import NAMES, ncclient, numbers, seen

from qswitch.app.errors import StatusError
from qswitch.integration.emulation import Emulation
from qswitch.protocol.etsi004 import Dialect, Qos, Status


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("asked", [replace(QOS, min_bps=10**9), replace(QOS, max_bps=2 * 10**9, min_bps=10**9)])
async def test_what_is_offered_with_status_7_is_had(triangle: Emulation, dialect: Dialect, asked: Qos) -> None:
    uris = application(triangle, "alpha-1")["uri"], application(triangle, "delta-1")["uri"]
    async with client(triangle, "alpha-1", dialect) as alpha, client(triangle, "delta-1", dialect) as delta:
        with pytest.raises(StatusError) as refused:
            await alpha.open_connect(*uris, asked)
        offered = refused.value.offered
        assert refused.value.status is Status.QOS_NOT_MET and offered is not None
        assert 0 < offered.min_bps < asked.min_bps and replace(offered, min_bps=asked.min_bps) == asked
        opened = await alpha.open_connect(*uris, offered)
        assert opened.ksid and opened.qos.min_bps == offered.min_bps
        await delta.open_connect(*uris, QOS, opened.ksid)
        assert (await alpha.get_key(opened.ksid, 0)).key == (await delta.get_key(opened.ksid, 0)).key
        for one in (alpha, delta):
            await one.close(opened.ksid)


async def test_who_joins_is_told_what_the_opener_asked_for(triangle: Emulation) -> None:
    """004 clause 6.2.2, and of those that 015 has no leaf for as well."""
    uris = application(triangle, "alpha-1")["uri"], application(triangle, "delta-1")["uri"]
    asked = replace(QOS, max_bps=9_000, min_bps=500, jitter=700, priority=3, timeout=9_000, ttl=60)
    async with client(triangle, "alpha-1") as alpha, client(triangle, "delta-1") as delta:
        opened = await alpha.open_connect(*uris, asked)
        assert opened.ksid and opened.qos == asked
        joined = await delta.open_connect(*uris, Qos(key_chunk_size=99, jitter=1, timeout=8_000), opened.ksid)
        assert joined.qos == asked
        for one in (alpha, delta):
            await one.close(opened.ksid)


async def test_clients_of_one_node_share_key(triangle: Emulation) -> None:
    """Named by the operator; each of them is given each key once, and nobody else any."""
    uris = [application(triangle, name)["uri"] for name in ("alpha-1", "delta-1", "delta-2")]
    async with pair(triangle, "alpha-1", "delta-1") as (alpha, delta, ksid), client(triangle, "delta-2") as other:
        with pytest.raises(StatusError) as refused:
            await other.open_connect(uris[2], uris[0], QOS, ksid)
        assert refused.value.status is Status.KSID_IN_USE
        async with triangle.api() as api:
            shared = await api.put(f"/v1/apps/{ksid}/clients", json={"clients": uris[1:]})
            assert shared.status_code == 200 and shared.json()["client_app_ids"] == uris[1:]
        await other.open_connect(uris[2], uris[0], QOS, ksid)
        keys = [[(await one.get_key(ksid, index)).key for index in range(5)] for one in (alpha, delta, other)]
        assert keys[0] == keys[1] == keys[2] and len({bytes(one) for one in keys[0]}) == 5
        for one in (delta, other):
            with pytest.raises(StatusError):
                await one.get_key(ksid, 0)
        await other.close(ksid)


APP = "q:qkd_node/q:qkd_applications/q:qkd_app[q:app_id='{}']/q:app_statistics/q:statistics"
LINK = "q:qkd_node/q:qkd_links/q:qkd_link"


async def test_statistics_are_what_was_delivered(triangle: Emulation) -> None:
    """015 app_statistics by a stock NETCONF client, of both interfaces at both ends."""

    def consumed(node: etree._Element, ksid: str) -> int:
        return sum(numbers(node, f"{APP.format(ksid)}/q:consumed_bits"))

    peer, master = application(triangle, "beta-1")["uri"], application(triangle, "alpha-1")["uri"]
    with ncclient(triangle, "Alpha") as at_alpha, ncclient(triangle, "Beta") as at_beta:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(rest_client(triangle, "alpha-1"))
            second = await stack.enter_async_context(rest_client(triangle, "beta-1"))
            keys = await first.enc_keys(peer, number=5)
            assert len(await second.dec_keys(master, list(keys)[:2])) == 2
            alpha, beta, ksid = await stack.enter_async_context(pair(triangle, "alpha-1", "beta-1"))
            for index in range(7):
                await alpha.get_key(ksid, index)
            for index in range(3):
                await beta.get_key(ksid, index)
            state = await seen(at_alpha, lambda node: consumed(node, ksid) > 0)
            of_014 = next(
                one.findtext("q:app_id", None, NAMES)
                for one in state.iterfind("q:qkd_node/q:qkd_applications/q:qkd_app", NAMES)
                if one.findtext("q:app_id", None, NAMES) != ksid and one.findtext("q:client_app_id", None, NAMES) == peer
            )
            assert of_014
            for session, chunks, of_pair in ((at_alpha, 7, 5), (at_beta, 3, 2)):
                want = (256 * chunks, 256 * of_pair)
                found = await seen(session, lambda node: (consumed(node, ksid), consumed(node, of_014)) == want)  # noqa: B023
                ends = [one.text for one in found.iterfind(f"{APP.format(ksid)}/q:end_time", NAMES)]
                starts = [one.text for one in found.iterfind(f"{APP.format(ksid)}/q:start_time", NAMES)]
                assert sorted(ends)[:-1] == sorted(starts)[1:] and len(ends) <= 6


async def test_expected_consumption_is_what_is_promised(triangle: Emulation) -> None:
    """On a link that nobody draws from who has named no rate: what such a one draws counts, too (test_overload.py)."""
    asked = replace(QOS, max_bps=3_000, min_bps=700)
    uris = application(triangle, "beta-2")["uri"], application(triangle, "gamma-2")["uri"]
    async with client(triangle, "beta-2") as beta, client(triangle, "gamma-2") as gamma:
        with ncclient(triangle, "Beta") as session:
            link = link_of(triangle, "Gamma")

            def promised(node: etree._Element) -> int:
                return numbers(node, f"{link}/q:qkdl_performance/q:expected_consumption")[0]

            before = promised(await seen(session, lambda node: promised(node) >= 0))
            opened = await beta.open_connect(*uris, asked)
            assert opened.ksid
            await seen(session, lambda node: promised(node) == before + 3_000)
            await gamma.open_connect(*uris, QOS, opened.ksid)
            for one in (beta, gamma):
                await one.close(opened.ksid)
            await seen(session, lambda node: promised(node) == before)


def link_of(network: Emulation, far: str) -> str:
    """The path to a node's physical link to another."""
    return f"{LINK}/q:qkdl_remote[q:qkdn_id='{network.node(far)['qkdn_id']}']/.."
