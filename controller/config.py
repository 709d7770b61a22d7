"""The controller's own configuration: one TOML file.

Who the nodes are and how to reach them, which fibres join which interfaces, where the controller listens. Paths are relative
to the file. What the controller decides itself is in its store, not here.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .model import Endpoint, InterfaceId


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How to reach one node. `host_key` is its public key, one line as in a `.pub` file."""

    name: str
    netconf: Endpoint
    username: str
    key: Path
    host_key: str


@dataclass(frozen=True, slots=True)
class Port:
    """An interface of a node, by the node's name."""

    node: str
    interface: InterfaceId


@dataclass(frozen=True, slots=True)
class FibreConfig:
    name: str
    a: Port
    b: Port
    attenuation_db: float | None = None
    wavelength: str | None = None
    length_km: float | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `poll` is the time between two reads of a node's state, which also shows that the node still answers."""

    connect: float = 10.0
    rpc: float = 15.0
    poll: float = 5.0
    idle_link: float = 30.0  # a virtual link made for applications lives on so long without one


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    file: Path
    state_dir: Path
    listen: Endpoint
    certificate: Path
    private_key: Path
    token_file: Path
    nodes: tuple[NodeConfig, ...]
    fibres: tuple[FibreConfig, ...] = ()
    auto_links: bool = True
    application_bps: int = 1_000  # reserved for an application that asks for no rate
    virtual_link_bps: int = 10_000  # least rate of a virtual link made for applications, where the route has it
    timeouts: Timeouts = Timeouts()


class _Table:
    """One table of the file; knows its name for error texts, and refuses what nobody asked for."""

    def __init__(self, file: Path, name: str, data: dict[str, Any]) -> None:
        self.file, self.name, self.data = file, name, data
        self.seen: set[str] = set()

    def get[T](self, member: str, kind: type[T], default: T | None = None) -> T:
        self.seen.add(member)
        value: Any = self.data.get(member, default)
        if value is None:
            raise self.wrong(member, "is missing")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(member, f"must be of type {kind.__name__}")
        return value

    def optional[T](self, member: str, kind: type[T]) -> T | None:
        self.seen.add(member)
        return self.get(member, kind) if member in self.data else None

    def path(self, member: str) -> Path:
        return self.file.parent / self.get(member, str)

    def tables(self, member: str) -> "list[_Table]":
        return [_Table(self.file, member, one) for one in self.get(member, list, [])]

    def wrong(self, member: str, problem: str) -> ConfigurationError:
        return ConfigurationError(str(self.file), f"[{self.name}] {member}: {problem}")

    def done(self) -> None:
        if unknown := sorted(set(self.data) - self.seen):
            raise ConfigurationError(str(self.file), f"[{self.name}] has unknown members: {', '.join(unknown)}")


def load(file: Path) -> ControllerConfig:
    """Reads and checks the file. Raises ConfigurationError naming the file, the table, the member and the rule."""
    file = file.resolve()
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(str(file), error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(file), f"is no TOML: {error}") from error
    root = _Table(file, "", data)
    nodes = tuple(_node(one) for one in root.tables("nodes"))
    _unique(file, "nodes", [one.name for one in nodes])
    fibres = tuple(_fibre(one, {node.name for node in nodes}) for one in root.tables("fibres"))
    table = _Table(file, "controller", root.get("controller", dict))
    root.done()
    _unique(file, "fibres", [one.name for one in fibres])
    _unique(file, "fibres", [f"{end.node}:{end.interface}" for one in fibres for end in (one.a, one.b)])
    return _controller(table, nodes, fibres)


def _controller(table: _Table, nodes: tuple[NodeConfig, ...], fibres: tuple[FibreConfig, ...]) -> ControllerConfig:
    standard = Timeouts()
    config = ControllerConfig(
        file=table.file,
        state_dir=table.path("state_dir"),
        listen=Endpoint(table.get("address", str, "127.0.0.1"), table.get("port", int)),
        certificate=table.path("certificate"),
        private_key=table.path("private_key"),
        token_file=table.path("token_file"),
        nodes=nodes,
        fibres=fibres,
        auto_links=table.get("auto_links", bool, True),
        application_bps=table.get("application_bps", int, 1_000),
        virtual_link_bps=table.get("virtual_link_bps", int, 10_000),
        timeouts=Timeouts(
            connect=table.get("connect_timeout", float, standard.connect),
            rpc=table.get("rpc_timeout", float, standard.rpc),
            poll=table.get("poll_seconds", float, standard.poll),
            idle_link=table.get("idle_link_seconds", float, standard.idle_link),
        ),
    )
    table.done()
    return config


def _node(table: _Table) -> NodeConfig:
    host_key = table.get("host_key", str)
    if " " not in host_key:  # a public key in one line has a blank, a path of ours has none
        try:
            host_key = table.path("host_key").read_text(encoding="utf-8")
        except OSError as error:
            raise table.wrong("host_key", f"{error.strerror}") from error
    config = NodeConfig(
        name=table.get("name", str),
        netconf=Endpoint(table.get("host", str), table.get("port", int, 830)),
        username=table.get("username", str),
        key=table.path("key"),
        host_key=host_key.strip(),
    )
    table.done()
    return config


def _fibre(table: _Table, nodes: set[str]) -> FibreConfig:
    config = FibreConfig(
        name=table.get("name", str),
        a=_port(table, "a", nodes),
        b=_port(table, "b", nodes),
        attenuation_db=table.optional("attenuation_db", float),
        wavelength=table.optional("wavelength", str),
        length_km=table.optional("length_km", float),
    )
    table.done()
    return config


def _port(table: _Table, member: str, nodes: set[str]) -> Port:
    node, _, interface = table.get(member, str).rpartition(":")
    if node not in nodes:
        raise table.wrong(member, f"'{node}' is none of [[nodes]]")
    if not interface.isdecimal():
        raise table.wrong(member, "must be NODE:qkdi_id")
    return Port(node, InterfaceId(int(interface)))


def _unique(file: Path, table: str, names: list[str]) -> None:
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise ConfigurationError(str(file), f"[[{table}]] used twice: {', '.join(twice)}")
