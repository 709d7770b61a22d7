"""The datastore on real sysrepo: edits in, state and notifications out, restarts and crashes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pytest

from qswitch import yang
from qswitch.agent import datastore, repository
from qswitch.agent.config import AgentConfig
from qswitch.agent.datastore import Datastore
from qswitch.agent.errors import ConfigurationError, InvalidValue
from qswitch.agent.model import (
    ApplicationDisconnected,
    ApplicationNew,
    ApplicationQosUpdate,
    ApplicationState,
    ApplicationStatus,
    Configuration,
    Consumption,
    Endpoint,
    Event,
    Interface,
    InterfaceDown,
    InterfaceId,
    InterfaceNew,
    InterfaceOut,
    InterfaceStatus,
    KeyLevels,
    KeyStreamId,
    LinkDown,
    LinkId,
    LinkOverloaded,
    LinkPerformanceUpdate,
    LinkState,
    LinkStatus,
    LinkType,
    NodeState,
    NodeStatus,
    Notification,
    Performance,
    Qos,
    Qrng,
    Role,
    Severity,
    Technology,
)

PHYS = LinkId("11111111-0000-4000-8000-000000000001")
VIRT = LinkId("22222222-0000-4000-8000-000000000001")
KSID = KeyStreamId("33333333-0000-4000-8000-000000000001")
REMOTE = "00000000-0000-4000-8000-00000000000b"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
INTERFACE = Interface(InterfaceId(1), "Sim", Technology.DV_QKD, "dev", 1, Role.TRANSMITTER, "1530-1560", Decimal("24.5"))

PHYSICAL = {
    "qkdl_id": PHYS,
    "qkdl_status": f"{yang.TYPES}:ACTIVE",
    "qkdl_enable": True,
    "qkdl_type": f"{yang.TYPES}:PHYS",
    "qkdl_local": {"qkdn_id": "00000000-0000-4000-8000-00000000000a", "qkdi_id": 1},
    "qkdl_remote": {"qkdn_id": REMOTE, "qkdi_id": 2},
    "qkdl_applications": [KSID],
    "phys_channel_att": "5.5",
    "phys_wavelength": "1550",
    "phys_qkd_role": f"{yang.TYPES}:TRANSMITTER",
    f"{yang.EXTENSIONS}:remote_lkms": {"address": "192.0.2.1", "port": 4433},
}
VIRTUAL = {
    "qkdl_id": VIRT,
    "qkdl_type": f"{yang.TYPES}:VIRT",
    "qkdl_local": {"qkdn_id": REMOTE},
    "virt_prev_hop": REMOTE,
    "virt_next_hop": [REMOTE],
    "virt_bandwidth": 1000,
}
APPLICATION = {
    "app_id": KSID,
    "server_app_id": "qkd://a/one",
    "client_app_id": ["qkd://b/two", "qkd://b/three"],
    "expiration_time": "2027-01-01T00:00:00Z",
    "app_qos": {"max_bandwidth": 5, "ttl": 60},
    "backing_qkdl_id": [VIRT],
    "remote_qkdn_id": REMOTE,
}


LOCKER = f"""
import sys, sysrepo
with sysrepo.SysrepoConnection() as connection, connection.start_session("startup") as session:
    with session.locked({yang.NODE!r}):
        print("locked", flush=True)
        sys.stdin.read()
