"""A change of who may come, where and how holds without a restart, and no change ends the server."""

import asyncio
import socket
from collections.abc import AsyncIterator

import asyncssh
import pytest
from netconf_access import SERVER, bind, ended, host_key, listen, reachable, ssh, ssh_client, ssh_user, text, whoami
from netconf_front import Client, Front, free_port

pytestmark = pytest.mark.engine("builtin", reason="the module tests transports of qkd-netconf")

NODE, RSA = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-rsa", key_size=2048)
KEY, OTHER = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ecdsa-sha2-nistp256")
LIMITS = 'xmlns="urn:quantum-switch:yang:qkd-netconf-server"'
NOTHING_IN_COMMON = (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost)  # who says so first
DENIED = (asyncssh.PermissionDenied, asyncssh.ConnectionLost)


@pytest.fixture
async def operator(front: Front) -> AsyncIterator[Client]:
    """Who makes the changes."""
    async with front.connect() as client:
        yield client


@pytest.fixture
async def port(front: Front, operator: Client) -> AsyncIterator[int]:
    """Where an endpoint listens that may be changed; it is gone afterwards."""
    port = free_port()
    await change(operator, users(port))
    await reachable(port)
    yield port
    async with front.connect() as cleaner:
        await cleaner.edit(listen("live", "", "remove"))


async def change(operator: Client, inside: str, name: str = "live") -> None:
    reply = await operator.edit(listen(name, inside))
    assert not reply.errors, reply.errors


def users(port: int, *entries: str, host_keys: str = "", inside: str = "") -> str:
    made = ssh(host_keys or host_key(NODE), "".join(entries) or ssh_user("someone", KEY), bind(port))
    return made.replace("</ssh-server-parameters>", f"{inside}</ssh-server-parameters>")


async def limits(operator: Client, leafs: str) -> None:
    reply = await operator.edit(
        f"<netconf-server {SERVER}><session-limits {LIMITS}>{leafs}</session-limits></netconf-server>"
    )
    assert not reply.errors, reply.errors


async def test_a_new_port_is_served_and_an_old_one_keeps_its_sessions(operator: Client, port: int) -> None:
    async with ssh_client(KEY, NODE, port) as before:
        new = free_port()
        await change(operator, users(new))
        await reachable(new)
        async with ssh_client(KEY, NODE, new) as client:
            assert await whoami(client) == ("someone", "netconf-ssh")
        assert await closed(port)
        assert await whoami(before) == ("someone", "netconf-ssh")


