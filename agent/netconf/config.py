"""Where the server listens, with which host keys, and who may come: standard YANG data of the running datastore.

ietf-netconf-server and ietf-keystore are read in the form that netopeer2 reads too: endpoints with SSH, host keys by
reference to the central keystore, users with inline public keys. Users are read at every log-in, so that a change holds at
once; endpoints and host keys when the server starts.
"""

import base64
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from ..config import RepositoryConfig
from ..errors import ConfigurationError
from .datastore import Datastore

_ENDPOINTS = "/ietf-netconf-server:netconf-server/listen/endpoints/endpoint"
_KEYS = "/ietf-keystore:keystore/asymmetric-keys/asymmetric-key"


@dataclass(frozen=True, slots=True)
class SshEndpoint:
    """One `endpoint` with `ssh`: addresses and host keys (names in the keystore)."""

    name: str
    binds: tuple[tuple[str, int], ...]
    host_keys: tuple[str, ...]


def repository(file: Path) -> RepositoryConfig:
    """Where the node's repository is, from the agent's file: nothing else in it matters here. Raises ConfigurationError."""
    file = file.resolve()
    try:
        node = tomllib.loads(file.read_text(encoding="utf-8")).get("node", {})
    except OSError as error:
        raise ConfigurationError(str(file), error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(file), f"is no TOML: {error}") from error
    if not isinstance(node, dict):
        raise ConfigurationError(str(file), "[node] must be a table")
    path, prefix = node.get("repository", "sysrepo"), node.get("shm_prefix", "sr")
    if not isinstance(path, str) or not isinstance(prefix, str):
        raise ConfigurationError(str(file), "[node] repository and shm_prefix must be of type str")
    return RepositoryConfig(file.parent / path, prefix)


def endpoints(datastore: Datastore) -> tuple[SshEndpoint, ...]:
    """The configured endpoints with SSH."""
    data = datastore.read_own(f"{_ENDPOINTS}/name | {_ENDPOINTS}/ssh")
    return tuple(_endpoint(one) for one in _list(data, "netconf-server", "listen", "endpoints", "endpoint") if "ssh" in one)


def _endpoint(data: Mapping[str, Any]) -> SshEndpoint:
    binds = _list(data, "ssh", "tcp-server-parameters", "local-bind")
    keys = _list(data, "ssh", "ssh-server-parameters", "server-identity", "host-key")
    references = (one.get("public-key", {}).get("central-keystore-reference") for one in keys)
    return SshEndpoint(
        name=data["name"],
        binds=tuple((str(one["local-address"]), int(one.get("local-port", 830))) for one in binds),
        host_keys=tuple(one for one in references if one),
    )


def host_key(datastore: Datastore, name: str) -> asyncssh.SSHKey:
    """A private key of the keystore. Raises ConfigurationError naming it when it is missing or unreadable."""
    data = datastore.read_own(f"{_KEYS}[name='{name}']")
    found = next(iter(_list(data, "keystore", "asymmetric-keys", "asymmetric-key")), {})
    value = found.get("cleartext-private-key")
    if value is None:
        raise ConfigurationError("ietf-keystore", f"there is no asymmetric key '{name}' with a cleartext private key")
    try:
        return _private_key(_binary(value))
    except (asyncssh.KeyImportError, ValueError) as error:
        raise ConfigurationError("ietf-keystore", f"asymmetric key '{name}' is in no known format") from error


def _private_key(der: bytes) -> asyncssh.SSHKey:
    """From DER of PKCS #8, PKCS #1 or SEC 1, or from the body of an OpenSSH key file."""
    if der.startswith(b"openssh-key-v1\0"):
        label = b"OPENSSH PRIVATE KEY-----\n"
        return asyncssh.import_private_key(b"-----BEGIN %b%b-----END %b" % (label, base64.encodebytes(der), label))
    return asyncssh.import_private_key(der)


def user_keys(datastore: Datastore, user: str) -> frozenset[bytes]:
    """The public keys (SSH wire form) that a user may log in with, at any endpoint; none for an unknown user."""
    if "'" in user:
        return frozenset()
    path = f"ssh/ssh-server-parameters/client-authentication/users/user[name='{user}']"
    data = datastore.read_own(f"{_ENDPOINTS}/{path}")
    return frozenset(
        _binary(key["public-key"])
        for endpoint in _list(data, "netconf-server", "listen", "endpoints", "endpoint")
        for one in _list(endpoint, "ssh", "ssh-server-parameters", "client-authentication", "users", "user")
        for key in _list(one, "public-keys", "inline-definition", "public-key")
        if key.get("public-key-format", "").endswith("ssh-public-key-format")
    )


def _list(data: Mapping[str, Any], *path: str) -> Iterator[Mapping[str, Any]]:
    """The entries of a list below containers that may be missing."""
    value: Any = data
    for name in path:
        value = value.get(name, {})
    yield from value


def _binary(value: str | bytes) -> bytes:
    """A YANG `binary`, which the bindings hand over in its base64 form."""
    return base64.b64decode(value)