"""


class Agent:
    """A datastore, and what it told."""

    def __init__(self, config: AgentConfig, interfaces: tuple[Interface, ...] = (INTERFACE,)) -> None:
        self.datastore = Datastore(config, interfaces)
        self.applied: asyncio.Queue[tuple[Configuration, Configuration]] = asyncio.Queue()
        self.rule: Callable[[Configuration], None] = lambda _: None

    async def start(self) -> Configuration:
        return await self.datastore.start(lambda new: self.rule(new), lambda old, new: self.applied.put_nowait((old, new)))

    async def changed(self) -> tuple[Configuration, Configuration]:
        return await asyncio.wait_for(self.applied.get(), 5)


class Stranger:
    """Another process with the repository open, as a NETCONF server is: sysrepocfg."""

    def __init__(self, config: AgentConfig) -> None:
        self.environment = os.environ | repository.environment(config.repository)

    async def call(self, *arguments: str, text: str = "") -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            "sysrepocfg", *arguments, env=self.environment, cwd="/dev/shm",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(text.encode()), 15)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def edit(self, members: dict[str, Any]) -> tuple[int, str]:
        code, _, err = await self.call(
            "-E", "-d", "running", "-f", "json", text=json.dumps({f"{yang.NODE}:qkd_node": members})
        )
        return code, err

    async def get(self, datastore: str = "operational") -> dict[str, Any]:
        code, out, err = await self.call("-X", "-d", datastore, "-m", yang.NODE, "-f", "json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)[f"{yang.NODE}:qkd_node"]
        return found

    async def links(self, *links: dict[str, Any]) -> tuple[int, str]:
        return await self.edit({"qkd_links": {"qkd_link": list(links)}})


@pytest.fixture
async def agent(prepared: AgentConfig) -> AsyncIterator[Agent]:
    agent = Agent(prepared)
    await agent.start()
    yield agent
    await agent.datastore.stop()


@pytest.fixture
def stranger(prepared: AgentConfig) -> Stranger:
    return Stranger(prepared)


def link_state(status: LinkStatus, qber: float | None = 0.0213) -> LinkState:
    return LinkState(
        PHYS, LinkType.PHYSICAL, status, Performance(5000, 4000, 300, qber, 21.5), KeyLevels(10**10, 7, 6, 5, 4, 3)
    )


def node_state(*links: LinkState, applications: tuple[ApplicationState, ...] = ()) -> NodeState:
    return NodeState(
        NodeStatus.OPERATING,
        lkms=Endpoint("127.0.0.1", 4433),
        qrngs=(Qrng("kernel's", "urandom", True),),
        interfaces={InterfaceId(1): InterfaceStatus.ENABLED},
        links={link.link: link for link in links},
        applications={one.ksid: one for one in applications},
    )


# Configuration --------------------------------------------------------------------------------------------------------


async def test_interfaces_are_what_the_node_has(prepared: AgentConfig, stranger: Stranger) -> None:
    for interfaces in ((INTERFACE,), (replace(INTERFACE, model="Other", max_absorption_db=None),), ()):
        agent = Agent(prepared, interfaces)
        found = await agent.start()
        assert tuple(found.interfaces.values()) == interfaces
        await agent.datastore.stop()
    assert "qkd_interfaces" not in await stranger.get("startup")


async def test_version_is_the_installed_one(prepared: AgentConfig, stranger: Stranger) -> None:
    await stranger.edit({"qkdn_version": "0.0.0"})
    agent = Agent(prepared)
    assert (await agent.start()).version == version("quantum-switch")
    await agent.datastore.stop()


async def test_edit_is_applied_after_it_is_in(agent: Agent, stranger: Stranger) -> None:
    members = {"qkd_links": {"qkd_link": [PHYSICAL, VIRTUAL]}, "qkd_applications": {"qkd_app": [APPLICATION]}}
    assert await stranger.edit(members) == (0, "")
    old, new = await agent.changed()
    assert not old.links
    physical, virtual, application = new.links[PHYS], new.links[VIRT], new.applications[KSID]
    assert physical.attenuation_db == Decimal("5.5") and physical.wavelength == "1550" and physical.role is Role.TRANSMITTER
    assert physical.remote_lkms == Endpoint("192.0.2.1", 4433) and physical.local_interface == 1
    assert (virtual.previous_hop, virtual.next_hop, virtual.bandwidth_bps) == (REMOTE, REMOTE, 1000)
    assert application.qos == Qos(max_bandwidth_bps=5, ttl_seconds=60) and application.remote_node == REMOTE
    assert application.expiration_time == datetime(2027, 1, 1, tzinfo=UTC)
    assert set(application.client_app_ids) == {"qkd://b/two", "qkd://b/three"}


async def test_refused_edit_keeps_the_text(agent: Agent, stranger: Stranger) -> None:
    def refuse(_: Configuration) -> None:
        raise InvalidValue("/path", "666", "evil")

    agent.rule = refuse
    code, text = await stranger.links(VIRTUAL)
    assert code != 0 and "/path: '666' is refused: evil" in text
    assert "qkd_links" not in await stranger.get("running")
    assert agent.applied.empty()
    agent.rule = lambda _: None
    assert (await stranger.links(VIRTUAL))[0] == 0
    assert VIRT in (await agent.changed())[1].links


async def test_defect_in_a_check_refuses_and_the_agent_lives(agent: Agent, stranger: Stranger) -> None:
    def fail(_: Configuration) -> None:
        raise RuntimeError("a defect")

    agent.rule = fail
    assert (await stranger.links(VIRTUAL))[0] != 0
    agent.rule = lambda _: None
    assert (await stranger.links(VIRTUAL))[0] == 0


async def test_id_and_devices_are_not_configured(agent: Agent, stranger: Stranger) -> None:
    code, text = await stranger.edit({"qkdn_id": REMOTE})
    assert code != 0 and f"'{REMOTE}' is refused: this node is" in text
    code, text = await stranger.edit({"qkd_interfaces": {"qkd_interface": [{"qkdi_id": 9}]}})
    assert code != 0 and "qkd_interface[qkdi_id='9']" in text


async def test_startup_follows_running(agent: Agent, stranger: Stranger) -> None:
    await stranger.links(VIRTUAL)
    await agent.changed()
    await agent.datastore.stop()
    (link,) = (await stranger.get("startup"))["qkd_links"]["qkd_link"]
    assert link["qkdl_id"] == VIRT


async def test_startup_follows_running_when_the_end_comes_before_the_copy(agent: Agent, stranger: Stranger) -> None:
    """On a busy machine the copy's thread may not have begun when the agent is told to stop."""
    datastore, gate = agent.datastore, threading.Event()
    await datastore._in("startup", lambda: None)
    datastore._threads["startup"].submit(gate.wait, 10)
    try:
        await stranger.links(VIRTUAL)
        await agent.changed()
        async with asyncio.timeout(5):
            while datastore._unsaved.is_set():
                await asyncio.sleep(0)
            saving = list(datastore._tasks)
            stopping = asyncio.create_task(datastore.stop())
            await asyncio.wait(saving)
    finally:
        gate.set()
    await stopping
    assert (await stranger.get("startup"))["qkd_links"]["qkd_link"][0]["qkdl_id"] == VIRT


