"""RFC 6242: NETCONF over SSH, every byte as it goes over the channel."""

import asyncio
import re

import asyncssh
import pytest
from lxml import etree
from netconf_front import Client, Front
from rfc import case, rfc, untestable
from wire import C, edit, element, get_config, holds, is_over, session_id

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE, BASE_1_0, BASE_1_1

MARKER = b"]]>]]>"
GET = get_config("running", "<filter/>")
TEXT = "<values><text>{}</text></values>"
# One chunked message and nothing else (clause 4.2).
CHUNKED = re.compile(rb"(?:\n#([1-9][0-9]*)\n)")


def rpc(body: str, number: int = 1) -> bytes:
    return f'<rpc xmlns="{BASE}" message-id="{number}">{body}</rpc>'.encode()


def chunked(message: bytes, size: int) -> bytes:
    parts = (message[i : i + size] for i in range(0, len(message), size))
    return b"".join(b"\n#%d\n%b" % (len(part), part) for part in parts) + b"\n##\n"


def hello(*capabilities: str) -> bytes:
    return netconf.build_hello(netconf.Hello(capabilities))


async def until(client: Client, end: bytes) -> bytes:
    """Raw bytes of the server up to an end."""
    read = b""
    async with asyncio.timeout(10):
        while not read.endswith(end):
            data = await client.stdout.read(65536)
            assert data, read
            read += data
    return read


async def answered(client: Client, count: int = 1) -> None:
    for number in range(1, count + 1):
        reply = await element(client)
        assert (reply.tag, reply.get("message-id")) == (f"{{{BASE}}}rpc-reply", str(number))


# The subsystem -------------------------------------------------------------------------------------------------------


@rfc("6242", "3", "NETCONF runs as SSH subsystem 'netconf'")
async def test_the_subsystem(front: Front, client: Client) -> None:
    await client.ok(GET)


@rfc("6242", "3", "the user of the SSH session is NETCONF's user, unchanged")
async def test_the_user(front: Front) -> None:
    async with front.connect("operator") as client:
        monitoring = "urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"
        found = await client.ok(
            f'<get><filter><netconf-state xmlns="{monitoring}"><sessions/></netconf-state></filter></get>'
        )
        names = {
            one.findtext(f"{{{monitoring}}}session-id"): one.findtext(f"{{{monitoring}}}username")
            for one in found[0].iter(f"{{{monitoring}}}session")
        }
        assert names[str(session_id(client))] == "operator"


@rfc("6242", "6", "nobody is served whose identity is not proven")
@pytest.mark.parametrize("user", ["controller", "nobody"])
async def test_strangers(front: Front, user: str) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        async with front.connect(user, key=asyncssh.generate_private_key("ssh-ed25519")):
            pass


@rfc("6242", "6", "nobody is served without authentication, by password, or interactively")
async def test_no_other_way_in(front: Front) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        async with asyncssh.connect(
            "127.0.0.1",
            front.port,
            username="controller",
            password="x",
            client_keys=None,
            agent_path=None,
            known_hosts=None,
            config=None,
            gss_host=None,
        ):
            pass


@rfc("6242", "6", "the server proves its identity by its host key")
async def test_the_host_key(front: Front) -> None:
    trusted = asyncssh.import_known_hosts(f"[127.0.0.1]:{front.port} {front.host_key.export_public_key().decode()}")
    async with asyncssh.connect(
        "127.0.0.1",
        front.port,
        username="controller",
        client_keys=[front.keys["controller"]],
        known_hosts=trusted,
        config=None,
        gss_host=None,
    ) as connection:
        stdin, stdout, _ = await connection.open_session(subsystem="netconf", encoding=None)
        await Client(connection, stdin, stdout).greet(BASE_1_1)


async def test_channels_of_one_connection_are_sessions_of_their_own(client: Client) -> None:
    stdin, stdout, _ = await client.connection.open_session(subsystem="netconf", encoding=None)
    second = Client(client.connection, stdin, stdout)
    await second.greet(BASE_1_1)
    assert session_id(second) != session_id(client)
    await second.ok("<close-session/>")
    await client.ok(GET)


# Hello and the choice of framing -------------------------------------------------------------------------------------


@rfc("6242", "4.1", "the server's hello ends with the end-of-message marker")
async def test_the_hello_has_a_marker(front: Front) -> None:
    async with front.connect(greet=False) as client:
        read = await until(client, MARKER)
        assert read.count(MARKER) == 1
        netconf.parse_hello(read.removesuffix(MARKER))


@rfc("6242", "4.1", "after two hellos with base:1.1 both sides send chunks")
async def test_chunks_after_base_1_1(front: Front) -> None:
    async with front.connect(greet=False) as client:
        await until(client, MARKER)
        client.stdin.write(hello(BASE_1_0, BASE_1_1) + MARKER + chunked(rpc(GET), 10_000))
        assert CHUNKED.match(await until(client, b"\n##\n"))


