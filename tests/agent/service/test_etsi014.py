"""014 over real TLS on two nodes' key managers: what is asked, what is answered, and what clients do wrong."""

import asyncio
import json
import logging
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from key_managers import Net, audit, link_id, node_id, until
from timing import taken, told_apart

from qswitch.agent import associations, floors
from qswitch.agent.associations import AssociationTable, is_pair, pair_id
from qswitch.agent.config import Etsi014Config, TlsFiles
from qswitch.agent.errors import ConfigurationError
from qswitch.agent.lkms.keys import Key
from qswitch.agent.model import (
    Admission,
    ApplicationConfig,
    ApplicationNew,
    ApplicationQosUpdate,
    ApplicationStatus,
    Endpoint,
    KeyStreamId,
    Qos,
)
from qswitch.agent.service import callers, etsi014 as served
from qswitch.agent.service.etsi014 import Etsi014Server
from qswitch.agent.tasks import Tasks
from qswitch.integration.identities import Authority
from qswitch.protocol import etsi014
from qswitch.protocol.etsi014 import Limits, Method, build_path

SAES = {f"{node}-{number}": f"qkd://{node_id(node)}/{node}-{number}" for node in "ab" for number in (1, 2)}
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def keys(self) -> dict[str, str]:
        assert self.status == 200, self.body
        return {one["key_ID"]: one["key"] for one in self.json["keys"]}


