"""RFC 6241 clauses 2 to 4 and 8.1: hello, rpc, rpc-reply, rpc-error, pipelining."""

import contextlib

import pytest
from lxml import etree
from netconf_front import Client, Front
from rfc import case, rfc, untestable
from wire import C, c, capabilities, edit, element, get_config, holds, is_over, session_id

from qswitch.protocol import netconf
from qswitch.protocol.netconf import BASE, BASE_1_0, BASE_1_1

HELLO = f'<hello xmlns="{BASE}"><capabilities>{{}}</capabilities>{{}}</hello>'
GET = get_config("running", "<filter/>")


def capability(*uris: str) -> str:
    return "".join(f"<capability>{one}</capability>" for one in uris)


def rpc(operation: str, attributes: str = 'message-id="1"') -> str:
    return f'<rpc xmlns="{BASE}" {attributes}>{operation}</rpc>'


async def ask(client: Client, message: str | bytes) -> etree._Element:
    client.send(message if isinstance(message, bytes) else message.encode())
    return await element(client)


def tag(reply: etree._Element) -> str:
    return reply.findtext(f"{{{BASE}}}rpc-error/{{{BASE}}}error-tag") or ""


# Hello ---------------------------------------------------------------------------------------------------------------


@rfc("6241", "8.1", "a server sends a hello with its capabilities when the session opens")
async def test_the_server_greets(client: Client) -> None:
    assert capabilities(client)


@rfc("6241", "8.1", "a peer does not wait for the other's hello before it sends its own")
async def test_the_server_greets_first(front: Front) -> None:
    async with front.connect(greet=False) as client:
        assert netconf.parse_hello(await client.receive()).capabilities


@rfc("6241", "8.1", "every server sends the base capability urn:ietf:params:netconf:base:1.1")
async def test_base_1_1_is_offered(client: Client) -> None:
    assert BASE_1_1 in capabilities(client)


@rfc("6241", "8.1", "earlier versions may be offered beside it")
async def test_base_1_0_is_offered(client: Client) -> None:
    assert BASE_1_0 in capabilities(client)


@rfc("6241", "8.1", "the server's hello holds the session's id")
async def test_the_hello_holds_one_session_id(front: Front) -> None:
    async with front.connect(greet=False) as client:
        hello = await element(client)
        assert [one.tag for one in hello] == [f"{{{BASE}}}capabilities", f"{{{BASE}}}session-id"]
        assert 0 < int(hello[1].text or "") < 2**32


@rfc("6241", "3", "capability names are URIs")
async def test_capabilities_are_uris(client: Client) -> None:
    assert all(":" in one and one == one.strip() and not any(ch.isspace() for ch in one) for one in capabilities(client))
    assert len(set(capabilities(client))) == len(capabilities(client))


async def test_session_ids_differ(front: Front, client: Client) -> None:
    async with front.connect() as other:
        assert session_id(other) != session_id(client)


@rfc("6241", "8.1", "a hello with a session-id from a client ends the session")
async def test_a_session_id_of_a_client_ends_the_session(front: Front) -> None:
    async with front.connect(greet=False) as client:
        await client.receive()
        client.send(HELLO.format(capability(BASE_1_1), "<session-id>4</session-id>").encode())
        await is_over(client)


@pytest.mark.parametrize(
    "message",
    [
        case("6241", "8.1", "without a common version the session does not go on", HELLO.format(capability("urn:x"), "")),
        case("6241", "8.1", "a hello names a version", HELLO.format("", "")),
        case("6241", "8.1", "the first message of a client is a hello", rpc(GET)),
        case(
            "6241", "8.1", "a hello is of the base namespace", HELLO.format(capability(BASE_1_1), "").replace(BASE, "urn:x")
        ),
    ],
)
async def test_a_wrong_hello_ends_the_session(front: Front, message: str) -> None:
    async with front.connect(greet=False) as client:
        await client.receive()
        client.send(message.encode())
        await is_over(client)


@rfc("6241", "8.1", "the version comparison looks at the URI without parameters")
async def test_parameters_of_a_version_do_not_count(front: Front) -> None:
    async with front.connect(greet=False) as client:
        await client.receive()
        client.send(HELLO.format(capability(f"{BASE_1_1}?x=y"), "").encode())
        client.framing.use_chunks()
        assert (await ask(client, rpc(GET))).tag == f"{{{BASE}}}rpc-reply"


