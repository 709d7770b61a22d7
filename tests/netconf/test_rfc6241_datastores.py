"""RFC 6241 clauses 7.3, 7.4, 8.6 and 8.7: copy-config, delete-config, validate, startup; 8.2: writable-running."""

from functools import partial

import pytest
from lxml import etree
from netconf_front import Client, Front
from rfc import case, rfc, untestable
from wire import C, c, copy, delete_config, edit, get_config, holds, offers, refused, validate

A = "<top><users><user><name>a</name></user></users></top>"
B = "<values><word>b</word></values>"
INVALID = "<rules><low>9</low><high>1</high><needed>x</needed><road>r</road><pair>p</pair></rules>"
SET = "<test-option>set</test-option>"
ELSEWHERE = (
    "operation-not-supported",
    "invalid-value",
    "unknown-element",
    "bad-element",
    "operation-failed",
    "access-denied",
)


async def whole(client: Client, datastore: str, xml: str) -> str:
    """A complete configuration: what the datastore holds of other modules, and the given data of module `conformance`.

    Other modules' mandatory data have to be there, and nobody's access must be lost.
    """
    (found,) = await client.ok(get_config(datastore))
    others = "".join(etree.tostring(one, encoding="unicode") for one in found if etree.QName(one).namespace != C)
    return f"<config>{others}{c(xml)}</config>"


# copy-config ---------------------------------------------------------------------------------------------------------


@rfc("6241", "7.3", "copy-config replaces all of the target by the source")
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("running", "startup"),
        ("startup", "running"),
        ("running", "candidate"),
        ("candidate", "running"),
        ("startup", "candidate"),
        ("candidate", "startup"),
    ],
)
async def test_copies_replace(client: Client, source: str, target: str) -> None:
    # What is not startup's only is set up by way of candidate and running.
    if "startup" in (source, target):
        await client.ok(edit(A if source == "startup" else B))
        await client.ok(copy("running", "startup"))
    for datastore in {source, target} - {"startup"}:
        xml = A if datastore == source else B
        await client.ok(edit(xml.replace(">", ' nc:operation="replace">', 1), target=datastore))
        other = "values" if datastore == source else "top"
        await client.ok(edit(f'<{other} nc:operation="remove"/>', target=datastore))
    await client.ok(copy(source, target))
    await holds(client, A, target)
    await holds(client, A, source)


@rfc("6241", "7.3", "source and target that are the same give invalid-value")
@pytest.mark.parametrize("datastore", ["running", "startup", "candidate"])
async def test_a_copy_into_itself(client: Client, datastore: str) -> None:
    await refused(client, copy(datastore, datastore), "invalid-value")


@rfc("6241", "7.3", "the source may be a complete configuration in the request")
@pytest.mark.parametrize("target", ["running", "startup", "candidate"])
async def test_a_copy_of_a_config(client: Client, target: str) -> None:
    await client.ok(edit(B))
    await client.ok(copy("running", "startup"))
    await client.ok(copy(await whole(client, target, A), target))
    await holds(client, A, target)


@rfc("6241", "7.3", "a configuration in the request is whole: operations have no place in it")
@pytest.mark.parametrize("target", ["running", "startup", "candidate"])
async def test_a_copy_of_an_edit(client: Client, target: str) -> None:
    for edited in '<values nc:operation="delete"/>', '<values><word nc:operation="delete">b</word></values>':
        config = await whole(client, target, edited)
        await refused(client, copy(config, target), "unknown-attribute")
        await refused(client, validate(config), "unknown-attribute")
    assert (
        await client.rpc(copy(await whole(client, target, '<values><word nc:operation="delete"/></values>'), target))
    ).errors


@rfc("6241", "7.3", "a copy of what is no valid configuration fails and changes nothing")
async def test_a_copy_of_an_invalid_config(client: Client) -> None:
    await client.ok(edit(B))
    await refused(client, copy(await whole(client, "running", INVALID), "running"), "operation-failed")
    await holds(client, B)


@rfc("6241", "7.3", "a copy of a configuration that misses what is mandatory elsewhere fails and changes nothing")
async def test_a_copy_that_misses_the_node(client: Client) -> None:
    await client.ok(edit(B))
    await refused(client, copy(f"<config>{c(A)}</config>", "running"))
    await holds(client, B)


copies = partial(case, "6241", "7.3")


@pytest.mark.parametrize(
    ("operation", "tags"),
    [
        copies("a copy has a target", "<copy-config><source><running/></source></copy-config>", ("missing-element",)),
        copies("a copy has a source", "<copy-config><target><candidate/></target></copy-config>", ("missing-element",)),
        copies(
            "the source is one datastore",
            "<copy-config><target><candidate/></target><source><running/><startup/></source></copy-config>",
            ("bad-element",),
        ),
        copies("the source is a datastore of the server", copy("nowhere", "candidate"), ELSEWHERE),
        copies("the target is a datastore of the server", copy("running", "nowhere"), ELSEWHERE),
        case("6241", "8.8", "a copy to a url needs its capability", copy("running", "url"), ELSEWHERE),
        copies(
            "data in the source follow the data model",
            copy("<config><x xmlns='urn:nowhere'/></config>", "candidate"),
            ("unknown-namespace",),
        ),
    ],
)
async def test_what_cannot_be_copied(client: Client, operation: str, tags: tuple[str, ...]) -> None:
    await refused(client, operation, *tags)


# delete-config -------------------------------------------------------------------------------------------------------


@rfc("6241", "7.4", "running cannot be deleted")
async def test_running_cannot_be_deleted(client: Client) -> None:
    await client.ok(edit(A))
    await refused(client, delete_config("running"), *ELSEWHERE)
    await holds(client, A)


