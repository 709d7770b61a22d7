"""A network that holds values instead of nodes, and the real HTTP edge over it: what is tested is the edge."""

import asyncio
import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from qswitch.controller.checks import (
    CapabilityCheck,
    ClockCheck,
    Finding,
    Level,
    ModuleCheck,
    NodeCheck,
    RightCheck,
    RoundTrip,
    SshFacts,
    Step,
    TlsFacts,
)
from qswitch.controller.errors import Ambiguous, Conflict, InvalidRequest, NoRoute, Unknown
from qswitch.controller.model import (
    ApplicationStatus,
    AppView,
    Endpoint,
    EndView,
    Event,
    HealthView,
    InterfaceId,
    InterfaceStatus,
    InterfaceView,
    KeyStreamId,
    LevelsView,
    LinkId,
    LinkStatus,
    LinkType,
    LinkView,
    NodeId,
    NodeStatus,
    NodeView,
    PathView,
    Purpose,
    Qos,
    RelayView,
    Role,
    ServiceAddress,
    TopologyView,
)
from qswitch.controller.northbound.api import make_app
from qswitch.integration.identities import Authority

TOKEN = "a-token-of-the-test"
HEARTBEAT_SECONDS = 0.1
NODES = {
    "Quiron": NodeId("11111111-0000-4000-8000-000000000001"),
    "Quijote": NodeId("22222222-0000-4000-8000-000000000002"),
    "Quinto": NodeId("22222222-0000-4000-8000-000000000003"),
}
FIRST = LinkId("aaaaaaaa-0000-4000-8000-000000000001")
SECOND = LinkId("aaaa2222-0000-4000-8000-000000000002")
VIRTUAL = LinkId("bbbbbbbb-0000-4000-8000-000000000003")
KSID = KeyStreamId("3f1b8f9e-7c51-4d0e-9b8a-51a0c4a2d001")
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def _node(name: str, interfaces: int, links: tuple[LinkId, ...], apps: tuple[KeyStreamId, ...] = ()) -> NodeView:
    return NodeView(
        qkdn_id=NODES[name],
        name=name,
        connected=True,
        status=NodeStatus.OPERATING,
        location="Madrid",
        version="0.1.0",
        netconf=Endpoint("127.0.0.1", 8301),
        lkms=ServiceAddress("127.0.0.1", 8401),
        etsi004=ServiceAddress("127.0.0.1", 8501),
        etsi014_url=None,
        interfaces=tuple(_interface(number) for number in range(1, interfaces + 1)),
        links=links,
        apps=apps,
    )


def _interface(number: int) -> InterfaceView:
    return InterfaceView(
        InterfaceId(number), "simulated", "DV-QKD", InterfaceStatus.ENABLED, Role.TRANSCEIVER, f"dev{number}", None
    )


def _end(name: str, interface: int | None = None) -> EndView:
    return EndView(NODES[name], name, None if interface is None else InterfaceId(interface))


def _levels(name: str, usable: int) -> LevelsView:
    return LevelsView(NODES[name], name, LinkStatus.ACTIVE, usable + 1000, usable, 4_000_000, 1_500_000, 2048)


def physical(link: LinkId, a: EndView, b: EndView) -> LinkView:
    return LinkView(
        link=link,
        type=LinkType.PHYSICAL,
        status=LinkStatus.ACTIVE,
        source=a,
        destination=b,
        route=(a.node, b.node),
        bandwidth_bps=None,
        skr_bps=842_000,
        eskr_bps=800_000,
        expected_consumption_bps=42_000,
        qber=0.0213,
        attenuation_db=8.72,
        wavelength="1550.12",
        purpose=Purpose.FIBRE,
        ends=(_levels(a.name, 2_400_000), _levels(b.name, 2_300_000)),
    )


def _virtual() -> LinkView:
    return LinkView(
        link=VIRTUAL,
        type=LinkType.VIRTUAL,
        status=LinkStatus.ACTIVE,
        source=_end("Quiron"),
        destination=_end("Quinto"),
        route=tuple(NODES.values()),
        bandwidth_bps=10_000,
        skr_bps=10_000,
        eskr_bps=9_000,
        expected_consumption_bps=1_000,
        qber=None,
        attenuation_db=None,
        wavelength=None,
        purpose=Purpose.APPLICATIONS,
        ends=(_levels("Quiron", 500_000), _levels("Quinto", 500_000)),
        relay=(
            RelayView(NODES["Quiron"], "Quiron", 1_000_000, 1_002_000, 0, 0, FIRST),
            RelayView(NODES["Quijote"], "Quijote", 1_000_000, 1_002_000, 4096, 1, SECOND),
            RelayView(NODES["Quinto"], "Quinto"),
        ),
        apps=(KSID,),
    )


def _app() -> AppView:
    return AppView(
        ksid=KSID,
        status=ApplicationStatus.ON,
        server_app_id=f"qkd://{NODES['Quiron']}/quiron-1",
        client_app_ids=(f"qkd://{NODES['Quinto']}/quinto-1",),
        source=_end("Quiron"),
        destination=_end("Quinto"),
        links=(VIRTUAL,),
        route=tuple(NODES.values()),
        qos=Qos(min_bandwidth_bps=1000, ttl_seconds=60),
        priority=0,
        consumed_bits=25_600,
    )


