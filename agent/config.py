"""The agent's own configuration: one TOML file.

What a controller may set stands in the datastore, not here. What stands here is what a node must know before it has a
controller: who it is, where it listens, which devices it has, and static fallbacks for what pure 015 does not carry.
Paths are relative to the file.
"""

import re
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from qswitch.protocol.etsi014 import Limits

from .errors import ConfigurationError
from .model import Endpoint, NodeId


class Engine(StrEnum):
    """Which program serves NETCONF; auto takes netopeer2 where it is installed."""

    AUTO = "auto"
    NETOPEER2 = "netopeer2"
    BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one TLS identity, and the authority that peers must chain to."""

    certificate: Path
    private_key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """Where sysrepo keeps the node's datastore; a prefix of its own lets many nodes share a machine."""

    path: Path
    shm_prefix: str = "sr"


@dataclass(frozen=True, slots=True)
class NetconfUser:
    """A user that exists from the first start on; `role` is `controller`, `operator` or `monitor`."""

    name: str
    public_key: str  # OpenSSH one-line form; "": none
    role: str
    fingerprint: str = ""  # of a TLS client's certificate: SHA-256 in hexadecimal digits; "": none


@dataclass(frozen=True, slots=True)
class NetconfTls:
    """NETCONF over TLS; `names` is the map-type (RFC 7407) of certificates that are no user's fingerprint, if any."""

    files: TlsFiles
    listen: Endpoint | None = None
    names: str = ""


@dataclass(frozen=True, slots=True)
class CallHome:
    """A client that the node dials (RFC 8071); `transport` is ssh or tls."""

    name: str
    remote: Endpoint
    transport: str


@dataclass(frozen=True, slots=True)
class NetconfConfig:
    """First-start data of ietf-netconf-server; afterwards the datastore decides."""

    listen: Endpoint
    host_key: Path  # private key, OpenSSH or PEM; created when absent
    users: tuple[NetconfUser, ...] = ()
    tls: NetconfTls | None = None
    call_home: tuple[CallHome, ...] = ()


@dataclass(frozen=True, slots=True)
class FrontConfig:
    """What a NETCONF server is told by the file; all else stands in the datastore."""

    repository: RepositoryConfig
    engine: Engine = Engine.AUTO
    timeout_seconds: int = 30  # netopeer2 waits this long for a callback of the agent
    modules: tuple[Path, ...] = ()  # netopeer2's YANG modules are searched here first


@dataclass(frozen=True, slots=True)
class Credential:
    """A master key that systemd hands over: a file of this name in $CREDENTIALS_DIRECTORY."""

    name: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A master key in an environment variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the variable NAME held, and NAME_NEXT, before they were removed from the environment; empty: nothing."""

    name: str
    value: bytes = field(repr=False)
    following: bytes = field(repr=False)


MasterKeySource = Path | Credential | Variable | Held
"""32 octets. A file is created when absent and must be readable by its owner only."""


@dataclass(frozen=True, slots=True)
class LkmsConfig:
    """A link's store takes blocks up to its high mark, `capacity_blocks`, then none until below `refill_percent` of it."""

    listen: Endpoint
    tls: TlsFiles
    store: Path
    master_key: MasterKeySource
    capacity_blocks: int = 1000
    refill_percent: int = 80
    release_ahead: int = 0  # chunks of a key stream (004) that may be lost in a crash for the sake of speed
    doubt_seconds: float = 10.0  # a block held by one end only is burnt after this
    ledger: bool = False  # keep a record (no key) of every use, for audits
    peers: dict[NodeId, Endpoint] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    listen: Endpoint
    tls: TlsFiles


@dataclass(frozen=True, slots=True)
class Etsi014Config:
    """`saes` says which URI (`qkd://QKDN_ID/NAME`, whose authority is the node) stands behind an SAE id that is no URI."""

    listen: Endpoint
    tls: TlsFiles
    limits: Limits = field(default_factory=Limits)
    ttl_seconds: float = 3600.0  # a key that the slave does not fetch is erased after this
    timeout_seconds: float = 10.0  # a call waits so long for the controller, the other node and key
    saes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """One device: the plugin's name in the entry-point group `qswitch.devices` and the options it understands.

    An option that starts with ./ or ../ is a path relative to the file.
    """

    interface: int
    plugin: str
    port: int
    device: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AgentConfig:
    file: Path
    node: NodeId
    name: str
    location: str
    repository: RepositoryConfig
    netconf: NetconfConfig
    lkms: LkmsConfig
    etsi004: ServiceConfig
    interfaces: tuple[InterfaceConfig, ...]
    relay_mode: bool = True
    etsi014: Etsi014Config | None = None


