"""RFC 8071: the server calls, and whoever is called finds an ordinary NETCONF server."""

from collections.abc import AsyncIterator, Iterator
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
from netconf_front import Client, free_port
from rfc import rfc, untestable

NODE, KEY = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
CA = authority("authority")
CERTIFIED, CALLED = CA.issue("node", LOCALHOST), CA.issue("called")


@pytest.fixture
def home() -> Iterator[Home]:
    home = Home()
    yield home
    home.close()


@pytest.fixture
async def caller(client: Client) -> AsyncIterator[Client]:
    """Whose edits have the node call; it calls nobody any more afterwards."""
    yield client
    await client.edit(f'<netconf-server {SERVER}><call-home nc:operation="remove"/></netconf-server>')


def over_ssh(port: int) -> str:
    return ssh(host_key(NODE), ssh_user("someone", KEY), remote(port))


def over_tls(port: int) -> str:
    identity = f"<inline-definition>{key_pair(CERTIFIED)}</inline-definition>"
    return tls(identity, trusted("ca-certs", CA.der), cert_to_name(1, "common-name"), remote(port))


async def call(caller: Client, *endpoints: str) -> None:
    entries = "".join(f"<endpoint><name>{number}</name>{one}</endpoint>" for number, one in enumerate(endpoints))
    how = (
        "<connection-type><persistent/></connection-type><reconnect-strategy><max-wait>2</max-wait>"
        "<max-attempts>1</max-attempts></reconnect-strategy>"
    )
    client = (
        f'<netconf-client nc:operation="replace"><name>home</name><endpoints>{entries}</endpoints>{how}</netconf-client>'
    )
    reply = await caller.edit(f"<netconf-server {SERVER}><call-home>{client}</call-home></netconf-server>")
    assert not reply.errors, reply.errors


@rfc("8071", "4.1", "the server opens the TCP connection")
@rfc("8071", "4.1", "on it the server is the SSH server, shows its host key and authenticates the client")
@rfc("8071", "4.1", "after that NETCONF begins, with the server as server")
async def test_over_ssh(caller: Client, home: Home) -> None:
    await call(caller, over_ssh(home.port))
    async with ssh_client(KEY, NODE, sock=await home.call()) as session:
        assert session.hello is not None
        assert session.hello.session_id
        assert await whoami(session) == ("someone", "netconf-ssh")


@rfc("8071", "4.1", "on it the server is the TLS server, shows its certificate and authenticates the client")
async def test_over_tls(caller: Client, home: Home, tmp_path: Path) -> None:
    await call(caller, over_tls(home.port))
    async with tls_client(context(tmp_path, CALLED, CERTIFIED), sock=await home.call()) as session:
        assert session.hello is not None
        assert session.hello.session_id
        assert await whoami(session) == ("called", "netconf-tls")


@rfc("8071", "4.1", "a client whom the server cannot authenticate gets no session, over SSH")
async def test_a_stranger_over_ssh(caller: Client, home: Home) -> None:
    await call(caller, over_ssh(home.port))
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.ConnectionLost)):
        async with ssh_client(asyncssh.generate_private_key("ssh-ed25519"), NODE, sock=await home.call()):
            pass


@rfc("8071", "4.1", "a client whom the server cannot authenticate gets no session, over TLS")
@pytest.mark.parametrize("certified", [True, False])
async def test_a_stranger_over_tls(caller: Client, home: Home, tmp_path: Path, certified: bool) -> None:
    await call(caller, over_tls(home.port))
    stranger = authority("strangers").issue("called") if certified else None
    with pytest.raises((EOFError, OSError)):
        async with tls_client(context(tmp_path, stranger, CERTIFIED), sock=await home.call()):
            pass


@rfc("8071", "4.1", "a persistent connection that is lost is made again")
@pytest.mark.parametrize("end", ["close-session", "drop"])
async def test_calling_again(caller: Client, home: Home, end: str) -> None:
    await call(caller, over_ssh(home.port))
    async with ssh_client(KEY, NODE, sock=await home.call()) as session:
        if end == "close-session":
            await session.ok("<close-session/>")
        else:
            session.connection.abort()
    async with ssh_client(KEY, NODE, sock=await home.call()) as session:
        assert (await whoami(session))[0] == "someone"


@rfc("8071", "4.1", "a server whom nobody answers keeps trying")
async def test_keeping_on_trying(caller: Client, home: Home) -> None:
    home.close()
    await call(caller, over_ssh(home.port))
    home.open()
    async with ssh_client(KEY, NODE, sock=await home.call()) as session:
        assert (await whoami(session))[0] == "someone"


@rfc("8071", "4.1", "a client has several endpoints, and the next is tried when one does not answer")
async def test_the_next_endpoint(caller: Client, home: Home) -> None:
    await call(caller, over_ssh(free_port()), over_ssh(home.port))
    async with ssh_client(KEY, NODE, sock=await home.call()) as session:
        assert (await whoami(session))[0] == "someone"


untestable(
    "8071", "4.1", "the ports are 4334 for SSH and 4335 for TLS unless others are configured", "no well-known ports here"
)
untestable("8071", "3.1", "a client listens, and checks who calls", "binds clients; the controller's own tests show it")
