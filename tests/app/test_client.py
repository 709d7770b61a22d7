"""The 004 client library against real servers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from qswitch.app import client as client_module
from qswitch.app.client import Client
from qswitch.app.errors import ConnectionLost, CredentialsError, StatusError, Unreachable
from qswitch.integration.identities import Authority
from qswitch.protocol.etsi004 import MAX_KEY_CHUNK_SIZE, Dialect, Qos, Status

QOS = Qos(key_chunk_size=32, timeout=2000)


@pytest.mark.parametrize("dialect", Dialect)
async def test_two_applications_get_the_same_keys(network: Any, dialect: Dialect) -> None:
    async with network.client("alice", dialect) as alice, network.client("bob") as bob:
        opened = await alice.open_connect(network.uri("alice"), network.uri("bob"), QOS)
        # The server of ours tells P clients 0, as some of them know no other success.
        assert opened.status is (Status.PEER_ABSENT if dialect is Dialect.C else Status.SUCCESS)
        joined = await bob.open_connect(network.uri("bob"), network.uri("alice"), Qos(), opened.ksid)
        assert (joined.status, joined.qos) == (Status.SUCCESS, QOS)
        mine = [await alice.get_key(opened.ksid, index) for index in range(3)]
        theirs = [await bob.get_key(opened.ksid) for _ in range(3)]
        assert [one.key for one in mine] == [one.key for one in theirs]
        assert [one.index for one in theirs] == [0, 1, 2]
        assert mine[0].metadata == {"age": 12, "hops": 2}
        assert (await alice.get_key(opened.ksid, 2, metadata_size=0)).metadata == {}
        await alice.close(opened.ksid)
        await bob.close(opened.ksid)


@pytest.mark.parametrize("dialect", Dialect)
async def test_failures_say_what_to_do(network: Any, dialect: Dialect) -> None:
    async with network.client("alice", dialect) as alice:
        with pytest.raises(StatusError, match="names neither source nor destination") as caught:
            await alice.open_connect("qkd://eve/app", network.uri("bob"), QOS)
        assert caught.value.status is Status.NO_CONNECTION
        with pytest.raises(StatusError, match="offered in return") as caught:
            await alice.open_connect(network.uri("alice"), network.uri("bob"), Qos(32, max_bps=2_000_000))
        assert caught.value.offered == Qos(32, 1_000_000)
        with pytest.raises(StatusError) as caught:
            await alice.open_connect(network.uri("alice"), network.uri("bob"), Qos(MAX_KEY_CHUNK_SIZE + 1))
        assert caught.value.status is Status.QOS_NOT_MET
        opened = await alice.open_connect(network.uri("alice"), network.uri("bob"), QOS)
        with pytest.raises(StatusError, match="GET_KEY: status 3 PEER_NOT_CONNECTED; the peer has not opened"):
            await alice.get_key(opened.ksid, 0)
        with pytest.raises(StatusError, match="CLOSE: status 3"):
            await alice.close("00112233-4455-4677-8899-aabbccddeeff")


async def test_keys_do_not_show_and_are_wiped(network: Any) -> None:
    async with network.client("alice") as alice, network.client("bob") as bob:
        opened = await alice.open_connect(network.uri("alice"), network.uri("bob"), QOS)
        await bob.open_connect(network.uri("alice"), network.uri("bob"), QOS, opened.ksid)
        chunk = await alice.get_key(opened.ksid)
        assert repr(bytes(chunk.key)) not in repr(chunk) and chunk.key.hex() not in repr(chunk)
        chunk.wipe()
        assert chunk.key == bytes(32)


async def test_a_restarted_node_is_reached_again(network: Any) -> None:
    async with network.client("alice") as alice:
        opened = await alice.open_connect(network.uri("alice"), network.uri("bob"), QOS)
        port = network.servers["alice"].endpoint.port
        await network.servers["alice"].stop()
        with pytest.raises((Unreachable, ConnectionLost)):
            await alice.close(opened.ksid)
        with pytest.raises(Unreachable, match="nothing listens there"):
            await alice.close(opened.ksid)
        server = network.servers["alice"]
        server._config = type(server._config)(type(server.endpoint)("127.0.0.1", port), server._config.tls)
        await server.start()
        await alice.close(opened.ksid)


async def test_a_cancelled_call_does_not_confuse_the_next(network: Any) -> None:
    async with network.client("alice") as alice, network.client("bob") as bob:
        opened = await alice.open_connect(network.uri("alice"), network.uri("bob"), QOS)
        await bob.open_connect(network.uri("alice"), network.uri("bob"), QOS, opened.ksid)
        call = asyncio.create_task(alice.get_key(opened.ksid, 7))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        assert (await alice.get_key(opened.ksid, 8)).index == 8


async def test_certificates_that_do_not_fit(network: Any, tmp_path: Path) -> None:
    other, port = Authority("another"), network.servers["alice"].endpoint.port
    other.write(tmp_path / "ca.pem")
    other.issue(tmp_path, "app", "app", ("qkd://alice/app",), local=False)
    good = network.directory / "app-alice.pem", network.directory / "app-alice.key", network.directory / "ca.pem"

    def client(host: str, certificate: Path, key: Path, ca: Path) -> Client:
        return Client(host, port, certificate=certificate, private_key=key, ca=ca)

    with pytest.raises((ConnectionLost, Unreachable), match="certificate"):
        await client("127.0.0.1", tmp_path / "app.pem", tmp_path / "app.key", good[2]).close(
            "00112233-4455-4677-8899-aabbccddeeff"
        )
    with pytest.raises(Unreachable, match="not trusted"):
        await client("127.0.0.1", good[0], good[1], tmp_path / "ca.pem").close("00112233-4455-4677-8899-aabbccddeeff")
    with pytest.raises(Unreachable, match="host name"):
        await client("127.1", *good).close("00112233-4455-4677-8899-aabbccddeeff")
    with pytest.raises(CredentialsError, match=r"none\.pem: the file is not there"):
        client("127.0.0.1", tmp_path / "none.pem", good[1], good[2])
    with pytest.raises(CredentialsError, match="does not make an identity"):
        client("127.0.0.1", good[0], tmp_path / "app.key", good[2])
    with pytest.raises(CredentialsError, match="authority"):
        client("127.0.0.1", good[0], good[1], good[1])


async def test_a_silent_node_is_given_up(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GRACE_SECONDS", 0.1)
    gone = asyncio.Event()

    async def silent(*_: object) -> None:
        await gone.wait()

    for node in network.nodes.values():
        node.close = silent
    async with network.client("alice") as alice:
        monkeypatch.setattr(client_module, "DEFAULT_TIMEOUT_MS", 1)
        with pytest.raises(ConnectionLost, match="did not answer within"):
            await alice.close("00112233-4455-4677-8899-aabbccddeeff")
    gone.set()