class _Table:
    """One TOML table that reports missing, ill-typed and unknown members by name."""

    def __init__(self, file: Path, name: str, data: object) -> None:
        if not isinstance(data, dict):
            raise ConfigurationError(str(file), f"[{name}] must be a table")
        self.file, self.name, self.data, self.seen = file, name, data, set[str]()

    def get[T](self, key: str, kind: type[T], default: T | None = None) -> T:
        self.seen.add(key)
        value = self.data.get(key, default)
        if value is None:
            raise ConfigurationError(str(self.file), f"[{self.name}] lacks '{key}'")
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigurationError(str(self.file), f"[{self.name}] {key}: {value!r} must be of type {kind.__name__}")
        return value

    def path(self, key: str, default: str | None = None) -> Path:
        return self.file.parent / self.get(key, str, default)

    def table(self, key: str) -> "_Table":
        return _Table(self.file, f"{self.name}.{key}".removeprefix("."), self.get(key, object))

    def tables(self, key: str) -> list["_Table"]:
        return [_Table(self.file, f"{self.name}.{key}".removeprefix("."), one) for one in self.get(key, list, [])]

    def endpoint(self) -> Endpoint:
        address, port = self.get("address", str), self.get("port", int)
        if not 0 < port < 65536:
            raise ConfigurationError(str(self.file), f"[{self.name}] port: {port} must be within 1..65535")
        return Endpoint(address, port)

    def node_id(self, key: str) -> NodeId:
        text = self.get(key, str)
        try:
            return NodeId(str(uuid.UUID(text)))
        except ValueError as error:
            raise ConfigurationError(str(self.file), f"[{self.name}] {key}: '{text}' is no UUID") from error

    def tls(self) -> TlsFiles:
        return TlsFiles(self.path("certificate"), self.path("private_key"), self.path("ca"))

    def choice(self, key: str, values: Sequence[str], default: str | None = None) -> str:
        value = self.get(key, str, default)
        if value not in values:
            raise self.wrong(key, f"'{value}' must be one of {', '.join(values)}")
        return value

    def within(self, key: str, least: int, most: int, default: int) -> int:
        value = self.get(key, int, default)
        if not least <= value <= most:
            raise self.wrong(key, f"{value} must be within {least}..{most}")
        return value

    def wrong(self, key: str, rule: str) -> ConfigurationError:
        return ConfigurationError(str(self.file), f"[{self.name}] {key}: {rule}")

    def done(self) -> None:
        if unknown := sorted(set(self.data) - self.seen):
            raise ConfigurationError(str(self.file), f"[{self.name}] has unknown members: {', '.join(unknown)}")


MAX_CAPACITY_BLOCKS = 19_000  # a meeting of the two ends lists them, in one message, whatever is left of which
RECOVERY_USER = "root"  # sysrepo applies no NETCONF access control to a session of this name
ROLES = ("controller", "operator", "monitor")
MAX_KEY_BITS, MAX_KEYS, MAX_REQUEST_BITS = 65_536, 1024, 1 << 22  # of one key, and in one request of 014
MAP_TYPES = ("san-any", "san-rfc822-name", "san-dns-name", "san-ip-address", "common-name")


def load(file: Path) -> AgentConfig:
    """Reads and checks the file. Raises ConfigurationError naming the file, the table, the member and the rule."""
    root = _read(file)
    file, node = root.file, root.table("node")
    config = AgentConfig(
        file=file,
        node=node.node_id("qkdn_id"),
        name=node.get("name", str),
        location=node.get("location", str, ""),
        repository=_repository(node),
        netconf=_netconf(root.table("netconf")),
        lkms=_lkms(root.table("lkms")),
        etsi004=_service(root.table("etsi004")),
        interfaces=tuple(_interface(one) for one in root.tables("interfaces")),
        relay_mode=node.get("relay_mode", bool, True),
        etsi014=_etsi014(root.table("etsi014")) if "etsi014" in root.data else None,
    )
    node.done()
    root.done()
    numbers = [one.interface for one in config.interfaces]
    if twice := sorted({n for n in numbers if numbers.count(n) > 1}):
        raise ConfigurationError(str(file), f"[interfaces] qkdi_id used twice: {twice}")
    return config


