"""The roles that a node comes with (agent/access.py): every operation that a role may do works, every other is denied."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest
from lxml import etree
from nacm import ACM
from netconf_front import NODE, QKD, Client, Front
from subscribing import MANAGE, happened, link_down, names, subscribe, until
from wire import MONITORING, C, copy, delete_config, lock, session_id, unlock, validate

from qswitch.agent import access as roles
from qswitch.agent.config import ROLES, NetconfUser
from qswitch.protocol.netconf import BASE, RpcReply

Access = Callable[[str], None]
Behind = Callable[..., None]

EXTENSIONS = "urn:quantum-switch:yang:qkd-node-extensions"
KEYSTORE = "urn:ietf:params:xml:ns:yang:ietf-keystore"
TRUSTSTORE = "urn:ietf:params:xml:ns:yang:ietf-truststore"
SERVER = "urn:ietf:params:xml:ns:yang:ietf-netconf-server"
LIBRARY = "urn:ietf:params:xml:ns:yang:ietf-yang-library"
NMDA = 'xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-nmda" xmlns:ds="urn:ietf:params:xml:ns:yang:ietf-datastores"'
LINK = str(uuid.UUID(int=0x77))

ALL = set(ROLES)
READERS = {"controller", "operator"}
WRITERS = {"controller"}
NOBODY: set[str] = set()


def link(
    inside: str = '<qkdl_type xmlns:t="urn:etsi:qkd:yang:etsi-qkd-node-types">t:VIRT</qkdl_type>', how: str = "merge"
) -> str:
    entry = f'<qkd_link nc:operation="{how}"><qkdl_id>{LINK}</qkdl_id>{inside}</qkd_link>'
    return f'<qkd_node xmlns="{QKD}" xmlns:nc="{BASE}"><qkdn_id>{NODE}</qkdn_id><qkd_links>{entry}</qkd_links></qkd_node>'


def edit(config: str, target: str = "running") -> str:
    return f"<edit-config><target><{target}/></target><config>{config}</config></edit-config>"


def edit_data(config: str, target: str = "running") -> str:
    return f"<edit-data {NMDA}><datastore>ds:{target}</datastore><config>{config}</config></edit-data>"


def get_config(source: str) -> str:
    filter_ = f'<filter><qkd_node xmlns="{QKD}"><qkdn_id/></qkd_node></filter>'
    return f"<get-config><source><{source}/></source>{filter_}</get-config>"


def get_data(datastore: str) -> str:
    filter_ = f'<subtree-filter><qkd_node xmlns="{QKD}"><qkdn_id/></qkd_node></subtree-filter>'
    return f"<get-data {NMDA}><datastore>ds:{datastore}</datastore>{filter_}</get-data>"


@dataclass(frozen=True)
class Attempt:
    """Something to try: the last of its steps; the others make it possible and are for those who may do it."""

    what: str
    who: set[str]
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return self.what


ATTEMPTS = [
    Attempt("get", ALL, ("<get><filter/></get>",)),
    Attempt("get-schema", ALL, (f'<get-schema xmlns="{MONITORING}"><identifier>conformance</identifier></get-schema>',)),
    Attempt("create-subscription", ALL, (subscribe(),)),
    Attempt("close-session", ALL, ("<close-session/>",)),
    *(Attempt(f"get-config-{one}", READERS, (get_config(one),)) for one in ("running", "startup", "candidate")),
    *(Attempt(f"get-data-{one}", READERS, (get_data(one),)) for one in ("running", "startup", "candidate", "operational")),
    Attempt("validate-running", READERS, (validate("running"),)),
    Attempt(
        "validate-config", READERS,
        (validate(f'<config><qkd_node xmlns="{QKD}"><qkdn_id>{NODE}</qkdn_id></qkd_node></config>'),),
    ),
    *(Attempt(f"edit-config-create-{one}", WRITERS, (edit(link(), one),)) for one in ("running", "candidate")),
    Attempt("edit-config-update", WRITERS, (edit(link()), edit(link("<virt_bandwidth>5</virt_bandwidth>")))),
    Attempt("edit-config-delete", WRITERS, (edit(link()), edit(link("", "delete")))),
    Attempt(
        "edit-config-extension", WRITERS,
        (edit(link(f'<remote_lkms xmlns="{EXTENSIONS}"><address>192.0.2.1</address></remote_lkms>')),),
    ),
    *(Attempt(f"edit-data-{one}", WRITERS, (edit_data(link(), one),)) for one in ("running", "startup", "candidate")),
    Attempt("copy-running-to-startup", WRITERS, (copy("running", "startup"),)),
    Attempt("copy-running-to-candidate", WRITERS, (edit(link(), "candidate"), copy("running", "candidate"))),
    Attempt("copy-startup-to-running", WRITERS, (copy("running", "startup"), edit(link()), copy("startup", "running"))),
    Attempt("lock-running", WRITERS, (lock("running"),)),
    Attempt("lock-candidate", WRITERS, (lock("candidate"),)),
    Attempt("lock-startup", WRITERS, (lock("startup"),)),
    Attempt("unlock", WRITERS, (lock("running"), unlock("running"))),
    Attempt("commit", WRITERS, (edit(link(), "candidate"), "<commit/>")),
    Attempt("confirmed-commit", WRITERS, (edit(link(), "candidate"), "<commit><confirmed/></commit>")),
    Attempt("cancel-commit", WRITERS, (edit(link(), "candidate"), "<commit><confirmed/></commit>", "<cancel-commit/>")),
    Attempt("discard-changes", WRITERS, (edit(link(), "candidate"), "<discard-changes/>")),
    Attempt("delete-config", NOBODY, (delete_config("startup"),)),
    Attempt("factory-reset", NOBODY, ('<factory-reset xmlns="urn:ietf:params:xml:ns:yang:ietf-factory-default"/>',)),
    Attempt("an-operation-of-a-later-module", NOBODY, (f'<nothing xmlns="{C}"/>',)),
    *(
        Attempt(f"{how.__name__}-{what}-{datastore}", NOBODY, (how(config, datastore),))
        for what, config in (
            ("rules", f'<nacm xmlns="{ACM}"><enable-nacm>false</enable-nacm></nacm>'),
            ("server", f'<netconf-server xmlns="{SERVER}"><listen><idle-timeout>9</idle-timeout></listen></netconf-server>'),
            (
                "keys",
                f'<keystore xmlns="{KEYSTORE}"><asymmetric-keys><asymmetric-key><name>mine</name>'
                '<private-key-format xmlns:ln="urn:cesnet:libnetconf2-netconf-server">ln:private-key-info-format'
                "</private-key-format><cleartext-private-key>AAAA</cleartext-private-key>"
                "</asymmetric-key></asymmetric-keys></keystore>",
            ),
            (
                "trust",
                f'<truststore xmlns="{TRUSTSTORE}"><certificate-bags><certificate-bag><name>mine</name></certificate-bag>'
                "</certificate-bags></truststore>",
            ),
            ("a-later-module", f'<values xmlns="{C}"><word>a</word></values>'),
        )
        for how, datastore in ((edit, "running"), (edit, "candidate"), (edit_data, "running"), (edit_data, "startup"))
    ),
]  # fmt: skip


@pytest.fixture
def installed(front: Front, access: Access) -> Iterator[None]:
    """The rules as a node installs them; each role has a user of its name."""
    access(json.dumps(roles.rules([NetconfUser(one, "", one) for one in ROLES])))
    yield
    deadline = time.monotonic() + 10
    while True:  # a lock ends a moment after the session that had it
        try:
            front.side("apply", link("", "remove"))
        except AssertionError as error:
            assert "locked" in str(error)
            assert time.monotonic() < deadline
        else:
            break


@pytest.fixture
async def session(front: Front, installed: None, role: str) -> AsyncIterator[Client]:
    async with front.connect(role) as session:
        yield session


def denied(reply: RpcReply) -> bool:
    return any(error.tag == "access-denied" for error in reply.errors)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
async def test_operation(session: Client, role: str, attempt: Attempt) -> None:
    if role not in attempt.who:
        assert denied(await session.rpc(attempt.steps[-1]))
        return
    try:
        for step in attempt.steps:
            await session.ok(step)
    finally:
        if attempt.what in ("edit-config-create-candidate", "edit-data-candidate", "confirmed-commit"):
            await session.rpc("<cancel-commit/>")
            await session.rpc("<discard-changes/>")
        if attempt.what == "edit-data-startup":
            await session.ok(edit_data(link("", "remove"), "startup"))


@pytest.mark.parametrize("role", ROLES)
async def test_kill_session(front: Front, session: Client, role: str) -> None:
    async with front.connect("guest") as other:
        reply = await session.rpc(f"<kill-session><session-id>{session_id(other)}</session-id></kill-session>")
    assert denied(reply) is (role != "controller")
    assert bool(reply.errors) is (role != "controller")


READABLE = [
    (ALL, f'<qkd_node xmlns="{QKD}"><qkdn_id/></qkd_node>'),
    (ALL, f'<yang-library xmlns="{LIBRARY}"><content-id/></yang-library>'),
    (ALL, f'<netconf-state xmlns="{MONITORING}"><statistics/></netconf-state>'),
    (ALL, f'<netconf xmlns="{MANAGE}"><streams/></netconf>'),
    (READERS, f'<netconf-server xmlns="{SERVER}"/>'),
    (READERS, f'<nacm xmlns="{ACM}"><groups/></nacm>'),
    (
        READERS,
        f"<keystore xmlns='{KEYSTORE}'><asymmetric-keys><asymmetric-key><public-key/></asymmetric-key></asymmetric-keys>"
        "</keystore>",
    ),
    (READERS, f'<values xmlns="{C}"/>'),
    (
        NOBODY,
        f"<keystore xmlns='{KEYSTORE}'><asymmetric-keys><asymmetric-key><cleartext-private-key/></asymmetric-key>"
        "</asymmetric-keys></keystore>",
    ),
]


@pytest.mark.parametrize("role", ROLES)
async def test_what_is_readable(front: Front, behind: Behind, session: Client, role: str) -> None:
    front.side("follow")  # a node's agent has its configuration in effect, and so in what get shows
    behind("apply", f'<values xmlns="{C}"><word>a</word></values>')
    for who, filter_ in READABLE:
        leaf = [one.tag for one in etree.fromstring(filter_).iter()][-1]
        [data] = await session.ok(f"<get><filter>{filter_}</filter></get>")
        assert bool([one for one in data.iter(leaf) if one.tag != data.tag]) is (role in who), filter_


@pytest.mark.parametrize("role", ROLES)
async def test_what_is_heard(front: Front, behind: Behind, session: Client, role: str) -> None:
    """All events of the node and of the server; of modules that came later only who reads everything."""
    await session.ok(subscribe())
    behind("notify", happened("a"))
    behind("notify", link_down("b"))
    assert ("happened" in names(await until(session, "b"))) is (role in READERS)
    async with front.connect("guest") as guest:
        started = False
        while not started:
            _, event = (await until(session, "netconf-session-start"))[-1]
            started = str(session_id(guest)) in [leaf.text for leaf in event]


async def test_a_user_without_a_role_can_do_nothing(front: Front, installed: None) -> None:
    async with front.connect("guest") as guest:
        for attempt in ATTEMPTS:
            if attempt.what != "close-session":
                assert denied(await guest.rpc(attempt.steps[-1])), attempt
        await guest.ok("<close-session/>")


async def test_a_monitor_hears_nothing_of_changes_that_it_may_not_read(front: Front, installed: None) -> None:
    """netconf-config-change names what changed; that of keys, rules and the server is no monitor's business."""
    async with front.connect("monitor") as monitor:
        await monitor.ok(subscribe())
        for xml in (
            f'<netconf-server xmlns="{SERVER}"><listen><idle-timeout>77</idle-timeout></listen></netconf-server>',
            f'<nacm xmlns="{ACM}"><groups><group><name>hush</name></group></groups></nacm>',
            link(),
        ):
            front.side("apply", xml)
        _, first = (await until(monitor, "netconf-config-change"))[-1]
        targets = [leaf.text or "" for leaf in first.iter("{*}target")]
    front.side("apply", f'<netconf-server xmlns="{SERVER}"><listen><idle-timeout>0</idle-timeout></listen></netconf-server>')
    assert targets
    assert all("qkd_node" in one for one in targets)
