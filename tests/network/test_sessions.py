"""Key streams over four hops: the same bytes at both ends, whichever wire dialect, and nobody else's."""

import asyncio

import pytest
from applications import QOS, application, client, pair

from qswitch.app.errors import StatusError
from qswitch.integration.emulation import Emulation
from qswitch.protocol.etsi004 import Dialect, Status


async def test_the_two_dialects_get_the_same_bytes_four_hops_apart(madrid: Emulation) -> None:
    async with pair(madrid, "quiron-1", "quinto-1", (Dialect.P, Dialect.C)) as (quiron, quinto, ksid):
        mine = [await quiron.get_key(ksid, index) for index in range(20)]
        theirs = [await quinto.get_key(ksid, index) for index in range(20)]
    assert [one.index for one in mine] == list(range(20)) == [one.index for one in theirs]
    assert [one.key for one in mine] == [one.key for one in theirs]
    assert len({bytes(one.key) for one in mine}) == 20
    assert all(len(one.key) == QOS.key_chunk_size for one in mine)


@pytest.mark.parametrize("where", ["Quiron", "Quinto", "Norte"])
async def test_a_third_application_gets_status_5(madrid: Emulation, where: str) -> None:
    """At either node of the stream, and at one that has nothing to do with it."""
    stranger = f"{where.lower()}-2"
    async with pair(madrid, "quiron-1", "quinto-1") as (_, _, ksid), client(madrid, stranger) as third:
        uris = application(madrid, stranger)["uri"], application(madrid, "quinto-1")["uri"]
        with pytest.raises(StatusError) as refused:
            await third.open_connect(*uris, QOS, ksid)
    assert refused.value.status == Status.KSID_IN_USE


async def test_a_get_key_of_an_unknown_ksid_is_refused_and_the_connection_goes_on(madrid: Emulation) -> None:
    async with pair(madrid, "norte-1", "quevedo-1") as (norte, quevedo, ksid):
        with pytest.raises(StatusError):
            await norte.get_key("deadbeef-0000-4000-8000-000000000000", 0)
        assert (await norte.get_key(ksid, 0)).key == (await quevedo.get_key(ksid, 0)).key


async def test_the_key_of_a_stream_is_not_for_a_stranger_at_the_same_node(madrid: Emulation) -> None:
    async with pair(madrid, "norte-1", "quevedo-1") as (_, _, ksid), client(madrid, "norte-2") as stranger:
        with pytest.raises(StatusError):
            await stranger.get_key(ksid, 0)


async def test_relay_nodes_keep_nothing_and_each_hop_pays_its_pad(madrid: Emulation) -> None:
    async with pair(madrid, "quiron-1", "quinto-1") as (quiron, quinto, ksid), madrid.api() as api:
        assert (await quiron.get_key(ksid, 0)).key == (await quinto.get_key(ksid, 0)).key
        app = (await api.get(f"/v1/apps/{ksid}")).json()
        names = {node["qkdn_id"]: node["name"] for node in madrid.descriptor["nodes"]}
        assert [names[one] for one in app["route"]] == ["Quiron", "Quijote", "Quevedo", "Quijano", "Quinto"]
        async with asyncio.timeout(30):
            while True:
                relay = (await api.get(f"/v1/links/{app['links'][0]}")).json()["relay"]
                senders = {names[one["node"]]: one for one in relay if one["pad_bits"]}
                at_rest = not any(one["held_bits"] for one in relay)
                if set(senders) == {"Quiron", "Quijote", "Quevedo", "Quijano"} and at_rest:
                    break
                await asyncio.sleep(0.2)
        assert all(one["pad_bits"] > one["relayed_bits"] for one in senders.values())


async def test_a_predefined_ksid_waits_for_the_peer(madrid: Emulation) -> None:
    """004 clause 6.2.3: whoever comes first waits for the other."""
    ksid = "3f1b8f9e-7c51-4d0e-9b8a-51a0c4a2d001"
    uris = application(madrid, "quintin-1")["uri"], application(madrid, "distrito-1")["uri"]
    async with client(madrid, "quintin-1") as a, client(madrid, "distrito-1") as b:
        opened = await asyncio.gather(a.open_connect(*uris, QOS, ksid), b.open_connect(*uris, QOS, ksid))
        assert [one.status for one in opened] == [Status.SUCCESS, Status.SUCCESS]
        assert (await a.get_key(ksid, 3)).key == (await b.get_key(ksid, 3)).key
        await a.close(ksid)
        await b.close(ksid)
