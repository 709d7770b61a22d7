"""Modules that come and go while the server runs (RFC 8525, RFC 8526 clause 2, RFC 6470 clause 2.2)."""

import subprocess
from pathlib import Path

from lxml import etree
from netconf_front import Client, Front

from qswitch.protocol import netconf

LATE = 'module late { namespace "urn:late"; prefix l; container late { leaf here { type string; } } }'
SUBSCRIBE = (
    '<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0"><filter>'
    '<netconf-capability-change xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-notifications"/>'
    '<yang-library-update xmlns="urn:ietf:params:xml:ns:yang:ietf-yang-library"/></filter></create-subscription>'
)
YANG_LIBRARY = "urn:ietf:params:xml:ns:yang:ietf-yang-library"
LIBRARY = f'<get><filter><yang-library xmlns="{YANG_LIBRARY}"><content-id/></yang-library></filter></get>'
EDIT = '<late xmlns="urn:late"><here>yes</here></late>'
REMOVE = f'<late xmlns="urn:late" xmlns:nc="{netconf.BASE}" nc:operation="remove"/>'


def change(front: Front, *arguments: str) -> None:
    # libyang searches the current folder with all that is below it.
    done = subprocess.run(["sysrepoctl", *arguments], env=front.environment, cwd="/dev/shm", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def library(client: Client) -> str:
    assert client.hello is not None
    return next(one for one in client.hello.capabilities if ":yang-library:" in one)


async def events(client: Client, *names: str) -> list[etree._Element]:
    """One of each, in whatever order they come."""
    found: dict[str, etree._Element] = {}
    while not set(names) <= set(found):
        _, one = netconf.parse_notification(await client.receive())
        found.setdefault(etree.QName(one).localname, one)
    return [found[name] for name in names]


async def test_a_module_that_comes_is_offered_and_told_of(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "late.yang"
    file.write_text(LATE)
    async with front.connect() as before, front.connect() as listener:
        await listener.ok(SUBSCRIBE)
        change(front, "-i", str(file))
        capability, update = await events(listener, "netconf-capability-change", "yang-library-update")
        assert "urn:late?module=late" in etree.tostring(capability, encoding="unicode")
        async with front.connect() as after:
            assert after.hello is not None
            assert library(after) != library(before)
            assert library(after).endswith(f"content-id={update[0].text}")
            assert "urn:late?module=late" in after.hello.capabilities
            content = await after.ok(LIBRARY)
            assert content[0][0][0].text == update[0].text
        # A session that was there before can work with it, too.
        assert not (await before.edit(EDIT)).errors
        assert not (await before.edit(REMOVE)).errors
        change(front, "-u", "late")
        (gone,) = await events(listener, "netconf-capability-change")
        assert "deleted-capability" in etree.tostring(gone, encoding="unicode")
        assert (await before.edit(EDIT)).errors[0].tag == "unknown-namespace"