@rfc("6241", "8.1", "of several common versions the highest is used")
async def test_the_highest_version_is_used(front: Front) -> None:
    async with front.connect("controller", BASE_1_0, BASE_1_1) as client:
        client.stdin.write(b"\n#%d\n%b\n##\n" % (len(rpc(GET)), rpc(GET).encode()))
        assert (await element(client)).tag == f"{{{BASE}}}rpc-reply"


@rfc("6241", "8.1", "a client that has only base:1.0 is served in base:1.0")
async def test_the_old_version_is_served(front: Front) -> None:
    async with front.connect("controller", BASE_1_0) as client:
        client.stdin.write(rpc(GET).encode() + b"]]>]]>")
        assert (await element(client)).tag == f"{{{BASE}}}rpc-reply"


@rfc("6241", "8", "capabilities that a peer does not understand are ignored")
async def test_unknown_capabilities_are_ignored(front: Front) -> None:
    async with front.connect("controller", BASE_1_1, "urn:unheard-of", "http://example.net/router/2.3/x?y=z") as client:
        await client.ok(GET)


@rfc("6241", "8.1", "each peer sends one hello, when the session opens")
async def test_a_second_hello_is_no_rpc(client: Client) -> None:
    client.send(HELLO.format(capability(BASE_1_1), "").encode())
    with contextlib.suppress(EOFError):  # an end is as good an answer
        assert tag(await element(client)) in ("malformed-message", "operation-failed", "unknown-element")


# XML -----------------------------------------------------------------------------------------------------------------


@rfc("6241", "3", "a message that is no well-formed XML is answered with malformed-message")
async def test_what_is_no_xml_is_malformed(client: Client) -> None:
    reply = await ask(client, "<rpc>")
    assert tag(reply) == "malformed-message"
    assert reply.findtext(f"{{{BASE}}}rpc-error/{{{BASE}}}error-type") == "rpc"


@rfc("6241", "A", "malformed-message is not sent to a client of base:1.0")
async def test_an_old_client_hears_of_no_malformed_message(front: Front) -> None:
    async with front.connect("controller", BASE_1_0) as client:
        client.send(b"<rpc>")
        with pytest.raises(EOFError):
            await client.receive()


@rfc("6241", "3", "a malformed message leaves the next ones as they are")
async def test_a_session_goes_on_after_a_malformed_message(client: Client) -> None:
    assert tag(await ask(client, "<rpc>")) == "malformed-message"
    await client.ok(GET)


@rfc("6241", "3", "a message that is not in UTF-8 is answered with malformed-message")
@pytest.mark.parametrize(
    "message",
    [
        rpc(edit("<values><text>\u00e4</text></values>")).encode("latin-1"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?>' + rpc(edit("<values><text>\u00e4</text></values>"))).encode(
            "latin-1"
        ),
        rpc(GET).encode("utf-16"),
    ],
    ids=["latin-1", "declared latin-1", "utf-16"],
)
async def test_what_is_no_utf_8_is_malformed(client: Client, message: bytes) -> None:
    assert tag(await ask(client, message)) == "malformed-message"


@rfc("6241", "3", "messages are in UTF-8, with every character that XML has")
async def test_text_of_all_languages_comes_back(client: Client) -> None:
    text = "Schl\u00fcssel \u91cf\u5b50 \U0001f511"
    await client.ok(edit(f"<values><text>{text}</text></values>"))
    await holds(client, f"<values><text>{text}</text></values>")


@rfc("6241", "3", "a message may begin with an XML declaration")
async def test_an_xml_declaration_is_taken(client: Client) -> None:
    reply = await ask(client, '<?xml version="1.0" encoding="UTF-8"?>\n' + rpc(GET))
    assert [one.tag for one in reply] == [f"{{{BASE}}}data"]


@rfc("6241", "3.2", "document type declarations do not appear in NETCONF")
async def test_a_document_type_is_refused(client: Client) -> None:
    message = '<!DOCTYPE rpc [<!ENTITY x "running">]>' + rpc("<get-config><source><running/></source></get-config>")
    assert tag(await ask(client, message)) == "malformed-message"


