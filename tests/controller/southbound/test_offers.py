"""Capabilities and modules in words, for nodes that lack some of them."""

import pytest
from lxml import etree

from qswitch.controller.checks import Level
from qswitch.controller.southbound import capabilities, modules

ALL = [one.uri for one in capabilities._KNOWN]
NOW = modules.needed()


def test_a_node_with_everything_lacks_nothing() -> None:
    known, others, missed = capabilities.check(
        [*ALL, "urn:x", "urn:y?module=y&revision=2020-01-01", f"{ALL[-1]}?revision=1"]
    )
    assert all(one.offered for one in known)
    assert others == ("urn:x",)
    assert missed == ()


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        (":writable-running:1.0", Level.WRONG, "cannot configure this node"),
        (":notification:1.0", Level.WRONG, "hears neither"),
        (":rollback-on-error:1.0", Level.NOTE, "half"),
        (":candidate:1.0", None, "edits running"),
        ("base:1.1", Level.NOTE, "marker"),
    ],
)
def test_what_follows_from_the_lack_of_one(name: str, level: Level | None, words: str) -> None:
    known, _others, missed = capabilities.check(one for one in ALL if not one.endswith(name))
    (lacking,) = [one for one in known if not one.offered]
    assert lacking.name == name
    assert words in lacking.words
    assert [one.level for one in missed] == ([level] if level else [])


def test_the_version_is_the_newer_one_of_both() -> None:
    assert capabilities.version(["urn:ietf:params:netconf:base:1.0", "urn:ietf:params:netconf:base:1.1"]) == "1.1"
    assert capabilities.version(["urn:ietf:params:netconf:base:1.0"]) == "1.0"


LIBRARY = "urn:ietf:params:xml:ns:yang:ietf-yang-library"
REPLIES = [
    f'<yang-library xmlns="{LIBRARY}"><module-set><module><name>m</name><revision>2020-01-01</revision></module>'
    "<import-only-module><name>i</name></import-only-module></module-set></yang-library>",
    f'<modules-state xmlns="{LIBRARY}"><module><name>m</name><revision>2020-01-01</revision></module></modules-state>',
    '<netconf-state xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"><schemas><schema><identifier>m</identifier>'
    "<version>2020-01-01</version></schema></schemas></netconf-state>",
]


@pytest.mark.parametrize("reply", REPLIES)
def test_every_list_of_modules_is_read(reply: str) -> None:
    assert modules.parse(etree.fromstring(f"<data>{reply}</data>"), ["urn:h?module=h"]) == {"m": "2020-01-01"}


def test_without_a_list_the_hello_must_do() -> None:
    hello = ["urn:m?module=m&revision=2020-01-01&features=f", "urn:n?module=n", "urn:ietf:params:netconf:base:1.1"]
    assert modules.parse(etree.fromstring("<data/>"), hello) == {"m": "2020-01-01", "n": ""}


def test_the_modules_of_a_node_of_ours_are_as_they_should_be() -> None:
    checks, findings = modules.check({**NOW, "other": ""})
    assert {one.words for one in checks} == {"as the controller knows it"}
    assert findings == ()


@pytest.mark.parametrize(
    ("name", "revision", "level", "words"),
    [
        ("etsi-qkd-sdn-node", None, Level.WRONG, "does not speak ETSI GS QKD 015"),
        ("etsi-qkd-node-types", None, Level.WRONG, "every edit is refused"),
        ("qkd-node-extensions", None, Level.NOTE, "stay unknown"),
        ("etsi-qkd-sdn-node", "2022-01-30", Level.NOTE, "as ETSI published it"),
        ("etsi-qkd-node-types", "2020-09-30", Level.NOTE, "older"),
        ("qkd-node-extensions", "2099-01-01", Level.NOTE, "newer"),
    ],
)
def test_a_module_that_is_missing_or_another_one(name: str, revision: str | None, level: Level, words: str) -> None:
    found = {**NOW, name: revision} if revision else {one: NOW[one] for one in NOW if one != name}
    checks, findings = modules.check(found)  # type: ignore[arg-type]
    assert [one.revision for one in checks if one.name == name] == [revision]
    assert [(one.level, name in one.text, words in one.text) for one in findings] == [(level, True, True)]
