"""Call Home (RFC 8071): the node dials, and a client that waits for it finds an ordinary server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
import pytest
from netconf_access import (
    LOCALHOST,
    SERVER,
    Home,
    authority,
    cert_to_name,
    context,
    host_key,
    key_pair,
    remote,
    ssh,
    ssh_client,
    ssh_user,
    tls,
    tls_client,
    trusted,
    whoami,
)
from netconf_front import Client, Front, free_port

from qswitch.agent.netconf import callhome
from qswitch.agent.netconf.callhome import Dialer
from qswitch.agent.netconf.config import Client as HomeClient, Endpoint, KeepAlives, Ssh
from qswitch.agent.netconf.connections import Connections

pytestmark = pytest.mark.engine("builtin", reason="the module tests transports of qkd-netconf")

NODE, KEY = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
CA = authority("authority")
CERTIFIED, CONTROLLER = CA.issue("node", LOCALHOST), CA.issue("controller")
PERSISTENT = "<connection-type><persistent/></connection-type>"
QUICK = "<reconnect-strategy>{}<max-wait>2</max-wait><max-attempts>1</max-attempts></reconnect-strategy>"


@pytest.fixture
def home() -> Iterator[Home]:
    home = Home()
    yield home
    home.close()


@pytest.fixture
async def operator(front: Front) -> AsyncIterator[Client]:
    """Who configures the node; nobody is called any more afterwards."""
    async with front.connect() as client:
        yield client
    async with front.connect() as client:
        await client.edit(f'<netconf-server {SERVER}><call-home nc:operation="remove"/></netconf-server>')


def over_ssh(port: int) -> str:
    return ssh(host_key(NODE), ssh_user("someone", KEY), remote(port))


def over_tls(port: int) -> str:
    identity = f"<inline-definition>{key_pair(CERTIFIED)}</inline-definition>"
    return tls(identity, trusted("ca-certs", CA.der), cert_to_name(1, "common-name"), remote(port))


async def call_home(operator: Client, *endpoints: str, kind: str = PERSISTENT, start_with: str = "") -> None:
    entries = "".join(f"<endpoint><name>{number}</name>{one}</endpoint>" for number, one in enumerate(endpoints))
    client = (
        f'<netconf-client nc:operation="replace"><name>home</name><endpoints>{entries}</endpoints>{kind}'
        f"{QUICK.format(start_with)}</netconf-client>"
    )
    reply = await operator.edit(f"<netconf-server {SERVER}><call-home>{client}</call-home></netconf-server>")
    assert not reply.errors, reply.errors


async def test_over_ssh_again_and_again(operator: Client, home: Home) -> None:
    await call_home(operator, over_ssh(home.port))
    async with ssh_client(KEY, NODE, sock=await home.call()) as client:
        assert await whoami(client) == ("someone", "netconf-ssh")
        home.close()  # and the session with it: there is nobody any more
    home.open()
    async with ssh_client(KEY, NODE, sock=await home.call()) as client:
        assert await whoami(client) == ("someone", "netconf-ssh")


async def test_over_tls_again_and_again(operator: Client, home: Home, tmp_path: Path) -> None:
    made = context(tmp_path, CONTROLLER, CERTIFIED)
    await call_home(operator, over_tls(home.port))
    async with tls_client(made, sock=await home.call()) as client:
        assert await whoami(client) == ("controller", "netconf-tls")
        home.close()
    home.open()
    async with tls_client(made, sock=await home.call()) as client:
        assert await whoami(client) == ("controller", "netconf-tls")


async def test_nobody_else_is_served(operator: Client, home: Home, tmp_path: Path) -> None:
    await call_home(operator, over_ssh(home.port))
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.ConnectionLost)):
        async with ssh_client(asyncssh.generate_private_key("ssh-ed25519"), NODE, sock=await home.call()):
            pass
    await call_home(operator, over_tls(home.port))
    stranger = context(tmp_path, authority("other").issue("controller"), CERTIFIED)
    with pytest.raises((EOFError, OSError)):
        async with tls_client(stranger, sock=await home.call()):
            pass


async def test_the_next_endpoint_is_tried(operator: Client, home: Home) -> None:
    await call_home(operator, over_ssh(free_port()), over_ssh(home.port))
    async with ssh_client(KEY, NODE, sock=await home.call()) as client:
        assert await whoami(client) == ("someone", "netconf-ssh")


async def test_a_change_is_taken_up_and_what_is_open_stays(operator: Client, home: Home) -> None:
    await call_home(operator, over_ssh(free_port()))
    await call_home(operator, over_ssh(home.port))  # it does not wait for the former to answer
    async with ssh_client(KEY, NODE, sock=await home.call()) as client:
        other = Home()
        await call_home(operator, over_ssh(other.port))
        async with ssh_client(KEY, NODE, sock=await other.call()) as second:
            await operator.edit(f'<netconf-server {SERVER}><call-home nc:operation="remove"/></netconf-server>')
            assert await whoami(client) == await whoami(second)
    for one in home, other:
        with pytest.raises(TimeoutError):
            await one.call(0.5)
        one.close()


async def test_a_user_who_is_removed_loses_the_session(operator: Client, home: Home) -> None:
    await call_home(operator, over_ssh(home.port))
    async with ssh_client(KEY, NODE, sock=await home.call()) as client:
        await call_home(operator, ssh(host_key(NODE), ssh_user("another", KEY), remote(home.port)))
        with pytest.raises((EOFError, OSError, asyncssh.Error)):
            await client.receive()
    async with ssh_client(KEY, NODE, sock=await home.call(), user="another") as client:
        assert (await whoami(client))[0] == "another"


async def test_who_is_called_is_never_idle_unless_periodically(operator: Client, home: Home, front: Front) -> None:
    periodic = "<connection-type><periodic><period>60</period><idle-timeout>1</idle-timeout></periodic></connection-type>"
    idle = f"<netconf-server {SERVER}><listen><idle-timeout{{}}>1</idle-timeout></listen></netconf-server>"
    await call_home(operator, over_ssh(home.port), kind=periodic)
    async with ssh_client(KEY, NODE, sock=await home.call()) as client:
        with pytest.raises(EOFError):
            await client.receive()
    # It was not closed in good order, so the node calls at once.
    async with ssh_client(KEY, NODE, sock=await home.call()) as client:
        await client.ok("<close-session/>")
    with pytest.raises(TimeoutError):
        await home.call(0.5)
    await call_home(operator, over_ssh(home.port))
    async with ssh_client(KEY, NODE, sock=await home.call()) as client, front.connect() as silent:
        await asyncio.to_thread(front.side, "apply", idle.format(""))
        with pytest.raises(EOFError):
            await silent.receive()
        assert (await whoami(client))[0] == "someone"
        await asyncio.to_thread(front.side, "apply", idle.format(' nc:operation="remove"'))


# Decisions ------------------------------------------------------------------------------------------------------------


def plan(*names: str, **members: object) -> HomeClient:
    access = Ssh((), {}, {})
    endpoints = tuple(Endpoint(name, "ssh", (("127.0.0.1", 1),), KeepAlives(), access) for name in names)
    defaults = {"period_seconds": 0, "anchor": None, "idle_seconds": 0, "max_wait": 1, "max_attempts": 2}
    return HomeClient("home", endpoints, **{**defaults, "start_with": "first-listed", **members})  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def dialer(client: HomeClient) -> AsyncIterator[Dialer]:
    made = Dialer(client, {}, Connections())
    yield made
    made.stop()


async def test_attempts_go_round() -> None:
    async with dialer(plan("a", "b")) as one:
        assert [endpoint.name for endpoint, _ in zip(one._attempts(), range(6), strict=False)] == list("aabbaa")
        one._last = "b"
        assert next(one._attempts()).name == "a"
    async with dialer(plan("a", "b", start_with="last-connected")) as one:
        assert next(one._attempts()).name == "a"
        one._last = "b"
        assert next(one._attempts()).name == "b"
    async with dialer(plan("a", "b", start_with="random-selection")) as one:
        assert {next(one._attempts()).name for _ in range(100)} == {"a", "b"}


def test_pauses_grow_to_a_minute_and_differ() -> None:
    assert callhome.pause(0) == 0
    for failures, longest in ((1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (1000, 60.0)):
        some = [callhome.pause(failures) for _ in range(50)]
        assert longest / 2 <= min(some) < max(some) <= longest


async def test_periods_count_from_the_anchor() -> None:
    anchor = datetime(2026, 1, 1, 12, 15, tzinfo=UTC)
    async with dialer(plan("a", period_seconds=3600, anchor=anchor)) as one:
        assert one._until_due(anchor + timedelta(minutes=50)) == 600
        assert one._until_due(anchor - timedelta(minutes=50)) == 3000
        assert one._until_due(anchor) == 3600
