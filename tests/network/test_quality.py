"""The quality of service of key streams in a whole network: what is offered instead, and what who joins is told."""

from dataclasses import replace

import pytest
from applications import QOS, application, client, pair

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