class Client:
    """A client at the level of octets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def __call__(self, verb: str, path: str, body: object = None, headers: str = "") -> Reply:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        length = f"Content-Length: {len(data)}\r\n" if body is not None else ""
        self.writer.write(f"{verb} {path} HTTP/1.1\r\nHost: node\r\n{length}{headers}\r\n".encode() + data)
        return await self.reply()

    async def reply(self) -> Reply:
        async with asyncio.timeout(15):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(head[0].split()[1]), headers, body)

    async def enc(self, slave: str, query: str = "") -> dict[str, str]:
        return (await self("GET", build_path(slave, Method.ENC_KEYS) + query)).keys

    async def dec(self, master: str, *key_ids: str) -> Reply:
        body = {"key_IDs": [{"key_ID": one} for one in key_ids]}
        return await self("POST", build_path(master, Method.DEC_KEYS), body)

    async def closed(self) -> bool:
        """Whether the server ends the connection."""
        try:
            async with asyncio.timeout(10):
                while await self.reader.read(65536):
                    pass
        except (ConnectionError, ssl.SSLError):
            pass
        return True


class World:
    """Two nodes with 014 servers on one link, and what a controller does for them: it admits whoever asks."""

    def __init__(self, net: Net) -> None:
        self.net, self.folder = net, net.folder
        self.tables: dict[str, AssociationTable] = {}
        self.servers: dict[str, Etsi014Server] = {}
        self.entries: dict[KeyStreamId, ApplicationConfig] = {}
        self.asked: list[ApplicationNew] = []
        self.updates: list[ApplicationQosUpdate] = []
        self.admission = Admission.ADMITTED
        self.answers = True
        self.clients: list[Client] = []
        self.failures: list[BaseException] = []
        self.tasks = Tasks(self.failures.append)

    async def start(self, **options: Any) -> None:
        for name in "ab":
            await self.net.node(name)
        await self.net.feed(await self.net.fibre(1, "a", "b"), "a", "b", 60)
        for name in "ab":
            self.net.authority.issue(self.folder / name, "node", name, (f"urn:uuid:{node_id(name)}",), local=True)
            await self.serve(name, **options)
        for name, uri in SAES.items():
            self.net.authority.issue(self.folder, name, name, (uri,), local=False)
        self.net.authority.issue(self.folder, "nameless", "a-1", (), local=False)

    async def serve(self, name: str, **options: Any) -> None:
        home = self.folder / name
        tls = TlsFiles(home / "node.pem", home / "node.key", home / "ca.pem")
        settings: dict[str, Any] = {"timeout_seconds": 5.0, "saes": SAES, **options}
        config = Etsi014Config(Endpoint("127.0.0.1", 0), tls, **settings)
        keys = self.net.nodes[name].keys
        table = AssociationTable(node_id(name), config, keys, self.tasks, self.heard, lambda: None)
        self.tables[name], self.servers[name] = table, Etsi014Server(config, table)
        await table.restore()
        await self.servers[name].start()

    def heard(self, new: Any) -> None:
        if isinstance(new, ApplicationQosUpdate):
            self.updates.append(new)
            return
        assert isinstance(new, ApplicationNew) and new.ksid is not None
        self.asked.append(new)
        if self.answers:
            self.admit(new)

    def admit(self, new: ApplicationNew, paths: int = 1) -> None:
        assert new.ksid is not None
        links = (link_id(1),) if self.admission is Admission.ADMITTED else ()
        self.entries[new.ksid] = ApplicationConfig(
            new.ksid,
            server_app_id=new.server_app_id,
            client_app_ids=new.client_app_ids,
            backing_links=links,
            admission=self.admission,
            admission_reason=None if links else "no link has room",
            disjoint_paths=paths,
        )
        self.apply()

    def apply(self) -> None:
        for here, there in (("a", "b"), ("b", "a")):
            entries = {ksid: replace(one, remote_node=node_id(there)) for ksid, one in self.entries.items()}
            self.tables[here].apply(MappingProxyType(entries), True)

    def context(self, certificate: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder / "a" / "ca.pem")
        context.load_cert_chain(self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        return context

    async def client(self, sae: str, node: str = "", context: ssl.SSLContext | None = None) -> Client:
        where = self.servers[node or sae[0]].endpoint
        context = context or self.context(sae)
        streams = await asyncio.open_connection(where.address, where.port, ssl=context, ssl_shutdown_timeout=1)
        self.clients.append(Client(*streams))
        return self.clients[-1]

    async def stop(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        async with asyncio.timeout(10):
            for server in self.servers.values():
                await server.stop()
            await self.tasks.cancel()
        assert not self.failures


@pytest.fixture
async def net(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[Net]:
    one = Net(tmp_path, Authority("tests"), unused_tcp_port_factory)
    yield one
    for node in one.nodes.values():
        await node.keys.stop()


@pytest.fixture
async def world(net: Net) -> AsyncIterator[World]:
    one = World(net)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def impatient(net: Net) -> AsyncIterator[World]:
    """Its nodes wait a moment only."""
    one = World(net)
    await one.start(timeout_seconds=0.3, limits=Limits(number=20, stored=20))
    yield one
    await one.stop()


# Keys ----------------------------------------------------------------------------------------------------------------


async def test_a_whole_exchange_by_get_and_by_post(world: World) -> None:
    a, b = await world.client("a-1"), await world.client("b-1")
    by_get = await a.enc("b-1", "?number=2&size=128")
    by_post = (await a("POST", build_path("b-1", Method.ENC_KEYS), {"number": 3, "extension_optional": [{"x_y": 1}]})).keys
    assert [len(by_get), len(by_post)] == [2, 3]
    one = next(iter(by_get))
    path = build_path("a-1", Method.DEC_KEYS)
    assert (await b("GET", f"{path}?key_ID={one.upper()}")).keys == {one: by_get.pop(one)}
    rest = by_get | by_post
    reply = await b.dec(SAES["a-1"], *reversed(rest))
    assert list(reply.keys) == list(reversed(rest)) and reply.keys == rest
    assert reply.headers["content-type"] == "application/json" and reply.headers["cache-control"] == "no-store"
    for node in "ab":
        assert not world.net.nodes[node].seen.alarms
    audit(world.net, link_id(1))


async def test_status_tells_what_there_is(world: World) -> None:
    a = await world.client("a-1")
    before = (await a("GET", build_path("b-1", Method.STATUS))).json
    keys, tags = before.pop("stored_key_count"), 2 * 64  # at either end: the reserve, and a session's tag keys
    assert 60 * 4096 // 32 - tags <= keys < 60 * 4096 // 32
    assert before == {
        "source_KME_ID": node_id("a"),
        "target_KME_ID": node_id("b"),
        "master_SAE_ID": "a-1",
        "slave_SAE_ID": "b-1",
        "key_size": 256,
        "max_key_count": 10_000,
        "max_key_per_request": 128,
        "max_key_size": 8192,
        "min_key_size": 64,
        "max_SAE_ID_count": 8,
    }
    await a.enc("b-1", "?number=10")
    after = (await a("GET", build_path(SAES["b-1"], Method.STATUS))).json
    assert keys - 10 - tags <= after["stored_key_count"] <= keys - 10 and after["slave_SAE_ID"] == SAES["b-1"]


async def test_a_key_is_for_its_slave_once_and_all_or_nothing(world: World) -> None:
    a, b, other = await world.client("a-1"), await world.client("b-1"), await world.client("b-2")
    keys = await a.enc("b-1", "?number=3")
    stranger = await other.dec("a-1", *keys)
    assert stranger.status == 401 and stranger.json["message"]
    assert (await b.dec("a-1", *keys, UNKNOWN)).status == 400
    assert (await b.dec("a-2", *keys)).status == 400, "of another master than it said"
    assert (await b.dec("a-1", *keys)).keys == keys
    for again in (b, other):
        reply = await again.dec("a-1", *keys)
        assert reply.status == 400 and reply.json["message"] == "one or more keys specified are not found on KME"
        assert {one["key_ID"] for one in reply.json["details"]} == set(keys)


async def test_an_application_with_itself_and_its_neighbour_needs_no_link(world: World) -> None:
    a, other = await world.client("a-1"), await world.client("a-2")
    mine, its = await a.enc("a-1", "?number=2"), await a.enc("a-2")
    assert (await a.dec("a-1", *mine)).keys == mine
    assert (await a.dec("a-1", *its)).status == 401
    assert (await other.dec("a-1", *its)).keys == its
    status = (await a("GET", build_path("a-1", Method.STATUS))).json
    assert status["target_KME_ID"] == node_id("a") and status["stored_key_count"] == 10_000
    assert not world.asked


async def test_pairs_of_one_node_do_not_fill_its_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associations, "MAX_LOCAL", 3)
    a = await world.client("a-1")
    for number in range(5):
        assert (await a("GET", build_path(f"qkd://{node_id('a')}/{number}", Method.STATUS))).status == 200
    for number in range(3):
        await a.enc(f"qkd://{node_id('a')}/{number}")
    full = await a("GET", build_path(f"qkd://{node_id('a')}/another", Method.ENC_KEYS))
    assert full.status == 503 and "nobody has fetched" in full.json["message"]


async def test_room_for_a_pair_costs_none_that_is_asked_for_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associations, "MAX_LOCAL", 4)
    table, master = world.tables["a"], frozenset({SAES["a-1"]})
    slaves = [f"qkd://{node_id('a')}/{number}" for number in range(5)]
    for slave in slaves[:4]:
        await table.status(master, slave)
    made = await asyncio.gather(*(table.enc_keys(master, [slave], 1, 32) for slave in (slaves[4], *slaves[:4])))
    for slave, keys in zip((slaves[4], *slaves[:4]), made, strict=True):
        assert await table.dec_keys(frozenset({slave}), SAES["a-1"], [key_id for key_id, _ in keys]) == keys


async def test_one_key_for_several_at_several_nodes(world: World) -> None:
    a = await world.client("a-1")
    body = {"number": 2, "additional_slave_SAE_IDs": ["b-2", "a-2", "a-1"]}
    keys = (await a("POST", build_path("b-1", Method.ENC_KEYS), body)).keys
    for name in ("b-1", "b-2", "a-2", "a-1"):
        client = await world.client(name)
        assert (await client.dec("a-1", *keys)).keys == keys
        assert (await client.dec("a-1", *keys)).status == 400
    body["additional_slave_SAE_IDs"] = [SAES["b-1"]]
    assert (await a("POST", build_path("b-1", Method.ENC_KEYS), body)).status == 400
    audit(world.net, link_id(1))


async def test_many_clients_at_once(world: World) -> None:
    async def session(sae: str, peer: str) -> dict[str, str]:
        client, keys = await world.client(sae), {}
        for _ in range(10):
            keys |= await client.enc(peer)
        return keys

    sessions = await asyncio.gather(*(session(*pair) for _ in range(8) for pair in (("a-1", "b-1"), ("b-1", "a-1"))))
    keys = {key_id: key for one in sessions for key_id, key in one.items()}
    assert len(keys) == len(set(keys.values())) == 160
    b = await world.client("b-1")
    for mine in sessions[::2]:
        assert (await b.dec("a-1", *mine)).keys == mine
    audit(world.net, link_id(1))


# 015 -----------------------------------------------------------------------------------------------------------------


async def test_a_pair_is_an_application_of_015(world: World) -> None:
    a = await world.client("a-1")
    keys = await a.enc("b-1")
    (new,) = world.asked
    assert (new.server_app_id, new.client_app_ids) == (SAES["a-1"], (SAES["b-1"],))
    assert new.ksid == pair_id(SAES["a-1"], SAES["b-1"]) and is_pair(world.entries[new.ksid])
    for table in world.tables.values():
        table.refresh()
    assert world.tables["a"].states()[new.ksid].status is ApplicationStatus.ON
    assert world.net.nodes["a"].keys.delivered_bits(new.ksid) == 256
    world.entries.clear()
    world.apply()
    await until(lambda: not world.tables["a"].states() and not world.tables["b"].states())
    assert (await (await world.client("b-1")).dec("a-1", *keys)).status == 400, "erased with its pair"
    await a.enc("b-1")
    assert len(world.asked) == 2, "and admitted anew"


async def test_a_pair_that_does_not_get_what_it_was_promised_is_told_of_and_when_it_does_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floors, "LEAST_SECONDS", 1.0)
    promised, a = Qos(min_bandwidth_bps=1_000_000), await world.client("a-1")
    await a.enc("b-1")
    (ksid,) = world.entries
    world.entries[ksid] = replace(world.entries[ksid], qos=promised, priority=2)
    world.apply()

    async def refreshed(updates: int) -> None:
        async with asyncio.timeout(10):
            while len(world.updates) < updates:
                for table in world.tables.values():
                    table.refresh()
                await asyncio.sleep(0.05)

    done: set[asyncio.Future[Reply]] | None = None
    while done != set():  # until one waits for key
        asked = asyncio.ensure_future(a("GET", f"{build_path('b-1', Method.ENC_KEYS)}?number=128&size=8192"))
        done, _ = await asyncio.wait([asked], timeout=0.5)
    await refreshed(1)
    await world.net.feed(link_id(1), "a", "b", 60)
    assert (await asked).status == 200
    await refreshed(2)
    unmet, held = world.updates
    assert (unmet.ksid, unmet.priority, unmet.unmet_min_bps) == (ksid, 2, 1_000_000)
    assert 0 <= (unmet.qos.min_bandwidth_bps or 0) < 900_000
    assert held == ApplicationQosUpdate(ksid, promised, 2)


async def test_keys_over_disjoint_paths_are_those_of_a_pair_of_their_own(world: World) -> None:
    a, b, path = await world.client("a-1"), await world.client("b-1"), build_path("b-1", Method.ENC_KEYS)
    plain = await a.enc("b-1")
    asked = {"number": 2, "extension_mandatory": [{"qswitch_disjoint_paths": 2}]}
    world.answers = False
    waiting = asyncio.ensure_future(a("POST", path, asked))
    await until(lambda: len(world.asked) == 2)
    new = world.asked[1]
    assert (new.disjoint_paths, new.ksid) == (2, pair_id(SAES["a-1"], SAES["b-1"], 2))
    world.admit(new)
    assert new.ksid and not is_pair(world.entries[new.ksid]), "of a controller that knows nothing of paths"
    del world.entries[new.ksid]
    world.apply()
    world.admit(new, 2)
    assert is_pair(world.entries[new.ksid])
    keys = (await waiting).keys
    assert len(keys) == 2
    assert (await b.dec("a-1", *keys, *plain)).keys == keys | plain, "the slave need not know"
    refused = await a("POST", path, {"extension_mandatory": [{"qswitch_disjoint_paths": 9}]})
    assert (refused.status, "from 1 to 8" in refused.json["message"]) == (400, True)
    world.admission = Admission.NO_CONNECTION
    world.answers = True
    refused = await a("POST", path, {"extension_mandatory": [{"qswitch_disjoint_paths": 3}]})
    assert (refused.status, "no link has room" in refused.json["message"]) == (503, True)


async def test_who_asks_faster_than_admitted_is_refused(world: World) -> None:
    a, ksid = await world.client("a-1"), pair_id(SAES["a-1"], SAES["b-1"])
    assert await a.enc("b-1")
    world.entries[ksid] = replace(world.entries[ksid], qos=Qos(max_bandwidth_bps=2560))
    world.apply()
    replies = [await a("GET", build_path("b-1", Method.ENC_KEYS)) for _ in range(20)]
    served = sum(one.status == 200 for one in replies)
    assert 10 <= served < 20 and "max_bandwidth" in next(one for one in replies if one.status == 503).json["message"]
    assert await a.enc("b-2"), "another pair goes on"


async def test_what_was_not_delivered_counts_for_no_rate(impatient: World) -> None:
    world = impatient
    a, ksid = await world.client("a-1"), pair_id(SAES["a-1"], SAES["b-1"])
    assert len(await a.enc("b-1", "?number=20")) == 20, "more are not held"
    world.entries[ksid] = replace(world.entries[ksid], qos=Qos(max_bandwidth_bps=256))
    world.apply()
    for _ in range(2):
        full = await a("GET", build_path("b-1", Method.ENC_KEYS) + "?number=20")
        assert full.status == 503 and "0 could be had" in full.json["message"]


async def test_what_is_missing_is_said(impatient: World) -> None:
    world = impatient
    a = await world.client("a-1")
    world.answers = False
    silent = await a("GET", build_path("b-1", Method.ENC_KEYS))
    assert silent.status == 503 and "the controller has not answered" in silent.json["message"]
    world.admission = Admission.QOS_NOT_MET
    world.admit(world.asked[0])
    refused = await a("GET", build_path("b-1", Method.STATUS))
    assert refused.status == 503 and "no link has room" in refused.json["message"]
    world.admission = Admission.ADMITTED
    world.admit(world.asked[0])
    assert len(await a.enc("b-1", "?number=20")) == 20
    full = await a("GET", build_path("b-1", Method.ENC_KEYS))
    assert full.status == 503 and "0 could be had" in full.json["message"]
    await world.net.nodes["b"].keys.stop()
    await until(lambda: not world.net.nodes["a"].keys.agreed(pair_id(SAES["a-1"], SAES["b-1"])))
    gone = await a("GET", build_path("b-1", Method.ENC_KEYS))
    assert gone.status == 503 and "cannot be reached" in gone.json["message"]
    unknown = await a("GET", build_path("nobody", Method.STATUS))
    assert unknown.status == 400 and "nobody" in unknown.json["message"]


# Who is who ----------------------------------------------------------------------------------------------------------


async def test_identities(world: World) -> None:
    keys = await (await world.client("a-1")).enc("b-1")
    nameless = await world.client("nameless", "a")
    assert len(await nameless.enc("b-1")) == 1, "a common name counts where there is no URI"
    elsewhere = await world.client("a-1", "b")
    assert (await elsewhere("GET", build_path("b-1", Method.ENC_KEYS))).status == 401
    assert (await elsewhere.dec("a-1", *keys)).status == 401


async def test_strangers_are_not_heard(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "strangers"
    folder.mkdir()
    Authority("another").issue(folder, "a-1", "a-1", (SAES["a-1"],), local=False)
    foreign = ssl.create_default_context(cafile=world.folder / "a" / "ca.pem")
    foreign.load_cert_chain(folder / "a-1.pem", folder / "a-1.key")
    nobody = ssl.create_default_context(cafile=world.folder / "a" / "ca.pem")
    for context in (foreign, nobody):
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await (await world.client("a-1", context=context)).enc("b-1")
    assert not world.asked


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_tls_1_2_is_served_and_1_1_is_not(world: World) -> None:
    context = world.context("a-1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await (await world.client("a-1", context=context)).enc("b-1")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await world.client("a-1", context=context)


# HTTP ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "says"),
    [
        ("GET", "/api/v1/keys/b-1/enc_keys?size=257", None, 400, "size shall be a multiple of 8"),
        ("GET", "/api/v1/keys/b-1/enc_keys?size=8", None, 400, "size"),
        ("GET", "/api/v1/keys/b-1/enc_keys?number=0", None, 400, "number"),
        ("POST", "/api/v1/keys/b-1/enc_keys", {"number": 129}, 400, "number"),
        ("POST", "/api/v1/keys/b-1/enc_keys", {"extension_mandatory": [{"x_y": 1}]}, 400, "extension_mandatory"),
        ("POST", "/api/v1/keys/b-1/enc_keys", b"{]", 400, "JSON"),
        ("GET", "/api/v1/keys/a-1/dec_keys", None, 400, "key_ID"),
        ("POST", "/api/v1/keys/a-1/dec_keys", {"key_IDs": []}, 400, "key_IDs"),
        ("GET", "/api/v1/keys/%FF/status", None, 400, "SAE ID"),
        ("POST", "/api/v1/keys/b-1/status", {}, 405, "status"),
        ("DELETE", "/api/v1/keys/b-1/enc_keys", None, 405, "enc_keys"),
        ("GET", "/api/v1/keys/b-1/keys", None, 404, "enc_keys"),
        ("GET", "/" + "x" * 5000, None, 414, "too large"),
        ("POST", "/api/v1/keys/b-1/enc_keys", bytes(200_000), 413, "too large"),
    ],
)
async def test_what_is_refused_is_named(world: World, verb: str, path: str, body: object, status: int, says: str) -> None:
    reply = await (await world.client("a-1"))(verb, path, body)
    assert reply.status == status and says in etsi014.parse_error(reply.body).message
    assert reply.headers["content-type"] == "application/json"


async def test_connections_stay_open_and_answer_in_order(world: World) -> None:
    a = await world.client("a-1")
    request = f"GET {build_path('b-1', Method.ENC_KEYS)} HTTP/1.1\r\nHost: n\r\n\r\n".encode()
    a.writer.write(request * 10)
    ids = [next(iter((await a.reply()).keys)) for _ in range(10)]
    assert len(set(ids)) == 10
    assert (await a("GET", "/nowhere")).status == 404
    reply = await a("POST", build_path("b-1", Method.ENC_KEYS), {}, "Expect: 100-continue\r\nConnection: close\r\n")
    assert reply.status == 100
    assert len((await a.reply()).keys) == 1 and await a.closed()


async def test_what_is_no_http_ends_its_connection_only(world: World) -> None:
    good = await world.client("a-1")
    for octets in (b"\0" * 100, b"GET / HTTP/9\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        bad = await world.client("a-1")
        bad.writer.write(octets)
        assert await bad.closed()
    header_flood = await world.client("a-1")
    header_flood.writer.write(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000)
    assert await header_flood.closed()
    assert await good.enc("b-1")


async def test_slow_and_idle_clients_are_let_go_and_hold_up_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(served, "IDLE_SECONDS", 0.2)
    silent, slow, good = [await world.client("a-1") for _ in range(3)]
    slow.writer.write(b"POST /api/v1/keys/b-1/enc_keys HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
    assert await good.enc("b-1")
    assert await silent.closed() and await slow.closed() and await good.closed()


async def test_a_connection_that_cannot_be_ended_is_not_the_last_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else slow and idle clients would keep their connections, and with them their callers' and the server's all."""
    monkeypatch.setattr(served, "REQUEST_SECONDS", 0.2)
    real, ended = served._Connection.abort, list[object]()

    def abort(one: served._Connection) -> asyncio.Task[None] | None:
        ended.append(one)
        if len(ended) == 1:
            raise RuntimeError("unable to perform operation on a closed handle")
        return real(one)

    monkeypatch.setattr(served._Connection, "abort", abort)
    clients = [await world.client("a-1") for _ in range(2)]
    assert all([await one.closed() for one in clients])


