"""YANG data and values: the schema and the tables have the same leaves, both ways; differences are the least there are."""

from collections.abc import Iterator
from datetime import UTC, datetime

import libyang
import pytest

from qswitch import yang
from qswitch.agent import notifications, yangdata
from qswitch.agent.errors import InvalidValue
from qswitch.agent.model import (
    Admission,
    ApplicationState,
    ApplicationStatus,
    Consumption,
    InterfaceId,
    InterfaceStatus,
    KeyStreamId,
    LinkId,
    LinkState,
    LinkStatus,
    LinkType,
    NodeState,
    NodeStatus,
    Performance,
    Qos,
)

LINK = LinkId("aaaaaaaa-0000-4000-8000-000000000001")
KSID = KeyStreamId("bbbbbbbb-0000-4000-8000-000000000001")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def schema() -> libyang.Context:
    context = libyang.Context(":".join(map(str, yang.SEARCH)), disable_searchdir_cwd=True)
    for module in yang.QKD:
        context.load_module(module.name)
    return context


def leaves(node: libyang.SNode, path: str = "", listed: str = "") -> Iterator[tuple[str, str, libyang.SNode]]:
    """(list, leaf below it, node) of every leaf below a node; names outside of 015's own module carry their module's."""
    for child in node.children():
        foreign = child.module().name() != yang.NODE
        inherited = foreign and node.module().name() == child.module().name()
        name = f"{child.module().name()}:{child.name()}" if foreign and not inherited else child.name()
        below = f"{path}/{name}".lstrip("/")
        if isinstance(child, libyang.SLeaf | libyang.SLeafList):
            yield listed, below, child
        elif isinstance(child, libyang.SList):
            yield from leaves(child, "", f"{listed}/{below}".lstrip("/"))
        else:
            yield from leaves(child, below, listed)


def is_key(node: libyang.SNode) -> bool:
    return isinstance(node, libyang.SLeaf) and node.is_key()


def test_every_configurable_leaf_has_a_row_and_every_row_a_leaf(schema: libyang.Context) -> None:
    root = next(iter(schema.find_path(yangdata.ROOT)))
    found = {(listed, path) for listed, path, leaf in leaves(root) if not leaf.config_false()}
    assert found == {(listed, path) for listed, rows in yangdata.CONFIGURATION.items() for path in rows}


def test_every_leaf_of_the_state_is_pushed(schema: libyang.Context) -> None:
    root = next(iter(schema.find_path(yangdata.ROOT)))
    found = {(listed, path) for listed, path, leaf in leaves(root) if leaf.config_false() and not is_key(leaf)}
    keys = {(listed, path) for listed, path, leaf in leaves(root) if is_key(leaf)}
    have = {(listed, path) for listed, (_key, rows) in yangdata.STATE.items() for path in rows}
    assert have == found | {("qkd_links/qkd_link", "qkdl_status")}  # of both kinds
    assert {(listed, key) for listed, (key, _rows) in yangdata.STATE.items() if listed} == keys


def test_every_notification_is_built(schema: libyang.Context) -> None:
    module = schema.get_module(yang.NODE)
    names = {node.name() for node in module.children((libyang.SNode.NOTIF,))}
    built = {
        "_".join(("sdqkdn", builder.__name__.strip("_").replace("performance", "perf")))
        for kind, builder in notifications.BUILDERS.items()
        if kind is not notifications.Event
    }
    assert built | {"alarm", "event"} == names


def node(**members: object) -> yangdata.Data:
    return {"qkdn_id": "00000000-0000-4000-8000-00000000000a", **members}


def test_configuration() -> None:
    link = {"qkdl_id": LINK, "qkdl_type": f"{yang.TYPES}:VIRT", "virt_next_hop": ["aaaaaaaa-0000-4000-8000-00000000000b"]}
    application = {
        "app_id": KSID,
        f"{yang.EXTENSIONS}:admission": "qos-not-met",
        "app_qos": {"ttl": 7, f"{yang.EXTENSIONS}:timeout": 900},
    }
    found = yangdata.configuration(
        node(qkd_links={"qkd_link": [link]}, qkd_applications={"qkd_app": [application]}, qkdn_location_id="here")
    )
    assert (found.node, found.location) == ("00000000-0000-4000-8000-00000000000a", "here")
    assert found.links[LINK].type is LinkType.VIRTUAL
    assert found.links[LINK].next_hops == ("aaaaaaaa-0000-4000-8000-00000000000b",)
    assert found.applications[KSID].admission is Admission.QOS_NOT_MET
    assert found.applications[KSID].qos == Qos(ttl_seconds=7, timeout_ms=900)


def test_link_without_type_is_refused() -> None:
    with pytest.raises(InvalidValue, match=LINK):
        yangdata.configuration(node(qkd_links={"qkd_link": [{"qkdl_id": LINK}]}))


def state(links: tuple[LinkState, ...] = (), applications: tuple[ApplicationState, ...] = ()) -> NodeState:
    return NodeState(
        NodeStatus.OPERATING,
        interfaces={InterfaceId(1): InterfaceStatus.ENABLED},
        links={link.link: link for link in links},
        applications={application.ksid: application for application in applications},
    )


def physical(status: LinkStatus, qber: float | None = 0.0123, skr_bps: int = 10**10) -> LinkState:
    return LinkState(LINK, LinkType.PHYSICAL, status, Performance(skr_bps=skr_bps, qber=qber))


def test_rates_end_at_the_end_of_uint32() -> None:
    found = yangdata.state(state((physical(LinkStatus.ACTIVE),)))
    assert next(entry["qkdl_performance/skr"] for path, entry in found.items() if path.endswith(f"'{LINK}']")) == str(
        2**32 - 1
    )


def test_changes_are_the_least() -> None:
    before = yangdata.state(state((physical(LinkStatus.ACTIVE),)))
    after = yangdata.state(state((physical(LinkStatus.PASSIVE),)))
    path = f"{yangdata.ROOT}/qkd_links/qkd_link[qkdl_id='{LINK}']"
    assert yangdata.changes(before, before) == ([], {})
    assert yangdata.changes(before, after) == ([], {f"{path}/qkdl_status": f"{yang.TYPES}:PASSIVE"})


def test_an_entry_is_deleted_as_a_whole() -> None:
    application = ApplicationState(KSID, ApplicationStatus.ON, NOW, (Consumption(NOW, NOW, 1),))
    before = yangdata.state(state((physical(LinkStatus.ACTIVE),), (application,)))
    deletions, settings = yangdata.changes(before, yangdata.state(state()))
    assert settings == {}
    assert sorted(deletions) == [
        f"{yangdata.ROOT}/qkd_applications/qkd_app[app_id='{KSID}']",
        f"{yangdata.ROOT}/qkd_links/qkd_link[qkdl_id='{LINK}']",
    ]


def test_an_inner_entry_is_deleted_alone() -> None:
    before = yangdata.state(state((physical(LinkStatus.ACTIVE),)))
    deletions, settings = yangdata.changes(before, yangdata.state(state((physical(LinkStatus.ACTIVE, None),))))
    inner = f"qkdl_performance/phys_perf[perf_type='{yang.TYPES}:QBER']"
    assert (deletions, settings) == ([f"{yangdata.ROOT}/qkd_links/qkd_link[qkdl_id='{LINK}']/{inner}"], {})