@rfc("6242", "4.1", "without base:1.1 of the client both sides send markers")
async def test_markers_without_base_1_1(front: Front) -> None:
    async with front.connect(greet=False) as client:
        await until(client, MARKER)
        client.stdin.write(hello(BASE_1_0) + MARKER + rpc(GET) + MARKER)
        read = await until(client, MARKER)
        assert etree.fromstring(read.removesuffix(MARKER)).tag == f"{{{BASE}}}rpc-reply"


@rfc("6242", "4.1", "what follows the client's hello in one packet is in the new framing")
async def test_hello_and_rpcs_in_one_packet(front: Front) -> None:
    async with front.connect(greet=False) as client:
        await client.receive()
        client.framing.use_chunks()
        client.stdin.write(hello(BASE_1_1) + MARKER + chunked(rpc(GET, 1), 7) + chunked(rpc(GET, 2), 7))
        await answered(client, 2)


# Chunks --------------------------------------------------------------------------------------------------------------


@rfc("6242", "4.2", "what the server sends follows the grammar of chunks")
async def test_the_server_sends_chunks(client: Client) -> None:
    await client.ok(edit(TEXT.format("x" * 100_000)))
    client.stdin.write(chunked(rpc(get_config()), 100_000))
    read, message = await until(client, b"\n##\n"), b""
    while read != b"\n##\n":
        header = CHUNKED.match(read)
        assert header, read[:40]
        size = int(header[1])
        assert size < 2**32
        message += read[header.end() : header.end() + size]
        read = read[header.end() + size :]
    assert etree.fromstring(message).tag == f"{{{BASE}}}rpc-reply"


@pytest.mark.parametrize(
    "size",
    [
        case("6242", "4.2", "a message may be one chunk", 1_000_000),
        case("6242", "4.2", "a message may be many chunks, of one octet", 1),
        case("6242", "4.2", "a chunk may end anywhere, inside a character too", 3),
    ],
)
async def test_sizes_of_chunks(client: Client, size: int) -> None:
    text = "\u91cf\u5b50 key"
    client.stdin.write(chunked(rpc(edit(TEXT.format(text))), size))
    await answered(client)
    await holds(client, TEXT.format(text))


@rfc("6242", "4.2", "chunks of one message may differ in size")
async def test_chunks_of_different_sizes(client: Client) -> None:
    message = rpc(GET)
    client.stdin.write(b"\n#5\n%b\n#%d\n%b\n##\n" % (message[:5], len(message) - 5, message[5:]))
    await answered(client)


@rfc("6242", "4.2", "a message ends where its chunks say, whatever their octets look like")
@pytest.mark.parametrize("text", ["]]&gt;]]&gt;", "\n##\n", "\n#4\n", "#"])
async def test_octets_are_data(client: Client, text: str) -> None:
    client.stdin.write(chunked(rpc(edit(TEXT.format(f"x{text}x"))), 1_000_000))
    await answered(client)


@rfc("6242", "4.2", "an end-of-message marker inside a chunk is data")
async def test_a_marker_in_a_chunk(client: Client) -> None:
    client.stdin.write(chunked(rpc(f"<!-- {MARKER.decode()} -->{GET}"), 1_000_000))
    await answered(client)


@rfc("6242", "4.2", "messages may come in packets of any size")
async def test_octet_by_octet(client: Client) -> None:
    for octet in chunked(rpc(GET), 50):
        client.stdin.write(bytes([octet]))
        await client.stdin.drain()
    await answered(client)


@rfc("6242", "4.2", "several messages may come in one packet")
async def test_several_messages_in_one_packet(client: Client) -> None:
    client.stdin.write(b"".join(chunked(rpc(GET, number), 1000) for number in range(1, 21)))
    await answered(client, 20)


async def test_a_packet_may_end_inside_of_everything(client: Client) -> None:
    """Two messages, cut in two at every place."""
    message = chunked(rpc(GET, 1), 60) + chunked(rpc(GET, 2), 60)
    for cut in range(1, len(message), 7):
        client.stdin.write(message[:cut])
        await client.stdin.drain()
        client.stdin.write(message[cut:])
        await answered(client, 2)


BAD_FRAMING = [
    case("6242", "4.2", "a chunk-size has no leading zeros", b"\n#0%d\n%b\n##\n" % (len(rpc(GET)), rpc(GET))),
    case("6242", "4.2", "a chunk is not empty", b"\n#0\n\n##\n"),
    case("6242", "4.2", "a chunk-size is of decimal digits", b"\n#x1\n"),
    case("6242", "4.2", "a chunk-size is not negative", b"\n#-1\n"),
    case("6242", "4.2", "a chunk-size has no sign", b"\n#+5\nabcde\n##\n"),
    case("6242", "4.2", "a chunk-size stands without blanks", b"\n# 5\nabcde\n##\n"),
    case("6242", "4.2", "a chunk-size is at most 4294967295", b"\n#4294967296\nx"),
    case("6242", "4.2", "a chunk starts with a line feed", b"#5\nabcde\n##\n"),
    case("6242", "4.2", "a chunk starts with a hash sign", b"\n5\nabcde\n##\n"),
    case("6242", "4.2", "lines end with a line feed only", b"\n#5\r\nabcde\n##\n"),
    case("6242", "4.2", "a message has at least one chunk", b"\n##\n"),
    case("6242", "4.2", "the end of chunks is a line of two hash signs", b"\n#5\nabcde\n###\n"),
    case("6242", "4.2", "a chunk is followed by another or the end of chunks", b"\n#5\nabcdefgh"),
    case("6242", "4.2", "between messages there is nothing", chunked(rpc(GET), 1000) + b"   " + chunked(rpc(GET), 1000)),
    case("6242", "4.2", "a message of the old framing is none", rpc(GET) + MARKER),
]