async def test_a_client_that_leaves_cancels_its_call(world: World) -> None:
    world.answers = False
    a = await world.client("a-1")
    a.writer.write(f"GET {build_path('b-1', Method.ENC_KEYS)} HTTP/1.1\r\n\r\n".encode())
    await until(lambda: bool(world.asked))
    a.writer.close()
    await until(lambda: not len(world.servers["a"].callers))
    await until(lambda: not world.tables["a"]._pairs, 5)


async def test_crowds_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await world.client("a-1")
    assert await first.enc("b-1")
    monkeypatch.setattr(callers, "MAX_CONNECTIONS_OF_CALLER", 1)
    assert await (await world.client("a-1")).closed()
    assert await (await world.client("a-2")).enc("b-1")


async def test_key_is_in_no_log_and_wiped_once_sent(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    frames: list[bytearray] = []
    build_frame = served._frame

    def kept(*parts: Any) -> bytearray:
        frames.append(build_frame(*parts))
        return frames[-1]

    monkeypatch.setattr(served, "_frame", kept)
    a, b = await world.client("a-1"), await world.client("b-1")
    keys = await a.enc("b-1", "?number=3")
    assert (await b.dec("a-1", *keys)).keys == keys
    assert len(frames) == 2 and not any(map(any, frames))
    assert not any(key in caplog.text for key in keys.values())


async def test_time_does_not_tell_a_wrong_key_id_from_another_s(world: World) -> None:
    """Ids of nobody, of another slave, of another master; for the second the answer itself differs, as 014 wants it."""
    a, b = await world.client("a-1"), await world.client("b-1")
    others, own = list(await a.enc("b-2", "?number=100")), list(await a.enc("b-1", "?number=100"))

    def way(master: str, key_id: str) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            assert (await b.dec(master, key_id)).status in (400, 401)

        return ask

    ways = {"nobody": ("a-1", UNKNOWN), "another's": ("a-1", others[50]), "of another master": ("a-2", own[50])}
    times = await taken({name: way(*asked) for name, asked in ways.items()})
    assert not told_apart(times), {name: statistics.median(one) for name, one in times.items()}


@pytest.mark.parametrize("by_uri", [False, True], ids=["name", "URI"])
async def test_time_does_not_tell_an_application_that_is_not_there_from_another_s(world: World, by_uri: bool) -> None:
    """A slave asks for a key of a master that nobody knows, that has none for it, that has some for others."""
    b, another = await world.client("b-1"), await world.client("a-2")
    assert await another.enc("b-2", "?number=100")
    masters = [f"qkd://{node_id('a')}/{name}" if by_uri else name for name in ("a-9", "a-1", "a-2")]

    def way(master: str) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            assert (await b.dec(master, UNKNOWN)).status == 400

        return ask

    times = await taken({master: way(master) for master in masters})
    assert not told_apart(times), {name: statistics.median(one) for name, one in times.items()}


async def test_time_would_tell_were_there_a_difference(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the two tests before look for, they find: a tenth of a millisecond for one of the questions."""
    b, release = await world.client("b-1"), world.tables["b"].dec_keys

    async def slower(caller: frozenset[str], master_id: str, key_ids: Sequence[str]) -> list[tuple[str, Key]]:
        end = time.perf_counter() + (0.0001 if key_ids[0] == UNKNOWN else 0)
        while time.perf_counter() < end:
            pass
        return await release(caller, master_id, key_ids)

    monkeypatch.setattr(world.tables["b"], "dec_keys", slower)
    ids = UNKNOWN, UNKNOWN.replace("0", "1", 1)
    times = await taken({key_id: partial(b.dec, "a-1", key_id) for key_id in ids})
    assert told_apart(times), {name: statistics.median(one) for name, one in times.items()}


async def test_what_was_delivered_outlives_a_crash_of_both(world: World) -> None:
    a = await world.client("a-1")
    keys, own = await a.enc("b-1", "?number=5"), await a.enc("a-1")
    for name in "ab":
        await world.servers[name].stop()
        await world.net.nodes[name].crash()
    for name in "ab":
        await world.net.nodes[name].restart()
        await world.serve(name)
    world.apply()
    assert (await (await world.client("b-1")).dec("a-1", *keys)).keys == keys
    assert (await (await world.client("a-1")).dec("a-1", *own)).keys == own
    audit(world.net, link_id(1))


async def test_unusable_files_are_named(world: World) -> None:
    home = world.folder / "a"
    tls = TlsFiles(home / "none.pem", home / "node.key", home / "ca.pem")
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        await Etsi014Server(Etsi014Config(Endpoint("127.0.0.1", 0), tls), world.tables["a"]).start()