def load_front(file: Path) -> FrontConfig:
    """Reads what concerns a NETCONF server, and nothing else. Raises ConfigurationError like `load`."""
    root = _read(file)
    return FrontConfig(_repository(root.table("node")), *_engine(_Table(root.file, "netconf", root.data.get("netconf", {}))))


def _read(file: Path) -> _Table:
    file = file.resolve()
    try:
        return _Table(file, "", tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(str(file), error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(file), f"is no TOML: {error}") from error


def _repository(node: _Table) -> RepositoryConfig:
    return RepositoryConfig(node.path("repository", "sysrepo"), node.get("shm_prefix", str, "sr"))


def _engine(netconf: _Table) -> tuple[Engine, int, tuple[Path, ...]]:
    """The engine, and what only netopeer2 is told: `[netconf.netopeer2]`."""
    name = netconf.get("engine", str, Engine.AUTO)
    if name not in set(Engine):
        problem = f"[netconf] engine: '{name}' must be one of {', '.join(Engine)}"
        raise ConfigurationError(str(netconf.file), problem)
    options = _Table(netconf.file, "netconf.netopeer2", netconf.get("netopeer2", object, {}))
    seconds, folders = options.get("timeout_seconds", int, 30), options.get("modules", list, [])
    options.done()
    return Engine(name), seconds, tuple(netconf.file.parent / str(one) for one in folders)


def _netconf(table: _Table) -> NetconfConfig:
    users = tuple(_netconf_user(one) for one in table.tables("users"))
    config = NetconfConfig(
        listen=table.endpoint(),
        host_key=table.path("host_key", "netconf-host-key"),
        users=users,
        tls=_netconf_tls(table.table("tls"), users) if "tls" in table.data else None,
        call_home=tuple(_call_home(one, "tls" in table.data) for one in table.tables("call_home")),
    )
    _engine(table)  # for the NETCONF server; here only checked
    table.done()
    by_name = config.tls is not None and config.tls.names
    if lost := [one.name for one in users if not (one.public_key or by_name or (config.tls and one.fingerprint))]:
        raise table.wrong("users", f"'{lost[0]}' must have a public_key, or by [netconf.tls] a fingerprint or name")
    names = [one.name for one in config.call_home]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise table.wrong("call_home", f"name used twice: {twice}")
    return config


def _netconf_user(table: _Table) -> NetconfUser:
    name, role = table.get("name", str), table.choice("role", ROLES)
    if name == RECOVERY_USER:
        raise table.wrong("name", f"'{RECOVERY_USER}' is above all access control and no user of a node")
    user = NetconfUser(
        name, table.get("public_key", str, ""), role, table.get("fingerprint", str, "").replace(":", "").lower()
    )
    table.done()
    if user.fingerprint and not re.fullmatch("[0-9a-f]{64}", user.fingerprint):
        raise table.wrong("fingerprint", f"'{user.fingerprint}' must be a SHA-256 in 64 hexadecimal digits")
    return user


def _netconf_tls(table: _Table, users: tuple[NetconfUser, ...]) -> NetconfTls:
    listen = table.endpoint() if {"address", "port"} & table.data.keys() else None
    names = table.choice("names", MAP_TYPES) if "names" in table.data else ""
    tls = NetconfTls(table.tls(), listen, names)
    table.done()
    if not names and not any(user.fingerprint for user in users):
        raise table.wrong("names", "must be there, or a user with a fingerprint: else nobody could come by TLS")
    return tls


def _call_home(table: _Table, tls: bool) -> CallHome:
    client = CallHome(table.get("name", str), table.endpoint(), table.choice("transport", ("ssh", "tls"), "ssh"))
    table.done()
    if client.transport == "tls" and not tls:
        raise table.wrong("transport", "'tls' needs the certificate of [netconf.tls]")
    return client


def _lkms(table: _Table) -> LkmsConfig:
    peers = {}
    for one in table.tables("peers"):
        peers[one.node_id("qkdn_id")] = one.endpoint()
        one.done()
    config = LkmsConfig(
        listen=table.endpoint(),
        tls=table.tls(),
        store=table.path("store", "keys.sqlite"),
        master_key=_master_key(table),
        capacity_blocks=table.within("capacity_blocks", 1, MAX_CAPACITY_BLOCKS, 1000),
        refill_percent=table.within("refill_percent", 1, 100, 80),
        release_ahead=table.within("release_ahead", 0, 31, 0),
        doubt_seconds=table.get("doubt_seconds", float, 10.0),
        ledger=table.get("ledger", bool, False),
        peers=peers,
    )
    table.done()
    return config


def _master_key(table: _Table) -> MasterKeySource:
    """A file, `credential:NAME` or `env:NAME`; a file of such a name is written ./credential:NAME."""
    kind, colon, name = table.get("master_key", str, "master.key").partition(":")
    if not colon or kind not in ("credential", "env"):
        return table.path("master_key", "master.key")
    if kind == "credential":
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise table.wrong("master_key", f"'{name}' cannot be the name of a credential: letters, digits, _ . -")
        return Credential(name)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise table.wrong("master_key", f"'{name}' cannot be the name of a variable: letters, digits, _")
    return Variable(name)


def _service(table: _Table) -> ServiceConfig:
    config = ServiceConfig(table.endpoint(), table.tls())
    table.done()
    return config


def _etsi014(table: _Table) -> Etsi014Config:
    config = Etsi014Config(
        table.endpoint(),
        table.tls(),
        _limits(table),
        table.get("ttl_seconds", float, 3600.0),
        table.get("timeout_seconds", float, 10.0),
        table.get("saes", dict, {}),
    )
    table.done()
    for name in ("ttl_seconds", "timeout_seconds"):
        if getattr(config, name) <= 0:
            raise table.wrong(name, "must be above 0")
    if wrong := sorted(one for one, uri in config.saes.items() if not isinstance(uri, str) or "://" not in uri):
        raise table.wrong("saes", f"'{config.saes[wrong[0]]}' must be a URI, as in qkd://QKDN_ID/NAME")
    return config


LIMITS = {
    "key_size": "key_size",
    "min_key_size": "min_key_size",
    "max_key_size": "max_key_size",
    "max_key_per_request": "number",
    "max_key_count": "stored",
    "max_SAE_ID_count": "slaves",
}


def _limits(table: _Table) -> Limits:
    """By the names that the standard's Status has for them."""
    usual = Limits()
    limits = Limits(**{name: table.get(key, int, getattr(usual, name)) for key, name in LIMITS.items()})
    for key in ("key_size", "min_key_size", "max_key_size"):
        size = getattr(limits, key)
        if size % 8 or not 8 <= size <= MAX_KEY_BITS:
            raise table.wrong(key, f"{size} must be a multiple of 8 within 8..{MAX_KEY_BITS}")
    if not limits.min_key_size <= limits.key_size <= limits.max_key_size:
        raise table.wrong("key_size", f"{limits.key_size} must be within min_key_size and max_key_size")
    if not 1 <= limits.number <= MAX_KEYS:
        raise table.wrong("max_key_per_request", f"{limits.number} must be within 1..{MAX_KEYS}")
    if limits.number * limits.max_key_size > MAX_REQUEST_BITS:
        raise table.wrong(
            "max_key_per_request", f"{limits.number} keys of max_key_size are more than {MAX_REQUEST_BITS} bits"
        )
    if limits.stored < limits.number or limits.slaves < 0:
        key = "max_SAE_ID_count" if limits.slaves < 0 else "max_key_count"
        raise table.wrong(key, "must be 0 or above" if limits.slaves < 0 else "must be max_key_per_request at the least")
    return limits


def _interface(table: _Table) -> InterfaceConfig:
    config = InterfaceConfig(
        interface=table.get("qkdi_id", int),
        plugin=table.get("plugin", str),
        port=table.get("port", int, table.get("qkdi_id", int)),
        device=table.get("device", str, ""),
        options={key: _option(table.file, value) for key, value in table.get("options", dict, {}).items()},
    )
    table.done()
    return config


def _option(file: Path, value: object) -> object:
    """Only the plugin knows which option is a path, so one that starts with ./ or ../ is: relative to this file."""
    return str(file.parent / value) if isinstance(value, str) and value.startswith(("./", "../")) else value