async def test_a_copy_to_startup_that_fails_at_the_end_is_told_and_made_again(
    agent: Agent, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    locker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOCKER, env=stranger.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert locker.stdin is not None and locker.stdout is not None
    assert await asyncio.wait_for(locker.stdout.readline(), 10) == b"locked\n"
    await stranger.links(VIRTUAL)
    await agent.changed()
    stopping = asyncio.create_task(agent.datastore.stop())
    async with asyncio.timeout(10):
        while "startup not saved at the end" not in caplog.text:
            await asyncio.sleep(0.01)
    locker.stdin.close()
    assert await locker.wait() == 0
    await stopping
    assert (await stranger.get("startup"))["qkd_links"]["qkd_link"][0]["qkdl_id"] == VIRT


async def test_restart_comes_back_as_configured(prepared: AgentConfig, agent: Agent, stranger: Stranger) -> None:
    await stranger.links(PHYSICAL, VIRTUAL)
    _, before = await agent.changed()
    await agent.datastore.stop()
    for file in Path("/dev/shm").glob(f"{prepared.repository.shm_prefix}*"):
        file.unlink()
    again = Agent(prepared)
    assert await again.start() == before
    await again.datastore.stop()


async def test_what_was_edited_while_no_agent_ran_does_not_stop_it(prepared: AgentConfig, stranger: Stranger) -> None:
    assert (await stranger.links({"qkdl_id": PHYS}, VIRTUAL))[0] == 0
    agent = Agent(prepared)

    def refuse(_: Configuration) -> None:
        raise InvalidValue("/path", "666", "evil")

    agent.rule = refuse
    assert set((await agent.start()).links) == {VIRT}
    agent.rule = lambda _: None
    code, text = await stranger.links({**VIRTUAL, "virt_bandwidth": 7})
    assert code != 0 and f"qkd_link[qkdl_id='{PHYS}']/qkdl_type" in text
    assert (await stranger.links({"qkdl_id": PHYS, "qkdl_type": f"{yang.TYPES}:VIRT"}))[0] == 0
    await agent.datastore.stop()


async def test_repository_of_another_node(prepared: AgentConfig) -> None:
    agent = Agent(replace(prepared, node="00000000-0000-4000-8000-0000000000ff"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=prepared.node):
        await agent.start()
    await agent.datastore.stop()


# State ----------------------------------------------------------------------------------------------------------------


async def test_pushed_state_is_what_get_shows(agent: Agent, stranger: Stranger) -> None:
    await stranger.edit({"qkd_links": {"qkd_link": [PHYSICAL]}, "qkd_applications": {"qkd_app": [APPLICATION]}})
    await agent.changed()
    application = ApplicationState(KSID, ApplicationStatus.ON, NOW, (Consumption(NOW, NOW, 77),))
    await agent.datastore.push(node_state(link_state(LinkStatus.PENDING), applications=(application,)))
    node = await stranger.get()
    (link,), (app,) = node["qkd_links"]["qkd_link"], node["qkd_applications"]["qkd_app"]
    assert node["qkdn_status"] == f"{yang.TYPES}:OPERATING"
    assert node[f"{yang.EXTENSIONS}:qrngs"]["qrng"][0]["name"] == "kernel's"
    assert node["qkd_interfaces"]["qkd_interface"][0]["qkdi_status"] == f"{yang.TYPES}:ENABLED"
    assert link["qkdl_status"] == f"{yang.TYPES}:PENDING"
    assert (await stranger.get("running"))["qkd_links"]["qkd_link"][0]["qkdl_status"] == f"{yang.TYPES}:ACTIVE"
    assert link["qkdl_performance"]["skr"] == 5000
    assert {one["perf_type"]: one["value"] for one in link["qkdl_performance"]["phys_perf"]} == {
        f"{yang.TYPES}:QBER": "0.021",
        f"{yang.TYPES}:SNR": "21.5",
    }
    assert link[f"{yang.EXTENSIONS}:key_store"]["capacity"] == str(10**10)
    assert app["app_status"] == f"{yang.TYPES}:ON" and app["app_statistics"]["statistics"][0]["consumed_bits"] == 77
    assert datetime.fromisoformat(app["creation_time"]) == NOW


async def test_vanished_state_is_removed(agent: Agent, stranger: Stranger) -> None:
    await stranger.links(PHYSICAL)
    application = ApplicationState(KSID, ApplicationStatus.ON, NOW)
    await agent.datastore.push(node_state(link_state(LinkStatus.ACTIVE), applications=(application,)))
    await agent.datastore.push(node_state(link_state(LinkStatus.PASSIVE, None)))
    node = await stranger.get()
    (link,) = node["qkd_links"]["qkd_link"]
    assert link["qkdl_status"] == f"{yang.TYPES}:PASSIVE"
    assert [one["perf_type"] for one in link["qkdl_performance"]["phys_perf"]] == [f"{yang.TYPES}:SNR"]
    assert "qkd_applications" not in node
    await agent.datastore.push(node_state())
    (link,) = (await stranger.get())["qkd_links"]["qkd_link"]
    assert link["qkdl_status"] == f"{yang.TYPES}:ACTIVE" and "qkdl_performance" not in link


async def test_ids_in_capitals_are_one_link(agent: Agent, stranger: Stranger) -> None:
    capitals = "AAAAAAAA-0000-4000-8000-00000000000C"
    await stranger.links({**VIRTUAL, "qkdl_id": capitals})
    _, new = await agent.changed()
    (link,) = new.links
    assert link == capitals.lower()
    await agent.datastore.push(node_state(LinkState(link, LinkType.VIRTUAL, LinkStatus.OFF)))
    (shown,) = (await stranger.get())["qkd_links"]["qkd_link"]
    assert (shown["qkdl_id"], shown["qkdl_status"]) == (capitals.lower(), f"{yang.TYPES}:OFF")


async def test_edits_and_pushes_and_notifications_do_not_wait_for_each_other(agent: Agent, stranger: Stranger) -> None:
    async def push() -> None:
        for number in range(60):
            status = (LinkStatus.ACTIVE, LinkStatus.PASSIVE)[number % 2]
            await agent.datastore.push(node_state(link_state(status)))
            await agent.datastore.notify(LinkDown(PHYS, "cut"))

    async def edit() -> None:
        for number in range(12):
            assert await stranger.links({**PHYSICAL, "phys_wavelength": str(1000 + number)}) == (0, "")

    async def get() -> None:
        for _ in range(12):
            await stranger.get()

    async with asyncio.timeout(20):
        await asyncio.gather(push(), edit(), get())


# Notifications --------------------------------------------------------------------------------------------------------

PERFORMANCE = Performance(5, 4, 3, 0.5, 2.0)
NOTIFICATIONS: list[Notification] = [
    ApplicationNew("qkd://a/one", ("qkd://b/two",), Qos(1, 2, 3, 4, True, True), KSID, open_timeout_ms=500),
    ApplicationNew("qkd://a/one", ("qkd://b/two",), Qos()),
    ApplicationQosUpdate(KSID, Qos(jitter_bps=8, timeout_ms=9), 7),
    ApplicationDisconnected(KSID),
    InterfaceNew(INTERFACE),
    InterfaceDown(InterfaceId(1), "no light"),
    InterfaceOut(InterfaceId(1)),
    LinkDown(PHYS, "cut"),
    LinkPerformanceUpdate(PHYS, PERFORMANCE),
    LinkOverloaded(PHYS, PERFORMANCE),
    Event("hot", Severity.MINOR, False, link=PHYS, link_status=LinkStatus.ACTIVE),
    Event("hotter", Severity.MAJOR, True, interface=InterfaceId(1), interface_status=InterfaceStatus.FAILED),
    Event("gone", Severity.MAJOR, True, ksid=KSID, application_status=ApplicationStatus.ZOMBIE),
]
LISTENER = f"""
import json, sys, sysrepo
def heard(path, kind, notification, time, _):
    print(json.dumps([path, notification]), flush=True)
with sysrepo.SysrepoConnection() as connection, connection.start_session() as session:
    session.subscribe_notification({yang.NODE!r}, "/{yang.NODE}:*", heard)
    print("ready", flush=True)
    sys.stdin.read()
"""


async def test_notifications_reach_a_subscriber(agent: Agent, stranger: Stranger) -> None:
    listener = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LISTENER, env=stranger.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert listener.stdin is not None and listener.stdout is not None
    assert await asyncio.wait_for(listener.stdout.readline(), 10) == b"ready\n"
    for notification in NOTIFICATIONS:
        await agent.datastore.notify(notification)
    heard = [json.loads(await asyncio.wait_for(listener.stdout.readline(), 5)) for _ in NOTIFICATIONS]
    listener.stdin.close()
    assert await listener.wait() == 0
    assert [path.rpartition(":")[2] for path, _ in heard] == [
        "sdqkdn_application_new",
        "sdqkdn_application_new",
        "sdqkdn_application_qos_update",
        "sdqkdn_application_disconnected",
        "sdqkdn_interface_new",
        "sdqkdn_interface_down",
        "sdqkdn_interface_out",
        "sdqkdn_link_down",
        "sdqkdn_link_perf_update",
        "sdqkdn_link_overloaded",
        "event",
        "alarm",
        "alarm",
    ]
    new = heard[0][1]["qkd_application"]
    assert (new["app_id"], new["open_timeout"]) == (KSID, 500)
    assert "app_id" not in heard[1][1]["qkd_application"]
    wanted = heard[2][1]["qkd_application"]["app_qos"]
    assert (wanted["jitter_rate"], wanted["timeout"]) == (8, 9)
    assert heard[7][1]["qkd_link"] == {"qkdl_id": PHYS, "reason": "cut"}


async def test_a_notification_that_cannot_be_built_is_not_the_last_one(agent: Agent, stranger: Stranger) -> None:
    """Its sender would have ended of it, unheard: no controller would be told anything by this node any more."""
    listener = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LISTENER, env=stranger.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert listener.stdin is not None and listener.stdout is not None
    assert await asyncio.wait_for(listener.stdout.readline(), 10) == b"ready\n"
    await agent.datastore.notify(cast(Notification, "none"))
    for notification in NOTIFICATIONS:
        await agent.datastore.notify(notification)
    for _ in NOTIFICATIONS:
        assert await asyncio.wait_for(listener.stdout.readline(), 5)
    listener.stdin.close()
    assert await listener.wait() == 0


async def test_a_copy_to_startup_that_fails_in_an_unforeseen_way_is_not_the_last_one(
    agent: Agent, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, copies = agent.datastore._copy_to_startup, list[str]()

    def copy() -> None:
        copies.append("copy")
        if len(copies) == 1:
            raise RuntimeError("a defect")
        real()

    monkeypatch.setattr(agent.datastore, "_copy_to_startup", copy)
    monkeypatch.setattr(datastore, "_SAVE_AGAIN_SECONDS", 0.1)
    assert await stranger.links(PHYSICAL) == (0, "")
    async with asyncio.timeout(10):
        while "qkd_links" not in await stranger.get("startup"):
            await asyncio.sleep(0.1)


async def test_stuck_subscriber_does_not_hold_the_agent(agent: Agent, stranger: Stranger) -> None:
    listener = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LISTENER, env=stranger.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert listener.stdout is not None
    assert await asyncio.wait_for(listener.stdout.readline(), 10) == b"ready\n"
    listener.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(1):
            for _ in range(20):
                await agent.datastore.notify(LinkDown(PHYS, "cut"))
        await asyncio.wait_for(agent.datastore.push(node_state(link_state(LinkStatus.ACTIVE))), 2)
        assert (await asyncio.wait_for(stranger.links(VIRTUAL), 4))[0] == 0
    finally:
        listener.send_signal(signal.SIGCONT)
    heard = [await asyncio.wait_for(listener.stdout.readline(), 5) for _ in range(20)]
    assert all(b"sdqkdn_link_down" in line for line in heard)
    listener.kill()
    await listener.wait()


# Crashes --------------------------------------------------------------------------------------------------------------

KILLED = """
import asyncio, sys
from pathlib import Path
from qswitch.agent import config, repository
async def main():
    from qswitch.agent.datastore import Datastore
    from qswitch.agent.model import NodeState, NodeStatus
    datastore = Datastore(loaded, ())
    await datastore.start(lambda new: None, lambda old, new: None)
    await datastore.push(NodeState(NodeStatus.DOWN))
    print("ready", flush=True)
    await asyncio.Event().wait()
loaded = config.load(Path(sys.argv[1]))
repository.prepare(loaded)
asyncio.run(main())
"""


async def test_kill_leaves_nothing_in_the_way(prepared: AgentConfig, stranger: Stranger) -> None:
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, str(prepared.file), env=stranger.environment, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 10) == b"ready\n"
        process.kill()
        await process.wait()
    agent = Agent(prepared)
    await agent.start()
    assert (await stranger.links(VIRTUAL))[0] == 0
    assert VIRT in (await agent.changed())[1].links
    await agent.datastore.push(node_state())
    assert (await stranger.get())["qkdn_status"] == f"{yang.TYPES}:OPERATING"
    await agent.datastore.stop()
