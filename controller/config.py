"""The controller's own configuration: one TOML file.

Who the nodes are and how to reach them, which fibres join which interfaces, where the controller listens. Paths are relative
to the file. What the controller decides itself is in its store, not here.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .model import MAX_DISJOINT_PATHS, Endpoint, InterfaceId

# Of NETCONF over SSH and TLS, and of their Call Home (RFC 6242, 7589, 8071).
SSH_PORT, TLS_PORT = 830, 6513
SSH_CALL_PORT, TLS_CALL_PORT = 4334, 4335


@dataclass(frozen=True, slots=True)
class TlsAccess:
    """How to know a node over TLS, and how to be known by it.

    The node's certificate must be the one of `fingerprint` (SHA-256, lower case hexadecimal), or below `ca` with the
    subject alternative name `server_name`; both where both are given.
    """

    certificate: Path
    private_key: Path
    ca: Path | None = None
    server_name: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How to reach one node. `host_key` is its public key, one line as in a `.pub` file.

    One that `calls` is not dialled but waited for, and its `netconf` says nothing. One with `tls` is spoken to over TLS, and
    the members for SSH are empty.
    """

    name: str
    netconf: Endpoint
    username: str = ""
    key: Path = Path()
    host_key: str = ""
    calls: bool = False
    tls: TlsAccess | None = None


@dataclass(frozen=True, slots=True)
class CallHomeConfig:
    """Where nodes call (RFC 8071). The certificate, its key and the authority are for all that call over TLS."""

    ssh: Endpoint | None = None
    tls: Endpoint | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    ca: Path | None = None


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
    disjoint_paths: int = 1  # over so many node-disjoint paths at least comes the key of every application
    timeouts: Timeouts = Timeouts()
    call_home: CallHomeConfig | None = None


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

    def optional_path(self, member: str) -> Path | None:
        return self.path(member) if member in self.data else None

    def choice(self, member: str, *values: str) -> str:
        """One of these; the first is the default."""
        value = self.get(member, str, values[0])
        if value not in values:
            raise self.wrong(member, f"must be one of {', '.join(values)}")
        return value

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
    call_home = _call_home(_Table(file, "call_home", root.get("call_home", dict))) if "call_home" in data else None
    nodes = tuple(_node(one, call_home) for one in root.tables("nodes"))
    _unique(file, "nodes", [one.name for one in nodes])
    _recognisable(file, [one for one in nodes if one.calls])
    fibres = tuple(_fibre(one, {node.name for node in nodes}) for one in root.tables("fibres"))
    table = _Table(file, "controller", root.get("controller", dict))
    root.done()
    _unique(file, "fibres", [one.name for one in fibres])
    _unique(file, "fibres", [f"{end.node}:{end.interface}" for one in fibres for end in (one.a, one.b)])
    return _controller(table, nodes, fibres, call_home)


def _controller(
    table: _Table, nodes: tuple[NodeConfig, ...], fibres: tuple[FibreConfig, ...], call_home: CallHomeConfig | None
) -> ControllerConfig:
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
        disjoint_paths=table.get("disjoint_paths", int, 1),
        timeouts=Timeouts(
            connect=table.get("connect_timeout", float, standard.connect),
            rpc=table.get("rpc_timeout", float, standard.rpc),
            poll=table.get("poll_seconds", float, standard.poll),
            idle_link=table.get("idle_link_seconds", float, standard.idle_link),
        ),
        call_home=call_home,
    )
    table.done()
    if not 1 <= config.disjoint_paths <= MAX_DISJOINT_PATHS:
        raise table.wrong("disjoint_paths", f"must be from 1 to {MAX_DISJOINT_PATHS}")
    return config


def _call_home(table: _Table) -> CallHomeConfig:
    """A side without an address is not listened on."""
    ssh, tls = table.optional("ssh_address", str), table.optional("tls_address", str)
    ports = table.get("ssh_port", int, SSH_CALL_PORT), table.get("tls_port", int, TLS_CALL_PORT)
    config = CallHomeConfig(
        ssh=Endpoint(ssh, ports[0]) if ssh is not None else None,
        tls=Endpoint(tls, ports[1]) if tls is not None else None,
        certificate=table.path("certificate") if tls is not None else table.optional_path("certificate"),
        private_key=table.path("private_key") if tls is not None else table.optional_path("private_key"),
        ca=table.optional_path("ca"),
    )
    table.done()
    return config


def _node(table: _Table, call_home: CallHomeConfig | None) -> NodeConfig:
    calls = table.choice("connect", "dial", "call-home") == "call-home"
    over_tls = table.choice("transport", "ssh", "tls") == "tls"
    if calls and (call_home is None or (call_home.tls if over_tls else call_home.ssh) is None):
        raise table.wrong("connect", f"needs {'tls' if over_tls else 'ssh'}_address in [call_home]")
    where = Endpoint("", 0)
    if not calls:
        where = Endpoint(table.get("host", str), table.get("port", int, TLS_PORT if over_tls else SSH_PORT))
    name = table.get("name", str)
    if over_tls:
        config = NodeConfig(name, where, calls=calls, tls=_tls(table, where.host, call_home if calls else None))
    else:
        config = NodeConfig(name, where, table.get("username", str), table.path("key"), _host_key(table), calls)
    table.done()
    return config


def _host_key(table: _Table) -> str:
    host_key = table.get("host_key", str)
    if " " not in host_key:  # a public key in one line has a blank, a path of ours has none
        try:
            host_key = table.path("host_key").read_text(encoding="utf-8")
        except OSError as error:
            raise table.wrong("host_key", f"{error.strerror}") from error
    return host_key.strip()


def _tls(table: _Table, host: str, call_home: CallHomeConfig | None) -> TlsAccess:
    """Of a node that calls, the controller's own certificate is chosen before anybody knows who it is: all share one."""
    name, fingerprint = table.optional("server_name", str), table.optional("fingerprint", str)
    if fingerprint is not None:
        fingerprint = fingerprint.lower().removeprefix("sha256:").replace(":", "")
        if not re.fullmatch("[0-9a-f]{64}", fingerprint):
            raise table.wrong("fingerprint", "must be the certificate's SHA-256 fingerprint, 64 hexadecimal digits")
    if call_home is not None:
        assert call_home.certificate is not None and call_home.private_key is not None
        access = TlsAccess(call_home.certificate, call_home.private_key, call_home.ca, name, fingerprint)
    else:
        own = table.path("certificate"), table.path("private_key")
        access = TlsAccess(*own, table.optional_path("ca"), name or (None if fingerprint else host), fingerprint)
    if access.fingerprint is None and access.ca is None:
        raise table.wrong("fingerprint", "is missing, and so is ca: one of them must vouch for the node's certificate")
    if access.fingerprint is None and access.server_name is None:
        raise table.wrong("server_name", "is missing, and so is fingerprint: one of them must tell the node from others")
    return access


def _recognisable(file: Path, calling: list[NodeConfig]) -> None:
    """Nodes that call are known by what they show: no two may show the same."""
    over_tls = [one.tls for one in calling if one.tls is not None]
    _unique(file, "nodes", [" ".join(one.host_key.split()[:2]) for one in calling if one.tls is None])
    _unique(file, "nodes", [one.server_name for one in over_tls if one.server_name])
    _unique(file, "nodes", [one.fingerprint for one in over_tls if one.fingerprint])


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