@rfc("6241", "3.1", "all elements of the protocol are in the base namespace")
async def test_an_rpc_of_another_namespace_is_none(client: Client) -> None:
    reply = await ask(client, rpc(GET).replace(BASE, "urn:x"))
    assert tag(reply) in ("malformed-message", "unknown-namespace")


@rfc("6241", "3.1", "prefixes are free, the namespace counts")
async def test_prefixes_are_free(client: Client) -> None:
    reply = await ask(
        client, f'<p:rpc xmlns:p="{BASE}" message-id="1"><p:get-config><p:source><p:running/></p:source><p:filter/>'
        "</p:get-config></p:rpc>"
    )  # fmt: skip
    assert [one.tag for one in reply] == [f"{{{BASE}}}data"]


async def test_comments_and_processing_instructions_change_nothing(client: Client) -> None:
    values = c("<values><word>a<!-- b -->b</word></values>")
    target = "<target><!-- y --><running/></target>"
    body = f"<!-- x --><edit-config>{target}<config><!-- z -->{values}</config></edit-config>"
    assert [one.tag for one in await ask(client, "<?p x?>" + rpc(body))] == [f"{{{BASE}}}ok"]
    await holds(client, "<values><word>ab</word></values>")


# rpc and rpc-reply ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message_id",
    [
        case("6241", "4.1", "a message-id is any string, stored and sent back", "any string: [1] 'x' \u00e4"),
        case("6241", "4.1", "a message-id is not interpreted as a number", "00042"),
        case("6241", "4.1", "a message-id may be of any length", "9" * 4096),
        case("6241", "4.1", "a message-id may be empty", ""),
        case("6241", "4.1", "a message-id may hold characters that XML escapes", "&lt;&amp;&quot;&gt;"),
    ],
)
async def test_the_message_id_comes_back(client: Client, message_id: str) -> None:
    reply = await ask(client, rpc(GET, f'message-id="{message_id}"'))
    assert reply.get("message-id") == etree.fromstring(f'<x y="{message_id}"/>').get("y")


@rfc("6241", "4.1", "additional attributes of an rpc come back unmodified, those of other namespaces too")
@rfc("6241", "4.2", "a reply holds the rpc's additional attributes")
async def test_attributes_come_back(client: Client) -> None:
    reply = await ask(
        client, rpc(GET, 'message-id="1" xmlns:ex="http://example.net/content/1.0" ex:user-id="fred" plain="x"')
    )
    assert dict(reply.attrib) == {"message-id": "1", "{http://example.net/content/1.0}user-id": "fred", "plain": "x"}


@rfc("6241", "4.1", "the attributes that come back include any xmlns")
async def test_namespace_declarations_come_back(client: Client) -> None:
    reply = await ask(client, rpc(GET, 'message-id="1" xmlns:ex="http://example.net/content/1.0"'))
    assert reply.nsmap.get("ex") == "http://example.net/content/1.0"


@rfc("6241", "4.1", "attributes come back with an error, too")
async def test_attributes_come_back_with_an_error(client: Client) -> None:
    reply = await ask(client, rpc("<nonsense/>", 'message-id="7" plain="x"'))
    assert dict(reply.attrib) == {"message-id": "7", "plain": "x"}
    assert tag(reply)


@rfc("6241", "4.3", "an rpc without message-id gets missing-attribute, which names attribute and element")
async def test_a_missing_message_id_is_named(client: Client) -> None:
    client.send(rpc(GET, 'plain="x"').encode())
    reply = netconf.parse_reply(await client.receive())
    (error,) = reply.errors
    assert (error.tag, error.type, error.severity) == ("missing-attribute", "rpc", "error")
    assert set(error.info) == {("bad-attribute", "message-id"), ("bad-element", "rpc")}
    assert reply.message_id is None


@rfc("6241", "4.1", "the message-id is an attribute without a namespace")
async def test_a_message_id_of_another_namespace_is_none(client: Client) -> None:
    reply = await ask(client, rpc(GET, 'xmlns:x="urn:x" x:message-id="1"'))
    assert tag(reply) == "missing-attribute"


@pytest.mark.parametrize(
    "operation",
    [
        case("6241", "4.1", "an rpc names an operation", ""),
        case("6241", "4.1", "an rpc names one operation", GET + GET),
        case("6241", "4.1", "text is no operation", "get"),
    ],
)
async def test_an_rpc_holds_one_operation(client: Client, operation: str) -> None:
    reply = await ask(client, rpc(operation))
    assert tag(reply)
    assert reply.get("message-id") == "1"


