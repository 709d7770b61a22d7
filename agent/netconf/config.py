"""Where the server listens and dials, who it is there, and who may come: standard YANG data of the running datastore.

ietf-netconf-server, ietf-keystore and ietf-truststore (RFC 9640 to 9645) become values here, in one blocking read. What
cannot be used is left out of its endpoint and said in words beside it, so that one bad key silences no other.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncssh
import sysrepo
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7
from sysrepo.session import SysrepoSession

from .server import Limits

MODULES = ("ietf-netconf-server", "ietf-keystore", "ietf-truststore")
_DATA = "/ietf-netconf-server:netconf-server | /ietf-keystore:keystore | /ietf-truststore:truststore"
_DEFAULT_PORTS = {"ssh": 830, "tls": 6513}
_KEEP_ALIVES = ("idle-time", "probe-interval", "max-probes")
_ALGORITHMS = ("host-key", "key-exchange", "encryption", "mac")

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ssh:
    """`ssh-server-parameters`: host keys, and users with their public keys in SSH wire form."""

    host_keys: tuple[asyncssh.SSHKey, ...]
    users: Mapping[str, frozenset[bytes]]
    algorithms: Mapping[str, tuple[str, ...]]  # of `transport-params`, by container; empty: the server's own choice
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CertToName:
    """An entry of `cert-to-name` (RFC 7407): hash octet and digest, empty to match every certificate."""

    fingerprint: bytes
    map_type: str
    name: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key and its certificates in DER, the end entity's first."""

    private_key: asyncssh.SSHKey
    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """`tls-server-parameters` and `client-identity-mappings`; certificates in DER."""

    identity: Identity | None
    ca_certs: frozenset[bytes]
    ee_certs: frozenset[bytes]
    mappings: tuple[CertToName, ...]  # in the order in which they are tried
    versions: tuple[str, str] = ("", "")  # least and greatest, as identities; "": the server's own choice
    cipher_suites: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepAlives:
    """When a silent TCP connection is probed, how often, and how many probes may go unanswered."""

    idle_seconds: int = 60
    interval_seconds: int = 10
    probes: int = 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An `endpoint` of `listen` or of a client of `call-home`, and its local or remote addresses."""

    name: str
    transport: str  # ssh or tls
    addresses: tuple[tuple[str, int], ...]
    keep_alives: KeepAlives = field(compare=False)
    access: Ssh | Tls = field(compare=False)


@dataclass(frozen=True, slots=True)
class Client:
    """A `netconf-client` of `call-home`; period 0: the connection is persistent, and never idle."""

    name: str
    endpoints: tuple[Endpoint, ...]
    period_seconds: int
    anchor: datetime | None
    idle_seconds: int
    start_with: str
    max_wait: int
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Configuration:
    endpoints: tuple[Endpoint, ...]
    clients: tuple[Client, ...]
    limits: Limits


def read(session: SysrepoSession) -> Configuration:
    """What the session's datastore says. Blocks. Raises sysrepo.SysrepoError."""
    try:
        data: Data = session.get_data(_DATA, include_implicit_defaults=True)
    except (sysrepo.SysrepoNotFoundError, sysrepo.SysrepoLyError):  # no data, or not even the modules
        data = {}
    server, stores = data.get("netconf-server", {}), _Stores(data)
    listen = server.get("listen", {})
    return Configuration(
        tuple(_endpoint(one, stores) for one in _list(listen, "endpoints", "endpoint") if _transport(one)),
        tuple(_client(one, stores) for one in _list(server, "call-home", "netconf-client")),
        _limits(server.get("session-limits", {}), listen.get("idle-timeout", 0)),
    )


def _limits(data: Data, idle_seconds: int) -> Limits:
    default = Limits()
    return Limits(
        sessions=data.get("sessions", default.sessions),
        sessions_of_user=data.get("sessions-of-user", default.sessions_of_user),
        idle_seconds=idle_seconds,
        hello_seconds=data.get("hello-timeout", default.hello_seconds),
    )


def _transport(data: Data) -> str:
    """Which of our transports an endpoint has; none when it is another's."""
    return next((name for name in _DEFAULT_PORTS if name in data), "")


