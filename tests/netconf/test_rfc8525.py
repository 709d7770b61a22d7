"""RFC 8525: the YANG library, and that its content-id changes when the modules do."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lxml import etree
from netconf_front import Client, Front
from rfc import rfc
from subscribing import subscribe, until
from wire import CAPABILITY, capabilities

_L = "{urn:ietf:params:xml:ns:yang:ietf-yang-library}"
EXTRA = """
module extra {
  yang-version 1.1;
  namespace "urn:quantum-switch:test:extra";
  prefix x;
  revision 2026-11-25;
  feature more;
  container extra { leaf word { type string; } leaf more { if-feature more; type string; } }
}"""


async def library(client: Client) -> etree._Element:
    [data] = await client.ok(f'<get><filter><yang-library xmlns="{_L[1:-1]}"/></filter></get>')
    found = data.find(f"{_L}yang-library")
    assert found is not None
    return found


def texts(element: etree._Element, path: str) -> list[str]:
    """The leafs at a path of names."""
    return [one.text or "" for one in element.iterfind("/".join(f"{_L}{step}" for step in path.split("/")))]


def offered(client: Client) -> dict[str, str]:
    """The parameters of the capability yang-library."""
    [found] = [one for one in capabilities(client) if one.startswith(f"{CAPABILITY}yang-library:1.1?")]
    return dict(part.split("=", 1) for part in found.partition("?")[2].split("&"))


@rfc("8525", "3", "the library has module sets, schemas made of them, and datastores with their schema")
@rfc("8525", "3", "every datastore that the server supports is listed")
async def test_the_library(client: Client) -> None:
    found = await library(client)
    sets, schemas = texts(found, "module-set/name"), texts(found, "schema/name")
    assert sets
    assert set(texts(found, "schema/module-set")) <= set(sets)
    assert set(texts(found, "datastore/schema")) <= set(schemas)
    names = {one.rpartition(":")[2] for one in texts(found, "datastore/name")}
    assert {"running", "candidate", "startup", "operational"} <= names


@rfc("8342", "5.1", "all conventional datastores have one schema")
async def test_conventional_datastores(client: Client) -> None:
    entries = (await library(client)).iterfind(f"{_L}datastore")
    schema = {one.findtext(f"{_L}name", "").rpartition(":")[2]: one.findtext(f"{_L}schema") for one in entries}
    assert len({schema[one] for one in ("running", "candidate", "startup")}) == 1


@rfc("8525", "3", "a module is listed with name, revision and namespace, once in its set")
@rfc("7950", "5.6.4", "every module that the server implements is in the library")
async def test_the_modules(client: Client) -> None:
    found = await library(client)
    for one in found.iterfind(f"{_L}module-set"):
        modules = texts(one, "module/name")
        assert len(set(modules)) == len(modules)
        assert {"conformance", "etsi-qkd-sdn-node", "ietf-netconf", "ietf-netconf-nmda", "ietf-yang-library"} <= set(modules)
    entries = {one.findtext(f"{_L}name"): one for one in found.iter(f"{_L}module")}
    assert entries["conformance"].findtext(f"{_L}revision") == "2026-11-25"
    assert entries["conformance"].findtext(f"{_L}namespace") == "urn:quantum-switch:test:conformance"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", text) for text in texts(found, "module-set/module/revision"))
    imported = texts(found, "module-set/import-only-module/name")
    assert "ietf-yang-types" in imported
    assert not set(imported) & {"conformance", "ietf-netconf"}


@rfc("8525", "3", "the features of a module that are on, and no others, are listed")
@rfc("7950", "5.6.5", "optional features of ietf-netconf are on when the capability is offered")
async def test_the_features(client: Client) -> None:
    entries = {one.findtext(f"{_L}name"): one for one in (await library(client)).iter(f"{_L}module")}
    assert texts(entries["conformance"], "feature") == []
    on = set(texts(entries["ietf-netconf"], "feature"))
    known = ("writable-running", "candidate", "confirmed-commit", "rollback-on-error", "validate", "startup", "url", "xpath")
    assert on == {one for one in known if any(f"capability:{one}:" in text for text in capabilities(client))}


@rfc("8526", "2", "the hello has the revision of the library and its content-id")
@rfc("8525", "3", "the content-id is the same while the modules are")
async def test_the_content_id(front: Front, client: Client) -> None:
    found = await library(client)
    [own] = [one for one in found.iter(f"{_L}module") if one.findtext(f"{_L}name") == "ietf-yang-library"]
    wanted = {"revision": own.findtext(f"{_L}revision"), "content-id": texts(found, "content-id")[0]}
    assert offered(client) == wanted
    async with front.connect() as other:
        assert offered(other) == wanted
        assert texts(await library(other), "content-id") == [wanted["content-id"]]


def change(front: Front, *arguments: str) -> None:
    # libyang searches the current folder with all that is below it.
    done = subprocess.run(["sysrepoctl", *arguments], env=front.environment, cwd="/dev/shm", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@contextmanager
def extra(front: Front, folder: Path) -> Iterator[None]:
    """One module more."""
    file = folder / "extra@2026-11-25.yang"
    file.write_text(EXTRA)
    change(front, "-i", str(file))
    try:
        yield
    finally:
        change(front, "-u", "extra")


@rfc("8525", "3", "the content-id changes when modules come and go")
@rfc("8525", "3", "the content-id changes when a feature is switched")
@rfc("8525", "4", "a change of the library is told with the new content-id: yang-library-update")
@rfc("6470", "2.2", "a change of the capabilities is told: netconf-capability-change")
async def test_a_change_of_modules(front: Front, client: Client, tmp_path: Path) -> None:
    ids = [offered(client)["content-id"]]

    async def told() -> None:
        found = {etree.QName(event).localname: event for _, event in await until(client, "yang-library-update")}
        ids.append(found["yang-library-update"].findtext(f"{_L}content-id", ""))
        async with front.connect() as other:
            assert offered(other)["content-id"] == ids[-1]
            assert texts(await library(other), "content-id") == [ids[-1]]
            listed = "extra" in texts(await library(other), "module-set/module/name")
        assert listed is (len(ids) < 4)

    await client.ok(subscribe())
    with extra(front, tmp_path):
        await told()
        change(front, "-c", "extra", "-e", "more")
        await told()
    await told()
    assert len(set(ids[:3])) == 3
    assert ids[3] == ids[0] or ids[3] not in ids[1:3]


@rfc("6470", "2.2", "a capability that came or went is named")
async def test_the_capabilities_that_changed(front: Front, client: Client, tmp_path: Path) -> None:
    events = "{urn:ietf:params:xml:ns:yang:ietf-netconf-notifications}"

    async def told() -> tuple[list[str], list[str]]:
        event = (await until(client, "netconf-capability-change"))[-1][1]
        assert event.find(f"{events}changed-by") is not None
        names = ("added-capability", "deleted-capability", "modified-capability")
        found = {name: [one.text or "" for one in event.iter(f"{events}{name}")] for name in names}
        assert any("yang-library" in one for one in found["modified-capability"])
        return found["added-capability"], found["deleted-capability"]

    await client.ok(subscribe())
    with extra(front, tmp_path):
        added, _ = await told()
        listed = [one for one in added if "module=extra" in one]
    _, deleted = await told()
    assert [one for one in deleted if "module=extra" in one] == listed


@rfc("7895", "2.1.3", "who knows only the older library finds the same modules in modules-state")
async def test_the_older_library(client: Client) -> None:
    [data] = await client.ok(f'<get><filter><modules-state xmlns="{_L[1:-1]}"/></filter></get>')
    found = data.find(f"{_L}modules-state")
    if found is None:
        pytest.skip("the server has no modules-state, which RFC 8525 lets it leave out")
    assert texts(found, "module-set-id")[0]
    implemented = {one.findtext(f"{_L}name") for one in found if one.findtext(f"{_L}conformance-type") == "implement"}
    assert implemented == set(texts(await library(client), "module-set/module/name"))