@rfc("6241", "4.2", "data of a reply stand in it as child elements")
async def test_data_stand_in_the_reply(client: Client) -> None:
    reply = await ask(client, rpc(GET))
    assert (reply.tag, [one.tag for one in reply]) == (f"{{{BASE}}}rpc-reply", [f"{{{BASE}}}data"])


@rfc("6241", "4.4", "a reply without error and data holds ok and nothing else")
async def test_ok_stands_alone(client: Client) -> None:
    reply = await ask(client, rpc(edit("<values><word>a</word></values>")))
    assert [one.tag for one in reply] == [f"{{{BASE}}}ok"]


@rfc("6241", "4.3", "an error stands in a reply, its parts in their order")
async def test_the_parts_of_an_error_have_an_order(client: Client) -> None:
    reply = await ask(client, rpc(edit("<values><number>7</number></values>")))
    (error,) = reply
    order = ("error-type", "error-tag", "error-severity", "error-app-tag", "error-path", "error-message", "error-info")
    names = [etree.QName(one).localname for one in error]
    assert names == sorted(names, key=order.index)
    assert names[:3] == list(order[:3])


@rfc("6241", "4.3", "the error-path is an XPath whose prefixes the error declares")
async def test_an_error_path_leads_to_the_node(client: Client) -> None:
    reply = await ask(
        client,
        rpc(edit("<top><users><user><name>root</name><company-info><dept>x</dept></company-info></user></users></top>")),
    )
    path = reply.find(f"{{{BASE}}}rpc-error/{{{BASE}}}error-path")
    assert path is not None
    sent = etree.fromstring(
        c("<top><users><user><name>root</name><company-info><dept>x</dept></company-info></user></users></top>")
    )
    names = {prefix: uri for prefix, uri in path.nsmap.items() if prefix}
    (found,) = sent.xpath((path.text or "").strip(), namespaces=names)  # type: ignore[union-attr, misc]
    assert found.tag == f"{{{C}}}dept"  # type: ignore[union-attr]


@rfc("6241", "4.3", "an error-message says in which language it is")
async def test_an_error_message_has_a_language(client: Client) -> None:
    reply = await ask(client, rpc(edit("<values><number>7</number></values>")))
    message = reply.find(f"{{{BASE}}}rpc-error/{{{BASE}}}error-message")
    assert message is not None
    assert message.text
    assert message.get("{http://www.w3.org/XML/1998/namespace}lang")


@rfc("6241", "4.3", "there is no error-app-tag where the data model has none")
async def test_no_app_tag_without_reason(client: Client) -> None:
    error = await client.refused("<nonsense/>")
    assert not error.app_tag


# Pipelining ----------------------------------------------------------------------------------------------------------


@rfc("6241", "4.5", "rpcs are processed serially")
async def test_rpcs_are_processed_serially(client: Client) -> None:
    for number in range(10):
        client.send(rpc(edit(f"<values><word>{chr(97 + number)}</word></values>"), f'message-id="w{number}"').encode())
        client.send(
            rpc(get_config("running", "<filter>" + c("<values/>") + "</filter>"), f'message-id="r{number}"').encode()
        )
    for number in range(10):
        assert (await element(client))[0].tag == f"{{{BASE}}}ok"
        assert (await element(client)).findtext(f".//{{{C}}}word") == chr(97 + number)


@rfc("6241", "4.5", "replies come in the order of the requests")
async def test_replies_keep_the_order(client: Client) -> None:
    bodies = ["<get/>", "<nonsense/>", GET, edit("<values><word>a</word></values>"), GET]
    client.stdin.write(
        b"".join(client.framing.frame(rpc(body, f'message-id="{i}"').encode()) for i, body in enumerate(bodies * 5))
    )
    assert [(await element(client)).get("message-id") for _ in bodies * 5] == [str(i) for i in range(len(bodies) * 5)]


untestable("6241", "2.2", "the transport authenticates the server to the client", "is the client's to check; see RFC 6242")
untestable("6241", "4.1", "the sender normalises the message-id", "binds the client")
untestable(
    "6241",
    "3",
    "a server that cannot send a reply ends the session",
    "whether a reply could be sent is not seen from outside",
)
