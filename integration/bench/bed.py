"""A node to measure on: a fresh repository with links in it, served by the real NETCONF server, in a folder that goes away.

No agent runs: what is measured is the way from a client to the datastore and back, not the node's answer to a change.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qswitch.agent import repository
from qswitch.agent.config import AgentConfig, Engine, load
from qswitch.controller.config import NodeConfig
from qswitch.controller.model import Endpoint
from qswitch.yang import NAMESPACES, NODE, TYPES

from .. import layout
from ..emulation import Emulation

if TYPE_CHECKING:
    from sysrepo.session import SysrepoSession

NETWORK = layout.Layout("bench", "One node to measure on", ("Bench",), (), ())
QKD = NAMESPACES[NODE]
READ = f'<qkd_node xmlns="{QKD}"><qkd_links/></qkd_node>'
READ_PATH = f"/{NODE}:qkd_node/qkd_links"


class Bed:
    """The node, before and behind its NETCONF server."""

    def __init__(self, emulation: Emulation, config: AgentConfig) -> None:
        self._emulation, self._config = emulation, config
        self._links: list[str] = []
        (self._described,) = emulation.descriptor["nodes"]

    def node(self) -> NodeConfig:
        """How a controller reaches the node."""
        where: dict[str, Any] = self._described["netconf"]
        key = self._emulation.directory / where["key"]
        return NodeConfig("bench", Endpoint(where["host"], where["port"]), where["username"], key, where["host_key"])

    def edit(self, number: int, links: int = 1) -> str:
        """A change of one leaf of each of some links; another value for every number."""
        chosen = [self._links[(number + one) % len(self._links)] for one in range(links)]
        return self._node_xml(
            "".join(
                f"<qkd_link><qkdl_id>{one}</qkdl_id><virt_bandwidth>{1000 + number}</virt_bandwidth></qkd_link>"
                for one in chosen
            )
        )

    def all_links(self) -> str:
        """Every link as a controller configures it at the source of a route."""
        return self._node_xml("".join(self._link_xml(link) for link in self._links))

    def state(self) -> dict[str, str]:
        """Path to value of what an agent pushes of the links."""
        return {
            f"{READ_PATH}/qkd_link[qkdl_id='{link}']/{leaf}": value
            for link in self._links
            for leaf, value in (
                ("qkdl_status", f"{TYPES}:ACTIVE"),
                ("qkdl_performance/skr", "1000000"),
                ("qkdl_performance/eskr", "900000"),
            )
        }

    def _node_xml(self, links: str) -> str:
        return f'<qkd_node xmlns="{QKD}"><qkdn_id>{self._config.node}</qkdn_id><qkd_links>{links}</qkd_links></qkd_node>'

    def _link_xml(self, link: str) -> str:
        far = uuid.uuid5(uuid.NAMESPACE_OID, link)
        return (
            f"<qkd_link><qkdl_id>{link}</qkdl_id><qkdl_enable>true</qkdl_enable>"
            f"<qkdl_local><qkdn_id>{self._config.node}</qkdn_id></qkdl_local><qkdl_remote><qkdn_id>{far}</qkdn_id></qkdl_remote>"
            f'<qkdl_type xmlns:t="{NAMESPACES[TYPES]}">t:VIRT</qkdl_type>'
            f"<virt_next_hop>{far}</virt_next_hop><virt_bandwidth>1000</virt_bandwidth></qkd_link>"
        )

    @asynccontextmanager
    async def served(self, engine: Engine) -> AsyncIterator[int]:
        """The NETCONF server runs, as a process of its own, whose id this is."""
        await self._emulation.start_process("Bench", "netconf", str(engine))
        try:
            yield self._emulation.running()["bench/netconf"].pid
        finally:
            await self._emulation.stop(["bench/netconf"])

    def fill(self, links: int, running: "SysrepoSession", operational: "SysrepoSession") -> None:
        """Puts so many links, and what an agent would push of them, into the datastores."""
        self._links = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))) for number in range(links)]
        apply(running, self.all_links())
        for path, value in self.state().items():
            operational.set_item(path, value)
        operational.apply_changes()


def apply(session: "SysrepoSession", config: str) -> None:
    """One edit, as the NETCONF server makes it: XML parsed, merged, applied."""
    with session.get_ly_ctx() as context:
        tree = context.parse_data_mem(config, "xml", parse_only=True)
        try:
            session.edit_batch_ly(tree)
            session.apply_changes()
        finally:
            tree.free()


@asynccontextmanager
async def prepared() -> AsyncIterator[Bed]:
    """A prepared node. From here on this process's sysrepo means the node's repository."""
    with TemporaryDirectory(prefix="qkd-bench-") as folder:
        emulation = Emulation.create(NETWORK, Path(folder) / "network")
        config = load(emulation.home("Bench") / "agent.toml")
        repository.prepare(config)
        try:
            yield Bed(emulation, config)
        finally:
            await emulation.down()