@rfc("6241", "7.4", "candidate is no target of delete-config")
async def test_candidate_cannot_be_deleted(client: Client) -> None:
    await refused(client, delete_config("candidate"), *ELSEWHERE)


@rfc("6241", "7.4", "delete-config has a target")
async def test_delete_needs_a_target(client: Client) -> None:
    await refused(client, "<delete-config/>", "missing-element")
    await refused(client, "<delete-config><target/></delete-config>", "missing-element")


@rfc("6241", "8.7.5.1", "startup can be deleted: it is empty, or what the device has from its maker, afterwards")
async def test_startup_is_deleted(client: Client) -> None:
    """A node without its id is no valid node: module etsi-qkd-sdn-node keeps this server from an empty startup."""
    await client.ok(edit(A))
    await client.ok(copy("running", "startup"))
    reply = await client.rpc(delete_config("startup"))
    if reply.errors:
        assert [(one.tag, one.info) for one in reply.errors] == [("missing-element", (("bad-element", "qkdn_id"),))]
        await holds(client, A, "startup")
    else:
        await holds(client, "", "startup")


# validate ------------------------------------------------------------------------------------------------------------


@rfc("6241", "8.6.4.1", "validate answers ok for a valid datastore")
@pytest.mark.parametrize("datastore", ["running", "startup", "candidate"])
async def test_a_valid_datastore(client: Client, datastore: str) -> None:
    assert offers(client, "validate:1.1")
    await client.ok(validate(datastore))


@rfc("6241", "8.6.4.1", "validate tells what is wrong with a candidate")
async def test_an_invalid_candidate(client: Client) -> None:
    await client.ok(edit(INVALID, SET, "candidate"))
    error = await refused(client, validate("candidate"), "operation-failed")
    assert error.app_tag == "low-above-high"


@rfc("6241", "8.6.4.1", "validate looks for missing parameters")
async def test_a_candidate_with_something_missing(client: Client) -> None:
    await client.ok(edit("<rules><low>1</low></rules>", SET, "candidate"))
    assert (await client.rpc(validate("candidate"))).errors


@rfc("6241", "8.6.4.1", "validate looks for references to what is not there")
async def test_a_candidate_with_a_dangling_reference(client: Client) -> None:
    await client.ok(edit("<interfaces><main>eth9</main></interfaces>", SET, "candidate"))
    error = await refused(client, validate("candidate"), "data-missing")
    assert error.app_tag == "instance-required"


@rfc("6241", "8.6.4.1", "validate takes a complete configuration in the request")
async def test_a_valid_config(client: Client) -> None:
    await client.ok(validate(await whole(client, "running", A)))
    await holds(client, "")


@rfc("6241", "8.6.4.1", "validate tells what is wrong with a configuration in the request")
async def test_an_invalid_config(client: Client) -> None:
    await refused(client, validate(await whole(client, "running", INVALID)), "operation-failed")
    await refused(client, validate(await whole(client, "running", "<values><number>7</number></values>")), "invalid-value")
    await refused(client, validate(await whole(client, "running", "<nonsense/>")), "unknown-element")


@rfc("6241", "8.6.4.1", "validate changes nothing")
async def test_validate_changes_nothing(client: Client) -> None:
    await client.ok(edit(A, target="candidate"))
    await client.ok(validate("candidate"))
    await holds(client, A, "candidate")
    await holds(client, "")


@pytest.mark.parametrize(
    ("operation", "tags"),
    [
        case("6241", "8.6.4.1", "validate has a source", "<validate/>", ("missing-element",)),
        case(
            "6241",
            "8.6.4.1",
            "validate names a source",
            "<validate><source/></validate>",
            ("missing-element",),
        ),
        case("6241", "8.6.4.1", "the source of validate is a datastore of the server", validate("nowhere"), ELSEWHERE),
        case("6241", "8.8", "a url is validated only with its capability", validate("<url>file://x</url>"), ELSEWHERE),
    ],
)
async def test_what_cannot_be_validated(client: Client, operation: str, tags: tuple[str, ...]) -> None:
    await refused(client, operation, *tags)


# get-config's source, running, startup -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "tags"),
    [
        case("6241", "7.1", "get-config has a source", "<get-config/>", ("missing-element",)),
        case("6241", "7.1", "the source names a datastore", "<get-config><source/></get-config>", ("missing-element",)),
        case("6241", "7.1", "the source is a datastore of the server", get_config("nowhere"), ELSEWHERE),
        case("6241", "8.8", "a url is read only with its capability", get_config("url"), ELSEWHERE),
    ],
)
async def test_what_cannot_be_read(client: Client, operation: str, tags: tuple[str, ...]) -> None:
    await refused(client, operation, *tags)


@rfc("6241", "8.2", "running can be edited where writable-running is offered")
async def test_running_is_writable(client: Client) -> None:
    assert offers(client, "writable-running:1.0")
    await client.ok(edit(A))
    await holds(client, A)


@rfc("6241", "8.7", "startup is a datastore of its own")
async def test_startup_is_apart(client: Client) -> None:
    assert offers(client, "startup:1.0")
    await client.ok(edit(A))
    await holds(client, "", "startup")


@rfc("6241", "8.7", "what is copied to startup stays when running changes")
async def test_startup_stays(client: Client) -> None:
    await client.ok(edit(A))
    await client.ok(copy("running", "startup"))
    await client.ok(edit('<top nc:operation="remove"/>'))
    await holds(client, A, "startup")
    await holds(client, "")


async def test_what_one_session_writes_the_other_reads(front: Front, client: Client) -> None:
    async with front.connect() as other:
        await client.ok(edit(A))
        await holds(other, A)


untestable("6241", "8.7", "the device loads startup when it boots", "a node's boot is the agent's; tests/network shows it")
untestable("6241", "8.8", "what a server with :url does", "the capability is not offered")