def _endpoint(data: Data, stores: "_Stores") -> Endpoint:
    transport = _transport(data)
    inside = data[transport]
    server, client = inside.get("tcp-server-parameters", {}), inside.get("tcp-client-parameters", {})
    binds = ((one["local-address"], one.get("local-port", _DEFAULT_PORTS[transport])) for one in _list(server, "local-bind"))
    remote = [(client["remote-address"], client["remote-port"])] if client else []
    probing = server.get("keepalives") or client.get("keepalives")
    return Endpoint(
        name=data["name"],
        transport=transport,
        addresses=(*binds, *remote),
        keep_alives=KeepAlives(*(probing[leaf] for leaf in _KEEP_ALIVES)) if probing else KeepAlives(),
        access=_ssh(inside, stores) if transport == "ssh" else _tls(inside, stores),
    )


def _client(data: Data, stores: "_Stores") -> Client:
    periodic, strategy = data.get("connection-type", {}).get("periodic"), data["reconnect-strategy"]
    anchor = periodic.get("anchor-time") if periodic else None
    return Client(
        name=data["name"],
        endpoints=tuple(_endpoint(one, stores) for one in _list(data, "endpoints", "endpoint")),
        period_seconds=60 * periodic["period"] if periodic else 0,
        anchor=_time(anchor) if anchor else None,
        idle_seconds=periodic["idle-timeout"] if periodic else 0,
        start_with=strategy["start-with"],
        max_wait=strategy["max-wait"],
        max_attempts=strategy["max-attempts"],
    )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


# SSH -----------------------------------------------------------------------------------------------------------------


def _ssh(data: Data, stores: "_Stores") -> Ssh:
    parameters = data.get("ssh-server-parameters", {})
    transport = parameters.get("transport-params", {})
    keys, problems = [], []
    for one in _list(parameters, "server-identity", "host-key"):
        try:
            keys.append(_private_key(stores.key_pair(one.get("public-key", {}))))
        except ValueError as error:
            problems.append(f"host key '{one['name']}': {error}")
    return Ssh(
        host_keys=tuple(keys),
        users={one["name"]: stores.public_keys(one) for one in _list(parameters, "client-authentication", "users", "user")},
        algorithms={name: tuple(_list(transport, name, f"{name}-alg")) for name in _ALGORITHMS},
        problems=tuple(problems),
    )


def _private_key(data: Data) -> asyncssh.SSHKey:
    """From DER of PKCS #8, PKCS #1 or SEC 1, or from the body of an OpenSSH key file. Raises ValueError."""
    if "cleartext-private-key" not in data:
        raise ValueError("there is no such key with a cleartext private key")
    der = _binary(data["cleartext-private-key"])
    try:
        if der.startswith(b"openssh-key-v1\0"):
            label = b"OPENSSH PRIVATE KEY-----\n"
            return asyncssh.import_private_key(b"-----BEGIN %b%b-----END %b" % (label, base64.encodebytes(der), label))
        return asyncssh.import_private_key(der)
    except (asyncssh.KeyImportError, ValueError) as error:
        raise ValueError("the private key is in no known format") from error


# TLS -----------------------------------------------------------------------------------------------------------------


def _tls(data: Data, stores: "_Stores") -> Tls:
    parameters, problems = data.get("tls-server-parameters", {}), list[str]()
    clients, hello = parameters.get("client-authentication", {}), parameters.get("hello-params", {})
    versions = hello.get("tls-versions", {})
    identity = None
    try:
        identity = _identity(stores.certified(parameters.get("server-identity", {}).get("certificate", {})))
    except ValueError as error:
        problems.append(f"server identity: {error}")
    ca_certs, ee_certs = (stores.certificates(clients.get(name, {}), problems) for name in ("ca-certs", "ee-certs"))
    if not ca_certs and not ee_certs:
        problems.append("no client can come: there is no certificate to trust it by")
    mappings = _list(data, "netconf-server-parameters", "client-identity-mappings", "cert-to-name")
    return Tls(
        identity=identity,
        ca_certs=ca_certs,
        ee_certs=ee_certs,
        mappings=tuple(_mapping(one) for one in sorted(mappings, key=lambda one: int(one["id"]))),
        versions=(_identity_name(versions.get("min", "")), _identity_name(versions.get("max", ""))),
        cipher_suites=tuple(_list(hello, "cipher-suites", "cipher-suite")),
        problems=tuple(problems),
    )