@pytest.mark.parametrize("data", BAD_FRAMING)
async def test_bad_framing_ends_the_session(front: Front, client: Client, data: bytes) -> None:
    async with front.connect() as other:
        other.stdin.write(data)
        await is_over(other)
    await client.ok(GET)


@rfc("6242", "4.2", "a message that is longer than the receiver can take ends the session")
async def test_an_endless_message(front: Front, client: Client) -> None:
    async with front.connect() as other:
        other.stdin.write(b"\n#4294967295\n<rpc>")
        await is_over(other)
    await client.ok(GET)


# The end-of-message marker -------------------------------------------------------------------------------------------


@rfc("6242", "4.3", "with base:1.0 every message ends with the marker")
async def test_markers_between_messages(front: Front) -> None:
    async with front.connect("controller", BASE_1_0) as client:
        client.stdin.write(rpc(GET, 1) + MARKER + rpc(GET, 2) + MARKER)
        await answered(client, 2)


@rfc("6242", "4.3", "a marker may be cut anywhere by packets")
async def test_markers_octet_by_octet(front: Front) -> None:
    async with front.connect("controller", BASE_1_0) as client:
        for octet in rpc(GET) + MARKER:
            client.stdin.write(bytes([octet]))
            await client.stdin.drain()
        await answered(client)


@rfc("6242", "4.3", "what looks like the beginning of a marker is data")
async def test_almost_a_marker(front: Front) -> None:
    async with front.connect("controller", BASE_1_0) as client:
        for part in b"<!-- ]]>]] -->", b"<!-- ]]]>]]] -->", b"<!-- ]]>]]&gt; -->":
            client.stdin.write(part + rpc(GET) + MARKER)
            await answered(client)


@rfc("6242", "4.3", "the marker does not appear in a message")
async def test_no_marker_in_a_reply(front: Front) -> None:
    async with front.connect("controller", BASE_1_0) as client:
        await client.ok(edit(TEXT.format("]]&gt;]]&gt;")))
        (found,) = await client.ok(get_config("running", f'<filter><values xmlns="{C}"/></filter>'))
        assert [one.text for one in found.iter(f"{{{C}}}text")] == [MARKER.decode()]
        await client.ok(GET)


async def test_an_endless_message_of_the_old_framing(front: Front, client: Client) -> None:
    """Longer than any limit of ours, shorter than what would hurt this machine."""
    async with front.connect("controller", BASE_1_0) as other:
        block = b"x" * (1 << 20)
        try:
            for _ in range(80):
                other.stdin.write(block)
                async with asyncio.timeout(10):
                    await other.stdin.drain()
        except (OSError, asyncssh.Error):
            pass
        await is_over(other)
    await client.ok(GET)


# The end -------------------------------------------------------------------------------------------------------------


@rfc("6242", "5", "close-session ends the SSH channel, after its reply")
async def test_close_session_closes_the_channel(front: Front) -> None:
    async with front.connect() as client:
        client.stdin.write(chunked(rpc("<close-session/>"), 1000))
        await answered(client)
        async with asyncio.timeout(10):
            assert await client.stdout.read(1) == b""
            await client.stdin.channel.wait_closed()


@rfc("6242", "5", "messages that follow close-session are not processed")
async def test_what_follows_close_session(front: Front, client: Client) -> None:
    async with front.connect() as other:
        other.stdin.write(chunked(rpc("<close-session/>"), 1000) + chunked(rpc(edit(TEXT.format("x")), 2), 1000))
        await answered(other)
        await is_over(other)
    await holds(client, "")


@rfc("6242", "5", "messages are processed in the order they came in")
async def test_the_order_of_messages(client: Client) -> None:
    bodies = [edit(TEXT.format(number)) for number in range(1, 11)]
    client.stdin.write(b"".join(chunked(rpc(body, number), 1000) for number, body in enumerate(bodies, 1)))
    await answered(client, 10)
    await holds(client, TEXT.format(10))


untestable("6242", "3", "the port is 830 unless it is configured", "830 may not be free for a test")
untestable("6242", "3", "a user name that XML cannot hold ends the session", "ietf-netconf-server has no such user name")
untestable("6242", "6", "the client checks the server's identity", "binds the client")
