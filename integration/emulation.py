"""One emulated network on the loopback host: its daemons, its fibres, its descriptor.

The directory holds everything. `network.json` is the descriptor for tests, tools and people; `processes.json` says which
processes were started, written after every change so that whatever happens `down` ends exactly those.
"""

import asyncio
import json
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from qswitch.agent.devices.fibre import Fibre

from . import configure, processes
from .layout import Layout
from .processes import Process, StartFailed

Progress = Callable[[str], None]
KINDS = ("agent", "netconf")
LINKS_ACTIVE_SECONDS = 90


class NotUp(Exception):
    """There is no such network here; the text says what to do."""


class AlreadyUp(Exception):
    """The network runs already; the text says what to do."""


class Emulation:
    """A network in a directory. `create` writes a new one, the constructor opens one that is there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        try:
            self.descriptor: dict[str, Any] = json.loads((self.directory / "network.json").read_text())
        except FileNotFoundError as error:
            raise NotUp(f"no network in {directory}; 'qkd-network up NETWORK' starts one") from error
        self.name: str = self.descriptor["name"]
        self._processes = self._load_processes()
        self.verbose = False  # what is started from here on logs all that a developer may want to know

    @classmethod
    def create(cls, layout: Layout, directory: Path, engine: str | None = None) -> "Emulation":
        """Writes a fresh network; what an earlier one left in the directory is removed. Raises AlreadyUp.

        `engine` is the NETCONF server of its nodes, else the one that the layout names.
        """
        directory = directory.resolve()  # the names of the shared memory follow from it
        if (directory / "network.json").exists():
            earlier = cls(directory)
            if earlier.running():
                raise AlreadyUp(f"network {earlier.name} is up in {directory}; 'qkd-network down {earlier.name}' ends it")
            earlier._remove_shared_memory()
        if directory.exists():
            shutil.rmtree(directory)
        descriptor = configure.write(layout, directory, engine or layout.engine)
        (directory / "network.json").write_text(json.dumps(descriptor, indent=2) + "\n")
        return cls(directory)

    # Nodes -----------------------------------------------------------------------------------------------------------

    def node(self, name: str) -> dict[str, Any]:
        for one in self.descriptor["nodes"]:
            if name.lower() in (one["name"].lower(), one["qkdn_id"]):
                return dict(one)
        raise NotUp(f"network {self.name} has no node '{name}'; it has {', '.join(self.nodes())}")

    def nodes(self) -> list[str]:
        return [one["name"] for one in self.descriptor["nodes"]]

    def home(self, node: str) -> Path:
        return self.directory / str(self.node(node)["state_dir"])

    # Processes -------------------------------------------------------------------------------------------------------

    def running(self) -> dict[str, Process]:
        """What runs now, as "quiron/agent" -> process."""
        return {name: process for name, process in self._processes.items() if process.alive()}

    async def start(self, progress: Progress) -> None:
        """Starts every node and the controller, and waits until every physical link is ACTIVE. Raises StartFailed."""
        names = self.nodes()
        progress(f"starting {len(names)} nodes")
        await self._gather(self.start_process(node, "agent") for node in names)
        await self._gather(self.start_process(node, "netconf") for node in names)
        progress("starting the controller")
        await self.start_controller()
        await self._links_active(progress)

    async def start_process(self, node: str, kind: str, engine: str | None = None) -> None:
        """Starts `agent` or `netconf` of a node and waits until it serves; `engine` in place of the configured one."""
        home = self.home(node)
        command = {
            "agent": ["qswitch.agent.main", "run"],
            "netconf": ["qswitch.agent.netconf.main", *(("--engine", engine) if engine else ())],
        }[kind]
        await self._start(f"{home.name}/{kind}", [*command, "--config", str(home / "agent.toml")], home)

    async def start_controller(self) -> None:
        home = self.directory / "controller"
        await self._start(
            "controller/controller", ["qswitch.controller.main", "--config", str(home / "controller.toml")], home
        )

    async def kill(self, name: str) -> None:
        """SIGKILL to one process, as "quiron/agent"."""
        await processes.kill(self._processes[name])

    async def stop(self, names: Iterable[str]) -> list[str]:
        """Ends processes in order; returns the names of those that had to be killed."""
        chosen = {name: self._processes[name] for name in names if name in self._processes}
        killed = await processes.stop(list(chosen.values()))
        return [name for name, process in chosen.items() if process in killed]

    async def down(self) -> list[str]:
        """Ends all that was started: the controller, then NETCONF servers, then agents. Returns who had to be killed.

        The descriptor goes, so that no tool takes the network for one that is up; logs and stores stay for a look.
        """
        killed = []
        for kind in ("controller", "netconf", "agent"):
            killed += await self.stop(name for name in self._processes if name.endswith(f"/{kind}"))
        self._processes = {}
        self._remove_shared_memory()
        for name in ("network.json", "processes.json"):
            (self.directory / name).unlink(missing_ok=True)
        return killed

    # Fibres ----------------------------------------------------------------------------------------------------------

    def fibre(self, span: str) -> Path:
        """The state file of a span, by its name ("norte-concepcion", in either order)."""
        wanted = span.lower()
        for one in self.descriptor["spans"]:
            if wanted in (one["name"], "-".join(reversed(one["name"].split("-")))):
                return self.directory / str(one["fibre"])
        names = ", ".join(one["name"] for one in self.descriptor["spans"])
        raise NotUp(f"network {self.name} has no span '{span}'; it has {names}")

    def set_cut(self, span: str, cut: bool) -> None:
        path = self.fibre(span)
        Fibre.load(path).with_cut(cut).save(path)

    # The controller's view ---------------------------------------------------------------------------------------------

    def api(self) -> httpx.AsyncClient:
        """A client of the controller, with its authority and token."""
        controller = self.descriptor["controller"]
        token = (self.directory / controller["token_file"]).read_text().strip()
        return httpx.AsyncClient(
            base_url=controller["url"],
            verify=ssl.create_default_context(cafile=str(self.directory / controller["ca"])),
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )

    async def links(self) -> list[dict[str, Any]]:
        async with self.api() as api:
            reply = await api.get("/v1/links")
            reply.raise_for_status()
            return list(reply.json())

    # Inside ----------------------------------------------------------------------------------------------------------

    async def _start(self, name: str, module: list[str], home: Path) -> None:
        kind = name.rpartition("/")[2]
        ready_file, log = home / f"{kind}.ready", home / f"{kind}.log"
        ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", *module, "--ready-file", str(ready_file), *(("--verbose",) if self.verbose else ())]
        self._processes[name] = processes.start(command, log, {"PYTHONUNBUFFERED": "1"})
        self._save_processes()
        await processes.ready(self._processes[name], ready_file, log, name)

    async def _gather(self, starts: Any) -> None:
        """All at once; the first failure is raised once all have ended or failed, so that nothing starts unseen."""
        results = await asyncio.gather(*starts, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _links_active(self, progress: Progress) -> None:
        wanted, deadline, last = len(self.descriptor["spans"]), time.monotonic() + LINKS_ACTIVE_SECONDS, -1
        while True:
            links = [one for one in await self.links() if one["type"] == "PHYS"]
            active = sum(one["status"] == "ACTIVE" for one in links)
            if active != last:
                progress(f"{active} of {wanted} physical links are ACTIVE")
                last = active
            if active >= wanted:
                return
            if time.monotonic() > deadline:
                waiting = ", ".join(f"{one['link']} {one['status']}" for one in links if one["status"] != "ACTIVE")
                raise StartFailed(f"after {LINKS_ACTIVE_SECONDS} s links are not ACTIVE: {waiting or 'not created'}")
            await asyncio.sleep(0.25)

    def _load_processes(self) -> dict[str, Process]:
        path = self.directory / "processes.json"
        data = json.loads(path.read_text()) if path.exists() else {}
        return {name: Process(**one) for name, one in data.items()}

    def _save_processes(self) -> None:
        """Both files change as one rename each: a reader never sees half of one."""
        _replace(self.directory / "processes.json", {name: asdict(one) for name, one in self._processes.items()})
        for node in self.descriptor["nodes"]:
            node["pids"] = self._pids(node["state_dir"])
        self.descriptor["controller"]["pids"] = self._pids("controller")
        _replace(self.directory / "network.json", self.descriptor)

    def _pids(self, home: str) -> dict[str, int]:
        prefix = f"{home}/"
        return {name.removeprefix(prefix): one.pid for name, one in self._processes.items() if name.startswith(prefix)}

    def _remove_shared_memory(self) -> None:
        for node in self.nodes():
            prefix = configure.shm_prefix(self.directory, node)
            for path in Path("/dev/shm").glob(f"{prefix}*"):
                path.unlink(missing_ok=True)


def _replace(path: Path, data: dict[str, Any]) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(data, indent=2) + "\n")
    new.replace(path)