def _mapping(data: Data) -> CertToName:
    fingerprint = bytes.fromhex(data.get("fingerprint", "").replace(":", ""))
    return CertToName(fingerprint, _identity_name(data["map-type"]), data.get("name", ""))


def _identity(data: Data) -> Identity:
    key = _private_key(data)
    certificates = _certificates(data.get("cert-data", ""))
    own = key.export_public_key("pkcs8-der")
    ours = [one for one in certificates if _spki(one.public_key()) == own]
    if not ours:
        raise ValueError("the certificate is not of this private key")
    chain = (*ours[:1], *(one for one in certificates if one not in ours))
    return Identity(key, tuple(one.public_bytes(Encoding.DER) for one in chain))


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificates(text: str) -> list[x509.Certificate]:
    """From CMS SignedData as the models say, or from a bare certificate as libnetconf2 has it. Raises ValueError."""
    der = _binary(text)
    try:
        return [x509.load_der_x509_certificate(der)]
    except ValueError:
        pass
    try:
        return pkcs7.load_der_pkcs7_certificates(der)
    except ValueError as error:
        raise ValueError("the certificate is in no known format") from error


class _Stores:
    """Keystore and truststore by name, for what an endpoint has by reference and not in place."""

    def __init__(self, data: Data) -> None:
        self._keys = _named(data, "keystore", "asymmetric-keys", "asymmetric-key")
        self._key_bags = _named(data, "truststore", "public-key-bags", "public-key-bag")
        self._certificate_bags = _named(data, "truststore", "certificate-bags", "certificate-bag")

    def key_pair(self, data: Data) -> Data:
        """Of `inline-or-keystore`."""
        return _inside(data, self._keys, "central-keystore-reference")

    def certified(self, data: Data) -> Data:
        """Of `inline-or-keystore` where a certificate belongs to the key: with `cert-data`."""
        reference = data.get("central-keystore-reference")
        if reference is None:
            return self.key_pair(data)
        key = self._keys.get(reference.get("asymmetric-key"), {})
        return {**key, **_named(key, "certificates", "certificate").get(reference.get("certificate"), {})}

    def public_keys(self, user: Data) -> frozenset[bytes]:
        """Of a user, in SSH wire form."""
        inside = _inside(user.get("public-keys", {}), self._key_bags, "central-truststore-reference")
        return frozenset(_binary(one["public-key"]) for one in _list(inside, "public-key"))

    def certificates(self, data: Data, problems: list[str]) -> frozenset[bytes]:
        """Of `inline-or-truststore`, in DER; what is wrong with others is added to the problems."""
        found = set()
        for one in _list(_inside(data, self._certificate_bags, "central-truststore-reference"), "certificate"):
            try:
                found |= {certificate.public_bytes(Encoding.DER) for certificate in _certificates(one["cert-data"])}
            except ValueError as error:
                problems.append(f"trusted certificate '{one['name']}': {error}")
        return frozenset(found)


def _inside(data: Data, central: Mapping[str | None, Data], reference: str) -> Data:
    """What stands in place, or else in a central store under the name that does."""
    found: Data = data.get("inline-definition") or central.get(data.get(reference), {})
    return found


def _named(data: Data, *path: str) -> dict[str | None, Data]:
    """A list by its keys."""
    return {one["name"]: one for one in _list(data, *path)}


def _list(data: Data, *path: str) -> Iterator[Any]:
    """The entries of a list below containers that may be missing."""
    value: Any = data
    for name in path:
        value = value.get(name, {})
    yield from value


def _identity_name(text: str) -> str:
    """An identity without its module."""
    return text.rpartition(":")[2]


def _binary(value: str) -> bytes:
    """A YANG `binary`, which the bindings hand over in its base64 form."""
    return base64.b64decode(value)