def _check(name: str, **members: Any) -> NodeCheck:
    standard = {"host": "127.0.0.1", "port": 8301, "connect": "dial", "transport": "ssh", "way": "a new connection"}
    return NodeCheck(name, **{"well": True, **standard, **members})


_SSH = SshFacts(
    software="SSH-2.0-test",
    host_key_type="ssh-ed25519",
    host_key="SHA256:shown",
    configured_host_key="SHA256:shown",
    key_exchange="curve25519-sha256",
    cipher="aes256-ctr",
    mac="hmac-sha2-256",
    compression="none",
    user="controller",
    authentication="publickey, ssh-ed25519 SHA256:own",
    offered={
        "key exchange": ("curve25519-sha256", "other"),
        "cipher to the node": ("aes256-ctr",),
        "cipher from the node": ("aes256-ctr",),
        "MAC to the node": ("hmac-sha2-256",),
        "MAC from the node": (),
    },
)
_CHECKS = {
    "Quiron": _check(
        "Quiron",
        steps=(Step("TCP connection", 0.001), Step("SSH login", 0.25)),
        ssh=_SSH,
        netconf="1.1",
        session_id="7",
        capabilities=(
            CapabilityCheck(":candidate:1.0", True, "edits can be prepared aside"),
            CapabilityCheck(":xpath:1.0", False, "without it: nothing"),
        ),
        other_capabilities=("urn:other",),
        modules=(ModuleCheck("etsi-qkd-sdn-node", "2026-11-23", "2026-11-23", "as the controller knows it"),),
        other_modules=40,
        clock=ClockCheck(-0.25, 0.5, "login-time of the session"),
        round_trip=RoundTrip(0.0012, 0.0034, 10),
        rights=(RightCheck("read", True, "get-config"), RightCheck("kill-session", None, "not tried")),
        findings=(Finding(Level.NOTE, "modules", "one is older"),),
    ),
    "Quijote": _check(
        "Quijote",
        well=False,
        steps=(Step("TCP connection", 0.001),),
        ssh=replace(_SSH, host_key="SHA256:other", offered=None),
        clock=ClockCheck(how="unknown: the node gave no time"),
        findings=(Finding(Level.WRONG, "SSH key exchange", "its host key is not the configured one", "compare"),),
    ),
    "Quinto": _check(
        "Quinto",
        well=False,
        host="",
        port=0,
        connect="call-home",
        transport="tls",
        tls=TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "CN=Quinto", "CN=ca", ("urn:uuid:x",), "2026", "2027", "ab", "cd"),
        findings=(Finding(Level.WRONG, "session", "it has not called yet", "see its call-home"),),
    ),
}