async def closed(port: int) -> bool:
    """Whether nothing listens there any more; within some seconds."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return True
            writer.transport.abort()
            await asyncio.sleep(0.01)


async def test_a_removed_endpoint_keeps_its_sessions(operator: Client, port: int) -> None:
    async with ssh_client(KEY, NODE, port) as before:
        reply = await operator.edit(listen("live", "", "remove"))
        assert not reply.errors, reply.errors
        assert await closed(port)
        assert await whoami(before) == ("someone", "netconf-ssh")


async def test_users_come_and_go(operator: Client, port: int) -> None:
    with pytest.raises(DENIED):
        async with ssh_client(OTHER, NODE, port, user="another"):
            pass
    await change(operator, users(port, ssh_user("someone", KEY), ssh_user("another", OTHER)))
    async with ssh_client(OTHER, NODE, port, user="another") as another, ssh_client(KEY, NODE, port) as someone:
        await change(operator, users(port, ssh_user("someone", KEY)))
        assert await ended(another)
        with pytest.raises(DENIED):
            async with ssh_client(OTHER, NODE, port, user="another"):
                pass
        assert await whoami(someone) == ("someone", "netconf-ssh")


async def test_the_session_of_a_key_ends_with_the_key(operator: Client, port: int) -> None:
    await change(operator, users(port, ssh_user("someone", KEY, OTHER)))
    async with ssh_client(OTHER, NODE, port) as lost, ssh_client(KEY, NODE, port) as kept:
        await change(operator, users(port, ssh_user("someone", KEY)))
        assert await ended(lost)
        assert await whoami(kept) == ("someone", "netconf-ssh")


async def test_a_user_of_one_endpoint_is_none_of_another(operator: Client, port: int, front: Front) -> None:
    with pytest.raises(DENIED):
        async with ssh_client(KEY, None, front.port):
            pass
    with pytest.raises(DENIED):
        async with ssh_client(front.keys["controller"], NODE, port, user="controller"):
            pass


async def test_keys_by_reference(operator: Client, port: int) -> None:
    bag = "".join(
        f"<public-key><name>{name}</name><public-key-format>ct:ssh-public-key-format</public-key-format>"
        f"<public-key>{text(key.public_data)}</public-key></public-key>"
        for name, key in (("one", KEY), ("two", OTHER))
    )
    truststore = (
        '<truststore xmlns="urn:ietf:params:xml:ns:yang:ietf-truststore" '
        'xmlns:ct="urn:ietf:params:xml:ns:yang:ietf-crypto-types"><public-key-bags><public-key-bag>'
        f"<name>people</name>{bag}</public-key-bag></public-key-bags></truststore>"
    )
    reply = await operator.edit(truststore)
    assert not reply.errors, reply.errors
    reference = "<public-keys><central-truststore-reference>people</central-truststore-reference></public-keys>"
    await change(operator, users(port, f"<user><name>someone</name>{reference}</user>"))
    for key in KEY, OTHER:
        async with ssh_client(key, NODE, port) as client:
            assert await whoami(client) == ("someone", "netconf-ssh")
    async with ssh_client(OTHER, NODE, port) as client:
        path = "<public-key-bags><public-key-bag><name>people</name><public-key nc:operation='delete'><name>two</name>"
        await operator.ok(
            "<edit-config><target><running/></target><config>"
            '<truststore xmlns="urn:ietf:params:xml:ns:yang:ietf-truststore" '
            f'xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0">{path}</public-key></public-key-bag></public-key-bags>'
            "</truststore></config></edit-config>"
        )
        assert await ended(client)


async def test_host_keys_are_all_shown_and_may_be_changed(operator: Client, port: int) -> None:
    await change(operator, users(port, host_keys=host_key(NODE, "ed") + host_key(RSA, "rsa")))
    for known in NODE, RSA:
        async with ssh_client(KEY, known, port) as client:
            assert (await whoami(client))[0] == "someone"
    await change(operator, users(port, host_keys=host_key(RSA)))
    with pytest.raises(NOTHING_IN_COMMON):
        async with ssh_client(KEY, NODE, port):
            pass
    async with ssh_client(KEY, RSA, port) as client:
        assert (await whoami(client))[0] == "someone"


async def test_a_host_key_that_is_no_good_leaves_the_one_before(operator: Client, port: int) -> None:
    broken = host_key(NODE).partition("<cleartext-private-key>")[0]
    broken += (
        f"<cleartext-private-key>{text(b'nonsense')}</cleartext-private-key></inline-definition></public-key></host-key>"
    )
    await change(operator, users(port, ssh_user("someone", OTHER), host_keys=broken))
    async with ssh_client(OTHER, NODE, port) as client:
        assert (await whoami(client))[0] == "someone"
    with pytest.raises(DENIED):
        async with ssh_client(KEY, NODE, port):
            pass


async def test_algorithms_are_as_configured(operator: Client, port: int) -> None:
    parameters = (
        "<transport-params><key-exchange><key-exchange-alg>ecdh-sha2-nistp384</key-exchange-alg></key-exchange>"
        "<encryption><encryption-alg>aes256-ctr</encryption-alg></encryption></transport-params>"
    )
    await change(operator, users(port, inside=parameters))
    async with ssh_client(KEY, NODE, port) as client:
        assert client.connection.get_extra_info("send_cipher") == "aes256-ctr"


async def test_a_host_key_signs_as_configured(operator: Client, port: int) -> None:
    parameters = "<transport-params><host-key><host-key-alg>rsa-sha2-512</host-key-alg></host-key></transport-params>"
    await change(operator, users(port, host_keys=host_key(RSA, "rsa") + host_key(NODE, "ed"), inside=parameters))
    for names in ("rsa-sha2-256", "ssh-ed25519"):
        with pytest.raises(NOTHING_IN_COMMON):
            await asyncssh.connect("127.0.0.1", port, known_hosts=None, config=None, server_host_key_algs=names)
    async with ssh_client(KEY, RSA, port) as client:
        assert (await whoami(client))[0] == "someone"


async def test_guessing_comes_to_an_end(operator: Client, port: int) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(40)]
    with pytest.raises(DENIED) as refused:
        await asyncssh.connect(
            "127.0.0.1", port, username="someone", client_keys=[*keys, KEY], known_hosts=None, config=None
        )
    assert "too many attempts" in str(refused.value)


async def test_sha1_is_not_offered(operator: Client, port: int) -> None:
    await change(operator, users(port, host_keys=host_key(RSA)))
    for option in (
        {"server_host_key_algs": "ssh-rsa"},
        {"mac_algs": "hmac-sha1", "encryption_algs": "aes128-ctr"},
        {"kex_algs": "diffie-hellman-group14-sha1"},
    ):
        with pytest.raises(NOTHING_IN_COMMON):
            await asyncssh.connect("127.0.0.1", port, username="someone", client_keys=[KEY], known_hosts=None, **option)


async def test_a_port_in_use_is_taken_once_it_is_free(operator: Client, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        await change(operator, users(taken), "late")
        async with ssh_client(KEY, NODE, port) as client:
            assert (await whoami(client))[0] == "someone"
    await reachable(taken)
    async with ssh_client(KEY, NODE, taken) as client:
        assert (await whoami(client))[0] == "someone"
    await operator.edit(listen("late", "", "remove"))


async def test_sessions_beyond_a_limit_are_refused_in_words(operator: Client, port: int) -> None:
    await limits(operator, "<sessions>2</sessions>")
    async with ssh_client(KEY, NODE, port) as client:
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            async with ssh_client(KEY, NODE, port):
                pass
        await limits(operator, '<sessions nc:operation="remove"/><sessions-of-user>1</sessions-of-user>')
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            async with ssh_client(KEY, NODE, port):
                pass
        await limits(operator, '<sessions-of-user nc:operation="remove"/>')
        async with ssh_client(KEY, NODE, port):
            assert (await whoami(client))[0] == "someone"


async def test_no_crowd_gets_past_a_limit(operator: Client, port: int) -> None:
    """Twelve channels of one connection at once, where eight sessions are allowed to a user."""
    await limits(operator, "<sessions-of-user>8</sessions-of-user>")
    async with asyncssh.connect(
        "127.0.0.1", port, username="someone", client_keys=[KEY], known_hosts=None, config=None
    ) as connection:
        opening = (connection.open_session(subsystem="netconf", encoding=None) for _ in range(12))
        opened = [one for one in await asyncio.gather(*opening, return_exceptions=True) if isinstance(one, tuple)]
        greeted = [await stdout.read(1) for _, stdout, _ in opened]
        words = [await stderr.read() for (_, _, stderr), first in zip(opened, greeted, strict=True) if not first]
    assert greeted.count(b"<") == 8
    assert set(words) <= {b"too many sessions are open\n"}
    await limits(operator, '<sessions-of-user nc:operation="remove"/>')


async def test_a_silent_client_loses_its_session(front: Front, port: int) -> None:
    idle = f"<netconf-server {SERVER}><listen><idle-timeout{{}}</listen></netconf-server>"
    async with ssh_client(KEY, NODE, port) as client, front.connect() as listener:
        await listener.ok('<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"/>')
        await asyncio.to_thread(front.side, "apply", idle.format(">1</idle-timeout>"))
        assert await ended(client)
        await asyncio.to_thread(front.side, "apply", idle.format(' nc:operation="remove">1</idle-timeout>'))
        assert b"<notification" in await listener.receive()  # who subscribes may be silent


async def test_who_never_greets_has_no_session(operator: Client, port: int) -> None:
    await limits(operator, "<hello-timeout>1</hello-timeout>")
    async with asyncssh.connect(
        "127.0.0.1", port, username="someone", client_keys=[KEY], known_hosts=None, config=None
    ) as connection:
        _, stdout, _ = await connection.open_session(subsystem="netconf", encoding=None)
        async with asyncio.timeout(10):
            assert b"hello" in await stdout.read()  # to its end
    await limits(operator, '<hello-timeout nc:operation="remove"/>')


async def test_only_the_subsystem_is_offered(operator: Client, port: int) -> None:
    async with asyncssh.connect(
        "127.0.0.1", port, username="someone", client_keys=[KEY], known_hosts=None, config=None
    ) as connection:
        done = await connection.run("id")
        assert done.exit_status == 1
        assert "only the subsystem 'netconf' is offered" in str(done.stderr)


async def test_the_configuration_is_in_effect(operator: Client, port: int) -> None:
    """And so is part of the operational datastore (RFC 8342 clause 5.3)."""
    (data,) = await operator.ok(f"<get><filter><netconf-server {SERVER}><listen/></netconf-server></filter></get>")
    assert str(port) in "".join(map(str, data.itertext()))