class HeldNetwork:
    """Three nodes in a row, their two fibres, one virtual link over both, one application on it.

    `failure`, once set, is what every method raises. `followers` counts streams under way; `left` is set when one ends.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As at first; not while a follower is there."""
        self._nodes = [
            _node("Quiron", 1, (FIRST, VIRTUAL), (KSID,)),
            _node("Quijote", 2, (FIRST, SECOND, VIRTUAL)),
            _node("Quinto", 1, (SECOND, VIRTUAL), (KSID,)),
        ]
        self._links = [
            physical(FIRST, _end("Quiron", 1), _end("Quijote", 1)),
            physical(SECOND, _end("Quijote", 2), _end("Quinto", 1)),
            _virtual(),
        ]
        self._apps = [_app()]
        self._events: list[Event] = []
        self._more = asyncio.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: Exception | None = None
        self.followers = 0
        self.left = threading.Event()

    def set_node(self, name: str, **changes: object) -> None:
        self._nodes = [replace(one, **changes) if one.name == name else one for one in self._nodes]  # type: ignore[arg-type]

    def clear(self) -> None:
        self._nodes, self._links, self._apps = [], [], []

    async def nodes(self) -> list[NodeView]:
        self._fail()
        return self._nodes

    async def node(self, which: str) -> NodeView:
        self._fail()
        named = [one for one in self._nodes if one.name == which]
        return named[0] if named else self._one("node", which, {str(one.qkdn_id): one for one in self._nodes})

    async def check(self, which: str) -> NodeCheck:
        """Quiron is well; Quijote was set up anew; Quinto calls over TLS, and has yet to."""
        return _CHECKS[(await self.node(which)).name]

    async def links(self) -> list[LinkView]:
        self._fail()
        return self._links

    async def link(self, which: str) -> LinkView:
        self._fail()
        found: LinkView = self._one("link", which, {one.link: one for one in self._links})
        return found

    async def create_link(
        self,
        link_type: LinkType,
        source: str,
        destination: str,
        bandwidth_bps: int | None = None,
        link: str | None = None,
        disjoint_paths: int = 1,
    ) -> LinkView:
        self._fail()
        if disjoint_paths > 1:
            raise NoRoute(source, destination, f"only 1 node-disjoint route, {disjoint_paths} were asked for")
        ends = [await self.node(one) for one in (source, destination)]
        if ends[0] == ends[1]:
            raise NoRoute(source, destination, "both ends are the same node")
        made = physical(LinkId(link or "cccccccc-0000-4000-8000-000000000004"), _end(ends[0].name), _end(ends[1].name))
        made = replace(made, type=link_type, status=LinkStatus.PENDING, bandwidth_bps=bandwidth_bps)
        self._links = [*self._links, made]
        return made

    def activate(self, link: str) -> None:
        self._links = [replace(one, status=LinkStatus.ACTIVE) if one.link == link else one for one in self._links]

    async def delete_link(self, which: str) -> None:
        found = await self.link(which)
        if found.apps:
            raise Conflict(f"link {found.link}", "1 application uses it")
        self._links = [one for one in self._links if one != found]

    async def apps(self) -> list[AppView]:
        self._fail()
        return self._apps

    async def app(self, which: str) -> AppView:
        self._fail()
        found: AppView = self._one("application", which, {one.ksid: one for one in self._apps})
        return found

    async def share_app(self, which: str, clients: Sequence[str]) -> AppView:
        found = await self.app(which)
        if "nobody" in clients:
            raise InvalidRequest("clients", "nobody", "clients live at Quinto")
        shared = replace(found, client_app_ids=tuple(clients), qos=replace(found.qos, clients_shared_keys=len(clients) > 1))
        self._apps = [shared if one == found else one for one in self._apps]
        return shared

    async def path(self, source: str, destination: str, bandwidth_bps: int = 0, disjoint_paths: int = 1) -> PathView:
        a, b = await self.node(source), await self.node(destination)
        if bandwidth_bps > 800_000:
            raise NoRoute(a.name, b.name, f"no link has {bandwidth_bps} bit/s free")
        assert a.qkdn_id and b.qkdn_id
        return PathView(a.qkdn_id, b.qkdn_id, tuple(NODES.values()), tuple(NODES), (FIRST, SECOND), 800_000)

    async def topology(self) -> TopologyView:
        self._fail()
        return TopologyView(tuple(self._nodes), tuple(self._links), tuple(self._apps))

    async def health(self) -> HealthView:
        self._fail()
        connected = sum(one.connected for one in self._nodes)
        status = "ok" if connected == len(self._nodes) else "degraded"
        return HealthView(status, "0.1.0", len(self._nodes), connected, len(self._links), 3, len(self._apps))

    async def events(self, follow: bool = False) -> AsyncIterator[Event]:
        self._fail()
        self._loop = asyncio.get_running_loop()
        self.followers += 1
        try:
            sent = 0
            while True:
                for one in self._events[sent:]:
                    yield one
                    sent += 1
                if not follow:
                    return
                async with self._more:
                    while len(self._events) <= sent:
                        await self._more.wait()
        finally:
            self.followers -= 1
            self.left.set()

    def happen(self, kind: str, message: str = "it happened", link: LinkId | None = None) -> None:
        """An event; wakes followers, from any thread."""
        self._events.append(Event(len(self._events) + 1, START, "Quijote", kind, message, link))
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._wake(), self._loop).result(10)

    async def _wake(self) -> None:
        async with self._more:
            self._more.notify_all()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _one[T](self, kind: str, which: str, values: dict[str, T]) -> T:
        found = [name for name in values if name.startswith(which)]
        if len(found) > 1:
            raise Ambiguous(kind, which, found)
        if not found:
            raise Unknown(kind, which)
        return values[found[0]]


@dataclass(frozen=True, slots=True)
class Served:
    """The network behind the API, and where that is."""

    network: HeldNetwork
    url: str
    directory: Path  # ca.pem, token, network.json, and another authority's stranger.pem

    @property
    def descriptor(self) -> Path:
        return self.directory / "network.json"

    def client(self, token: str | None = TOKEN) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        trust = ssl.create_default_context(cafile=self.directory / "ca.pem")
        return httpx.Client(base_url=self.url, verify=trust, headers=headers, timeout=10)


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def serve() -> Iterator[Served]:
    """The API over TLS on a free port of loopback, in a thread of its own."""
    with tempfile.TemporaryDirectory(prefix="qswitch-api-") as name, socket.create_server(("127.0.0.1", 0)) as listener:
        directory, network = Path(name), HeldNetwork()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        certificate, key = _identities(directory, url)
        config = uvicorn.Config(
            make_app(network, TOKEN, HEARTBEAT_SECONDS),
            ssl_certfile=certificate,
            ssl_keyfile=key,
            log_level="critical",
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert server.listening.wait(10)
            yield Served(network, url, directory)
        finally:
            server.should_exit = True
            thread.join(10)


def _identities(directory: Path, url: str) -> tuple[Path, Path]:
    authority = Authority("test")
    authority.write(directory / "ca.pem")
    Authority("stranger").write(directory / "stranger.pem")
    (directory / "token").write_text(f"{TOKEN}\n")
    (directory / "network.json").write_text(
        f'{{"name": "test", "controller": {{"url": "{url}", "ca": "ca.pem", "token_file": "token"}}}}'
    )
    return authority.issue(directory, "controller", "controller", (), local=True)
